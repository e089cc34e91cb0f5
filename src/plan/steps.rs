//! A plan as explicit steps: what the forward pass walks over. No text and no tensors here.

use super::error::{PlanProblem, StepError};
use super::modifier::{canonical, is_name};
use super::{Address, Cost, Modifier, PlanShape};

/// Block executions that a plan holds at most (an empty branch counts as one, and so does a bridge): a bound on memory,
/// far above any real plan. Larger ones are refused before they are expanded.
pub const MAX_EXECUTIONS: usize = 65_536;

/// How deep groups nest at most. A bound on the stack of everything that walks a plan, and low enough that a plan of
/// that depth stays within the 128 levels at which `serde_json` stops reading (a group takes three).
pub const MAX_DEPTH: usize = 32;

/// Steps in execution order. Explicit and canonical: repetitions are unrolled, a group has two branches or more,
/// modifiers are in the order of their sites. Equal plans are equal values, with equal hashes, text and JSON.
///
/// `Display` prints the canonical notation; serde writes and reads the steps (see [`Step`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plan {
    steps: Vec<Step>,
}

/// One step of a plan.
///
/// As JSON: `{"layer":4}`, `{"layer":4,"part":"attention"}`, `{"branches":[[{"layer":4}],[{"layer":5}]]}`,
/// `{"bridge":"fit","from":6,"to":11}`; with modifiers, `{"layer":7,"modifiers":[{"verb":"zero","site":"z","units":[3,5]}]}`
/// (see [`Modifier`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// A block, or half of one, runs.
    Block(Execution),
    /// Branches that start from the same state and whose updates are averaged: `h ← h + mean_b(branch_b(h) − h)`.
    /// An empty branch is the identity. There are two branches or more.
    Group(Vec<Vec<Step>>),
    /// A linear shortcut: `h ← h·A + b`, row by row.
    Bridge(Bridge),
}

/// A linear shortcut that was fitted to lead from the residual stream before layer `from` to that before layer `to`
/// (the model's number of layers: the final state). Its numbers are found by name when the plan runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bridge {
    /// The layer that would have come next.
    pub from: usize,
    /// The layer that comes next instead: `from` or a later one, or the number of layers.
    pub to: usize,
    /// What the map is called.
    pub name: String,
    /// SHA-256 of its numbers, once it is known which they are: keys of results hash it. A plan that was written as text
    /// has none, and its own text says nothing of it.
    pub content: Option<[u8; 32]>,
}

/// One execution of a block or of half of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Execution {
    /// The layer, from 0.
    pub layer: usize,
    /// The whole block, or which half.
    pub part: Part,
    /// What is changed inside, in the order of the sites.
    pub modifiers: Vec<Modifier>,
}

/// What of a block runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Both halves, attention first.
    Block,
    /// `h ← h + attn(ln_1(h))`
    Attention,
    /// `h ← h + mlp(ln_2(h))`
    Mlp,
}

impl Execution {
    /// The whole block of a layer, nothing changed.
    pub fn block(layer: usize) -> Execution {
        Execution::of(layer, Part::Block)
    }

    /// A block or half of one, nothing changed.
    pub fn of(layer: usize, part: Part) -> Execution {
        Execution { layer, part, modifiers: Vec::new() }
    }
}

impl Plan {
    /// The model as it was trained: layers `0..n_layer`, once each.
    pub fn intact(n_layer: usize) -> Plan {
        Plan { steps: (0..n_layer).map(Execution::block).map(Step::Block).collect() }
    }

    /// The plan without steps: the embedding goes straight to the final LayerNorm.
    pub fn none() -> Plan {
        Plan { steps: Vec::new() }
    }

    /// A plan of these steps.
    ///
    /// # Errors
    /// Where they are not canonical (fewer than two branches; modifiers out of order, or of sites that do not run), more than
    /// [`MAX_EXECUTIONS`] or nested deeper than [`MAX_DEPTH`]. Layers and heads are checked by
    /// [`Plan::validate`].
    pub fn new(steps: Vec<Step>) -> Result<Plan, StepError> {
        let mut path = Vec::new();
        let executions = check_sequence(&steps, &mut path, 0)?;
        if executions > MAX_EXECUTIONS {
            let problem = PlanProblem::TooLarge { executions: executions as u128 };
            return Err(StepError { address: Address::new(Vec::new()), problem });
        }
        Ok(Plan { steps })
    }

