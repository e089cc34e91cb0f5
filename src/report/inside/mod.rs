//! What was found inside a model, as the commands that look there print it with `--json`, and how it is drawn: `tokens`, `lens`,
//! `attribute`, `attention`, `similarity`, `patch` and `trace`. Each object says in its field `view` whose it is.
//!
//! [`read_views`] puts lines together again; [`View::figures`] draws them. Files are anybody's: what does not fit is an error, and
//! nothing is allocated by a number that a file names.

mod attention;
mod attribute;
mod lens;
mod patch;
mod similarity;
#[cfg(test)]
mod tests;
mod tokens;
mod trace;

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use self::attention::{Heads, Pattern};
use self::attribute::Attribution;
use self::lens::Lens;
use self::patch::Patch;
use self::similarity::Similarity;
use self::tokens::Tokens;
use self::trace::Trace;
use super::plot::Plot;

/// Cells of a view at most: more would be no picture, and no page that opens.
pub const MAX_CELLS: usize = 40_000;

/// Characters of a token in a cell, before it is cut to its room.
const TOKEN: usize = 24;

/// What one of the commands found.
#[derive(Clone, Debug)]
pub struct View(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Tokens(Tokens),
    Lens(Lens),
    Attribution(Attribution),
    Pattern(Pattern),
    Heads(Heads),
    Similarity(Similarity),
    Patch(Patch),
    Trace(Trace),
}

/// A figure of a view.
#[derive(Clone, Debug)]
pub struct InsideFigure {
    /// The command whose result it shows.
    pub view: &'static str,
    /// The plot.
    pub plot: Plot,
    /// What it shows, and what is to be seen in it: plain text.
    pub caption: String,
    /// Its numbers, where they are more than the plot says.
    pub table: Option<InsideTable>,
}

/// Numbers of a figure, as text.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct InsideTable {
    /// What columns hold.
    pub header: Vec<String>,
    /// Rows.
    pub rows: Vec<Vec<String>>,
    /// The columns that hold numbers: `from..to`.
    pub numbers: (usize, usize),
}

/// What of a view is drawn.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Parts of a logit that have a bar each.
    pub parts: usize,
    /// Whether similarities count position 0.
    pub with_first: bool,
    /// What the plan is called; its text, where that is not said.
    pub plan: Option<String>,
}

impl Default for Shown {
    fn default() -> Shown {
        Shown { parts: 12, with_first: false, plan: None }
    }
}

impl Shown {
    fn plan<'a>(&'a self, text: &'a str) -> &'a str {
        self.plan.as_deref().unwrap_or(text)
    }
}

/// Why a file holds no view.
#[derive(Debug, Error)]
pub enum ViewError {
    /// A line is no JSON.
    #[error("line {line}: {source}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A line is of something else.
    #[error(
        "line {line}: no view: tokens, lens, attribute, attention, similarity, patch and trace print them with --json"
    )]
    Unknown {
        /// The line, from 1.
        line: usize,
    },
    /// A view's objects are not as they are printed.
    #[error("the view of lesion {view} in lines {first}..={last}: {what}")]
    Broken {
        /// Whose it is.
        view: String,
        /// Its first line.
        first: usize,
        /// And its last.
        last: usize,
        /// What is wrong.
        what: String,
    },
    /// Nothing is there.
    #[error("there is no view in it")]
    Empty,
}

/// Reads what the commands printed, several one behind the other too.
///
/// # Errors
/// Where it is not JSON, not of these commands, or not whole.
pub fn read_views(text: &str) -> Result<Vec<View>, ViewError> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let records = lines.map(|(line, text)| {
        let value = serde_json::from_str(text).map_err(|source| ViewError::Json { line, source })?;
        Ok((line, value))
    });
    views(records)
}

/// The same of objects that have not been printed.
///
/// # Errors
/// As those of [`read_views`].
pub fn views_of(objects: Vec<Value>) -> Result<Vec<View>, ViewError> {
    views((1..).zip(objects).map(Ok))
}

/// Objects that make a view together.
struct Draft {
    view: String,
    plan: Value,
    lines: Vec<(usize, Value)>,
    places: HashSet<String>,
}

