//! Which layers does a capability need? Minimal sets of layers that keep it, and minimal sets whose removal breaks it.
//!
//! A set of layers *qualifies* for [`Goal::Keep`] if the model of these layers alone, in their order, still meets the
//! [`Threshold`]; for [`Goal::Break`] if the model without them no longer does. Effects are not monotone: a larger set may
//! fail where a smaller one qualifies. So an exact search looks at all subsets, and lists the smallest qualifying sets and
//! all that are minimal under inclusion among all qualifying ones (no qualifying set is a proper subset of theirs).
//!
//! Where all subsets are too many, three searches find sets that are small, not smallest: their results are upper bounds.
//! *Greedy* gives up one layer after the other, the best one each time. *Beam* goes on from the best few of each size.
//! *Bisect* is delta debugging (Zeller & Hildebrandt 2002): it gives up halves, then smaller parts, and ends where no
//! single layer can be spared.
//!
//! Every search asks for the measures of many sets at a time, so that they share what they have in common.

use crate::measure::nan_last;
use crate::plan::{Plan, StepError};

/// Layers that an exact search may choose from at most: 65,536 subsets.
pub const MAX_EXACT_LAYERS: usize = 16;

/// Sets that are listed at most, of each kind.
pub const MAX_LISTED: usize = 1_000;

/// Accuracies are quotients of small numbers: those that differ do so by more than this.
const ROUNDING: f64 = 1e-12;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Few layers that suffice.
    Keep,
    /// Few layers without which the rest doesn't.
    Break,
}

/// What a model must reach, given what the intact one does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// This share of the intact model's accuracy at least: of examples whose scored tokens are all the likeliest.
    Accuracy(f64),
    /// A loss of at most so many nats per token more.
    Within(f64),
}

/// How sets are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// All subsets.
    Exact,
    /// One layer less at a time, the best one.
    Greedy,
    /// The same from the best so many sets of each size.
    Beam(usize),
    /// Halves first, then smaller parts.
    Bisect,
}

/// How well a model does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Nats per scored token.
    pub nll: f64,
    /// Share of examples whose scored tokens are all the likeliest.
    pub accuracy: f64,
}

/// A set of layers, ascending, and what was measured of the model that runs for it.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSet {
    /// The set.
    pub layers: Vec<usize>,
    /// Of the model of these layers, or of the one without them.
    pub measured: Measured,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Of the intact model.
    pub intact: Measured,
    /// Whether every subset was looked at: else sizes are upper bounds.
    pub exact: bool,
    /// Sets that were measured.
    pub tried: usize,
    /// The qualifying sets of the fewest layers (of an inexact search: the fewest it found), the best first.
    pub smallest: Vec<LayerSet>,
    /// All qualifying sets that are minimal under inclusion, by size, then the best first; only an exact search knows them.
    pub minimal: Vec<LayerSet>,
    /// How many of both kinds there are; lists end at [`MAX_LISTED`].
    pub counts: (usize, usize),
}

/// Measures models: for each plan, in its order.
pub type Measure<'m, E> = dyn FnMut(&[Plan]) -> Result<Vec<Measured>, E> + 'm;

/// A search for sets of layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// The model's layers.
    pub n_layer: usize,
    /// What is looked for.
    pub goal: Goal,
    /// What models must reach.
    pub threshold: Threshold,
    /// How.
    pub method: Method,
}

impl Search {
    /// Looks for sets, measuring models as it goes.
    ///
    /// # Errors
    /// Those of `measure`.
    ///
    /// # Panics
    /// If an exact search has more than [`MAX_EXACT_LAYERS`] layers to choose from, or `measure` gives another number of
    /// measures than there are plans.
    pub fn run<E: From<StepError>>(&self, measure: &mut Measure<'_, E>) -> Result<Found, E> {
        let mut asked =
            Asked { search: self, measure, tried: 0, intact: Measured { nll: f64::NAN, accuracy: f64::NAN } };
        let all: Vec<usize> = (0..self.n_layer).collect();
        let full = match self.goal {
            Goal::Keep => all.clone(),
            Goal::Break => Vec::new(),
        };
        asked.intact = asked.measure(&[full])?[0];
        match self.method {
            Method::Exact => asked.exact(),
            Method::Greedy => asked.beam(&all, 1),
            Method::Beam(width) => asked.beam(&all, width.max(1)),
            Method::Bisect => asked.bisect(all),
        }
    }

