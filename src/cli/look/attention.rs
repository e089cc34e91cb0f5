//! `lesion attention`: where heads look: one pattern as a picture, or all heads in a few numbers.

use lesion::forward::Session;
use lesion::measure::{
    FIRST_QUERIES, HeadSummary, Number, Repeated, attention_pattern, head_summaries, induction_scores, is_of_one_text,
};
use lesion::model::Model;
use lesion::report::inside::Shown;
use serde::Serialize;

use super::args::Attention;
use super::grid::{Cell, Grid};
use super::{Names, Ran, not_empty};
use crate::cli::failure::{Exit, Result};
use crate::cli::output::{Output, SCHEMA_VERSION};
use crate::cli::resolve::{self, Input, NamedPlan};
use crate::cli::{forward_failure, measure_failure, model, signals};

/// Random tokens that are repeated to find induction.
const RANDOM: usize = 50;

/// Characters of a token beside a pattern, and keys side by side: 80 columns hold them.
const TOKEN: usize = 9;
const KEYS: usize = 32;

/// A head's pattern. Fields are never renamed.
#[derive(Serialize)]
struct PatternRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    plan: &'a str,
    #[serde(flatten)]
    head: HeadRecord<'a>,
    token_ids: &'a [u32],
    tokens: Vec<String>,
    /// By query, over the keys up to it.
    pattern: Vec<Vec<Number>>,
}

/// A head in a few numbers. Fields are never renamed.
#[derive(Serialize)]
struct SummaryRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    plan: &'a str,
    #[serde(flatten)]
    head: HeadRecord<'a>,
    /// Nats.
    entropy: Number,
    /// Attention to position 0.
    first: Number,
    /// Attention to the token before.
    previous: Number,
    /// On repeated random tokens; none where the plan belongs to one text.
    induction: Option<Number>,
}

#[derive(Serialize)]
struct HeadRecord<'a> {
    address: &'a str,
    /// As people read it: `5`, `5a`, `5@1`.
    label: &'a str,
    layer: usize,
    occurrence: usize,
    head: usize,
}

