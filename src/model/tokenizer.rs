//! Text to token ids and back, by GPT-2's byte-level BPE.
//!
//! Special tokens are never added, and texts are never truncated or padded, whatever `tokenizer.json` asks for. A
//! literal `<|endoftext|>` in a text becomes that token, as in Hugging Face's tokenizer.

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, TokenizerImpl};

use super::split::{Gpt2Split, byte_of};
use super::tokenizer_file::TokenizerFile;
use crate::weights::{printable, printable_path};

/// A model's tokenizer. `Send + Sync`.
#[derive(Debug)]
pub struct Tokenizer {
    bpe: TokenizerImpl<BPE, NormalizerWrapper, Gpt2Split, PostProcessorWrapper, DecoderWrapper>,
    /// The bytes of every token, one behind the other; those of token `i` are `starts[i]..starts[i + 1]`.
    bytes: Vec<u8>,
    starts: Vec<usize>,
    source: String,
}

/// Why a tokenizer, a text or a list of ids was refused.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", printable_path(file))]
pub struct TokenizerError {
    /// The tokenizer's file.
    pub file: String,
    /// What is wrong.
    pub problem: TokenizerProblem,
}

/// What is wrong with a tokenizer, a text or a list of ids.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerProblem {
    /// Not a `tokenizer.json`.
    #[error("{}", printable(.0))]
    Json(String),
    /// A part of the file asks for what GPT-2's tokenizer does not do.
    #[error("{field} {}: expected {expected}", printable(value))]
    Unsupported {
        /// The part.
        field: &'static str,
        /// What it is.
        value: String,
        /// What is supported.
        expected: &'static str,
    },
    /// A token's id is outside the model's vocabulary.
    #[error("token \"{}\" has id {id}: vocab_size {vocab_size} allows 0..{vocab_size}", printable(token))]
    IdOutOfRange {
        /// The token.
        token: String,
        /// Its id.
        id: u64,
        /// The model's vocabulary.
        vocab_size: usize,
    },
    /// Two tokens have one id.
    #[error("tokens \"{}\" and \"{}\" both have id {id}", printable(first), printable(second))]
    SharedId {
        /// One token.
        first: String,
        /// The other.
        second: String,
        /// Their id.
        id: u32,
    },
    /// An added token has another id than in the vocabulary, or is there twice.
    #[error("token \"{}\" has id {first} and id {second}", printable(token))]
    TwoIds {
        /// The token.
        token: String,
        /// One id.
        first: u32,
        /// The other.
        second: u32,
    },
    /// A merge that is not of two tokens into a third, or is there twice.
    #[error("merge {number}, \"{}\" with \"{}\": {}", printable(left), printable(right), printable(problem))]
    Merge {
        /// Its place in the list, from 0.
        number: usize,
        /// The left token.
        left: String,
        /// The right token.
        right: String,
        /// What is wrong.
        problem: String,
    },
    /// The text holds a byte that the vocabulary has no token for.
    #[error("the text holds byte {byte:#04x}, which no token stands for")]
    NoTokenForByte {
        /// The byte.
        byte: u8,
    },
    /// An id that no token has.
    #[error("no token has id {0}")]
    UnknownId(u32),
    /// The `tokenizers` crate refused.
    #[error("{}", printable(.0))]
    Library(String),
}

impl Tokenizer {
    /// Reads a `tokenizer.json` for a model of `vocab_size` tokens; `source` is the file's name in messages.
    ///
    /// # Errors
    /// Anything but byte-level BPE as GPT-2 has it; an id outside the model, or of two tokens; a merge outside the
    /// vocabulary.
    pub fn from_bytes(bytes: &[u8], vocab_size: usize, source: &str) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::build(bytes, vocab_size, source)
            .map_err(|problem| TokenizerError { file: source.to_owned(), problem })
    }

    fn build(json: &[u8], vocab_size: usize, source: &str) -> Result<Tokenizer, TokenizerProblem> {
        let library = |e: tokenizers::Error| TokenizerProblem::Library(e.to_string());
        let file = TokenizerFile::parse(json, vocab_size)?;

        let mut by_id: Vec<(u32, &str)> = file.vocab.iter().map(|(token, id)| (*id, token.as_str())).collect();
        by_id.sort_unstable();
        let mut bytes = Vec::new();
        let mut starts = vec![0];
        for (id, token) in by_id {
            starts.resize(id as usize + 1, bytes.len());
            bytes.extend(token_bytes(token));
            starts.push(bytes.len());
        }
        let split = Gpt2Split::new(&file).map_err(library)?;
        // Added tokens are in the vocabulary too, so that the library takes their ids from there and makes none up.
        let model = BPE::builder()
            .vocab_and_merges(file.vocab.into_iter().collect::<Vocab>(), file.merges)
            .ignore_merges(file.ignore_merges)
            .build()
            .map_err(library)?;
        let mut bpe = TokenizerImpl::new(model);
        bpe.with_pre_tokenizer(Some(split));
        bpe.add_tokens(file.added_tokens.iter().map(|token| AddedToken {
            content: token.content.clone(),
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            normalized: token.normalized,
            special: token.special,
        }))
        .map_err(library)?;
        Ok(Tokenizer { bpe, bytes, starts, source: source.to_owned() })
    }

    /// The token ids of `text`. Time is linear in its length, up to a logarithm.
    ///
    /// # Errors
    /// A byte that the vocabulary has no token for.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match self.bpe.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => Err(self.error(match e.downcast::<TokenizerProblem>() {
                Ok(problem) => *problem,
                Err(e) => TokenizerProblem::Library(e.to_string()),
            })),
        }
    }

    /// The text of `ids`. Bytes that are not UTF-8, as where a character's tokens are cut apart, become U+FFFD.
    ///
    /// # Errors
    /// An id that no token has.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let mut bytes = Vec::new();
        for &id in ids {
            let token = self.token_bytes(id).ok_or_else(|| self.error(TokenizerProblem::UnknownId(id)))?;
            bytes.extend_from_slice(token);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes a token stands for, which may end within a character: text that is streamed token by token is put
    /// together from these, and emitted as far as it is whole. `None` where no token has this id.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let start = *self.starts.get(id as usize)?;
        let end = *self.starts.get(id as usize + 1)?;
        // Every token has at least one byte; ids without a token have none.
        (start < end).then(|| &self.bytes[start..end])
    }

    fn error(&self, problem: TokenizerProblem) -> TokenizerError {
        TokenizerError { file: self.source.clone(), problem }
    }
}

/// The bytes of a token as the vocabulary writes it, a character for each byte. A token with other characters (an
/// added one, usually) stands for its own UTF-8.
fn token_bytes(token: &str) -> Vec<u8> {
    token.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec())
}
