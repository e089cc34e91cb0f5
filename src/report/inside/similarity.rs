//! How alike residual states are: a map of cosines, and how much each step turns them.

use serde::Deserialize;

use super::{Shown, check_size};
use crate::measure::Number;
use crate::report::number::{counted, plain};
use crate::report::plot::{Bars, Drawing, HeatMap, Plot, Sense};
use crate::sweep::Estimate;

/// A plan's states, compared.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Similarity {
    pub(super) model: String,
    plan: String,
    texts: u64,
    states: Vec<String>,
    #[serde(flatten)]
    all: Compared,
    without_first: Compared,
}

#[derive(Clone, Debug, Deserialize)]
struct Compared {
    tokens: u64,
    cosines: Vec<Vec<Number>>,
    block_influence: Vec<Number>,
}

impl Similarity {
    pub(super) fn new(similarity: Similarity) -> Result<Similarity, String> {
        let states = similarity.states.len();
        check_size(states.saturating_mul(states))?;
        let fits = |of: &Compared| {
            let square = of.cosines.len() == states && of.cosines.iter().all(|row| row.len() == states);
            square && of.block_influence.len() + 1 == states
        };
        match fits(&similarity.all) && fits(&similarity.without_first) {
            true => Ok(similarity),
            false => Err(format!("there are not {states} states by {states}")),
        }
    }

    pub(super) fn draw(&self, shown: &Shown) -> Vec<(Plot, String)> {
        let Similarity { plan, states, texts, .. } = self;
        let plan = shown.plan(plan);
        let of = if shown.with_first { &self.all } else { &self.without_first };
        let first = if shown.with_first { "" } else { ", position 0 left out" };
        let over = format!("{}{first}", counted(of.tokens, "token"));
        let said = |(a, row): (usize, &Vec<Number>)| {
            let said = |(b, value): (usize, &Number)| {
                format!("behind {} and behind {}: cosine {}", states[a], states[b], plain(value.0, 4))
            };
            row.iter().enumerate().map(said).collect()
        };
        let map = Plot {
            title: format!("{plan}: how alike residual states are"),
            measure: format!("mean cosine, %; {over}"),
            drawing: Drawing::Map(HeatMap {
                down: ("behind".to_owned(), states.clone()),
                across: ("behind".to_owned(), states.clone()),
                cells: of.cosines.iter().map(|row| row.iter().map(|value| Some(value.0)).collect()).collect(),
                hover: of.cosines.iter().enumerate().map(said).collect(),
                sense: Sense::Share,
            }),
        };
        let alike = of.cosines.first().and_then(|row| row.last()).map_or(f64::NAN, |cosine| cosine.0);
        let caption = format!(
            "How alike the residual stream is behind the steps of {plan}: mean cosines over {over}, of {}. From the embedding to \
             the end it is {}.",
            counted(*texts, "text"),
            plain(alike, 2)
        );
        let mut drawn = vec![(map, caption)];
        if of.block_influence.is_empty() {
            return drawn;
        }
        let steps = || states[1..].iter().zip(of.block_influence.iter().map(|influence| influence.0));
        let certain = |value: f64| Estimate { value, low: f64::NAN, high: f64::NAN };
        let finite = || steps().filter(|(_, influence)| influence.is_finite());
        let most = finite().max_by(|a, b| a.1.total_cmp(&b.1));
        let least = finite().min_by(|a, b| a.1.total_cmp(&b.1));
        let ends = most.zip(least).map_or_else(String::new, |(most, least)| {
            format!(" Most: step {}, {}; least: step {}, {}.", most.0, plain(most.1, 2), least.0, plain(least.1, 4))
        });
        let bars = steps().map(|(step, influence)| (step.clone(), certain(influence))).collect();
        let plot = Plot {
            title: "Block influence, 1 − cosine".to_owned(),
            measure: over,
            drawing: Drawing::Bars(Bars { axis: "step".to_owned(), bars, difference: false, reference: None }),
        };
        drawn.push((plot, format!("How much each step of {plan} turns the residual stream: 1 − the mean cosine of the states before and behind it (block influence, Men et al. 2024).{ends}")));
        drawn
    }
}
