//! GPT-2 as data: configuration, parameters under GPT-2's own names, tokenizer.
//!
//! A [`Model`] is what a forward pass reads and never changes. Shapes: `d` = `n_embd`, `v` = `vocab_size`,
//! weights are `[in, out]` as GPT-2's `Conv1D` stores them, embeddings `[rows, d]`. How layers are ordered and run is
//! left to [`crate::plan`] and [`crate::forward`].

mod config;
mod error;
#[cfg(feature = "mini")]
mod mini;
#[expect(clippy::module_inception, reason = "the struct the folder is about")]
mod model;
mod parameters;
mod split;
pub mod synthetic;
mod tokenizer;
mod tokenizer_file;

pub use config::{Config, ConfigError};
pub use error::ModelError;
pub use model::{Model, OpenOptions};
pub use parameters::{Attention, Block, LayerNorm, Linear, Mlp, Parameters, is_mask_buffer};
pub use tokenizer::{Tokenizer, TokenizerError, TokenizerProblem};
