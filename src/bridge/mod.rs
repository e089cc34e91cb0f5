//! What does the model know at layer l, if the layers behind it are replaced by their best linear guess?
//!
//! - `samples`: texts as sequences with the rows that count, and which of them are held out.
//! - `states`: residual states of the intact model at the inputs of layers.
//! - [`RidgeFit`]: linear shortcuts between any two layers (Din et al. 2023), by ridge regression in closed form.
//! - [`TunedLens`]: affine maps to the final state that minimise the divergence of what is read there (Belrose et al. 2023);
//!   `gradient` has the gradient by hand.
//! - [`Evaluation`]: how good maps are on held-out text, beside A = I, as plans: `0..6,bridge(6:11,fit),11` and `0..6,11`.
//! - `products`: the large products, in blocks of fixed size.
//!
//! The maps are [`Shortcuts`](crate::forward::Shortcuts), which plans cross by name. Sums are f64 and run in an order of their
//! own: no result depends on the number of threads. Across processors they agree within rounding.

mod evaluate;
mod gradient;
mod products;
mod ridge;
mod samples;
mod states;
#[cfg(all(test, feature = "mini"))]
mod tests;
mod tuned;

pub use evaluate::{Evaluation, PairReport, Reading};
pub use ridge::RidgeFit;
pub use samples::{Sample, held_out, in_groups};
pub use tuned::{TunedLens, TunedOptions};

use crate::forward::{ForwardError, LinearMapError};
use thiserror::Error;

/// Why maps can't be fitted or judged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// The forward pass refused.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Layers that the model does not have, or backwards.
    #[error("{from}:{to}: a bridge leads from a layer to the same or a later one, {n_layer} at most")]
    Pair {
        /// The layer that it would lead from.
        from: usize,
        /// The layer that it would lead to.
        to: usize,
        /// Layers of the model.
        n_layer: usize,
    },
    /// No pairs, or no rows.
    #[error("there are no {what} to fit to")]
    Nothing {
        /// What is missing.
        what: &'static str,
    },
    /// A sample's rows are not among its tokens, each with a token behind it.
    #[error("rows {}..{} of a sequence of {tokens} tokens: each has a token behind it", rows.start, rows.end)]
    Rows {
        /// The rows.
        rows: std::ops::Range<usize>,
        /// The sequence's tokens.
        tokens: usize,
    },
    /// A setting that makes no sense.
    #[error("{setting} {value}: {range}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: f64,
        /// What is possible.
        range: &'static str,
    },
    /// The normal equations have no unique solution.
    #[error("{from}:{to}: {rows} rows do not determine the map with a ridge of {lambda}: more text, or a larger one")]
    Singular {
        /// The layer that it leads from.
        from: usize,
        /// The layer that it leads to.
        to: usize,
        /// The rows that were fitted to.
        rows: u64,
        /// The penalty.
        lambda: f64,
    },
    /// The numbers that came out are no map.
    #[error("{from}:{to}: {source}")]
    Map {
        /// The layer that it leads from.
        from: usize,
        /// The layer that it leads to.
        to: usize,
        /// Why.
        source: LinearMapError,
    },
}
