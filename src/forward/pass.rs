//! The forward pass of GPT-2 (Radford et al. 2019), with the order of its blocks as an input.
//!
//! ```text
//! h     = wte[token] + wpe[position]
//! block : h ← h + c_proj(attention(c_attn(ln_1(h))))      the attention half
//!         h ← h + c_proj(gelu(c_fc(ln_2(h))))             the MLP half
//! group : h ← mean over the branches of branch(h)
//! logits = ln_f(h) · wteᵀ
//! ```

use super::batch::Batch;
use super::cache::Cache;
use super::session::Target;
use super::workspace::Workspace;
use crate::model::{Config, LayerNorm, Model, Parameters};
use crate::plan::{Execution, Part, Step};
use lesion_kernels::{Candidate, Epilogue, HeadShape, Kernels, KvStore, RowScore};
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

/// A forward pass under way.
pub(super) struct Pass<'a, 'k, 'p> {
    kernels: &'a mut Kernels<'k, 'p>,
    config: &'a Config,
    parameters: &'a Parameters,
    batch: &'a Batch,
    work: &'a mut Workspace,
    /// Stores of the attentions still to come, in the order of execution; without a cache all share the workspace's.
    stores: Option<std::slice::IterMut<'a, KvStore>>,
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
        let stores = cache.map(|cache| cache.stores.iter_mut());
        Pass { kernels, config, parameters: model.parameters(), batch, work, stores }
    }

    /// Leaves the final residual stream in the workspace.
    pub(super) fn run(&mut self, steps: &[Step], mut tap: Option<Tap<'_>>) {
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
    fn embed(&mut self) {
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
        }
    }

    fn execute(&mut self, execution: &Execution) {
        if execution.part != Part::Mlp {
            self.attention(execution);
        }
        if execution.part != Part::Attention {
            self.mlp(execution);
        }
    }

    /// `h ← h + c_proj(attention(c_attn(ln_1(h))))`
    fn attention(&mut self, execution: &Execution) {
        let block = &self.parameters.h[execution.layer];
        let shape = HeadShape { heads: self.config.n_head, head_dim: self.config.head_dim() };
        let scale = self.config.attention_scale(execution.layer) as f32;
        let Workspace { hidden, normal, wide, kv, .. } = &mut *self.work;
        let qkv = &mut wide[..3 * hidden.len()];
        let store = self.stores.as_mut().map_or(kv, |stores| stores.next().expect("a store for each attention"));

        layer_norm(self.kernels, self.config, &block.ln_1, hidden, normal);
        self.kernels.gemm(normal, block.attn.c_attn.matrix(), Epilogue::Bias(&block.attn.c_attn.bias), qkv);
        let z = normal;
        self.kernels.attention(shape, scale, qkv, &self.batch.spans, store, z);
        for &head in &execution.zero_heads {
            zero_head(z, shape, head);
        }
        self.kernels.gemm(z, block.attn.c_proj.matrix(), Epilogue::BiasAdd(&block.attn.c_proj.bias), hidden);
    }

    /// `h ← h + c_proj(gelu(c_fc(ln_2(h))))`
    fn mlp(&mut self, execution: &Execution) {
        let block = &self.parameters.h[execution.layer];
        let Workspace { hidden, normal, wide, .. } = &mut *self.work;
        let inner = &mut wide[..self.batch.rows() * self.config.n_inner];

        layer_norm(self.kernels, self.config, &block.ln_2, hidden, normal);
        self.kernels.gemm(normal, block.mlp.c_fc.matrix(), Epilogue::BiasGelu(&block.mlp.c_fc.bias), inner);
        self.kernels.gemm(inner, block.mlp.c_proj.matrix(), Epilogue::BiasAdd(&block.mlp.c_proj.bias), hidden);
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

    /// Scores the rows of `targets`; `greatest` gets `count` of each row's logits.
    pub(super) fn score(
        &mut self,
        targets: &[Target],
        count: usize,
        scores: &mut Vec<RowScore>,
        greatest: &mut Vec<Candidate>,
    ) {
        self.select(targets.iter().map(|target| target.row));
        let Workspace { selected, targets: ids, .. } = &mut *self.work;
        ids.clear();
        ids.extend(targets.iter().map(|target| target.id));
        scores.clear();
        scores.resize(targets.len(), RowScore::default());
        greatest.resize(targets.len() * count, Candidate::NONE);
        self.kernels.cross_entropy_top(selected, self.parameters.unembedding(), ids, greatest, scores);
    }

    /// The logits of `rows`, `[rows, vocab_size]`.
    pub(super) fn logits(&mut self, rows: Range<usize>, logits: &mut Vec<f32>) {
        let unembedding = self.parameters.unembedding();
        logits.resize(rows.len() * unembedding.n, 0.0);
        self.select(rows);
        self.kernels.gemm(&self.work.selected, unembedding, Epilogue::Store, logits);
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

/// Zeroes one head's output at z, the input of `c_proj`: behind it the heads are mixed.
fn zero_head(z: &mut [f32], shape: HeadShape, head: usize) {
    for row in z.chunks_exact_mut(shape.width()) {
        row[head * shape.head_dim..][..shape.head_dim].fill(0.0);
    }
}
