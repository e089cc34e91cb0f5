//! How GPT-2 cuts text into words before BPE, and writes their bytes as characters.
//!
//! The words are those of GPT-2's pattern
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! The look-ahead `\s+(?!\S)` is done by hand: with it the regex engine backtracks on a stack, which overflows on a
//! million spaces, and the `tokenizers` crate then goes on as if there were no more words. Without it the pattern is
//! matched in linear time.

use tokenizers::pattern::Pattern;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::utils::SysRegex;
use tokenizers::{Offsets, PreTokenizedString, PreTokenizer};

use super::tokenizer::TokenizerProblem;
use super::tokenizer_file::TokenizerFile;

/// The pattern without its look-ahead.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

/// The pre-tokenizer `ByteLevel` of `tokenizer.json`.
#[derive(Debug)]
pub(super) struct Gpt2Split {
    words: Option<Words>,
    add_prefix_space: bool,
    /// Which bytes have a token of their own: all, in an honest vocabulary. The library drops the others.
    covered: [bool; 256],
}

#[derive(Debug)]
struct Words(SysRegex);

impl Gpt2Split {
    /// With `use_regex` false, the text is one word.
    pub(super) fn new(file: &TokenizerFile) -> tokenizers::Result<Gpt2Split> {
        let words = if file.use_regex { Some(Words(SysRegex::new(WORDS)?)) } else { None };
        let mut covered = [false; 256];
        for token in file.vocab.keys() {
            let mut chars = token.chars();
            if let (Some(byte), None) = (chars.next().and_then(byte_of), chars.next()) {
                covered[byte as usize] = true;
            }
        }
        Ok(Gpt2Split { words, add_prefix_space: file.add_prefix_space, covered })
    }
}

impl PreTokenizer for Gpt2Split {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        text.split(|_, mut part| {
            if self.add_prefix_space && !part.get().starts_with(' ') {
                part.prepend(" ");
            }
            if let Some(at) = part.get().bytes().position(|byte| !self.covered[byte as usize]) {
                let byte = part.get().as_bytes()[at];
                return Err(Box::new(TokenizerProblem::NoTokenForByte { byte }));
            }
            match &self.words {
                Some(words) => part.split(words, SplitDelimiterBehavior::Isolated),
                None => Ok(vec![part]),
            }
        })?;
        // The rest of its work, bytes to characters, is the library's.
        ByteLevel::new(false, false, false).pre_tokenize(text)
    }
}

impl Pattern for &Words {
    fn find_matches(&self, text: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        let mut words = Vec::new();
        let mut from = 0;
        // Each pass ends with the text, or with white space that a word follows.
        while from < text.len() {
            let base = from;
            for (start, end) in self.0.find_iter(&text[base..]) {
                let (start, end) = (base + start, base + end);
                // `\s+(?!\S)`: white space before a word leaves its last character to the word.
                let last = text[start..end].char_indices().next_back().filter(|(_, c)| c.is_whitespace());
                match last {
                    Some((at, _)) if at > 0 && end < text.len() => {
                        words.push(((start, start + at), true));
                        from = start + at;
                        break;
                    }
                    _ => {
                        words.push(((start, end), true));
                        from = end;
                    }
                }
            }
            if from == base {
                // The pattern matches any character, so this is never reached; if it were, no text may be lost.
                words.push(((base, text.len()), false));
                from = text.len();
            }
        }
        Ok(words)
    }
}

/// The byte that a character of the byte-level alphabet stands for: printable Latin-1 characters are themselves, the
/// other bytes count up from U+0100.
pub(super) fn byte_of(c: char) -> Option<u8> {
    match c as u32 {
        b @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(b as u8),
        b @ 0x100..=0x120 => Some((b - 0x100) as u8),
        b @ 0x121..=0x142 => Some((b - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut bytes: Vec<u8> = ByteLevel::alphabet().into_iter().filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(
            (byte_of('Ġ'), byte_of('Ċ'), byte_of(' '), byte_of('\u{144}')),
            (Some(b' '), Some(b'\n'), None, None)
        );
    }

    #[test]
    fn the_words_cover_the_text() {
        let words = Words(SysRegex::new(WORDS).unwrap());
        let split = |text: &str| -> Vec<String> {
            (&words).find_matches(text).unwrap().iter().map(|((s, e), _)| text[*s..*e].to_owned()).collect()
        };
        assert_eq!(split("a   b"), ["a", "  ", " b"]);
        assert_eq!(split("a \n\tb  "), ["a", " \n", "\t", "b", "  "]);
        assert_eq!(split("it's  's 12é!?"), ["it", "'s", " ", " '", "s", " 12", "é", "!?"]);
        assert_eq!(split(""), [""; 0]);
    }
}
