//! Text from files, made fit for a terminal.

use std::path::Path;

/// The most characters of a foreign name that a message repeats.
const SHOWN: usize = 200;

/// `text` with control characters, terminal escapes and invisible characters written as escapes, cut after 200
/// characters. Names in weights, configs and tokenizers come from strangers: every message passes them through here.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(SHOWN));
    text.chars().take(SHOWN).for_each(|c| push_escaped(&mut shown, c));
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// A path as [`printable`] text, uncut: its end is what tells files apart.
pub(crate) fn printable_path(path: impl AsRef<Path>) -> String {
    let mut shown = String::new();
    path.as_ref().to_string_lossy().chars().for_each(|c| push_escaped(&mut shown, c));
    shown
}

fn push_escaped(shown: &mut String, c: char) {
    match c {
        '"' | '\'' | '\\' => shown.push(c),
        c => shown.extend(c.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_escaped_and_letters_are_kept() {
        assert_eq!(printable("h.0\0\x1b[2J"), "h.0\\0\\u{1b}[2J");
        assert_eq!(printable("\u{202e}\u{200b}"), "\\u{202e}\\u{200b}");
        assert_eq!(printable("Ġcafé \"x\""), "Ġcafé \"x\"");
        assert_eq!(printable(&"a".repeat(500)).chars().count(), SHOWN + 1);
    }
}
