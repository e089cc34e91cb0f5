//! Residual states of a pass, of the rows that count.

use super::BridgeError;
use super::samples::Sample;
use crate::forward::{Batch, Session};
use crate::plan::Plan;
use std::collections::BTreeMap;
use std::ops::Range;

/// States by how many steps of the plan have run, `[rows, n_embd]` each, sample after sample.
pub(super) type States = BTreeMap<usize, Vec<f32>>;

/// The states behind these many steps of `plan`.
pub(super) fn states(
    session: &mut Session,
    plan: &Plan,
    samples: &[Sample],
    steps: &[usize],
) -> Result<States, BridgeError> {
    samples.iter().try_for_each(Sample::check)?;
    let width = session.model().config().n_embd;
    let batch = Batch::new(samples.iter().map(|sample| &sample.ids[..]));
    let row = |(number, sample): (usize, &Sample)| -> Range<usize> {
        let first = batch.row(number, 0);
        first + sample.rows.start..first + sample.rows.end
    };
    let rows: Vec<Range<usize>> = samples.iter().enumerate().map(row).collect();
    let mut states = States::new();
    session.residuals(plan, &batch, |residual| {
        if steps.contains(&residual.steps) {
            let kept = rows.iter().flat_map(|rows| &residual.hidden[rows.start * width..rows.end * width]);
            states.insert(residual.steps, kept.copied().collect());
        }
    })?;
    Ok(states)
}

/// In f64.
pub(super) fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}
