//! What a forward pass refuses.

use super::taps::Tap;
use crate::plan::{Address, AddressError, Bridge, Modifier, StepError};
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
    /// A name that leads to no one execution of the plan.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A tap at a site that the execution does not pass.
    #[error("{tap}: {half} of a block alone runs there, which does not pass it")]
    NoSite {
        /// The tap.
        tap: Tap,
        /// The attention half or the MLP half.
        half: &'static str,
    },
    /// A modifier does not find what it needs.
    #[error("{address}, {modifier}, sequence {sequence}: {why}")]
    Modifier {
        /// The execution.
        address: Address,
        /// The modifier.
        modifier: Box<Modifier>,
        /// The sequence's index in the batch.
        sequence: usize,
        /// What is missing.
        why: String,
    },
    /// A bridge does not find its map, or finds one that does not fit.
    #[error("{bridge}: {why}")]
    Bridge {
        /// The bridge.
        bridge: Box<Bridge>,
        /// What is missing or wrong.
        why: String,
    },
    /// A modifier needs the whole sequence, which a pass behind a cache does not have.
    #[error("{address}, {modifier}: it can't go on behind cached tokens; go without a cache")]
    Uncacheable {
        /// The execution.
        address: Address,
        /// The modifier.
        modifier: Box<Modifier>,
    },
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
    /// More of the greatest logits are asked for than there are logits.
    #[error("the {count} greatest logits: the vocabulary has {vocab_size}")]
    Greatest {
        /// How many.
        count: usize,
        /// The model's vocabulary.
        vocab_size: usize,
    },
    /// States that are not whole rows.
    #[error("{len} elements of states: rows have {width}")]
    States {
        /// How many.
        len: usize,
        /// The model's `n_embd`.
        width: usize,
    },
    /// A map of states of another width.
    #[error("a map of {map} elements: rows have {width}")]
    MapWidth {
        /// The map's.
        map: usize,
        /// The model's `n_embd`.
        width: usize,
    },
    /// A row that is asked for is not in the batch.
    #[error("row {row} of {rows}: the batch has no such row")]
    Row {
        /// The row asked for.
        row: usize,
        /// The batch's rows.
        rows: usize,
    },
    /// A cache is continued with a plan, a precision or a model other than its own.
    #[error("cache: made for {what} {made}, continued with {now}")]
    CacheMismatch {
        /// What differs: plan, precision or model.
        what: &'static str,
        /// What the cache was made for.
        made: String,
        /// What it was continued with.
        now: String,
    },
    /// A cache has no room for more tokens.
    #[error("cache: it has room for {capacity} tokens, {tokens} are needed")]
    CacheFull {
        /// The tokens there is room for.
        capacity: usize,
        /// The tokens it would have to hold.
        tokens: usize,
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
    /// The keys and values of so many executions take more memory than a cache may.
    #[error(
        "a cache for {attentions} attentions and {tokens} tokens takes {bytes} bytes, {limit} are allowed: go without it"
    )]
    CacheMemory {
        /// Attentions that the plan executes.
        attentions: usize,
        /// Tokens to be kept.
        tokens: usize,
        /// What they take.
        bytes: usize,
        /// What they may take.
        limit: usize,
    },
    /// A batch without sequences.
    #[error("the batch is empty: at least one sequence is needed")]
    NoSequences,
}
