//! The forward pass in f64, for settling arguments. The same plans as `pass`, in plain Rust without kernels: every sum
//! runs in one order, each element on one thread, so results depend neither on the batch nor on the threads.
//!
//! Weights are widened on the way, a panel of [`PANEL`] outputs at a time: no copy of the model is ever held. Hidden
//! states are f64, `[rows, n_embd]` row-major; only logits that are returned and the states that a tap sees are rounded
//! to f32.

use super::batch::Batch;
use super::bridges::{Bridges, LinearMap};
use super::cache::Cache;
use super::inside::scale_of;
use super::modify::{Changes, Place, View, scaled};
use super::pass::{NO_BRIDGES, NONE, Residual, Tap};
use super::references::References;
use super::session::{Taps, Target};
use super::watch::{Seen, Watch};
use crate::model::{Config, LayerNorm, Linear, Model, Parameters};
use crate::plan::{Bridge, Execution, Part, Site, Step};
use lesion_kernels::reference::{cross_entropy, gelu, layer_norm};
use lesion_kernels::{Candidate, Layout, RowScore, WeightMatrix};
use rayon::prelude::*;
use std::ops::Range;

/// Outputs whose weights are widened together, and whose sums are taken side by side.
const PANEL: usize = 16;

/// Rows whose logits are held at a time: 26 MB for GPT-2's vocabulary, and as much again while they are computed.
const LOGIT_ROWS: usize = 64;

/// Keys and values of one execution for one sequence, `[tokens, n_embd]` each.
#[derive(Clone, Default)]
pub(super) struct KeysValues {
    keys: Vec<f64>,
    values: Vec<f64>,
}

/// A forward pass under way. It runs on the rayon pool it is called in.
pub(super) struct Pass<'a> {
    config: &'a Config,
    parameters: &'a Parameters,
    batch: &'a Batch,
    /// The residual stream.
    hidden: Vec<f64>,
    /// Keys and values of the attentions still to come, in the order of execution, where a cache keeps them.
    kept: Option<std::slice::IterMut<'a, KeysValues>>,
    /// What modifiers find by name in sequences that have nothing of their own.
    references: &'a References,
    /// What bridges find.
    bridges: &'a Bridges,
    watch: Option<Watch<'a>>,
    /// Executions so far, in all and of each layer.
    executions: usize,
    occurrences: Vec<usize>,
}

impl<'a> Pass<'a> {
    /// Everything is checked: ids, lengths, plan, cache.
    pub(super) fn new(model: &'a Model, batch: &'a Batch, cache: Option<&'a mut Cache>) -> Self {
        let (config, parameters) = (model.config(), model.parameters());
        let kept = cache.map(|cache| cache.exact.iter_mut());
        let hidden = vec![0.0; batch.rows() * config.n_embd];
        let occurrences = vec![0; config.n_layer];
        let (references, bridges) = (&NONE, &NO_BRIDGES);
        Pass { config, parameters, batch, hidden, kept, references, bridges, watch: None, executions: 0, occurrences }
    }

    /// With states from elsewhere, `[rows, n_embd]`, as its final ones.
    pub(super) fn of_states(model: &'a Model, batch: &'a Batch, states: &[f32]) -> Self {
        Pass { hidden: widened(states), ..Pass::new(model, batch, None) }
    }

    /// Leaves the final residual stream in `hidden`.
    pub(super) fn run(&mut self, steps: &[Step], references: &'a References, bridges: &'a Bridges, taps: Taps<'a>) {
        let Taps { residual: mut tap, watch } = taps;
        (self.references, self.bridges, self.watch) = (references, bridges, watch);
        self.embed();
        self.tap(&mut tap, 0);
        for (k, step) in steps.iter().enumerate() {
            self.step(step);
            self.tap(&mut tap, k + 1);
        }
    }

    fn tap(&self, tap: &mut Option<Tap<'_>>, steps: usize) {
        if let Some(tap) = tap {
            let hidden: Vec<f32> = self.hidden.iter().map(|&h| h as f32).collect();
            tap(Residual { steps, hidden: &hidden });
        }
    }

