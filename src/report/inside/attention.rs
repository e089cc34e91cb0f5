//! Where heads look: one pattern as a map, or all heads in a few maps.

use serde::Deserialize;

use super::{Shown, Table, Token, check_size, execution};
use crate::measure::{FIRST_QUERIES, Number};
use crate::report::number::{percent, plain};
use crate::report::plot::{Drawing, HeatMap, Plot, Sense};

/// Tokens that are named on both sides of a pattern; of longer texts those that are looked at have numbers.
const NAMED: usize = 48;

/// A head's pattern.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Pattern {
    pub(super) model: String,
    plan: String,
    label: Option<String>,
    layer: usize,
    occurrence: usize,
    head: usize,
    token_ids: Vec<u32>,
    tokens: Vec<String>,
    pattern: Vec<Vec<Number>>,
}

impl Pattern {
    pub(super) fn new(pattern: Pattern) -> Result<Pattern, String> {
        let tokens = pattern.token_ids.len();
        check_size(pattern.pattern.iter().map(Vec::len).sum())?;
        let fits = pattern.pattern.iter().enumerate().all(|(query, row)| row.len() == query + 1);
        match fits && tokens > 0 && pattern.tokens.len() == tokens && pattern.pattern.len() == tokens {
            true => Ok(pattern),
            false => Err(format!("the pattern does not fit its {tokens} tokens")),
        }
    }

    fn token(&self, at: usize) -> Token<'_> {
        Token(Some(&self.tokens[at]), self.token_ids[at])
    }

    fn name(&self) -> String {
        format!("{} h{}", execution(self.label.as_deref(), self.layer, self.occurrence), self.head)
    }

    pub(super) fn draw(&self, shown: &Shown) -> (Plot, String) {
        let (n, plan) = (self.tokens.len(), shown.plan(&self.plan));
        let down = (0..n).map(|at| format!("{} {at}", self.token(at).cell())).collect();
        let across =
            (0..n).map(|at| if n <= NAMED { format!("{at}\n{}", self.token(at).cell()) } else { at.to_string() });
        let cells = |row: &Vec<Number>| (0..n).map(|key| row.get(key).map(|p| p.0)).collect();
        let said = |(query, row): (usize, &Vec<Number>)| {
            let said = |(key, p): (usize, &Number)| {
                let share = plain(100.0 * p.0, 1);
                format!("{query} {} looks at {key} {}: {share} %", self.token(query).quoted(), self.token(key).quoted())
            };
            row.iter().enumerate().map(said).collect()
        };
        let plot = Plot {
            title: format!("{plan}: {}, where each token looks", self.name()),
            measure: "attention probability, %".to_owned(),
            drawing: Drawing::Map(HeatMap {
                down: ("query".to_owned(), down),
                across: ("the token it looks at".to_owned(), across.collect()),
                cells: self.pattern.iter().map(cells).collect(),
                hover: self.pattern.iter().enumerate().map(said).collect(),
                sense: Sense::Share,
            }),
        };
        (plot, self.caption(plan))
    }

    fn caption(&self, plan: &str) -> String {
        let n = self.tokens.len();
        let last = &self.pattern[n - 1];
        let most = last.iter().enumerate().filter(|(_, p)| !p.0.is_nan()).max_by(|a, b| a.1.0.total_cmp(&b.1.0));
        let most = most.map_or_else(String::new, |(key, p)| {
            let (from, to) = (self.token(n - 1).quoted(), self.token(key).quoted());
            format!(" The last token, {from}, looks most at {to} (position {key}): {}.", percent(p.0))
        });
        // The first token has nowhere else to look.
        let first: f64 = self.pattern[1..].iter().map(|row| row[0].0).sum::<f64>() / (n - 1) as f64;
        let first = match n {
            1 => String::new(),
            _ => format!(" Behind the first, tokens look at position 0 with {} on average.", percent(first)),
        };
        format!(
            "Where head {} of {plan} looks: a row is a token that looks, and adds up to 100\u{a0}%.{most}{first}",
            self.name()
        )
    }
}

