//! A long text as windows of tokens, read piece by piece: never all of it in memory.
//!
//! The windows are those of [`lesion::measure::Windows`]: overlapping, each token scored once. Pieces are encoded one by one.
//! A text may be cut between a character that is no white space and a single space before another one: there a word ends in
//! GPT-2's pattern, whatever stands around, so that the tokens are those of the whole text.

use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::Path;

use lesion::measure::Windows;
use lesion::model::Model;

use super::inputs::{is_stdin, open};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::model::model_failure;
use crate::cli::resolve::tokenizer_failure;
use crate::cli::signals;

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// Bytes without a place to cut them at most: a bound on memory.
const MAX_UNCUT: usize = 64 << 20;

/// The windows of a text.
pub(super) struct TextWindows {
    reader: Box<dyn Read>,
    name: String,
    is_stdin: bool,
    model: Model,
    bos: Option<u32>,
    windows: Windows,
    /// Read and not yet encoded.
    bytes: Vec<u8>,
    /// Bytes before those.
    before: u64,
    ended: bool,
    /// Tokens, BOS not among them, from the first that a window to come may hold.
    ids: Vec<u32>,
    /// How many of these have been scored, or stand only as context.
    scored: usize,
    /// Whether the first window is done.
    begun: bool,
}

impl TextWindows {
    pub(super) fn open(
        path: &Path,
        name: &str,
        model: &Model,
        bos: Option<u32>,
        window: Option<u32>,
        stride: Option<u32>,
    ) -> Result<TextWindows> {
        let context = model.config().n_positions;
        let length = window.map_or(context, |window| window as usize);
        if !(2..=context).contains(&length) {
            return Err(Failure::usage(format!("--window {length}: 2 to {context} tokens (n_positions)")));
        }
        let stride = stride.map_or(Windows::of_context(length).stride, |stride| stride as usize);
        if !(1..length).contains(&stride) {
            return Err(Failure::usage(format!("--stride {stride}: 1 to {} tokens, less than the window", length - 1)));
        }
        Ok(TextWindows {
            reader: open(path)?,
            name: name.to_owned(),
            is_stdin: is_stdin(path),
            model: model.clone(),
            bos,
            windows: Windows { length, stride },
            bytes: Vec::new(),
            before: 0,
            ended: false,
            ids: Vec::new(),
            scored: 0,
            begun: false,
        })
    }

    /// The tokens of the next window and those of them that are scored.
    pub(super) fn next(&mut self) -> Result<Option<(Vec<u32>, Range<usize>)>> {
        let Windows { length, stride } = self.windows;
        let own = length - usize::from(self.bos.is_some());
        if !self.begun {
            self.begun = true;
            self.fill(own)?;
            let end = self.ids.len().min(own);
            let window: Vec<u32> = self.bos.into_iter().chain(self.ids[..end].iter().copied()).collect();
            if window.len() < 2 {
                let message = format!("{}: {} tokens, none of which can be predicted", self.name, window.len());
                return Err(Failure::new(Exit::BadFile, message));
            }
            self.scored = end;
            let scored = 1..window.len();
            return Ok(Some((window, scored)));
        }
        self.fill(self.scored + stride)?;
        let end = self.ids.len().min(self.scored + stride);
        let new = end - self.scored;
        if new == 0 {
            return Ok(None);
        }
        let window: Vec<u32> = self.bos.into_iter().chain(self.ids[end - own..end].iter().copied()).collect();
        // Later windows reach back less than a whole one behind what is scored.
        self.ids.drain(..end - own);
        self.scored = own;
        Ok(Some((window, length - new..length)))
    }

    /// Encodes until there are so many tokens, or no more.
    fn fill(&mut self, tokens: usize) -> Result<()> {
        while self.ids.len() < tokens && !(self.ended && self.bytes.is_empty()) {
            self.read()?;
            let end = if self.ended { Some(self.bytes.len()) } else { cut(&self.bytes) };
            let Some(end) = end else {
                if self.bytes.len() > MAX_UNCUT {
                    let message = format!("{}: {MAX_UNCUT} bytes without a space between words", self.name);
                    return Err(Failure::new(Exit::BadFile, message));
                }
                continue;
            };
            let text = std::str::from_utf8(&self.bytes[..end]).map_err(|error| {
                let at = self.before + error.valid_up_to() as u64;
                // What is piped is the command line's, as everywhere.
                let exit = if self.is_stdin { Exit::Usage } else { Exit::BadFile };
                Failure::new(exit, format!("{}: not UTF-8 at byte {at}", self.name))
            })?;
            let tokenizer = self.model.tokenizer().map_err(|error| model_failure(&error))?;
            self.ids.extend(tokenizer.encode(text).map_err(|error| tokenizer_failure(&error))?);
            self.bytes.drain(..end);
            self.before += end as u64;
        }
        Ok(())
    }

