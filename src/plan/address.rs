//! The addresses of executions: where in a plan each block runs. Repetitions are unrolled before numbering, so every
//! execution has an address of its own; caches, taps and patches belong to it.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Execution, Plan, Step};

/// A place in a plan, printed and read as `steps.4.2`.
///
/// `steps.4` is the fifth step. `steps.4.2` is the third branch of the group at step 4. Deeper, step and branch
/// alternate, and a branch of exactly one step leaves that step's index out:
///
/// | plan | the executions' addresses |
/// |---|---|
/// | `0,(4\|5)` | `steps.0` `steps.1.0` `steps.1.1` |
/// | `0,(4,5\|6)` | `steps.0` `steps.1.0.0` `steps.1.0.1` `steps.1.1` |
/// | `((4\|5)\|6)` | `steps.0.0.0` `steps.0.0.1` `steps.0.1` |
/// | `((4\|5),7\|6)` | `steps.0.0.0.0` `steps.0.0.0.1` `steps.0.0.1` `steps.0.1` |
///
/// An alias names the layer instead (see [`Plan::locate`]): `blocks.5@1` is the second execution of any part of layer
/// 5, and `blocks.5` the only one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    path: Vec<usize>,
}

/// An execution and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<'a> {
    /// Its number among all executions of the plan, from 0.
    pub index: usize,
    /// Its address.
    pub address: Address,
    /// How many executions of any part of the same layer come before it.
    pub occurrence: usize,
    /// What runs.
    pub execution: &'a Execution,
}

impl Placed<'_> {
    /// The alias of its address: `blocks.5@1`.
    pub fn alias(&self) -> String {
        format!("blocks.{}@{}", self.execution.layer, self.occurrence)
    }
}

/// What leads to an execution: its address, or an alias.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExecutionName {
    /// `blocks.5`: the only one of the layer.
    Layer(usize),
    /// `blocks.5@1`: of a layer, behind so many others of it.
    Occurrence(usize, usize),
    /// `steps.4.2`
    Address(Address),
}

impl fmt::Display for ExecutionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecutionName::Layer(layer) => write!(f, "blocks.{layer}"),
            ExecutionName::Occurrence(layer, occurrence) => write!(f, "blocks.{layer}@{occurrence}"),
            ExecutionName::Address(address) => address.fmt(f),
        }
    }
}

impl FromStr for ExecutionName {
    type Err = AddressError;

    fn from_str(name: &str) -> Result<ExecutionName, AddressError> {
        let Some(block) = name.strip_prefix("blocks.") else { return Ok(ExecutionName::Address(name.parse()?)) };
        let found = match block.split_once('@') {
            Some((layer, occurrence)) => {
                number(layer).zip(number(occurrence)).map(|(layer, at)| ExecutionName::Occurrence(layer, at))
            }
            None => number(block).map(ExecutionName::Layer),
        };
        found.ok_or_else(|| AddressError::Syntax(name.to_owned()))
    }
}

/// A name that does not lead to one execution.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is not written like an address.
    #[error("address {0:?}: expected steps.K, steps.K.B, blocks.L or blocks.L@N")]
    Syntax(String),
    /// The plan has no execution there.
    #[error("address {name:?}: no execution has it, of the plan's {executions}")]
    Nowhere {
        /// The name given.
        name: String,
        /// Executions of the plan.
        executions: usize,
    },
    /// A bare `blocks.L` where the layer runs more than once.
    #[error("address blocks.{layer}: layer {layer} runs {times} times: blocks.{layer}@0..=blocks.{layer}@{}", times - 1)]
    Ambiguous {
        /// The layer.
        layer: usize,
        /// How often it runs.
        times: usize,
    },
}

impl Address {
    pub(super) fn new(path: Vec<usize>) -> Address {
        Address { path }
    }

    /// The numbers of the address: step, branch, step, branch, …
    pub fn path(&self) -> &[usize] {
        &self.path
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("steps")?;
        self.path.iter().try_for_each(|number| write!(f, ".{number}"))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let path: Option<Vec<usize>> =
            text.strip_prefix("steps.").and_then(|numbers| numbers.split('.').map(number).collect());
        path.map(Address::new).ok_or_else(|| AddressError::Syntax(text.to_owned()))
    }
}

