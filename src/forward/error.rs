//! What a forward pass refuses.

use crate::plan::StepError;
use lesion_kernels::TeamError;
use thiserror::Error;

/// Why a forward pass was refused.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// Threads or instruction set are not to be had.
    #[error(transparent)]
    Team(#[from] TeamError),
    /// The plan names a layer or head that the model does not have.
    #[error("plan: {0}")]
    Plan(#[from] StepError),
    /// A sequence without tokens predicts nothing.
    #[error("sequence {sequence} is empty: at least one token is needed")]
    Empty {
        /// Its index in the batch.
        sequence: usize,
    },
    /// A sequence does not fit the context.
    #[error("sequence {sequence} has {tokens} tokens, the model's context is {n_positions}")]
    TooLong {
        /// Its index in the batch.
        sequence: usize,
        /// Its tokens, cached ones included.
        tokens: usize,
        /// The model's context.
        n_positions: usize,
    },
    /// A token id is not in the vocabulary.
    #[error("token id {id} in sequence {sequence}: the vocabulary has ids 0..={}", vocab_size - 1)]
    Token {
        /// The sequence's index in the batch.
        sequence: usize,
        /// The id.
        id: u32,
        /// The model's vocabulary.
        vocab_size: usize,
    },
    /// A row that is asked for is not in the batch.
    #[error("row {row} of {rows}: the batch has no such row")]
    Row {
        /// The row asked for.
        row: usize,
        /// The batch's rows.
        rows: usize,
    },
    /// A cache is continued with a plan, or sequences, other than those it was made for.
    #[error("cache: made for {made} {what}, continued with {now}")]
    Cache {
        /// What differs.
        what: &'static str,
        /// What the cache holds.
        made: usize,
        /// What it was continued with.
        now: usize,
    },
    /// A setting of [`Sampling`](super::Sampling) is out of its range.
    #[error("{setting} {value}: {range}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The values that are possible.
        range: &'static str,
    },
    /// No token can be drawn from a distribution that isn't one.
    #[error("{nan} of {vocab_size} logits are NaN at position {position}: no token can be chosen")]
    NotANumber {
        /// How many logits are NaN.
        nan: usize,
        /// The model's vocabulary.
        vocab_size: usize,
        /// The position whose next token was to be chosen.
        position: usize,
    },
}
