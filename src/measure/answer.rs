//! The loss of an answer behind a prompt.

use super::error::MeasureError;
use crate::forward::{Batch, Session, Target};
use crate::model::Tokenizer;
use crate::plan::Plan;
use std::ops::Range;

/// A prompt and its answer as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// All tokens: BOS where wanted, prompt, answer.
    pub ids: Vec<u32>,
    /// Where in `ids` the answer lies: the scored span.
    pub answer: Range<usize>,
    /// Whether prompt and answer were encoded as one text. Where a merge spans their join they can't be: they are
    /// encoded apart then, and this is false.
    pub joint: bool,
}

impl Answered {
    /// Encodes `prompt` followed by `answer`, exactly as they are: a space between them belongs to the answer.
    ///
    /// # Errors
    /// Where the answer has no tokens, nothing precedes it, or a text cannot be encoded.
    pub fn encode(
        tokenizer: &Tokenizer,
        bos: Option<u32>,
        prompt: &str,
        answer: &str,
    ) -> Result<Answered, MeasureError> {
        let mut ids: Vec<u32> = bos.into_iter().collect();
        let before = tokenizer.encode(prompt)?;
        let both = tokenizer.encode(&format!("{prompt}{answer}"))?;
        let start = ids.len() + before.len();
        let joint = both.starts_with(&before);
        if joint {
            ids.extend(both);
        } else {
            ids.extend(before);
            ids.extend(tokenizer.encode(answer)?);
        }
        if start == ids.len() {
            return Err(MeasureError::EmptyAnswer { answer: answer.to_owned() });
        }
        if start == 0 {
            return Err(MeasureError::NothingBefore { answer: answer.to_owned() });
        }
        Ok(Answered { answer: start..ids.len(), ids, joint })
    }
}

/// The loss of each of the answer's tokens under `plan`, in nats.
///
/// # Errors
/// Where prompt and answer do not fit the context, or the plan does not fit the model.
pub fn answer_losses(session: &mut Session, plan: &Plan, answered: &Answered) -> Result<Vec<f64>, MeasureError> {
    let targets: Vec<_> = answered.answer.clone().map(|i| Target { row: i - 1, id: answered.ids[i] }).collect();
    let scores = session.score(plan, &Batch::new([&answered.ids[..]]), &targets)?;
    Ok(scores.iter().map(|score| score.nll()).collect())
}
