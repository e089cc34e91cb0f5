//! What a (corrupted) model makes of given tokens: negative log-likelihoods and what is derived from them.
//!
//! Losses are f64, in nats, one for each *predicted* position: `nll[i] = −ln p(ids[i + 1] | ids[..= i])`. Means are over
//! tokens. NaN and infinity are results, and stay. Nothing here knows where texts come from or results go.

mod answer;
mod error;
mod loss;
mod number;
mod seed_compat;
mod windows;

pub use answer::{Answered, answer_losses};
pub use error::MeasureError;
pub use loss::{LossSummary, token_losses};
pub use number::{Number, nan_last};
pub use seed_compat::seed_compat_loss;
pub use windows::{Window, Windows, windowed_losses};
