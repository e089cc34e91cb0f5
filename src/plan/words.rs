//! The words of the notation, and what to say about a word it does not have.

use std::fmt::Write as _;

use super::lex::clip;

/// What an edit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    KeepFirst,
    DropLast,
    DropFirst,
    Skip,
    Swap,
    Move,
    Repeat,
    Reverse,
    Shuffle,
}

/// The edits: word and form.
const EDITS: [(Verb, &str, &str); 9] = [
    (Verb::KeepFirst, "keep-first", "keep-first n"),
    (Verb::DropLast, "drop-last", "drop-last n"),
    (Verb::DropFirst, "drop-first", "drop-first n"),
    (Verb::Skip, "skip", "skip i, or skip i..j"),
    (Verb::Swap, "swap", "swap i j"),
    (Verb::Move, "move", "move i j"),
    (Verb::Repeat, "repeat", "repeat i xN"),
    (Verb::Reverse, "reverse", "reverse i..j"),
    (Verb::Shuffle, "shuffle", "shuffle i..j seed S"),
];

/// The verbs of modifiers.
const MODIFIERS: [&str; 6] = ["zero", "mean", "patch", "noise", "steer", "knockout"];

/// The verb of an edit, and the form for the message about one that lacks something.
pub(super) fn edit(word: &str) -> Option<(Verb, &'static str)> {
    EDITS.iter().find(|(_, known, _)| *known == word).map(|(verb, _, form)| (*verb, *form))
}

/// The message for an unknown word where a plan or an edit starts.
pub(super) fn unknown_edit(word: &str) -> String {
    let lower = word.to_ascii_lowercase();
    let hint = match lower.as_str() {
        "remove" | "delete" | "ablate" | "without" => Some("did you mean `skip`?".to_owned()),
        "exchange" => Some("did you mean `swap`?".to_owned()),
        "permute" => Some("did you mean `shuffle`?".to_owned()),
        "intact" | "all" | "full" => Some("the intact plan of 12 layers is written 0..12".to_owned()),
        "empty" | "nothing" => Some("the empty plan is written none".to_owned()),
        _ => None,
    };
    let known = EDITS.map(|(_, word, _)| word);
    let mut message = format!("unknown edit `{}`: ", clip(word));
    match hint.or_else(|| did_you_mean(&lower, &[&known[..], &["none", "par", "bridge"]].concat())) {
        Some(hint) => message.push_str(&hint),
        None => {
            let _ = write!(message, "the edits are {}", known.join(", "));
        }
    }
    message
}

/// The message for an unknown word where an item of a plan stands.
pub(super) fn unknown_item(word: &str) -> String {
    let lower = word.to_ascii_lowercase();
    let hint = match lower.as_str() {
        "shortcut" | "skip-to" => Some("a linear shortcut is written bridge(6:11,name)".to_owned()),
        verb if edit(verb).is_some() => {
            Some("an expression is either a plan or edits, and edits are joined by `;`".to_owned())
        }
        _ => did_you_mean(&lower, &["none", "par", "bridge"]),
    };
    let hint = hint.unwrap_or_else(|| {
        "an item is a layer (5), a range (0..5), a group (4|5), par(4..8) or bridge(6:11,name)".to_owned()
    });
    format!("unknown verb `{}`: {hint}", clip(word))
}

/// The message for an unknown modifier.
pub(super) fn unknown_modifier(word: &str) -> String {
    let lower = word.to_ascii_lowercase();
    let hint = match lower.as_str() {
        "ablate" | "remove" => Some("did you mean `zero` or `mean`?".to_owned()),
        "freeze" | "resample" => Some("did you mean `patch`?".to_owned()),
        "cut" | "mask" | "block" => Some("did you mean `knockout`?".to_owned()),
        "add" => Some("did you mean `steer`?".to_owned()),
        _ => did_you_mean(&lower, &MODIFIERS),
    };
    let hint = hint.unwrap_or_else(|| format!("the modifiers are {}, as in 7[zero h3 h5]", MODIFIERS.join(", ")));
    format!("unknown verb `{}`: {hint}", clip(word))
}

/// "did you mean `skip`?": the words that `word` begins (two letters at least), or else the nearest within two edits.
fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    let begun: Vec<&str> = known.iter().copied().filter(|k| word.len() >= 2 && k.starts_with(word)).collect();
    let found = if begun.is_empty() {
        let (distance, nearest) = known.iter().map(|k| (edit_distance(word, k), *k)).min()?;
        // A word of three letters two edits away shares one letter: no suggestion.
        if distance > 2 || 2 * distance >= word.len().max(nearest.len()) {
            return None;
        }
        vec![nearest]
    } else {
        begun
    };
    Some(format!("did you mean {}?", found.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(" or ")))
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment), over bytes. A word far
/// longer than any known one is not measured: its distance is at least the difference in length.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > 2 {
        return a.len().abs_diff(b.len());
    }
    let width = b.len() + 1;
    let mut table = vec![0; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i * width + j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substitution = table[(i - 1) * width + j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let gap = table[(i - 1) * width + j].min(table[i * width + j - 1]) + 1;
                let crossed = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if crossed { table[(i - 2) * width + j - 2] + 1 } else { usize::MAX };
                substitution.min(gap).min(swap)
            };
        }
    }
    table[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, distance) in
            [("skip", "skip", 0), ("skp", "skip", 1), ("sikp", "skip", 1), ("swpa", "skip", 3), ("", "ab", 2)]
        {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn suggestions() {
        for (word, wanted) in [
            ("skp", "`skip`?"),
            ("Skip", "`skip`?"),
            ("keep", "`keep-first`?"),
            ("keepfirst", "`keep-first`?"),
            ("drop_last", "`drop-last`?"),
            ("drop", "`drop-last` or `drop-first`?"),
            ("suffle", "`shuffle`?"),
            ("remove", "`skip`?"),
            ("non", "`none`?"),
            ("intact", "0..12"),
            ("xyzzy", "the edits are keep-first, drop-last"),
            (&"x".repeat(100_000), "the edits are"),
        ] {
            let message = unknown_edit(word);
            assert!(message.contains(wanted), "{word}: {message}");
        }
        assert!(unknown_modifier("zeor").contains("`zero`?"));
        assert!(unknown_modifier("xyzzy").contains("the modifiers are zero, mean"));
        assert!(unknown_modifier("freeze").contains("`patch`"));
        assert!(unknown_item("brigde").contains("`bridge`?"));
    }
}
