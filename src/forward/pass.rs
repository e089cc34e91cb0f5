//! The forward pass of GPT-2 (Radford et al. 2019), with the order of its blocks as an input.
//!
//! ```text
//! h     = wte[token] + wpe[position]
//! block : h ← h + c_proj(attention(c_attn(ln_1(h))))      the attention half
//!         h ← h + c_proj(gelu(c_fc(ln_2(h))))             the MLP half
//! group : h ← mean over the branches of branch(h)
//! bridge: h ← h · A + b
//! logits = ln_f(h) · wteᵀ
//! ```

use super::batch::Batch;
use super::bridges::{Bridges, LinearMap};
use super::cache::Cache;
use super::modify::{Changes, View};
use super::references::References;
use super::session::{Taps, Target};
use super::watch::Watch;
use super::workspace::Workspace;
use crate::model::{Config, LayerNorm, Model, Parameters};
use crate::plan::{Bridge, Execution, Part, Site, Step};
use lesion_kernels::{Against, Candidate, Columns, Epilogue, Floats, HeadShape, Kernels, KvSpan, KvStore, RowScore};
use std::ops::Range;

/// The residual stream between two steps, as a tap sees it.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// Steps of the plan that have run: 0 is the embedding, before any.
    pub steps: usize,
    /// `[rows, n_embd]`, one row a token, in the batch's order.
    pub hidden: &'a [f32],
}

