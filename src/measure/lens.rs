//! The logit lens (nostalgebraist 2020): what the model would say if it stopped after a step.
//!
//! `ln_f(h) · wteᵀ` of every residual state of a pass, LayerNorm having each row's own statistics. The last row of the grid
//! is the model's own prediction.

use super::MeasureError;
use super::shift::{LOGITS, Prediction, divergence, log_softmax, prediction};
use crate::forward::{Batch, LinearMap, Session, Shortcuts};
use crate::plan::{Execution, Part, Plan, Step};

/// A residual state, read as a prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LensCell {
    /// What it predicts.
    pub prediction: Prediction,
    /// The probability of the likeliest token.
    pub probability: f64,
    /// `KL(final ‖ here)`, nats: how far it is from what the plan's end says in the same place.
    pub divergence: f64,
}

/// The states behind each of a plan's steps (0: the embedding, before any), read behind each token of `ids`:
/// `[steps + 1][ids.len()]`.
///
/// Probabilities are computed in f64 from f32 logits.
///
/// # Errors
/// Where ids or plan do not fit the model.
pub fn logit_lens(session: &mut Session, plan: &Plan, ids: &[u32]) -> Result<Vec<Vec<LensCell>>, MeasureError> {
    read(session, plan, ids, &|_| Ok(None))
}

/// The same through a lens: each state goes through the map from the layer that would come next to the final state (the tuned
/// lens of Belrose et al. 2023). The last row of the grid is read so, too, unless the last layer ran last; divergences
/// are from what the plan itself says.
///
/// # Errors
/// Where ids, plan or maps do not fit the model, or the lens has no map for a state: behind a group or an attention half there is
/// none.
pub fn tuned_lens(
    session: &mut Session,
    plan: &Plan,
    ids: &[u32],
    lens: &Shortcuts,
) -> Result<Vec<Vec<LensCell>>, MeasureError> {
    let to = session.model().config().n_layer;
    let map = |steps: usize| {
        let last = steps.checked_sub(1).map(|last| &plan.steps()[last]);
        let from = match last {
            None => Some(0),
            Some(Step::Block(Execution { part: Part::Attention, .. }) | Step::Group(_)) => None,
            Some(Step::Block(execution)) => Some(execution.layer + 1),
            Some(Step::Bridge(bridge)) => Some(bridge.to),
        };
        let found = from.and_then(|from| lens.get(from, to));
        match found {
            Some(map) => Ok(Some(map.as_ref())),
            None if from == Some(to) => Ok(None),
            None => {
                let step = last.map_or("embed".to_owned(), Step::to_string);
                Err(MeasureError::NoMap { step, from, to })
            }
        }
    };
    read(session, plan, ids, &map)
}

/// The map for the state behind so many steps; none reads it as it is.
type MapOf<'a> = dyn Fn(usize) -> Result<Option<&'a LinearMap>, MeasureError> + 'a;

fn read(session: &mut Session, plan: &Plan, ids: &[u32], map: &MapOf<'_>) -> Result<Vec<Vec<LensCell>>, MeasureError> {
    let maps = (0..=plan.steps().len()).map(map).collect::<Result<Vec<_>, _>>()?;
    let config = session.model().config();
    let (width, vocab_size) = (config.n_embd, config.vocab_size);
    let mut states: Vec<Vec<f32>> = Vec::with_capacity(plan.steps().len() + 1);
    session.residuals(plan, &Batch::new([ids]), |residual| states.push(residual.hidden.to_vec()))?;
    let mut grid = vec![Vec::with_capacity(ids.len()); states.len()];
    // A block of rows of the end, then the same rows of every state.
    let rows = (LOGITS / vocab_size).max(1);
    for first in (0..ids.len()).step_by(rows) {
        let block = first * width..ids.len().min(first + rows) * width;
        let last = states.last().map_or(&[][..], |states| &states[block.clone()]);
        let ends: Vec<Vec<f64>> = session.unembed(last)?.chunks_exact(vocab_size).map(log_softmax).collect();
        for ((cells, states), map) in grid.iter_mut().zip(&states).zip(&maps) {
            let mut states = states[block.clone()].to_vec();
            if let Some(map) = map {
                session.cross(map, &mut states)?;
            }
            let logits = session.unembed(&states)?;
            for ((logits, end), position) in logits.chunks_exact(vocab_size).zip(&ends).zip(first..) {
                let here = log_softmax(logits);
                let prediction = prediction(logits, &here, ids.get(position + 1).copied());
                let probability = here[prediction.likeliest as usize].exp();
                cells.push(LensCell { prediction, probability, divergence: divergence(end, &here) });
            }
        }
    }
    Ok(grid)
}

#[cfg(all(test, feature = "mini"))]
mod tests {
    use super::*;
    use crate::forward::SessionOptions;
    use crate::measure::token_losses;
    use crate::model::Model;

    #[test]
    fn the_lens_at_a_step_is_the_model_that_stops_there() {
        let model = Model::mini().unwrap();
        let mut session = Session::new(&model, SessionOptions::default()).unwrap();
        let ids = model.encode("The capital of Spain is Madrid.").unwrap();
        let grid = logit_lens(&mut session, &model.plan("0..12").unwrap(), &ids).unwrap();
        assert_eq!((grid.len(), grid[0].len()), (13, ids.len()));
        for (layers, cells) in grid.iter().enumerate() {
            let plan = model.plan(&format!("keep-first {layers}")).unwrap();
            let losses = &token_losses(&mut session, &plan, &[&ids]).unwrap()[0];
            for (cell, loss) in cells.iter().zip(losses) {
                assert!((cell.prediction.nll - loss).abs() < 1e-5, "{layers} layers: {cell:?} {loss}");
            }
            assert!(cells.iter().all(|cell| cell.probability > 0.0 && cell.divergence >= 0.0));
        }
        assert!(grid[12].iter().all(|cell| cell.divergence == 0.0));
        let logits = session.all_logits(&model.plan("0..12").unwrap(), &ids).unwrap();
        let greatest = logits
            .chunks(model.config().vocab_size)
            .map(|row| (0..row.len()).fold(0, |best, id| if row[id] > row[best] { id } else { best }) as u32);
        assert!(greatest.eq(grid[12].iter().map(|cell| cell.prediction.likeliest)));
    }
}
