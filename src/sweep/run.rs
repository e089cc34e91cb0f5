//! A chunk of examples through a schedule: states in the slots of one slab, batches through the session, and the scored
//! rows of finished plans through one unembedding for many of them.

use super::cost::{job_flop, scored_flop};
use super::graph::{NodeId, ROOT};
use super::jobs::{Job, Jobs, Work};
use super::row::Row;
use super::schedule::{Schedule, Size};
use crate::forward::{Changed, Chunk, Held, Rows, Session, State};
use lesion_kernels::{Against, Floats};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// What is run, the same for all chunks.
pub(super) struct Setup<'a> {
    pub(super) jobs: &'a Jobs,
    /// The plans that end at each node, but those whose rows are not wanted.
    pub(super) plans_at: &'a HashMap<NodeId, Vec<usize>>,
    /// Where the intact plan ends, if divergences from it are wanted.
    pub(super) intact: Option<NodeId>,
    /// Whether losses of single tokens are wanted.
    pub(super) token_losses: bool,
    /// Plans whose rows are scored together.
    pub(super) plans_at_once: usize,
    /// Plans whose rows wait at most: those that end on the intact model's way wait until it is measured.
    pub(super) plans_waiting: usize,
}

/// What a chunk tells while it runs.
pub(super) enum Told<'a> {
    /// Rows of plans that are finished, on all of the chunk's examples.
    Rows(&'a [Row]),
    /// FLOP that were done.
    Flop(u64),
}

/// Memory that goes from chunk to chunk.
#[derive(Default)]
pub(super) struct Memory {
    slab: Floats,
    finals: Floats,
}

impl Memory {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.slab.bytes() + self.finals.bytes()
    }
}

/// Makes a buffer so long; where it has to grow, the old one goes first.
fn fit(floats: &mut Floats, len: usize) {
    if floats.bytes() < len * size_of::<f32>() {
        *floats = Floats::default();
    }
    floats.resize(len);
}

/// A chunk under way.
pub(super) struct Run<'a> {
    setup: &'a Setup<'a>,
    session: &'a mut Session,
    chunk: &'a Chunk,
    /// The numbers of the chunk's examples.
    numbers: &'a [u64],
    memory: &'a mut Memory,
    schedule: &'a Schedule,
    width: usize,
    size: Size,
    finals: Finals,
}

