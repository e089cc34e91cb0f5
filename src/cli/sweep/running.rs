//! A sweep under way: results that are there already, progress, interruption, and rows in the order of their examples.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lesion::forward::{Precision, Session};
use lesion::model::Model;
use lesion::plan::Plan;
use lesion::store::{NewExperiment, Wanted};
use lesion::sweep::{Ended, Event, Example, ExampleDigest, Row, Sweep, SweepCost, SweepError, SweepOptions};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::args::{ExampleArgs, MemorySize, Shard};
use super::inputs::{Inputs, Placed};
use super::kept::{Kept, KeptIn};
use super::memory::memory_for;
use super::plans::Plans;
use super::progress::{Progress, announcement};
use super::rows::SummaryRecord;
use crate::cli::args::ModelArgs;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::output::{SCHEMA_VERSION, note, size};
use crate::cli::{forward_failure, keep, model, signals};

/// How long the machine's speed is measured for, to say beforehand how long a sweep takes.
const SPEED_TIME: Duration = Duration::from_millis(20);

/// The share of that speed that sweeps reach, about.
const SPEED_SHARE: f64 = 0.8;

/// What is run.
pub(crate) struct Running<'a> {
    pub(crate) plans: &'a Plans,
    /// Their memory is found here.
    pub(crate) options: SweepOptions,
    pub(crate) memory: Option<MemorySize>,
    pub(crate) examples: &'a ExampleArgs,
    /// Bytes that whoever takes the rows of an example goes on holding.
    pub(crate) held: usize,
    pub(crate) shard: Option<Shard>,
    /// Where results are kept.
    pub(crate) keep: Keep<'a>,
}

/// Where results are to be kept.
pub(crate) enum Keep<'a> {
    Nowhere,
    File(&'a Path),
    /// In this store, under this name or one that is made for them.
    Store {
        path: PathBuf,
        name: Option<&'a str>,
    },
}

/// All rows of an example.
pub(crate) struct Finished<'a> {
    pub(crate) group: usize,
    /// Its number in its task.
    pub(crate) index: u64,
    /// The intact model's row.
    pub(crate) intact: &'a Row,
    /// By plan.
    pub(crate) rows: &'a [Row],
}

/// Takes each example's rows, in the order of examples.
pub(crate) type Take<'a> = dyn FnMut(Finished<'_>) -> Result<()> + 'a;

/// How a sweep ended.
pub(crate) struct Outcome {
    pub(crate) summary: SummaryRecord,
    pub(crate) kept_in: KeptIn,
}

