//! The lens: what would be said behind each step, the last step on top, as one reads a tower.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Shown, Table, Token};
use crate::measure::Number;
use crate::report::number::{percent, plain};
use crate::report::plot::{Drawing, Plot, Word, Words};

#[derive(Clone, Debug)]
pub(super) struct Lens {
    /// Rows by their number of steps: 0, 1, ….
    table: Table<Cell>,
    /// What ran before each row.
    steps: Vec<String>,
}

/// A prediction behind a step.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Cell {
    model: String,
    plan: String,
    /// `logit` or `tuned`.
    lens: Option<String>,
    steps: usize,
    step: String,
    position: usize,
    token: Option<String>,
    token_id: u32,
    next: Option<String>,
    next_id: Option<u32>,
    nll: Option<Number>,
    rank: Option<u32>,
    entropy: Number,
    likeliest: String,
    likeliest_id: u32,
    likeliest_probability: Number,
    kl: Number,
}

impl Lens {
    pub(super) fn new(cells: Vec<Cell>) -> Result<Lens, String> {
        // Rows are their own numbers, so that they can't be put together wrongly.
        let steps: BTreeMap<usize, String> = cells.iter().map(|cell| (cell.steps, cell.step.clone())).collect();
        let table = Table::new(cells, |cell| (cell.steps.to_string(), cell.position))?;
        match table.rows.iter().enumerate().all(|(i, row)| *row == i.to_string()) {
            true => Ok(Lens { table, steps: steps.into_values().collect() }),
            false => Err("a step is missing".to_owned()),
        }
    }

    fn any(&self) -> &Cell {
        &self.table.cells[0][0]
    }

    pub(super) fn model(&self) -> &str {
        &self.any().model
    }

    pub(super) fn draw(&self, shown: &Shown) -> (Plot, String) {
        let plan = shown.plan(&self.any().plan);
        let last = self.table.cells.len() - 1;
        let word = |r: usize, c: usize| {
            let cell = &self.table.cells[r][c];
            Word {
                text: Token(Some(&cell.likeliest), cell.likeliest_id).cell(),
                share: cell.likeliest_probability.0,
                hover: cell.said(&self.steps[r]),
            }
        };
        let columns = self.table.cells[0].iter().map(|cell| Token(cell.token.as_deref(), cell.token_id).cell());
        let words = Words {
            down: ("behind".to_owned(), self.steps.iter().rev().cloned().collect()),
            across: ("the text: a cell is what comes behind the token below it".to_owned(), columns.collect()),
            cells: (0..=last).rev().map(|r| (0..self.table.columns.len()).map(|c| word(r, c)).collect()).collect(),
            line: Some((
                (0..self.table.columns.len()).map(|c| last + 1 - self.settled(c)).collect(),
                "above it: what is said in the end".to_owned(),
            )),
        };
        let plot = Plot {
            title: format!(
                "{plan}: the likeliest token behind each step{}",
                if self.is_tuned() { ", tuned lens" } else { "" }
            ),
            measure: "and its probability, %".to_owned(),
            drawing: Drawing::Words(words),
        };
        (plot, self.caption(plan))
    }

    /// Whether states went through the maps of a tuned lens.
    fn is_tuned(&self) -> bool {
        self.any().lens.as_deref() == Some("tuned")
    }

    /// From which step on a column says what it says in the end.
    fn settled(&self, column: usize) -> usize {
        let said = |r: usize| self.table.cells[r][column].likeliest_id;
        let end = said(self.table.cells.len() - 1);
        (0..self.table.cells.len()).rev().take_while(|r| said(*r) == end).last().unwrap_or(0)
    }

    fn caption(&self, plan: &str) -> String {
        let columns = self.table.columns.len();
        let step = |row: usize| match row {
            0 => "the embedding".to_owned(),
            _ => format!("step {}", self.steps[row]),
        };
        let end = &self.table.cells[self.table.cells.len() - 1][columns - 1];
        let likeliest = Token(Some(&end.likeliest), end.likeliest_id).quoted();
        let mut settled: Vec<usize> = (0..columns).map(|column| self.settled(column)).collect();
        let last = settled[columns - 1];
        settled.sort_unstable();
        let half = settled[(columns - 1) / 2];
        let places = match columns {
            1 => String::new(),
            _ => format!(" Half of the {columns} places have their last word behind {}.", step(half)),
        };
        format!(
            "What {plan} would say if it stopped behind each step: the residual stream there{} through the final LayerNorm, \
             with its own statistics, and the unembedding. Behind the last token {} is said in the end ({}), and without a break from \
             {} on.{places}",
            if self.is_tuned() { ", taken to the end by a tuned lens," } else { "" },
            likeliest,
            percent(end.likeliest_probability.0),
            step(last)
        )
    }
}

impl Cell {
    fn said(&self, step: &str) -> String {
        let token = Token(self.token.as_deref(), self.token_id).quoted();
        let likeliest = Token(Some(&self.likeliest), self.likeliest_id).quoted();
        let mut said = format!(
            "{step}, behind {token}: {likeliest} {} %, entropy {} nats, KL to the end {}",
            plain(100.0 * self.likeliest_probability.0, 1),
            plain(self.entropy.0, 2),
            plain(self.kl.0, 4)
        );
        if let (Some(id), Some(nll), Some(rank)) = (self.next_id, self.nll, self.rank) {
            let next = Token(self.next.as_deref(), id).quoted();
            said.push_str(&format!("; {next} comes next: {} nats, rank {rank}", plain(nll.0, 4)));
        }
        said
    }
}
