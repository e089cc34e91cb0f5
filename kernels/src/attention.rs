//! Causal self-attention over keys and values that belong to one execution of one block.

/// Tokens per tile of a [`KvStore`].
pub const TILE: usize = 16;

/// Heads of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Number of heads.
    pub heads: usize,
    /// Width of one head; `heads · head_dim` is the model width.
    pub head_dim: usize,
}

/// Where the rows of one sequence lie in a packed batch, and where its keys and values lie in a [`KvStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvSpan {
    /// The sequence's first row in the packed batch.
    pub first_row: usize,
    /// Its rows in the batch (new tokens).
    pub rows: usize,
    /// Tokens of the sequence whose keys and values are already in the store.
    pub past: usize,
    /// The token slot in the store where the sequence starts; a multiple of [`TILE`].
    pub slot: usize,
}

/// Keys and values of one execution for a batch of sequences: `capacity` token slots.
#[derive(Clone, Debug, Default)]
pub struct KvStore {
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
}

impl KvStore {
    /// A store of `slots` tokens (rounded up to whole tiles) for heads of this shape.
    pub fn new(shape: HeadShape, slots: usize) -> KvStore {
        let len = slots.next_multiple_of(TILE) * shape.heads * shape.head_dim;
        KvStore { keys: vec![0.0; len], values: vec![0.0; len] }
    }

    /// Anonymous memory held, in bytes.
    pub fn bytes(&self) -> usize {
        (self.keys.capacity() + self.values.capacity()) * size_of::<f32>()
    }
}