/// Digits only: `usize::from_str` would take a sign.
fn number(text: &str) -> Option<usize> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl Plan {
    /// All executions in the order in which they run, branches of a group one after the other.
    pub fn executions(&self) -> impl Iterator<Item = Placed<'_>> {
        let mut walk = Walk { path: Vec::new(), occurrences: HashMap::new(), placed: Vec::new() };
        walk.sequence(self.steps(), true);
        walk.placed.into_iter()
    }

    /// The execution that `name` names: `steps.4.2`, `blocks.5@1`, or `blocks.5` where layer 5 runs once.
    ///
    /// # Errors
    /// A name that is no address, that leads nowhere in this plan, or a bare `blocks.5` where layer 5 runs twice.
    pub fn locate(&self, name: &str) -> Result<Placed<'_>, AddressError> {
        self.find(&name.parse()?)
    }

    /// The same for a name that has been read.
    ///
    /// # Errors
    /// Where it leads nowhere, or the layer of a bare one runs twice.
    pub fn find(&self, name: &ExecutionName) -> Result<Placed<'_>, AddressError> {
        let nowhere = || AddressError::Nowhere { name: name.to_string(), executions: self.executions().count() };
        let of = |layer: usize| self.executions().filter(move |placed| placed.execution.layer == layer);
        match name {
            ExecutionName::Address(address) => {
                self.executions().find(|placed| placed.address == *address).ok_or_else(nowhere)
            }
            ExecutionName::Occurrence(layer, occurrence) => of(*layer).nth(*occurrence).ok_or_else(nowhere),
            ExecutionName::Layer(layer) => {
                let mut runs = of(*layer);
                let only = runs.next().ok_or_else(nowhere)?;
                match runs.count() {
                    0 => Ok(only),
                    more => Err(AddressError::Ambiguous { layer: *layer, times: more + 1 }),
                }
            }
        }
    }
}

struct Walk<'a> {
    path: Vec<usize>,
    /// Executions so far, by layer.
    occurrences: HashMap<usize, usize>,
    placed: Vec<Placed<'a>>,
}

impl<'a> Walk<'a> {
    fn sequence(&mut self, steps: &'a [Step], top: bool) {
        for (index, step) in steps.iter().enumerate() {
            let numbered = top || steps.len() > 1;
            if numbered {
                self.path.push(index);
            }
            match step {
                Step::Block(execution) => {
                    let occurrences = self.occurrences.entry(execution.layer).or_default();
                    let address = Address::new(self.path.clone());
                    self.placed.push(Placed { index: self.placed.len(), address, occurrence: *occurrences, execution });
                    *occurrences += 1;
                }
                Step::Group(branches) => {
                    for (branch, steps) in branches.iter().enumerate() {
                        self.path.push(branch);
                        self.sequence(steps, false);
                        self.path.pop();
                    }
                }
                // A step, and no execution: nothing runs that a modifier or a watcher could look into.
                Step::Bridge(_) => {}
            }
            if numbered {
                self.path.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        plan(text).executions().map(|placed| placed.address.to_string()).collect()
    }

    #[test]
    fn addresses_of_groups() {
        assert_eq!(addresses("0,(4|5)"), ["steps.0", "steps.1.0", "steps.1.1"]);
        assert_eq!(addresses("0,(4,5|6)"), ["steps.0", "steps.1.0.0", "steps.1.0.1", "steps.1.1"]);
        assert_eq!(addresses("((4|5)|6)"), ["steps.0.0.0", "steps.0.0.1", "steps.0.1"]);
        assert_eq!(addresses("((4|5),7|6)"), ["steps.0.0.0.0", "steps.0.0.0.1", "steps.0.0.1", "steps.0.1"]);
        // The identity branch runs nothing, but counts as a branch.
        assert_eq!(addresses("(none|5)"), ["steps.0.1"]);
        // Loops are unrolled first.
        assert_eq!(addresses("(4|5)*2,7"), ["steps.0.0", "steps.0.1", "steps.1.0", "steps.1.1", "steps.2"]);
        assert_eq!(addresses("(4|5|6)")[2], "steps.0.2");
        assert!(addresses("none").is_empty());
    }

    #[test]
    fn occurrences_count_any_part_of_the_layer() {
        let plan = plan("3,(3a|5)*2,3m");
        let aliases: Vec<_> = plan.executions().map(|placed| placed.alias()).collect();
        assert_eq!(aliases, ["blocks.3@0", "blocks.3@1", "blocks.5@0", "blocks.3@2", "blocks.5@1", "blocks.3@3"]);
        assert!(plan.executions().enumerate().all(|(index, placed)| placed.index == index));
    }

    #[test]
    fn locate_by_either_name() {
        let plan = plan("0..4,3,((4|5)|6)");
        for placed in plan.executions() {
            assert_eq!(plan.locate(&placed.address.to_string()).unwrap(), placed);
            assert_eq!(plan.locate(&placed.alias()).unwrap(), placed);
        }
        assert_eq!(plan.locate("blocks.5").unwrap().address.path(), [5, 0, 1]);
        assert_eq!(
            plan.locate("blocks.3").unwrap_err().to_string(),
            "address blocks.3: layer 3 runs 2 times: blocks.3@0..=blocks.3@1"
        );
        for name in ["steps.9", "steps.5", "steps.5.0", "blocks.3@2", "blocks.7", "blocks.7@0"] {
            assert!(matches!(plan.locate(name), Err(AddressError::Nowhere { executions: 8, .. })), "{name}");
        }
        let huge = format!("steps.{}", "9".repeat(40));
        for name in
            ["", "steps", "steps.", "steps.1.", "steps.+1", "step.1", "blocks.", "blocks.3@", "blocks.@1", "5", &huge]
        {
            assert!(matches!(plan.locate(name), Err(AddressError::Syntax(_))), "{name}");
        }
    }
}
