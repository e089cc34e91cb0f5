//! Word edits: what each does to the order of layers. They start from the intact plan and run left to right. Numbers
//! name layers, wherever earlier edits have put them; the counts of keep-first, drop-last and drop-first, and the
//! position of move, are of the order at that point.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::error::{Fault, PlanProblem};
use super::syntax::{Edit, LayerRange, Number};
use super::{MAX_EXECUTIONS, PlanShape, resolve};
use std::ops::Range;

/// The order of layers that the edits make of the intact one.
pub(super) fn apply(edits: &[Edit], shape: &PlanShape) -> Result<Vec<usize>, Fault> {
    if shape.n_layer > MAX_EXECUTIONS {
        return Err(Fault::new(0..0, PlanProblem::TooLarge { executions: shape.n_layer as u128 }));
    }
    let mut order = Order { layers: (0..shape.n_layer).collect(), shape };
    edits.iter().try_for_each(|edit| order.apply(edit))?;
    Ok(order.layers)
}

/// The exchanges that shuffle `n` things: Fisher–Yates from the end, as the notation defines it.
fn shuffle(n: usize, seed: u64) -> impl Iterator<Item = (usize, usize)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (1..n).rev().map(move |last| (last, ((u128::from(random.next_u64()) * (last as u128 + 1)) >> 64) as usize))
}

/// The layers of a window as `shuffle` with this seed orders them.
pub(super) fn shuffled(window: Range<usize>, seed: u64) -> Vec<usize> {
    let mut layers: Vec<usize> = window.collect();
    shuffle(layers.len(), seed).for_each(|(last, chosen)| layers.swap(last, chosen));
    layers
}

struct Order<'a> {
    layers: Vec<usize>,
    shape: &'a PlanShape,
}

impl Order<'_> {
    fn apply(&mut self, edit: &Edit) -> Result<(), Fault> {
        match edit {
            Edit::KeepFirst(count) => {
                let count = self.count(count)?;
                self.layers.truncate(count);
            }
            Edit::DropLast(count) => {
                let count = self.count(count)?;
                self.layers.truncate(self.layers.len() - count);
            }
            Edit::DropFirst(count) => {
                let count = self.count(count)?;
                self.layers.drain(..count);
            }
            Edit::SkipOne(layer) => {
                let position = self.position(layer)?;
                self.layers.remove(position);
            }
            Edit::SkipRange(window) => {
                self.positions(window)?;
                let window = resolve::layers(window, self.shape)?.window;
                self.layers.retain(|layer| !window.contains(layer));
            }
            Edit::Swap(a, b) => {
                let (a, b) = (self.position(a)?, self.position(b)?);
                self.layers.swap(a, b);
            }
            Edit::Move { layer, position } => {
                let from = self.position(layer)?;
                let len = self.layers.len();
                let to = usize::try_from(position.value).ok().filter(|to| *to < len).ok_or_else(|| {
                    let problem = PlanProblem::Position { position: position.value, len };
                    Fault::new(position.span.clone(), problem)
                })?;
                let layer = self.layers.remove(from);
                self.layers.insert(to, layer);
            }
            Edit::Repeat { layer, count } => {
                let at = self.position(layer)?;
                let executions = (self.layers.len() - 1) as u128 + u128::from(count.value);
                if executions > MAX_EXECUTIONS as u128 {
                    return Err(Fault::new(count.span.clone(), PlanProblem::TooLarge { executions }));
                }
                let layer = self.layers[at];
                self.layers.splice(at..=at, std::iter::repeat_n(layer, count.value as usize));
            }
            Edit::Reverse(window) => {
                let positions = self.positions(window)?;
                for (&a, &b) in positions.iter().zip(positions.iter().rev()).take(positions.len() / 2) {
                    self.layers.swap(a, b);
                }
            }
            Edit::Shuffle { window, seed } => {
                let positions = self.positions(window)?;
                for (last, chosen) in shuffle(positions.len(), seed.value) {
                    self.layers.swap(positions[last], positions[chosen]);
                }
            }
        }
        Ok(())
    }

    /// Steps to keep or drop: at most all there are.
    fn count(&self, number: &Number) -> Result<usize, Fault> {
        let len = self.layers.len();
        usize::try_from(number.value)
            .ok()
            .filter(|count| *count <= len)
            .ok_or_else(|| Fault::new(number.span.clone(), PlanProblem::Count { count: number.value, len }))
    }

    /// Where a layer stands that is there once.
    fn position(&self, number: &Number) -> Result<usize, Fault> {
        let layer = resolve::layer(number, self.shape)?;
        let mut found = self.layers.iter().enumerate().filter(|(_, l)| **l == layer);
        let problem = match (found.next(), found.count()) {
            (Some((position, _)), 0) => return Ok(position),
            (Some(_), more) => PlanProblem::Repeated { layer, times: more + 1 },
            (None, _) => PlanProblem::Absent { layer },
        };
        Err(Fault::new(number.span.clone(), problem))
    }

    /// The positions, ascending, of the layers of a window, each of which is there once.
    fn positions(&self, range: &LayerRange) -> Result<Vec<usize>, Fault> {
        let window = resolve::layers(range, self.shape)?.window;
        let mut times = vec![0_usize; window.len()];
        let mut positions = Vec::with_capacity(window.len());
        for (position, layer) in self.layers.iter().enumerate() {
            if window.contains(layer) {
                times[layer - window.start] += 1;
                positions.push(position);
            }
        }
        for (layer, times) in window.zip(times) {
            let problem = match times {
                1 => continue,
                0 => PlanProblem::Absent { layer },
                times => PlanProblem::Repeated { layer, times },
            };
            return Err(Fault::new(range.span(), problem));
        }
        Ok(positions)
    }
}
