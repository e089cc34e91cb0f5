//! Linear shortcuts under the names that plans have for them: `bridge(6:11,fit)` is `h ← h·A + b`, row by row, with the map
//! from 6 to 11 that is called fit. `A` lies as GPT-2's own matrices do, `[in, out]`.
//!
//! Products are f32, in bf16 sessions too (a map is no weight of the model), and f64 in f64. A map that is exactly the
//! identity does nothing, so that not a bit changes, of −0 and infinity neither.

use super::error::ForwardError;
use super::session::Session;
use crate::plan::{Bridge, Plan, Step};
use lesion_kernels::{Layout, WeightData, WeightMatrix};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// An affine map of residual states: `h·A + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearMap {
    /// `[width, width]`: inputs, outputs.
    weight: Vec<f32>,
    /// `[width]`
    bias: Vec<f32>,
    is_identity: bool,
    content: [u8; 32],
}

/// Why numbers make no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinearMapError {
    /// The matrix is not as long and as wide as the bias.
    #[error("{weight} weights and {bias} biases: a map of n elements has n · n and n, n being at least 1")]
    Shape {
        /// Elements of the matrix.
        weight: usize,
        /// Elements of the bias.
        bias: usize,
    },
    /// NaN or infinity.
    #[error("{count} of its numbers are NaN or infinite")]
    NotFinite {
        /// How many.
        count: usize,
    },
}

impl LinearMap {
    /// A map of `weight`, `[inputs, outputs]` row-major, and `bias`.
    ///
    /// # Errors
    /// Where the lengths don't fit together, or a number is not finite.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>) -> Result<LinearMap, LinearMapError> {
        if bias.is_empty() || bias.len().checked_mul(bias.len()) != Some(weight.len()) {
            return Err(LinearMapError::Shape { weight: weight.len(), bias: bias.len() });
        }
        match weight.iter().chain(&bias).filter(|x| !x.is_finite()).count() {
            0 => Ok(LinearMap::finite(weight, bias)),
            count => Err(LinearMapError::NotFinite { count }),
        }
    }

    /// The map that changes nothing.
    pub fn identity(width: usize) -> LinearMap {
        let mut weight = vec![0.0; width * width];
        weight.iter_mut().step_by(width + 1).for_each(|diagonal| *diagonal = 1.0);
        LinearMap::finite(weight, vec![0.0; width])
    }

    fn finite(weight: Vec<f32>, bias: Vec<f32>) -> LinearMap {
        let width = bias.len();
        let diagonal = |i: usize| if i.is_multiple_of(width + 1) { 1.0 } else { 0.0 };
        let is_identity = weight.iter().enumerate().all(|(i, w)| *w == diagonal(i)) && bias.iter().all(|b| *b == 0.0);
        let mut hash = Sha256::new();
        hash.update((width as u64).to_le_bytes());
        weight.iter().chain(&bias).for_each(|x| hash.update(x.to_bits().to_le_bytes()));
        LinearMap { weight, bias, is_identity, content: hash.finalize().into() }
    }

    /// Elements of a state.
    pub fn width(&self) -> usize {
        self.bias.len()
    }

    /// `A`, `[width, width]`: inputs, outputs.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// `b`, `[width]`.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// SHA-256 of its numbers: what keys of results hash.
    pub fn content(&self) -> [u8; 32] {
        self.content
    }

    /// Whether it changes nothing.
    pub fn is_identity(&self) -> bool {
        self.is_identity
    }

    pub(super) fn matrix(&self) -> WeightMatrix<'_> {
        WeightMatrix::new(WeightData::F32(&self.weight), self.width(), self.width(), Layout::InOut)
    }
}

/// The maps of one name, by the layers that they lead from and to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shortcuts {
    maps: BTreeMap<(usize, usize), Arc<LinearMap>>,
}

impl Shortcuts {
    /// Adds a map; what led from and to these layers before goes.
    pub fn insert(&mut self, from: usize, to: usize, map: LinearMap) {
        self.maps.insert((from, to), Arc::new(map));
    }

    /// The map from one layer's input to another's.
    pub fn get(&self, from: usize, to: usize) -> Option<&Arc<LinearMap>> {
        self.maps.get(&(from, to))
    }

    /// All of them with their ends, in order.
    pub fn iter(&self) -> impl Iterator<Item = ((usize, usize), &LinearMap)> {
        self.maps.iter().map(|(ends, map)| (*ends, map.as_ref()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }
}

/// Shortcuts by the names that plans have for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bridges {
    named: BTreeMap<String, Arc<Shortcuts>>,
}

impl Bridges {
    /// None.
    pub const NONE: Bridges = Bridges { named: BTreeMap::new() };

