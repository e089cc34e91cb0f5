//! The middle and the width of repeated measurements.

use serde::Serialize;

/// Median and quartiles of repeated measurements: a disturbed run or two moves none of them far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// A quarter of the measurements are below.
    pub lower_quartile: f64,
    /// A quarter of the measurements are above.
    pub upper_quartile: f64,
}

impl Spread {
    /// Quartiles by linear interpolation between the sorted values.
    ///
    /// # Panics
    /// If there are no values.
    pub fn of(values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (sorted.len() - 1) as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Spread { median: at(0.5), lower_quartile: at(0.25), upper_quartile: at(0.75) }
    }

    /// Half the interquartile range: the ± behind a median.
    pub fn half_width(&self) -> f64 {
        (self.upper_quartile - self.lower_quartile) / 2.0
    }

    /// `amount` over each value, a rate from times.
    pub(super) fn rate(&self, amount: f64) -> Spread {
        Spread {
            median: amount / self.median,
            lower_quartile: amount / self.upper_quartile,
            upper_quartile: amount / self.lower_quartile,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated_and_order_does_not_matter() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Spread { median: 2.5, lower_quartile: 1.75, upper_quartile: 3.25 });
        assert_eq!(spread.half_width(), 0.75);
        assert_eq!(Spread::of(&[7.0]), Spread { median: 7.0, lower_quartile: 7.0, upper_quartile: 7.0 });
        assert_eq!(Spread::of(&[1.0, 1.0, 1.0, 1.0, 100.0]).half_width(), 0.0);
    }

    #[test]
    fn a_rate_turns_the_quartiles_round() {
        let rate = Spread { median: 2.0, lower_quartile: 1.0, upper_quartile: 4.0 }.rate(8.0);
        assert_eq!(rate, Spread { median: 4.0, lower_quartile: 2.0, upper_quartile: 8.0 });
    }
}
