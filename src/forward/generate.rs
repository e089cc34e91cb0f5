//! Decoding: a completion, token by token.

use super::cache::Cache;
use super::error::ForwardError;
use super::sampling::{Sampler, Sampling};
use super::session::Session;
use super::text::TextStream;
use crate::model::ModelError;
use crate::plan::Plan;
use std::ops::ControlFlow;

/// What a model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The tokens, with those of a stop text or the end-of-text token.
    pub ids: Vec<u32>,
    /// Their text, up to the stop text. Bytes that are no character are U+FFFD. Empty where the model has no tokenizer.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It has the tokens asked for.
    Length,
    /// A stop text came.
    Stop,
    /// The end-of-text token came.
    EndOfText,
    /// The context is full.
    Context,
    /// The caller broke off.
    Cancelled,
}

/// Completes `prompt` under `plan`, showing `on_text` the text as it becomes final; it may break off.
///
/// # Errors
/// Where prompt, plan or sampling do not fit; [`ForwardError::NotANumber`] where a broken model's logits are no
/// distribution.
pub fn complete(
    session: &mut Session,
    plan: &Plan,
    prompt: &[u32],
    sampling: &Sampling,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Completion, ForwardError> {
    sampling.check()?;
    let model = session.model().clone();
    let config = model.config();
    // Ids need no tokenizer; stop texts do.
    let tokenizer = match model.tokenizer() {
        Ok(tokenizer) => Some(tokenizer),
        Err(ModelError::NoTokenizer { .. }) if sampling.stop.is_empty() => None,
        Err(error) => return Err(error.into()),
    };
    let mut sampler = Sampler::new(sampling);
    let mut stream = TextStream::new(&sampling.stop);
    let mut ids = prompt.to_vec();
    let mut text = String::new();
    let capacity = config.n_positions.min(prompt.len() + sampling.max_tokens);
    let mut cache = sampling.cache.then(|| Cache::new(config, plan, capacity));
    let finish = loop {
        if ids.len() - prompt.len() == sampling.max_tokens {
            break Finish::Length;
        }
        if ids.len() > config.n_positions && ids.len() > prompt.len() {
            break Finish::Context;
        }
        let logits = match &mut cache {
            Some(cache) => session.extend(plan, cache, &ids[cache.tokens()..])?,
            None => session.logits(plan, &ids)?,
        };
        let id = sampler.choose(&logits).map_err(|nan| ForwardError::NotANumber {
            nan,
            vocab_size: logits.len(),
            position: ids.len() - 1,
        })?;
        ids.push(id);
        if sampling.stop_at_end_of_text && id == config.eos_token_id {
            break Finish::EndOfText;
        }
        let bytes = tokenizer.and_then(|tokenizer| tokenizer.token_bytes(id)).unwrap_or_default();
        let stopped = stream.push(bytes);
        let piece = stream.release();
        text.push_str(&piece);
        if !piece.is_empty() && on_text(&piece).is_break() {
            break Finish::Cancelled;
        }
        if stopped {
            break Finish::Stop;
        }
    };
    let rest = stream.finish();
    text.push_str(&rest);
    if !rest.is_empty() && finish != Finish::Cancelled {
        // The completion is over: breaking off changes nothing any more.
        let _ = on_text(&rest);
    }
    Ok(Completion { ids: ids.split_off(prompt.len()), text, finish })
}
