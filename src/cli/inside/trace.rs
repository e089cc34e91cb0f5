//! `lesion trace`: causal tracing of an answer through a noised subject.

use std::ops::Range;

use lesion::forward::Session;
use lesion::inside::{Run, Trace as Tracing, Traced, TracedCell, noise_level};
use lesion::measure::Number;
use lesion::report::inside::Shown;
use lesion::sweep::Estimate;
use serde::Serialize;

use super::args::Trace;
use super::map::{self, CELL, Map};
use super::{AnswerRecord, CostRecord, Prompted, cost_text, kept, plan, prompted, row_label, tokens_of};
use crate::cli::failure::{Exit, Result};
use crate::cli::look::Names;
use crate::cli::model;
use crate::cli::output::{Output, SCHEMA_VERSION, shown};
use crate::cli::resolve::{self, NamedPlan};

/// A state that was restored. Fields are never renamed.
#[derive(Serialize)]
struct CellRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    site: &'static str,
    address: String,
    /// As people read it: `5`, `5a`.
    label: String,
    layer: usize,
    position: usize,
    token: Option<String>,
    token_id: u32,
    /// p(answer | restored), the mean over seeds.
    restored: Number,
    /// p(answer | restored) − p(answer | noised).
    effect: EstimateRecord,
}

/// A mean over seeds, and its 95 % interval.
#[derive(Serialize)]
struct EstimateRecord {
    mean: Number,
    low: Number,
    high: Number,
}

impl From<Estimate> for EstimateRecord {
    fn from(Estimate { value, low, high }: Estimate) -> EstimateRecord {
        EstimateRecord { mean: Number(value), low: Number(low), high: Number(high) }
    }
}

/// The baselines, and what all took.
#[derive(Serialize)]
struct SummaryRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    numerics: String,
    bos: bool,
    plan: &'a str,
    prompt_ids: &'a [u32],
    answer: AnswerRecord<'a>,
    /// Positions of the subject's tokens, half-open.
    subject: [usize; 2],
    site: &'static str,
    window: usize,
    sigma: f64,
    seeds: u64,
    /// p(answer).
    clean: Number,
    /// p(answer | noised).
    noised: EstimateRecord,
    /// p(answer) − p(answer | noised).
    total_effect: EstimateRecord,
    cells: usize,
    #[serde(flatten)]
    cost: CostRecord,
    threads: usize,
}

