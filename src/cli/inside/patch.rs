//! `lesion patch`: grids of activations that one run lends another.

use std::ops::Range;

use lesion::forward::{Bridges, Session};
use lesion::inside::{Cells, Direction, Grid, Metric, PatchGrid, PathPatch, Run};
use lesion::measure::Number;
use lesion::model::Model;
use lesion::plan::{Action, Modifier, Site};
use lesion::report::inside::Shown;
use serde::Serialize;

use super::args::Patch;
use super::map::{self, CELL, Map};
use super::path::Paths;
use super::{AnswerRecord, CostRecord, Prompted, cost_text, inside_failure, kept, plan, prompted, row_label, signed};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::look::Names;
use crate::cli::model;
use crate::cli::output::{Output, SCHEMA_VERSION, note, shown};
use crate::cli::resolve::{self, Input, NamedPlan};

/// What an answer of several tokens can be measured by.
const ONE: &str =
    "a difference of logits is between two tokens; without --other the loss of the whole answer is measured";

/// A patched run. Fields are never renamed.
#[derive(Serialize)]
struct CellRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    plan: String,
    site: &'static str,
    address: String,
    /// As people read it: `5`, `5a`, `5@1`.
    label: String,
    layer: usize,
    occurrence: usize,
    /// Where the columns are positions.
    position: Option<usize>,
    token: Option<String>,
    token_id: Option<u32>,
    /// Where they are heads.
    head: Option<usize>,
    /// The metric.
    value: Number,
    /// (value − corrupted) / (clean − corrupted); NaN where the runs can't be told apart.
    score: Number,
}

/// The baselines, and what all cells took.
#[derive(Serialize)]
struct SummaryRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    numerics: String,
    bos: bool,
    site: &'static str,
    /// Where paths lead, of heads along paths alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// And through what.
    #[serde(skip_serializing_if = "Option::is_none")]
    through: Option<&'static str>,
    /// Positions that are patched, half-open; none for all.
    positions: Option<[usize; 2]>,
    direction: &'static str,
    metric: &'static str,
    answer: AnswerRecord<'a>,
    other: Option<AnswerRecord<'a>>,
    clean: RunRecord<'a>,
    corrupted: RunRecord<'a>,
    noise_floor: f64,
    resolved: bool,
    cells: usize,
    #[serde(flatten)]
    cost: CostRecord,
    threads: usize,
}

#[derive(Serialize)]
struct RunRecord<'a> {
    plan: &'a str,
    ids: &'a [u32],
    tokens: Vec<Option<String>>,
    value: Number,
}

impl<'a> RunRecord<'a> {
    fn new((input, plan): &'a (Input, NamedPlan), value: f64, names: &Names<'_>) -> RunRecord<'a> {
        let tokens = input.ids.iter().map(|id| names.text(*id)).collect();
        RunRecord { plan: &plan.text, ids: &input.ids, tokens, value: Number(value) }
    }
}

/// Both runs, and what tells them apart.
struct Pair {
    clean: (Input, NamedPlan),
    corrupted: (Input, NamedPlan),
    metric: Metric,
}

