//! Rows added up: token-weighted means per plan, over all examples or a group of them, with confidence intervals.
//!
//! Intervals are percentile bootstraps over examples (Efron 1979): the examples are drawn again with replacement, the same
//! ones for every plan, so that the interval of a difference from another plan is a paired one. Draws come from ChaCha8,
//! seeded. Sums run in the order of the examples' numbers, whatever the order in which rows came.

use super::Row;
use crate::measure::nan_last;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;

/// Resamples, where the examples are few enough.
const RESAMPLES: usize = 1_000;

/// Draws of examples in all, which bounds the time and memory that intervals take.
const DRAWS: usize = 20_000_000;

/// Rows of some plans on examples that belong to groups (tasks, files).
#[derive(Clone, Debug)]
pub struct Tally {
    plans: usize,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Group {
    name: String,
    /// For each example, its rows by plan.
    examples: BTreeMap<u64, Vec<Option<Cell>>>,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    nll: f64,
    entropy: f64,
    divergence: f64,
    tokens: u32,
    top1: u32,
    non_finite: u32,
}

/// A measured value and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// What a plan makes of examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The number of the plan.
    pub plan: usize,
    /// Examples.
    pub examples: usize,
    /// Scored tokens.
    pub tokens: u64,
    /// Nats per token.
    pub nll: Estimate,
    /// Nats per token more than under the plan that is compared with.
    pub delta: Option<Estimate>,
    /// Share of examples all of whose tokens are the likeliest.
    pub correct: f64,
    /// Share of tokens that are the likeliest.
    pub top1: f64,
    /// Entropy of the predictions, nats per token.
    pub entropy: f64,
    /// `KL(intact ‖ plan)`, nats per token; NaN where it was not asked for.
    pub divergence: f64,
    /// Tokens whose loss is NaN or infinite.
    pub non_finite: u64,
}

impl Tally {
    /// An empty tally of so many plans and the groups of these names.
    pub fn new(plans: usize, groups: impl IntoIterator<Item = String>) -> Tally {
        let groups = groups.into_iter().map(|name| Group { name, examples: BTreeMap::new() }).collect();
        Tally { plans, groups }
    }

    /// A further group; its number.
    pub fn add_group(&mut self, name: String) -> usize {
        self.groups.push(Group { name, examples: BTreeMap::new() });
        self.groups.len() - 1
    }

    /// The groups' names.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|group| group.name.as_str())
    }

    /// Takes a row of an example that belongs to a group; one that is there already is replaced.
    ///
    /// # Panics
    /// If there is no such group or plan.
    pub fn add(&mut self, group: usize, row: &Row) {
        let cells = self.groups[group].examples.entry(row.example).or_insert_with(|| vec![None; self.plans]);
        cells[row.plan] = Some(Cell {
            nll: row.nll,
            entropy: row.entropy,
            divergence: row.divergence.unwrap_or(f64::NAN),
            tokens: row.tokens,
            top1: row.top1,
            non_finite: row.non_finite,
        });
    }

    /// Bytes that an example takes, about.
    pub fn example_bytes(&self) -> usize {
        self.plans * size_of::<Option<Cell>>() + 64
    }

    /// What each plan makes of the examples of one group, or of all, compared with `baseline` where there is one. Examples
    /// without rows of every plan are left out.
    pub fn summaries(&self, group: Option<usize>, baseline: Option<usize>, seed: u64) -> Vec<Summary> {
        let groups = match group {
            Some(group) => &self.groups[group..=group],
            None => &self.groups[..],
        };
        let examples: Vec<&[Option<Cell>]> = groups
            .iter()
            .flat_map(|group| group.examples.values())
            .map(Vec::as_slice)
            .filter(|cells| cells.iter().all(Option::is_some))
            .collect();
        let cells = |plan: usize| examples.iter().filter_map(move |cells| cells[plan]);
        let resamples = Resamples::new(examples.len(), seed);
        let means = |plan: usize| {
            let losses: Vec<(f64, f64)> = cells(plan).map(|cell| (cell.nll, f64::from(cell.tokens))).collect();
            resamples.means(&losses)
        };
        let drawn = baseline.map(means);
        (0..self.plans)
            .map(|plan| {
                let tokens: u64 = cells(plan).map(|cell| u64::from(cell.tokens)).sum();
                let per_token = |of: &dyn Fn(Cell) -> f64| cells(plan).map(of).sum::<f64>() / tokens as f64;
                let mean = per_token(&|cell| cell.nll);
                let means = means(plan);
                let delta = baseline.zip(drawn.as_ref()).map(|(baseline, drawn)| {
                    let other: f64 = cells(baseline).map(|cell| cell.nll).sum::<f64>() / tokens as f64;
                    let differences = means.iter().zip(drawn).map(|(a, b)| a - b).collect();
                    Estimate::new(if plan == baseline { 0.0 } else { mean - other }, differences)
                });
                Summary {
                    plan,
                    examples: examples.len(),
                    tokens,
                    delta,
                    nll: Estimate::new(mean, means),
                    correct: cells(plan).filter(|cell| cell.top1 == cell.tokens).count() as f64 / examples.len() as f64,
                    top1: per_token(&|cell| f64::from(cell.top1)),
                    entropy: per_token(&|cell| cell.entropy),
                    divergence: per_token(&|cell| cell.divergence),
                    non_finite: cells(plan).map(|cell| u64::from(cell.non_finite)).sum(),
                }
            })
            .collect()
    }
}