impl Running<'_> {
    /// Runs all of it.
    pub(crate) fn run(
        &self,
        mut session: Session,
        mut inputs: Inputs<'_>,
        model_args: &ModelArgs,
        take: &mut Take<'_>,
    ) -> Result<Outcome> {
        let start = Instant::now();
        let model = session.model().clone();
        // The intact model is the last of the plans that are run, whether or not it is one of those asked for.
        let mut plans = self.plans.plans.clone();
        plans.push(Plan::intact(model.plan_shape().n_layer));
        let key = self.key(&model::identity(&model)?, &session.numerics());
        let groups = inputs.names();
        let names = json!(groups).to_string();
        let known = if inputs.are_read() { Some(read_all(&mut inputs)?) } else { None };
        let seen = known.as_ref().map(|_| inputs.seen().1);
        let kept = self.kept(&session, model_args, &key, &plans, &groups, seen.as_deref())?;
        let sweep = Sweep::new(plans, &model.plan_shape(), self.options);
        let mut sweep = sweep.map_err(|error| sweep_failure(&error))?;
        let held = self.divide_memory(&mut sweep, known.as_ref().map(Vec::len), &kept)?;
        // f64 goes plan by plan, and does not count its FLOP.
        let exact = session.precision() == Precision::F64;
        let counted = known.as_ref().filter(|_| !exact);
        let flop = counted.map(|known| flop_left(&sweep, &model, known, &kept)).transpose()?;
        let speed = session.fma_rate(SPEED_TIME).map(|rate| rate * SPEED_SHARE);
        let seconds = flop.zip(speed).map(|(flop, speed)| flop as f64 / speed);
        let naive = self.naive(sweep.cost(), &model);
        let shared = if exact { naive } else { sweep.cost().shared.blocks() };
        note(announcement(self.plans, shared, naive, known.as_ref().map(Vec::len), seconds));

        let gathering = Gathering::new(&model, model_args, kept, groups, held, sweep.plans().len(), flop);
        let gathering = RefCell::new(gathering);
        let mut known = known.map(Vec::into_iter);
        let examples = std::iter::from_fn(|| {
            let next = known.as_mut().map_or_else(|| inputs.next(), |known| Ok(known.next()));
            gathering.borrow_mut().expect(next)
        });
        let is_there = |plan: usize, example: u64| gathering.borrow().kept.contains(plan, example);
        let ended = sweep.run(&mut session, examples, &is_there, &mut |event| gathering.borrow_mut().hear(event, take));
        let gathering = gathering.into_inner();
        let (count, tokens, computed) = (gathering.examples, gathering.tokens, gathering.computed);
        let (all_examples, examples) = inputs.seen();
        let kept_in = gathering.end(ended, all_examples)?;

        let asked = self.plans.plans.len();
        let shard = self.shard.unwrap_or(Shard { index: 0, count: 1 });
        let summary = SummaryRecord {
            schema_version: SCHEMA_VERSION,
            // What rows call their tasks is part of them.
            key: sha256(&[&key, &examples, &names]),
            model: model.name().to_owned(),
            numerics: numerics(&session, computed, &kept_in.isas),
            bos: self.examples.bos.wanted(),
            plans: asked,
            examples: count,
            all_examples,
            block_evaluations: shared,
            naive_block_evaluations: naive,
            scored_positions: tokens * asked as u64,
            computed_rows: computed,
            seconds: start.elapsed().as_secs_f64(),
            threads: session.threads(),
            shard: format!("{}/{}", shard.index, shard.count),
            experiment: kept_in.experiment.clone(),
        };
        Ok(Outcome { summary, kept_in })
    }

    /// What is there already, and what takes more. `seen` stands for the examples, where they are known.
    fn kept(
        &self,
        session: &Session,
        model_args: &ModelArgs,
        key: &str,
        plans: &[Plan],
        groups: &[String],
        seen: Option<&str>,
    ) -> Result<Kept> {
        let (path, name) = match &self.keep {
            Keep::Nowhere => return Ok(Kept::nowhere()),
            Keep::File(path) => return Kept::file(path, key, plans.len()),
            Keep::Store { path, name } => (path, *name),
        };
        let families: Vec<String> = self.plans.families.iter().map(|members| members.family.to_string()).collect();
        let ExampleArgs { limit, window, stride, bos, .. } = self.examples;
        let spec = json!({
            "bos": bos.wanted(),
            "examples": seen,
            "families": families,
            "limit": limit,
            "sources": groups,
            "stride": stride,
            "window": window,
        });
        let SweepOptions { divergence, token_losses, .. } = self.options;
        let experiment =
            NewExperiment { name, kind: "sweep", spec, intact: plans.len() - 1, plans: self.plans.plans.len() };
        let wanted = Wanted { divergence, token_losses };
        let recorder =
            keep::begin(keep::open(path)?, session, model_args, plans, wanted, Some(&experiment), Instant::now());
        recorder.map(Kept::store)
    }

    /// Divides the memory between the sweep, what keeps its results, and whoever takes them and goes on holding some.
    fn divide_memory(&self, sweep: &mut Sweep, examples: Option<usize>, kept: &Kept) -> Result<Held> {
        // What is held of a text can't be told before: it gets half.
        let known = examples.map_or(0, |examples| examples * self.held);
        let left = memory_for(self.memory, known + kept.memory(sweep.plans().len()))?;
        let halves = examples.is_none() && self.held > 0;
        sweep.set_memory(if halves { left / 2 } else { left });
        Ok(Held { example: self.held, allowed: if halves { left / 2 } else { known } })
    }

    /// Block evaluations one plan at a time, the intact model counted once.
    fn naive(&self, cost: SweepCost, model: &Model) -> f64 {
        let twice = if self.plans.intact.is_some() { model.plan_shape().n_layer } else { 0 };
        cost.naive.blocks() - twice as f64
    }

    /// Stands for all that decides rows but the examples.
    fn key(&self, model: &str, numerics: &str) -> String {
        let plans = serde_json::to_string(&self.plans.plans).expect("plans are plain data");
        let SweepOptions { divergence, token_losses, .. } = self.options;
        let ExampleArgs { window, stride, bos, .. } = self.examples;
        let measures = format!("{divergence} {token_losses} {} {window:?} {stride:?}", bos.wanted());
        sha256(&["lesion sweep 1", model, numerics, &plans, &measures])
    }
}

