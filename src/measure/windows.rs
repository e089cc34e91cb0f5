//! Texts longer than the context.

use super::error::MeasureError;
use super::loss::token_losses;
use crate::forward::{Batch, Session, Target};
use crate::plan::Plan;

/// How a long text is cut: overlapping windows, each token scored once.
///
/// The first window holds the first `length` tokens. Each further one ends `stride` tokens later (the last at the
/// text's end) and is `length` tokens long; only the tokens that no earlier window scored are scored in it, so behind the
/// first window every token has at least `length − stride` tokens of context. With BOS every window starts with it and has
/// one text token less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of a window, BOS included.
    pub length: usize,
    /// Tokens from one window to the next.
    pub stride: usize,
}

impl Windows {
    /// Full contexts, moved by half.
    pub fn of_context(n_positions: usize) -> Windows {
        Windows { length: n_positions, stride: (n_positions / 2).max(1) }
    }
}

/// The loss of every token of `ids` but the first, in nats, however long the text is.
///
/// With `bos`, `ids` starts with it, and so does every window. A text that fits one window gives exactly
/// [`token_losses`].
///
/// # Errors
/// Where the windows do not fit the model, or ids or plan do not.
pub fn windowed_losses(
    session: &mut Session,
    plan: &Plan,
    ids: &[u32],
    bos: Option<u32>,
    windows: Windows,
) -> Result<Vec<f64>, MeasureError> {
    let n_positions = session.model().config().n_positions;
    let Windows { length, stride } = windows;
    if !(2..=n_positions).contains(&length) || !(1..length).contains(&stride) {
        return Err(MeasureError::Windows { length, stride, n_positions });
    }
    let mut scored = ids.len().min(length);
    let mut losses = token_losses(session, plan, &[&ids[..scored]])?.concat();
    let mut window = Vec::with_capacity(length);
    while scored < ids.len() {
        let end = ids.len().min(scored + stride);
        window.clear();
        window.extend(bos);
        window.extend_from_slice(&ids[end - (length - window.len())..end]);
        let batch = Batch::new([&window[..]]);
        let new = end - scored;
        let targets: Vec<_> = (length - new..length).map(|i| Target { row: i - 1, id: window[i] }).collect();
        losses.extend(session.score(plan, &batch, &targets)?.iter().map(|score| score.nll()));
        scored = end;
    }
    Ok(losses)
}
