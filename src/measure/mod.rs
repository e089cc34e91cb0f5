//! What a (corrupted) model makes of given tokens: negative log-likelihoods and what is derived from them.
//!
//! Losses are f64, in nats, one for each *predicted* position: `nll[i] = −ln p(ids[i + 1] | ids[..= i])`. Means are over
//! tokens. NaN and infinity are results, and stay. Nothing here knows where texts come from or results go.

mod answer;
mod attention;
mod attribution;
mod error;
mod geometry;
mod lens;
mod loss;
mod number;
mod seed_compat;
mod shift;
mod windows;

pub use answer::{Answered, answer_losses};
pub use attention::{
    FIRST_QUERIES, HeadSummary, Repeated, attention_pattern, head_summaries, induction_scores, is_of_one_text,
};
pub use attribution::{Attributed, Attribution, LogitPart, LogitSource, attribute};
pub use error::MeasureError;
pub use geometry::{CosineMap, MAX_STATES, Similarity};
pub use lens::{LensCell, logit_lens, tuned_lens};
pub use loss::{LossSummary, token_losses};
pub use number::{Number, nan_last};
pub use seed_compat::seed_compat_loss;
pub use shift::{Change, ChangeOrder, Prediction, Shift, shifts};
#[cfg(feature = "fit")]
pub(crate) use shift::{divergence, log_softmax};
pub use windows::{Window, Windows, windowed_losses};
