//! What a plan changes in the predictions of a text, token by token: losses, ranks and divergences beside the intact
//! model's, and the tokens that became more and less likely.

use super::MeasureError;
use crate::forward::{Batch, Session};
use crate::plan::Plan;

/// Logits that are held at a time, of each of two plans.
pub(super) const LOGITS: usize = 1 << 22;

/// What a model predicts in one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// `−ln p` of the token that follows, nats; NaN where the text ends.
    pub nll: f64,
    /// Tokens that are strictly likelier than the one that follows; 0 where the text ends.
    pub rank: u32,
    /// Entropy, nats.
    pub entropy: f64,
    /// The likeliest token; of equals the lowest id, and 0 where all are NaN.
    pub likeliest: u32,
}

/// A token that became more or less likely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The token.
    pub id: u32,
    /// The difference of its logits: corrupted less intact.
    pub logit: f64,
    /// That of its log-probabilities, nats.
    pub log_probability: f64,
    /// Its probability under the intact model and under the plan.
    pub probability: [f64; 2],
}

/// By what changes are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOrder {
    /// The difference of probabilities: what a reader of samples would notice.
    Probability,
    /// That of log-probabilities: dominated by tokens that are unlikely under both.
    LogProbability,
    /// That of logits: free of what the other tokens do.
    Logit,
}

impl ChangeOrder {
    fn key(self, change: &Change) -> f64 {
        match self {
            ChangeOrder::Probability => change.probability[1] - change.probability[0],
            ChangeOrder::LogProbability => change.log_probability,
            ChangeOrder::Logit => change.logit,
        }
    }
}

/// One place of a text under two models: the predictions behind the tokens up to `position`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shift {
    /// The last token that both have seen.
    pub position: usize,
    /// The token that follows; none where the text ends.
    pub next: Option<u32>,
    /// The intact model's prediction.
    pub intact: Prediction,
    /// The plan's.
    pub corrupted: Prediction,
    /// `KL(intact ‖ corrupted)`, nats.
    pub divergence: f64,
    /// Tokens that gained most, the most first; only such as gained. NaN is neither gain nor loss.
    pub gained: Vec<Change>,
    /// Tokens that lost most.
    pub lost: Vec<Change>,
}

/// What `plan` changes behind each token of `ids`, with the `count` greatest changes both ways.
///
/// Probabilities are computed in f64 from f32 logits: losses agree with [`super::token_losses`] within f32's rounding, not
/// bit for bit. Two plans with equal logits change exactly nothing.
///
/// # Errors
/// Where ids or plan do not fit the model.
pub fn shifts(
    session: &mut Session,
    plan: &Plan,
    ids: &[u32],
    count: usize,
    order: ChangeOrder,
) -> Result<Vec<Shift>, MeasureError> {
    let config = session.model().config();
    let (width, vocab_size) = (config.n_embd, config.vocab_size);
    let intact = final_states(session, &Plan::intact(config.n_layer), ids)?;
    let corrupted = final_states(session, plan, ids)?;
    let rows = (LOGITS / vocab_size).max(1);
    let mut shifts = Vec::with_capacity(ids.len());
    for (intact, corrupted) in intact.chunks(rows * width).zip(corrupted.chunks(rows * width)) {
        let before = session.unembed(intact)?.to_vec();
        let after = session.unembed(corrupted)?;
        for (before, after) in before.chunks_exact(vocab_size).zip(after.chunks_exact(vocab_size)) {
            let position = shifts.len();
            shifts.push(shift(position, ids.get(position + 1).copied(), [before, after], count, order));
        }
    }
    Ok(shifts)
}

/// The residual stream behind a plan's last step, `[ids.len(), n_embd]`.
fn final_states(session: &mut Session, plan: &Plan, ids: &[u32]) -> Result<Vec<f32>, MeasureError> {
    let mut states = Vec::new();
    session.residuals(plan, &Batch::new([ids]), |residual| {
        if residual.steps == plan.steps().len() {
            states.extend_from_slice(residual.hidden);
        }
    })?;
    Ok(states)
}

fn shift(position: usize, next: Option<u32>, logits: [&[f32]; 2], count: usize, order: ChangeOrder) -> Shift {
    let log_probabilities = logits.map(log_softmax);
    let [intact, corrupted] = [0, 1].map(|i| prediction(logits[i], &log_probabilities[i], next));
    let [before, after] = &log_probabilities;
    let change = |id: usize| Change {
        id: id as u32,
        logit: f64::from(logits[1][id]) - f64::from(logits[0][id]),
        log_probability: after[id] - before[id],
        probability: [before[id].exp(), after[id].exp()],
    };
    let mut changes: Vec<Change> = (0..before.len()).map(change).filter(|change| !order.key(change).is_nan()).collect();
    let mut most = |sign: f64| {
        let by = |a: &Change, b: &Change| (sign * order.key(b)).total_cmp(&(sign * order.key(a))).then(a.id.cmp(&b.id));
        if count > 0 && count < changes.len() {
            changes.select_nth_unstable_by(count, by);
        }
        let mut most: Vec<Change> = changes.iter().take(count).copied().collect();
        most.sort_by(by);
        most.retain(|change| sign * order.key(change) > 0.0);
        most
    };
    let (gained, lost) = (most(1.0), most(-1.0));
    Shift { position, next, intact, corrupted, divergence: divergence(before, after), gained, lost }
}