/// Called with the residual stream before the first step and after each.
pub(super) type Tap<'a> = &'a mut (dyn FnMut(Residual<'_>) + Send);

/// Nothing has a name.
pub(super) static NONE: References = References::NONE;
pub(super) static NO_BRIDGES: Bridges = Bridges::NONE;

/// A forward pass under way.
pub(super) struct Pass<'a, 'k, 'p> {
    pub(super) kernels: &'a mut Kernels<'k, 'p>,
    pub(super) config: &'a Config,
    parameters: &'a Parameters,
    batch: &'a Batch,
    pub(super) work: &'a mut Workspace,
    /// What modifiers find by name in sequences that have nothing of their own.
    references: &'a References,
    /// What bridges find.
    bridges: &'a Bridges,
    /// Stores of the attentions still to come, in the order of execution; without a cache all share the workspace's.
    stores: Option<std::slice::IterMut<'a, KvStore>>,
    pub(super) watch: Option<Watch<'a>>,
    /// Executions so far.
    pub(super) executions: usize,
}

impl<'a, 'k, 'p> Pass<'a, 'k, 'p> {
    /// Everything is checked: ids, lengths, plan, cache.
    pub(super) fn new(
        kernels: &'a mut Kernels<'k, 'p>,
        model: &'a Model,
        batch: &'a Batch,
        cache: Option<&'a mut Cache>,
        work: &'a mut Workspace,
    ) -> Self {
        let config = model.config();
        work.fit(config, batch.rows(), if cache.is_some() { 0 } else { batch.slots() });
        work.occurrences.clear();
        work.occurrences.resize(config.n_layer, 0);
        let stores = cache.map(|cache| cache.stores.iter_mut());
        let parameters = model.parameters();
        let (references, bridges) = (&NONE, &NO_BRIDGES);
        Pass { kernels, config, parameters, batch, work, references, bridges, stores, watch: None, executions: 0 }
    }

    /// Leaves the final residual stream in the workspace.
    pub(super) fn run(&mut self, steps: &[Step], references: &'a References, bridges: &'a Bridges, taps: Taps<'a>) {
        let Taps { residual: mut tap, watch } = taps;
        (self.references, self.bridges, self.watch) = (references, bridges, watch);
        self.embed();
        self.tap(&mut tap, 0);
        for (k, step) in steps.iter().enumerate() {
            self.step(step, 0);
            self.tap(&mut tap, k + 1);
        }
    }

    fn tap(&self, tap: &mut Option<Tap<'_>>, steps: usize) {
        if let Some(tap) = tap {
            tap(Residual { steps, hidden: &self.work.hidden });
        }
    }

    /// `h = wte[token] + wpe[position]`
    pub(super) fn embed(&mut self) {
        let width = self.config.n_embd;
        let (wte, wpe) = (self.parameters.wte.data(), self.parameters.wpe.data());
        let position = &mut self.work.normal[..width];
        for span in &self.batch.spans {
            for i in 0..span.rows {
                let row = span.first_row + i;
                let hidden = &mut self.work.hidden[row * width..][..width];
                wte.widen_into(self.batch.ids[row] as usize * width, hidden);
                wpe.widen_into((span.past + i) * width, position);
                hidden.iter_mut().zip(&*position).for_each(|(h, p)| *h += p);
            }
        }
    }

    fn step(&mut self, step: &Step, depth: usize) {
        match step {
            Step::Block(execution) => self.execute(execution),
            Step::Group(branches) => self.group(branches, depth),
            Step::Bridge(bridge) => self.bridge(bridge),
        }
    }

    fn bridge(&mut self, bridge: &Bridge) {
        let bridges = self.bridges;
        self.cross(bridges.find(bridge).expect("bridges are checked"));
    }

    /// `h ← h · A + b`
    pub(super) fn cross(&mut self, map: &LinearMap) {
        if map.is_identity() {
            return;
        }
        let Workspace { hidden, normal, .. } = &mut *self.work;
        normal.resize(hidden.len());
        self.kernels.gemm_f32(hidden, map.matrix(), Epilogue::Bias(map.bias()), normal);
        std::mem::swap(hidden, normal);
    }

    fn execute(&mut self, execution: &Execution) {
        let Execution { layer, part, modifiers } = execution;
        let changes = Changes {
            first_row: 0,
            spans: &self.batch.spans,
            source: self.batch,
            all: self.references,
            layer: *layer,
            occurrence: self.work.occurrences[*layer],
            modifiers,
        };
        let changes = std::slice::from_ref(&changes);
        self.residual(Site::Pre, *layer, changes);
        if *part != Part::Mlp {
            self.heads(*layer, changes, &[]);
            self.project(*layer, changes);
        }
        if *part == Part::Block {
            self.residual(Site::Mid, *layer, changes);
        }
        if *part != Part::Attention {
            self.mlp(*layer, changes);
        }
        self.residual(Site::Post, *layer, changes);
        self.work.occurrences[*layer] += 1;
        self.executions += 1;
    }

    /// Whether modifiers or a watcher have business at a site.
    pub(super) fn concerns(&self, site: Site, changes: &[Changes<'_>]) -> bool {
        self.watches(site) || changes.iter().any(|changes| changes.touch(site))
    }

    pub(super) fn watches(&self, site: Site) -> bool {
        self.watch.as_ref().is_some_and(|watch| (watch.wants)(self.executions, site))
    }

    /// The residual stream between halves.
    pub(super) fn residual(&mut self, site: Site, layer: usize, changes: &[Changes<'_>]) {
        if self.concerns(site, changes) {
            let mut hidden = std::mem::take(&mut self.work.hidden);
            self.at(site, layer, changes, View::rows(&mut hidden, self.config.n_embd, 1));
            self.work.hidden = hidden;
        }
    }

    /// What modifiers and watchers do at a site.
    fn at(&mut self, site: Site, layer: usize, changes: &[Changes<'_>], mut view: View<'_, f32>) {
        changes.iter().for_each(|changes| changes.apply(site, &mut view));
        if self.watches(site)
            && let Some(watch) = &mut self.watch
        {
            watch.show((self.executions, layer, site), &view);
        }
    }

    fn head_shape(&self) -> HeadShape {
        HeadShape { heads: self.config.n_head, head_dim: self.config.head_dim() }
    }

    /// The first part of `h ← h + c_proj(attention(c_attn(ln_1(h))))`: leaves the heads' outputs z where normal was. `before`:
    /// spans of earlier rows, whose keys and values alone are wanted; they lie behind the batch's, and are dropped.
    pub(super) fn heads(&mut self, layer: usize, changes: &[Changes<'_>], before: &[KvSpan]) {
        let block = &self.parameters.h[layer];
        let (shape, scale) = (self.head_shape(), self.config.attention_scale(layer) as f32);

        self.norm(&block.ln_1, Site::Ln1, layer, changes);
        let Workspace { hidden, normal, wide, .. } = &mut *self.work;
        let qkv = &mut wide[..3 * hidden.len()];
        self.kernels.gemm(normal, block.attn.c_attn.matrix(), Epilogue::Bias(&block.attn.c_attn.bias), qkv);
        self.inputs_of_attention(layer, changes);
        let Workspace { hidden, normal, wide, kv, .. } = &mut *self.work;
        let qkv = &wide[..3 * hidden.len()];
        let store = self.stores.as_mut().map_or(kv, |stores| stores.next().expect("a store for each attention"));
        if !before.is_empty() {
            let kv = Columns { first: shape.width(), ..Columns::all(qkv, 3 * shape.width()) };
            self.kernels.remember(shape, kv, before, store);
        }
        self.kernels.attention(shape, scale, qkv, &self.batch.spans, store, normal);
        if !before.is_empty() {
            let len = self.batch.spans.iter().map(|span| span.rows).sum::<usize>() * shape.width();
            hidden.resize(len);
            normal.resize(len);
        }
        self.patterns(layer, changes);
        self.outputs_of_attention(layer, changes);
    }

    /// The LayerNorm of all rows, into normal.
    fn norm(&mut self, norm: &LayerNorm, site: Site, layer: usize, changes: &[Changes<'_>]) {
        let Workspace { hidden, normal, .. } = &mut *self.work;
        layer_norm(self.kernels, self.config, norm, hidden, normal);
        if self.concerns(site, changes) {
            self.frozen_norm(norm, site, layer, changes);
        }
        let output = if site == Site::Ln1 { Site::Normal1 } else { Site::Normal2 };
        if self.watches(output) {
            let mut normal = std::mem::take(&mut self.work.normal);
            self.at(output, layer, &[], View::rows(&mut normal, self.config.n_embd, 1));
            self.work.normal = normal;
        }
    }

    /// Queries, keys and values.
    fn inputs_of_attention(&mut self, layer: usize, changes: &[Changes<'_>]) {
        let (width, units) = (self.config.n_embd, self.config.n_head);
        for (i, site) in [Site::Q, Site::K, Site::V].into_iter().enumerate() {
            if self.concerns(site, changes) {
                let mut wide = std::mem::take(&mut self.work.wide);
                let len = 3 * self.work.hidden.len();
                let (stride, columns) = (3 * width, i * width..(i + 1) * width);
                self.at(site, layer, changes, View { x: &mut wide[..len], stride, columns, units });
                self.work.wide = wide;
            }
        }
    }

    /// The heads' outputs z.
    pub(super) fn outputs_of_attention(&mut self, layer: usize, changes: &[Changes<'_>]) {
        if self.concerns(Site::Z, changes) {
            let mut z = std::mem::take(&mut self.work.normal);
            self.at(Site::Z, layer, changes, View::rows(&mut z, self.config.n_embd, self.config.n_head));
            self.work.normal = z;
        }
    }

    /// [`Pass::heads`] of some rows alone, ranges that move to the front in their order: all rows give keys and values, these
    /// alone ask, as `spans` say. Only they are left, in the hidden states too. Nothing changes before z.
    pub(super) fn heads_of(&mut self, layer: usize, chosen: &[Range<usize>], spans: &[KvSpan]) {
        let block = &self.parameters.h[layer];
        let (shape, scale) = (self.head_shape(), self.config.attention_scale(layer) as f32);
        let width = self.config.n_embd;
        let c_attn = block.attn.c_attn.matrix();
        let (query_bias, kv_bias) = block.attn.c_attn.bias.split_at(width);
        let Workspace { hidden, normal, wide, kv: store, .. } = &mut *self.work;
        let (kv, q) = wide.split_at_mut(2 * hidden.len());

        layer_norm(self.kernels, self.config, &block.ln_1, hidden, normal);
        self.kernels.gemm(normal, c_attn.outputs(width..3 * width), Epilogue::Bias(kv_bias), kv);
        self.kernels.remember(shape, Columns::all(kv, 2 * width), &self.batch.spans, store);
        keep(normal, width, chosen);
        keep(hidden, width, chosen);
        let q = &mut q[..normal.len()];
        self.kernels.gemm(normal, c_attn.outputs(0..width), Epilogue::Bias(query_bias), q);
        self.kernels.attend(shape, scale, Columns::all(q, width), spans, store, normal);
    }

    /// The second part: `h ← h + c_proj(z)`.
    pub(super) fn project(&mut self, layer: usize, changes: &[Changes<'_>]) {
        let c_proj = &self.parameters.h[layer].attn.c_proj;
        if self.concerns(Site::Attn, changes) {
            let Workspace { hidden, normal: z, wide, .. } = &mut *self.work;
            self.kernels.gemm(z, c_proj.matrix(), Epilogue::Bias(&c_proj.bias), &mut wide[..hidden.len()]);
            self.add_changed(Site::Attn, layer, changes);
        } else {
            let Workspace { hidden, normal: z, .. } = &mut *self.work;
            self.kernels.gemm(z, c_proj.matrix(), Epilogue::BiasAdd(&c_proj.bias), hidden);
        }
    }

    /// `h ← h + c_proj(gelu(c_fc(ln_2(h))))`
    pub(super) fn mlp(&mut self, layer: usize, changes: &[Changes<'_>]) {
        let block = &self.parameters.h[layer];
        let len = self.work.hidden.len() / self.config.n_embd * self.config.n_inner;

        self.norm(&block.ln_2, Site::Ln2, layer, changes);
        if self.watches(Site::Inner) {
            self.inner(layer, len);
        }
        let Workspace { normal, wide, .. } = &mut *self.work;
        let inner = &mut wide[..len];
        self.kernels.gemm(normal, block.mlp.c_fc.matrix(), Epilogue::BiasGelu(&block.mlp.c_fc.bias), inner);
        if self.concerns(Site::Neurons, changes) {
            let mut wide = std::mem::take(&mut self.work.wide);
            let neurons = self.config.n_inner;
            self.at(Site::Neurons, layer, changes, View::rows(&mut wide[..len], neurons, neurons));
            self.work.wide = wide;
        }
        let c_proj = &block.mlp.c_proj;
        let apart = self.concerns(Site::Mlp, changes);
        let Workspace { hidden, normal, wide, .. } = &mut *self.work;
        let inner = &wide[..len];
        if apart {
            self.kernels.gemm(inner, c_proj.matrix(), Epilogue::Bias(&c_proj.bias), normal);
            wide[..hidden.len()].copy_from_slice(normal);
            self.add_changed(Site::Mlp, layer, changes);
        } else {
            self.kernels.gemm(inner, c_proj.matrix(), Epilogue::BiasAdd(&c_proj.bias), hidden);
        }
    }

    /// The neurons before the GELU, which the product for the neurons themselves does not leave.
    fn inner(&mut self, layer: usize, len: usize) {
        let c_fc = &self.parameters.h[layer].mlp.c_fc;
        let mut wide = std::mem::take(&mut self.work.wide);
        self.kernels.gemm(&self.work.normal, c_fc.matrix(), Epilogue::Bias(&c_fc.bias), &mut wide[..len]);
        let neurons = self.config.n_inner;
        self.at(Site::Inner, layer, &[], View::rows(&mut wide[..len], neurons, neurons));
        self.work.wide = wide;
    }

    /// `h ← h + x`, x being a half's output, in wide, with what modifiers make of it.
    fn add_changed(&mut self, site: Site, layer: usize, changes: &[Changes<'_>]) {
        let mut wide = std::mem::take(&mut self.work.wide);
        let x = &mut wide[..self.work.hidden.len()];
        self.at(site, layer, changes, View::rows(x, self.config.n_embd, 1));
        self.work.hidden.iter_mut().zip(&*x).for_each(|(h, x)| *h += x);
        self.work.wide = wide;
    }

    /// `h ← mean over the branches of branch(h)`: branches start from the same state, their updates are averaged.
    fn group(&mut self, branches: &[Vec<Step>], depth: usize) {
        if self.work.groups.len() == depth {
            self.work.groups.push(Default::default());
        }
        let (mut start, mut sum) = std::mem::take(&mut self.work.groups[depth]);
        start.copy_from(&self.work.hidden);
        sum.resize(start.len());
        sum.fill(0.0);
        for branch in branches {
            self.work.hidden.copy_from_slice(&start);
            for step in branch {
                self.step(step, depth + 1);
            }
            sum.iter_mut().zip(&*self.work.hidden).for_each(|(sum, h)| *sum += h);
        }
        let n = branches.len() as f32;
        self.work.hidden.iter_mut().zip(&*sum).for_each(|(h, sum)| *h = sum / n);
        self.work.groups[depth] = (start, sum);
    }

    /// Begins with states from elsewhere.
    pub(super) fn take(&mut self, hidden: &[&[f32]]) {
        let rows = hidden.iter().map(|piece| piece.len()).sum::<usize>() / self.config.n_embd;
        self.work.fit(self.config, rows, self.batch.slots());
        self.kernels.gather(hidden, &mut self.work.hidden);
    }

    /// Takes the heads' outputs z, too.
    pub(super) fn take_heads(&mut self, z: &[&[f32]]) {
        self.kernels.gather(z, &mut self.work.normal);
    }

    /// Scores rows of final states against their targets, and the rows behind the references against those.
    pub(super) fn score_rows(
        &mut self,
        rows: &[f32],
        targets: &[u32],
        against: Against<'_>,
        scores: &mut Vec<RowScore>,
        divergence: &mut Vec<f64>,
    ) {
        self.normalize(rows);
        let selected = &self.work.selected;
        scores.clear();
        scores.resize(targets.len(), RowScore::default());
        divergence.clear();
        divergence.resize(against.of.len(), 0.0);
        let unembedding = self.parameters.unembedding();
        if against.of.is_empty() {
            self.kernels.cross_entropy(selected, unembedding, targets, scores);
        } else {
            self.kernels.cross_entropy_against(selected, unembedding, targets, against, divergence, scores);
        }
    }

    /// Scores the rows of `targets`; `greatest` gets `count` of each row's logits.
    pub(super) fn score(
        &mut self,
        targets: &[Target],
        count: usize,
        scores: &mut Vec<RowScore>,
        greatest: &mut Vec<Candidate>,
    ) {
        self.select(targets.iter().map(|target| target.row));
        let Workspace { targets: ids, .. } = &mut *self.work;
        ids.clear();
        ids.extend(targets.iter().map(|target| target.id));
        self.score_selected(count, scores, greatest);
    }

    /// The same of states from elsewhere, `[targets, n_embd]`.
    pub(super) fn score_states(
        &mut self,
        states: &[f32],
        targets: &[u32],
        count: usize,
        scores: &mut Vec<RowScore>,
        greatest: &mut Vec<Candidate>,
    ) {
        self.normalize(states);
        self.work.targets.clear();
        self.work.targets.extend_from_slice(targets);
        self.score_selected(count, scores, greatest);
    }

    /// Scores what has been selected against the workspace's targets.
    fn score_selected(&mut self, count: usize, scores: &mut Vec<RowScore>, greatest: &mut Vec<Candidate>) {
        let Workspace { selected, targets, .. } = &mut *self.work;
        scores.clear();
        scores.resize(targets.len(), RowScore::default());
        greatest.resize(targets.len() * count, Candidate::NONE);
        self.kernels.cross_entropy_top(selected, self.parameters.unembedding(), targets, greatest, scores);
    }

    /// The logits of `rows`, `[rows, vocab_size]`.
    pub(super) fn logits(&mut self, rows: Range<usize>, logits: &mut Vec<f32>) {
        self.select(rows);
        self.unembed_selected(logits);
    }

    /// The logits of states from elsewhere, `[rows, n_embd]`: `ln_f(h) · wteᵀ`.
    pub(super) fn unembed(&mut self, states: &[f32], logits: &mut Vec<f32>) {
        self.normalize(states);
        self.unembed_selected(logits);
    }

    fn unembed_selected(&mut self, logits: &mut Vec<f32>) {
        let unembedding = self.parameters.unembedding();
        let rows = self.work.selected.len() / self.config.n_embd;
        logits.resize(rows * unembedding.n, 0.0);
        self.kernels.gemm(&self.work.selected, unembedding, Epilogue::Store, logits);
    }

    /// `ln_f(h)` of states from elsewhere, in the workspace.
    pub(super) fn normalize(&mut self, states: &[f32]) -> &[f32] {
        let selected = &mut self.work.selected;
        selected.resize(states.len());
        layer_norm(self.kernels, self.config, &self.parameters.ln_f, states, selected);
        selected
    }

    /// `ln_f(h)` of `rows`, into the workspace.
    fn select(&mut self, rows: impl ExactSizeIterator<Item = usize>) {
        let width = self.config.n_embd;
        let Workspace { hidden, normal, selected, .. } = &mut *self.work;
        normal.resize(rows.len() * width);
        selected.resize(rows.len() * width);
        for (row, to) in rows.zip(normal.chunks_exact_mut(width)) {
            to.copy_from_slice(&hidden[row * width..][..width]);
        }
        layer_norm(self.kernels, self.config, &self.parameters.ln_f, normal, selected);
    }
}

fn layer_norm(kernels: &mut Kernels<'_, '_>, config: &Config, norm: &LayerNorm, x: &[f32], out: &mut [f32]) {
    kernels.layer_norm(x, &norm.weight, &norm.bias, config.layer_norm_epsilon as f32, out);
}

/// Moves the rows that are kept, none of which lies before where it goes, to the front.
fn keep(rows: &mut Floats, width: usize, kept: &[Range<usize>]) {
    let mut to = 0;
    for kept in kept {
        let from = kept.start * width..kept.end * width;
        let len = from.len();
        rows.copy_within(from, to);
        to += len;
    }
    rows.resize(to);
}