/// Bytes of results that whoever takes them goes on holding.
struct Held {
    /// Of an example.
    example: usize,
    /// Of all, at most.
    allowed: usize,
}

/// Rows on their way from the sweep to those who asked for them.
struct Gathering<'a> {
    model: &'a Model,
    model_args: &'a ModelArgs,
    kept: Kept,
    /// The names of tasks and texts.
    groups: Vec<String>,
    /// Where examples under way come from.
    places: HashMap<u64, (usize, u64, ExampleDigest)>,
    /// Their rows so far.
    pending: HashMap<u64, Vec<Row>>,
    progress: Progress,
    held: Held,
    /// Plans that are run, the intact model last.
    plans: usize,
    /// Why it was broken off.
    stopped: Option<Failure>,
    examples: u64,
    tokens: u64,
    /// Rows that were computed now, the intact model's own aside.
    computed: u64,
}

impl<'a> Gathering<'a> {
    fn new(
        model: &'a Model,
        model_args: &'a ModelArgs,
        kept: Kept,
        groups: Vec<String>,
        held: Held,
        plans: usize,
        flop: Option<u64>,
    ) -> Self {
        Gathering {
            model,
            model_args,
            kept,
            groups,
            places: HashMap::new(),
            pending: HashMap::new(),
            progress: Progress::new(flop),
            held,
            plans,
            stopped: None,
            examples: 0,
            tokens: 0,
            computed: 0,
        }
    }

    /// The next example, which rows will come of; none where there are no more, or it can't be had.
    fn expect(&mut self, next: Result<Option<Placed>>) -> Option<Example> {
        let checked = next.and_then(|placed| match placed {
            Some(placed) => self.kept.expect(&placed, &self.groups).map(|()| Some(placed)),
            None => Ok(None),
        });
        let Placed { group, index, example, .. } = match checked {
            Ok(placed) => placed?,
            Err(failure) => {
                self.stopped = Some(failure);
                return None;
            }
        };
        self.places.insert(example.number, (group, index, ExampleDigest::of(&example)));
        Some(example)
    }

