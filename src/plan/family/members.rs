//! The plans of a family, written out.

use super::{Family, FamilyError, FamilyProblem, Kind, MAX_FAMILY_EXECUTIONS, Member};
use crate::plan::edits::shuffled;
use crate::plan::{Execution, Modifier, Part, Plan, PlanShape, Step};
use std::ops::Range;

impl Family {
    /// All of them: their number has been checked.
    pub(super) fn written_out(&self, shape: &PlanShape) -> Result<Vec<Member>, FamilyError> {
        let mut list = List { family: self, n_layer: shape.n_layer, members: Vec::new(), executions: 0 };
        let window = self.window(shape)?;
        let all = shape.n_layer;
        match self.kind {
            Kind::KeepFirst => (0..=all).try_for_each(|n| list.layers([n], 0..n)),
            Kind::DropLast => (0..=all).try_for_each(|n| list.layers([n], 0..all - n)),
            Kind::DropFirst => (0..=all).try_for_each(|n| list.layers([n], n..all)),
            Kind::SkipOne => window.clone().try_for_each(|i| list.layers([i], (0..all).filter(|&l| l != i))),
            Kind::SkipPairs => {
                pairs(&window).try_for_each(|(i, j)| list.layers([i, j], (0..all).filter(|&l| l != i && l != j)))
            }
            Kind::SwapAdjacent => window.clone().skip(1).try_for_each(|j| list.layers([j - 1], swapped(all, j - 1, j))),
            Kind::SwapAny => pairs(&window).try_for_each(|(i, j)| list.layers([i, j], swapped(all, i, j))),
            Kind::Move => window.clone().try_for_each(|i| {
                let mut others = window.clone().filter(|&j| j != i);
                others.try_for_each(|j| list.layers([i, j], moved(all, i, j)))
            }),
            Kind::RepeatOne => window.clone().try_for_each(|i| {
                let repeated = |times| (0..i).chain(std::iter::repeat_n(i, times)).chain(i + 1..all);
                self.times().try_for_each(|times| list.layers([i, times], repeated(times)))
            }),
            Kind::SkipWindow => self.windows(shape)?.try_for_each(|w| list.layers(ends(&w), with(all, w, Vec::new()))),
            Kind::RepeatWindow => self
                .windows(shape)?
                .try_for_each(|w| list.layers(ends(&w), with(all, w.clone(), w.clone().chain(w).collect()))),
            Kind::ReverseWindow => {
                self.windows(shape)?.try_for_each(|w| list.layers(ends(&w), with(all, w.clone(), w.rev().collect())))
            }
            Kind::MiddleRepeat => self.windows(shape)?.try_for_each(|w| {
                let middle = w.start.midpoint(w.end);
                list.layers(ends(&w), with(all, w.clone(), vec![middle; w.len()]))
            }),
            Kind::ShuffleWindow => self
                .seeds()
                .try_for_each(|seed| list.layers([seed], with(all, window.clone(), shuffled(window.clone(), seed)))),
            Kind::Delete => self.seeds().try_for_each(|seed| {
                let order = shuffled(window.clone(), seed);
                let deleted = &order[..self.deleted.unwrap_or(0)];
                list.layers([seed], (0..all).filter(|layer| !deleted.contains(layer)))
            }),
            Kind::Subsets => (0..1_u64 << window.len()).try_for_each(|mask| {
                let kept = window.clone().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
                list.layers([mask], with(all, window.clone(), kept.map(|(_, layer)| layer).collect()))
            }),
            Kind::Permutations => {
                let mut order: Vec<usize> = window.clone().collect();
                let mut rank = 0_u64;
                loop {
                    list.layers([rank], with(all, window.clone(), order.clone()))?;
                    rank += 1;
                    if !next_permutation(&mut order) {
                        break Ok(());
                    }
                }
            }
            Kind::Parallel => self.windows(shape)?.try_for_each(|w| list.side_by_side(&w, 1, &ends(&w))),
            Kind::LoopedParallel => self.windows(shape)?.try_for_each(|w| {
                self.times().try_for_each(|times| {
                    let [from, to] = ends(&w);
                    list.side_by_side(&w, times, &[from, to, times])
                })
            }),
            Kind::ZeroHead => window.clone().try_for_each(|layer| {
                (0..shape.n_head).try_for_each(|head| {
                    let zeroed = Execution { modifiers: vec![Modifier::zero_heads([head])], ..Execution::block(layer) };
                    list.replaced(layer, zeroed, &[layer, head])
                })
            }),
            Kind::SkipAttention => window.clone().try_for_each(|layer| {
                list.replaced(layer, Execution { part: Part::Mlp, ..Execution::block(layer) }, &[layer])
            }),
            Kind::SkipMlp => window.clone().try_for_each(|layer| {
                list.replaced(layer, Execution { part: Part::Attention, ..Execution::block(layer) }, &[layer])
            }),
        }?;
        Ok(list.members)
    }

