//! `lesion store verify`: results computed again and compared with what is kept. What can't be compared is said, and is never
//! "the same".

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use lesion::forward::{Completion, NUMERICS_VERSION, Precision, Session, SessionOptions, complete};
use lesion::model::Model;
use lesion::plan::Plan;
use lesion::store::{Observation, Run, RunKey, Said, Setting, Store};
use lesion::sweep::{Ended, Event, Row, Sweep, SweepOptions};
use lesion_kernels::Isa;
use serde::Serialize;

use super::args::Verify;
use super::reading;
use crate::cli::args::ModelArgs;
use crate::cli::complete::finish;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::output::{Output, SCHEMA_VERSION, note};
use crate::cli::sweep::running::sweep_failure;
use crate::cli::{forward_failure, keep, model, resolve, signals};

/// Of HAZARDS' gate for f32 on other instruction sets: log-probabilities and the mean loss.
const F32_LOSS: f64 = 1e-4;
const F32_MEAN: f64 = 1e-5;

/// The same for bf16, whose roundings of operands may fall to either side.
const BF16_MEAN: f64 = 0.02;

/// The share of losses that the gate is for.
const SHARE: f64 = 0.999;

/// Bytes that a computation may take.
const MEMORY: usize = 256 << 20;

/// Mismatches that are listed.
const LISTED: usize = 20;

/// The outcome in JSON.
#[derive(Serialize)]
struct VerifyRecord<'a> {
    schema_version: u32,
    compared: usize,
    /// Bit for bit.
    identical: usize,
    /// Not compared bit for bit, and equal within the gate.
    within_gate: usize,
    mismatches: &'a [Mismatch],
    not_compared: &'a [NotCompared],
}

/// A result that is not what it was.
#[derive(Serialize, Clone)]
struct Mismatch {
    key: String,
    plan: String,
    what: String,
}

/// Results that could not be computed again.
#[derive(Serialize)]
struct NotCompared {
    results: usize,
    reason: String,
}

pub(super) fn run(args: &Verify) -> Result<Exit> {
    let store = reading(&args.at)?;
    let mut output = Output::open(&args.output)?;
    store.check_integrity()?;
    let mut verification = Verification::default();
    // What was computed alike is computed again together.
    let mut groups: BTreeMap<(String, String, u32, String, String), Vec<Kept>> = BTreeMap::new();
    for key in keys(&store, args)? {
        signals::check()?;
        let kept = match store.said(key)? {
            Some(said) => Kept::Said(Box::new(said)),
            None => Kept::Run(Box::new(store.run(key)?)),
        };
        let bridged = kept.plan().bridges().next().is_some();
        if bridged || kept.plan().any_modifier(|modifier| modifier.reference().is_some()) {
            verification.unkept += 1;
            continue;
        }
        if kept.computed_key() != key {
            verification.mismatch(key, kept.plan(), "its key is not that of what it stands for".to_owned());
            continue;
        }
        let Setting { model, arithmetic, numerics_version } = kept.setting();
        let observation = kept.observation();
        let group = (
            model.weights.clone(),
            arithmetic.clone(),
            *numerics_version,
            observation.isa.clone(),
            observation.model.clone(),
        );
        groups.entry(group).or_default().push(kept);
    }
    for kept in groups.values() {
        if let Err(reason) = verification.group(args, kept)? {
            verification.not_compared.push(NotCompared { results: kept.len(), reason });
        }
    }
    if verification.unkept > 0 {
        let reason = "their plans take values of references or bridges, which the store does not keep".to_owned();
        verification.not_compared.push(NotCompared { results: verification.unkept, reason });
    }
    verification.judge();
    let exit = verification.exit();
    if output.json {
        output.object(&VerifyRecord {
            schema_version: SCHEMA_VERSION,
            compared: verification.compared(),
            identical: verification.identical,
            within_gate: verification.near.len(),
            mismatches: &verification.mismatches,
            not_compared: &verification.not_compared,
        })?;
    } else {
        verification.show(&mut output)?;
    }
    output.finish()?;
    Ok(exit)
}

