//! `lesion sweep`, `lesion search` and `lesion merge`.
//!
//! `args` is syntax; `inputs` and `text` give examples, `plans` the plans; `running` runs them within what `memory` allows,
//! from what is `kept`, and `progress` tells of it; `rows` is what programs read, `show` what people see.

pub(crate) mod args;
pub(crate) mod inputs;
mod kept;
pub(crate) mod memory;
pub(crate) mod merge;
pub(crate) mod plans;
mod progress;
mod rows;
pub(crate) mod running;
pub(crate) mod saying;
pub(crate) mod search;
mod show;
mod text;

use lesion::forward::Precision;
use lesion::model::Model;
use lesion::report::{Group, PlanFacts, Results, counted, grouped};
use lesion::sweep::{SweepOptions, Tally};

use self::args::{ExampleArgs, Sweep as SweepArgs};
use self::inputs::{Inputs, Placed, stdin_once};
use self::plans::{Parsed, Plans};
use self::rows::{RowRecord, SummaryLine};
use self::running::{Finished, Keep, Outcome, Running};
use self::show::Look;
use super::failure::{Exit, Failure, Result};
use super::output::{Output, escape_controls};
use super::{model, resolve};

pub(crate) fn run(args: &SweepArgs) -> Result<Exit> {
    stdin_once(args.plans.plans.iter().chain(args.examples.files()))?;
    let parsed = Parsed::new(&args.plans)?;
    let engine = resolve::engine(&args.run.engine)?;
    if engine.precision == Precision::F64 && !args.no_kl {
        return Err(Failure::usage("--precision f64 gives no divergences from the intact model").with_help("--no-kl"));
    }
    let mut output = Output::open(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let bridges = args.plans.bridges.read(&model)?;
    let plans = parsed.resolve(&model.plan_shape(), &bridges)?;
    let prompts = prompts(args, &model)?;
    let inputs = Inputs::open(&args.examples, &args.run.references, args.shard, &model)?;
    let mut session = resolve::session(&model, engine.clone())?;
    session.set_bridges(bridges.clone());
    let names = inputs.names();
    let options = SweepOptions { memory: 0, divergence: !args.no_kl, token_losses: args.tokens };
    let (json, csv) = (output.json, args.csv);
    let mut tally = Tally::new(plans.plans.len() + 1, names.iter().cloned());
    let running = Running {
        plans: &plans,
        options,
        memory: args.memory.memory,
        examples: &args.examples,
        held: if json || csv { 0 } else { tally.example_bytes() },
        shard: args.shard,
        keep: keep(args)?,
    };
    if csv {
        output.line(RowRecord::CSV_HEADER)?;
    }
    let mut finished = |finished: Finished<'_>| -> Result<()> {
        let Finished { group, index, intact, rows } = finished;
        if !(json || csv) {
            rows.iter().for_each(|row| tally.add(group, row));
            tally.add(group, &lesion::sweep::Row { plan: plans.plans.len(), ..intact.clone() });
            return Ok(());
        }
        for row in rows {
            let record = RowRecord::new(&plans.texts[row.plan], &names[group], index, row, intact.nll);
            if json { output.object(&record) } else { output.line(record.csv()) }?;
        }
        output.flush()
    };
    let outcome = running.run(session, inputs, &args.run.model, &mut finished)?;
    let said = match &running.keep {
        Keep::Store { path, .. } if !prompts.is_empty() => {
            let mut session = resolve::session(&model, engine)?;
            session.set_bridges(bridges);
            Some(saying::say(path, &mut session, &args.run.model, &plans.plans, &prompts, args.max_tokens)?)
        }
        _ => None,
    };
    if json {
        output.object(&SummaryLine { summary: outcome.summary })?;
    } else if !csv {
        if args.plot {
            show::figures(&mut output, &results(&plans, &tally, &model, args.seed))?;
        } else {
            let look = Look { order: args.sort, top: args.top as usize };
            show(&mut output, &plans, &tally, args.seed, look)?;
        }
        tell(&outcome, said);
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// The prompts that are to be continued.
fn prompts(args: &SweepArgs, model: &Model) -> Result<Vec<Placed>> {
    let Some(count) = args.complete else { return Ok(Vec::new()) };
    let ExampleArgs { tasks, pairs, text, .. } = &args.examples;
    if [tasks, pairs, text].into_iter().flatten().any(|path| path.as_os_str() == "-") {
        return Err(Failure::usage("--complete reads the examples twice, and stdin can be read once"));
    }
    let prompts =
        saying::prompts(&mut Inputs::open(&args.examples, &args.run.references, args.shard, model)?, u64::from(count))?;
    match prompts.is_empty() {
        true => Err(Failure::usage("--complete: a text has no prompts").with_help("--tasks, --task and --pairs have")),
        false => Ok(prompts),
    }
}

/// Where results are to be kept.
fn keep(args: &SweepArgs) -> Result<Keep<'_>> {
    if let Some(file) = &args.results {
        return Ok(Keep::File(file));
    }
    let name = args.experiment.as_deref();
    Ok(super::keep::place(&args.store)?.map_or(Keep::Nowhere, |path| Keep::Store { path, name }))
}

/// What figures on a terminal are drawn from: the intact model is the tally's last plan.
fn results(plans: &Plans, tally: &Tally, model: &Model, seed: u64) -> Results {
    let intact = plans.plans.len();
    let group = |name: &str, group: Option<usize>| {
        let mut summaries = tally.summaries(group, Some(intact), seed);
        let intact = summaries.pop().expect("the intact model is the last");
        Group { name: escape_controls(name), intact, plans: summaries }
    };
    let facts = plans.plans.iter().zip(&plans.texts);
    Results {
        n_layer: model.config().n_layer,
        uniform: (model.config().vocab_size as f64).ln(),
        plans: facts.map(|(plan, text)| PlanFacts { text: text.clone(), plan: plan.clone() }).collect(),
        families: plans.families.iter().map(plans::Members::facts).collect(),
        all: group("all tasks", None),
        tasks: tally.groups().enumerate().map(|(i, name)| group(name, Some(i))).collect(),
    }
}

/// All examples together, then task by task, then maps.
fn show(output: &mut Output, plans: &Plans, tally: &Tally, seed: u64, look: Look) -> Result<()> {
    let intact = plans.plans.len();
    let groups: Vec<&str> = tally.groups().collect();
    let mut all = tally.summaries(None, Some(intact), seed);
    let own = all.pop().expect("the intact model is the last");
    let title = if groups.len() == 1 { groups[0] } else { "all tasks" };
    show::plans(output, title, plans, &all, &own, look)?;
    for members in &plans.families {
        show::map(output, members, &all)?;
    }
    if groups.len() > 1 {
        for (group, name) in groups.iter().enumerate() {
            let mut summaries = tally.summaries(Some(group), Some(intact), seed);
            let own = summaries.pop().expect("the intact model is the last");
            show::plans(output, name, plans, &summaries, &own, look)?;
        }
    }
    output.line("nats per token are token-weighted means; intervals are 95 % bootstraps over examples, paired for Δ")
}

/// What it took, for people.
pub(crate) fn tell(outcome: &Outcome, completions: Option<usize>) {
    let summary = &outcome.summary;
    let rows = summary.plans as u64 * summary.examples;
    let kept = outcome.kept_in.shown().map_or(String::new(), |kept_in| format!("; {kept_in}"));
    let computed = match summary.computed_rows {
        0 => format!("all {} results were there, nothing was computed", grouped(rows)),
        some if some < rows => {
            format!("{} of {} results computed, the others were there", grouped(some), grouped(rows))
        }
        1 => "1 result".to_owned(),
        all => format!("{} results", grouped(all)),
    };
    let said = match completions {
        None => String::new(),
        Some(0) => ", all completions were there".to_owned(),
        Some(new) => format!(", {}", counted(new as u64, "completion")),
    };
    super::output::note(format!("{computed}{said}, {:.1} s{kept}", summary.seconds));
}
