//! Linear shortcuts by ridge regression in closed form (Hoerl and Kennard 1970; between layers: Din et al. 2023).
//!
//! With x and y the states at the inputs of two layers, T rows of them, x̄ and ȳ their means and C the covariance of x,
//!
//! ```text
//! A = (XᵀX − T x̄ x̄ᵀ + λ T v I)⁻¹ (XᵀY − T x̄ ȳᵀ)        b = ȳ − x̄ A        v = tr(C) / n
//! ```
//!
//! minimises `Σ ‖x A + b − y‖² + λ T v ‖A‖²`. λ is a share of the mean variance of an element of x, so that it means the same
//! for any model and any number of rows; b is not penalised. The moments are f64 and grow by a group of samples at a time,
//! whatever the length of the text; the system is solved by Cholesky's decomposition.

use super::BridgeError;
use super::products::add_outer;
use super::samples::Sample;
use super::states::{states, widened};
use crate::forward::{LinearMap, Session, Shortcuts, plain_threads};
use crate::plan::Plan;
use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use std::collections::BTreeMap;

/// Moments of states at the inputs of layers, from which maps follow.
pub struct RidgeFit {
    pool: rayon::ThreadPool,
    intact: Plan,
    width: usize,
    pairs: Vec<(usize, usize)>,
    /// The layers that they lead from or to, ascending.
    layers: Vec<usize>,
    rows: u64,
    /// By layer, `Σ x`.
    sums: BTreeMap<usize, Vec<f64>>,
    /// By the layer that a map leads from, `Σ xᵀ x`.
    gram: BTreeMap<usize, Vec<f64>>,
    /// By pair, `Σ xᵀ y`.
    cross: BTreeMap<(usize, usize), Vec<f64>>,
}

impl RidgeFit {
    /// For maps between these layers of the session's model.
    ///
    /// # Errors
    /// Where there are none, or the model does not have them.
    pub fn new(session: &Session, pairs: &[(usize, usize)]) -> Result<RidgeFit, BridgeError> {
        let (n_layer, width) = (session.model().config().n_layer, session.model().config().n_embd);
        let mut pairs = pairs.to_vec();
        pairs.sort_unstable();
        pairs.dedup();
        if pairs.is_empty() {
            return Err(BridgeError::Nothing { what: "pairs of layers" });
        }
        if let Some(&(from, to)) = pairs.iter().find(|(from, to)| from > to || *to > n_layer) {
            return Err(BridgeError::Pair { from, to, n_layer });
        }
        let mut layers: Vec<usize> = pairs.iter().flat_map(|(from, to)| [*from, *to]).collect();
        layers.sort_unstable();
        layers.dedup();
        let zeros = |len: usize| vec![0.0; len];
        Ok(RidgeFit {
            pool: plain_threads(session.threads()).map_err(crate::forward::ForwardError::from)?,
            intact: Plan::intact(n_layer),
            width,
            rows: 0,
            sums: layers.iter().map(|&layer| (layer, zeros(width))).collect(),
            gram: pairs.iter().map(|&(from, _)| (from, zeros(width * width))).collect(),
            cross: pairs.iter().map(|&pair| (pair, zeros(width * width))).collect(),
            pairs,
            layers,
        })
    }

    /// Bytes that the moments of so many pairs take at most, and their solution beside them.
    pub fn bytes(width: usize, pairs: usize) -> usize {
        // A gram matrix and a cross moment each, and a system with its right side.
        [width, width, 2 * pairs + 4, size_of::<f64>()].into_iter().fold(1, usize::saturating_mul)
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds the states of some samples.
    ///
    /// # Errors
    /// Where a sample does not fit the model.
    pub fn add(&mut self, session: &mut Session, samples: &[Sample]) -> Result<(), BridgeError> {
        let found = states(session, &self.intact, samples, &self.layers)?;
        let RidgeFit { pool, width, rows, sums, gram, cross, .. } = self;
        let width = *width;
        let found: BTreeMap<usize, Vec<f64>> = found.iter().map(|(&layer, x)| (layer, widened(x))).collect();
        *rows += samples.iter().map(|sample| sample.rows.len() as u64).sum::<u64>();
        for (layer, sum) in sums {
            for row in found[layer].chunks_exact(width) {
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
        pool.install(|| {
            for (from, gram) in gram {
                add_outer(&found[from], width, &found[from], width, gram);
            }
            for ((from, to), cross) in cross {
                add_outer(&found[from], width, &found[to], width, cross);
            }
        });
        Ok(())
    }

    /// The maps with a penalty of `lambda`, 0 or more.
    ///
    /// # Errors
    /// Where there are no rows, or too few to determine a map, or states were not finite.
    pub fn solve(&self, lambda: f64) -> Result<Shortcuts, BridgeError> {
        if !(lambda >= 0.0 && lambda.is_finite()) {
            return Err(BridgeError::Setting { setting: "ridge", value: lambda, range: "0 or more" });
        }
        if self.rows == 0 {
            return Err(BridgeError::Nothing { what: "rows of text" });
        }
        let mut shortcuts = Shortcuts::default();
        for &(from, to) in &self.pairs {
            let (weight, bias) =
                self.map(from, to, lambda).ok_or(BridgeError::Singular { from, to, rows: self.rows, lambda })?;
            let map = LinearMap::new(weight, bias).map_err(|source| BridgeError::Map { from, to, source })?;
            shortcuts.insert(from, to, map);
        }
        Ok(shortcuts)
    }

    /// The weights and biases; none where the system is singular.
    fn map(&self, from: usize, to: usize, lambda: f64) -> Option<(Vec<f32>, Vec<f32>)> {
        let (n, rows) = (self.width, self.rows as f64);
        // Rounding would hide that fewer rows than columns determine nothing.
        if lambda == 0.0 && self.rows <= n as u64 {
            return None;
        }
        let (sum_x, sum_y) = (&self.sums[&from], &self.sums[&to]);
        let (gram, cross) = (&self.gram[&from], &self.cross[&(from, to)]);
        let mut system = Mat::from_fn(n, n, |i, j| gram[i * n + j] - sum_x[i] * sum_x[j] / rows);
        let penalty = lambda * (0..n).map(|i| system[(i, i)]).sum::<f64>() / n as f64;
        (0..n).for_each(|i| system[(i, i)] += penalty);
        let right = Mat::from_fn(n, n, |i, j| cross[i * n + j] - sum_x[i] * sum_y[j] / rows);
        let solved = system.llt(Side::Lower).ok()?.solve(&right);
        let bias = (0..n).map(|j| (sum_y[j] - (0..n).map(|i| sum_x[i] * solved[(i, j)]).sum::<f64>()) / rows);
        let weight = (0..n * n).map(|at| solved[(at / n, at % n)] as f32).collect();
        Some((weight, bias.map(|b| b as f32).collect()))
    }
}
