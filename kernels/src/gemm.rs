//! Matrix product with a weight matrix: `out = epilogue(a · b)`.
//!
//! `a` is f32, row-major `[m, k]`; `b` stays in its file's type. Every output element sums over k in
//! one fixed order, so a row of the result depends neither on m, nor on the other rows, nor on the threads.

use crate::WeightData;

/// How a weight matrix of `k` inputs and `n` outputs lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[k, n]` row-major: GPT-2's `Conv1D` weights.
    InOut,
    /// `[n, k]` row-major: `wte` used as the unembedding.
    OutIn,
}

/// A weight matrix of `k` inputs and `n` outputs.
#[derive(Clone, Copy, Debug)]
pub struct WeightMatrix<'a> {
    /// `k · n` elements.
    pub data: WeightData<'a>,
    /// Inputs: the length of the sums.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// How they lie in memory.
    pub layout: Layout,
}

/// What happens to a finished sum before it is stored.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    /// `out = sum`
    Store,
    /// `out = sum + bias[n]`
    Bias(&'a [f32]),
    /// `out = gelu_new(sum + bias[n])`
    BiasGelu(&'a [f32]),
    /// `out = out + (sum + bias[n])`: the residual stream takes the update.
    BiasAdd(&'a [f32]),
}