    /// Whole blocks in this order.
    ///
    /// # Errors
    /// More than [`MAX_EXECUTIONS`] layers.
    pub fn from_layers(layers: impl IntoIterator<Item = usize>) -> Result<Plan, StepError> {
        Plan::new(layers.into_iter().map(Execution::block).map(Step::Block).collect())
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether one of its modifiers is such.
    pub fn any_modifier(&self, is_such: impl Fn(&Modifier) -> bool) -> bool {
        fn any(steps: &[Step], is_such: &dyn Fn(&Modifier) -> bool) -> bool {
            steps.iter().any(|step| match step {
                Step::Block(execution) => execution.modifiers.iter().any(is_such),
                Step::Group(branches) => branches.iter().any(|branch| any(branch, is_such)),
                Step::Bridge(_) => false,
            })
        }
        any(&self.steps, &is_such)
    }

    /// The same plan without the modifiers of some positions alone, before the first of which both are the same; none where it
    /// has none.
    pub(crate) fn before_positions(&self) -> Option<Plan> {
        fn strip(steps: &mut [Step]) {
            for step in steps {
                match step {
                    Step::Block(execution) => execution.modifiers.retain(|modifier| modifier.positions.is_none()),
                    Step::Group(branches) => branches.iter_mut().for_each(|branch| strip(branch)),
                    Step::Bridge(_) => {}
                }
            }
        }
        let mut steps = self.steps.clone();
        strip(&mut steps);
        self.any_modifier(|modifier| modifier.positions.is_some()).then_some(Plan { steps })
    }

    /// The same plan with more changes inside: of each pair, which execution ([`super::Placed::index`]) and what is done there,
    /// behind what it has at the same site.
    ///
    /// # Errors
    /// Where the execution does not pass the site, or the change can't be done there.
    ///
    /// # Panics
    /// If there is no such execution.
    pub fn with_modifiers(&self, added: &[(usize, Modifier)]) -> Result<Plan, StepError> {
        let mut steps = self.steps.clone();
        let executions = modify(&mut steps, 0, added);
        let most = added.iter().map(|(index, _)| *index).max();
        assert!(most < Some(executions), "execution {most:?} of {executions}");
        Plan::new(steps)
    }

    /// Its bridges, in the order in which they are crossed.
    pub fn bridges(&self) -> impl Iterator<Item = &Bridge> {
        fn add<'a>(steps: &'a [Step], bridges: &mut Vec<&'a Bridge>) {
            for step in steps {
                match step {
                    Step::Block(_) => {}
                    Step::Group(branches) => branches.iter().for_each(|branch| add(branch, bridges)),
                    Step::Bridge(bridge) => bridges.push(bridge),
                }
            }
        }
        let mut bridges = Vec::new();
        add(&self.steps, &mut bridges);
        bridges.into_iter()
    }

    /// The same plan with each bridge's content as `content` knows it.
    ///
    /// # Errors
    /// What `content` refuses.
    pub fn with_contents<E>(&self, content: impl Fn(&Bridge) -> Result<[u8; 32], E>) -> Result<Plan, E> {
        fn set<E>(steps: &mut [Step], content: &dyn Fn(&Bridge) -> Result<[u8; 32], E>) -> Result<(), E> {
            steps.iter_mut().try_for_each(|step| match step {
                Step::Block(_) => Ok(()),
                Step::Group(branches) => branches.iter_mut().try_for_each(|branch| set(branch, content)),
                Step::Bridge(bridge) => {
                    bridge.content = Some(content(bridge)?);
                    Ok(())
                }
            })
        }
        let mut plan = self.clone();
        set(&mut plan.steps, &content)?;
        Ok(plan)
    }

    /// What one pass over the plan costs.
    pub fn cost(&self) -> Cost {
        let blocks: Cost = self.executions().map(|placed| Cost::of(placed.execution.part)).sum();
        blocks + self.bridges().map(|_| Cost::BRIDGE).sum()
    }

    /// Checks the layers and heads that the plan names against a model.
    ///
    /// A plan from [`PlanExpr::resolve`](super::PlanExpr::resolve) fits the shape it was resolved for; one from JSON
    /// or for another model may not.
    ///
    /// # Errors
    /// The first execution whose layer or head the model does not have, with its address; then the first bridge to or from
    /// a layer that it doesn't have.
    pub fn validate(&self, shape: &PlanShape) -> Result<(), StepError> {
        // Addresses take memory, and every pass asks.
        if fit(&self.steps, shape) {
            return Ok(());
        }
        for placed in self.executions() {
            if let Err(problem) = placed.execution.fits(shape) {
                return Err(StepError { address: placed.address, problem });
            }
        }
        let mut path = Vec::new();
        check_bridges(&self.steps, shape, &mut path, true)
    }