/// What is computed again.
enum Kept {
    Run(Box<Run>),
    Said(Box<Said>),
}

impl Kept {
    fn setting(&self) -> &Setting {
        match self {
            Kept::Run(run) => &run.setting,
            Kept::Said(said) => &said.setting,
        }
    }

    fn observation(&self) -> &Observation {
        match self {
            Kept::Run(run) => &run.observation,
            Kept::Said(said) => &said.observation,
        }
    }

    fn plan(&self) -> &Plan {
        match self {
            Kept::Run(run) => &run.plan,
            Kept::Said(said) => &said.plan,
        }
    }

    fn computed_key(&self) -> RunKey {
        match self {
            Kept::Run(run) => run.computed_key(),
            Kept::Said(said) => said.computed_key(),
        }
    }
}

fn keys(store: &Store, args: &Verify) -> Result<Vec<RunKey>> {
    if !args.run.is_empty() {
        return args.run.iter().map(|key| Ok(store.key(key)?)).collect();
    }
    let experiment = args.experiment.as_deref().map(|name| store.experiment(name)).transpose()?;
    let limit = if args.sample == 0 { u64::MAX } else { args.sample };
    let keys = store.keys(experiment.as_ref(), limit)?;
    if keys.is_empty() {
        return Err(Failure::usage("there are no results to verify"));
    }
    Ok(keys)
}

/// What has been found.
#[derive(Default)]
struct Verification {
    identical: usize,
    /// Results that are judged by the gate: whether of bf16, by how much a token's loss differs.
    near: Vec<(bool, f64)>,
    mismatches: Vec<Mismatch>,
    not_compared: Vec<NotCompared>,
    /// Results that took values of references or bridges.
    unkept: usize,
}

impl Verification {
    fn mismatch(&mut self, key: RunKey, plan: &Plan, what: String) {
        self.mismatches.push(Mismatch { key: key.to_string(), plan: plan.to_string(), what });
    }

    fn compared(&self) -> usize {
        self.identical + self.near.len() + self.mismatches.len()
    }

    /// Computes runs of one setting and instruction set again; why not, where that can't be.
    fn group(&mut self, args: &Verify, group: &[Kept]) -> Result<std::result::Result<(), String>> {
        let (wanted, first) = (group[0].setting(), group[0].observation());
        let options = match options(args, wanted, &first.isa)? {
            Ok(options) => options,
            Err(reason) => return Ok(Err(reason)),
        };
        let model_args = ModelArgs {
            model: args.model.clone().unwrap_or_else(|| PathBuf::from(&first.model)),
            lock: args.lock.clone(),
            no_mmap: false,
            verify: false,
            require_finite: false,
        };
        let model = match model::open(&model_args) {
            Ok(model) => model,
            Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
            Err(failure) => return Ok(Err(failure.to_string())),
        };
        let mut session = resolve::session(&model, options)?;
        let here = keep::setting(&session)?;
        if here.model.weights != wanted.model.weights || here.model.tokenizer != wanted.model.tokenizer {
            return Ok(Err(format!(
                "model {} has other weights or another tokenizer by now",
                model_args.model.display()
            )));
        }
        let exact = here.arithmetic == wanted.arithmetic
            && wanted.numerics_version == NUMERICS_VERSION
            && session.isa().name() == first.isa;
        for kept in group {
            signals::check()?;
            match kept {
                Kept::Run(run) => {
                    let again = computed(&mut session, &model, run)?;
                    model::check_unchanged(&model, model_args.read())?;
                    self.compare(run, &again, exact.then(|| session.isa().name()));
                }
                Kept::Said(said) => {
                    let again = said_again(&mut session, &model, said)?;
                    model::check_unchanged(&model, model_args.read())?;
                    self.compare_said(said, &again, exact);
                }
            }
        }
        Ok(Ok(()))
    }