    /// `h = wte[token] + wpe[position]`
    fn embed(&mut self) {
        let width = self.config.n_embd;
        let (wte, wpe) = (self.parameters.wte.data(), self.parameters.wpe.data());
        let (mut token, mut position) = (vec![0.0; width], vec![0.0; width]);
        for span in &self.batch.spans {
            for i in 0..span.rows {
                let row = span.first_row + i;
                wte.widen_into(self.batch.ids[row] as usize * width, &mut token);
                wpe.widen_into((span.past + i) * width, &mut position);
                let hidden = &mut self.hidden[row * width..][..width];
                for ((h, &t), &p) in hidden.iter_mut().zip(&token).zip(&position) {
                    *h = f64::from(t) + f64::from(p);
                }
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Block(execution) => self.execute(execution),
            Step::Group(branches) => self.group(branches),
            Step::Bridge(bridge) => self.bridge(bridge),
        }
    }

    /// `h ← h · A + b`
    fn bridge(&mut self, bridge: &Bridge) {
        let bridges = self.bridges;
        self.cross(bridges.find(bridge).expect("bridges are checked"));
    }

    /// States from elsewhere behind a map, rounded to f32.
    pub(super) fn crossed(mut self, map: &LinearMap, out: &mut [f32]) {
        self.cross(map);
        out.iter_mut().zip(&self.hidden).for_each(|(out, h)| *out = *h as f32);
    }

    fn cross(&mut self, map: &LinearMap) {
        if !map.is_identity() {
            let bias = widened(map.bias());
            self.hidden = product(&self.hidden, &map.matrix());
            self.hidden.chunks_exact_mut(bias.len()).for_each(|row| add(row, &bias));
        }
    }

    fn execute(&mut self, execution: &Execution) {
        let Execution { layer, part, modifiers } = execution;
        let (source, all, occurrence) = (self.batch, self.references, self.occurrences[*layer]);
        let changes = Changes { first_row: 0, spans: &source.spans, source, all, layer: *layer, occurrence, modifiers };
        self.residual(Site::Pre, &changes);
        if *part != Part::Mlp {
            self.attention(&changes);
        }
        if *part == Part::Block {
            self.residual(Site::Mid, &changes);
        }
        if *part != Part::Attention {
            self.mlp(&changes);
        }
        self.residual(Site::Post, &changes);
        self.occurrences[*layer] += 1;
        self.executions += 1;
    }

    fn residual(&mut self, site: Site, changes: &Changes<'_>) {
        let mut hidden = std::mem::take(&mut self.hidden);
        self.at(site, changes, View::rows(&mut hidden, self.config.n_embd, 1));
        self.hidden = hidden;
    }

    /// What modifiers and watchers do at a site.
    fn at(&mut self, site: Site, changes: &Changes<'_>, mut view: View<'_, f64>) {
        changes.apply(site, &mut view);
        if self.watches(site)
            && let Some(watch) = &mut self.watch
        {
            watch.show((self.executions, changes.layer, site), &view);
        }
    }

    fn watches(&self, site: Site) -> bool {
        self.watch.as_ref().is_some_and(|watch| (watch.wants)(self.executions, site))
    }

    /// `h ← h + c_proj(attention(c_attn(ln_1(h))))`
    fn attention(&mut self, changes: &Changes<'_>) {
        let block = &self.parameters.h[changes.layer];
        let (width, units) = (self.config.n_embd, self.config.n_head);
        let mut qkv = linear(&self.frozen_normal(&block.ln_1, Site::Ln1, changes), &block.attn.c_attn);
        for (i, site) in [Site::Q, Site::K, Site::V].into_iter().enumerate() {
            let columns = i * width..(i + 1) * width;
            self.at(site, changes, View { x: &mut qkv, stride: 3 * width, columns, units });
        }
        let mut z = self.heads(changes, &qkv);
        self.at(Site::Z, changes, View::rows(&mut z, width, units));
        let mut out = linear(&z, &block.attn.c_proj);
        self.at(Site::Attn, changes, View::rows(&mut out, width, 1));
        add(&mut self.hidden, &out);
    }

    /// The heads' outputs z, `[rows, n_embd]`.
    fn heads(&mut self, changes: &Changes<'_>, qkv: &[f64]) -> Vec<f64> {
        let (width, dim, heads) = (self.config.n_embd, self.config.head_dim(), self.config.n_head);
        let scale = self.config.attention_scale(changes.layer);
        let watched = [Site::Scores, Site::Pattern].map(|site| self.watches(site));
        let any_watched = watched != [false; 2];
        let mut z = vec![0.0; self.hidden.len()];
        let mut fresh = KeysValues::default();
        let kept = self.kept.as_mut().map(|kept| kept.next().expect("keys and values for each attention"));
        let store = kept.unwrap_or(&mut fresh);
        for (sequence, span) in self.batch.spans.iter().enumerate() {
            let qkv = &qkv[span.first_row * 3 * width..][..span.rows * 3 * width];
            store.keys.truncate(span.past * width);
            store.values.truncate(span.past * width);
            for row in qkv.chunks_exact(3 * width) {
                store.keys.extend_from_slice(&row[width..2 * width]);
                store.values.extend_from_slice(&row[2 * width..]);
            }
            let KeysValues { keys, values } = &*store;
            let z = z[span.first_row * width..][..span.rows * width].par_chunks_exact_mut(width);
            let all = span.past + span.rows;
            let patterns = z.zip(qkv.par_chunks_exact(3 * width)).enumerate().map(|(i, (z, qkv))| {
                let place = Place { row: span.first_row + i, sequence, position: span.past + i };
                let tokens = place.position + 1;
                let len = if any_watched { heads * all } else { 0 };
                let mut seen = [vec![f32::NEG_INFINITY; len], vec![0.0; len]];
                for head in 0..heads {
                    let at = head * dim..(head + 1) * dim;
                    let keys = columns(&keys[..tokens * width], width, at.clone());
                    let values = columns(&values[..tokens * width], width, at.clone());
                    let mut scores = scores(&qkv[at.clone()], keys, scale);
                    changes.knock_out(&mut scores, head, &place);
                    let pattern = changes.pattern(&scores, head, &place);
                    weigh(&pattern, values, &mut z[at]);
                    if any_watched {
                        for (seen, found) in seen.iter_mut().zip([&scores, &pattern]) {
                            let to = &mut seen[head * all..][..tokens];
                            to.iter_mut().zip(found).for_each(|(to, p)| *to = *p as f32);
                        }
                    }
                }
                seen
            });
            let patterns: Vec<[Vec<f32>; 2]> = patterns.collect();
            for (row, seen) in (span.first_row..).zip(&patterns) {
                for ((site, values), watched) in [Site::Scores, Site::Pattern].into_iter().zip(seen).zip(watched) {
                    if watched && let Some(watch) = &mut self.watch {
                        let (execution, layer, rows) = (self.executions, changes.layer, row..row + 1);
                        (watch.see)(Seen { execution, layer, site, rows, width: values.len(), values });
                    }
                }
            }
        }
        z
    }

    /// `h ← h + c_proj(gelu(c_fc(ln_2(h))))`
    fn mlp(&mut self, changes: &Changes<'_>) {
        let block = &self.parameters.h[changes.layer];
        let neurons = self.config.n_inner;
        let mut inner = linear(&self.frozen_normal(&block.ln_2, Site::Ln2, changes), &block.mlp.c_fc);
        self.at(Site::Inner, changes, View::rows(&mut inner, neurons, neurons));
        inner.par_iter_mut().for_each(|x| *x = gelu(*x));
        self.at(Site::Neurons, changes, View::rows(&mut inner, neurons, neurons));
        let mut out = linear(&inner, &block.mlp.c_proj);
        self.at(Site::Mlp, changes, View::rows(&mut out, self.config.n_embd, 1));
        add(&mut self.hidden, &out);
    }

    /// LayerNorm of the residual stream, its scale frozen where a modifier says so.
    fn frozen_normal(&mut self, norm: &LayerNorm, site: Site, changes: &Changes<'_>) -> Vec<f64> {
        let width = self.config.n_embd;
        let mut normal = self.normal(norm, &self.hidden);
        let mut scales = Vec::with_capacity(self.batch.rows());
        for place in changes.places() {
            let row = place.row * width..(place.row + 1) * width;
            let x = &self.hidden[row.clone()];
            let own = scale_of(x, self.config.layer_norm_epsilon);
            let frozen = changes.scale(site, &place).filter(|scale| *scale != f64::from(own as f32));
            if let Some(scale) = frozen {
                scaled(x, &norm.weight, &norm.bias, scale, &mut normal[row]);
            }
            scales.push(frozen.unwrap_or(own));
        }
        if self.watches(site)
            && let Some(watch) = &mut self.watch
        {
            watch.show((self.executions, changes.layer, site), &View::rows(&mut scales, 1, 1));
        }
        let output = if site == Site::Ln1 { Site::Normal1 } else { Site::Normal2 };
        self.at(output, changes, View::rows(&mut normal, width, 1));
        normal
    }

    /// `h ← mean over the branches of branch(h)`
    fn group(&mut self, branches: &[Vec<Step>]) {
        let start = self.hidden.clone();
        let mut sum = vec![0.0; start.len()];
        for branch in branches {
            self.hidden.copy_from_slice(&start);
            for step in branch {
                self.step(step);
            }
            add(&mut sum, &self.hidden);
        }
        let n = branches.len() as f64;
        self.hidden.iter_mut().zip(&sum).for_each(|(h, sum)| *h = sum / n);
    }

    /// Scores the rows of `targets`.
    pub(super) fn score(
        &self,
        targets: &[Target],
        count: usize,
        scores: &mut Vec<RowScore>,
        greatest: &mut Vec<Candidate>,
    ) {
        scores.clear();
        greatest.clear();
        let vocab_size = self.config.vocab_size;
        for targets in targets.chunks(LOGIT_ROWS) {
            let logits = self.unembed(targets.iter().map(|target| target.row));
            greatest.extend(logits.chunks_exact(vocab_size).flat_map(|logits| greatest_of(logits, count)));
            let rows = logits.par_chunks_exact(vocab_size).zip(targets);
            scores.par_extend(rows.map(|(logits, target)| {
                let (_, log_sum_exp, entropy, rank) = cross_entropy(logits, target.id as usize);
                RowScore { target_logit: logits[target.id as usize], log_sum_exp, entropy, rank }
            }));
        }
    }

    /// The logits of `rows`, `[rows, vocab_size]`, rounded to f32.
    pub(super) fn logits(&self, rows: Range<usize>, logits: &mut Vec<f32>) {
        logits.clear();
        for first in rows.clone().step_by(LOGIT_ROWS) {
            let wide = self.unembed(first..rows.end.min(first + LOGIT_ROWS));
            logits.extend(wide.iter().map(|&logit| logit as f32));
        }
    }

    /// `ln_f(h) · wteᵀ` of `rows`
    fn unembed(&self, rows: impl IntoIterator<Item = usize>) -> Vec<f64> {
        let width = self.config.n_embd;
        let selected: Vec<f64> =
            rows.into_iter().flat_map(|row| &self.hidden[row * width..][..width]).copied().collect();
        product(&self.normal(&self.parameters.ln_f, &selected), &self.parameters.unembedding())
    }

    /// LayerNorm of each row of `x`.
    fn normal(&self, norm: &LayerNorm, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = (widened(&norm.weight), widened(&norm.bias));
        let eps = self.config.layer_norm_epsilon;
        x.chunks_exact(weight.len()).flat_map(|row| layer_norm(row, &weight, &bias, eps)).collect()
    }
}

/// The columns `at` of each row of `x`, `[rows, width]`.
fn columns(x: &[f64], width: usize, at: Range<usize>) -> impl Iterator<Item = &[f64]> {
    x.chunks_exact(width).map(move |row| &row[at.clone()])
}

/// `scale · q kᵀ` of one query over the keys of the tokens up to it.
fn scores<'a>(q: &[f64], keys: impl Iterator<Item = &'a [f64]>, scale: f64) -> Vec<f64> {
    keys.map(|k| scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>()).collect()
}

