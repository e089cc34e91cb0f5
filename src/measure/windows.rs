//! Texts longer than the context.

use super::error::MeasureError;
use crate::forward::{Batch, Session, Target};
use crate::plan::Plan;
use std::ops::Range;

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

/// Tokens, of which those in `scored` are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Of these.
    pub scored: Range<usize>,
}

impl Windows {
    /// Full contexts, moved by half.
    pub fn of_context(n_positions: usize) -> Windows {
        Windows { length: n_positions, stride: (n_positions / 2).max(1) }
    }
}

impl Windows {
    /// The windows over `ids`, which start with `bos` where there is one: each with those of its tokens that are scored.
    ///
    /// # Errors
    /// Where the windows do not fit a model of `n_positions`.
    pub fn over(self, ids: &[u32], bos: Option<u32>, n_positions: usize) -> Result<Vec<Window>, MeasureError> {
        let Windows { length, stride } = self;
        if !(2..=n_positions).contains(&length) || !(1..length).contains(&stride) {
            return Err(MeasureError::Windows { length, stride, n_positions });
        }
        let mut scored = ids.len().min(length);
        let mut windows = vec![Window { ids: ids[..scored].to_vec(), scored: 1..scored }];
        while scored < ids.len() {
            let end = ids.len().min(scored + stride);
            let mut window: Vec<u32> = bos.into_iter().collect();
            window.extend_from_slice(&ids[end - (length - window.len())..end]);
            windows.push(Window { ids: window, scored: length - (end - scored)..length });
            scored = end;
        }
        Ok(windows)
    }
}

/// The loss of every token of `ids` but the first, in nats, however long the text is.
///
/// With `bos`, `ids` starts with it, and so does every window. A text that fits one window gives exactly
/// [`token_losses`](super::token_losses).
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
    let mut losses = Vec::with_capacity(ids.len());
    for Window { ids: window, scored } in windows.over(ids, bos, session.model().config().n_positions)? {
        let batch = Batch::new([&window[..]]);
        let targets: Vec<_> = scored.map(|i| Target { row: i - 1, id: window[i] }).collect();
        losses.extend(session.score(plan, &batch, &targets)?.iter().map(|score| score.nll()));
    }
    Ok(losses)
}