    /// The model that runs for a set.
    fn plan(&self, set: &[usize]) -> Result<Plan, StepError> {
        match self.goal {
            Goal::Keep => Plan::from_layers(set.iter().copied()),
            Goal::Break => Plan::from_layers((0..self.n_layer).filter(|layer| !set.contains(layer))),
        }
    }
}

impl Threshold {
    /// Whether a model reaches it. NaN never does. That 0.8 × 0.75 is a little more than 0.6 in f64 is no reason to fail.
    pub fn is_met(&self, measured: Measured, intact: Measured) -> bool {
        match *self {
            Threshold::Accuracy(share) => measured.accuracy >= share * intact.accuracy - ROUNDING,
            Threshold::Within(nats) => measured.nll <= intact.nll + nats,
        }
    }
}

struct Asked<'s, 'm, E> {
    search: &'s Search,
    measure: &'s mut Measure<'m, E>,
    tried: usize,
    intact: Measured,
}

impl<E: From<StepError>> Asked<'_, '_, E> {
    fn measure(&mut self, sets: &[Vec<usize>]) -> Result<Vec<Measured>, E> {
        let plans = sets.iter().map(|set| self.search.plan(set)).collect::<Result<Vec<_>, _>>()?;
        let measured = (self.measure)(&plans)?;
        assert_eq!(measured.len(), plans.len(), "a measure for each plan");
        self.tried += sets.len();
        Ok(measured)
    }

    fn qualifies(&self, measured: Measured) -> bool {
        let met = self.search.threshold.is_met(measured, self.intact);
        match self.search.goal {
            Goal::Keep => met,
            Goal::Break => !met,
        }
    }

    /// The better set has the lesser key: the best accuracy or loss to keep, the worst to break. NaN comes last.
    fn key(&self, measured: Measured) -> f64 {
        let worse = match self.search.threshold {
            Threshold::Accuracy(_) => -measured.accuracy,
            Threshold::Within(_) => measured.nll,
        };
        match self.search.goal {
            Goal::Keep => worse,
            Goal::Break => -worse,
        }
    }

    /// Of equal accuracies the lower loss is better.
    fn sort(&self, sets: &mut [LayerSet]) {
        let tie = |set: &LayerSet| if self.search.goal == Goal::Keep { set.measured.nll } else { -set.measured.nll };
        sets.sort_by(|a, b| {
            let keys = nan_last(self.key(a.measured), self.key(b.measured));
            let size = a.layers.len().cmp(&b.layers.len());
            size.then(keys).then(nan_last(tie(a), tie(b))).then_with(|| a.layers.cmp(&b.layers))
        });
    }

    fn found(&self, exact: bool, mut smallest: Vec<LayerSet>, mut minimal: Vec<LayerSet>) -> Found {
        self.sort(&mut smallest);
        self.sort(&mut minimal);
        let counts = (smallest.len(), minimal.len());
        smallest.truncate(MAX_LISTED);
        minimal.truncate(MAX_LISTED);
        Found { intact: self.intact, exact, tried: self.tried, smallest, minimal, counts }
    }

    fn exact(mut self) -> Result<Found, E> {
        let n = self.search.n_layer;
        assert!(n <= MAX_EXACT_LAYERS, "{n} layers: {MAX_EXACT_LAYERS} at most can be searched exactly");
        let layers = |mask: usize| -> Vec<usize> { (0..n).filter(|layer| mask >> layer & 1 == 1).collect() };
        let sets: Vec<Vec<usize>> = (0..1 << n).map(layers).collect();
        let measured = self.measure(&sets)?;
        let qualifies: Vec<bool> = measured.iter().map(|&measured| self.qualifies(measured)).collect();
        // Whether a proper subset qualifies: one layer less does, or has such a subset itself.
        let mut below = vec![false; 1 << n];
        for mask in 1..1_usize << n {
            below[mask] = (0..n).filter(|layer| mask >> layer & 1 == 1).any(|layer| {
                let less = mask & !(1 << layer);
                qualifies[less] || below[less]
            });
        }
        let set = |mask: usize| LayerSet { layers: sets[mask].clone(), measured: measured[mask] };
        let qualifying = (0..1 << n).filter(|&mask| qualifies[mask]);
        let fewest = qualifying.clone().map(usize::count_ones).min();
        let smallest = qualifying.clone().filter(|mask| Some(mask.count_ones()) == fewest).map(set).collect();
        let minimal = qualifying.filter(|&mask| !below[mask]).map(set).collect();
        Ok(self.found(true, smallest, minimal))
    }