    fn compare_said(&mut self, said: &Said, again: &Completion, exact: bool) {
        if said.ids == again.ids && said.finish == finish(again.finish) {
            self.identical += 1;
        } else if exact {
            self.mismatch(said.key, &said.plan, format!("said {:?} then, {:?} now", said.ids, again.ids));
        } else {
            let reason = "a completion is another one here: where two tokens are about as likely, it may be".to_owned();
            self.not_compared.push(NotCompared { results: 1, reason });
        }
    }

    /// `exact` names this instruction set, where it and all else are those of the first time.
    fn compare(&mut self, run: &Run, again: &Row, exact: Option<&str>) {
        let kept = &run.row;
        if let Some(isa) = exact {
            match difference(&same_bits(run, isa), again) {
                None => self.identical += 1,
                Some(what) => self.mismatch(run.key, &run.plan, what),
            }
            return;
        }
        let class = |value: f64| (value.is_nan(), value == f64::INFINITY, value == f64::NEG_INFINITY);
        if kept.tokens != again.tokens || class(kept.nll) != class(again.nll) || kept.non_finite != again.non_finite {
            self.mismatch(run.key, &run.plan, format!("loss {} then, {} now", kept.nll, again.nll));
        } else {
            let distance = if kept.nll.is_finite() { (again.nll - kept.nll) / f64::from(kept.tokens) } else { 0.0 };
            self.near.push((run.setting.arithmetic.starts_with("bf16"), distance));
        }
    }

    /// Puts the gate to all that was not compared bit for bit.
    fn judge(&mut self) {
        for (bf16, mean_gate) in [(false, F32_MEAN), (true, BF16_MEAN)] {
            let mut distances: Vec<f64> =
                self.near.iter().filter(|(kind, _)| *kind == bf16).map(|(_, distance)| *distance).collect();
            if distances.is_empty() {
                continue;
            }
            let mean = distances.iter().sum::<f64>() / distances.len() as f64;
            distances.iter_mut().for_each(|distance| *distance = distance.abs());
            distances.sort_by(f64::total_cmp);
            let at = ((distances.len() as f64 * SHARE).ceil() as usize).clamp(1, distances.len()) - 1;
            let widest = distances[at];
            // One comparison that meets NaN fails.
            let mean_passes = mean.abs() <= mean_gate;
            let widest_passes = bf16 || widest <= F32_LOSS;
            if !(mean_passes && widest_passes) {
                let name = if bf16 { "bf16" } else { "f32" };
                let what =
                    format!("the gate of {name}: mean difference {mean:e} nats per token, 99.9 % within {widest:e}");
                self.mismatches.push(Mismatch { key: String::new(), plan: String::new(), what });
            }
        }
    }

    fn exit(&self) -> Exit {
        match (self.mismatches.is_empty(), self.compared()) {
            (false, _) => Exit::Mismatch,
            (true, 0) => Exit::Missing,
            (true, _) => Exit::Ok,
        }
    }

    fn show(&self, output: &mut Output) -> Result<()> {
        output.line(format!(
            "{} results compared: {} identical bit for bit, {} within the gate, {} mismatches",
            self.compared(),
            self.identical,
            self.near.len(),
            self.mismatches.len()
        ))?;
        for Mismatch { key, plan, what } in self.mismatches.iter().take(LISTED) {
            let named = if key.is_empty() { String::new() } else { format!("{} ({plan}): ", &key[..12]) };
            output.line(format!("mismatch: {named}{what}"))?;
        }
        if self.mismatches.len() > LISTED {
            output.line(format!("… and {} more", self.mismatches.len() - LISTED))?;
        }
        for NotCompared { results, reason } in &self.not_compared {
            note(format!("{results} results not compared: {reason}"));
        }
        Ok(())
    }
}

/// The session that results want: the instruction set of the first time where this machine has it and none is asked for.
fn options(args: &Verify, wanted: &Setting, isa: &str) -> Result<std::result::Result<SessionOptions, String>> {
    let asked = resolve::engine(&args.engine)?;
    let precision = match wanted.arithmetic.as_str() {
        "f32" => Precision::F32,
        "f64" => Precision::F64,
        "bf16" | "bf16-pairs" => Precision::Bf16,
        other => return Ok(Err(format!("arithmetic {other} is not one of this version's"))),
    };
    let first = Isa::available().find(|available| available.name() == isa);
    let isa = if args.engine.isa.is_some() { asked.isa } else { first.unwrap_or(asked.isa) };
    let isa = if precision == Precision::F64 { Isa::Portable } else { isa };
    Ok(Ok(SessionOptions { isa, precision, ..asked }))
}

