//! Activations as they pass: what a watcher of a pass sees. Nothing is copied for sites that nobody watches.

use super::batch::Batch;
use super::error::ForwardError;
use super::modify::View;
use super::session::{Session, Taps, Wanted};
use crate::plan::{Plan, Site};
use lesion_kernels::Floats;
use std::ops::Range;

/// Activations of some rows at a site, behind what modifiers did there.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The execution's number among all of the plan ([`crate::plan::Placed::index`]).
    pub execution: usize,
    /// Its layer.
    pub layer: usize,
    /// Where in it.
    pub site: Site,
    /// The rows of the batch: all of them, or the one of a pattern.
    pub rows: Range<usize>,
    /// Elements of a row (see [`site_width`](super::site_width)).
    pub width: usize,
    /// `[rows, width]`. A pattern is `[heads, tokens of its sequence]`, 0 behind the query's own position.
    pub values: &'a [f32],
}

/// Who watches, and what.
pub(super) struct Watch<'a> {
    /// Whether a site of an execution is watched.
    pub(super) wants: &'a (dyn Fn(usize, Site) -> bool + Sync),
    pub(super) see: &'a mut (dyn FnMut(Seen<'_>) + Send),
    /// Rows on their way to the watcher.
    pub(super) copy: Floats,
}

impl Watch<'_> {
    /// Shows what stands at a site of an execution of a layer.
    pub(super) fn show<T: Copy + Into<f64>>(&mut self, at: (usize, usize, Site), view: &View<'_, T>) {
        let (execution, layer, site) = at;
        let View { x, stride, columns, .. } = view;
        let (rows, width) = (x.len() / stride, columns.len());
        self.copy.resize(rows * width);
        for (to, row) in self.copy.chunks_exact_mut(width).zip(x.chunks_exact(*stride)) {
            to.iter_mut().zip(&row[columns.clone()]).for_each(|(to, x)| *to = (*x).into() as f32);
        }
        (self.see)(Seen { execution, layer, site, rows: 0..rows, width, values: &self.copy });
    }
}

impl Session {
    /// Runs `plan` and shows `see` the activations at the sites that `wants` names by the number of the execution. In f32
    /// (f64 is rounded). What is computed does not change by a bit.
    ///
    /// # Errors
    /// Where batch or plan do not fit the model.
    pub fn watch(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        wants: &(dyn Fn(usize, Site) -> bool + Sync),
        see: &mut (dyn FnMut(Seen<'_>) + Send),
    ) -> Result<(), ForwardError> {
        let watch = Watch { wants, see, copy: Floats::default() };
        self.pass(plan, batch, None, Taps { residual: None, watch: Some(watch) }, Wanted::Nothing)
    }
}
