//! [`Session`]: a model, threads and workspace, ready to run plans.

use super::batch::Batch;
use super::bridges::{Bridges, LinearMap};
use super::cache::Cache;
use super::error::ForwardError;
use super::exact;
use super::pass::{Pass, Residual, Tap};
use super::precision::Precision;
use super::references::{self, References};
use super::watch::Watch;
use super::workspace::Workspace;
use crate::model::Model;
use crate::plan::Plan;
use lesion_kernels::{self as kernels, Candidate, Isa, RowScore, Team, TeamError};
use std::ops::Range;
use std::time::Duration;

/// How a session computes.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads; results do not depend on it.
    pub threads: usize,
    /// The instruction set. Across instruction sets results agree within rounding. f64 uses none.
    pub isa: Isa,
    /// The arithmetic.
    pub precision: Precision,
}

impl Default for SessionOptions {
    /// All of the machine: every core it offers, and the widest instruction set, in f32.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(Team::MAX_THREADS);
        SessionOptions { threads, isa: Isa::best(), precision: Precision::F32 }
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
///
/// Scores and logits are lent out of the session's own memory: a pass of a shape seen before allocates nothing (in f64 it
/// does).
pub struct Session {
    pub(super) model: Model,
    pub(super) engine: Engine,
    /// The kernels' passes' buffers.
    pub(super) work: Workspace,
    /// The one sequence of a call that is given ids.
    sequence: Batch,
    found: Found,
    /// What modifiers find by name in sequences that have nothing of their own.
    pub(super) references: References,
    /// What bridges find by name.
    pub(super) bridges: Bridges,
}

/// What passes run on.
pub(super) enum Engine {
    /// The kernels, in f32 or bf16.
    Kernels(Box<Team>),
    /// Plain threads, in f64.
    Exact(rayon::ThreadPool),
}

/// What the last pass was asked for.
#[derive(Default)]
pub(super) struct Found {
    pub(super) scores: Vec<RowScore>,
    /// `[rows, as many as were wanted]`
    greatest: Vec<Candidate>,
    /// `[rows, vocab_size]`
    logits: Vec<f32>,
    /// Nats, of the rows that are compared with others.
    pub(super) divergence: Vec<f64>,
}

/// Who looks on.
#[derive(Default)]
pub(super) struct Taps<'a> {
    /// Sees the residual stream between steps.
    pub(super) residual: Option<Tap<'a>>,
    /// Sees what it asks for inside.
    pub(super) watch: Option<Watch<'a>>,
}

impl<'a> Taps<'a> {
    /// For a pass that doesn't live as long. (What hides behind `dyn` can only be shortened one by one.)
    fn shortened<'b>(self) -> Taps<'b>
    where
        'a: 'b,
    {
        let Taps { residual, watch } = self;
        let residual = residual.map(|tap| tap as Tap<'b>);
        Taps { residual, watch: watch.map(|Watch { wants, see, copy }| Watch { wants, see, copy }) }
    }
}

/// What a pass is asked for, besides what its taps see.
pub(super) enum Wanted<'a> {
    /// And as many of each row's greatest logits.
    Scores(&'a [Target], usize),
    /// Of these rows.
    Logits(Range<usize>),
    Nothing,
}

impl Session {
    /// A session for `model`.
    ///
    /// # Errors
    /// [`ForwardError::Team`] where the threads or the instruction set are not to be had.
    pub fn new(model: &Model, options: SessionOptions) -> Result<Session, ForwardError> {
        let SessionOptions { threads, isa, precision } = options;
        let team = |precision| Team::new(isa, threads).map(|team| Box::new(team.with_precision(precision)));
        let engine = match precision {
            Precision::F32 => Engine::Kernels(team(kernels::Precision::F32)?),
            Precision::Bf16 => Engine::Kernels(team(kernels::Precision::fastest_bf16(isa))?),
            Precision::F64 => Engine::Exact(plain_threads(threads)?),
        };
        Ok(Session {
            model: model.clone(),
            engine,
            work: Workspace::default(),
            sequence: Batch::default(),
            found: Found::default(),
            references: References::NONE,
            bridges: Bridges::NONE,
        })
    }