    /// Level by level: to keep, from all layers downwards as long as sets qualify; to break, from none upwards until some do.
    fn beam(mut self, all: &[usize], width: usize) -> Result<Found, E> {
        let keep = self.search.goal == Goal::Keep;
        let whole = LayerSet { layers: if keep { all.to_vec() } else { Vec::new() }, measured: self.intact };
        let mut best = if self.qualifies(self.intact) { vec![whole.clone()] } else { Vec::new() };
        let mut front = vec![whole];
        for _ in all {
            let mut next: Vec<Vec<usize>> = Vec::new();
            for LayerSet { layers, .. } in &front {
                for layer in all.iter().filter(|layer| layers.contains(layer) == keep) {
                    let mut set = layers.clone();
                    match set.binary_search(layer) {
                        Ok(at) => drop(set.remove(at)),
                        Err(at) => set.insert(at, *layer),
                    }
                    next.push(set);
                }
            }
            next.sort();
            next.dedup();
            let measured = self.measure(&next)?;
            let mut sets: Vec<LayerSet> =
                next.into_iter().zip(measured).map(|(layers, measured)| LayerSet { layers, measured }).collect();
            self.sort(&mut sets);
            let qualifying: Vec<LayerSet> = sets.iter().filter(|set| self.qualifies(set.measured)).cloned().collect();
            if !qualifying.is_empty() {
                best = qualifying;
            }
            // To keep, smaller sets may qualify though these do not; but from here there is nothing good to go on from.
            let done = if keep { !sets.iter().any(|set| self.qualifies(set.measured)) } else { !best.is_empty() };
            if done {
                break;
            }
            sets.truncate(width);
            front = sets;
        }
        Ok(self.found(false, best, Vec::new()))
    }

