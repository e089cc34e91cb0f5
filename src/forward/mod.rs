//! The forward pass over a plan: embed, run the plan's steps, unembed.
//!
//! - [`Batch`]: sequences packed without padding; a row is one token, its position comes from its sequence.
//! - `pass`: the arithmetic, in half-steps (attention, MLP). It reads like the paper, and never asks what
//!   a plan is called: a corrupted pass of k blocks runs k blocks.
//! - `modify`: what a plan's modifiers do at the sites inside a block; [`References`]: the numbers they take.
//! - [`Bridges`]: the linear shortcuts of a plan, by their names; `bridge_file`: as safetensors files.
//! - `saved`: activations as safetensors files.
//! - `watch`: activations as they pass ([`Seen`]); without a watcher nothing is copied.
//! - `exact`: the same in f64 and plain Rust ([`Precision::F64`]), for settling arguments.
//! - [`Cache`]: keys and values of each *execution*, so a layer that runs twice has two.
//! - [`Session`]: owns threads and workspace, and puts the two together.
//! - [`complete`]: decoding, token by token.
//!
//! Hidden states are f32 (f64 in `exact`), `[rows, n_embd]` row-major. Every row is computed in an order of its own, so its bits depend
//! neither on the batch nor on the threads. What the numbers mean is left to [`crate::measure`].

mod batch;
mod bridge_file;
mod bridges;
mod cache;
mod chunk;
mod error;
mod exact;
mod generate;
mod inside;
mod memory;
mod modify;
mod pass;
mod passage;
mod precision;
mod references;
mod sampling;
mod saved;
mod session;
mod taps;
mod text;
mod watch;
mod workspace;

pub use batch::Batch;
pub use bridge_file::Fitted;
pub use bridges::{Bridges, LinearMap, LinearMapError, Shortcuts};
pub use cache::Cache;
pub(crate) use chunk::{Chunk, Parts, packed_rows, shares};
pub use error::ForwardError;
pub use generate::{Completion, Finish, complete};
pub use pass::Residual;
pub(crate) use passage::{Attention, Changed, Held, Passage, Rows, State};
pub use precision::{NUMERICS_VERSION, Precision};
pub use references::{Activations, References, site_width};
pub use sampling::Sampling;
pub use saved::{Provenance, SavedError};
#[cfg(feature = "fit")]
pub(crate) use session::plain_threads;
pub use session::{Session, SessionOptions, Target};
pub use taps::{End, Tap, TapError};
pub use watch::Seen;