    /// Something happened; whether it goes on.
    fn hear(&mut self, event: Event<'_>, take: &mut Take<'_>) -> ControlFlow<()> {
        // What was computed from a file that has changed since is no result, and is not kept.
        let heard = model::check_unchanged(self.model, self.model_args.read()).and_then(|()| match event {
            Event::Flop(flop) => {
                self.progress.advance(flop);
                self.kept.tick()
            }
            Event::Rows(rows) => self.keep(rows),
            Event::Examples(numbers) => self.deliver(numbers, take),
        });
        match heard.and_then(|()| signals::check()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                self.stopped.get_or_insert(failure);
                ControlFlow::Break(())
            }
        }
    }

    fn keep(&mut self, rows: &[Row]) -> Result<()> {
        let Gathering { kept, places, pending, plans, .. } = self;
        // Rows that are there come again where another example of their chunk lacks them.
        let new: Vec<Row> = rows.iter().filter(|row| !kept.contains(row.plan, row.example)).cloned().collect();
        kept.append(&new, &|example| places[&example].2)?;
        for row in new {
            pending.entry(row.example).or_insert_with(|| Vec::with_capacity(*plans)).push(row);
        }
        Ok(())
    }

    /// These examples are complete.
    fn deliver(&mut self, numbers: &[u64], take: &mut Take<'_>) -> Result<()> {
        self.kept.sync()?;
        self.kept.read(numbers)?;
        for number in numbers {
            let (group, index, _) = self.places.remove(number).expect("it was expected");
            let mut rows = self.pending.remove(number).unwrap_or_default();
            let before = self.kept.take(*number);
            self.kept.forget(*number);
            let intact_there = before.iter().any(|row| row.plan + 1 == self.plans);
            self.computed += (rows.len() - usize::from(!intact_there)) as u64;
            rows.extend(before);
            rows.sort_by_key(|row| row.plan);
            let intact = rows.pop().expect("the intact model is among the plans");
            self.examples += 1;
            self.tokens += u64::from(intact.tokens);
            take(Finished { group, index, intact: &intact, rows: &rows })?;
            let held = self.examples as usize * self.held.example;
            if held > self.held.allowed {
                let (held, examples) = (size(held as u64), self.examples);
                let message = format!("{held} of results after {examples} examples: more than half of the memory");
                return Err(Failure::new(Exit::Missing, message)
                    .with_help("--memory allows more; --json and --csv hold none of them"));
            }
        }
        Ok(())
    }

    /// Ends with everything on the disk, `examples` having been seen in all; where results are kept.
    fn end(mut self, ended: std::result::Result<Ended, SweepError>, examples: u64) -> Result<KeptIn> {
        self.progress.end();
        let failure = match (self.stopped, ended) {
            (Some(failure), _) => failure,
            (None, Ok(Ended::Complete)) => return self.kept.end(Some(examples)),
            (None, Ok(Ended::Cancelled)) => Failure::new(Exit::Interrupted, "interrupted"),
            (None, Err(error)) => sweep_failure(&error),
        };
        Err(self.kept.break_off(failure))
    }
}

/// What the results are equal within, bit for bit: this session's numerics, and those of rows that were there.
pub(crate) fn numerics(session: &Session, computed: u64, there: &BTreeSet<String>) -> String {
    let own = session.isa().name();
    let mut isas: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    if computed > 0 || isas.is_empty() {
        isas.insert(own);
    }
    if isas.iter().eq([&own]) {
        return session.numerics();
    }
    let there = isas.iter().filter(|isa| **isa != own).copied().collect::<Vec<_>>().join(", ");
    note(format!(
        "results that were there were computed with {there}: equal to {own}'s within f32's gate, not bit for bit"
    ));
    format!("{} {}", isas.into_iter().collect::<Vec<_>>().join("+"), session.arithmetic())
}

/// All examples, where they are in memory anyway.
pub(crate) fn read_all(inputs: &mut Inputs<'_>) -> Result<Vec<Placed>> {
    let mut all = Vec::new();
    while let Some(placed) = inputs.next()? {
        all.push(placed);
    }
    Ok(all)
}

/// FLOP of the examples that are not complete.
fn flop_left(sweep: &Sweep, model: &Model, known: &[Placed], kept: &Kept) -> Result<u64> {
    let mut left = Vec::new();
    for Placed { example, .. } in known {
        if !kept.is_complete(sweep.plans().len(), example)? {
            left.push(example);
        }
    }
    sweep.flop(model, left).map_err(|error| sweep_failure(&error))
}

/// The hash of texts, and of how they are told apart.
fn sha256(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn sweep_failure(error: &SweepError) -> Failure {
    match error {
        SweepError::Forward(error) => forward_failure(error),
        SweepError::Memory { .. } => Failure::new(Exit::Missing, error.to_string()).with_help("--memory allows more"),
        _ => Failure::usage(error.to_string()),
    }
}