/// `KL(p ‖ q)` of log-probabilities, nats.
pub(crate) fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(&p, &q)| if p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) }).sum()
}

/// `ln softmax`, in f64.
pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, |max, logit| if logit > max { logit } else { max });
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - f64::from(max)).exp()).sum();
    let log_sum_exp = f64::from(max) + sum.ln();
    logits.iter().map(|&logit| f64::from(logit) - log_sum_exp).collect()
}

pub(super) fn prediction(logits: &[f32], log_probabilities: &[f64], next: Option<u32>) -> Prediction {
    let next = next.map(|id| id as usize);
    let mut likeliest = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[likeliest] || logits[likeliest].is_nan() && !logit.is_nan() {
            likeliest = id;
        }
    }
    let term = |&log: &f64| if log == f64::NEG_INFINITY { 0.0 } else { -log.exp() * log };
    Prediction {
        nll: next.map_or(f64::NAN, |next| -log_probabilities[next]),
        rank: next.map_or(0, |next| logits.iter().filter(|&&logit| logit > logits[next]).count() as u32),
        entropy: log_probabilities.iter().map(term).sum(),
        likeliest: likeliest as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_small_vocabulary_by_hand() {
        // Probabilities 1/2, 1/4, 1/4 become 1/4, 1/4, 1/2.
        let (two, four) = (0.5_f32.ln(), 0.25_f32.ln());
        let found = shift(3, Some(0), [&[two, four, four], &[four, four, two]], 2, ChangeOrder::Probability);
        assert_eq!((found.position, found.next), (3, Some(0)));
        assert!((found.intact.nll - 2_f64.ln()).abs() < 1e-7 && (found.corrupted.nll - 4_f64.ln()).abs() < 1e-7);
        assert_eq!((found.intact.rank, found.corrupted.rank), (0, 1));
        assert_eq!((found.intact.likeliest, found.corrupted.likeliest), (0, 2));
        assert!((found.intact.entropy - 1.5 * 2_f64.ln()).abs() < 1e-7);
        // ½ ln 2 + ¼ ln 1 + ¼ ln ½
        assert!((found.divergence - 0.25 * 2_f64.ln()).abs() < 1e-7);
        assert_eq!(found.gained.iter().map(|change| change.id).collect::<Vec<_>>(), [2]);
        assert_eq!(found.lost.iter().map(|change| change.id).collect::<Vec<_>>(), [0]);
        let gain = found.gained[0];
        assert!((gain.logit - 2_f64.ln()).abs() < 1e-6 && (gain.log_probability - 2_f64.ln()).abs() < 1e-6);
        assert!((gain.probability[0] - 0.25).abs() < 1e-7 && (gain.probability[1] - 0.5).abs() < 1e-7);
    }

    #[test]
    fn nan_is_a_result_and_no_change() {
        let found = shift(0, Some(1), [&[0.0, 1.0], &[f32::NAN, 1.0]], 5, ChangeOrder::Logit);
        assert!(found.corrupted.nll.is_nan() && found.divergence.is_nan() && found.corrupted.entropy.is_nan());
        assert_eq!(found.corrupted.likeliest, 1);
        assert!(found.gained.is_empty() && found.lost.is_empty(), "{found:?}");
        let ended = shift(1, None, [&[0.0, 1.0], &[0.0, 1.0]], 5, ChangeOrder::LogProbability);
        assert!(
            ended.intact.nll.is_nan() && ended.divergence == 0.0 && ended.gained.is_empty() && ended.lost.is_empty()
        );
    }

    #[cfg(feature = "mini")]
    #[test]
    fn shifts_agree_with_losses() {
        use crate::forward::SessionOptions;
        use crate::model::Model;
        let model = Model::mini().unwrap();
        let mut session = Session::new(&model, SessionOptions::default()).unwrap();
        let ids = model.encode("The capital of Spain is Madrid.").unwrap();
        let plan = model.plan("skip 5").unwrap();
        let found = shifts(&mut session, &plan, &ids, 3, ChangeOrder::Probability).unwrap();
        assert_eq!(found.len(), ids.len());
        for (plan, of) in [("0..12", false), ("skip 5", true)] {
            let losses = super::super::token_losses(&mut session, &model.plan(plan).unwrap(), &[&ids]).unwrap();
            for (shift, loss) in found.iter().zip(&losses[0]) {
                let nll = if of { shift.corrupted.nll } else { shift.intact.nll };
                assert!((nll - loss).abs() < 1e-5, "{nll} {loss}");
            }
        }
        assert!(found.iter().all(|shift| shift.divergence > 0.0 && !shift.gained.is_empty()));
        let none = shifts(&mut session, &model.plan("0..12").unwrap(), &ids, 3, ChangeOrder::Probability).unwrap();
        assert!(none.iter().all(|shift| shift.divergence == 0.0 && shift.gained.is_empty() && shift.lost.is_empty()));
    }
}
