//! Causal tracing (Meng et al. 2022, *Locating and Editing Factual Associations in GPT*): a subject's tokens are drowned in noise,
//! then one state of the clean run at a time is put back under the same noise. What brings the answer back carries it.
//!
//! Noise is added to the embeddings of the subject's tokens: at [`Site::Pre`] of the first execution. A cell's *indirect effect* is
//! `p(answer | restored) − p(answer | noised)`, the *total effect* `p(answer) − p(answer | noised)`; both are means over seeds.

use super::patch::{GridRow, activations};
use super::{InsideError, Limits, Measured, Metric, Run, check_size, measure};
use crate::forward::Session;
use crate::model::Model;
use crate::plan::{Action, Finite, Modifier, Plan, Site, Step};
use crate::sweep::{Estimate, SweepCost};
use std::ops::Range;

/// The name under which modifiers find the clean run.
const CLEAN: &str = "clean";

/// The seed of the intervals' resamples.
const RESAMPLES: u64 = 0;

/// A causal trace of an answer.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The clean run. No layer runs twice in it.
    pub run: Run,
    /// The answer: its probability is what is measured.
    pub answer: Vec<u32>,
    /// The subject's tokens, which are noised.
    pub subject: Range<usize>,
    /// The noise's standard deviation.
    pub sigma: f64,
    /// How many times noise is drawn: seeds 0, 1, ….
    pub seeds: u64,
    /// What is restored.
    pub site: Site,
    /// In how many executions in a row it is: those from `window / 2` before a row's own on, cut off at the plan's ends.
    pub window: usize,
    /// The positions that are restored, one at a time.
    pub positions: Range<usize>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// Executions that are in the middle of what is restored.
    pub rows: Vec<GridRow>,
    /// Positions.
    pub columns: Range<usize>,
    /// `p(answer)`.
    pub clean: f64,
    /// `p(answer | noised)`, over seeds.
    pub noised: Estimate,
    /// `p(answer) − p(answer | noised)`, over seeds.
    pub total: Estimate,
    /// By row, by column.
    pub cells: Vec<Vec<TracedCell>>,
    /// Block evaluations of all.
    pub cost: SweepCost,
}

/// What restoring a state does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TracedCell {
    /// `p(answer | restored)`, the mean over seeds.
    pub restored: f64,
    /// `p(answer | restored) − p(answer | noised)` under the same noise, over seeds.
    pub effect: Estimate,
}

/// Three times the standard deviation of the token embeddings, over all elements of all of the vocabulary's: the convention of
/// Meng et al., who took the tokens of their subjects.
pub fn noise_level(model: &Model) -> f64 {
    let embeddings = model.parameters().wte.to_f32();
    let n = embeddings.len() as f64;
    let mean = embeddings.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    3.0 * (embeddings.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n).sqrt()
}

impl Trace {
    /// Runs it: the clean run once, with its activations kept, then all seeds and cells as one sweep.
    ///
    /// # Errors
    /// Where there are no such tokens, a plan that begins with a group or runs a layer twice, a window or seeds that are none, or the
    /// caller broke off.
    pub fn run(&self, session: &mut Session, limits: Limits<'_>) -> Result<Traced, InsideError> {
        let sigma = self.check()?;
        let metric = Metric::Nll { answer: self.answer.clone() };
        metric.check()?;
        let plan = &self.run.plan;
        plan.validate(&session.model().plan_shape())?;
        let rows: Vec<GridRow> = plan.executions().map(|placed| GridRow::new(&placed)).collect();
        let passes: Vec<GridRow> = rows.iter().filter(|row| self.site.is_in(row.part)).cloned().collect();
        if passes.is_empty() {
            return Err(InsideError::NoRows { plan: plan.clone(), other: plan.clone(), site: self.site });
        }
        let cells = passes.len() * self.positions.len();
        let plans = u128::from(self.seeds) * (cells as u128 + 1) + 1;
        check_size(plans, rows.len())?;
        let clean = activations(session, &self.run, &metric, &passes, self.site)?;
        let references = self.run.with_reference(CLEAN, clean)?;
        let mut plans = vec![plan.clone()];
        for seed in 0..self.seeds {
            self.add_plans(&mut plans, &rows, &passes, sigma, seed)?;
        }
        let Measured { values, cost } = measure(session, plans, &self.run.ids, &references, &metric, limits)?;
        Ok(self.of(passes, &values, cost))
    }