    /// A further piece.
    fn read(&mut self) -> Result<()> {
        let wanted = self.bytes.len() + PIECE;
        while self.bytes.len() < wanted && !self.ended {
            signals::check()?;
            let filled = self.bytes.len();
            self.bytes.resize(wanted, 0);
            let read = self.reader.read(&mut self.bytes[filled..]);
            self.bytes.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::io("read", &self.name, &error)),
            }
        }
        Ok(())
    }
}

/// The last place where the text may be cut: a space between two bytes that are no white space and, since white space may be
/// of several bytes, are ASCII.
fn cut(bytes: &[u8]) -> Option<usize> {
    let solid = |byte: u8| byte.is_ascii_graphic();
    (1..bytes.len().saturating_sub(1)).rev().find(|&i| bytes[i] == b' ' && solid(bytes[i - 1]) && solid(bytes[i + 1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lesion::forward::{Session, SessionOptions};
    use lesion::measure::windowed_losses;

    /// A reader that gives a few bytes at a time.
    struct Slow(Vec<u8>, usize);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let n = into.len().min(7).min(self.0.len() - self.1);
            into[..n].copy_from_slice(&self.0[self.1..self.1 + n]);
            self.1 += n;
            Ok(n)
        }
    }

    fn windows(text: &str, bos: bool, length: usize, stride: usize) -> TextWindows {
        let model = Model::mini().unwrap();
        TextWindows {
            reader: Box::new(Slow(text.as_bytes().to_vec(), 0)),
            name: "t".to_owned(),
            is_stdin: false,
            bos: bos.then(|| model.bos().unwrap()),
            model,
            windows: Windows { length, stride },
            bytes: Vec::new(),
            before: 0,
            ended: false,
            ids: Vec::new(),
            scored: 0,
            begun: false,
        }
    }

    fn all(mut windows: TextWindows) -> Vec<(Vec<u32>, Range<usize>)> {
        std::iter::from_fn(|| windows.next().unwrap()).collect()
    }

    const TEXT: &str =
        "One day, Tom's dog  ran\n\n to the café. \u{3000}Émile said:  \"it's 12 o'clock\" , and so on. The end. ";

    /// The losses of windows are those of the whole text's windowed losses: the same tokens, scored once each.
    #[test]
    fn windows_are_those_of_the_measure() {
        let model = Model::mini().unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let mut session = Session::new(&model, SessionOptions { threads: 1, ..SessionOptions::default() }).unwrap();
        let plan = model.plan("0..12").unwrap();
        let text = TEXT.repeat(3);
        for bos in [false, true] {
            let own = tokenizer.encode(&text).unwrap();
            let ids: Vec<u32> = bos.then(|| model.bos().unwrap()).into_iter().chain(own).collect();
            for (length, stride) in [(256, 128), (20, 10), (9, 1), (30, 29), (2, 1)] {
                let want = windowed_losses(&mut session, &plan, &ids, bos.then(|| ids[0]), Windows { length, stride })
                    .unwrap();
                let mut got = Vec::new();
                for (window, scored) in all(windows(&text, bos, length, stride)) {
                    let losses = model.loss(&window, &plan).unwrap();
                    assert_eq!(losses.tokens, window.len() - 1);
                    let all = lesion::measure::token_losses(&mut session, &plan, &[&window]).unwrap().concat();
                    got.extend(scored.map(|i| all[i - 1]));
                }
                assert_eq!(got, want, "{length} {stride} {bos}");
            }
        }
    }

    #[test]
    fn a_text_may_be_cut_where_it_is_cut() {
        let model = Model::mini().unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let whole = tokenizer.encode(TEXT).unwrap();
        for end in (0..TEXT.len()).filter_map(|end| cut(&TEXT.as_bytes()[..end])) {
            let parts = [tokenizer.encode(&TEXT[..end]).unwrap(), tokenizer.encode(&TEXT[end..]).unwrap()].concat();
            assert_eq!(parts, whole, "{:?} | {:?}", &TEXT[..end], &TEXT[end..]);
        }
        assert_eq!(cut(b"nospaces"), None);
        assert_eq!(cut(b"two  spaces "), None);
    }

    #[test]
    fn what_can_not_be_read_is_refused() {
        let mut nothing = windows("", true, 10, 5);
        assert!(nothing.next().unwrap_err().to_string().contains("t: 1 tokens, none of which can be predicted"));
        let mut bad = windows("", true, 10, 5);
        bad.reader = Box::new(Slow(b"ab cd \xff x".to_vec(), 0));
        assert!(bad.next().unwrap_err().to_string().contains("t: not UTF-8 at byte 6"));
    }
}