/// Scored rows of finished plans that wait for their unembedding, behind those of the intact model.
#[derive(Default)]
struct Finals {
    /// Where the plans that wait ended.
    waiting: Vec<NodeId>,
    /// `ln Σ exp` of the intact model's scored rows, once known.
    intact: Option<Vec<f64>>,
    rows: Vec<Row>,
    targets: Vec<u32>,
    of: Vec<u32>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        setup: &'a Setup<'a>,
        session: &'a mut Session,
        chunk: &'a Chunk,
        numbers: &'a [u64],
        schedule: &'a Schedule,
        memory: &'a mut Memory,
    ) -> Run<'a> {
        let width = session.model().config().n_embd;
        let size = Size { all: chunk.rows(), scored: chunk.scored_rows() };
        fit(&mut memory.slab, schedule.peak * size.all * width);
        let waiting = setup.plans_waiting + usize::from(setup.intact.is_some());
        fit(&mut memory.finals, waiting * size.scored * width);
        Run { setup, session, chunk, numbers, memory, schedule, width, size, finals: Finals::default() }
    }

    /// All of it, unless `tell` breaks off.
    pub(super) fn run(mut self, tell: &mut dyn FnMut(Told<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let embedded = self.slot(ROOT);
        self.session.embed(self.chunk, &mut self.memory.slab[embedded]);
        if self.setup.intact == Some(ROOT) || self.setup.plans_at.contains_key(&ROOT) {
            self.finish_stored(ROOT);
        }
        if self.setup.intact == Some(ROOT) {
            self.measure_intact();
        }
        for batch in &self.schedule.batches {
            let jobs: Vec<&Job> = batch.jobs.iter().map(|&job| &self.setup.jobs.jobs[job as usize]).collect();
            if self.finals.waiting.len() + jobs.len() > self.setup.plans_at_once {
                self.score(tell)?;
            }
            match batch.work {
                Work::Mean(rows) => jobs.iter().for_each(|job| self.mean(job, rows)),
                Work::Change(rows) => jobs.iter().for_each(|job| self.change(job, rows)),
                Work::Bridge(rows) => jobs.iter().for_each(|job| self.bridge(job, rows)),
                Work::Pass(_) => self.pass(batch.work, &jobs),
            }
            let config = self.session.model().config();
            let flop = jobs.iter().map(|job| job_flop(config, self.chunk, (job.work, job.start))).sum();
            tell(Told::Flop(flop))?;
            if jobs.iter().any(|job| Some(job.to) == self.setup.intact) {
                self.measure_intact();
            }
        }
        self.score(tell)
    }

    /// Where a node's state is kept, in the slab.
    fn slot(&self, node: NodeId) -> std::ops::Range<usize> {
        let slot = self.schedule.slots[node as usize] as usize * self.size.all * self.width;
        let jobs = self.setup.jobs;
        slot..slot + self.chunk.rows_of(jobs.rows[node as usize], jobs.starts[node as usize]) * self.width
    }

    /// The same, and where the rows before its own are.
    fn held(&self, node: NodeId) -> Held {
        let jobs = self.setup.jobs;
        let (rows, start) = (jobs.rows[node as usize], jobs.starts[node as usize]);
        Held { own: self.slot(node), rows, start, base: jobs.base(node).map(|base| self.slot(base)) }
    }

    /// Whether rows of a plan that ends here are wanted, or the intact model's are as references.
    fn is_wanted(&self, node: NodeId) -> bool {
        self.setup.plans_at.contains_key(&node) || self.setup.intact == Some(node)
    }

    fn pass(&mut self, work: Work, jobs: &[&Job]) {
        let Work::Pass(passage) = work else { return };
        let states: Vec<State> = jobs
            .iter()
            .map(|job| State {
                hidden: self.held(job.from[0]),
                heads: job.heads.map(|heads| self.held(heads)),
                start: job.start,
                changed: changed(job),
            })
            .collect();
        // What only a plan's end needs goes straight to the rows that wait for their unembedding.
        let (mut outputs, mut direct) = (Vec::with_capacity(jobs.len()), Vec::new());
        for job in jobs {
            if job.stored {
                outputs.push(Some(self.slot(job.to)));
            } else {
                outputs.push(None);
                direct.push(job.to);
            }
        }
        let from = self.finals_offset() + self.finals.waiting.len() * self.size.scored * self.width;
        let finals = &mut self.memory.finals[from..from + direct.len() * self.size.scored * self.width];
        self.session.pass_states(passage, self.chunk, &mut self.memory.slab, &states, &outputs, finals);
        self.finals.waiting.extend(direct);
        for job in jobs {
            if job.stored && self.is_wanted(job.to) {
                self.finish_stored(job.to);
            }
        }
    }

    /// The mean of states, summed in their order.
    fn mean(&mut self, job: &Job, rows: Rows) {
        let mut sum = vec![0.0_f32; self.chunk.rows_of(rows, job.start) * self.width];
        for &from in &job.from {
            let mut sum = sum.iter_mut();
            self.rows_of(from, rows, job.start).iter().copied().flatten().zip(&mut sum).for_each(|(h, sum)| *sum += h);
        }
        let n = job.from.len() as f32;
        sum.iter_mut().for_each(|sum| *sum /= n);
        self.keep(job, &sum);
    }

    /// What modifiers make of a state.
    fn change(&mut self, job: &Job, rows: Rows) {
        let mut state = self.rows_of(job.from[0], rows, job.start).concat();
        self.session.change_state(self.chunk, (rows, job.start), job.layer, changed(job), &mut state);
        self.keep(job, &state);
    }

    /// A state behind a bridge.
    fn bridge(&mut self, job: &Job, rows: Rows) {
        let Some(bridge) = &job.bridge else { return };
        let mut state = self.rows_of(job.from[0], rows, job.start).concat();
        self.session.cross_bridge(bridge, &mut state).expect("a state is whole rows");
        self.keep(job, &state);
    }

    /// Rows of a state: those from position `start` on, or the scored ones.
    fn rows_of(&self, node: NodeId, rows: Rows, start: usize) -> Vec<&[f32]> {
        self.chunk.pieces(&self.memory.slab, &self.held(node), rows, start, self.width)
    }

    /// Puts what a job gives where it belongs.
    fn keep(&mut self, job: &Job, state: &[f32]) {
        if job.stored {
            let to = self.slot(job.to);
            self.memory.slab[to].copy_from_slice(state);
            if self.is_wanted(job.to) {
                self.finish_stored(job.to);
            }
        } else {
            let to = self.finals_offset() + self.finals.waiting.len() * state.len();
            self.memory.finals[to..to + state.len()].copy_from_slice(state);
            self.finals.waiting.push(job.to);
        }
    }

    /// Copies the scored rows of a state to those that wait.
    fn finish_stored(&mut self, node: NodeId) {
        let held = self.held(node);
        let mut to = self.finals_offset() + self.finals.waiting.len() * self.size.scored * self.width;
        let Memory { slab, finals } = &mut *self.memory;
        for piece in self.chunk.pieces(slab, &held, Rows::Scored, 0, self.width) {
            finals[to..to + piece.len()].copy_from_slice(piece);
            to += piece.len();
        }
        self.finals.waiting.push(node);
    }

    /// Elements of the references in front of the rows that wait.
    fn finals_offset(&self) -> usize {
        if self.setup.intact.is_some() { self.size.scored * self.width } else { 0 }
    }

    /// Scores the intact model's rows, which wait alone, and keeps them as references. They go on waiting for their own
    /// turn where they are wanted.
    fn measure_intact(&mut self) {
        let len = self.size.scored * self.width;
        let at = self.finals_offset() + (self.finals.waiting.len() - 1) * len;
        let (references, waiting) = self.memory.finals.split_at_mut(len);
        references.copy_from_slice(&waiting[at - len..at]);
        let (scores, _) = self.session.score_rows(references, self.chunk.targets(), None);
        self.finals.intact = Some(scores.iter().map(|score| score.log_sum_exp).collect());
        if !self.setup.plans_at.contains_key(&self.setup.intact.unwrap_or(ROOT)) {
            self.finals.waiting.pop();
        }
    }

    /// Scores all that waits, unless it has nothing to be compared with yet.
    fn score(&mut self, tell: &mut dyn FnMut(Told<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        while !self.finals.waiting.is_empty() && self.finals.intact.is_some() == self.setup.intact.is_some() {
            let plans = self.finals.waiting.len().min(self.setup.plans_at_once);
            self.score_first(plans, tell)?;
            // The others move up.
            let (offset, len) = (self.finals_offset(), self.size.scored * self.width);
            let rest = self.finals.waiting.len() - plans;
            self.memory.finals.copy_within(offset + plans * len..offset + (plans + rest) * len, offset);
            self.finals.waiting.drain(..plans);
        }
        ControlFlow::Continue(())
    }

    fn score_first(&mut self, plans: usize, tell: &mut dyn FnMut(Told<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let Run { setup, session, chunk, finals, size, .. } = self;
        let len = size.scored * self.width;
        let references = if setup.intact.is_some() { size.scored } else { 0 };
        let blocks = plans + usize::from(references > 0);
        finals.targets.clear();
        (0..blocks).for_each(|_| finals.targets.extend_from_slice(chunk.targets()));
        finals.of.clear();
        (0..plans).for_each(|_| finals.of.extend(0..references as u32));
        let against = finals.intact.as_deref().map(|log_sum_exp| Against { log_sum_exp, of: &finals.of });
        let (scores, divergence) = session.score_rows(&self.memory.finals[..blocks * len], &finals.targets, against);
        finals.rows.clear();
        for (i, node) in finals.waiting[..plans].iter().enumerate() {
            let scores = &scores[references + i * size.scored..][..size.scored];
            let divergence = (references > 0).then(|| &divergence[i * size.scored..][..size.scored]);
            for &plan in setup.plans_at.get(node).into_iter().flatten() {
                for (&example, scored) in self.numbers.iter().zip(chunk.scored()) {
                    let divergence = divergence.map(|all| &all[scored.clone()]);
                    finals.rows.push(Row::new(plan, example, &scores[scored], divergence, setup.token_losses));
                }
            }
        }
        // The references that come along are no plan's.
        let flop = scored_flop(session.model().config(), plans * size.scored);
        tell(Told::Rows(&finals.rows))?;
        tell(Told::Flop(flop))
    }
}

/// What changes in a job.
fn changed(job: &Job) -> Changed<'_> {
    Changed { modifiers: &job.changed.modifiers, occurrence: job.changed.occurrence.unwrap_or(0) }
}