    /// σ, if all is as it should be.
    fn check(&self) -> Result<Finite, InsideError> {
        let Trace { run: Run { ids, plan, .. }, subject, positions, .. } = self;
        for positions in [subject, positions] {
            if positions.is_empty() || positions.end > ids.len() {
                return Err(InsideError::Positions { positions: positions.clone(), tokens: ids.len() });
            }
        }
        if !matches!(plan.steps().first(), Some(Step::Block(_))) {
            return Err(InsideError::NoFirst { plan: plan.clone() });
        }
        for (what, count) in [("seeds", self.seeds), ("window", self.window as u64)] {
            if count == 0 {
                return Err(InsideError::None { what });
            }
        }
        Finite::new(self.sigma).filter(|_| self.sigma >= 0.0).ok_or(InsideError::Sigma(self.sigma))
    }

    /// The noised plan of a seed, and behind it those of its cells.
    fn add_plans(
        &self,
        plans: &mut Vec<Plan>,
        rows: &[GridRow],
        passes: &[GridRow],
        sigma: Finite,
        seed: u64,
    ) -> Result<(), InsideError> {
        let noise = Modifier {
            action: Action::Noise { sigma, seed },
            site: Site::Pre,
            units: Vec::new(),
            positions: Some(self.subject.clone()),
        };
        let noised = self.run.plan.with_modifiers(&[(0, noise)])?;
        plans.push(noised.clone());
        for row in passes {
            let window = self.window_around(row.index, rows.len());
            for position in self.positions.clone() {
                let restored = passes.iter().filter(|other| window.contains(&other.index));
                let patches = restored.map(|other| (other.index, self.restore(position)));
                plans.push(noised.with_modifiers(&patches.collect::<Vec<_>>())?);
            }
        }
        Ok(())
    }

    pub(super) fn window_around(&self, index: usize, executions: usize) -> Range<usize> {
        let first = index.saturating_sub(self.window / 2);
        first..index.saturating_add(self.window - self.window / 2).min(executions)
    }

    fn restore(&self, position: usize) -> Modifier {
        Modifier {
            action: Action::Patch { from: CLEAN.to_owned() },
            site: self.site,
            units: Vec::new(),
            positions: Some(position..position + 1),
        }
    }

    /// Effects, of the losses of all plans.
    fn of(&self, rows: Vec<GridRow>, nll: &[f64], cost: SweepCost) -> Traced {
        let p: Vec<f64> = nll.iter().map(|nll| (-nll).exp()).collect();
        let seeds: Vec<&[f64]> = p[1..].chunks(1 + rows.len() * self.positions.len()).collect();
        let over = |of: &dyn Fn(&[f64]) -> f64| -> Estimate {
            let values: Vec<f64> = seeds.iter().map(|p| of(p)).collect();
            Estimate::of_mean(&values, RESAMPLES)
        };
        let cell = |i: usize| TracedCell { restored: over(&|p| p[1 + i]).value, effect: over(&|p| p[1 + i] - p[0]) };
        let columns = self.positions.len();
        Traced {
            cells: (0..rows.len()).map(|row| (0..columns).map(|c| cell(row * columns + c)).collect()).collect(),
            rows,
            columns: self.positions.clone(),
            clean: p[0],
            noised: over(&|noised| noised[0]),
            total: over(&|noised| p[0] - noised[0]),
            cost,
        }
    }
}