    /// For the room's own use: steps that are canonical and within bounds by construction.
    pub(super) fn from_canonical(steps: Vec<Step>) -> Plan {
        Plan { steps }
    }
}

impl Execution {
    fn fits(&self, shape: &PlanShape) -> Result<(), PlanProblem> {
        shape.check_layer(self.layer as u64)?;
        self.modifiers.iter().try_for_each(|modifier| modifier.fits(shape))
    }

    fn check(&self) -> Result<(), PlanProblem> {
        self.modifiers.iter().try_for_each(|modifier| modifier.check(self.layer, self.part))?;
        if canonical(self.modifiers.clone()) != self.modifiers {
            return Err(PlanProblem::ModifierOrder { layer: self.layer });
        }
        Ok(())
    }
}

impl Bridge {
    /// Whether it could be one of some model.
    pub(super) fn check(&self) -> Result<(), PlanProblem> {
        if !is_name(&self.name) {
            return Err(PlanProblem::BridgeName { name: self.name.clone() });
        }
        match self.from <= self.to {
            true => Ok(()),
            false => Err(PlanProblem::BridgeBackwards { from: self.from as u64, to: self.to as u64 }),
        }
    }

    fn fits(&self, shape: &PlanShape) -> Result<(), PlanProblem> {
        match self.to <= shape.n_layer {
            true => Ok(()),
            false => Err(PlanProblem::BridgeEnd { to: self.to as u64, n_layer: shape.n_layer }),
        }
    }
}

/// The first bridge that does not fit a model. `path`: the address of the sequence.
fn check_bridges(steps: &[Step], shape: &PlanShape, path: &mut Vec<usize>, top: bool) -> Result<(), StepError> {
    for (index, step) in steps.iter().enumerate() {
        let numbered = top || steps.len() > 1;
        if numbered {
            path.push(index);
        }
        match step {
            Step::Block(_) => {}
            Step::Bridge(bridge) => {
                bridge.fits(shape).map_err(|problem| StepError { address: Address::new(path.clone()), problem })?;
            }
            Step::Group(branches) => {
                for (branch, steps) in branches.iter().enumerate() {
                    path.push(branch);
                    check_bridges(steps, shape, path, false)?;
                    path.pop();
                }
            }
        }
        if numbered {
            path.pop();
        }
    }
    Ok(())
}

/// Adds changes to the executions in `steps`, which are numbered from `first` on; the number behind them.
fn modify(steps: &mut [Step], first: usize, added: &[(usize, Modifier)]) -> usize {
    steps.iter_mut().fold(first, |index, step| match step {
        Step::Block(execution) => {
            let own = added.iter().filter(|(of, _)| *of == index).map(|(_, modifier)| modifier.clone());
            execution.modifiers.extend(own);
            // Stable: at one site, the order in which they were given.
            execution.modifiers.sort_by_key(|modifier| modifier.site);
            index + 1
        }
        Step::Group(branches) => branches.iter_mut().fold(index, |index, branch| modify(branch, index, added)),
        Step::Bridge(_) => index,
    })
}

fn fit(steps: &[Step], shape: &PlanShape) -> bool {
    steps.iter().all(|step| match step {
        Step::Block(execution) => execution.fits(shape).is_ok(),
        Step::Group(branches) => branches.iter().all(|branch| fit(branch, shape)),
        Step::Bridge(bridge) => bridge.fits(shape).is_ok(),
    })
}

/// The number of executions in canonical steps. `path`: the address of the sequence.
fn check_sequence(steps: &[Step], path: &mut Vec<usize>, depth: usize) -> Result<usize, StepError> {
    let mut executions = 0;
    for (index, step) in steps.iter().enumerate() {
        // As in `Address`: a branch of one step leaves that step's index out.
        let numbered = depth == 0 || steps.len() > 1;
        if numbered {
            path.push(index);
        }
        let fault = |problem| StepError { address: Address::new(path.clone()), problem };
        match step {
            Step::Block(execution) => {
                execution.check().map_err(fault)?;
                executions += 1;
            }
            Step::Bridge(bridge) => {
                bridge.check().map_err(fault)?;
                executions += 1;
            }
            Step::Group(_) if depth == MAX_DEPTH => return Err(fault(PlanProblem::TooDeep)),
            Step::Group(branches) if branches.len() < 2 => {
                return Err(fault(PlanProblem::FewBranches { branches: branches.len() }));
            }
            Step::Group(branches) => {
                for (branch, steps) in branches.iter().enumerate() {
                    path.push(branch);
                    executions += check_sequence(steps, path, depth + 1)?.max(1);
                    path.pop();
                }
            }
        }
        if numbered {
            path.pop();
        }
    }
    Ok(executions)
}
