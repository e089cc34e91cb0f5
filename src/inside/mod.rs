//! Experiments inside the model that are sweeps of modified plans on one pair of runs: a clean one, and one that is corrupted by
//! other tokens, another plan or noise. Thin, on top of [`Sweep`]: here plans are written down and scores made of losses.
//!
//! - [`PatchGrid`]: what of one run, put into the other, brings its behaviour along (activation patching).
//! - [`PathPatch`]: what a head does to another one, or to the logits, on a given way (path patching).
//! - [`Trace`]: which states carry a fact through a noised subject (causal tracing).
//!
//! All numbers are f64. A [`Metric`] is in logits or nats; a pair of runs is measured where their prompts end.

mod keep;
mod patch;
mod path;
#[cfg(all(test, feature = "mini"))]
mod tests;
mod trace;

pub use keep::Keep;
pub use patch::{Cells, Direction, Grid, GridRow, PatchGrid};
pub use path::{PathPatch, Receiver, Through};
pub use trace::{Trace, Traced, TracedCell, noise_level};

use crate::forward::{Activations, ForwardError, Precision, References, Session};
use crate::plan::{MAX_FAMILY_EXECUTIONS, MAX_PLANS, Plan, Site, StepError};
use crate::sweep::{Ended, Event, Example, Sweep, SweepCost, SweepError, SweepOptions};
use keep::Losses;
use std::cell::RefCell;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use thiserror::Error;

/// Tokens under a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The prompt's tokens.
    pub ids: Vec<u32>,
    /// What runs.
    pub plan: Plan,
    /// What the plan's modifiers find by name.
    pub references: References,
}

impl Run {
    /// Without references.
    pub fn new(ids: Vec<u32>, plan: Plan) -> Run {
        Run { ids, plan, references: References::NONE }
    }

    /// Its references, and another under a name that none of them has.
    fn with_reference(&self, name: &str, activations: Activations) -> Result<References, InsideError> {
        let mut references = self.references.clone();
        if references.get(name).is_some() {
            return Err(InsideError::Name { name: name.to_owned() });
        }
        references.insert(name, Arc::new(activations));
        Ok(references)
    }
}

/// What a run is measured by, behind its prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// `logit(answer) − logit(other)` of the token that comes next. It is `ln p(answer) − ln p(other)`: two losses.
    LogitDifference {
        /// The token that the clean run should say.
        answer: u32,
        /// The one to compare with.
        other: u32,
    },
    /// `−ln p` of an answer, summed over its tokens, nats. What is patched at all positions is patched at those of the answer's
    /// tokens, too, all but the last of which run.
    Nll {
        /// The answer.
        answer: Vec<u32>,
    },
}

/// Why an experiment was refused, or ended.
#[derive(Debug, Error)]
pub enum InsideError {
    /// Positions of the two runs do not correspond.
    #[error("the clean run has {clean} tokens, the corrupted one {corrupted}: patching takes as many")]
    Lengths {
        /// Tokens of the clean prompt.
        clean: usize,
        /// Of the corrupted one.
        corrupted: usize,
    },
    /// Nothing precedes the answer.
    #[error("a prompt without tokens predicts nothing")]
    NoTokens,
    /// Nothing is scored.
    #[error("an answer without tokens has no loss")]
    NoAnswer,
    /// There are no such tokens.
    #[error("positions {}..{} of {tokens} tokens", positions.start, positions.end)]
    Positions {
        /// The positions.
        positions: Range<usize>,
        /// Tokens of the prompt.
        tokens: usize,
    },
    /// The site is not divided into heads.
    #[error("{} is not divided into heads: q, k, v, pattern and z are", site.word())]
    NoHeads {
        /// The site.
        site: Site,
    },
    /// What is patched in would hide what the plan patches in.
    #[error("a reference named {name}: so is what is patched in here")]
    Name {
        /// The name.
        name: String,
    },
    /// No execution can be patched.
    #[error(
        "plan {plan}: nothing passes {} that runs exactly once in the other run, {other}", site.word()
    )]
    NoRows {
        /// The plan that would be patched.
        plan: Plan,
        /// The plan of the run that activations come from.
        other: Plan,
        /// The site.
        site: Site,
    },
    /// There is no way from layer to layer.
    #[error("plan {plan}: paths are traced where no layer runs twice, without groups and bridges")]
    NoPath {
        /// The plan.
        plan: Plan,
    },
    /// Heads don't take it in.
    #[error("{} is nothing that heads take in: q, k and v are", site.word())]
    NoReceiver {
        /// The site.
        site: Site,
    },
    /// The receiving layer's heads don't run.
    #[error("plan {plan}: no attention of layer {layer} runs, so that its heads receive nothing")]
    NoReceiving {
        /// The plan.
        plan: Plan,
        /// The layer.
        layer: usize,
    },
    /// Nothing leads there.
    #[error("plan {plan}: no head runs before the receiver")]
    NoSender {
        /// The plan.
        plan: Plan,
    },
    /// Noise would be drawn for each branch.
    #[error("plan {plan}: noise is added before the first block, and this begins with {}", if plan.is_empty() { "none" } else { "a group" })]
    NoFirst {
        /// The plan.
        plan: Plan,
    },
    /// A standard deviation that is none.
    #[error("σ = {0}: a standard deviation is finite and not negative")]
    Sigma(f64),
    /// Nothing is drawn, or nothing is restored.
    #[error("{what}: 0 is too few")]
    None {
        /// What there is none of.
        what: &'static str,
    },
    /// Too many plans.
    #[error(
        "{plans} plans of {executions} blocks: {MAX_PLANS} plans and {MAX_FAMILY_EXECUTIONS} blocks in all are possible"
    )]
    Size {
        /// Plans.
        plans: u128,
        /// Executions of each.
        executions: usize,
    },
    /// A plan can't be changed so.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The forward pass refused.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The sweep refused.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// Its caller broke off.
    #[error("broken off")]
    Cancelled,
}

