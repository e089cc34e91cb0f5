//! `lesion search`: the smallest sets of layers that a capability needs, or that break it.

use std::ops::ControlFlow;
use std::time::Instant;

use lesion::forward::Session;
use lesion::measure::Number;
use lesion::plan::{Plan, StepError};
use lesion::report::grouped;
use lesion::store::Wanted;
use lesion::sweep::{
    Ended, Event, ExampleDigest, Found, Goal, LayerSet, MAX_EXACT_LAYERS, Measured, Method, Row, Search, Sweep,
    SweepOptions, Threshold,
};
use serde::Serialize;

use super::args::{MemorySize, MethodArg, Search as SearchArgs};
use super::inputs::{Inputs, Placed, stdin_once};
use super::kept::Kept;
use super::memory::memory_for;
use super::progress::{Progress, blocks};
use super::running::{numerics, read_all, sweep_failure};
use crate::cli::args::ModelArgs;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::output::{Output, SCHEMA_VERSION, note, shown, table};
use crate::cli::{keep, model, resolve, signals};

/// Up to how many layers the search is exact unless told.
const EXACT_LAYERS: usize = 12;

/// The result in JSON.
#[derive(Serialize)]
struct SearchRecord<'a> {
    schema_version: u32,
    model: &'a str,
    goal: &'static str,
    threshold: ThresholdRecord,
    method: &'static str,
    /// Whether sizes are exact: else they are upper bounds.
    exact: bool,
    examples: usize,
    intact: MeasuredRecord,
    smallest: Vec<SetRecord<'a>>,
    smallest_count: usize,
    /// Minimal under inclusion among all qualifying sets; only an exact search knows them.
    minimal: Vec<SetRecord<'a>>,
    minimal_count: usize,
    models_measured: usize,
    block_evaluations: f64,
    naive_block_evaluations: f64,
    seconds: f64,
    numerics: String,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum ThresholdRecord {
    KeepAccuracy(f64),
    WithinNats(f64),
}

#[derive(Serialize)]
struct MeasuredRecord {
    nll_per_token: Number,
    accuracy: Number,
}

#[derive(Serialize)]
struct SetRecord<'a> {
    layers: &'a [usize],
    #[serde(flatten)]
    measured: MeasuredRecord,
}

impl From<Measured> for MeasuredRecord {
    fn from(measured: Measured) -> Self {
        MeasuredRecord { nll_per_token: Number(measured.nll), accuracy: Number(measured.accuracy) }
    }
}

