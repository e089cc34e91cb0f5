//! The judgements of `lesion verify`, as pure functions of recorded and found values. A comparison that meets NaN fails.

use serde::Serialize;

use lesion::measure::Number;

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    Passed,
    /// They differ where two tokens are too close to call: not a mismatch.
    Tie,
    Mismatch,
    NotChecked,
}

/// One value compared with its reference.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// Where the recorded value comes from.
    pub(crate) reference: &'static str,
    /// What was run: a layer order, a task.
    pub(crate) case: String,
    /// The canonical plan; none where nothing was run.
    pub(crate) plan: Option<String>,
    /// What is compared.
    pub(crate) quantity: &'static str,
    pub(crate) status: Status,
    /// How far apart, where that is a number.
    pub(crate) error: Option<Number>,
    /// How far apart they may be.
    pub(crate) gate: Option<Number>,
    /// Both values, or why nothing could be compared.
    pub(crate) detail: Option<String>,
}

/// Whether `error` is within `gate`: NaN is not.
pub(crate) fn within(error: f64, gate: f64) -> Status {
    if error <= gate { Status::Passed } else { Status::Mismatch }
}

/// The largest absolute difference; NaN where the lengths differ, or where a difference is NaN. Equal infinities are
/// no difference.
pub(crate) fn max_abs_error(recorded: &[f64], found: &[f64]) -> f64 {
    if recorded.len() != found.len() {
        return f64::NAN;
    }
    recorded.iter().zip(found).map(|(&a, &b)| if a == b { 0.0 } else { (a - b).abs() }).fold(0.0, nan_max)
}

/// The larger of two, NaN if one of them is (`f64::max` would drop it).
pub(crate) fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Whether two rankings agree: where the ids at a rank differ, `gap(recorded, found)`, the distance of the two in
/// logits, has to be below `margin`.
pub(crate) fn ranking(recorded: &[u32], found: &[u32], margin: f64, gap: impl Fn(u32, u32) -> f64) -> Status {
    if recorded.len() != found.len() {
        return Status::Mismatch;
    }
    let differing: Vec<(u32, u32)> =
        recorded.iter().zip(found).filter(|(a, b)| a != b).map(|(a, b)| (*a, *b)).collect();
    if differing.is_empty() {
        Status::Passed
    } else if differing.iter().all(|&(a, b)| gap(a, b) < margin) {
        Status::Tie
    } else {
        Status::Mismatch
    }
}

/// The first index at which two token sequences differ, a shorter one ending there.
pub(crate) fn first_difference(recorded: &[u32], found: &[u32]) -> Option<usize> {
    match recorded.iter().zip(found).position(|(a, b)| a != b) {
        None if recorded.len() == found.len() => None,
        None => Some(recorded.len().min(found.len())),
        found => found,
    }
}

/// Where a completion leaves a recorded text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// Tokens before the departing one.
    pub(crate) tokens: usize,
    /// Bytes of the recorded text that agree with those tokens.
    pub(crate) bytes: usize,
}

/// Compares a completion, as the bytes of its tokens, with a recorded text, whose tokens are unknown. The last token may
/// reach beyond the record; a completion that ends before the record does departs at its end.
pub(crate) fn departure<'a>(recorded: &[u8], tokens: impl IntoIterator<Item = &'a [u8]>) -> Option<Departure> {
    let mut bytes = 0;
    let mut count = 0;
    for token in tokens {
        let rest = &recorded[bytes..];
        if rest.is_empty() {
            return None;
        }
        let shared = rest.len().min(token.len());
        if rest[..shared] != token[..shared] {
            return Some(Departure { tokens: count, bytes });
        }
        bytes += shared;
        count += 1;
    }
    (bytes < recorded.len()).then_some(Departure { tokens: count, bytes })
}