    fn times(&self) -> Range<usize> {
        self.times.clone().unwrap_or(1..2)
    }

    fn seeds(&self) -> Range<u64> {
        self.seeds.clone().unwrap_or(0..1)
    }
}

/// The members so far.
struct List<'a> {
    family: &'a Family,
    n_layer: usize,
    members: Vec<Member>,
    executions: u128,
}

impl List<'_> {
    /// Whole blocks in this order.
    fn layers<const N: usize, T: TryInto<u64>>(
        &mut self,
        at: [T; N],
        layers: impl IntoIterator<Item = usize>,
    ) -> Result<(), FamilyError> {
        // A plan is bounded before it is written out.
        let most = MAX_FAMILY_EXECUTIONS as usize;
        let steps: Vec<Step> = layers.into_iter().take(most).map(Execution::block).map(Step::Block).collect();
        self.push(steps, at.into_iter().map(|at| at.try_into().unwrap_or(u64::MAX)).collect())
    }

    /// A window's layers side by side, some times in a row.
    fn side_by_side(&mut self, window: &Range<usize>, times: usize, at: &[usize]) -> Result<(), FamilyError> {
        let block = |layer| Step::Block(Execution::block(layer));
        let group: Vec<Step> = match window.len() {
            1 => vec![block(window.start)],
            _ => vec![Step::Group(window.clone().map(|layer| vec![block(layer)]).collect())],
        };
        let loops = std::iter::repeat_n(group, times).flatten();
        let steps = (0..window.start).map(block).chain(loops).chain((window.end..self.n_layer).map(block));
        self.push(steps.take(MAX_FAMILY_EXECUTIONS as usize).collect(), at.iter().map(|&at| at as u64).collect())
    }

    /// The intact model with another execution in place of a layer's.
    fn replaced(&mut self, layer: usize, execution: Execution, at: &[usize]) -> Result<(), FamilyError> {
        let mut steps: Vec<Step> = (0..self.n_layer).map(Execution::block).map(Step::Block).collect();
        steps[layer] = Step::Block(execution);
        self.push(steps, at.iter().map(|&at| at as u64).collect())
    }

    fn push(&mut self, steps: Vec<Step>, at: Vec<u64>) -> Result<(), FamilyError> {
        let too_large = || self.family.error(FamilyProblem::TooLarge);
        let plan = Plan::new(steps).map_err(|_| too_large())?;
        self.executions += plan.executions().count() as u128;
        if self.executions > MAX_FAMILY_EXECUTIONS {
            return Err(too_large());
        }
        self.members.push(Member { plan, at });
        Ok(())
    }
}

/// The intact order with other layers in place of a window's.
fn with(n_layer: usize, window: Range<usize>, layers: Vec<usize>) -> impl Iterator<Item = usize> {
    (0..window.start).chain(layers).chain(window.end..n_layer)
}

fn ends(window: &Range<usize>) -> [usize; 2] {
    [window.start, window.end]
}

fn pairs(window: &Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let end = window.end;
    window.clone().flat_map(move |i| (i + 1..end).map(move |j| (i, j)))
}

fn swapped(n_layer: usize, i: usize, j: usize) -> impl Iterator<Item = usize> {
    (0..n_layer).map(move |layer| match layer {
        _ if layer == i => j,
        _ if layer == j => i,
        _ => layer,
    })
}

/// Layer i so that it ends at position j.
fn moved(n_layer: usize, i: usize, j: usize) -> Vec<usize> {
    let mut layers: Vec<usize> = (0..n_layer).filter(|&layer| layer != i).collect();
    layers.insert(j, i);
    layers
}

/// The lexicographically next order; false behind the last.
fn next_permutation(order: &mut [usize]) -> bool {
    let Some(pivot) = order.windows(2).rposition(|pair| pair[0] < pair[1]) else { return false };
    let swap = order.iter().rposition(|&x| x > order[pivot]).unwrap_or(pivot);
    order.swap(pivot, swap);
    order[pivot + 1..].reverse();
    true
}
