//! Text to tokens, one at a time, so that the leftmost fault is the one reported. Whitespace separates and is
//! otherwise free; letters and digits are separate tokens (`h3` is `h` and `3`), so `x4` and `x 4` are the same.

use std::ops::Range;

use super::error::{Fault, PlanProblem};
use super::modifier::{is_name, is_name_byte};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Number(u64),
    /// ASCII letters, with `-` or `_` between letters.
    Word(&'a str),
    /// `..`
    To,
    /// `..=`
    ToInclusive,
    /// One of `, ; * ( | ) [ ] @ :`
    Symbol(char),
    End,
}

impl Token<'_> {
    /// How an error message names it.
    pub(super) fn describe(self, text: &str) -> String {
        match self {
            Token::End => "the end".to_owned(),
            _ => format!("`{}`", clip(text)),
        }
    }
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    /// The next token and its bytes; [`Token::End`] from the end of the text on.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, Range<usize>), Fault> {
        let rest = self.text[self.at..].trim_start();
        let start = self.text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            self.at = start;
            return Ok((Token::End, start..start));
        };
        let (token, len) = match first {
            '0'..='9' => {
                let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                let value = rest[..len]
                    .parse()
                    .map_err(|_| Fault::new(start..start + len, PlanProblem::Number(clip(&rest[..len]))))?;
                (Token::Number(value), len)
            }
            'a'..='z' | 'A'..='Z' => {
                let len = word_len(rest);
                (Token::Word(&rest[..len]), len)
            }
            ',' | ';' | '*' | '(' | '|' | ')' | '[' | ']' | '@' | ':' => (Token::Symbol(first), 1),
            '.' if rest.starts_with("..=") => (Token::ToInclusive, 3),
            '.' if rest.starts_with("..") => (Token::To, 2),
            _ => return Err(Fault::syntax(start..start + first.len_utf8(), stray(first))),
        };
        self.at = start + len;
        Ok((token, start..self.at))
    }

    /// A decimal number, where one is next: `-0.5`, `1e-3`.
    pub(super) fn decimal(&mut self) -> Option<(f64, Range<usize>)> {
        let (text, span) = self.run(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
        // A range is no decimal.
        let value = text.parse().ok().filter(|_| text.starts_with(|c: char| c.is_ascii_digit() || c == '-'))?;
        self.at = span.end;
        Some((value, span))
    }

    /// A name of letters, digits, `-`, `_` and `.`, where one is next.
    pub(super) fn name(&mut self) -> Option<(&'a str, Range<usize>)> {
        let (text, span) = self.run(is_name_byte);
        self.at = if is_name(text) { span.end } else { return None };
        Some((text, span))
    }

    /// The longest text of such bytes behind the whitespace.
    fn run(&self, belongs: impl Fn(u8) -> bool) -> (&'a str, Range<usize>) {
        let rest = self.text[self.at..].trim_start();
        let start = self.text.len() - rest.len();
        let len = rest.bytes().take_while(|byte| belongs(*byte)).count();
        (&rest[..len], start..start + len)
    }
}

/// Bytes of the word at the start of `rest`, which starts with a letter.
fn word_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut len = 1;
    while let Some(byte) = bytes.get(len) {
        let joins = matches!(byte, b'-' | b'_') && bytes.get(len + 1).is_some_and(u8::is_ascii_alphabetic);
        if !(byte.is_ascii_alphabetic() || joins) {
            break;
        }
        len += 1;
    }
    len
}

/// A token of thousands of characters is not repeated in full in its error. `token` is ASCII.
pub(super) fn clip(token: &str) -> String {
    if token.len() <= 32 { token.to_owned() } else { format!("{}… ({} characters)", &token[..24], token.len()) }
}

fn stray(c: char) -> String {
    let hint = match c {
        '-' | '–' | '—' | '.' | '…' => ": a range is written i..j, or i..=j with its end included",
        '×' => ": repetition is written 3*4 in a plan, `repeat 3 x4` as an edit",
        '=' => ": an inclusive range is written i..=j",
        '{' | '}' | '<' | '>' => ": a group is written (4|5)",
        _ => "",
    };
    format!("unexpected {c:?}{hint}")
}
