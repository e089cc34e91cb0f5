//! Decoding: a completion, token by token.

use super::cache::Cache;
use super::error::ForwardError;
use super::sampling::{Sampler, Sampling};
use super::session::Session;
use super::text::TextStream;
use crate::model::Tokenizer;
use crate::plan::Plan;
use std::ops::ControlFlow;

/// What a model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The tokens, with those of a stop text or the end-of-text token.
    pub ids: Vec<u32>,
    /// Their text, up to the stop text; bytes that are no character are U+FFFD. None where no tokenizer was given.
    pub text: Option<String>,
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
    /// A broken model's logits are no distribution: no token can be chosen.
    NotANumber {
        /// How many of the logits are NaN.
        count: usize,
        /// The position whose next token was to be chosen, counted from the prompt's first.
        position: usize,
    },
    /// The caller broke off.
    Cancelled,
}

/// Completes `prompt` under `plan`.
///
/// `on_token` sees each token as it comes, with the text that became final with it: whole characters, nothing that may
/// still turn out to start a stop text (so it may be empty; without a tokenizer it always is). It may break off.
///
/// # Errors
/// Where prompt, plan or sampling do not fit, or stop texts come without a tokenizer.
pub fn complete(
    session: &mut Session,
    plan: &Plan,
    prompt: &[u32],
    sampling: &Sampling,
    tokenizer: Option<&Tokenizer>,
    on_token: &mut dyn FnMut(u32, &str) -> ControlFlow<()>,
) -> Result<Completion, ForwardError> {
    sampling.check()?;
    if let (None, Some(stop)) = (tokenizer, sampling.stop.first()) {
        let value = format!("{stop:?}");
        return Err(ForwardError::Setting { setting: "stop", value, range: "a stop text needs the tokenizer" });
    }
    let model = session.model().clone();
    let config = model.config();
    let mut sampler = Sampler::new(sampling);
    let mut stream = TextStream::new(&sampling.stop);
    let mut text = tokenizer.map(|_| String::new());
    let mut ids = prompt.to_vec();
    let capacity = config.n_positions.min(prompt.len().saturating_add(sampling.max_tokens));
    let mut cache = if sampling.cache { Some(Cache::new(session, plan, capacity)?) } else { None };
    let mut finish = (sampling.max_tokens == 0).then_some(Finish::Length);
    while finish.is_none() {
        let logits = match &mut cache {
            Some(cache) => session.extend(plan, cache, &ids[cache.tokens()..])?,
            None => session.logits(plan, &ids)?,
        };
        let id = match sampler.choose(logits) {
            Ok(id) => id,
            Err(count) => {
                finish = Some(Finish::NotANumber { count, position: ids.len() - 1 });
                break;
            }
        };
        ids.push(id);
        let ends = sampling.stop_at_end_of_text && Some(id) == config.eos_token_id;
        let bytes = tokenizer.filter(|_| !ends).and_then(|tokenizer| tokenizer.token_bytes(id)).unwrap_or_default();
        finish = if stream.push(bytes) {
            Some(Finish::Stop)
        } else if ends {
            Some(Finish::EndOfText)
        } else if ids.len() - prompt.len() == sampling.max_tokens {
            Some(Finish::Length)
        } else {
            (ids.len() > config.n_positions).then_some(Finish::Context)
        };
        let piece = if finish.is_some() { stream.finish() } else { stream.release() };
        if let Some(text) = &mut text {
            text.push_str(&piece);
        }
        if on_token(id, &piece).is_break() && finish.is_none() {
            finish = Some(Finish::Cancelled);
        }
    }
    let finish = finish.expect("the loop ends with a reason");
    if let Some(text) = &mut text {
        text.push_str(&stream.finish());
    }
    Ok(Completion { ids: ids.split_off(prompt.len()), text, finish })
}