/// A run's row, computed now.
fn computed(session: &mut Session, model: &Model, run: &Run) -> Result<Row> {
    let divergence = run.row.divergence.is_some() && session.precision() != Precision::F64;
    let options = SweepOptions { memory: MEMORY, divergence, token_losses: !run.row.token_nll.is_empty() };
    let plans: Vec<Plan> = vec![run.plan.clone()];
    let sweep = Sweep::new(plans, &model.plan_shape(), options).map_err(|error| sweep_failure(&error))?;
    let mut found = None;
    let ended = sweep.run(session, [run.example.clone()], &|_, _| false, &mut |event| {
        if let Event::Rows([row]) = event {
            found = Some(row.clone());
        }
        if signals::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match (ended.map_err(|error| sweep_failure(&error))?, found) {
        (Ended::Complete, Some(row)) => Ok(row),
        _ => Err(Failure::new(Exit::Interrupted, "interrupted")),
    }
}

/// What of a run's row has been computed with this instruction set: a later process with another one may have added to it.
fn same_bits(run: &Run, isa: &str) -> Row {
    let mut row = run.row.clone();
    if run.gained.divergence.as_ref().is_some_and(|gained| gained != isa) {
        row.divergence = None;
    }
    if run.gained.token_losses.as_ref().is_some_and(|gained| gained != isa) {
        row.token_nll.clear();
    }
    row
}

/// A completion, said now.
fn said_again(session: &mut Session, model: &Model, said: &Said) -> Result<Completion> {
    let tokenizer = match said.sampling.stop.is_empty() {
        true => None,
        false => Some(model.tokenizer().map_err(|error| model::model_failure(&error))?),
    };
    let go_on = &mut |_: u32, _: &str| match signals::interrupted() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let again = complete(session, &said.plan, &said.prompt_ids, &said.sampling, tokenizer, go_on);
    again.map_err(|error| forward_failure(&error))
}

/// What of a row is not the same bit for bit; NaN is the same as NaN.
fn difference(kept: &Row, again: &Row) -> Option<String> {
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    let numbers = [
        ("loss", Some(kept.nll), Some(again.nll)),
        ("entropy", Some(kept.entropy), Some(again.entropy)),
        ("KL", kept.divergence, again.divergence),
    ];
    for (what, then, now) in numbers {
        let (Some(then), Some(now)) = (then, now) else { continue };
        if !same(then, now) {
            return Some(format!("{what} {then} then, {now} now"));
        }
    }
    let counts = [
        ("tokens", kept.tokens, again.tokens),
        ("likeliest tokens", kept.top1, again.top1),
        ("rank", kept.first_rank, again.first_rank),
        ("non-finite losses", kept.non_finite, again.non_finite),
    ];
    if let Some((what, then, now)) = counts.into_iter().find(|(_, then, now)| then != now) {
        return Some(format!("{what}: {then} then, {now} now"));
    }
    let tokens = kept.token_nll.iter().zip(&again.token_nll);
    let at = tokens.clone().position(|(then, now)| !same(*then, *now))?;
    Some(format!("loss of token {at}: {} then, {} now", kept.token_nll[at], again.token_nll[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lesion::store::{Gained, ModelIdentity};
    use lesion::sweep::Example;

    fn run(arithmetic: &str, nll: f64) -> Run {
        let model = ModelIdentity {
            weights: "0".repeat(64),
            tokenizer: None,
            name: "m".to_owned(),
            n_layer: 2,
            n_head: 1,
            vocab_size: 10,
        };
        let setting = Setting { model, arithmetic: arithmetic.to_owned(), numerics_version: 1 };
        let (plan, example) = (Plan::intact(2), Example::new(0, vec![1, 2, 3], 1..3));
        let observation = Observation {
            started: String::new(),
            seconds: None,
            host: String::new(),
            version: String::new(),
            commit: None,
            isa: "avx2".to_owned(),
            threads: 1,
            model: "m".to_owned(),
            command: Vec::new(),
        };
        let key = setting.run_key(&plan, &example);
        let (gained, questions, experiments) = (Gained::default(), Vec::new(), Vec::new());
        Run {
            key,
            setting,
            plan,
            example,
            references: None,
            row: row(nll),
            observation,
            gained,
            questions,
            experiments,
        }
    }

    fn row(nll: f64) -> Row {
        Row {
            plan: 0,
            example: 0,
            tokens: 2,
            nll,
            top1: 1,
            first_rank: 3,
            entropy: 1.0,
            divergence: Some(0.5),
            non_finite: u32::from(!nll.is_finite()),
            token_nll: vec![1.0, nll - 1.0],
        }
    }

    /// How a computation of `again` instead of `kept` ends.
    fn exit(arithmetic: &str, exact: bool, pairs: &[(f64, f64)]) -> Exit {
        let mut verification = Verification::default();
        let exact = exact.then_some("avx2");
        pairs.iter().for_each(|(kept, again)| verification.compare(&run(arithmetic, *kept), &row(*again), exact));
        verification.judge();
        verification.exit()
    }

    #[test]
    fn bit_for_bit() {
        let next = f64::from_bits(3.0_f64.to_bits() + 1);
        assert_eq!(exit("f32", true, &[(3.0, 3.0), (f64::NAN, f64::NAN)]), Exit::Ok);
        assert_eq!(exit("f32", true, &[(3.0, 3.0), (3.0, next)]), Exit::Mismatch);
        assert_eq!(exit("f32", true, &[(f64::NAN, 3.0)]), Exit::Mismatch);
        let other = |change: &dyn Fn(&mut Row)| {
            let mut again = row(3.0);
            change(&mut again);
            difference(&row(3.0), &again)
        };
        assert_eq!(other(&|_| ()), None);
        assert_eq!(other(&|again| again.first_rank = 4).unwrap(), "rank: 3 then, 4 now");
        assert_eq!(other(&|again| again.divergence = Some(0.25)).unwrap(), "KL 0.5 then, 0.25 now");
        // What another instruction set has added is not compared bit for bit.
        let added = Gained { divergence: Some("portable".to_owned()), token_losses: None };
        let kept = same_bits(&Run { gained: added, ..run("f32", 3.0) }, "avx2");
        assert_eq!((kept.divergence, kept.token_nll.len()), (None, 2));
        assert_eq!(other(&|again| again.token_nll[1] = f64::NAN).unwrap(), "loss of token 1: 2 then, NaN now");
    }

    #[test]
    fn within_the_gate() {
        assert_eq!(exit("f32", false, &[(3.0, 3.00001), (3.0, 2.99999)]), Exit::Ok);
        assert_eq!(exit("f32", false, &[(3.0, 3.0001), (3.0, 3.0001)]), Exit::Mismatch, "the mean");
        assert_eq!(exit("f32", false, &[(3.0, 3.001), (3.0, 2.999)]), Exit::Mismatch, "single losses");
        assert_eq!(exit("bf16", false, &[(3.0, 3.01), (3.0, 2.99)]), Exit::Ok);
        assert_eq!(exit("bf16", false, &[(3.0, 3.05)]), Exit::Mismatch);
        let infinity = f64::INFINITY;
        assert_eq!(exit("f32", false, &[(f64::NAN, f64::NAN), (infinity, infinity)]), Exit::Ok);
        for pair in [(3.0, f64::NAN), (f64::NAN, 3.0), (infinity, f64::NAN), (infinity, 3.0), (infinity, -infinity)] {
            assert_eq!(exit("f32", false, &[pair]), Exit::Mismatch, "{pair:?}");
        }
        assert_eq!(exit("f32", false, &[]), Exit::Missing, "nothing compared is not the same");
    }
}
