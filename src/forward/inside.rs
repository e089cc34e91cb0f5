//! Inside the attention and the LayerNorms of a pass, for modifiers and watchers alone: rows and heads that nobody asks for
//! are left to the kernels.

use super::modify::{Changes, Place, View, scaled};
use super::pass::Pass;
use super::watch::Seen;
use crate::model::LayerNorm;
use crate::plan::Site;
use lesion_kernels::reference::softmax;

impl Pass<'_, '_, '_> {
    /// Where a LayerNorm's scale is frozen or watched: normal holds what the kernel made, which stays where the scale is the
    /// row's own.
    pub(super) fn frozen_norm(&mut self, norm: &LayerNorm, site: Site, layer: usize, changes: &[Changes<'_>]) {
        let width = self.config.n_embd;
        let mut scales = Vec::new();
        for changes in changes {
            for place in changes.places() {
                let row = place.row * width..(place.row + 1) * width;
                let x = &self.work.hidden[row.clone()];
                let own = scale_of(x, self.config.layer_norm_epsilon);
                let frozen = changes.scale(site, &place).filter(|scale| *scale != f64::from(own as f32));
                if let Some(scale) = frozen {
                    scaled(x, &norm.weight, &norm.bias, scale, &mut self.work.normal[row]);
                }
                scales.push(frozen.unwrap_or(own));
            }
        }
        if self.watches(site)
            && let Some(watch) = &mut self.watch
        {
            watch.show((self.executions, layer, site), &View::rows(&mut scales, 1, 1));
        }
    }

    /// Where attention patterns are changed or watched: z holds what the kernel made, which stays where the pattern is the
    /// query's own; queries, keys and values are in wide.
    pub(super) fn patterns(&mut self, layer: usize, changes: &[Changes<'_>]) {
        let watched = [Site::Scores, Site::Pattern].map(|site| self.watches(site));
        if watched == [false; 2] && !self.concerns(Site::Pattern, changes) {
            return;
        }
        let heads = self.config.n_head;
        for changes in changes {
            for place in changes.places() {
                let tokens = changes.spans[place.sequence].past + changes.spans[place.sequence].rows;
                let len = if watched == [false; 2] { 0 } else { heads * tokens };
                let mut seen = [vec![f32::NEG_INFINITY; len], vec![0.0; len]];
                for head in 0..heads {
                    if len > 0 || changes.touch_pattern(head, place.position) {
                        let found = self.pattern(layer, head, changes, &place);
                        for (seen, found) in seen.iter_mut().zip(&found) {
                            let to = seen.iter_mut().skip(head * tokens);
                            to.zip(found).for_each(|(to, p)| *to = *p as f32);
                        }
                    }
                }
                for ((site, values), watched) in [Site::Scores, Site::Pattern].into_iter().zip(&seen).zip(watched) {
                    if watched && let Some(watch) = &mut self.watch {
                        let (execution, rows) = (self.executions, place.row..place.row + 1);
                        (watch.see)(Seen { execution, layer, site, rows, width: len, values });
                    }
                }
            }
        }
    }

    /// Scores and pattern of one query and head, behind what modifiers did to them, and z by it.
    fn pattern(&mut self, layer: usize, head: usize, changes: &Changes<'_>, place: &Place) -> [Vec<f64>; 2] {
        let mut scores = self.scores(layer, head, place);
        let own = softmax(&scores);
        if !changes.touch_pattern(head, place.position) {
            return [scores, own];
        }
        changes.knock_out(&mut scores, head, place);
        let pattern = changes.pattern(&scores, head, place);
        // A watcher saw its own in f32.
        if !own.iter().zip(&pattern).all(|(own, p)| own == p || f64::from(*own as f32) == *p) {
            self.weigh(head, place, &pattern);
        }
        [scores, pattern]
    }

    /// `scale · q kᵀ` of one query and head over the keys up to it.
    fn scores(&self, layer: usize, head: usize, place: &Place) -> Vec<f64> {
        let (width, dim) = (self.config.n_embd, self.config.head_dim());
        let scale = self.config.attention_scale(layer);
        let wide = &self.work.wide;
        let q = &wide[place.row * 3 * width + head * dim..][..dim];
        let first = place.row - place.position;
        let key = |row: usize| &wide[row * 3 * width + width + head * dim..][..dim];
        let product = |k: &[f32]| q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
        (first..=place.row).map(|row| scale * product(key(row))).collect()
    }

    /// `z = pattern · v` of one query and head.
    fn weigh(&mut self, head: usize, place: &Place, pattern: &[f64]) {
        let (width, dim) = (self.config.n_embd, self.config.head_dim());
        let first = place.row - place.position;
        let mut z = vec![0.0_f64; dim];
        for (row, p) in (first..).zip(pattern) {
            let v = &self.work.wide[row * 3 * width + 2 * width + head * dim..][..dim];
            z.iter_mut().zip(v).for_each(|(z, v)| *z += p * f64::from(*v));
        }
        let to = &mut self.work.normal[place.row * width + head * dim..][..dim];
        to.iter_mut().zip(z).for_each(|(to, z)| *to = z as f32);
    }
}

/// What a LayerNorm divides a row by: `√(variance + ε)`.
pub(super) fn scale_of<T: Copy + Into<f64>>(x: &[T], epsilon: f64) -> f64 {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| x.into()).sum::<f64>() / n;
    (x.iter().map(|&x| (x.into() - mean).powi(2)).sum::<f64>() / n + epsilon).sqrt()
}