pub(crate) fn run(args: &SearchArgs) -> Result<Exit> {
    stdin_once(args.examples.files())?;
    let engine = resolve::engine(&args.run.engine)?;
    let mut output = Output::open(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let search = Search {
        n_layer: model.config().n_layer,
        goal: if args.breaking { Goal::Break } else { Goal::Keep },
        threshold: match (args.keep, args.within) {
            (Some(share), _) => Threshold::Accuracy(share),
            (None, Some(nats)) => Threshold::Within(nats),
            (None, None) => return Err(Failure::usage("--keep or --within says what a set must reach")),
        },
        method: method(args, model.config().n_layer)?,
    };
    let mut inputs = Inputs::open(&args.examples, &args.run.references, None, &model)?;
    let groups = inputs.names();
    let examples = read_all(&mut inputs)?;
    let session = resolve::session(&model, engine)?;
    let store = keep::place(&args.store)?.map(|path| keep::open(&path)).transpose()?;
    let wanted = Wanted::default();
    let start = Instant::now();
    let begin = |store| keep::begin(store, &session, &args.run.model, &[], wanted, None, start);
    let kept = store.map(begin).transpose()?.map_or_else(Kept::nowhere, Kept::store);
    let mut measuring = Measuring {
        session,
        model_args: &args.run.model,
        examples,
        groups,
        kept,
        memory: args.memory.memory,
        shared: 0.0,
        naive: 0.0,
        there: 0,
        computed: 0,
    };
    let found = search.run(&mut |plans: &[Plan]| {
        let measured = measuring.measure(plans)?;
        // The intact model is measured first.
        if args.keep.is_some() && measured[0].accuracy == 0.0 && plans == [Plan::intact(search.n_layer)] {
            let examples = measuring.examples.len();
            let message =
                format!("--keep: the intact model has 0 of {examples} examples right: there is nothing to keep");
            return Err(Failure::usage(message).with_help("--within NATS compares losses"));
        }
        Ok(measured)
    });
    let found = found.and_then(|found| model::check_unchanged(&model, args.run.model.read()).map(|()| found));
    let kept = std::mem::replace(&mut measuring.kept, Kept::nowhere());
    let (found, kept_in) = match found {
        Ok(found) => (found, kept.end(None)?),
        Err(failure) => return Err(kept.break_off(failure)),
    };
    let numerics = numerics(&measuring.session, measuring.computed, &kept_in.isas);
    let seconds = start.elapsed().as_secs_f64();
    let top = if args.top == 0 { usize::MAX } else { args.top as usize };
    if output.json {
        output.object(&record(&search, &found, &measuring, (seconds, numerics), top))?;
    } else {
        show(&mut output, &found, &search, top)?;
        let there = match measuring.there {
            0 => String::new(),
            there => format!("; {} of their results were there", grouped(there as u64)),
        };
        note(format!(
            "{} models on {} examples: {} block evaluations each instead of {}, {seconds:.1} s{there}",
            grouped(found.tried as u64),
            grouped(measuring.examples.len() as u64),
            blocks(measuring.shared),
            blocks(measuring.naive)
        ));
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn method(args: &SearchArgs, n_layer: usize) -> Result<Method> {
    Ok(match args.method {
        None if n_layer <= EXACT_LAYERS => Method::Exact,
        Some(MethodArg::Exact) if n_layer > MAX_EXACT_LAYERS => {
            let message = format!(
                "--method exact: 2^{n_layer} subsets of {n_layer} layers; {MAX_EXACT_LAYERS} layers are possible"
            );
            return Err(Failure::usage(message).with_help("--method beam, greedy or bisect give upper bounds"));
        }
        Some(MethodArg::Exact) => Method::Exact,
        Some(MethodArg::Greedy) => Method::Greedy,
        None | Some(MethodArg::Beam) => Method::Beam(args.beam as usize),
        Some(MethodArg::Bisect) => Method::Bisect,
    })
}

/// Plans are measured on all examples, in a sweep each time that some are asked for.
struct Measuring<'a> {
    session: Session,
    model_args: &'a ModelArgs,
    examples: Vec<Placed>,
    /// The names of tasks and texts.
    groups: Vec<String>,
    kept: Kept,
    memory: Option<MemorySize>,
    /// Block evaluations on each example so far, and what they would be plan by plan.
    shared: f64,
    naive: f64,
    /// Results that were there, and that were not.
    there: usize,
    computed: u64,
}

impl Measuring<'_> {
    fn measure(&mut self, plans: &[Plan]) -> Result<Vec<Measured>> {
        // By plan, then by example, so that sums run in one order whatever the schedule.
        let count = self.examples.len();
        let options = SweepOptions { memory: 0, divergence: false, token_losses: false };
        let model = self.session.model().clone();
        let sweep = Sweep::new(plans.to_vec(), &model.plan_shape(), options);
        let mut sweep = sweep.map_err(|error| sweep_failure(&error))?;
        let mut outcomes = self.known(plans)?;
        let there: Vec<bool> = outcomes.iter().map(|outcome| outcome.tokens > 0).collect();
        // The outcomes are among what the process holds already.
        sweep.set_memory(memory_for(self.memory, self.kept.memory(plans.len()))?);
        self.there += there.iter().filter(|there| **there).count();
        self.shared += sweep.cost().shared.blocks();
        self.naive += sweep.cost().naive.blocks();
        let Measuring { session, examples: all, kept, computed, .. } = self;
        let examples = || all.iter().map(|placed| &placed.example);
        let left = examples().filter(|e| (0..plans.len()).any(|plan| !there[plan * count + e.number as usize]));
        let flop = sweep.flop(&model, left).map_err(|error| sweep_failure(&error))?;
        let mut progress = Progress::new(Some(flop));
        let read = self.model_args.read();
        let mut failure = None;
        let is_there = |plan: usize, example: u64| there[plan * count + example as usize];
        let ended = sweep.run(session, examples().cloned(), &is_there, &mut |event| {
            let heard = match event {
                Event::Rows(rows) => {
                    for row in rows {
                        outcomes[row.plan * count + row.example as usize] = Outcome::of(row);
                    }
                    *computed += rows.len() as u64;
                    let digest = |example: u64| ExampleDigest::of(&all[example as usize].example);
                    model::check_unchanged(&model, read).and_then(|()| kept.append(rows, &digest))
                }
                Event::Flop(flop) => {
                    progress.advance(flop);
                    kept.tick()
                }
                Event::Examples(_) => Ok(()),
            };
            match heard.and_then(|()| signals::check()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        progress.end();
        match (failure, ended.map_err(|error| sweep_failure(&error))?) {
            (Some(failure), _) => Err(failure),
            (None, Ended::Complete) => kept.sync().map(|()| outcomes.chunks(count).map(measured).collect()),
            (None, Ended::Cancelled) => Err(Failure::new(Exit::Interrupted, "interrupted")),
        }
    }

    /// The outcomes that are there, by plan, then by example; the others have no tokens.
    fn known(&mut self, plans: &[Plan]) -> Result<Vec<Outcome>> {
        let count = self.examples.len();
        let mut outcomes = vec![Outcome::default(); plans.len() * count];
        self.kept.set_plans(plans)?;
        for placed in &self.examples {
            self.kept.expect(placed, &self.groups)?;
            for row in self.kept.take(placed.example.number) {
                outcomes[row.plan * count + row.example as usize] = Outcome::of(&row);
            }
        }
        Ok(outcomes)
    }
}

/// What of a row counts here.
#[derive(Clone, Copy, Default)]
struct Outcome {
    nll: f64,
    tokens: u32,
    correct: bool,
}

impl Outcome {
    fn of(row: &Row) -> Outcome {
        Outcome { nll: row.nll, tokens: row.tokens, correct: row.is_correct() }
    }
}

/// A plan's outcomes together.
fn measured(outcomes: &[Outcome]) -> Measured {
    let nll: f64 = outcomes.iter().map(|outcome| outcome.nll).sum();
    let tokens: u64 = outcomes.iter().map(|outcome| u64::from(outcome.tokens)).sum();
    let correct = outcomes.iter().filter(|outcome| outcome.correct).count();
    Measured { nll: nll / tokens as f64, accuracy: correct as f64 / outcomes.len() as f64 }
}

fn record<'f>(
    search: &Search,
    found: &'f Found,
    measuring: &'f Measuring<'_>,
    (seconds, numerics): (f64, String),
    top: usize,
) -> SearchRecord<'f> {
    SearchRecord {
        schema_version: SCHEMA_VERSION,
        model: measuring.session.model().name(),
        goal: match search.goal {
            Goal::Keep => "keep",
            Goal::Break => "break",
        },
        threshold: match search.threshold {
            Threshold::Accuracy(share) => ThresholdRecord::KeepAccuracy(share),
            Threshold::Within(nats) => ThresholdRecord::WithinNats(nats),
        },
        method: method_name(search.method),
        exact: found.exact,
        examples: measuring.examples.len(),
        intact: found.intact.into(),
        smallest: records(&found.smallest, top),
        smallest_count: found.counts.0,
        minimal: records(&found.minimal, top),
        minimal_count: found.counts.1,
        models_measured: found.tried,
        block_evaluations: measuring.shared,
        naive_block_evaluations: measuring.naive,
        seconds,
        numerics,
    }
}

fn records(sets: &[LayerSet], top: usize) -> Vec<SetRecord<'_>> {
    let mut records = Vec::new();
    for set in sets.iter().take(top) {
        records.push(SetRecord { layers: &set.layers, measured: set.measured.into() });
    }
    records
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Exact => "exact",
        Method::Greedy => "greedy",
        Method::Beam(_) => "beam",
        Method::Bisect => "bisect",
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Failure::usage(error.to_string())
    }
}