    /// `ddmin` on the layers of a set that qualifies: all layers, kept or removed.
    fn bisect(mut self, all: Vec<usize>) -> Result<Found, E> {
        let measured = self.measure(std::slice::from_ref(&all))?[0];
        if !self.qualifies(measured) {
            return Ok(self.found(false, Vec::new(), Vec::new()));
        }
        let mut set = LayerSet { layers: all, measured };
        let mut parts = 2;
        while !set.layers.is_empty() {
            let len = set.layers.len();
            parts = parts.min(len);
            let bounds: Vec<usize> = (0..=parts).map(|part| part * len / parts).collect();
            // A part alone, then all but a part.
            let part = |i: usize| set.layers[bounds[i]..bounds[i + 1]].to_vec();
            let rest = |i: usize| [&set.layers[..bounds[i]], &set.layers[bounds[i + 1]..]].concat();
            let candidates: Vec<Vec<usize>> = if parts == len {
                (0..parts).map(rest).collect()
            } else {
                (0..parts).map(part).chain((0..parts).map(rest)).collect()
            };
            let measured = self.measure(&candidates)?;
            let qualifying = candidates.into_iter().zip(measured).find(|(_, measured)| self.qualifies(*measured));
            match qualifying {
                Some((layers, measured)) => {
                    // A part starts anew; a rest goes on with as many parts less one.
                    parts = if layers.len() * 2 <= len { 2 } else { (parts - 1).max(2) };
                    set = LayerSet { layers, measured };
                }
                None if parts < len => parts *= 2,
                None => break,
            }
        }
        Ok(self.found(false, vec![set], Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A capability that any of these sets gives: the loss is the fewest layers missing from one, the accuracy 1 where
    /// none is, but that `poison` together with `against` spoils everything.
    fn run(search: Search, needs: &[&[usize]], poison: Option<(usize, usize)>) -> Found {
        let mut measure = |plans: &[Plan]| -> Result<Vec<Measured>, StepError> {
            let one = |plan: &Plan| {
                let layers: Vec<usize> = plan.executions().map(|placed| placed.execution.layer).collect();
                assert!(layers.is_sorted(), "in their order");
                let missing = needs.iter().map(|need| need.iter().filter(|l| !layers.contains(l)).count()).min();
                let spoilt = poison.is_some_and(|(a, b)| layers.contains(&a) && !layers.contains(&b));
                let missing = missing.unwrap_or(0) + 5 * usize::from(spoilt);
                Measured { nll: 1.0 + missing as f64, accuracy: f64::from(u8::from(missing == 0)) * 0.9 }
            };
            Ok(plans.iter().map(one).collect())
        };
        search.run(&mut measure).unwrap()
    }

    fn search(goal: Goal, method: Method) -> Search {
        Search { n_layer: 7, goal, threshold: Threshold::Accuracy(0.9), method }
    }

    fn layers(sets: &[LayerSet]) -> Vec<&[usize]> {
        sets.iter().map(|set| &set.layers[..]).collect()
    }

    #[test]
    fn exact_search_finds_all_minimal_sets() {
        let needs: [&[usize]; 2] = [&[1, 2, 5], &[0, 6]];
        let found = run(search(Goal::Keep, Method::Exact), &needs, None);
        assert!(found.exact);
        assert_eq!(
            (layers(&found.smallest), layers(&found.minimal)),
            (vec![&[0, 6][..]], vec![&[0, 6][..], &[1, 2, 5]])
        );
        assert_eq!(found.tried, 129, "each subset once, and the intact model");
        // Breaking takes a layer of each.
        let found = run(search(Goal::Break, Method::Exact), &needs, None);
        let want: Vec<&[usize]> = vec![&[0, 1], &[0, 2], &[0, 5], &[1, 6], &[2, 6], &[5, 6]];
        assert_eq!((layers(&found.smallest), layers(&found.minimal)), (want.clone(), want));
    }

    /// With layer 3 but not 4, all is lost: supersets of a qualifying set may fail.
    #[test]
    fn sets_are_minimal_among_all_qualifying_ones() {
        let found = run(search(Goal::Keep, Method::Exact), &[&[1]], Some((3, 4)));
        assert_eq!(layers(&found.minimal), [&[1]]);
        let found = run(search(Goal::Break, Method::Exact), &[&[1]], Some((3, 4)));
        // Without 4 it breaks, without both it does not.
        assert_eq!(layers(&found.minimal), [&[4][..], &[1]], "the worse one first");
        assert_eq!(found.counts, (2, 2));
    }

    #[test]
    fn inexact_searches_give_upper_bounds() {
        let needs: [&[usize]; 2] = [&[1, 2, 5], &[0, 6]];
        for method in [Method::Greedy, Method::Beam(4), Method::Bisect] {
            for (goal, most) in [(Goal::Keep, 3), (Goal::Break, 4)] {
                let found = run(search(goal, method), &needs, None);
                assert!(!found.exact && found.minimal.is_empty());
                let set = &found.smallest[0];
                assert!((2..=most).contains(&set.layers.len()), "{method:?} {goal:?}: {found:?}");
                assert_eq!(set.measured.accuracy > 0.0, goal == Goal::Keep);
            }
        }
        assert_eq!(layers(&run(search(Goal::Keep, Method::Beam(8)), &needs, None).smallest), [[0, 6]]);
        let within = Search { threshold: Threshold::Within(1.5), ..search(Goal::Keep, Method::Greedy) };
        assert!(run(within, &needs, None).smallest[0].layers.len() <= 2, "one layer may miss");
    }

    #[test]
    fn nothing_qualifies_or_nothing_is_needed() {
        for method in [Method::Exact, Method::Greedy, Method::Beam(2), Method::Bisect] {
            let found = run(search(Goal::Keep, method), &[&[]], None);
            assert_eq!(layers(&found.smallest), [&[] as &[usize]], "{method:?}");
            let found = run(search(Goal::Break, method), &[&[]], None);
            assert!(found.smallest.is_empty(), "{method:?}: {found:?}");
        }
        let right = |count: usize| Measured { nll: 1.0, accuracy: count as f64 / 20.0 };
        assert!(0.8 * right(15).accuracy > right(12).accuracy, "f64 rounds");
        assert!(Threshold::Accuracy(0.8).is_met(right(12), right(15)));
        assert!(!Threshold::Accuracy(0.8).is_met(right(11), right(15)));
        let nan = Measured { nll: f64::NAN, accuracy: f64::NAN };
        assert!(!Threshold::Within(1.0).is_met(nan, Measured { nll: 1.0, accuracy: 1.0 }));
        assert!(!Threshold::Accuracy(0.0).is_met(nan, Measured { nll: 1.0, accuracy: 1.0 }));
    }
}