/// All heads, in a few numbers.
#[derive(Clone, Debug)]
pub(super) struct Heads(Table<Head>);

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Head {
    model: String,
    plan: String,
    address: String,
    label: Option<String>,
    layer: usize,
    occurrence: usize,
    head: usize,
    entropy: Number,
    first: Number,
    previous: Number,
    induction: Option<Number>,
}

/// A measure of all heads.
struct Measure {
    title: &'static str,
    measure: &'static str,
    /// What it is, for a caption.
    said: String,
    sense: Sense,
    value: fn(&Head) -> Option<f64>,
}

impl Heads {
    pub(super) fn new(heads: Vec<Head>) -> Result<Heads, String> {
        Table::new(heads, |head| (head.address.clone(), head.head)).map(Heads)
    }

    pub(super) fn model(&self) -> &str {
        &self.0.cells[0][0].model
    }

    pub(super) fn draw(&self, shown: &Shown) -> Vec<(Plot, String)> {
        let entropies = self.0.cells.iter().flatten().map(|head| head.entropy.0).filter(|entropy| entropy.is_finite());
        let (share, nats) = (
            Sense::Amount { full: 100.0, unit: "%" },
            Sense::Amount { full: entropies.fold(0.0, f64::max), unit: "nats" },
        );
        let over = format!("on average over the text, its first {FIRST_QUERIES} tokens left out");
        let measures = [
            Measure {
                title: "to what followed the token before",
                measure: "attention probability, %; on random tokens twice",
                said:
                    "attends, in the second copy of random tokens, to what followed the token in the first (induction)"
                        .to_owned(),
                sense: share.clone(),
                value: |head| head.induction.map(|p| 100.0 * p.0),
            },
            Measure {
                title: "to the token before",
                measure: "attention probability, %",
                said: format!("attends to the token before, {over}"),
                sense: share.clone(),
                value: |head| Some(100.0 * head.previous.0),
            },
            Measure {
                title: "to position 0",
                measure: "attention probability, %",
                said: format!("attends to position 0, {over}"),
                sense: share,
                value: |head| Some(100.0 * head.first.0),
            },
            Measure {
                title: "entropy",
                measure: "nats; 0 looks at one token",
                said: format!("spreads its attention: the entropy, {over}"),
                sense: nats,
                value: |head| Some(head.entropy.0),
            },
        ];
        let there = |measure: &Measure| self.0.cells.iter().flatten().any(|head| (measure.value)(head).is_some());
        measures.into_iter().filter(there).map(|measure| self.of(shown, measure)).collect()
    }

    fn of(&self, shown: &Shown, measure: Measure) -> (Plot, String) {
        let Measure { title, measure, said: what, sense, value } = measure;
        let Heads(table) = self;
        let plan = shown.plan(&table.cells[0][0].plan);
        let name = |head: &Head| execution(head.label.as_deref(), head.layer, head.occurrence);
        let unit = if let Sense::Amount { unit, .. } = sense { unit } else { "" };
        let said = |head: &Head| {
            let said = value(head).map_or_else(|| "–".to_owned(), |value| plain(value, 2));
            format!("{} h{}: {said} {unit}", name(head), head.head)
        };
        let plot = Plot {
            title: format!("{plan}: where heads look, {title}"),
            measure: measure.to_owned(),
            drawing: Drawing::Map(HeatMap {
                down: ("layer".to_owned(), table.cells.iter().map(|row| name(&row[0])).collect()),
                across: ("head".to_owned(), table.columns.iter().map(usize::to_string).collect()),
                cells: table.cells.iter().map(|row| row.iter().map(value).collect()).collect(),
                hover: table.cells.iter().map(|row| row.iter().map(said).collect()).collect(),
                sense,
            }),
        };
        let most = table.furthest(3, |head| value(head).unwrap_or(f64::NAN));
        let most: Vec<String> = most.iter().map(|(_, _, head)| said(head)).collect();
        (plot, format!("How much each head of {plan} {what}. The most: {}.", most.join(", ")))
    }
}