/// What an experiment may take.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Bytes for states and batches ([`SweepOptions::memory`]).
    pub memory: usize,
    /// Asked now and then: whether to break off.
    pub stop: &'a dyn Fn() -> bool,
    /// Where results are kept, if they are.
    pub keep: Option<&'a RefCell<dyn Keep + 'a>>,
}

impl Metric {
    fn check(&self) -> Result<(), InsideError> {
        match self {
            Metric::Nll { answer } if answer.is_empty() => Err(InsideError::NoAnswer),
            _ => Ok(()),
        }
    }

    /// Tokens that run behind the prompt.
    fn behind(&self) -> &[u32] {
        match self {
            Metric::LogitDifference { .. } => &[],
            Metric::Nll { answer } => &answer[..answer.len() - 1],
        }
    }

    /// What is scored behind a prompt; `numbers` is the first number.
    fn examples(&self, prompt: &[u32], references: &References, numbers: u64) -> Vec<Example> {
        let answers: Vec<&[u32]> = match self {
            Metric::LogitDifference { answer, other } => {
                vec![std::slice::from_ref(answer), std::slice::from_ref(other)]
            }
            Metric::Nll { answer } => vec![answer],
        };
        let example = |(number, answer): (u64, &[u32])| {
            let ids = [prompt, answer].concat();
            let scored = prompt.len()..ids.len();
            Example { references: references.clone(), ..Example::new(number, ids, scored) }
        };
        (numbers..).zip(answers).map(example).collect()
    }

    /// What the losses of the examples make.
    fn of(&self, nll: &[f64]) -> f64 {
        match (self, nll) {
            (Metric::LogitDifference { .. }, [answer, other]) => other - answer,
            _ => nll.iter().sum(),
        }
    }
}

/// Below this, a difference of logits or nats is rounding: twice what a single value may be off by, against f64.
pub fn noise_floor(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 2e-3,
        Precision::Bf16 => 4e-2,
        Precision::F64 => 1e-9,
    }
}

/// What plans make of one prompt.
struct Measured {
    /// By plan.
    values: Vec<f64>,
    /// On the prompt.
    cost: SweepCost,
}

/// Runs plans on a prompt, as one sweep.
fn measure(
    session: &mut Session,
    plans: Vec<Plan>,
    prompt: &[u32],
    references: &References,
    metric: &Metric,
    limits: Limits<'_>,
) -> Result<Measured, InsideError> {
    swept(session, plans, prompt, std::slice::from_ref(references), metric, limits)
}

/// Runs a plan on a prompt with each of these references, as one sweep.
fn measure_each(
    session: &mut Session,
    plan: Plan,
    prompt: &[u32],
    references: &[References],
    metric: &Metric,
    limits: Limits<'_>,
) -> Result<Measured, InsideError> {
    swept(session, vec![plan], prompt, references, metric, limits)
}

/// Values by plan, by references.
fn swept(
    session: &mut Session,
    plans: Vec<Plan>,
    prompt: &[u32],
    references: &[References],
    metric: &Metric,
    limits: Limits<'_>,
) -> Result<Measured, InsideError> {
    let count = plans.len();
    let options = SweepOptions { memory: limits.memory, divergence: false, token_losses: false };
    let sweep = Sweep::new(plans, &session.model().plan_shape(), options)?;
    let mut examples: Vec<Example> = Vec::new();
    for references in references {
        examples.extend(metric.examples(prompt, references, examples.len() as u64));
    }
    let answers = examples.len() / references.len().max(1);
    let there = match limits.keep.map(|keep| keep.borrow_mut().expect(sweep.plans(), &examples)) {
        Some(ControlFlow::Break(())) => return Err(InsideError::Cancelled),
        Some(ControlFlow::Continue(rows)) => rows,
        None => Vec::new(),
    };
    let losses = RefCell::new(Losses::new(count, examples.len(), &there));
    let is_there = |plan: usize, example: u64| losses.borrow().is_there(plan, example);
    let ended = sweep.run(session, examples, &is_there, &mut |event| {
        if let Event::Rows(rows) = event {
            let new = losses.borrow_mut().take(rows);
            if let Some(keep) = limits.keep {
                keep.borrow_mut().append(&new)?;
            }
        }
        if (limits.stop)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match ended {
        Ended::Complete => {
            let losses = losses.into_inner().nll;
            let values = losses.iter().flat_map(|losses| losses.chunks(answers.max(1))).map(|nll| metric.of(nll));
            Ok(Measured { values: values.collect(), cost: sweep.cost().times(references.len()) })
        }
        Ended::Cancelled => Err(InsideError::Cancelled),
    }
}

/// Refuses more plans than are ever run.
fn check_size(plans: u128, executions: usize) -> Result<(), InsideError> {
    let all = plans.saturating_mul(executions as u128);
    if plans > MAX_PLANS || all > MAX_FAMILY_EXECUTIONS { Err(InsideError::Size { plans, executions }) } else { Ok(()) }
}
