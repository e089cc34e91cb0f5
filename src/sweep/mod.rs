//! Many plans on many examples, at a cost far below one forward pass each.
//!
//! - `graph`: what the plans share. Every half-step that several plans have behind equal ones runs once.
//! - `jobs`: which half-steps run as one, and which rows of each are computed.
//! - `schedule`: in which order half-steps run, and which together, within a bound on memory, decided before any does.
//! - `memory`: how a budget is divided.
//! - `run`: a chunk of examples through a schedule. Half-steps that wait for the same layer, from any plans and examples,
//!   make one batch; a plan's last step computes only the rows that are scored; plans that are finished share one unembedding.
//! - [`Row`]: what a plan made of an example. [`Summary`] adds rows up, with confidence intervals.
//!
//! A result is bit for bit that of a pass over the plan alone: no row's arithmetic depends on what runs beside it.
//! What examples mean, and where rows are kept, is left to others.

mod cost;
mod graph;
mod jobs;
mod memory;
mod results;
mod row;
mod run;
mod schedule;
mod search;
mod tally;
#[cfg(all(test, feature = "mini"))]
mod tests;

pub use cost::{BlockEvaluations, SweepCost};
pub use results::{ExampleDigest, Results, ResultsError, Saved};
pub use row::Row;
pub use search::{Found, Goal, LayerSet, MAX_EXACT_LAYERS, MAX_LISTED, Measure, Measured, Method, Search, Threshold};
pub use tally::{Estimate, Summary, Tally};

use crate::forward::{Batch, Chunk, ForwardError, Parts, Precision, References, Session, Target, shares};
use crate::model::Model;
use crate::plan::{Plan, PlanShape, StepError};
use graph::{Graph, NodeId};
use jobs::{Jobs, Work};
use memory::MemoryPlan;
use run::{Memory, Run, Setup, Told};
use schedule::{Schedule, Size};
use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::sync::OnceLock;
use thiserror::Error;

/// An example: tokens, some of which are predicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its number, by which rows name it.
    pub number: u64,
    /// All tokens.
    pub ids: Vec<u32>,
    /// Those whose predictions are scored: never the first, which nothing precedes.
    pub scored: Range<usize>,
    /// What plans' modifiers find by name: these alone, not those of a session, for keys of results are made of them.
    pub references: References,
}

impl Example {
    /// Without references.
    pub fn new(number: u64, ids: Vec<u32>, scored: Range<usize>) -> Example {
        Example { number, ids, scored, references: References::default() }
    }

    fn parts(&self) -> Parts<'_> {
        (&self.ids, self.scored.clone(), &self.references)
    }
}

/// What a sweep is to do besides.
#[derive(Clone, Copy, Debug)]
pub struct SweepOptions {
    /// Bytes that a run may take: states, batches, and rows until all of their chunk are there. The model's weights and the
    /// sweep itself (its plans and what they share) are not counted, nor what f64 takes, which goes plan by plan.
    pub memory: usize,
    /// Whether each row gets its divergence from the intact model.
    pub divergence: bool,
    /// Whether each row gets the losses of its single tokens.
    pub token_losses: bool,
}

