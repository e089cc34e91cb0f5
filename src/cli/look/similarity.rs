//! `lesion similarity`: how much each step turns the residual stream, and how alike its states are.

use lesion::forward::Session;
use lesion::measure::{CosineMap, Number, Similarity};
use lesion::model::Model;
use lesion::plan::Step;
use lesion::report::inside::Shown;
use lesion::report::plot::{Bars, Drawing, Plot};
use lesion::sweep::Estimate;
use serde::Serialize;

use super::args::Similar;
use super::grid::{Cell, Grid};
use super::not_empty;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::output::{Output, SCHEMA_VERSION, numbers};
use crate::cli::resolve::{self, Input, NamedPlan};
use crate::cli::sweep::inputs;
use crate::cli::{measure_failure, model, signals};

/// A plan's states, compared. Fields are never renamed.
#[derive(Serialize)]
struct SimilarityRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    plan: &'a str,
    texts: usize,
    /// What ran before each state: `embed`, then the steps.
    states: Vec<String>,
    #[serde(flatten)]
    all: MapRecord,
    without_first: MapRecord,
}

#[derive(Serialize)]
struct MapRecord {
    tokens: u64,
    /// By state, by state.
    cosines: Vec<Vec<Number>>,
    /// By step.
    block_influence: Vec<Number>,
}

impl MapRecord {
    fn new(map: &CosineMap) -> MapRecord {
        let row = |a: usize| (0..map.states()).map(|b| Number(map.cosine(a, b))).collect();
        MapRecord {
            tokens: map.tokens(),
            cosines: (0..map.states()).map(row).collect(),
            block_influence: numbers(&map.block_influence()),
        }
    }
}

pub(crate) fn run(args: &Similar) -> Result<Exit> {
    if args.lines.is_empty() {
        args.prompt.text.given()?;
    }
    inputs::stdin_once(&args.lines)?;
    let plans = resolve::parse_all(&args.plan.plan)?;
    let engine = resolve::engine(&args.run.engine)?;
    let mut output = Output::open_drawn(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let bridges = args.plan.bridges.read(&model)?;
    let plans = resolve::plans(&plans, &model, &bridges)?;
    let texts = texts(args, &model)?;
    let cells = |plan: &NamedPlan| (plan.plan.steps().len() + 1).saturating_pow(2);
    output.check_drawn(&plans, &cells, Shown { with_first: args.with_first, ..Shown::default() })?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    session.set_references(args.run.references.read()?);
    for (number, plan) in plans.iter().enumerate() {
        let found = compare(&mut session, plan, &texts)?;
        model::check_unchanged(&model, args.run.model.read())?;
        let map = if args.with_first { &found.all } else { &found.without_first };
        if map.tokens() == 0 && !output.json {
            return Err(Failure::usage("no text has a token behind its first").with_help("--with-first counts those"));
        }
        if output.takes_objects() {
            output.object(&SimilarityRecord {
                schema_version: SCHEMA_VERSION,
                view: "similarity",
                model: model.name(),
                plan: &plan.text,
                texts: texts.len(),
                states: states(plan),
                all: MapRecord::new(&found.all),
                without_first: MapRecord::new(&found.without_first),
            })?;
            continue;
        }
        let over = format!("{} tokens{}", map.tokens(), if args.with_first { "" } else { ", position 0 left out" });
        if number > 0 {
            output.line("")?;
        }
        output.heading(&format!("{}: cosines of states, %; {over}", plan.label()))?;
        show(&mut output, plan, map)?;
        if !plan.plan.is_empty() {
            output.line("")?;
            output.plot(&influence(plan, map, over))?;
        }
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// The prompt, or the lines of files; each begins with BOS unless told otherwise. Empty lines are no texts.
fn texts(args: &Similar, model: &Model) -> Result<Vec<Input>> {
    let mut texts = Vec::new();
    if args.lines.is_empty() {
        let input = Input::prompt(model, &args.prompt)?;
        not_empty(&input)?;
        resolve::within_context(input.ids.len(), model.config())?;
        texts.push(input);
    }
    for path in &args.lines {
        let name = inputs::name(path);
        let text = String::from_utf8(inputs::read(path)?).map_err(|error| {
            Failure::new(Exit::BadFile, format!("{name}: not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
        })?;
        let before = texts.len();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let read = Input::text(model, line.to_owned(), args.prompt.bos.wanted()).and_then(|input| {
                input.within_context(model.config())?;
                Ok(input)
            });
            texts.push(read.map_err(|failure| failure.about(&format!("{name}, line {}", number + 1)))?);
        }
        if texts.len() == before {
            return Err(Failure::new(Exit::BadFile, format!("{name}: no line with a text")));
        }
    }
    Ok(texts)
}

fn compare(session: &mut Session, plan: &NamedPlan, texts: &[Input]) -> Result<Similarity> {
    let mut found = Similarity::new(&plan.plan).map_err(|error| measure_failure(&error))?;
    for text in texts {
        signals::check()?;
        let added = found.add(session, &plan.plan, &text.ids);
        added.map_err(|error| measure_failure(&error))?;
    }
    Ok(found)
}

/// What ran before each state.
fn states(plan: &NamedPlan) -> Vec<String> {
    std::iter::once("embed".to_owned()).chain(plan.plan.steps().iter().map(Step::to_string)).collect()
}

/// The lower triangle: a state beside those before it.
fn show(output: &mut Output, plan: &NamedPlan, map: &CosineMap) -> Result<()> {
    let cell = |a: usize, b: usize| {
        let value = map.cosine(a, b);
        let text = if value.is_nan() { "NaN".to_owned() } else { format!("{:.0}", (100.0 * value).round() + 0.0) };
        Some(Cell { text, value: -value })
    };
    let states = states(plan);
    let rows = states.iter().enumerate().map(|(a, state)| (state.clone(), (0..=a).map(|b| cell(a, b)).collect()));
    let rows = rows.collect();
    let columns = states.iter().map(|state| if state.chars().count() < 4 { state.clone() } else { String::new() });
    let columns = std::iter::once("emb".to_owned()).chain(columns.skip(1)).collect();
    Grid { columns, rows, extreme: 1.0 }.show(output)
}

fn influence(plan: &NamedPlan, map: &CosineMap, measure: String) -> Plot {
    let certain = |value: f64| Estimate { value, low: f64::NAN, high: f64::NAN };
    let values = map.block_influence().into_iter().map(certain);
    let bars = plan.plan.steps().iter().map(Step::to_string).zip(values).collect();
    Plot {
        title: "Block influence, 1 − cosine".to_owned(),
        measure,
        drawing: Drawing::Bars(Bars { axis: "step".to_owned(), bars, difference: false, reference: None }),
    }
}
