//! How numbers are written, in every figure, table and sentence.

/// A value with so many decimal places; a minus sign is one, and very large values have a power of ten.
pub(super) fn plain(value: f64, places: usize) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        value if value.is_infinite() => if value > 0.0 { "∞" } else { "−∞" }.to_owned(),
        value if value.abs() >= 1e5 => format!("{value:.2e}").replace('-', "−"),
        value if is_zero(value, places) => format!("{:.places$}", 0.0),
        value => format!("{value:.places$}").replace('-', "−"),
    }
}

/// A difference, with its sign in either case; `0` where none of its decimal places tells it from 0.
pub(super) fn signed(value: f64, places: usize) -> String {
    match value {
        value if is_zero(value, places) => "0".to_owned(),
        value if value > 0.0 => format!("+{}", plain(value, places)),
        value => plain(value, places),
    }
}

fn is_zero(value: f64, places: usize) -> bool {
    format!("{:.places$}", value.abs()).bytes().all(|byte| matches!(byte, b'0' | b'.'))
}

/// Decimal places that tell values of this size apart.
pub(super) fn places(largest: f64) -> usize {
    match largest {
        large if large >= 100.0 => 0,
        large if large >= 10.0 => 1,
        large if large >= 0.1 => 2,
        large if large >= 0.01 => 3,
        _ => 4,
    }
}

/// A share as per cent: `98 %`, with a space that does not break.
pub(super) fn percent(share: f64) -> String {
    if share.is_nan() { "–".to_owned() } else { format!("{:.0}\u{a0}%", 100.0 * share) }
}

/// A whole number, its thousands apart: `4,096`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// So many of something: `1 plan`, `4,096 plans`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_say_their_sign() {
        assert_eq!([signed(0.5, 2), signed(-0.5, 2), signed(0.001, 2)], ["+0.50", "−0.50", "0"]);
        assert_eq!([signed(f64::NAN, 2), signed(f64::NEG_INFINITY, 2), signed(f64::INFINITY, 2)], ["NaN", "−∞", "+∞"]);
        assert_eq!([plain(-0.001, 2), plain(-0.25, 4), plain(3.0, 1)], ["0.00", "−0.2500", "3.0"]);
        assert_eq!([plain(1e7, 4), signed(-1e7, 0), plain(-f64::NAN, 2)], ["1.00e7", "−1.00e7", "NaN"]);
        assert_eq!([places(120.0), places(0.5), places(0.0)], [0, 2, 4]);
    }

    #[test]
    fn counts_and_shares() {
        assert_eq!([grouped(7), grouped(4096), grouped(1_234_567)], ["7", "4,096", "1,234,567"]);
        assert_eq!([counted(1, "plan"), counted(4096, "plan")], ["1 plan", "4,096 plans"]);
        assert_eq!([percent(0.984), percent(f64::NAN)], ["98\u{a0}%", "–"]);
    }
}
