//! The cost of a plan, in block evaluations.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use super::Part;

/// Block evaluations, exact: a whole block is 1, its attention half 1/3, its MLP half 2/3 (their shares of the
/// multiply-adds of GPT-2's matrices: 4·d² and 8·d² of 12·d²).
///
/// Prints as `12` or `7 2/3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cost {
    thirds: u64,
}

impl Cost {
    /// The cost of one execution.
    pub fn of(part: Part) -> Cost {
        Cost {
            thirds: match part {
                Part::Block => 3,
                Part::Attention => 1,
                Part::Mlp => 2,
            },
        }
    }

    /// In thirds of a block evaluation.
    pub fn thirds(self) -> u64 {
        self.thirds
    }

    /// In block evaluations.
    pub fn blocks(self) -> f64 {
        self.thirds as f64 / 3.0
    }
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { thirds: self.thirds + other.thirds }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), Add::add)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.thirds / 3, self.thirds % 3) {
            (whole, 0) => write!(f, "{whole}"),
            (0, thirds) => write!(f, "{thirds}/3"),
            (whole, thirds) => write!(f, "{whole} {thirds}/3"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;

    #[test]
    fn costs() {
        for (text, thirds, printed) in [
            ("none", 0, "0"),
            ("0..12", 36, "12"),
            ("7a", 1, "1/3"),
            ("7m", 2, "2/3"),
            ("7a,7m", 3, "1"),
            ("0..5,6..12,11a", 34, "11 1/3"),
            ("0..4,(4|5|none|7m)*3,8..12", 48, "16"),
            ("7[zero h0]", 3, "1"),
        ] {
            let cost = plan(text).cost();
            assert_eq!((cost.thirds(), cost.to_string().as_str()), (thirds, printed), "{text}");
            assert_eq!(cost.blocks(), thirds as f64 / 3.0);
        }
    }
}