/// `z = pattern · v` of one query. z is zero before.
fn weigh<'a>(pattern: &[f64], values: impl Iterator<Item = &'a [f64]>, z: &mut [f64]) {
    for (p, v) in pattern.iter().zip(values) {
        z.iter_mut().zip(v).for_each(|(z, v)| *z += p * v);
    }
}

/// `x · weight + bias`, x being `[rows, in]`.
fn linear(x: &[f64], linear: &Linear) -> Vec<f64> {
    let mut out = product(x, &linear.matrix());
    let bias = widened(&linear.bias);
    out.chunks_exact_mut(bias.len()).for_each(|row| add(row, &bias));
    out
}

/// `x · b`, x being `[rows, k]`: each element is summed over k in order, on the thread that has its panel.
fn product(x: &[f64], b: &WeightMatrix<'_>) -> Vec<f64> {
    let rows = x.len() / b.k;
    let sums_of_panel = |first: usize| -> Vec<[f64; PANEL]> {
        let weights = panel(b, first);
        let sums = |x: &[f64]| {
            let mut sums = [0.0; PANEL];
            for (x, weights) in x.iter().zip(&weights) {
                sums.iter_mut().zip(weights).for_each(|(sum, w)| *sum += x * w);
            }
            sums
        };
        x.chunks_exact(b.k).map(sums).collect()
    };
    let panels: Vec<_> = (0..b.n).step_by(PANEL).collect();
    let panels: Vec<_> = panels.into_par_iter().map(sums_of_panel).collect();
    let mut out = Vec::with_capacity(rows * b.n);
    for row in 0..rows {
        out.extend(panels.iter().flat_map(|sums| sums[row]).take(b.n));
    }
    out
}