    /// What kernels run on, the model, the workspace and the results.
    ///
    /// # Panics
    /// In f64, which has no kernels.
    pub(super) fn parts(&mut self) -> (&mut Team, &Model, &mut Workspace, &mut Found) {
        match &mut self.engine {
            Engine::Kernels(team) => (team, &self.model, &mut self.work, &mut self.found),
            Engine::Exact(_) => panic!("f64 has no kernels"),
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The arithmetic.
    pub fn precision(&self) -> Precision {
        match &self.engine {
            Engine::Kernels(team) => match team.precision() {
                kernels::Precision::F32 => Precision::F32,
                kernels::Precision::Bf16 | kernels::Precision::Bf16Pairs => Precision::Bf16,
            },
            Engine::Exact(_) => Precision::F64,
        }
    }

    /// The instruction set in use. f64 is plain Rust: [`Isa::Portable`], whichever was asked for.
    pub fn isa(&self) -> Isa {
        match &self.engine {
            Engine::Kernels(team) => team.isa(),
            Engine::Exact(_) => Isa::Portable,
        }
    }

    /// What results are equal within, bit for bit: the instruction set and the way products are computed.
    pub fn numerics(&self) -> String {
        match &self.engine {
            Engine::Kernels(team) => format!("{} {}", team.isa(), self.arithmetic()),
            Engine::Exact(_) => self.arithmetic().to_owned(),
        }
    }

    /// The way products are computed: the precision, and where there are two ways of bf16 which of them.
    pub fn arithmetic(&self) -> &'static str {
        match &self.engine {
            Engine::Kernels(team) => team.precision().name(),
            Engine::Exact(_) => Precision::F64.name(),
        }
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        match &self.engine {
            Engine::Kernels(team) => team.threads(),
            Engine::Exact(pool) => pool.current_num_threads(),
        }
    }

    /// FLOP/s of f32 FMAs on registers alone, on all threads, measured for about `time`: what passes are bounded by, and
    /// what their time can be told from beforehand. None in f64, which has no kernels.
    pub fn fma_rate(&mut self, time: Duration) -> Option<f64> {
        match &mut self.engine {
            Engine::Kernels(team) => Some(team.fma_rate(time)),
            Engine::Exact(_) => None,
        }
    }

    /// Anonymous memory that the session holds between passes, in bytes.
    pub fn memory(&self) -> usize {
        let Found { scores, greatest, logits, divergence } = &self.found;
        let found = scores.capacity() * size_of::<RowScore>()
            + greatest.capacity() * size_of::<Candidate>()
            + logits.capacity() * size_of::<f32>()
            + divergence.capacity() * size_of::<f64>();
        let scratch = match &self.engine {
            Engine::Kernels(team) => team.scratch_bytes(),
            Engine::Exact(_) => 0,
        };
        found + self.work.bytes() + scratch
    }

    /// Scores rows of `batch` under `plan`: each target's log-probability, rank and the entropy beside it, in the order
    /// of `targets`. The logits are never stored (f64 holds those of 64 rows at a time).
    ///
    /// # Errors
    /// Where batch, plan or targets do not fit the model.
    pub fn score(&mut self, plan: &Plan, batch: &Batch, targets: &[Target]) -> Result<&[RowScore], ForwardError> {
        Ok(self.score_top(plan, batch, targets, 0)?.0)
    }

    /// [`Session::score`], and beside it the `count` greatest logits of each row in descending order, of equals the lower
    /// id first: `[targets, count]`. f64 orders them before it rounds them to f32.
    ///
    /// # Errors
    /// As there.
    pub fn score_top(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        targets: &[Target],
        count: usize,
    ) -> Result<(&[RowScore], &[Candidate]), ForwardError> {
        if let Some(&Target { row, .. }) = targets.iter().find(|target| target.row >= batch.rows()) {
            return Err(ForwardError::Row { row, rows: batch.rows() });
        }
        let sequence = |row| batch.spans.partition_point(|span| span.first_row <= row) - 1;
        self.check_wanted(count, targets.iter().map(|&Target { row, id }| (sequence(row), id)))?;
        self.pass(plan, batch, None, Taps::default(), Wanted::Scores(targets, count))?;
        Ok((&self.found.scores, &self.found.greatest))
    }

    /// The logits of the last token of `ids`, `[vocab_size]`.
    ///
    /// # Errors
    /// Where ids or plan do not fit the model.
    pub fn logits(&mut self, plan: &Plan, ids: &[u32]) -> Result<&[f32], ForwardError> {
        self.logits_of(plan, None, ids, ids.len().saturating_sub(1)..ids.len())
    }

    /// The logits of every token of `ids`, `[ids.len(), vocab_size]`: for those who really want them.
    ///
    /// # Errors
    /// Where ids or plan do not fit the model.
    pub fn all_logits(&mut self, plan: &Plan, ids: &[u32]) -> Result<&[f32], ForwardError> {
        self.logits_of(plan, None, ids, 0..ids.len())
    }

    /// The logits of the last of `ids`, `[vocab_size]`, which go on where `cache` stands; their keys and values join it.
    ///
    /// # Errors
    /// Where ids or plan do not fit the model or the cache.
    pub fn extend(&mut self, plan: &Plan, cache: &mut Cache, ids: &[u32]) -> Result<&[f32], ForwardError> {
        self.logits_of(plan, Some(cache), ids, ids.len().saturating_sub(1)..ids.len())
    }

    /// Runs `plan` and shows `tap` the residual stream before the first step and after each, in f32.
    ///
    /// # Errors
    /// Where batch or plan do not fit the model.
    pub fn residuals(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        mut tap: impl FnMut(Residual<'_>) + Send,
    ) -> Result<(), ForwardError> {
        self.pass(plan, batch, None, Taps { residual: Some(&mut tap), watch: None }, Wanted::Nothing)
    }

    /// `ln_f(h) · wteᵀ` of states from anywhere, `[rows, n_embd]`: logits, `[rows, vocab_size]`. Of a plan's final states they
    /// are the plan's, bit for bit (f64 starts from states that a tap rounded to f32). Of states in between they are the logit
    /// lens (nostalgebraist 2020): what the model would say if it stopped there, LayerNorm having each row's own statistics.
    ///
    /// # Errors
    /// [`ForwardError::States`] where they are not whole rows.
    pub fn unembed(&mut self, states: &[f32]) -> Result<&[f32], ForwardError> {
        self.check_states(states)?;
        let Session { model, engine, work, found, sequence, .. } = self;
        match engine {
            Engine::Kernels(team) => team.enter(|kernels| {
                Pass::new(kernels, model, sequence, None, work).unembed(states, &mut found.logits);
            }),
            Engine::Exact(pool) => pool.install(|| {
                let rows = states.len() / model.config().n_embd;
                exact::Pass::of_states(model, sequence, states).logits(0..rows, &mut found.logits);
            }),
        }
        Ok(&self.found.logits)
    }

    /// `h · A + b` of states from anywhere, `[rows, n_embd]`, in their place.
    ///
    /// # Errors
    /// [`ForwardError::States`] where they are not whole rows, [`ForwardError::MapWidth`] where the map is not as wide.
    pub fn cross(&mut self, map: &LinearMap, states: &mut [f32]) -> Result<(), ForwardError> {
        self.check_states(states)?;
        let width = self.model.config().n_embd;
        if map.width() != width {
            return Err(ForwardError::MapWidth { map: map.width(), width });
        }
        let Session { model, engine, work, sequence, .. } = self;
        match engine {
            Engine::Kernels(team) => team.enter(|kernels| {
                let mut pass = Pass::new(kernels, model, sequence, None, work);
                pass.take(&[&*states]);
                pass.cross(map);
                states.copy_from_slice(&pass.work.hidden);
            }),
            Engine::Exact(pool) => {
                pool.install(|| exact::Pass::of_states(model, sequence, states).crossed(map, states))
            }
        }
        Ok(())
    }

    /// What [`Session::score_top`] gives, of states from anywhere, `[targets, n_embd]`.
    ///
    /// # Errors
    /// Where states and targets don't fit together or the model.
    pub fn score_states(
        &mut self,
        states: &[f32],
        targets: &[u32],
        count: usize,
    ) -> Result<(&[RowScore], &[Candidate]), ForwardError> {
        let rows = self.check_states(states)?;
        if rows != targets.len() {
            return Err(ForwardError::Row { row: targets.len(), rows });
        }
        self.check_wanted(count, targets.iter().map(|&id| (0, id)))?;
        let Session { model, engine, work, found, sequence, .. } = self;
        let Found { scores, greatest, .. } = found;
        match engine {
            Engine::Kernels(team) => team.enter(|kernels| {
                Pass::new(kernels, model, sequence, None, work).score_states(states, targets, count, scores, greatest);
            }),
            Engine::Exact(pool) => pool.install(|| {
                let targets: Vec<Target> = targets.iter().enumerate().map(|(row, &id)| Target { row, id }).collect();
                exact::Pass::of_states(model, sequence, states).score(&targets, count, scores, greatest);
            }),
        }
        Ok((&self.found.scores, &self.found.greatest))
    }

    /// Whole rows, as many as there are.
    fn check_states(&self, states: &[f32]) -> Result<usize, ForwardError> {
        let width = self.model.config().n_embd;
        match states.len().is_multiple_of(width) {
            true => Ok(states.len() / width),
            false => Err(ForwardError::States { len: states.len(), width }),
        }
    }

    /// As many greatest logits, and these ids of these sequences.
    fn check_wanted(&self, count: usize, ids: impl Iterator<Item = (usize, u32)>) -> Result<(), ForwardError> {
        let vocab_size = self.model.config().vocab_size;
        if count > vocab_size {
            return Err(ForwardError::Greatest { count, vocab_size });
        }
        for (sequence, id) in ids {
            if id as usize >= vocab_size {
                return Err(ForwardError::Token { sequence, id, vocab_size });
            }
        }
        Ok(())
    }

    /// The logits of `rows` of the one sequence `ids`, which goes on behind the cache's tokens.
    fn logits_of(
        &mut self,
        plan: &Plan,
        mut cache: Option<&mut Cache>,
        ids: &[u32],
        rows: Range<usize>,
    ) -> Result<&[f32], ForwardError> {
        let mut batch = std::mem::take(&mut self.sequence);
        batch.become_continuation(ids, cache.as_ref().map_or(0, |cache| cache.tokens));
        let passed = self.pass(plan, &batch, cache.as_deref_mut(), Taps::default(), Wanted::Logits(rows));
        self.sequence = batch;
        passed?;
        if let Some(cache) = cache {
            cache.tokens += ids.len();
        }
        Ok(&self.found.logits)
    }

    /// One entry into the threads: the pass over the plan, then what is wanted of it, left in `found`.
    pub(super) fn pass(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        cache: Option<&mut Cache>,
        taps: Taps<'_>,
        wanted: Wanted<'_>,
    ) -> Result<(), ForwardError> {
        plan.validate(&self.model.plan_shape())?;
        batch.check(self.model.config())?;
        references::check(self.model.config(), plan, batch, &self.references)?;
        self.bridges.check(plan, self.model.config().n_embd)?;
        if let Some(cache) = &cache {
            cache.check(&self.model, self.precision(), plan, cache.tokens + batch.rows())?;
        }
        let Session { model, engine, work, found, references, bridges, .. } = self;
        match engine {
            Engine::Kernels(team) => team.enter(|kernels| {
                let mut pass = Pass::new(kernels, model, batch, cache, work);
                pass.run(plan.steps(), references, bridges, taps.shortened());
                match wanted {
                    Wanted::Scores(targets, count) => {
                        pass.score(targets, count, &mut found.scores, &mut found.greatest);
                    }
                    Wanted::Logits(rows) => pass.logits(rows, &mut found.logits),
                    Wanted::Nothing => {}
                }
            }),
            Engine::Exact(pool) => pool.install(|| {
                let mut pass = exact::Pass::new(model, batch, cache);
                pass.run(plan.steps(), references, bridges, taps.shortened());
                match wanted {
                    Wanted::Scores(targets, count) => {
                        pass.score(targets, count, &mut found.scores, &mut found.greatest);
                    }
                    Wanted::Logits(rows) => pass.logits(rows, &mut found.logits),
                    Wanted::Nothing => {}
                }
            }),
        }
        Ok(())
    }
}

/// As many threads as a team would have, for work that is no kernel.
pub(crate) fn plain_threads(threads: usize) -> Result<rayon::ThreadPool, TeamError> {
    if !(1..=Team::MAX_THREADS).contains(&threads) {
        return Err(TeamError::Threads(threads));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("lesion-f64-{i}")).build();
    pool.map_err(|why| TeamError::Spawn(threads, why))
}