/// Whether a recorded text could as well have gone on from here: whether a token that begins `rest` has a logit within
/// `margin` of the greatest. `token_bytes` are a token's bytes, none for an id without a token.
pub(crate) fn is_tie<'a>(
    rest: &[u8],
    logits: &[f32],
    margin: f64,
    token_bytes: impl Fn(u32) -> Option<&'a [u8]>,
) -> bool {
    if logits.iter().any(|logit| logit.is_nan()) {
        return false;
    }
    let greatest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    (0u32..).zip(logits).any(|(id, &logit)| {
        f64::from(greatest) - f64::from(logit) <= margin
            && token_bytes(id)
                .is_some_and(|bytes| !bytes.is_empty() && (rest.starts_with(bytes) || bytes.starts_with(rest)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_fails_whatever_the_gate() {
        assert_eq!(within(f64::NAN, f64::INFINITY), Status::Mismatch);
        assert!(max_abs_error(&[1.0, f64::NAN, 1.0], &[1.0, 1.0, 1.0]).is_nan());
        assert!(max_abs_error(&[1.0, f64::NAN], &[1.0, f64::NAN]).is_nan());
        assert!(max_abs_error(&[1.0], &[1.0, 1.0]).is_nan());
        assert!(max_abs_error(&[f64::INFINITY], &[f64::NEG_INFINITY]).is_infinite());
        assert_eq!(max_abs_error(&[f64::INFINITY, 1.0], &[f64::INFINITY, 1.5]), 0.5);
        assert_eq!(within(0.5, 0.5), Status::Passed);
        assert_eq!(within(0.5, 0.49), Status::Mismatch);
    }

    #[test]
    fn rankings_may_differ_only_where_tokens_are_close() {
        let logits = [3.0, 2.9995, 1.0, 0.0];
        let gap = |a: u32, b: u32| f64::abs(logits[a as usize] - logits[b as usize]);
        assert_eq!(ranking(&[0, 1, 2], &[0, 1, 2], 2e-3, gap), Status::Passed);
        assert_eq!(ranking(&[1, 0, 2], &[0, 1, 2], 2e-3, gap), Status::Tie);
        assert_eq!(ranking(&[0, 2, 1], &[0, 1, 2], 2e-3, gap), Status::Mismatch);
        assert_eq!(ranking(&[0, 1], &[0, 1, 2], 2e-3, gap), Status::Mismatch);
        assert_eq!(ranking(&[1], &[0], 2e-3, |_, _| f64::NAN), Status::Mismatch);
    }

    #[test]
    fn sequences_differ_at_their_first_difference_or_their_end() {
        assert_eq!(first_difference(&[1, 2], &[1, 2]), None);
        assert_eq!(first_difference(&[1, 2, 3], &[1, 9, 3]), Some(1));
        assert_eq!(first_difference(&[1, 2, 3], &[1, 2]), Some(2));
        assert_eq!(first_difference(&[], &[1]), Some(0));
    }

    fn depart(recorded: &str, tokens: &[&str]) -> Option<Departure> {
        departure(recorded.as_bytes(), tokens.iter().map(|token| token.as_bytes()))
    }

    #[test]
    fn a_completion_departs_at_a_token() {
        assert_eq!(depart(" the cat", &[" the", " cat"]), None);
        assert_eq!(depart(" the cat", &[" the", " cat", " sat"]), None, "the record may be shorter");
        assert_eq!(depart(" the ca", &[" the", " cat"]), None, "the record may end inside a token");
        assert_eq!(depart(" the cat", &[" the", " dog"]), Some(Departure { tokens: 1, bytes: 4 }));
        assert_eq!(depart(" the cat", &[" then"]), Some(Departure { tokens: 0, bytes: 0 }));
        assert_eq!(depart(" the cat", &[" the"]), Some(Departure { tokens: 1, bytes: 4 }), "ours ended early");
        assert_eq!(depart("", &[" the"]), None);
    }

    #[test]
    fn a_departure_is_a_tie_only_where_the_recorded_token_was_as_likely() {
        let tokens: [&[u8]; 4] = [b" dog", b" cat", b" c", b""];
        let bytes = |id: u32| tokens.get(id as usize).copied();
        let tie = |logits: &[f32]| is_tie(b" cat sat", logits, 0.02, bytes);
        assert!(tie(&[5.0, 4.99, 0.0, 0.0]));
        assert!(tie(&[5.0, 0.0, 4.985, 0.0]), "another token that begins the same text");
        assert!(!tie(&[5.0, 4.97, 0.0, 0.0]));
        assert!(!tie(&[5.0, 4.0, 4.0, 4.99]), "a token without bytes begins every text");
        assert!(!tie(&[5.0, f32::NAN, 4.99, 0.0]));
        assert!(!is_tie(b" bird", &[5.0, 5.0, 5.0, 5.0], 0.02, bytes));
    }
}
