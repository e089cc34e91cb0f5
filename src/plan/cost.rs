//! The cost of a plan, in block evaluations.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use super::Part;

/// Block evaluations, exact: a whole block is 1, its attention half 1/3, its MLP half 2/3, a bridge 1/12 (their shares of
/// the multiply-adds of GPT-2's matrices: 4·d², 8·d² and d² of 12·d²).
///
/// Prints as `12` or `7 2/3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cost {
    twelfths: u64,
}

impl Cost {
    /// The cost of a bridge.
    pub const BRIDGE: Cost = Cost { twelfths: 1 };

    /// The cost of one execution.
    pub fn of(part: Part) -> Cost {
        Cost::of_twelfths(match part {
            Part::Block => 12,
            Part::Attention => 4,
            Part::Mlp => 8,
        })
    }

    pub(crate) const fn of_twelfths(twelfths: u64) -> Cost {
        Cost { twelfths }
    }

    /// In twelfths of a block evaluation.
    pub fn twelfths(self) -> u64 {
        self.twelfths
    }

    /// In block evaluations.
    pub fn blocks(self) -> f64 {
        self.twelfths as f64 / 12.0
    }
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { twelfths: self.twelfths + other.twelfths }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), Add::add)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divisor = [12, 6, 4, 3, 2, 1].into_iter().find(|d| self.twelfths.is_multiple_of(*d)).unwrap_or(1);
        match (self.twelfths / 12, self.twelfths % 12) {
            (whole, 0) => write!(f, "{whole}"),
            (0, part) => write!(f, "{}/{}", part / divisor, 12 / divisor),
            (whole, part) => write!(f, "{whole} {}/{}", part / divisor, 12 / divisor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;

    #[test]
    fn costs() {
        for (text, twelfths, printed) in [
            ("none", 0, "0"),
            ("0..12", 144, "12"),
            ("7a", 4, "1/3"),
            ("7m", 8, "2/3"),
            ("7a,7m", 12, "1"),
            ("0..5,6..12,11a", 136, "11 1/3"),
            ("0..4,(4|5|none|7m)*3,8..12", 192, "16"),
            ("7[zero h0]", 12, "1"),
            ("bridge(3:7,fit)", 1, "1/12"),
            ("0..6,bridge(6:11,fit)*3,11", 87, "7 1/4"),
            ("(7a|bridge(3:7,fit))", 5, "5/12"),
        ] {
            let cost = plan(text).cost();
            assert_eq!((cost.twelfths(), cost.to_string().as_str()), (twelfths, printed), "{text}");
            assert_eq!(cost.blocks(), twelfths as f64 / 12.0);
        }
    }
}