fn views(records: impl Iterator<Item = Result<(usize, Value), ViewError>>) -> Result<Vec<View>, ViewError> {
    let mut views = Vec::new();
    let mut draft: Option<Draft> = None;
    for record in records {
        let (line, value) = record?;
        let view = value["view"].as_str().ok_or(ViewError::Unknown { line })?.to_owned();
        let (several, plan, place) = match view.as_str() {
            "tokens" => (true, &value["plan"], value["position"].to_string()),
            "lens" => (true, &value["plan"], format!("{} {} {}", value["lens"], value["steps"], value["position"])),
            "attention" => {
                (value.get("pattern").is_none(), &value["plan"], format!("{} {}", value["address"], value["head"]))
            }
            // Their cells have a plan each, and a summary behind them.
            "patch" | "trace" => (true, &Value::Null, line.to_string()),
            "attribute" | "similarity" => (false, &Value::Null, String::new()),
            _ => return Err(ViewError::Unknown { line }),
        };
        let goes_on = draft.as_ref().is_some_and(|draft| {
            several && draft.view == view && draft.plan == *plan && !draft.places.contains(&place)
        });
        if !goes_on {
            views.extend(draft.take().map(Draft::finish).transpose()?);
        }
        let ends = !several || (matches!(view.as_str(), "patch" | "trace") && value.get("cells").is_some());
        let draft_of = || Draft { view, plan: plan.clone(), lines: Vec::new(), places: HashSet::new() };
        let current = draft.get_or_insert_with(draft_of);
        current.places.insert(place);
        current.lines.push((line, value));
        if ends {
            views.extend(draft.take().map(Draft::finish).transpose()?);
        }
    }
    views.extend(draft.take().map(Draft::finish).transpose()?);
    if views.is_empty() { Err(ViewError::Empty) } else { Ok(views) }
}

impl Draft {
    fn finish(self) -> Result<View, ViewError> {
        let Draft { view, lines, .. } = self;
        let line = |at: Option<&(usize, Value)>| at.map_or(0, |(line, _)| *line);
        let (first, last) = (line(lines.first()), line(lines.last()));
        let values: Vec<Value> = lines.into_iter().map(|(_, value)| value).collect();
        let kind = match view.as_str() {
            "tokens" => all(values).and_then(Tokens::new).map(Kind::Tokens),
            "lens" => all(values).and_then(Lens::new).map(Kind::Lens),
            "attribute" => only(values).and_then(Attribution::new).map(Kind::Attribution),
            "attention" if values[0].get("pattern").is_some() => only(values).and_then(Pattern::new).map(Kind::Pattern),
            "attention" => all(values).and_then(Heads::new).map(Kind::Heads),
            "similarity" => only(values).and_then(Similarity::new).map(Kind::Similarity),
            "patch" => with_summary(values).and_then(|(cells, summary)| Patch::new(cells, summary)).map(Kind::Patch),
            _ => with_summary(values).and_then(|(cells, summary)| Trace::new(cells, summary)).map(Kind::Trace),
        };
        kind.map(View).map_err(|what| ViewError::Broken { view, first, last, what })
    }
}

fn all<T: DeserializeOwned>(values: Vec<Value>) -> Result<Vec<T>, String> {
    values.into_iter().map(one).collect()
}

fn one<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn only<T: DeserializeOwned>(values: Vec<Value>) -> Result<T, String> {
    values.into_iter().next().ok_or_else(|| "there is nothing".to_owned()).and_then(one)
}

/// Cells, and the object behind them.
fn with_summary<C: DeserializeOwned, S: DeserializeOwned>(mut values: Vec<Value>) -> Result<(Vec<C>, S), String> {
    let summary = values.pop().filter(|last| last.get("cells").is_some());
    let summary = summary.ok_or_else(|| "the summary behind the cells is missing".to_owned())?;
    Ok((all(values)?, one(summary)?))
}

impl View {
    /// The command that finds such things.
    pub fn command(&self) -> &'static str {
        match &self.0 {
            Kind::Tokens(_) => "tokens",
            Kind::Lens(_) => "lens",
            Kind::Attribution(_) => "attribute",
            Kind::Pattern(_) | Kind::Heads(_) => "attention",
            Kind::Similarity(_) => "similarity",
            Kind::Patch(_) => "patch",
            Kind::Trace(_) => "trace",
        }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        match &self.0 {
            Kind::Tokens(view) => view.model(),
            Kind::Lens(view) => view.model(),
            Kind::Attribution(view) => &view.model,
            Kind::Pattern(view) => &view.model,
            Kind::Heads(view) => view.model(),
            Kind::Similarity(view) => &view.model,
            Kind::Patch(view) => view.model(),
            Kind::Trace(view) => view.model(),
        }
    }

    /// How it is drawn.
    pub fn figures(&self, shown: &Shown) -> Vec<InsideFigure> {
        let view = self.command();
        let drawn = match &self.0 {
            Kind::Tokens(tokens) => {
                let (plot, caption, table) = tokens.draw(shown);
                return vec![InsideFigure { view, plot, caption, table: Some(table) }];
            }
            Kind::Lens(lens) => vec![lens.draw(shown)],
            Kind::Attribution(attribution) => attribution.draw(shown),
            Kind::Pattern(pattern) => vec![pattern.draw(shown)],
            Kind::Heads(heads) => heads.draw(shown),
            Kind::Similarity(similarity) => similarity.draw(shown),
            Kind::Patch(patch) => vec![patch.draw()],
            Kind::Trace(trace) => vec![trace.draw()],
        };
        drawn.into_iter().map(|(plot, caption)| InsideFigure { view, plot, caption, table: None }).collect()
    }
}