    /// Names shortcuts; what had the name before goes.
    pub fn insert(&mut self, name: impl Into<String>, shortcuts: Arc<Shortcuts>) {
        self.named.insert(name.into(), shortcuts);
    }

    /// What has this name.
    pub fn get(&self, name: &str) -> Option<&Shortcuts> {
        self.named.get(name).map(Arc::as_ref)
    }

    /// The map that a plan's bridge means.
    pub(super) fn find(&self, bridge: &Bridge) -> Option<&Arc<LinearMap>> {
        self.get(&bridge.name)?.get(bridge.from, bridge.to)
    }

    /// The plan with the content of each bridge, as keys of results need it: another file under the same name is another plan.
    ///
    /// # Errors
    /// Where a bridge is not found, or the plan names another content.
    pub fn bind(&self, plan: &Plan) -> Result<Plan, ForwardError> {
        plan.with_contents(|bridge| self.known(bridge).map(|map| map.content()))
    }

    fn known(&self, bridge: &Bridge) -> Result<&LinearMap, ForwardError> {
        let Bridge { from, to, name, .. } = bridge;
        let fault = |why: String| ForwardError::Bridge { bridge: Box::new(bridge.clone()), why };
        let Some(shortcuts) = self.get(name) else { return Err(fault(format!("there is no bridge {name}"))) };
        let Some(map) = shortcuts.get(*from, *to) else {
            let there: Vec<String> = shortcuts.maps.keys().map(|(from, to)| format!("{from}:{to}")).collect();
            return Err(fault(format!("{name} has no map from {from} to {to}, but {}", there.join(", "))));
        };
        match bridge.content.is_some_and(|content| content != map.content) {
            true => Err(fault("the plan was made for other numbers under this name".to_owned())),
            false => Ok(map),
        }
    }

    /// Bytes of all maps.
    pub fn bytes(&self) -> usize {
        let maps = self.named.values().flat_map(|shortcuts| shortcuts.maps.values());
        maps.map(|map| (map.weight.len() + map.bias.len()) * size_of::<f32>()).sum()
    }

    /// Checks that the bridges of a plan are there, and fit a model of this width. Allocates nothing where they do.
    pub(super) fn check(&self, plan: &Plan, width: usize) -> Result<(), ForwardError> {
        self.check_steps(plan.steps(), width)
    }

    fn check_steps(&self, steps: &[Step], width: usize) -> Result<(), ForwardError> {
        steps.iter().try_for_each(|step| match step {
            Step::Block(_) => Ok(()),
            Step::Group(branches) => branches.iter().try_for_each(|branch| self.check_steps(branch, width)),
            Step::Bridge(bridge) => {
                let map = self.known(bridge)?;
                if map.width() != width {
                    let why = format!("its map is {} wide, the model {width}", map.width());
                    return Err(ForwardError::Bridge { bridge: Box::new(bridge.clone()), why });
                }
                Ok(())
            }
        })
    }
}

impl Session {
    /// Sets what plans' bridges find by name.
    pub fn set_bridges(&mut self, bridges: Bridges) {
        self.bridges = bridges;
    }

    /// What plans' bridges find by name.
    pub fn bridges(&self) -> &Bridges {
        &self.bridges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_map_are_refused() {
        assert_eq!(LinearMap::new(vec![], vec![]), Err(LinearMapError::Shape { weight: 0, bias: 0 }));
        assert_eq!(LinearMap::new(vec![1.0; 6], vec![0.0; 2]), Err(LinearMapError::Shape { weight: 6, bias: 2 }));
        let bad = LinearMap::new(vec![f32::NAN, 0.0, f32::INFINITY, 1.0], vec![0.0; 2]);
        assert_eq!(bad, Err(LinearMapError::NotFinite { count: 2 }));
        assert_eq!(bad.unwrap_err().to_string(), "2 of its numbers are NaN or infinite");
    }

    #[test]
    fn the_identity_is_known_however_it_comes() {
        let identity = LinearMap::identity(2);
        let same = LinearMap::new(vec![1.0, 0.0, -0.0, 1.0], vec![0.0; 2]).unwrap();
        assert!(identity.is_identity() && same.is_identity());
        let other = LinearMap::new(vec![1.0, 0.0, 1e-30, 1.0], vec![0.0; 2]).unwrap();
        assert!(!other.is_identity());
        let contents = [&identity, &same, &other].map(LinearMap::content);
        assert!(contents[0] != contents[1] && contents[1] != contents[2], "equal bits alone have equal contents");
    }
}