impl Estimate {
    /// The mean of some values, with the interval of a bootstrap over them; one value alone has none.
    pub fn of_mean(values: &[f64], seed: u64) -> Estimate {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        if values.len() < 2 {
            return Estimate { value: mean, low: f64::NAN, high: f64::NAN };
        }
        let weighed: Vec<(f64, f64)> = values.iter().map(|value| (*value, 1.0)).collect();
        Estimate::new(mean, Resamples::new(values.len(), seed).means(&weighed))
    }

    /// The middle 95 % of what was drawn, around the value.
    fn new(value: f64, mut drawn: Vec<f64>) -> Estimate {
        // NaN last: an interval that would need one is NaN.
        drawn.sort_by(|a, b| nan_last(*a, *b));
        let at = |share: f64| {
            let last = drawn.len().checked_sub(1)?;
            let position = share * last as f64;
            let (below, above) = (drawn[position.floor() as usize], drawn[position.ceil() as usize]);
            Some(if below == above { below } else { below + (above - below) * position.fract() })
        };
        let [low, high] = [0.025, 0.975].map(|share| at(share).unwrap_or(f64::NAN));
        Estimate { value, low, high }
    }
}

/// How often each example is drawn, in each resample.
struct Resamples {
    times: Vec<u8>,
    examples: usize,
}

impl Resamples {
    fn new(examples: usize, seed: u64) -> Resamples {
        let count = (DRAWS / examples.max(1)).clamp(RESAMPLES / 10, RESAMPLES);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut times = vec![0_u8; count * examples];
        if examples > 0 {
            for resample in times.chunks_exact_mut(examples) {
                for _ in 0..examples {
                    let drawn = (u128::from(random.next_u64()) * examples as u128) >> 64;
                    let times = &mut resample[drawn as usize];
                    // A count of 255 is beyond chance.
                    *times = times.saturating_add(1);
                }
            }
        }
        Resamples { times, examples }
    }

