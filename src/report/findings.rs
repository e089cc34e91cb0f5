//! What follows from results: from which layer count on answers are right, which sets of layers are minimal.

use super::data::{FamilyFacts, Group, PlanFacts, Results};
use crate::measure::nan_last;
use crate::plan::Part;
use crate::sweep::Summary;

/// Layer counts of a family of truncations, ascending, with their plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncations {
    /// Layers kept, and the plan's place.
    pub kept: Vec<(usize, usize)>,
}

/// From how many layers on a task's answers are right.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstRight {
    /// The task.
    pub task: String,
    /// Its examples.
    pub examples: usize,
    /// Share of them that the intact model answers.
    pub intact: f64,
    /// The fewest first layers with which one example at least is answered.
    pub any: Option<usize>,
    /// The same for half of them.
    pub half: Option<usize>,
    /// The same for as many as the intact model answers.
    pub full: Option<usize>,
    /// From so many layers on as many as by the intact model, with any more layers too.
    pub steady: Option<usize>,
}

impl Truncations {
    /// Of the first family that keeps the first layers.
    pub fn of(results: &Results) -> Option<Truncations> {
        results.families.iter().find_map(|family| Truncations::of_family(results, family))
    }

    /// Of a family, where it is one that keeps the first layers.
    pub fn of_family(results: &Results, family: &FamilyFacts) -> Option<Truncations> {
        let kept = |at: u64| match family.name.as_str() {
            "keep-first" => Some(at as usize),
            "drop-last" => results.n_layer.checked_sub(at as usize),
            _ => None,
        };
        let members = family.members.iter().map(|(plan, at)| Some((kept(*at.first()?)?, *plan)));
        let mut kept: Vec<(usize, usize)> = members.collect::<Option<_>>()?;
        kept.sort_unstable();
        (!kept.is_empty()).then_some(Truncations { kept })
    }

    /// From how many layers on the answers of a task are right.
    pub fn first_right(&self, task: &Group) -> FirstRight {
        let intact = task.intact.correct;
        let correct = |plan: usize| task.plans[plan].correct;
        let first = |reached: &dyn Fn(f64) -> bool| {
            self.kept.iter().find(|(_, plan)| reached(correct(*plan))).map(|(kept, _)| *kept)
        };
        let falls_short = |plan: usize| correct(plan).is_nan() || correct(plan) < intact;
        let last_short = self.kept.iter().rposition(|(_, plan)| falls_short(*plan));
        let steady = self.kept.get(last_short.map_or(0, |at| at + 1)).map(|(kept, _)| *kept);
        FirstRight {
            task: task.name.clone(),
            examples: task.intact.examples,
            intact,
            any: first(&|share| share > 0.0),
            half: first(&|share| share >= 0.5),
            full: if intact > 0.0 { first(&|share| share >= intact) } else { None },
            steady: if intact > 0.0 { steady } else { None },
        }
    }
}

/// A set of layers, ascending, and its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subset {
    /// The layers.
    pub layers: Vec<usize>,
    /// The plan's place.
    pub plan: usize,
}

/// The subsets of a family of all of them, in its order; none where plans are not whole layers in ascending order.
pub(super) fn subsets(plans: &[PlanFacts], family: &FamilyFacts) -> Option<Vec<Subset>> {
    let subset = |plan: usize| {
        let layers = layers(&plans[plan])?;
        (layers.is_sorted_by(|a, b| a < b) && layers.last().is_none_or(|last| *last < 128))
            .then_some(Subset { layers, plan })
    };
    family.members.iter().map(|(plan, _)| subset(*plan)).collect()
}

/// The layers of a plan in their order, where it is whole layers one after the other.
pub(super) fn layers(plan: &PlanFacts) -> Option<Vec<usize>> {
    use crate::plan::Step;
    let layer = |step: &Step| match step {
        Step::Block(execution) if execution.part == Part::Block && execution.modifiers.is_empty() => {
            Some(execution.layer)
        }
        _ => None,
    };
    plan.plan.steps().iter().map(layer).collect()
}