/// Why a sweep was refused, or ended.
#[derive(Debug, Error)]
pub enum SweepError {
    /// No plans.
    #[error("a sweep needs a plan at least")]
    NoPlans,
    /// A plan names a layer or head that the model does not have.
    #[error("plan {plan}: {source}")]
    Plan {
        /// The plan.
        plan: Plan,
        /// What it names.
        source: StepError,
    },
    /// An example does not fit the model.
    #[error("example {number}: {source}")]
    Example {
        /// Its number.
        number: u64,
        /// Why.
        source: ForwardError,
    },
    /// An example scores nothing, or a token that is not there or that nothing precedes.
    #[error("example {number}: tokens {}..{} of {tokens} can't be scored", scored.start, scored.end)]
    Scored {
        /// Its number.
        number: u64,
        /// What was to be scored.
        scored: Range<usize>,
        /// Its tokens.
        tokens: usize,
    },
    /// The budget is too small.
    #[error("memory: {given} bytes are allowed, example {number} of {tokens} tokens needs about {needed}")]
    Memory {
        /// The example's number.
        number: u64,
        /// Its tokens.
        tokens: usize,
        /// The budget.
        given: usize,
        /// What it would take.
        needed: usize,
    },
    /// f64 has no kernels that could compare distributions.
    #[error("precision f64 gives no divergences")]
    NoDivergence,
    /// The forward pass refused.
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

/// What a sweep tells while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// Rows of plans that are finished on some examples, in no particular order.
    Rows(&'a [Row]),
    /// All rows of these examples are there.
    Examples(&'a [u64]),
    /// FLOP that were done.
    Flop(u64),
}

/// How a sweep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With the last example.
    Complete,
    /// Its caller broke off.
    Cancelled,
}

/// Plans, and what they share.
#[derive(Clone, Debug)]
pub struct Sweep {
    plans: Vec<Plan>,
    options: SweepOptions,
    graph: Graph,
    jobs: Jobs,
    /// The jobs where states that others have rows of have no room, once that happened.
    alone: OnceLock<Jobs>,
    intact: Option<NodeId>,
}

impl Sweep {
    /// A sweep over `plans` for models of this shape.
    ///
    /// # Errors
    /// Where there are none, or one does not fit the shape.
    pub fn new(plans: Vec<Plan>, shape: &PlanShape, options: SweepOptions) -> Result<Sweep, SweepError> {
        if plans.is_empty() {
            return Err(SweepError::NoPlans);
        }
        for plan in &plans {
            plan.validate(shape).map_err(|source| SweepError::Plan { plan: plan.clone(), source })?;
        }
        let intact = Plan::intact(shape.n_layer);
        let mut graph = match options.divergence {
            true => Graph::new(plans.iter().chain([&intact])),
            false => Graph::new(&plans),
        };
        let intact = if options.divergence { graph.ends.pop() } else { None };
        let jobs = Jobs::new(&graph, intact);
        Ok(Sweep { plans, options, graph, jobs, alone: OnceLock::new(), intact })
    }

    /// The plans.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// Gives runs another budget of memory.
    pub fn set_memory(&mut self, bytes: usize) {
        self.options.memory = bytes;
    }

    /// What they cost on each example. (An intact model that is only compared with is part of the shared cost.)
    pub fn cost(&self) -> SweepCost {
        let naive = self.plans.iter().map(|plan| plan.cost().twelfths()).sum();
        SweepCost {
            shared: BlockEvaluations { twelfths: self.graph.twelfths() },
            naive: BlockEvaluations { twelfths: naive },
        }
    }

    /// FLOP that examples take: what [`Event::Flop`] adds up to, unless memory is so short that rows which states have in common
    /// are computed for each.
    ///
    /// # Errors
    /// Where an example can't be scored.
    pub fn flop<'e>(&self, model: &Model, examples: impl IntoIterator<Item = &'e Example>) -> Result<u64, SweepError> {
        let config = model.config();
        // There are many jobs, and few kinds.
        let mut times: HashMap<(Work, usize), u64> = HashMap::new();
        self.jobs.jobs.iter().for_each(|job| *times.entry((job.work, job.start)).or_default() += 1);
        let (finished, mut flop) = (self.finished(), 0);
        let mut examples = examples.into_iter().peekable();
        while let Some(example) = examples.next() {
            // Answers to one prompt run together.
            let mut together = vec![example];
            while let Some(next) =
                examples.next_if(|next| shares(together.iter().map(|example| example.parts()), next.parts()))
            {
                together.push(next);
            }
            let chunk = chunk_of(model, together)?;
            flop += times.iter().map(|(work, times)| times * cost::job_flop(config, &chunk, *work)).sum::<u64>();
            flop += cost::scored_flop(config, chunk.scored_rows() * finished);
        }
        Ok(flop)
    }

    /// The jobs where there is no room to hold the states that others have rows of: every state has all of its rows itself.
    fn jobs_alone(&self) -> Jobs {
        let mut graph = self.graph.clone();
        graph.common.fill(None);
        Jobs::new(&graph, self.intact)
    }

