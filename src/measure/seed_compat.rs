//! The seed project's own scoring, kept only to compare with its records.

use super::error::MeasureError;
use crate::forward::{Batch, Session, Target};
use crate::model::Tokenizer;
use crate::plan::Plan;

/// What the seed recorded as a loss: `−ln p` of the *last* token of `" " + answer` in `[BOS] prompt [BOS] " " + answer`.
///
/// The second BOS cuts the answer off from its prompt and all but the last token go unscored, so this is no loss of the
/// answer; use [`answer_losses`](super::answer_losses) to measure anything.
///
/// # Errors
/// Where the model has no BOS token, the text cannot be encoded or does not fit the context, or the plan does not fit the model.
pub fn seed_compat_loss(
    session: &mut Session,
    plan: &Plan,
    tokenizer: &Tokenizer,
    prompt: &str,
    answer: &str,
) -> Result<f64, MeasureError> {
    let model = session.model();
    let no_bos = || MeasureError::NoBos { model: model.name().to_owned() };
    let bos = model.config().bos_token_id.ok_or_else(no_bos)?;
    let mut ids = vec![bos];
    ids.extend(tokenizer.encode(prompt)?);
    ids.push(bos);
    ids.extend(tokenizer.encode(&format!(" {answer}"))?);
    let last = Target { row: ids.len() - 2, id: ids[ids.len() - 1] };
    Ok(session.score(plan, &Batch::new([&ids[..]]), &[last])?[0].nll())
}