pub(crate) fn run(args: &Attention) -> Result<Exit> {
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
    let (tokens, heads) = (input.ids.len(), model.config().n_head);
    let cells = |plan: &NamedPlan| match args.head {
        Some(_) => tokens * (tokens + 1) / 2,
        None => plan.plan.executions().count().saturating_mul(heads),
    };
    output.check_drawn(&plans, &cells, Shown::default())?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    session.set_references(args.run.references.read()?);
    let seen = Looked { args, names: Names::new(&model, &input), input: &input, model: &model };
    for (number, plan) in plans.iter().enumerate() {
        signals::check()?;
        if number > 0 && !output.json {
            output.line("")?;
        }
        match args.head {
            Some(head) => seen.pattern(&mut session, plan, head as usize, &mut output)?,
            None => seen.summaries(&mut session, plan, &mut output)?,
        }
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// The text, and what is asked of it.
struct Looked<'a> {
    args: &'a Attention,
    model: &'a Model,
    input: &'a Input,
    names: Names<'a>,
}

impl Looked<'_> {
    /// The name of the execution that is asked for.
    fn name(&self) -> Option<String> {
        let layer = self.args.layer.as_ref()?;
        let whole = layer.starts_with("steps.") || layer.starts_with("blocks.");
        Some(if whole { layer.clone() } else { format!("blocks.{layer}") })
    }

    fn located(&self, plan: &NamedPlan, name: &str) -> Result<usize> {
        plan.plan.locate(name).map(|placed| placed.index).map_err(|error| forward_failure(&error.into()))
    }

    fn pattern(&self, session: &mut Session, plan: &NamedPlan, head: usize, output: &mut Output) -> Result<()> {
        // The command line's syntax: a head is a layer's.
        let name = self.name().unwrap_or_default();
        let ids = &self.input.ids;
        let pattern = attention_pattern(session, &plan.plan, ids, &name, head);
        let pattern = pattern.map_err(|error| measure_failure(&error))?;
        model::check_unchanged(self.model, self.args.run.model.read())?;
        let ran = &Ran::all(&plan.plan)[self.located(plan, &name)?];
        let rows: Vec<&[f32]> = pattern.chunks_exact(ids.len()).enumerate().map(|(q, row)| &row[..=q]).collect();
        if output.takes_objects() {
            return output.object(&PatternRecord {
                schema_version: SCHEMA_VERSION,
                view: "attention",
                model: self.model.name(),
                plan: &plan.text,
                head: ran.head(head),
                token_ids: ids,
                tokens: ids.iter().map(|id| self.names.text(*id).unwrap_or_default()).collect(),
                pattern: rows.iter().map(|row| row.iter().map(|p| Number(f64::from(*p))).collect()).collect(),
            });
        }
        output.heading(&format!("{}: {} h{head}, where each token looks", plan.label(), ran.label))?;
        self.show(output, &rows)
    }

    /// A line a query, two columns a key; longer texts in blocks of keys.
    fn show(&self, output: &mut Output, rows: &[&[f32]]) -> Result<()> {
        let label = rows.len().to_string().len();
        for first in (0..rows.len()).step_by(KEYS) {
            if first > 0 {
                output.line("")?;
            }
            let last = rows.len().min(first + KEYS);
            let ruler: String = (first..last).step_by(5).map(|key| format!("{key:<10}")).collect();
            output.line(format!("{:1$}  {ruler}", "", label + 1 + TOKEN).trim_end())?;
            for (query, row) in rows.iter().enumerate().skip(first) {
                let keys = row[first..row.len().min(last)].iter();
                let cells: String = keys.map(|p| output.amount(f64::from(*p))).collect();
                let token = self.names.cell(self.input.ids[query], TOKEN);
                output.line(format!("{query:>label$} {token}  {cells}").trim_end())?;
            }
        }
        output.line("down: the token that looks; across: the one it looks at")?;
        output.line("· below 5 %, ░ below 25 %, ▒ below 50 %, ▓ below 75 %, █ above")
    }

    fn summaries(&self, session: &mut Session, plan: &NamedPlan, output: &mut Output) -> Result<()> {
        let only = self.name().map(|name| self.located(plan, &name)).transpose()?;
        let found = head_summaries(session, &plan.plan, &self.input.ids);
        let found = found.map_err(|error| measure_failure(&error))?;
        let repeated = Repeated::draw(self.model, RANDOM, self.args.seed);
        let copied = repeated.period > 0 && !is_of_one_text(&plan.plan);
        let induction = match copied {
            true => induction_scores(session, &plan.plan, &repeated).map_err(|error| measure_failure(&error))?,
            false => Vec::new(),
        };
        model::check_unchanged(self.model, self.args.run.model.read())?;
        let ran = Ran::all(&plan.plan);
        let shown = |(at, summary)| Told { summary, induction: induction.get(at).copied() };
        let rows = found.into_iter().enumerate().map(shown);
        let rows: Vec<Told> = rows.filter(|row| only.is_none_or(|only| only == row.summary.execution)).collect();
        if output.takes_objects() {
            return rows.iter().try_for_each(|Told { summary, induction }| {
                output.object(&SummaryRecord {
                    schema_version: SCHEMA_VERSION,
                    view: "attention",
                    model: self.model.name(),
                    plan: &plan.text,
                    head: ran[summary.execution].head(summary.head),
                    entropy: Number(summary.entropy),
                    first: Number(summary.first),
                    previous: Number(summary.previous),
                    induction: induction.map(Number),
                })
            });
        }
        if rows.is_empty() {
            return output.line(format!("{}: no attention runs there", plan.label()));
        }
        let tokens = self.input.ids.len();
        output.heading(&format!("{}: where heads look, over {tokens} tokens", plan.label()))?;
        let share = |value: f64| Cell { text: percent(value), value: -value };
        if copied {
            let title = format!("to what followed the token before, on {} random tokens twice, %", repeated.period);
            heads(output, &title, 1.0, &rows, &ran, &|row| share(row.induction.unwrap_or(f64::NAN)))?;
        } else {
            output.line("the plan belongs to one text: induction can't be told on another")?;
        }
        heads(output, "to the token before, %", 1.0, &rows, &ran, &|row| share(row.summary.previous))?;
        heads(output, "to position 0, %", 1.0, &rows, &ran, &|row| share(row.summary.first))?;
        let most = (tokens as f64).ln();
        heads(output, "entropy, nats", most, &rows, &ran, &|row| Cell {
            text: format!("{:.1}", row.summary.entropy),
            value: -row.summary.entropy,
        })?;
        output.line(format!("the first {FIRST_QUERIES} tokens do not count: they have nowhere else to look"))
    }
}

/// What is told of a head.
struct Told {
    summary: HeadSummary,
    induction: Option<f64>,
}

/// One measure of all heads, layer by layer.
fn heads(
    output: &mut Output,
    title: &str,
    extreme: f64,
    told: &[Told],
    ran: &[Ran],
    cell: &dyn Fn(&Told) -> Cell,
) -> Result<()> {
    let mut rows: Vec<(String, Vec<Option<Cell>>)> = Vec::new();
    for head in told {
        if head.summary.head == 0 {
            rows.push((ran[head.summary.execution].label.clone(), Vec::new()));
        }
        if let Some((_, cells)) = rows.last_mut() {
            cells.push(Some(cell(head)));
        }
    }
    let columns = rows.first().map_or(0, |(_, cells)| cells.len());
    let columns = (0..columns).map(|head| format!("h{head}")).collect();
    output.line(title)?;
    Grid { columns, rows, extreme }.show(output)
}

fn percent(share: f64) -> String {
    if share.is_nan() { "NaN".to_owned() } else { format!("{:.0}", 100.0 * share) }
}

impl Ran {
    fn head(&self, head: usize) -> HeadRecord<'_> {
        let Ran { label, address, layer, occurrence } = self;
        HeadRecord { address, label, layer: *layer, occurrence: *occurrence, head }
    }
}
