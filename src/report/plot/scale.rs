//! Axes: ticks at round values.

use crate::report::number::plain;

/// A linear axis from `low` to `high` at least, both at ticks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<f64>,
    places: usize,
}

impl Scale {
    /// An axis that holds all finite values, with about so many steps.
    pub(super) fn new(values: impl Iterator<Item = f64>, steps: usize) -> Scale {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = match (low <= high, low == high) {
            (false, _) => (0.0, 1.0),
            (true, true) if low == 0.0 => (0.0, 1.0),
            (true, true) => (low.min(0.0), high.max(0.0)),
            (true, false) => (low, high),
        };
        let raw = (high - low) / steps as f64;
        let power = 10_f64.powf(raw.log10().floor());
        let factor = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw * 0.999);
        let step = factor.unwrap_or(10.0) * power;
        let (first, last) = ((low / step + 1e-9).floor() as i64, (high / step - 1e-9).ceil() as i64);
        let ticks: Vec<f64> = (first..=last).map(|i| i as f64 * step).collect();
        let fine = (step / power - 2.5).abs() < 1e-9;
        let places = (-power.log10().round() + f64::from(u8::from(fine))).max(0.0) as usize;
        Scale { low: ticks[0], high: ticks[ticks.len() - 1], ticks, places }
    }

    /// A share's axis: 0 to 1.
    pub(super) fn shares() -> Scale {
        Scale { low: 0.0, high: 1.0, ticks: vec![0.0, 0.25, 0.5, 0.75, 1.0], places: 2 }
    }

    /// Where a value lies: 0 at the low end, 1 at the high one; ends hold what is beyond them.
    pub(super) fn at(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// A tick's text.
    pub(super) fn text(&self, tick: f64) -> String {
        plain(tick, self.places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        for (low, high) in [(0.0, 1.0), (-0.3, 7.7), (0.001, 0.0042), (-1e-7, 3e-7), (12.0, 12_345.0), (-5.0, -4.0)] {
            let scale = Scale::new([low, high].into_iter(), 5);
            let slack = 1e-8 * (scale.high - scale.low);
            assert!(scale.low <= low + slack && scale.high >= high - slack, "{scale:?}");
            assert!((3..=9).contains(&scale.ticks.len()), "{scale:?}");
            let texts: Vec<String> = scale.ticks.iter().map(|tick| scale.text(*tick)).collect();
            for (text, tick) in texts.iter().zip(&scale.ticks) {
                let read: f64 = text.replace('−', "-").parse().unwrap();
                assert!((read - tick).abs() <= 1e-9 * scale.high.abs().max(scale.low.abs()), "{texts:?}");
            }
        }
        let scale = Scale::new([0.0, 7.0].into_iter(), 4);
        assert_eq!(scale.ticks, [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(Scale::new([0.0, 8.0].into_iter(), 4).ticks, [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn what_is_not_finite_bends_no_axis() {
        let scale = Scale::new([f64::NAN, 0.5, f64::INFINITY, 1.5].into_iter(), 4);
        assert!(scale.low <= 0.5 && scale.high >= 1.5 && scale.high < 3.0);
        assert_eq!(Scale::new(std::iter::empty(), 4).high, 1.0);
        assert_eq!((scale.at(-9.0), scale.at(9.0)), (0.0, 1.0));
    }
}