/// The weights of the outputs from `first` on, `[k][PANEL]`; zero behind the last output.
fn panel(b: &WeightMatrix<'_>, first: usize) -> Vec<[f64; PANEL]> {
    let width = PANEL.min(b.n - first);
    let mut panel = vec![[0.0; PANEL]; b.k];
    match b.layout {
        Layout::InOut => {
            let mut row = [0.0; PANEL];
            for (i, panel) in panel.iter_mut().enumerate() {
                b.data.widen_into(i * b.n + first, &mut row[..width]);
                *panel = row.map(f64::from);
            }
        }
        Layout::OutIn => {
            let mut output = vec![0.0; b.k];
            for column in 0..width {
                b.data.widen_into((first + column) * b.k, &mut output);
                panel.iter_mut().zip(&output).for_each(|(panel, &w)| panel[column] = f64::from(w));
            }
        }
    }
    panel
}

fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn add(to: &mut [f64], x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += x);
}

/// The `count` greatest logits, rounded to f32; of equals the lower id first.
fn greatest_of(logits: &[f64], count: usize) -> Vec<Candidate> {
    if count == 0 {
        return Vec::new();
    }
    let mut ids: Vec<u32> = (0..logits.len() as u32).filter(|&id| logits[id as usize] > f64::NEG_INFINITY).collect();
    // A stable sort.
    ids.sort_by(|&i, &j| logits[j as usize].total_cmp(&logits[i as usize]));
    let mut greatest: Vec<_> =
        ids.into_iter().take(count).map(|id| Candidate { id, logit: logits[id as usize] as f32 }).collect();
    greatest.resize(count, Candidate::NONE);
    greatest
}