    /// Plans that end on the way of the intact model, itself included, where it is compared with.
    fn early_ends(&self) -> usize {
        let Some(intact) = self.intact else { return 0 };
        let way: Vec<NodeId> = self.jobs.path(intact).iter().map(|&job| self.jobs.jobs[job as usize].to).collect();
        let mut ends: Vec<NodeId> = self.graph.ends.iter().copied().chain([intact]).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.iter().filter(|end| **end == graph::ROOT || way.contains(end)).count()
    }

    /// Different ends of plans.
    fn finished(&self) -> usize {
        let mut ends = self.graph.ends.clone();
        ends.sort_unstable();
        ends.dedup();
        ends.len()
    }

    /// Runs all plans on all examples, in chunks of them. `done` says which rows (plan, example) are not wanted, for they
    /// are there; they may come all the same. `tell` may break off.
    ///
    /// # Errors
    /// Where an example does not fit the model or the memory.
    pub fn run(
        &self,
        session: &mut Session,
        examples: impl IntoIterator<Item = Example>,
        done: &dyn Fn(usize, u64) -> bool,
        tell: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Ended, SweepError> {
        let exact = session.precision() == Precision::F64;
        if exact && self.options.divergence {
            return Err(SweepError::NoDivergence);
        }
        for plan in &self.plans {
            session.check_bridges(plan)?;
        }
        let chunk_rows = if exact { 1 } else { self.chunk_rows(session) };
        let mut memory = Memory::default();
        let mut examples = examples.into_iter().peekable();
        let mut waiting: Vec<Example> = Vec::new();
        while let Some(example) = examples.next() {
            waiting.push(example);
            if examples.peek().is_some_and(|next| self.is_joined_by(&waiting, next, chunk_rows)) {
                continue;
            }
            if self.run_chunk(session, &waiting, done, &mut memory, tell)?.is_break() {
                return Ok(Ended::Cancelled);
            }
            waiting.clear();
        }
        Ok(Ended::Complete)
    }

    /// Runs examples as one chunk, or, where they don't fit the memory together, in halves.
    fn run_chunk(
        &self,
        session: &mut Session,
        examples: &[Example],
        done: &dyn Fn(usize, u64) -> bool,
        memory: &mut Memory,
        tell: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, SweepError> {
        let numbers: Vec<u64> = examples.iter().map(|example| example.number).collect();
        let left: Vec<usize> =
            (0..self.plans.len()).filter(|&plan| numbers.iter().any(|&number| !done(plan, number))).collect();
        let flow = if left.is_empty() {
            Ok(ControlFlow::Continue(()))
        } else if session.precision() == Precision::F64 {
            self.one_by_one(session, examples, &left, tell)
        } else if left.len() < self.plans.len() {
            let mut plans: Vec<Plan> = left.iter().map(|&plan| self.plans[plan].clone()).collect();
            // What is done may have rows of what is not.
            let bases: HashSet<Plan> = plans.iter().filter_map(Plan::before_positions).collect();
            plans.extend(self.plans.iter().filter(|plan| bases.contains(plan)).cloned());
            let sweep = Sweep::new(plans, &session.model().plan_shape(), self.options)?;
            sweep.chunk(session, examples, &left, self.held_bytes(examples) + self.making_bytes(), memory, tell)
        } else {
            self.chunk(session, examples, &left, self.held_bytes(examples), memory, tell)
        };
        match flow {
            Ok(ControlFlow::Continue(())) => Ok(tell(Event::Examples(&numbers))),
            Err(SweepError::Memory { .. }) if examples.len() > 1 => {
                for half in [&examples[..examples.len() / 2], &examples[examples.len() / 2..]] {
                    if self.run_chunk(session, half, done, memory, tell)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
            other => other,
        }
    }

    /// Runs a chunk; `names` are the numbers that plans have in rows. Of the memory, `taken` bytes are others'.
    fn chunk(
        &self,
        session: &mut Session,
        examples: &[Example],
        names: &[usize],
        taken: usize,
        memory: &mut Memory,
        tell: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, SweepError> {
        let chunk = chunk_of(session.model(), examples)?;
        for plan in &self.plans {
            chunk.check_plan(session.model(), plan).map_err(|source| {
                let sequence = if let ForwardError::Modifier { sequence, .. } = source { sequence } else { 0 };
                SweepError::Example { number: examples[chunk.example_of(sequence)].number, source }
            })?;
        }
        let size = Size { all: chunk.rows(), scored: chunk.scored_rows() };
        let mut plans_at: HashMap<NodeId, Vec<usize>> = HashMap::new();
        for (end, &name) in self.graph.ends.iter().zip(names) {
            plans_at.entry(*end).or_default().push(name);
        }
        let taken = taken + self.schedule_bytes() + session.bridges().bytes();
        let left = self.options.memory.saturating_sub(taken);
        let scheduled = |jobs: &Jobs| {
            let plan = self.memory_plan(jobs, session, &chunk, left);
            let first = self.intact.map_or_else(Vec::new, |intact| jobs.path(intact));
            (Schedule::new(jobs, size, plan.bounds, &first), plan)
        };
        let (mut schedule, mut plan) = scheduled(&self.jobs);
        let mut jobs = &self.jobs;
        let is_tight = !plan.fits || schedule.is_err();
        if is_tight && !jobs.bases.is_empty() {
            jobs = self.alone.get_or_init(|| self.jobs_alone());
            (schedule, plan) = scheduled(jobs);
        }
        let MemoryPlan { bounds, fixed, slot, .. } = plan;
        let plans_at_once = bounds.plans;
        let schedule = schedule.map_err(|_| SweepError::Memory {
            number: examples[0].number,
            tokens: examples[0].ids.len(),
            given: self.options.memory,
            needed: taken + fixed + jobs.slots() * slot,
        })?;
        // What chunks of other shapes have left may be in the way of this one.
        if session.memory() + memory.bytes() + fixed + schedule.peak * slot > left {
            session.release_memory();
            *memory = Memory::default();
        }
        let setup = Setup {
            jobs,
            plans_at: &plans_at,
            intact: self.intact,
            token_losses: self.options.token_losses,
            plans_at_once,
            plans_waiting: plans_at_once.max(self.early_ends()),
        };
        let numbers: Vec<u64> = examples.iter().map(|example| example.number).collect();
        let mut tell = |told: Told<'_>| match told {
            Told::Rows(rows) => tell(Event::Rows(rows)),
            Told::Flop(flop) => tell(Event::Flop(flop)),
        };
        Ok(Run::new(&setup, session, &chunk, &numbers, &schedule, memory).run(&mut tell))
    }

    /// Plan by plan, in f64.
    fn one_by_one(
        &self,
        session: &mut Session,
        examples: &[Example],
        plans: &[usize],
        tell: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, SweepError> {
        for example in examples {
            // The same checks as those of a chunk.
            chunk_of(session.model(), std::slice::from_ref(example))?;
            let batch =
                Batch::new([&example.ids[..example.scored.end - 1]]).with_references([example.references.clone()]);
            let targets: Vec<Target> =
                example.scored.clone().map(|i| Target { row: i - 1, id: example.ids[i] }).collect();
            for &plan in plans {
                let scores = session.score(&self.plans[plan], &batch, &targets)?;
                let row = Row::new(plan, example.number, scores, None, self.options.token_losses);
                if tell(Event::Rows(&[row])).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn chunk_of<'e>(
    model: &Model,
    examples: impl IntoIterator<Item = &'e Example, IntoIter: Clone>,
) -> Result<Chunk, SweepError> {
    let examples = examples.into_iter();
    for Example { number, ids, scored, references } in examples.clone() {
        if scored.start == 0 || scored.is_empty() || scored.end > ids.len() {
            return Err(SweepError::Scored { number: *number, scored: scored.clone(), tokens: ids.len() });
        }
        let alone = Chunk::new([(&ids[..], scored.clone(), references)]);
        alone.check(model).map_err(|source| SweepError::Example { number: *number, source })?;
    }
    Ok(Chunk::new(examples.map(Example::parts)))
}
