//! How much the residual stream turns: cosines of its states between steps, and block influence.
//!
//! States are those before the first step and behind each: `n` = steps + 1 of them. Means are over tokens, of all texts alike,
//! with position 0 and without it: where BOS is, states turn otherwise than at all other tokens.

use super::MeasureError;
use crate::forward::{Batch, Session};
use crate::plan::Plan;

/// States that a map holds at most: a bound on memory and time, far above what can be looked at.
pub const MAX_STATES: usize = 1024;

/// Mean cosines of states, before they are divided.
#[derive(Clone, Debug, PartialEq)]
pub struct CosineMap {
    states: usize,
    tokens: u64,
    /// Upper triangle and diagonal by row, the rest 0.
    sums: Vec<f64>,
}

impl CosineMap {
    fn new(states: usize) -> CosineMap {
        CosineMap { states, tokens: 0, sums: vec![0.0; states * states] }
    }

    /// Steps + 1.
    pub fn states(&self) -> usize {
        self.states
    }

    /// Tokens that were averaged over.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The mean cosine of two states; NaN where there was no token, or a state that is 0.
    ///
    /// # Panics
    /// If there are no such states.
    pub fn cosine(&self, a: usize, b: usize) -> f64 {
        assert!(a.max(b) < self.states, "states {a} and {b} of {}", self.states);
        self.sums[a.min(b) * self.states + a.max(b)] / self.tokens as f64
    }

    /// `1 − E cos(h_k, h_{k+1})` of each step k (Men et al. 2024, *ShortGPT*): 0 for a step that changes no direction.
    pub fn block_influence(&self) -> Vec<f64> {
        (1..self.states).map(|step| 1.0 - self.cosine(step - 1, step)).collect()
    }
}

/// The map over all tokens, and that without position 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Similarity {
    /// Over all tokens.
    pub all: CosineMap,
    /// Over all but the first of each text.
    pub without_first: CosineMap,
}

impl Similarity {
    /// For a plan, no text yet.
    ///
    /// # Errors
    /// Where it has too many steps.
    pub fn new(plan: &Plan) -> Result<Similarity, MeasureError> {
        let states = plan.steps().len() + 1;
        if states > MAX_STATES {
            return Err(MeasureError::States { states, limit: MAX_STATES });
        }
        Ok(Similarity { all: CosineMap::new(states), without_first: CosineMap::new(states) })
    }

    /// Adds a text: one pass of `plan`, whose states are held until it ends. Cosines are f64, of f32 states.
    ///
    /// # Errors
    /// Where ids or plan do not fit the model.
    ///
    /// # Panics
    /// If the plan has other steps than the one that it was made for.
    pub fn add(&mut self, session: &mut Session, plan: &Plan, ids: &[u32]) -> Result<(), MeasureError> {
        let n = self.all.states;
        assert_eq!(n, plan.steps().len() + 1, "the plan's states");
        let width = session.model().config().n_embd;
        let batch = Batch::new([ids]);
        let mut states: Vec<Vec<f32>> = Vec::with_capacity(n);
        session.residuals(plan, &batch, |residual| states.push(residual.hidden.to_vec()))?;
        let mut products = vec![0.0; n * n];
        for position in 0..ids.len() {
            let row = |state: usize| &states[state][position * width..(position + 1) * width];
            for a in 0..n {
                for b in a..n {
                    products[a * n + b] = dot(row(a), row(b));
                }
            }
            let squares: Vec<f64> = (0..n).map(|state| products[state * n + state]).collect();
            for map in [Some(&mut self.all), (position > 0).then_some(&mut self.without_first)].into_iter().flatten() {
                map.tokens += 1;
                for a in 0..n {
                    for b in a..n {
                        // The root of the product: equal states have exactly 1.
                        map.sums[a * n + b] += products[a * n + b] / (squares[a] * squares[b]).sqrt();
                    }
                }
            }
        }
        Ok(())
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
