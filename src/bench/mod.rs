//! How fast a plan runs here, and how far that is from what the machine could do.
//!
//! [`run`] times three kinds of work on a [`Session`](crate::forward::Session), round by round, with the machine's own
//! limits measured between them:
//!
//! - *prefill*: every sequence of the batch up to the logits of its last token;
//! - *prefill with loss*: the same, and the loss of every predicted token;
//! - *decode*: one sequence, a token at a time, behind a cached prompt.
//!
//! [`Work`] counts what each must do, in FLOP and in bytes of weights, keys and values; that over the time, beside the
//! limits, is the answer. All times are wall-clock seconds; figures are a [`Spread`] over the rounds.

mod rounds;
mod spread;
mod work;

pub use rounds::{BenchError, Limits, Measured, Report, Shape, run};
pub use spread::Spread;
pub use work::Work;
