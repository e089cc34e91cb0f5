//! [`Session`]: a model, threads and workspace, ready to run plans.

use super::batch::Batch;
use super::cache::Cache;
use super::error::ForwardError;
use super::pass::{Pass, Residual, Tap};
use super::workspace::Workspace;
use crate::model::Model;
use crate::plan::Plan;
use lesion_kernels::{Isa, RowScore, Team};

/// How a session computes.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads; results do not depend on it.
    pub threads: usize,
    /// The instruction set. Across instruction sets results agree within rounding.
    pub isa: Isa,
}

impl Default for SessionOptions {
    /// All of the machine: every core it offers, and the widest instruction set.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(Team::MAX_THREADS);
        SessionOptions { threads, isa: Isa::best() }
    }
}

/// A row to be scored, and what it should have predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The row in the batch.
    pub row: usize,
    /// The token that comes next.
    pub id: u32,
}

/// A model with threads and workspace of its own. Make one, and run many plans.
pub struct Session {
    model: Model,
    team: Team,
    work: Workspace,
}

impl Session {
    /// A session for `model`.
    ///
    /// # Errors
    /// [`ForwardError::Team`] where the threads or the instruction set are not to be had.
    pub fn new(model: &Model, options: SessionOptions) -> Result<Session, ForwardError> {
        let team = Team::new(options.isa, options.threads)?;
        Ok(Session { model: model.clone(), team, work: Workspace::default() })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.team.isa()
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Anonymous memory that the session holds between passes, in bytes.
    pub fn memory(&self) -> usize {
        self.work.bytes() + self.team.scratch_bytes()
    }

    /// Scores rows of `batch` under `plan`: each target's log-probability, rank and the entropy beside it, in the order
    /// of `targets`. The logits are never stored.
    ///
    /// # Errors
    /// Where batch, plan or targets do not fit the model.
    pub fn score(&mut self, plan: &Plan, batch: &Batch, targets: &[Target]) -> Result<Vec<RowScore>, ForwardError> {
        let vocab_size = self.model.config().vocab_size;
        for &Target { row, id } in targets {
            if row >= batch.rows() {
                return Err(ForwardError::Row { row, rows: batch.rows() });
            }
            if id as usize >= vocab_size {
                let sequence = batch.spans.partition_point(|span| span.first_row <= row) - 1;
                return Err(ForwardError::Token { sequence, id, vocab_size });
            }
        }
        self.work.targets.clear();
        self.work.targets.extend(targets.iter().map(|target| target.id));
        self.pass(plan, batch, None, None, |pass| pass.score(targets.iter().map(|target| target.row)))?;
        Ok(self.work.scores.clone())
    }

    /// The logits of the last token of `ids`, `[vocab_size]`.
    ///
    /// # Errors
    /// Where ids or plan do not fit the model.
    pub fn logits(&mut self, plan: &Plan, ids: &[u32]) -> Result<Vec<f32>, ForwardError> {
        self.pass(plan, &Batch::new([ids]), None, None, |pass| pass.logits([ids.len() - 1]))
    }

    /// The logits of every token of `ids`, `[ids.len(), vocab_size]`: for those who really want them.
    ///
    /// # Errors
    /// Where ids or plan do not fit the model.
    pub fn all_logits(&mut self, plan: &Plan, ids: &[u32]) -> Result<Vec<f32>, ForwardError> {
        self.pass(plan, &Batch::new([ids]), None, None, |pass| pass.logits(0..ids.len()))
    }

    /// The logits of the last of `ids`, which go on where `cache` stands; their keys and values join it.
    ///
    /// # Errors
    /// Where ids or plan do not fit the model or the cache.
    pub fn extend(&mut self, plan: &Plan, cache: &mut Cache, ids: &[u32]) -> Result<Vec<f32>, ForwardError> {
        let batch = Batch::continuation(ids, cache.tokens);
        batch.check(self.model.config())?;
        cache.check(&self.model, plan, cache.tokens + ids.len())?;
        let logits = self.pass(plan, &batch, Some(cache), None, |pass| pass.logits([ids.len() - 1]))?;
        cache.tokens += ids.len();
        Ok(logits)
    }

    /// Runs `plan` and shows `tap` the residual stream before the first step and after each.
    ///
    /// # Errors
    /// Where batch or plan do not fit the model.
    pub fn residuals(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        mut tap: impl FnMut(Residual<'_>) + Send,
    ) -> Result<(), ForwardError> {
        self.pass(plan, batch, None, Some(&mut tap), |_| ())
    }

    /// One entry into the thread pool: the pass over the plan, then `then`.
    fn pass<R: Send>(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        cache: Option<&mut Cache>,
        tap: Option<Tap<'_>>,
        then: impl FnOnce(&mut Pass<'_, '_, '_>) -> R + Send,
    ) -> Result<R, ForwardError> {
        let config = self.model.config();
        plan.validate(&self.model.plan_shape())?;
        batch.check(config)?;
        let Session { model, team, work } = self;
        Ok(team.enter(|kernels| {
            let mut pass = Pass::new(kernels, model, batch, cache, work);
            pass.run(plan.steps(), tap);
            then(&mut pass)
        }))
    }
}
