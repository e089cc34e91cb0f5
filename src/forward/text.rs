//! Text that comes in pieces: tokens are bytes, and a character or a stop text may span several of them.

/// Collects the bytes of a completion and releases text that is final: whole characters, and nothing that may still
/// turn out to be the start of a stop text.
pub(super) struct TextStream<'a> {
    stop: &'a [String],
    bytes: Vec<u8>,
    released: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(stop: &'a [String]) -> Self {
        TextStream { stop, bytes: Vec::new(), released: 0 }
    }

    /// Takes a token's bytes; true where a stop text is complete, which ends the completion in front of it.
    pub(super) fn push(&mut self, token: &[u8]) -> bool {
        self.bytes.extend_from_slice(token);
        let found = self.stop.iter().filter_map(|stop| find(&self.bytes, stop.as_bytes())).min();
        if let Some(at) = found {
            self.bytes.truncate(at);
        }
        found.is_some()
    }

    /// Text that is final and was not released before.
    pub(super) fn release(&mut self) -> String {
        let pending = &self.bytes[self.released..];
        let held = self.stop.iter().map(|stop| overlap(pending, stop.as_bytes())).max().unwrap_or(0);
        let end = whole_characters(&pending[..pending.len() - held]);
        let text = String::from_utf8_lossy(&pending[..end]).into_owned();
        self.released += end;
        text
    }

    /// The rest, when no token follows. Bytes that are no character become U+FFFD.
    pub(super) fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.bytes[self.released.min(self.bytes.len())..]).into_owned();
        self.released = self.bytes.len();
        text
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// Length of the longest end of `bytes` that starts `stop`.
fn overlap(bytes: &[u8], stop: &[u8]) -> usize {
    (1..stop.len().min(bytes.len() + 1)).rev().find(|&n| bytes.ends_with(&stop[..n])).unwrap_or(0)
}

/// Length of the part that no further byte can change: everything but an unfinished character at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let mut start = 0;
    loop {
        match std::str::from_utf8(&bytes[start..]) {
            Ok(_) => return bytes.len(),
            Err(error) => match error.error_len() {
                Some(bad) => start += error.valid_up_to() + bad,
                None => return start + error.valid_up_to(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(stop: &[&str], tokens: &[&[u8]]) -> (Vec<String>, bool) {
        let stop: Vec<String> = stop.iter().map(|s| s.to_string()).collect();
        let mut stream = TextStream::new(&stop);
        let mut pieces = Vec::new();
        let mut stopped = false;
        for token in tokens {
            stopped = stream.push(token);
            pieces.push(stream.release());
            if stopped {
                break;
            }
        }
        pieces.push(stream.finish());
        (pieces, stopped)
    }

    #[test]
    fn a_character_in_two_tokens_comes_whole() {
        let (pieces, _) = stream(&[], &[b"a\xc3", b"\xa9b", b"\xe4\xb8"]);
        assert_eq!(pieces, ["a", "éb", "", "\u{fffd}"]);
    }

    #[test]
    fn bytes_that_can_never_be_a_character_do_not_hold_up_the_rest() {
        assert_eq!(stream(&[], &[b"\xffok"]).0, ["\u{fffd}ok", ""]);
    }

    #[test]
    fn a_stop_text_across_tokens_is_never_shown() {
        let (pieces, stopped) = stream(&["END", "\n\n"], &[b"one E", b"N", b"Dtwo"]);
        assert_eq!((pieces.concat().as_str(), stopped), ("one ", true));
        let (pieces, stopped) = stream(&["END"], &[b"one E", b"N", b"JOY"]);
        assert_eq!((pieces.concat().as_str(), stopped), ("one ENJOY", false));
        assert_eq!(pieces[0], "one ");
    }

    #[test]
    fn the_first_of_several_stop_texts_wins() {
        assert_eq!(stream(&["b", "ab"], &[b"xab"]).0.concat(), "x");
    }
}
