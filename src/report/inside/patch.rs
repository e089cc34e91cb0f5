//! Patch grids: 0 is the corrupted run, 1 the clean one.

use serde::Deserialize;

use super::{Answer, Table, Token, execution};
use crate::measure::Number;
use crate::report::number::{plain, signed};
use crate::report::plot::{Drawing, Gain, HeatMap, Plot, Sense};

/// A score that is less far from that of the run that is patched is not spoken of.
const SMALL: f64 = 0.05;

#[derive(Clone, Debug)]
pub(super) struct Patch {
    table: Table<Cell>,
    summary: Summary,
}

/// A patched run.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Cell {
    plan: String,
    address: String,
    label: Option<String>,
    layer: usize,
    occurrence: usize,
    position: Option<usize>,
    head: Option<usize>,
    value: Number,
    score: Number,
}

/// What is behind the cells.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Summary {
    model: String,
    site: String,
    to: Option<String>,
    through: Option<String>,
    direction: String,
    answer: Answer,
    other: Option<Answer>,
    clean: Run,
    corrupted: Run,
    noise_floor: f64,
    resolved: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Run {
    plan: String,
    ids: Vec<u32>,
    #[serde(default)]
    tokens: Vec<Option<String>>,
    value: Number,
}

impl Run {
    fn token(&self, position: usize) -> Option<Token<'_>> {
        let text = self.tokens.get(position).and_then(Option::as_deref);
        self.ids.get(position).map(|id| Token(text, *id))
    }
}

impl Patch {
    pub(super) fn new(cells: Vec<Cell>, summary: Summary) -> Result<Patch, String> {
        let of_heads = cells.first().is_some_and(|cell| cell.head.is_some());
        if cells.iter().any(|cell| cell.head.is_some() != of_heads || cell.position.is_none() != of_heads) {
            return Err("a cell is of a head or of a position".to_owned());
        }
        let column = |cell: &Cell| cell.head.or(cell.position).unwrap_or_default();
        let table = Table::new(cells, |cell| (cell.address.clone(), column(cell)))?;
        Ok(Patch { table, summary })
    }

    pub(super) fn model(&self) -> &str {
        &self.summary.model
    }

    /// Whether the clean run is the one that is patched.
    fn is_reversed(&self) -> bool {
        self.summary.direction == "corrupted into clean"
    }

    fn has_heads(&self) -> bool {
        self.table.cells[0][0].head.is_some()
    }

    fn rows(&self) -> Vec<String> {
        let name = |cells: &Vec<Cell>| execution(cells[0].label.as_deref(), cells[0].layer, cells[0].occurrence);
        self.table.cells.iter().map(name).collect()
    }

    /// `h1`, or `@12`.
    fn column(&self, column: usize) -> String {
        format!("{}{}", if self.has_heads() { "h" } else { "@" }, self.table.columns[column])
    }

    fn columns(&self) -> (String, Vec<String>) {
        if self.has_heads() {
            return ("head".to_owned(), self.table.columns.iter().map(usize::to_string).collect());
        }
        let Summary { clean, corrupted, .. } = &self.summary;
        let differs = |at: usize| clean.ids.get(at) != corrupted.ids.get(at);
        let any = self.table.columns.iter().any(|at| differs(*at));
        let label = |at: &usize| {
            let text = |run: &Run| run.token(*at).map(Token::cell).unwrap_or_default();
            match differs(*at) {
                true => format!("{at}\n{}\n{}", text(clean), text(corrupted)),
                false => format!("{at}\n{}", text(clean)),
            }
        };
        let axis = if any {
            "position, the clean token, and the corrupted one where it differs"
        } else {
            "position and token"
        };
        (axis.to_owned(), self.table.columns.iter().map(label).collect())
    }

    /// What is measured.
    fn metric(&self) -> String {
        match &self.summary.other {
            Some(other) => format!("logit {:?} − logit {:?}", self.summary.answer.text, other.text),
            None => format!("−ln p of {:?}", self.summary.answer.text),
        }
    }

    pub(super) fn draw(&self) -> (Plot, String) {
        let Summary { site, clean, corrupted, .. } = &self.summary;
        let (of, into) = if self.is_reversed() { ("corrupted", "clean") } else { ("clean", "corrupted") };
        let (even, names) = match self.is_reversed() {
            true => (1.0, ["", "the clean run", "the corrupted run"]),
            false => (0.0, ["the clean run", "the corrupted run", ""]),
        };
        let rows = self.rows();
        let hover = |(r, cells): (usize, &Vec<Cell>)| {
            let said = |(c, cell): (usize, &Cell)| {
                let (score, value) = (plain(cell.score.0, 4), plain(cell.value.0, 4));
                format!("{} {}: score {score}, value {value}; {}", rows[r], self.column(c), cell.plan)
            };
            cells.iter().enumerate().map(said).collect()
        };
        let map = HeatMap {
            down: ("layer".to_owned(), rows.clone()),
            across: self.columns(),
            cells: self.table.cells.iter().map(|row| row.iter().map(|cell| Some(cell.score.0)).collect()).collect(),
            hover: self.table.cells.iter().enumerate().map(hover).collect(),
            sense: Sense::Gain(Gain { even, full: Some(1.0), names: names.map(str::to_owned) }),
        };
        let (clean, corrupted) = (plain(clean.value.0, 2), plain(corrupted.value.0, 2));
        let plot = Plot {
            title: format!("{site} of the {of} run, patched into the {into} one{}", self.way()),
            measure: format!("score; {}: clean {clean}, corrupted {corrupted}", self.metric()),
            drawing: Drawing::Map(map),
        };
        (plot, self.caption(of, into, even))
    }

    /// Of heads along paths alone, where those lead.
    fn way(&self) -> String {
        match (&self.summary.to, &self.summary.through) {
            (Some(to), Some(through)) => format!(", on the way to the {to} through {through}"),
            _ => String::new(),
        }
    }

    fn caption(&self, of: &str, into: &str, even: f64) -> String {
        let Summary { site, clean, corrupted, noise_floor, resolved, .. } = &self.summary;
        let plans = match clean.plan == corrupted.plan {
            true => String::new(),
            false => format!(" The clean run is of {}, the corrupted one of {}.", clean.plan, corrupted.plan),
        };
        let begin = format!(
            "{site} of the {of} run, put into the {into} run one cell at a time{}; the score of {} is 1 in the clean run and 0 in \
             the corrupted one.{plans}",
            self.way(),
            self.metric()
        );
        if !resolved {
            let floor = plain(*noise_floor, 4);
            return format!("{begin} The runs differ by less than rounding may do ({floor}): there are no scores.");
        }
        let away = |cell: &Cell| (cell.score.0 - even).abs();
        let rows = self.rows();
        let furthest = self.table.furthest(3, away);
        let named = furthest
            .iter()
            .filter(|(_, _, cell)| away(cell) >= SMALL)
            .map(|(r, c, cell)| format!("{} {} with {}", rows[*r], self.column(*c), signed(cell.score.0, 2)));
        let named: Vec<String> = named.collect();
        let all = self.table.cells.iter().flatten().count();
        let small = self.table.cells.iter().flatten().filter(|cell| away(cell) < SMALL).count();
        match named.is_empty() {
            true => format!("{begin} No cell moves it by {SMALL} or more."),
            false => format!(
                "{begin} Furthest from the {into} run: {}. {small} of {all} cells move it by less than {SMALL}.",
                named.join(", ")
            ),
        }
    }
}
