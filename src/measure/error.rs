//! What a measurement refuses.

use crate::forward::ForwardError;
use crate::model::TokenizerError;
use thiserror::Error;

/// Why a measurement was refused.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// The forward pass refused.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The text cannot be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model has no BOS token, which the measure puts before texts.
    #[error("model {model} has no BOS token, which is part of this measure")]
    NoBos {
        /// The model's name.
        model: String,
    },
    /// An answer without tokens has no loss.
    #[error("the answer {answer:?} has no tokens: nothing can be scored")]
    EmptyAnswer {
        /// The answer.
        answer: String,
    },
    /// Nothing stands before the answer's first token, which so can't be predicted.
    #[error("nothing precedes the answer {answer:?}: a prompt or the BOS token is needed")]
    NothingBefore {
        /// The answer.
        answer: String,
    },
    /// The windows do not fit the model.
    #[error(
        "windows of {length} tokens with stride {stride}: 2 ≤ length ≤ {n_positions} and 1 ≤ stride < length are needed"
    )]
    Windows {
        /// Tokens of a window.
        length: usize,
        /// Tokens from one window to the next.
        stride: usize,
        /// The model's context.
        n_positions: usize,
    },
    /// A text has no token there.
    #[error("position {position} of {tokens} tokens: positions count from 0")]
    Position {
        /// The position asked for.
        position: usize,
        /// Tokens of the text.
        tokens: usize,
    },
    /// A layer has no such head.
    #[error("head {head} of {n_head}: heads are 0..={}", n_head - 1)]
    Head {
        /// The head asked for.
        head: usize,
        /// Heads of a layer.
        n_head: usize,
    },
    /// An MLP half attends to nothing.
    #[error("{name}: only the MLP half of layer {layer} runs there, which has no attention pattern")]
    NoAttention {
        /// The execution's name.
        name: String,
        /// Its layer.
        layer: usize,
    },
    /// A plan is made for one text, and can't be measured on another.
    #[error(
        "the plan changes positions or takes references, which belong to one text: it can't be measured on another"
    )]
    OwnText,
    /// A lens has no map for a state.
    #[error("step {step}: the lens has no map from {from} to {to} for the state behind it", from = from.map_or("within a layer".to_owned(), |from| from.to_string()))]
    NoMap {
        /// The step of the plan.
        step: String,
        /// The layer that would come next; none where the state lies within a layer or behind several.
        from: Option<usize>,
        /// The model's number of layers.
        to: usize,
    },
    /// So many residual states can't be compared with one another.
    #[error("{states} residual states to compare with one another: {limit} at most")]
    States {
        /// Steps + 1.
        states: usize,
        /// The most.
        limit: usize,
    },
}
