//! What a logit is made of: its largest parts as bars, and what each head adds as a map.

use serde::Deserialize;

use super::{Shown, Token, check_size, execution};
use crate::measure::{Number, nan_last};
use crate::report::number::{plain, signed};
use crate::report::plot::{Bars, Drawing, Gain, HeatMap, Plot, Sense};
use crate::sweep::Estimate;

/// A logit, or the difference of two, and its parts.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attribution {
    pub(super) model: String,
    plan: String,
    token: String,
    token_id: u32,
    answer: String,
    answer_id: u32,
    other: Option<String>,
    other_id: Option<u32>,
    value: Number,
    constant: Number,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Deserialize)]
struct Part {
    source: String,
    head: Option<usize>,
    site: Option<String>,
    label: Option<String>,
    layer: Option<usize>,
    occurrence: Option<usize>,
    bridge: Option<String>,
    value: Number,
}

impl Part {
    fn execution(&self) -> Option<String> {
        self.layer.map(|layer| execution(self.label.as_deref(), layer, self.occurrence.unwrap_or_default()))
    }

    fn name(&self) -> String {
        let what = match (self.source.as_str(), self.head, &self.site) {
            ("embedding", ..) => "embed".to_owned(),
            ("attention_bias", ..) => "bias".to_owned(),
            ("attention", ..) => "attn".to_owned(),
            ("head", Some(head), _) => format!("h{head}"),
            ("change", _, Some(site)) => format!("change of {site}"),
            (other, ..) => self.bridge.clone().unwrap_or_else(|| other.to_owned()),
        };
        self.execution().map_or(what.clone(), |execution| format!("{execution} {what}"))
    }
}

/// The heads' parts by execution; an execution without heads has no row.
struct HeadMap {
    rows: Vec<String>,
    columns: usize,
    cells: Vec<Vec<Option<f64>>>,
}

impl Attribution {
    pub(super) fn new(attribution: Attribution) -> Result<Attribution, String> {
        check_size(attribution.parts.len()).map(|()| attribution)
    }

    /// `logit " Jack" − logit " Tom"`
    fn what(&self) -> String {
        let of = |text: &str, id: u32| format!("logit {}", Token(Some(text), id).quoted());
        let answer = of(&self.answer, self.answer_id);
        match self.other_id {
            Some(id) => format!("{answer} − {}", of(self.other.as_deref().unwrap_or_default(), id)),
            None => answer,
        }
    }

    pub(super) fn draw(&self, shown: &Shown) -> Vec<(Plot, String)> {
        let plan = shown.plan(&self.plan);
        let mut drawn = vec![self.bars(plan, shown.parts)];
        drawn.extend(self.heads(plan));
        drawn
    }

    /// The largest parts, either way, and what all others make together.
    fn bars(&self, plan: &str, top: usize) -> (Plot, String) {
        let mut parts: Vec<(String, f64)> = self.parts.iter().map(|part| (part.name(), part.value.0)).collect();
        parts.push(("ln_f bias".to_owned(), self.constant.0));
        parts.sort_by(|(_, a), (_, b)| nan_last(-a.abs(), -b.abs()));
        let largest = parts[0].clone();
        let rest = parts.split_off(parts.len().min(top));
        if !rest.is_empty() {
            let others = format!("{} others", rest.len());
            parts.push((others, rest.iter().map(|(_, value)| value).sum()));
        }
        let certain = |value: f64| Estimate { value, low: f64::NAN, high: f64::NAN };
        let bars = parts.into_iter().map(|(label, value)| (label, certain(value))).collect();
        let (what, behind) = (self.what(), Token(Some(&self.token), self.token_id).quoted());
        let plot = Plot {
            title: format!("{plan}: {what} behind {behind}"),
            measure: format!("{} in all", plain(self.value.0, 2)),
            drawing: Drawing::Bars(Bars { axis: String::new(), bars, difference: false, reference: None }),
        };
        let of = |sources: &[&str]| -> f64 {
            let of = self.parts.iter().filter(|part| sources.contains(&part.source.as_str()));
            of.map(|part| part.value.0).sum()
        };
        let caption = format!(
            "What parts of {plan} add to {what} behind {behind}, the final LayerNorm's scale frozen: {} in all. The attention adds \
             {}, the MLPs {}, the embedding {}; the largest part is {}: {}. It is what parts write, not what would happen without \
             them.",
            plain(self.value.0, 2),
            signed(of(&["head", "attention", "attention_bias"]), 2),
            signed(of(&["mlp"]), 2),
            signed(of(&["embedding"]), 2),
            largest.0,
            signed(largest.1, 2)
        );
        (plot, caption)
    }

    fn head_map(&self) -> HeadMap {
        let mut map = HeadMap { rows: Vec::new(), columns: 0, cells: Vec::new() };
        for part in self.parts.iter().filter(|part| part.source == "head") {
            let (Some(head), Some(row)) = (part.head, part.execution()) else { continue };
            // Heads come one after the other, from 0.
            if head == 0 {
                map.rows.push(row);
                map.cells.push(Vec::new());
            }
            if let Some(cells) = map.cells.last_mut() {
                cells.push(Some(part.value.0));
                map.columns = map.columns.max(cells.len());
            }
        }
        map
    }

    /// What each head adds; none where no head runs.
    fn heads(&self, plan: &str) -> Option<(Plot, String)> {
        let HeadMap { rows, columns, cells } = self.head_map();
        let values = || cells.iter().flatten().flatten();
        let count = values().count();
        if count == 0 {
            return None;
        }
        let towards = |text: &str, id: u32| format!("towards {}", Token(Some(text), id).quoted());
        let against = match self.other_id {
            Some(id) => towards(self.other.as_deref().unwrap_or_default(), id),
            None => "against it".to_owned(),
        };
        let said = |(r, row): (usize, &Vec<Option<f64>>)| {
            let said = |(head, value): (usize, &Option<f64>)| {
                format!("{} h{head}: {}", rows[r], value.map_or_else(String::new, |value| signed(value, 4)))
            };
            row.iter().enumerate().map(said).collect()
        };
        let plus = values().filter(|value| **value > 0.0).sum::<f64>();
        let minus = values().filter(|value| **value < 0.0).sum::<f64>();
        let plot = Plot {
            title: format!("{plan}: what each head adds"),
            measure: self.what(),
            drawing: Drawing::Map(HeatMap {
                down: ("layer".to_owned(), rows.clone()),
                across: ("head".to_owned(), (0..columns).map(|head| head.to_string()).collect()),
                hover: cells.iter().enumerate().map(said).collect(),
                sense: Sense::Gain(Gain {
                    even: 0.0,
                    full: None,
                    names: [towards(&self.answer, self.answer_id), String::new(), against],
                }),
                cells: cells.clone(),
            }),
        };
        let caption = format!(
            "What each head of {plan} adds to {}: those above 0 make {} together, those below {}.",
            self.what(),
            signed(plus, 2),
            signed(minus, 2)
        );
        Some((plot, caption))
    }
}
