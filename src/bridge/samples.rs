//! Texts as sequences of tokens with the rows that count.

use super::BridgeError;
use std::ops::Range;

/// Rows of one pass, unless a single sequence has more.
const ROWS: usize = 512;

/// A sequence, and the rows of it that are looked at; each predicts the token behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// All tokens.
    pub ids: Vec<u32>,
    /// The rows.
    pub rows: Range<usize>,
}

impl Sample {
    /// All rows of a sequence that have a token behind them.
    pub fn whole(ids: Vec<u32>) -> Sample {
        let rows = 0..ids.len().saturating_sub(1);
        Sample { ids, rows }
    }

    pub(super) fn check(&self) -> Result<(), BridgeError> {
        let (rows, tokens) = (self.rows.clone(), self.ids.len());
        match rows.start <= rows.end && rows.end < tokens {
            true => Ok(()),
            false => Err(BridgeError::Rows { rows, tokens }),
        }
    }

    /// The tokens that its rows should have predicted.
    pub(super) fn next(&self) -> &[u32] {
        &self.ids[self.rows.start + 1..self.rows.end + 1]
    }
}

/// Whether sample `number` is held out where `share` of all are: spread evenly, the same whatever else is there.
pub fn held_out(number: usize, share: f64) -> bool {
    let until = |count: usize| (count as f64 * share).floor();
    until(number + 1) > until(number)
}

/// The samples in groups that one pass takes together.
pub fn in_groups(samples: &[Sample]) -> impl Iterator<Item = &[Sample]> {
    let mut rest = samples;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let fit = rest.iter().take_while(|sample| {
            rows += sample.ids.len();
            rows <= ROWS
        });
        let count = fit.count().max(1).min(rest.len());
        let (group, left) = rest.split_at(count);
        rest = left;
        (!group.is_empty()).then_some(group)
    })
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn samples_are_held_out_evenly() {
        let of = |share: f64| (0..20).filter(|&number| held_out(number, share)).collect::<Vec<_>>();
        assert_eq!(of(0.2), [4, 9, 14, 19]);
        assert_eq!(of(0.5).len(), 10);
        assert!(of(0.0).is_empty());
        assert_eq!(of(1.0).len(), 20);
    }

    #[test]
    fn groups_hold_all_samples_once() {
        let samples: Vec<Sample> = [300, 200, 100, 900, 5].map(|n| Sample::whole(vec![0; n])).to_vec();
        let sizes: Vec<usize> = in_groups(&samples).map(<[Sample]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        assert_eq!(in_groups(&[]).count(), 0);
    }

    #[test]
    fn rows_without_a_token_behind_them_are_refused() {
        let sample = |rows| Sample { ids: vec![1, 2, 3], rows };
        assert!(sample(0..2).check().is_ok() && sample(1..1).check().is_ok());
        assert!(sample(0..3).check().is_err());
        assert_eq!(Sample::whole(Vec::new()).rows, 0..0);
        assert!(Sample::whole(Vec::new()).check().is_err());
        assert_eq!(sample(1..2).next(), [3]);
    }
}
