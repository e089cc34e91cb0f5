//! `lesion lens`: the grid of steps and places with the likeliest token in each cell.

use lesion::measure::{LensCell, Number, logit_lens, tuned_lens};
use lesion::plan::Step;
use lesion::report::inside::Shown;
use serde::Serialize;

use super::args::Lens;
use super::tokens::PredictionRecord;
use super::{Names, not_empty};
use crate::cli::bridges::shortcuts;
use crate::cli::failure::{Exit, Result};
use crate::cli::model::shown_path;
use crate::cli::output::{Output, SCHEMA_VERSION};
use crate::cli::resolve::{self, Input, NamedPlan};
use crate::cli::{measure_failure, model, signals};

/// Characters of a cell, and of all cells of a line.
const CELL: usize = 9;
const LINE: usize = 110;

/// A cell. Fields are never renamed.
#[derive(Serialize)]
struct LensRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    plan: &'a str,
    /// `logit`, or `tuned`: through the maps of a file.
    lens: &'static str,
    /// Steps of the plan that have run: 0 is the embedding.
    steps: usize,
    /// The step that ran last.
    step: &'a str,
    position: usize,
    token: Option<String>,
    token_id: u32,
    next: Option<String>,
    next_id: Option<u32>,
    #[serde(flatten)]
    prediction: PredictionRecord,
    /// Of the likeliest token.
    likeliest_probability: Number,
    /// KL(the plan's end ‖ here), nats.
    kl: Number,
}

pub(crate) fn run(args: &Lens) -> Result<Exit> {
    args.prompt.text.given()?;
    let plans = resolve::parse_all(&args.plan.plan)?;
    let engine = resolve::engine(&args.run.engine)?;
    let mut output = Output::open_drawn(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let bridges = args.plan.bridges.read(&model)?;
    let plans = resolve::plans(&plans, &model, &bridges)?;
    let input = Input::prompt(&model, &args.prompt)?;
    not_empty(&input)?;
    resolve::within_context(input.ids.len(), model.config())?;
    let tuned = args.tuned.as_ref().map(|path| shortcuts(path, &model)).transpose()?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    session.set_references(args.run.references.read()?);
    let names = Names::new(&model, &input);
    let first = args.last.map_or(0, |last| input.ids.len().saturating_sub(last as usize));
    let cells = |plan: &NamedPlan| (plan.plan.steps().len() + 1).saturating_mul(input.ids.len() - first);
    output.check_drawn(&plans, &cells, Shown::default())?;
    for (number, plan) in plans.iter().enumerate() {
        let grid = match &tuned {
            Some(tuned) => tuned_lens(&mut session, &plan.plan, &input.ids, tuned),
            None => logit_lens(&mut session, &plan.plan, &input.ids),
        };
        let grid = grid.map_err(|error| measure_failure(&error))?;
        model::check_unchanged(&model, args.run.model.read())?;
        signals::check()?;
        let steps = steps(plan);
        if output.takes_objects() {
            for (cells, (run, step)) in grid.iter().zip(steps.iter().enumerate()) {
                for (position, cell) in cells.iter().enumerate().skip(first) {
                    let next_id = input.ids.get(position + 1).copied();
                    output.object(&LensRecord {
                        schema_version: SCHEMA_VERSION,
                        view: "lens",
                        model: model.name(),
                        plan: &plan.text,
                        lens: if tuned.is_some() { "tuned" } else { "logit" },
                        steps: run,
                        step,
                        position,
                        token: names.text(input.ids[position]),
                        token_id: input.ids[position],
                        next: next_id.and_then(|id| names.text(id)),
                        next_id,
                        prediction: PredictionRecord::new(&cell.prediction, next_id, &names),
                        likeliest_probability: Number(cell.probability),
                        kl: Number(cell.divergence),
                    })?;
                }
            }
            continue;
        }
        if number > 0 {
            output.line("")?;
        }
        let through =
            args.tuned.as_ref().map_or_else(String::new, |path| format!(", through the maps of {}", shown_path(path)));
        let heading = format!("{}: the likeliest token behind each step, and its probability{through}", plan.label());
        output.heading(&heading)?;
        show(&mut output, &steps, &input, &grid, first, &names)?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// What ran before each row of the grid.
fn steps(plan: &NamedPlan) -> Vec<String> {
    std::iter::once("embed".to_owned()).chain(plan.plan.steps().iter().map(Step::to_string)).collect()
}

/// The grid, as many places side by side as a line holds; the last step on top, as one reads a tower.
fn show(
    output: &mut Output,
    steps: &[String],
    input: &Input,
    grid: &[Vec<LensCell>],
    first: usize,
    names: &Names<'_>,
) -> Result<()> {
    let label = steps.iter().map(|step| step.chars().count()).max().unwrap_or(0);
    let places: Vec<usize> = (first..input.ids.len()).collect();
    for (block, places) in places.chunks(LINE / (CELL + 5)).enumerate() {
        if block > 0 {
            output.line("")?;
        }
        for (cells, step) in grid.iter().zip(steps).rev() {
            let mut line = format!("{step:>label$}  ");
            for &place in places {
                let LensCell { prediction, probability, .. } = cells[place];
                let text = format!("{}{:>3} ", names.cell(prediction.likeliest, CELL), percent(probability));
                // Blue: no cell is better or worse than intact here.
                line.push_str(&output.shaded(&text, -probability, 1.0));
                line.push(' ');
            }
            output.line(line.trim_end())?;
        }
        let mut line = format!("{:>label$}  ", "");
        places.iter().for_each(|&place| line.push_str(&format!("{}     ", names.cell(input.ids[place], CELL))));
        output.line(line.trim_end())?;
    }
    output.line("percent; below the grid the text itself: a cell is what comes behind the token under it")
}

fn percent(probability: f64) -> String {
    if probability.is_nan() { "NaN".to_owned() } else { format!("{:.0}", 100.0 * probability) }
}
