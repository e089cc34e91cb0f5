//! Causal traces: how much of an answer's probability a restored state brings back.

use serde::Deserialize;

use super::{Answer, Table, Token, execution};
use crate::measure::Number;
use crate::report::number::{counted, plain, signed};
use crate::report::plot::{Drawing, Gain, HeatMap, Plot, Sense};

#[derive(Clone, Debug)]
pub(super) struct Trace {
    table: Table<Cell>,
    summary: Summary,
}

/// A state that was restored.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Cell {
    address: String,
    label: Option<String>,
    layer: usize,
    position: usize,
    token: Option<String>,
    token_id: u32,
    restored: Number,
    effect: Estimate,
}

/// A mean over seeds, with its 95 % interval.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Estimate {
    mean: Number,
    low: Number,
    high: Number,
}

impl Estimate {
    fn has_interval(self) -> bool {
        self.low.0.is_finite() && self.high.0.is_finite()
    }

    /// `+0.81 (+0.60 … +0.97)`
    fn said(self, text: fn(f64, usize) -> String) -> String {
        let mean = text(self.mean.0, 2);
        match self.has_interval() {
            true => format!("{mean} ({} … {})", text(self.low.0, 2), text(self.high.0, 2)),
            false => mean,
        }
    }
}

/// What is behind the cells.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Summary {
    model: String,
    plan: String,
    answer: Answer,
    subject: [usize; 2],
    site: String,
    window: usize,
    sigma: f64,
    seeds: u64,
    clean: Number,
    noised: Estimate,
    total_effect: Estimate,
}

impl Trace {
    pub(super) fn new(cells: Vec<Cell>, summary: Summary) -> Result<Trace, String> {
        let table = Table::new(cells, |cell| (cell.address.clone(), cell.position))?;
        Ok(Trace { table, summary })
    }

    pub(super) fn model(&self) -> &str {
        &self.summary.model
    }

    fn is_noised(&self, position: usize) -> bool {
        (self.summary.subject[0]..self.summary.subject[1]).contains(&position)
    }

    /// The subject's tokens; those that are no columns are left out.
    fn subject(&self) -> String {
        let cells = self.table.cells[0].iter().filter(|cell| self.is_noised(cell.position));
        cells.map(|cell| Token(cell.token.as_deref(), cell.token_id).quoted()).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn draw(&self) -> (Plot, String) {
        let Summary { site, answer, clean, noised, total_effect, .. } = &self.summary;
        let row = |cells: &Vec<Cell>| execution(cells[0].label.as_deref(), cells[0].layer, 0);
        let column = |cell: &Cell| {
            let star = if self.is_noised(cell.position) { "*" } else { "" };
            format!("{}{star}\n{}", cell.position, Token(cell.token.as_deref(), cell.token_id).cell())
        };
        let said = |cell: &Cell| {
            let token = Token(cell.token.as_deref(), cell.token_id).quoted();
            let restored = plain(cell.restored.0, 4);
            format!("{} @{} {token}: {}, p = {restored}", cell.address, cell.position, cell.effect.said(signed))
        };
        let map = HeatMap {
            down: ("layer".to_owned(), self.table.cells.iter().map(row).collect()),
            across: ("position and token; * noised".to_owned(), self.table.cells[0].iter().map(column).collect()),
            cells: self.table.cells.iter().map(|row| row.iter().map(|c| Some(c.effect.mean.0)).collect()).collect(),
            hover: self.table.cells.iter().map(|row| row.iter().map(said).collect()).collect(),
            sense: Sense::Gain(Gain {
                even: 0.0,
                full: None,
                names: ["likelier", "as noised", "less likely"].map(str::to_owned),
            }),
        };
        let plot = Plot {
            title: format!("{site} restored: how much likelier {:?} becomes, {} noised", answer.text, self.subject()),
            measure: format!(
                "Δp; {} clean, {} noised, {} in all",
                plain(clean.0, 2),
                plain(noised.mean.0, 2),
                total_effect.said(signed)
            ),
            drawing: Drawing::Map(map),
        };
        (plot, self.caption())
    }

    fn caption(&self) -> String {
        let Summary { plan, answer, sigma, seeds, window, total_effect, .. } = &self.summary;
        let together = if *window == 1 { String::new() } else { format!(", {window} layers in a row together") };
        let mut caption = format!(
            "States of the clean run of {plan}, put back one at a time{together} while {} {} noised (σ {}, {}): how much likelier \
             {:?} becomes; noise takes {} from it.",
            self.subject(),
            if self.summary.subject[1].saturating_sub(self.summary.subject[0]) == 1 { "is" } else { "are" },
            plain(*sigma, 3),
            counted(*seeds, "seed"),
            answer.text,
            total_effect.said(plain)
        );
        let furthest = self.table.furthest(1, |cell| cell.effect.mean.0);
        if let Some((_, _, cell)) = furthest.first().filter(|(_, _, cell)| cell.effect.mean.0 > 0.0) {
            let token = Token(cell.token.as_deref(), cell.token_id).quoted();
            let row = execution(cell.label.as_deref(), cell.layer, 0);
            let effect = cell.effect.said(signed);
            caption
                .push_str(&format!(" Most comes back at layer {row}, position {} ({token}): {effect}.", cell.position));
        }
        let cells = || self.table.cells.iter().flatten().map(|cell| cell.effect);
        let with = cells().filter(|effect| effect.has_interval()).count();
        if with > 0 {
            let hold = cells().filter(|effect| effect.low.0 <= 0.0 && effect.high.0 >= 0.0).count();
            caption.push_str(&format!(
                " Intervals are 95\u{a0}% bootstraps over seeds; {hold} of {with} cells' hold 0: no effect is resolved there."
            ));
        }
        caption
    }
}
