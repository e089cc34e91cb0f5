//! The buffers of a forward pass. They take the memory of the largest batch seen and are reused: a pass of a shape seen
//! before allocates nothing.

use crate::model::Config;
use lesion_kernels::{Floats, HeadShape, KvStore};

/// Buffers for a batch of rows.
#[derive(Default)]
pub(super) struct Workspace {
    /// The residual stream, `[rows, n_embd]`.
    pub(super) hidden: Floats,
    /// Output of a LayerNorm; then the heads' outputs z; `[rows, n_embd]`.
    pub(super) normal: Floats,
    /// Queries, keys and values `[rows, 3 · n_embd]`; then the MLP's activations `[rows, n_inner]`.
    pub(super) wide: Floats,
    /// Keys and values of the attention under way, when no cache keeps them.
    pub(super) kv: KvStore,
    /// For each depth of nested groups: the state the branches start from, and the sum of their ends.
    pub(super) groups: Vec<(Floats, Floats)>,
    /// Final states of the rows that are scored.
    pub(super) selected: Floats,
    /// What the scored rows are scored against.
    pub(super) targets: Vec<u32>,
    /// Executions of each layer so far.
    pub(super) occurrences: Vec<usize>,
}

impl Workspace {
    /// Makes room for a batch; what the buffers hold is of no interest. Only what they grow by is written.
    pub(super) fn fit(&mut self, config: &Config, rows: usize, slots: usize) {
        let wide = (3 * config.n_embd).max(config.n_inner);
        self.hidden.resize(rows * config.n_embd);
        self.normal.resize(rows * config.n_embd);
        self.wide.resize(rows * wide);
        self.kv.reserve(HeadShape { heads: config.n_head, head_dim: config.head_dim() }, slots);
    }

    /// Anonymous memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|(a, b)| a.bytes() + b.bytes()).sum();
        let rows: usize = [&self.hidden, &self.normal, &self.wide, &self.selected].map(Floats::bytes).iter().sum();
        rows + groups
            + self.kv.bytes()
            + self.targets.capacity() * size_of::<u32>()
            + self.occurrences.capacity() * size_of::<usize>()
    }
}