    /// The weighted mean of each resample: sums, and the weights that they are of.
    fn means(&self, cells: &[(f64, f64)]) -> Vec<f64> {
        let resamples = self.times.chunks_exact(self.examples.max(1));
        resamples
            .map(|times| {
                let drawn = times.iter().zip(cells).filter(|(times, _)| **times > 0);
                let (sum, weight) = drawn.fold((0.0, 0.0), |(sum, weight), (&times, cell)| {
                    (sum + f64::from(times) * cell.0, weight + f64::from(times) * cell.1)
                });
                sum / weight
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(plan: usize, example: u64, nll: f64, tokens: u32) -> Row {
        Row {
            plan,
            example,
            tokens,
            nll,
            top1: u32::from(nll < 1.0) * tokens,
            first_rank: 0,
            entropy: 2.0 * nll,
            divergence: Some(nll / 2.0),
            non_finite: u32::from(!nll.is_finite()),
            token_nll: Vec::new(),
        }
    }

    fn tally(rows: &[(usize, u64, f64, u32)]) -> Tally {
        let mut tally = Tally::new(2, ["a".to_owned()]);
        rows.iter().for_each(|&(plan, example, nll, tokens)| tally.add(0, &row(plan, example, nll, tokens)));
        tally
    }

    #[test]
    fn means_are_weighted_by_tokens() {
        let tally = tally(&[(0, 0, 0.5, 1), (0, 1, 6.0, 3), (1, 0, 1.0, 1), (1, 1, 9.0, 3)]);
        let [intact, other] = &tally.summaries(None, Some(0), 1)[..] else { panic!() };
        assert_eq!((intact.nll.value, intact.tokens, intact.examples), (6.5 / 4.0, 4, 2));
        assert_eq!((intact.correct, intact.top1), (0.5, 0.25));
        assert_eq!((intact.entropy, intact.divergence), (13.0 / 4.0, 3.25 / 4.0));
        assert_eq!(intact.delta, Some(Estimate { value: 0.0, low: 0.0, high: 0.0 }));
        assert_eq!(other.delta.unwrap().value, 10.0 / 4.0 - 6.5 / 4.0);
    }

    #[test]
    fn intervals_hold_what_they_promise() {
        // Means of 40 uniform values: 0.5 ± 1.96 · 0.2887 / √40 in truth.
        let mut inside = 0;
        let mut widths = 0.0;
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for seed in 0..200 {
            let mut tally = Tally::new(1, ["a".to_owned()]);
            (0..40).for_each(|example| tally.add(0, &row(0, example, uniform(), 1)));
            let Estimate { low, high, .. } = tally.summaries(None, None, seed)[0].nll;
            inside += usize::from((low..high).contains(&0.5));
            widths += (high - low) / 200.0;
        }
        assert!((180..=198).contains(&inside), "{inside} of 200");
        assert!((0.16..0.19).contains(&widths), "{widths}");
    }

    #[test]
    fn means_of_values_have_intervals() {
        let mean = Estimate::of_mean(&[1.0, 2.0, 3.0, 4.0], 1);
        assert!(mean.value == 2.5 && (1.0..2.0).contains(&mean.low) && (3.0..=4.0).contains(&mean.high), "{mean:?}");
        assert_eq!(Estimate::of_mean(&[0.25; 9], 1), Estimate { value: 0.25, low: 0.25, high: 0.25 });
        let one = Estimate::of_mean(&[3.0], 1);
        assert!(one.value == 3.0 && one.low.is_nan() && one.high.is_nan());
    }

    #[test]
    fn differences_are_paired() {
        // Two plans that differ by a constant: the difference is certain, the values are not.
        let rows: Vec<_> = (0..30).flat_map(|e| [(0, e, e as f64, 1), (1, e, e as f64 + 0.25, 1)]).collect();
        let summary = &tally(&rows).summaries(None, Some(0), 3)[1];
        let delta = summary.delta.unwrap();
        assert!((delta.low - 0.25).abs() < 1e-9 && (delta.high - 0.25).abs() < 1e-9, "{delta:?}");
        assert!(summary.nll.high - summary.nll.low > 3.0);
    }

    #[test]
    fn order_and_seeds() {
        let mut rows: Vec<_> = (0..50).flat_map(|e| [(0, e, 0.1 * e as f64, 1), (1, e, 0.3 * e as f64, 2)]).collect();
        let once = tally(&rows).summaries(None, Some(0), 5);
        rows.reverse();
        assert_eq!(tally(&rows).summaries(None, Some(0), 5), once);
        assert_ne!(tally(&rows).summaries(None, Some(0), 6), once);
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let tally = tally(&[(0, 0, 1.0, 1), (0, 1, 2.0, 1), (1, 0, f64::NAN, 1), (1, 1, 2.0, 1)]);
        let [finite, broken] = &tally.summaries(None, Some(0), 1)[..] else { panic!() };
        assert!(finite.nll.value.is_finite() && finite.nll.high.is_finite());
        assert!(broken.nll.value.is_nan() && broken.delta.unwrap().value.is_nan() && broken.nll.high.is_nan());
        assert_eq!(broken.non_finite, 1);
        // Drawn now and then: the end of the interval that would need it is NaN, the other is not.
        let some = [f64::NAN, -f64::NAN].map(|nan| Estimate::new(0.0, vec![1.0, nan, 2.0, 3.0, 4.0]));
        assert!(some.iter().all(|estimate| estimate.low.is_finite() && estimate.high.is_nan()), "{some:?}");
    }

    #[test]
    fn examples_that_are_not_whole_are_left_out() {
        let partial = tally(&[(0, 0, 1.0, 1), (1, 0, 1.0, 1), (0, 1, 5.0, 1)]);
        assert_eq!(partial.summaries(None, None, 0)[0].examples, 1);
        let nothing = Tally::new(1, ["a".to_owned(), "b".to_owned()]);
        assert!(nothing.summaries(Some(1), Some(0), 0)[0].nll.value.is_nan());
    }

    #[test]
    fn groups_are_apart_and_together() {
        let mut tally = Tally::new(1, ["a".to_owned()]);
        assert_eq!(tally.add_group("b".to_owned()), 1);
        tally.add(0, &row(0, 0, 1.0, 1));
        tally.add(1, &row(0, 1, 3.0, 1));
        let mean = |group| tally.summaries(group, None, 0)[0].nll.value;
        assert_eq!([mean(Some(0)), mean(Some(1)), mean(None)], [1.0, 3.0, 2.0]);
        assert_eq!(tally.groups().collect::<Vec<_>>(), ["a", "b"]);
    }
}