pub(crate) fn run(args: &Trace) -> Result<Exit> {
    if let Some(text) = &args.plan {
        resolve::parse(text)?;
    }
    let engine = resolve::engine(&args.run.engine)?;
    let mut output = Output::open_drawn(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let bridges = args.bridges.read(&model)?;
    let plan = plan(args.plan.as_deref(), &model, &bridges)?;
    let prompt = resolve::given_or_stdin(&args.prompt)?;
    let Prompted { input, answer } = prompted(&model, &prompt, &args.answer, &args.bos)?;
    let subject = match (&args.subject, &args.subject_tokens) {
        (_, Some(positions)) => positions.0.clone(),
        (text, None) => tokens_of(&model, &input, text.as_deref().unwrap_or_default())?,
    };
    let trace = Tracing {
        run: Run { references: args.run.references.read()?, ..Run::new(input.ids.clone(), plan.plan.clone()) },
        answer,
        // Nothing before the subject is noised.
        positions: subject.start.min(input.ids.len() - 1)..input.ids.len(),
        subject,
        sigma: args.sigma.unwrap_or_else(|| noise_level(&model)),
        seeds: u64::from(args.seeds),
        site: args.site.site(),
        window: args.window as usize,
    };
    let names = Names::new(&model, &input);
    let drawn = |plan: &NamedPlan| plan.plan.executions().count().saturating_mul(trace.positions.len());
    output.check_drawn(std::slice::from_ref(&plan), &drawn, Shown::default())?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    let store = (&args.store, &args.run.model);
    let (found, numerics) = kept(&mut session, &args.memory, store, |session, limits| trace.run(session, limits))?;
    if output.takes_objects() {
        records(&mut output, args, (&session, numerics), &trace, &found, &names)?;
    } else {
        show(&mut output, args, &trace, &found, &names)?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn records(
    output: &mut Output,
    args: &Trace,
    (session, numerics): (&Session, String),
    trace: &Tracing,
    found: &Traced,
    names: &Names<'_>,
) -> Result<()> {
    let (model, ids) = (session.model().name(), &trace.run.ids);
    for (row, cells) in found.rows.iter().zip(&found.cells) {
        for (position, TracedCell { restored, effect }) in found.columns.clone().zip(cells) {
            output.object(&CellRecord {
                schema_version: SCHEMA_VERSION,
                view: "trace",
                model,
                site: trace.site.hook(),
                address: row.address.to_string(),
                label: row_label(row, &found.rows),
                layer: row.layer,
                position,
                token: names.text(ids[position]),
                token_id: ids[position],
                restored: Number(*restored),
                effect: (*effect).into(),
            })?;
        }
    }
    output.object(&SummaryRecord {
        schema_version: SCHEMA_VERSION,
        view: "trace",
        model,
        numerics,
        bos: args.bos.wanted(),
        plan: &trace.run.plan.to_string(),
        prompt_ids: ids,
        answer: AnswerRecord { text: &args.answer, ids: &trace.answer },
        subject: [trace.subject.start, trace.subject.end],
        site: trace.site.hook(),
        window: trace.window,
        sigma: trace.sigma,
        seeds: trace.seeds,
        clean: Number(found.clean),
        noised: found.noised.into(),
        total_effect: found.total.into(),
        cells: found.cells.iter().map(Vec::len).sum(),
        cost: CostRecord::new(found.cost),
        threads: session.threads(),
    })
}

fn show(output: &mut Output, args: &Trace, trace: &Tracing, found: &Traced, names: &Names<'_>) -> Result<()> {
    let of = |range: Range<usize>| range.map(|at| names.quoted(trace.run.ids[at])).collect::<Vec<_>>().join(" ");
    let answer = &args.answer;
    output.heading(&format!(
        "{} restored: how much likelier {answer:?} becomes, {} noised",
        trace.site.hook(),
        of(trace.subject.clone())
    ))?;
    output.line(format!(
        "p({answer:?}): {} clean, {} noised; total effect {}",
        shown(found.clean),
        shown(found.noised.value),
        interval(found.total)
    ))?;
    let columns = || found.columns.clone();
    let star = |at: usize| if trace.subject.contains(&at) { format!("{at}*") } else { at.to_string() };
    let effects = || found.cells.iter().map(|row| row.iter().map(|cell| cell.effect.value).collect::<Vec<f64>>());
    let sizes = effects().flatten().filter(|effect| effect.is_finite()).map(f64::abs);
    let map = Map {
        rows: found.rows.iter().map(|row| row_label(row, &found.rows)).collect(),
        heads: vec![
            ("layer".to_owned(), columns().map(star).collect()),
            (String::new(), columns().map(|at| names.cell(trace.run.ids[at], CELL).trim_end().to_owned()).collect()),
        ],
        even: 0.0,
        extreme: sizes.fold(0.0, f64::max),
        cells: effects().collect(),
    };
    map::show(output, &map)?;
    let window = if trace.window == 1 { String::new() } else { format!(" · {} layers in a row", trace.window) };
    let seeds = if trace.seeds == 1 { "1 seed".to_owned() } else { format!("{} seeds", trace.seeds) };
    output.line(format!("* noised: σ {} · {seeds}{window}", shown(trace.sigma)))?;
    output.line(format!("{} cells: {}", map.cells.iter().map(Vec::len).sum::<usize>(), cost_text(found.cost)))
}

/// `0.9312 (0.9011 … 0.9534)`
fn interval(Estimate { value, low, high }: Estimate) -> String {
    if low.is_nan() { shown(value) } else { format!("{} ({} … {})", shown(value), shown(low), shown(high)) }
}
