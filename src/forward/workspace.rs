//! The buffers of a forward pass. They take the memory of the largest batch seen and are reused: a pass of a shape seen
//! before allocates nothing.

use crate::model::Config;
use lesion_kernels::{HeadShape, KvStore};

/// Buffers for a batch of rows.
#[derive(Default)]
pub(super) struct Workspace {
    /// The residual stream, `[rows, n_embd]`.
    pub(super) hidden: Vec<f32>,
    /// Output of a LayerNorm; then the heads' outputs z; `[rows, n_embd]`.
    pub(super) normal: Vec<f32>,
    /// Queries, keys and values `[rows, 3 · n_embd]`; then the MLP's activations `[rows, n_inner]`.
    pub(super) wide: Vec<f32>,
    /// Keys and values of the attention under way, when no cache keeps them.
    pub(super) kv: KvStore,
    /// For each depth of nested groups: the state the branches start from, and the sum of their ends.
    pub(super) groups: Vec<(Vec<f32>, Vec<f32>)>,
    /// Final states of the rows that are scored.
    pub(super) selected: Vec<f32>,
    /// What the scored rows are scored against.
    pub(super) targets: Vec<u32>,
}

impl Workspace {
    /// Makes room for a batch; what the buffers hold is of no interest. Only what they grow by is written.
    pub(super) fn fit(&mut self, config: &Config, rows: usize, slots: usize) {
        let wide = (3 * config.n_embd).max(config.n_inner);
        self.hidden.resize(rows * config.n_embd, 0.0);
        self.normal.resize(rows * config.n_embd, 0.0);
        self.wide.resize(rows * wide, 0.0);
        self.kv.reserve(HeadShape { heads: config.n_head, head_dim: config.head_dim() }, slots);
    }

    /// Anonymous memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|(a, b)| a.capacity() + b.capacity()).sum();
        let floats = self.hidden.capacity() + self.normal.capacity() + self.wide.capacity() + self.selected.capacity();
        (floats + groups) * size_of::<f32>() + self.kv.bytes() + self.targets.capacity() * size_of::<u32>()
    }
}