/// A token: its text, where the model has names for its tokens, and its id.
#[derive(Clone, Copy, Debug)]
struct Token<'a>(Option<&'a str>, u32);

impl Token<'_> {
    fn quoted(self) -> String {
        match self.0 {
            Some(text) if !text.is_empty() => format!("{text:?}"),
            _ => self.1.to_string(),
        }
    }

    /// For a cell: a middle dot for a space in front.
    fn cell(self) -> String {
        let Some(text) = self.0.filter(|text| !text.is_empty()) else { return self.1.to_string() };
        let mut shown = String::new();
        for (i, c) in text.chars().take(TOKEN).enumerate() {
            match c {
                ' ' if i == 0 => shown.push('·'),
                c if c.is_control() => shown.extend(c.escape_default()),
                c => shown.push(c),
            }
        }
        shown
    }
}

/// An answer, as summaries hold it.
#[derive(Clone, Debug, Deserialize)]
struct Answer {
    text: String,
}

/// Cells by row and column, in the order in which rows come; columns ascend. None is missing.
#[derive(Clone, Debug)]
struct Table<T> {
    rows: Vec<String>,
    columns: Vec<usize>,
    cells: Vec<Vec<T>>,
}

impl<T> Table<T> {
    /// Of cells with the name of their row and the number of their column.
    fn new(cells: Vec<T>, place: impl Fn(&T) -> (String, usize)) -> Result<Table<T>, String> {
        if cells.is_empty() {
            return Err("there are no cells".to_owned());
        }
        check_size(cells.len())?;
        let mut table = Table { rows: Vec::<String>::new(), columns: Vec::new(), cells: Vec::<Vec<T>>::new() };
        for cell in cells {
            let (row, column) = place(&cell);
            if table.rows.last() != Some(&row) {
                if table.rows.contains(&row) {
                    return Err(format!("row {row} comes twice"));
                }
                table.rows.push(row);
                table.cells.push(Vec::new());
            }
            let cells = table.cells.last_mut().ok_or("no row")?;
            if table.rows.len() == 1 {
                if table.columns.last().is_some_and(|last| *last >= column) {
                    return Err(format!("column {column} is out of order"));
                }
                table.columns.push(column);
            } else if table.columns.get(cells.len()) != Some(&column) {
                return Err(format!("row {} has a column {column} where others have none", table.rows.len()));
            }
            cells.push(cell);
        }
        match table.cells.iter().find(|cells| cells.len() != table.columns.len()) {
            Some(short) => Err(format!("a row has {} cells, others {}", short.len(), table.columns.len())),
            None => Ok(table),
        }
    }

    /// The cells that make the largest of these sizes, the first of equals first.
    fn furthest(&self, count: usize, size: impl Fn(&T) -> f64) -> Vec<(usize, usize, &T)> {
        let places = self.cells.iter().enumerate();
        let mut all: Vec<(usize, usize, &T)> =
            places.flat_map(|(r, row)| row.iter().enumerate().map(move |(c, cell)| (r, c, cell))).collect();
        all.retain(|(_, _, cell)| size(cell).is_finite());
        all.sort_by(|a, b| size(b.2).total_cmp(&size(a.2)));
        all.truncate(count);
        all
    }
}

fn check_size(cells: usize) -> Result<(), String> {
    match cells > MAX_CELLS {
        true => Err(format!("{cells} cells: a picture has {MAX_CELLS} at most")),
        false => Ok(()),
    }
}

/// What executions are called where their names are not said: `5`, or `5@1` where the layer has several.
fn execution(label: Option<&str>, layer: usize, occurrence: usize) -> String {
    match label {
        Some(label) => label.to_owned(),
        None if occurrence > 0 => format!("{layer}@{occurrence}"),
        None => layer.to_string(),
    }
}
