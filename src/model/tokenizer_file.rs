//! `tokenizer.json`, read and checked.
//!
//! The file is never handed to the `tokenizers` crate, which accepts ids outside the model, resolves duplicates
//! silently, drops bytes that have no token and runs any regex. What is supported is what GPT-2 uses: model `BPE`,
//! pre-tokenizer and decoder `ByteLevel`, no normalizer, added tokens. `post_processor`, `truncation` and `padding` are
//! ignored: they would add, drop or pad tokens.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use super::tokenizer::TokenizerProblem;
use crate::weights::UniqueMap;

/// What a tokenizer is built from. All ids are below the model's `vocab_size`, and no two tokens share one; merges are
/// of tokens into tokens.
pub(super) struct TokenizerFile {
    /// All tokens, added ones too.
    pub(super) vocab: BTreeMap<String, u32>,
    pub(super) merges: Vec<(String, String)>,
    pub(super) added_tokens: Vec<AddedEntry>,
    pub(super) add_prefix_space: bool,
    pub(super) use_regex: bool,
    pub(super) ignore_merges: bool,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    added_tokens: Vec<AddedEntry>,
    normalizer: Option<RawPart>,
    pre_tokenizer: Option<RawPart>,
    decoder: Option<RawPart>,
    model: RawModel,
}

/// A normalizer, pre-tokenizer or decoder; other kinds' fields are never looked at.
#[derive(Deserialize)]
struct RawPart {
    r#type: String,
    add_prefix_space: Option<bool>,
    use_regex: Option<bool>,
}

/// A token beside the model's own, matched in the text before anything else.
#[derive(Deserialize)]
pub(super) struct AddedEntry {
    id: u64,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Deserialize)]
struct RawModel {
    r#type: Option<String>,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(default)]
    vocab: UniqueMap<u64>,
    #[serde(default)]
    merges: Vec<RawMerge>,
}

/// `"a b"` in older files, `["a", "b"]` in newer ones.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a merge as \"a b\" or [\"a\", \"b\"]")]
enum RawMerge {
    Pair(String, String),
    Joined(String),
}

impl TokenizerFile {
    pub(super) fn parse(json: &[u8], vocab_size: usize) -> Result<TokenizerFile, TokenizerProblem> {
        let raw: RawFile = serde_json::from_slice(json).map_err(|e| TokenizerProblem::Json(e.to_string()))?;
        let (add_prefix_space, use_regex) = check_parts(&raw)?;
        let vocab = check_vocabulary(raw.model.vocab, &raw.added_tokens, vocab_size)?;
        let merges = check_merges(raw.model.merges, &vocab)?;
        Ok(TokenizerFile {
            vocab,
            merges,
            added_tokens: raw.added_tokens,
            add_prefix_space,
            use_regex,
            ignore_merges: raw.model.ignore_merges,
        })
    }
}

/// Refuses what is not byte-level BPE; returns the pre-tokenizer's two settings.
fn check_parts(raw: &RawFile) -> Result<(bool, bool), TokenizerProblem> {
    let check = |field, value: Option<&str>, expected: &'static str, fits: bool| {
        let value = value.unwrap_or("null").to_owned();
        if fits { Ok(()) } else { Err(TokenizerProblem::Unsupported { field, value, expected }) }
    };
    let kind = |part: &Option<RawPart>| part.as_ref().map(|part| part.r#type.clone());

    let model = raw.model.r#type.as_deref();
    check("model.type", model, "BPE", model.is_none_or(|kind| kind == "BPE"))?;
    let normalizer = kind(&raw.normalizer);
    check("normalizer", normalizer.as_deref(), "null", normalizer.is_none())?;
    for (field, part) in [("pre_tokenizer", &raw.pre_tokenizer), ("decoder", &raw.decoder)] {
        let kind = kind(part);
        check(field, kind.as_deref(), "ByteLevel", kind.as_deref() == Some("ByteLevel"))?;
    }
    let dropout = raw.model.dropout.filter(|p| *p != 0.0).map(|p| p.to_string());
    check(
        "model.dropout",
        dropout.as_deref(),
        "null: with dropout, the same text has different ids",
        dropout.is_none(),
    )?;
    for (field, affix) in [
        ("model.continuing_subword_prefix", &raw.model.continuing_subword_prefix),
        ("model.end_of_word_suffix", &raw.model.end_of_word_suffix),
    ] {
        check(field, affix.as_deref(), "null", affix.as_deref().is_none_or(str::is_empty))?;
    }
    let part = raw.pre_tokenizer.as_ref();
    let add_prefix_space = part.and_then(|part| part.add_prefix_space);
    check("pre_tokenizer.add_prefix_space", None, "true or false", add_prefix_space.is_some())?;
    Ok((add_prefix_space.unwrap_or_default(), part.and_then(|part| part.use_regex).unwrap_or(true)))
}

/// The model's tokens and the added ones together.
fn check_vocabulary(
    UniqueMap(vocab): UniqueMap<u64>,
    added: &[AddedEntry],
    vocab_size: usize,
) -> Result<BTreeMap<String, u32>, TokenizerProblem> {
    let id_in_range = |token: &str, id: u64| match u32::try_from(id) {
        Ok(in_range) if id < vocab_size as u64 => Ok(in_range),
        _ => Err(TokenizerProblem::IdOutOfRange { token: token.to_owned(), id, vocab_size }),
    };
    let mut ids = BTreeMap::new();
    for (token, id) in vocab {
        let id = id_in_range(&token, id)?;
        ids.insert(token, id);
    }
    let mut added_names = BTreeSet::new();
    for entry in added {
        let (token, second) = (&entry.content, id_in_range(&entry.content, entry.id)?);
        let first = *ids.entry(token.clone()).or_insert(second);
        if first != second || !added_names.insert(token) {
            return Err(TokenizerProblem::TwoIds { token: token.clone(), first, second });
        }
    }
    let mut tokens = HashMap::with_capacity(ids.len());
    for (token, &id) in &ids {
        if token.is_empty() {
            return Err(TokenizerProblem::Json(format!("the token with id {id} is empty")));
        }
        if let Some(first) = tokens.insert(id, token) {
            return Err(TokenizerProblem::SharedId { first: first.clone(), second: token.clone(), id });
        }
    }
    Ok(ids)
}

fn check_merges(
    merges: Vec<RawMerge>,
    vocab: &BTreeMap<String, u32>,
) -> Result<Vec<(String, String)>, TokenizerProblem> {
    let mut pairs = Vec::with_capacity(merges.len());
    let mut seen = BTreeSet::new();
    for (number, merge) in merges.into_iter().enumerate() {
        let (left, right) = match merge {
            RawMerge::Pair(left, right) => (left, right),
            RawMerge::Joined(joined) => match joined.split_once(' ') {
                Some((left, right)) => (left.to_owned(), right.to_owned()),
                None => (joined, String::new()),
            },
        };
        let merged = format!("{left}{right}");
        let problem = match [&left, &right, &merged].into_iter().find(|token| !vocab.contains_key(*token)) {
            Some(token) => Some(format!("\"{token}\" is not in the vocabulary")),
            None => (!seen.insert((vocab[&left], vocab[&right]))).then(|| "given twice".to_owned()),
        };
        if let Some(problem) = problem {
            return Err(TokenizerProblem::Merge { number, left, right, problem });
        }
        pairs.push((left, right));
    }
    Ok(pairs)
}