pub(crate) fn run(args: &Patch) -> Result<Exit> {
    for text in [&args.plan, &args.corrupted_plan].into_iter().flatten() {
        resolve::parse(text)?;
    }
    let engine = resolve::engine(&args.run.engine)?;
    let mut output = Output::open_drawn(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let bridges = args.bridges.read(&model)?;
    let pair = pair(args, &model, &bridges)?;
    let positions = positions(args, &pair)?;
    let columns = if args.site.has_heads() { model.config().n_head } else { positions.len() };
    let cells = match args.site.has_heads() {
        true => Cells::Heads { positions: args.positions.as_ref().map(|positions| positions.0.clone()) },
        false => Cells::Positions(positions),
    };
    let direction = if args.reverse { Direction::Noise } else { Direction::Denoise };
    let references = args.run.references.read()?;
    let side = |(input, plan): &(Input, NamedPlan)| {
        let references = references.clone();
        Run { references, ..Run::new(input.ids.clone(), plan.plan.clone()) }
    };
    let (clean, corrupted) = (side(&pair.clean), side(&pair.corrupted));
    let asked = match &paths(args) {
        None => PatchGrid::new(clean, corrupted, args.site.site(), cells, direction).map(Asked::Grid),
        Some(Paths { receiver, through, .. }) => {
            PathPatch::new(clean.ids, corrupted.ids, clean.plan, receiver.clone(), *through, direction)
                .map(Asked::Paths)
        }
    };
    let names = Names::new(&model, &pair.clean.0);
    let asked = asked.map_err(|error| told_tokens(inside_failure(&error), &pair, &names))?;
    let drawn = |plan: &NamedPlan| plan.plan.executions().count().saturating_mul(columns);
    output.check_drawn(std::slice::from_ref(&receiver(args, &pair).0.1), &drawn, Shown::default())?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    let store = (&args.store, &args.run.model);
    let (found, numerics) = kept(&mut session, &args.memory, store, |session, limits| match &asked {
        Asked::Grid(grid) => grid.run(session, &pair.metric, limits),
        Asked::Paths(paths) => paths.run(session, &pair.metric, limits),
    })?;
    let passed =
        receiver(args, &pair).0.1.plan.executions().filter(|placed| args.site.site().is_in(placed.execution.part));
    let without: Vec<String> = passed
        .filter(|placed| matches!(asked, Asked::Grid(_)) && found.rows.iter().all(|row| row.index != placed.index))
        .map(|placed| placed.alias())
        .collect();
    if !without.is_empty() {
        let which = without.join(", ");
        note(format!("no row for {which}: the layer does not run exactly once in the run that is patched from"));
    }
    if output.takes_objects() {
        records(&mut output, args, (&session, numerics), &pair, (&asked, &found), &names)?;
    } else {
        show(&mut output, args, &pair, &found, &names)?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// What is run.
enum Asked {
    Grid(PatchGrid),
    Paths(PathPatch),
}

fn pair(args: &Patch, model: &Model, bridges: &Bridges) -> Result<Pair> {
    let clean_text = resolve::given_or_stdin(&args.prompt)?;
    let corrupted_text = args.corrupted.as_deref().unwrap_or(&clean_text);
    let answered = |answer: &str| -> Result<(Prompted, Prompted)> {
        let clean = prompted(model, &clean_text, answer, &args.bos)?;
        let corrupted = prompted(model, corrupted_text, answer, &args.bos)?;
        if clean.answer != corrupted.answer {
            let [clean, corrupted] = [&clean, &corrupted].map(|prompted| format!("{:?}", prompted.answer));
            let message = format!("{answer:?} is of tokens {clean} behind one prompt and {corrupted} behind the other");
            return Err(Failure::usage(message));
        }
        Ok((clean, corrupted))
    };
    let (clean, corrupted) = answered(&args.answer)?;
    let names = Names::new(model, &clean.input);
    let metric = match &args.other {
        Some(other) => Metric::LogitDifference {
            answer: names.one(&clean.answer, "--answer", &args.answer, ONE)?,
            other: names.one(&answered(other)?.0.answer, "--other", other, ONE)?,
        },
        None => Metric::Nll { answer: clean.answer },
    };
    let clean_plan = args.plan.as_deref();
    let corrupted_plan = args.corrupted_plan.as_deref().or(clean_plan);
    Ok(Pair {
        clean: (clean.input, plan(clean_plan, model, bridges)?),
        corrupted: (corrupted.input, plan(corrupted_plan, model, bridges)?),
        metric,
    })
}

/// Positions that are patched: before the first token that differs both runs are the same, unless their plans are not.
fn positions(args: &Patch, Pair { clean, corrupted, .. }: &Pair) -> Result<Range<usize>> {
    if let Some(positions) = &args.positions {
        return Ok(positions.0.clone());
    }
    let tokens = clean.0.ids.len();
    let same = clean.0.ids.iter().zip(&corrupted.0.ids).take_while(|(a, b)| a == b).count();
    if clean.1.plan != corrupted.1.plan {
        return Ok(0..tokens);
    }
    if same == tokens && tokens == corrupted.0.ids.len() {
        return Err(Failure::usage("both runs are the same: nothing is corrupted"));
    }
    Ok(same.min(tokens.saturating_sub(1))..tokens)
}

/// Prompts of unequal length are shown token by token.
fn told_tokens(failure: Failure, Pair { clean, corrupted, .. }: &Pair, names: &Names<'_>) -> Failure {
    if clean.0.ids.len() == corrupted.0.ids.len() {
        return failure;
    }
    let tokens = |ids: &[u32]| ids.iter().map(|id| names.quoted(*id)).collect::<Vec<_>>().join(" ");
    failure.with_help(format!("clean: {}\n      corrupted: {}", tokens(&clean.0.ids), tokens(&corrupted.0.ids)))
}

/// The receiving run, and the name that its patches have for the other.
fn receiver<'a>(args: &Patch, pair: &'a Pair) -> (&'a (Input, NamedPlan), &'static str) {
    if args.reverse { (&pair.clean, "corrupted") } else { (&pair.corrupted, "clean") }
}

fn records(
    output: &mut Output,
    args: &Patch,
    (session, numerics): (&Session, String),
    pair: &Pair,
    (asked, grid): (&Asked, &Grid),
    names: &Names<'_>,
) -> Result<()> {
    let ((input, plan), from) = receiver(args, pair);
    let site = args.site.site();
    let given = args.positions.as_ref().map(|positions| positions.0.clone());
    for (row, values) in grid.rows.iter().zip(&grid.values) {
        for (column, value) in grid.columns.clone().zip(values) {
            let position = (!args.site.has_heads()).then_some(column);
            let head = args.site.has_heads().then_some(column);
            let positions = position.map_or_else(|| given.clone(), |at| Some(at..at + 1));
            let token_id = position.map(|position| input.ids[position]);
            output.object(&CellRecord {
                schema_version: SCHEMA_VERSION,
                view: "patch",
                model: session.model().name(),
                plan: match asked {
                    Asked::Grid(_) => patched(plan, row.index, site, head, positions, from)?,
                    Asked::Paths(paths) => {
                        paths.sending(row.index, column).map_err(|error| inside_failure(&error))?.to_string()
                    }
                },
                site: site.hook(),
                address: row.address.to_string(),
                label: row_label(row, &grid.rows),
                layer: row.layer,
                occurrence: row.occurrence,
                position,
                token: token_id.and_then(|id| names.text(id)),
                token_id,
                head,
                value: Number(*value),
                score: Number(grid.score(*value)),
            })?;
        }
    }
    let ids = |metric: &Metric| match metric {
        Metric::LogitDifference { answer, other } => (vec![*answer], Some(vec![*other])),
        Metric::Nll { answer } => (answer.clone(), None),
    };
    let (answer, other) = ids(&pair.metric);
    output.object(&SummaryRecord {
        schema_version: SCHEMA_VERSION,
        view: "patch",
        model: session.model().name(),
        numerics,
        bos: pair.clean.0.bos,
        site: site.hook(),
        to: paths(args).map(|paths| paths.receiver_text),
        through: paths(args).map(|paths| paths.through_text()),
        positions: match given {
            Some(positions) => Some([positions.start, positions.end]),
            None => (!args.site.has_heads()).then_some([grid.columns.start, grid.columns.end]),
        },
        direction: if args.reverse { "corrupted into clean" } else { "clean into corrupted" },
        metric: if other.is_some() { "logit difference" } else { "nll" },
        answer: AnswerRecord { text: &args.answer, ids: &answer },
        other: args.other.as_deref().zip(other.as_deref()).map(|(text, ids)| AnswerRecord { text, ids }),
        clean: RunRecord::new(&pair.clean, grid.clean, names),
        corrupted: RunRecord::new(&pair.corrupted, grid.corrupted, names),
        noise_floor: grid.noise_floor,
        resolved: grid.is_resolved(),
        cells: grid.values.iter().map(Vec::len).sum(),
        cost: CostRecord::new(grid.cost),
        threads: session.threads(),
    })
}

/// The paths that are asked for, if they are.
fn paths(args: &Patch) -> Option<Paths> {
    args.to.as_ref().map(|to| Paths::new(to, args.input, args.through_mlps))
}

/// The text of a cell's plan.
fn patched(
    plan: &NamedPlan,
    index: usize,
    site: Site,
    head: Option<usize>,
    positions: Option<Range<usize>>,
    from: &str,
) -> Result<String> {
    let action = Action::Patch { from: from.to_owned() };
    let modifier = Modifier { action, site, units: head.into_iter().collect(), positions };
    let plan = plan.plan.with_modifiers(&[(index, modifier)]);
    Ok(plan.map_err(|error| Failure::usage(error.to_string()))?.to_string())
}

fn show(output: &mut Output, args: &Patch, pair: &Pair, grid: &Grid, names: &Names<'_>) -> Result<()> {
    let metric = match (&pair.metric, &args.other) {
        (Metric::LogitDifference { .. }, Some(other)) => format!("logit {:?} − logit {other:?}", args.answer),
        _ => format!("−ln p of {:?}, nats", args.answer),
    };
    let (of, into) = if args.reverse { ("corrupted", "clean") } else { ("clean", "corrupted") };
    let site = args.site.site().hook();
    match paths(args) {
        None => output.heading(&format!("{site} of the {of} run, patched into the {into} one"))?,
        Some(paths) => {
            let (to, through) = (&paths.receiver_text, paths.through_text());
            output.heading(&format!(
                "{site} of the {of} run, on the way to the {to} in the {into} one, through {through}"
            ))?;
        }
    }
    let (clean, corrupted) = (signed(grid.clean), signed(grid.corrupted));
    output.line(format!("{metric}: clean {clean}, corrupted {corrupted}"))?;
    if !grid.is_resolved() {
        let floor = shown(grid.noise_floor);
        return output
            .line(format!("unresolved: the runs differ by less than {floor}, which rounding may do: no scores"));
    }
    let columns = || grid.columns.clone();
    let tokens = |input: &Input| columns().map(|at| names.cell(input.ids[at], CELL).trim_end().to_owned()).collect();
    let heads: Vec<(String, Vec<String>)> = if args.site.has_heads() {
        vec![("layer".to_owned(), columns().map(|head| format!("h{head}")).collect())]
    } else {
        let mut lines = vec![("layer".to_owned(), columns().map(|at| at.to_string()).collect())];
        if pair.clean.0.ids == pair.corrupted.0.ids {
            lines.push((String::new(), tokens(&pair.clean.0)));
        } else {
            lines.push(("clean".to_owned(), tokens(&pair.clean.0)));
            lines.push(("corrupted".to_owned(), tokens(&pair.corrupted.0)));
        }
        lines
    };
    let map = Map {
        rows: grid.rows.iter().map(|row| row_label(row, &grid.rows)).collect(),
        heads,
        cells: grid.values.iter().map(|row| row.iter().map(|value| grid.score(*value)).collect()).collect(),
        // The run that is patched.
        even: if args.reverse { 1.0 } else { 0.0 },
        extreme: 1.0,
    };
    map::show(output, &map)?;
    let column = |c: usize| match args.site.has_heads() {
        true => format!("h{}", grid.columns.start + c),
        false => format!("@{}", grid.columns.start + c),
    };
    output.line(format!("{} is the {into} run; furthest: {}", map.even, map::furthest(&map, 3, &column)))?;
    let cells: usize = grid.values.iter().map(Vec::len).sum();
    output.line(format!("{cells} cells: {}", cost_text(grid.cost)))
}
