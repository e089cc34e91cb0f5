//! Losses of every token, and their summary.

use super::error::MeasureError;
use crate::forward::{Batch, Session, Target};
use crate::plan::Plan;

/// Rows of one pass at most: bounds the workspace. Results do not depend on it.
const ROWS: usize = 2048;

/// The loss of every predicted token of each sequence under `plan`, in nats; a sequence of n tokens has n − 1.
///
/// Sequences are taken as they are (no BOS is added) and run packed, as many at a time as fit.
///
/// # Errors
/// Where a sequence is empty, longer than the context or has ids outside the vocabulary, or the plan does not fit.
pub fn token_losses(session: &mut Session, plan: &Plan, sequences: &[&[u32]]) -> Result<Vec<Vec<f64>>, MeasureError> {
    let mut losses = Vec::with_capacity(sequences.len());
    let mut rest = sequences;
    while !rest.is_empty() {
        let mut rows = 0;
        let fit = rest.iter().take_while(|ids| {
            rows += ids.len();
            rows <= ROWS
        });
        let (now, later) = rest.split_at(fit.count().max(1));
        rest = later;
        let batch = Batch::new(now.iter().copied());
        let mut targets = Vec::with_capacity(batch.rows());
        for (sequence, ids) in now.iter().enumerate() {
            let predicted = ids.iter().enumerate().skip(1);
            targets.extend(predicted.map(|(i, &id)| Target { row: batch.row(sequence, i - 1), id }));
        }
        let mut scores = session.score(plan, &batch, &targets)?.iter();
        losses.extend(now.iter().map(|ids| scores.by_ref().take(ids.len() - 1).map(|score| score.nll()).collect()));
    }
    Ok(losses)
}

/// Losses added up: the token-weighted mean, in the units people use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSummary {
    /// Predicted tokens.
    pub tokens: usize,
    /// Sum of their losses, nats.
    pub sum: f64,
}

impl LossSummary {
    /// Nats per token; none where no token was predicted.
    pub fn mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.sum / self.tokens as f64)
    }

    /// Bits per token.
    pub fn bits(&self) -> Option<f64> {
        self.mean().map(|nats| nats / std::f64::consts::LN_2)
    }

    /// `exp(mean)`
    pub fn perplexity(&self) -> Option<f64> {
        self.mean().map(f64::exp)
    }
}

impl<'a> FromIterator<&'a f64> for LossSummary {
    fn from_iter<I: IntoIterator<Item = &'a f64>>(losses: I) -> Self {
        losses
            .into_iter()
            .fold(LossSummary::default(), |all, loss| LossSummary { tokens: all.tokens + 1, sum: all.sum + loss })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let summary = LossSummary::from_iter(&[1.0, 2.0, 3.0]);
        assert_eq!((summary.tokens, summary.sum, summary.mean()), (3, 6.0, Some(2.0)));
        assert!((summary.bits().unwrap() - 2.885_390_081_777_927).abs() < 1e-12);
        assert!((summary.perplexity().unwrap() - 7.389_056_098_930_65).abs() < 1e-12);
        assert_eq!(LossSummary::default().mean(), None);
        assert!(LossSummary::from_iter(&[1.0, f64::NAN]).mean().unwrap().is_nan());
    }
}