/// The subsets that qualify and hold no other one that does, by size, then the best first.
pub(super) fn minimal(subsets: &[Subset], summaries: &[Summary], qualifies: &dyn Fn(&Summary) -> bool) -> Vec<Subset> {
    let mask = |subset: &Subset| subset.layers.iter().fold(0_u128, |mask, layer| mask | 1 << layer);
    let mut candidates: Vec<&Subset> = subsets.iter().filter(|subset| qualifies(&summaries[subset.plan])).collect();
    candidates.sort_by(|a, b| {
        let loss = |subset: &Subset| summaries[subset.plan].nll.value;
        a.layers.len().cmp(&b.layers.len()).then(nan_last(loss(a), loss(b))).then(a.layers.cmp(&b.layers))
    });
    let mut found: Vec<(u128, &Subset)> = Vec::new();
    for candidate in candidates {
        let own = mask(candidate);
        if !found.iter().any(|(smaller, _)| smaller & own == *smaller) {
            found.push((own, candidate));
        }
    }
    found.into_iter().map(|(_, subset)| subset.clone()).collect()
}

/// How much of an order is left: Kendall's τ, 1 for ascending layers, −1 for descending ones; none where a layer runs twice, or
/// there are fewer than two.
pub(super) fn kendall_tau(order: &[usize]) -> Option<f64> {
    let pairs = || order.iter().enumerate().flat_map(|(i, a)| order[i + 1..].iter().map(move |b| a.cmp(b)));
    if order.len() < 2 || pairs().any(std::cmp::Ordering::is_eq) {
        return None;
    }
    let sum: i64 = pairs().map(|order| if order.is_lt() { 1 } else { -1 }).sum();
    Some(sum as f64 / pairs().count() as f64)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{results, summary};
    use super::*;

    #[test]
    fn the_first_layer_count_at_which_answers_are_right() {
        let correct = [0.0, 0.0, 0.2, 0.6, 0.9, 0.5, 0.9];
        let group = Group {
            name: "t".into(),
            intact: summary(6, 0.1, 0.9),
            plans: correct.iter().enumerate().map(|(plan, share)| summary(plan, 1.0, *share)).collect(),
        };
        let truncations = Truncations { kept: (0..7).map(|n| (n, n)).collect() };
        let found = truncations.first_right(&group);
        assert_eq!((found.any, found.half, found.full, found.steady), (Some(2), Some(3), Some(4), Some(6)));
        let never = Group { intact: summary(6, 0.1, 0.0), plans: vec![summary(0, 1.0, 0.0); 7], ..group };
        let found = truncations.first_right(&never);
        assert_eq!((found.any, found.half, found.full, found.steady), (None, None, None, None));
    }

    #[test]
    fn dropping_the_last_is_keeping_the_first() {
        let results = results(&["drop-last"], 3);
        let kept = Truncations::of(&results).unwrap().kept;
        assert_eq!(kept.iter().map(|(kept, _)| *kept).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(results.plans[kept[1].1].text, "0");
        assert_eq!(Truncations::of(&super::super::tests::results(&["drop-first"], 3)), None);
    }

    #[test]
    fn minimal_sets_hold_no_others() {
        let results = results(&["subsets"], 3);
        let subsets = subsets(&results.plans, &results.families[0]).unwrap();
        assert_eq!(subsets.len(), 8);
        let losses = |layers: &[usize]| f64::from(!(layers.contains(&0) && layers.contains(&2) || layers.contains(&1)));
        let summaries: Vec<Summary> =
            subsets.iter().map(|subset| summary(subset.plan, losses(&subset.layers), 0.0)).collect();
        let found = minimal(&subsets, &summaries, &|summary| summary.nll.value < 0.5);
        assert_eq!(found.iter().map(|set| set.layers.clone()).collect::<Vec<_>>(), [vec![1], vec![0, 2]]);
    }

    #[test]
    fn orders_are_measured_by_kendall() {
        assert_eq!(kendall_tau(&[0, 1, 2, 3]), Some(1.0));
        assert_eq!(kendall_tau(&[3, 2, 1]), Some(-1.0));
        assert_eq!(kendall_tau(&[0, 2, 1]), Some(1.0 / 3.0));
        assert_eq!([kendall_tau(&[1, 1]), kendall_tau(&[1])], [None, None]);
    }
}
