//! What a sweep takes of memory, and how a budget is divided. All of it is counted beforehand: rows that are held until
//! their chunk is complete, the making of a schedule, batches, scoring; what is left holds states.

use super::jobs::Jobs;
use super::schedule::Bounds;
use super::{Example, Row, Sweep};
use crate::forward::{Chunk, Session, packed_rows};
use crate::plan::Step;

/// Rows of a batch through a layer: enough that packing weights costs little.
const BATCH_ROWS: usize = 2048;

/// Rows of one unembedding, those that others are compared with included.
const SCORED_ROWS: usize = 4096;

/// Rows of a chunk at most, where no single example is longer: what fills batches well.
const CHUNK_ROWS: usize = 1024;

/// The part of the memory that rows of a chunk may take, where no single example's take more.
const ROWS_SHARE: usize = 8;

/// Bytes that making a schedule takes for each job and plan, and the making of a sweep for each half-step and plan (measured:
/// see the tests).
const SCHEDULE_BYTES: (usize, usize) = (192, 192);
const MAKING_BYTES: (usize, usize) = (640, 256);

/// How memory is divided for a chunk.
pub(super) struct MemoryPlan {
    pub(super) bounds: Bounds,
    /// Whether a depth-first run certainly ends within them.
    pub(super) fits: bool,
    /// Bytes besides the states'.
    pub(super) fixed: usize,
    /// Bytes of a state.
    pub(super) slot: usize,
}

impl Sweep {
    /// Rows of a chunk: as many as let a depth-first run keep its states in half of the memory.
    pub(super) fn chunk_rows(&self, session: &Session) -> usize {
        let row = session.model().config().n_embd * size_of::<f32>();
        let slots = self.jobs.slots() - self.jobs.bases.len();
        (self.options.memory / 2 / (row * slots)).clamp(1, CHUNK_ROWS)
    }

    /// Whether an example goes into the chunk of those that wait.
    pub(super) fn is_joined_by(&self, waiting: &[Example], next: &Example, chunk_rows: usize) -> bool {
        let all = || waiting.iter().chain([next]);
        let held = self.held_bytes(waiting) + self.held_bytes(std::slice::from_ref(next));
        packed_rows(all().map(Example::parts)) <= chunk_rows && held <= self.options.memory / ROWS_SHARE
    }

    /// Bytes of the rows of these examples, which callers hold until all are there.
    pub(super) fn held_bytes(&self, examples: &[Example]) -> usize {
        examples.iter().map(|example| self.plans.len() * self.row_bytes(example.scored.len())).sum()
    }

    /// Bytes of a row of so many scored tokens.
    fn row_bytes(&self, scored: usize) -> usize {
        size_of::<Row>() + if self.options.token_losses { scored * size_of::<f64>() + 16 } else { 0 }
    }

    /// Bytes that a schedule takes while it is made.
    pub(super) fn schedule_bytes(&self) -> usize {
        self.jobs.jobs.len() * SCHEDULE_BYTES.0 + self.plans.len() * SCHEDULE_BYTES.1
    }

    /// Bytes that a sweep over some of the plans takes while it is made.
    pub(super) fn making_bytes(&self) -> usize {
        let executions: usize = self.plans.iter().map(|plan| plan.executions().count()).sum();
        let steps = executions * 2 * size_of::<Step>();
        self.graph.nodes.len() * MAKING_BYTES.0 + self.plans.len() * MAKING_BYTES.1 + steps
    }

    /// How `memory` is divided for a chunk: the largest batches that leave room for the states of one and of a depth-first
    /// run behind it; the smallest, if none do.
    pub(super) fn memory_plan(&self, jobs: &Jobs, session: &Session, chunk: &Chunk, memory: usize) -> MemoryPlan {
        let row = session.model().config().n_embd * size_of::<f32>();
        let (scored, slot) = (chunk.scored_rows(), chunk.rows() * row);
        let references = if self.intact.is_some() { scored } else { 0 };
        let plan = |shift: u32| {
            let batch = (BATCH_ROWS >> shift).max(chunk.rows());
            let copies = batch / chunk.rows();
            let plans_at_once = ((SCORED_ROWS >> shift).saturating_sub(references) / scored).max(1);
            let waiting = plans_at_once.max(self.early_ends()) * scored + references;
            let scoring = session.scoring_bytes(plans_at_once * scored + references, references) + waiting * row;
            let passage = session.passage_bytes(batch, copies * chunk.slots()) + session.growth_bytes(batch);
            // Rows that were just scored, the callers' copies of them, and the mean of a group.
            let told = 3 * plans_at_once * chunk.scored().map(|scored| self.row_bytes(scored.len())).sum::<usize>();
            let fixed = passage + scoring + told + slot;
            let slots = memory.saturating_sub(fixed) / slot;
            let fits = slots >= jobs.slots() + copies;
            MemoryPlan { bounds: Bounds { slots, batch, plans: plans_at_once }, fits, fixed, slot }
        };
        let smallest = BATCH_ROWS.ilog2();
        let fitting = (0..smallest).map(plan).find(|plan| plan.fits);
        fitting.unwrap_or_else(|| plan(smallest))
    }
}
