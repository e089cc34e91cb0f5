//! The syntax tree to explicit steps for a model of a given shape. Layers, heads and sizes are checked here, sizes
//! before anything is expanded.

use std::ops::Range;

use super::error::{Fault, PlanProblem};
use super::modifier::canonical;
use super::syntax::{Change, Core, Expr, Item, LayerRange, Number, Sequence};
use super::{Bridge, Execution, MAX_EXECUTIONS, Modifier, Part, PlanShape, Step, edits};

/// Canonical steps, within bounds.
pub(super) fn resolve(expr: &Expr, shape: &PlanShape) -> Result<Vec<Step>, Fault> {
    match expr {
        Expr::Plan(sequence) => Ok(self::sequence(sequence, shape)?.steps),
        Expr::Edits(edits) => {
            let layers = edits::apply(edits, shape)?;
            Ok(layers.into_iter().map(Execution::block).map(Step::Block).collect())
        }
    }
}

/// Steps and how many executions they hold, an empty branch counted as one. Never more than [`MAX_EXECUTIONS`].
#[derive(Default)]
struct Expanded {
    steps: Vec<Step>,
    executions: usize,
}

fn sequence(items: &Sequence, shape: &PlanShape) -> Result<Expanded, Fault> {
    let mut all = Expanded::default();
    for item in items {
        let mut one = core(item, shape)?;
        for change in &item.changes {
            let modifier = modifier(change, shape)?;
            modify(&mut one.steps, &modifier).map_err(|problem| Fault::new(change.span.clone(), problem))?;
        }
        let (count, span) = match &item.count {
            Some(count) => (count.value, count.span.clone()),
            None => (1, item.span.clone()),
        };
        // At most 2^16 · 2^64: exact in 128 bits. An item without executions has no steps either (an empty branch
        // counts), so it may repeat as often as it likes.
        let executions = one.executions as u128 * u128::from(count);
        all.executions = within_bounds(all.executions as u128 + executions, span)?;
        if executions > 0 {
            all.steps.reserve(one.steps.len() * count as usize);
            for _ in 1..count {
                all.steps.extend_from_slice(&one.steps);
            }
            all.steps.append(&mut one.steps);
        }
    }
    Ok(all)
}

fn core(item: &Item, shape: &PlanShape) -> Result<Expanded, Fault> {
    match &item.core {
        Core::Layer(number, part) => {
            let steps = vec![block(layer(number, shape)?, *part)];
            Ok(Expanded { steps, executions: 1 })
        }
        Core::Range(range, part) => {
            let layers = layers(range, shape)?;
            let executions = within_bounds(layers.len() as u128, range.span())?;
            Ok(Expanded { steps: layers.map(|layer| block(layer, *part)).collect(), executions })
        }
        Core::Parallel(range) => {
            let layers = layers(range, shape)?;
            let executions = within_bounds(layers.len() as u128, range.span())?;
            let mut branches: Vec<Vec<Step>> = layers.map(|layer| vec![block(layer, Part::Block)]).collect();
            let steps = match branches.len() {
                0 => {
                    let (start, end) = (range.start.value, range.end.value);
                    return Err(Fault::new(range.span(), PlanProblem::NoBranches { start, end }));
                }
                1 => branches.remove(0),
                _ => vec![Step::Group(branches)],
            };
            Ok(Expanded { steps, executions })
        }
        Core::Bridge { from, to, name } => {
            let bound = |number: &Number| match usize::try_from(number.value) {
                Ok(value) if value <= shape.n_layer => Ok(value),
                _ => {
                    let problem = PlanProblem::BridgeEnd { to: number.value, n_layer: shape.n_layer };
                    Err(Fault::new(number.span.clone(), problem))
                }
            };
            let bridge = Bridge { from: bound(from)?, to: bound(to)?, name: name.clone(), content: None };
            Ok(Expanded { steps: vec![Step::Bridge(bridge)], executions: 1 })
        }
        Core::Group(branches) => match &branches[..] {
            [only] => sequence(only, shape),
            _ => {
                let mut executions = 0;
                let mut steps = Vec::with_capacity(branches.len());
                for branch in branches {
                    let branch = sequence(branch, shape)?;
                    executions = within_bounds((executions + branch.executions.max(1)) as u128, item.span.clone())?;
                    steps.push(branch.steps);
                }
                Ok(Expanded { steps: vec![Step::Group(steps)], executions })
            }
        },
    }
}

fn block(layer: usize, part: Part) -> Step {
    Step::Block(Execution::of(layer, part))
}

fn within_bounds(executions: u128, span: Range<usize>) -> Result<usize, Fault> {
    if executions > MAX_EXECUTIONS as u128 {
        return Err(Fault::new(span, PlanProblem::TooLarge { executions }));
    }
    Ok(executions as usize)
}

/// A modifier whose units the model has.
fn modifier(change: &Change, shape: &PlanShape) -> Result<Modifier, Fault> {
    let Change { action, site, units, positions, .. } = change;
    let unit =
        |unit: &Number| shape.check_unit(*site, unit.value).map_err(|problem| Fault::new(unit.span.clone(), problem));
    let mut units: Vec<usize> = units.iter().map(unit).collect::<Result<_, _>>()?;
    units.sort_unstable();
    units.dedup();
    Ok(Modifier { action: action.clone(), site: *site, units, positions: positions.clone() })
}

/// Adds a modifier to every execution of `steps`, besides its own.
fn modify(steps: &mut [Step], modifier: &Modifier) -> Result<(), PlanProblem> {
    for step in steps {
        match step {
            Step::Block(execution) => {
                modifier.check(execution.layer, execution.part)?;
                execution.modifiers.push(modifier.clone());
                execution.modifiers = canonical(std::mem::take(&mut execution.modifiers));
            }
            Step::Group(branches) => {
                branches.iter_mut().try_for_each(|branch| modify(branch, modifier))?;
            }
            // Left out, the change would be less than what is written.
            Step::Bridge(_) => return Err(PlanProblem::BridgeChanged),
        }
    }
    Ok(())
}

/// A layer that the model has.
pub(super) fn layer(number: &Number, shape: &PlanShape) -> Result<usize, Fault> {
    shape.check_layer(number.value).map_err(|problem| Fault::new(number.span.clone(), problem))
}

/// The layers of a range, up or down, all of them in the model.
pub(super) fn layers(range: &LayerRange, shape: &PlanShape) -> Result<Layers, Fault> {
    if range.inclusive {
        let (start, end) = (layer(&range.start, shape)?, layer(&range.end, shape)?);
        return Ok(if start <= end {
            Layers { window: start..end + 1, downward: false }
        } else {
            Layers { window: end..start + 1, downward: true }
        });
    }
    // Half-open: the end, and the start of an empty range, may be one past the last layer.
    let bound = |number: &Number| match usize::try_from(number.value) {
        Ok(value) if value <= shape.n_layer => Ok(value),
        _ => {
            let problem = PlanProblem::RangeEnd { end: number.value, n_layer: shape.n_layer };
            Err(Fault::new(number.span.clone(), problem))
        }
    };
    if range.start.value < range.end.value {
        layer(&range.start, shape)?;
    }
    Ok(Layers { window: bound(&range.start)?..bound(&range.end)?, downward: false })
}

/// Consecutive layers, in either direction.
pub(super) struct Layers {
    pub(super) window: Range<usize>,
    downward: bool,
}

impl Iterator for Layers {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.downward { self.window.next_back() } else { self.window.next() }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.window.size_hint()
    }
}

impl ExactSizeIterator for Layers {}