fn show(output: &mut Output, found: &Found, search: &Search, top: usize) -> Result<()> {
    let Search { goal, threshold, method, .. } = *search;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let Measured { nll, accuracy } = found.intact;
    output.line(format!("intact: {} correct, {} nats per token", percent(accuracy), shown(nll)))?;
    let asked = match threshold {
        Threshold::Accuracy(share) => {
            format!("at least {} correct ({} of intact)", percent(share * accuracy), percent(share))
        }
        Threshold::Within(nats) => {
            format!("at most {} nats per token ({} more than intact)", shown(nll + nats), shown(nats))
        }
    };
    let (what, whose) = match goal {
        Goal::Keep => ("layers that suffice", format!("alone: {asked}")),
        Goal::Break => ("layers without which it breaks", format!("without them no longer {asked}")),
    };
    output.line(format!("{what}, the model {whose}"))?;
    if found.smallest.is_empty() {
        return output.line(match goal {
            Goal::Keep if found.exact => "no set of layers does, in their order and once each",
            Goal::Break if found.exact => "nothing breaks it",
            _ => "none found",
        });
    }
    let size = found.smallest[0].layers.len();
    let bound = if found.exact { "the smallest sets" } else { "upper bound, the smallest sets found" };
    section(
        output,
        &format!(
            "{bound} ({}): {} with {size} layer{}",
            method_name(method),
            found.counts.0,
            if size == 1 { "" } else { "s" }
        ),
        &found.smallest,
        top,
    )?;
    if found.exact && found.counts.1 > found.counts.0 {
        let title = format!("all sets that are minimal under inclusion: {}", found.counts.1);
        section(output, &title, &found.minimal, top)?;
    }
    Ok(())
}

fn section(output: &mut Output, title: &str, sets: &[LayerSet], top: usize) -> Result<()> {
    output.line("")?;
    output.heading(title)?;
    let header = ["layers", "size", "correct", "nats/token"].map(str::to_owned);
    let row = |set: &LayerSet| -> Vec<String> {
        let plan =
            Plan::from_layers(set.layers.iter().copied()).map_or_else(|_| String::new(), |plan| plan.to_string());
        let Measured { nll, accuracy } = set.measured;
        vec![plan, set.layers.len().to_string(), format!("{:.1} %", 100.0 * accuracy), shown(nll)]
    };
    let rows: Vec<Vec<String>> = sets.iter().take(top).map(row).collect();
    output.text(&table(&header, &rows, 1))?;
    if sets.len() > top {
        output.line(format!("… and {} more: --top 0 shows all", sets.len() - top))?;
    }
    Ok(())
}
