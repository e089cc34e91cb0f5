//! Causal self-attention over keys and values that belong to one execution of one block.
//!
//! Keys and values lie in tiles of [`TILE`] tokens: keys `[tile][head][head_dim][TILE]`, values
//! `[tile][head][TILE][head_dim]`, so that scores and outputs are both broadcast-times-vector products.
//!
//! A row passes over its keys in groups of [`GROUP`], counted from the sequence's first token, keeping a running
//! maximum, sum and output (online softmax: Milakov & Gimelshein 2018; Dao et al. 2022). Its arithmetic depends on its
//! own position only, never on the rows computed beside it: a cached decode step gives the prefill's bits. Scores of
//! keys behind a row's own position are thrown away and their values never read, so a NaN cannot leak backwards in time.

use crate::Isa;
use crate::gemm::SharedOut;
use crate::pool::Leader;
use crate::scratch::{Buffer, Scratch};
use crate::simd::{Simd, SimdOp, dispatch};

/// Tokens per tile of a [`KvStore`].
pub const TILE: usize = 16;

/// Keys between two updates of the running maximum: four tiles. Part of the order of sums.
const GROUP: usize = 64;

/// Rows computed side by side.
const ROWS: usize = 6;

/// Rows of one task: enough tasks for many cores, few enough to keep a head's keys in cache.
const TASK_ROWS: usize = 96;

/// Heads of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Number of heads.
    pub heads: usize,
    /// Width of one head; `heads · head_dim` is the model width.
    pub head_dim: usize,
}

impl HeadShape {
    /// `heads · head_dim`
    pub fn width(self) -> usize {
        self.heads * self.head_dim
    }

    /// Where the tile of `token` starts in keys and values, for one head.
    #[inline(always)]
    fn tile(self, token: usize, head: usize) -> usize {
        ((token / TILE) * self.heads + head) * TILE * self.head_dim
    }
}

/// Where the rows of one sequence lie in a packed batch, and where its keys and values lie in a [`KvStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvSpan {
    /// The sequence's first row in the packed batch.
    pub first_row: usize,
    /// Its rows in the batch (new tokens).
    pub rows: usize,
    /// Tokens of the sequence whose keys and values are already in the store.
    pub past: usize,
    /// The token slot in the store where the sequence starts; a multiple of [`TILE`].
    pub slot: usize,
}

/// Keys and values of one execution for a batch of sequences.
#[derive(Clone, Debug, Default)]
pub struct KvStore {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvStore {
    /// A store of `slots` tokens (rounded up to whole tiles) for heads of this shape.
    pub fn new(shape: HeadShape, slots: usize) -> KvStore {
        let mut store = KvStore::default();
        store.reserve(shape, slots);
        store
    }

    /// Makes room for `slots` tokens; what is stored stays.
    pub fn reserve(&mut self, shape: HeadShape, slots: usize) {
        let len = slots.next_multiple_of(TILE) * shape.width();
        if self.keys.len() < len {
            self.keys.resize(len, 0.0);
            self.values.resize(len, 0.0);
        }
    }

    /// Tokens there is room for.
    pub fn slots(&self, shape: HeadShape) -> usize {
        self.keys.len() / shape.width()
    }

    /// Anonymous memory held, in bytes.
    pub fn bytes(&self) -> usize {
        (self.keys.capacity() + self.values.capacity()) * size_of::<f32>()
    }
}

/// Stores the new keys and values of all spans, then attends. The arguments are those of `Kernels::attention`, checked.
#[expect(clippy::too_many_arguments, reason = "one call site, which names them")]
pub(crate) fn attention(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    shape: HeadShape,
    scale: f32,
    qkv: &[f32],
    spans: &[KvSpan],
    store: &mut KvStore,
    z: &mut [f32],
) {
    let (keys, values) = (SharedOut::new(&mut store.keys), SharedOut::new(&mut store.values));
    let rows: usize = spans.iter().map(|span| span.rows).sum();
    leader.share(20 * rows * shape.width(), spans.len(), |i| remember(shape, qkv, &spans[i], keys, values));

    // Tasks of span i are numbered from first_task[i]: (block of rows, head).
    let Scratch { span_tasks: first_task, threads, .. } = scratch;
    first_task.clear();
    let (mut tasks, mut work) = (0, 0);
    for span in spans {
        first_task.push(tasks);
        tasks += span.rows.div_ceil(TASK_ROWS) * shape.heads;
        work += 2 * span.rows * (span.past + span.rows) * shape.width();
    }
    let (keys, values, z) = (&store.keys[..], &store.values[..], SharedOut::new(z));
    let first_task = &first_task[..];
    leader.share(work, tasks, |task| {
        let i = first_task.partition_point(|&first| first <= task) - 1;
        let within = task - first_task[i];
        let mut own = threads.own();
        let own = &mut *own;
        dispatch(
            isa,
            HeadOp {
                shape,
                scale,
                qkv,
                span: spans[i],
                keys,
                values,
                head: within % shape.heads,
                first: within / shape.heads * TASK_ROWS,
                scores: &mut own.packed,
                outputs: &mut own.sums,
                z,
            },
        );
    });
}

/// Stores the keys and values of a span's new rows.
fn remember(shape: HeadShape, qkv: &[f32], span: &KvSpan, keys: SharedOut<f32>, values: SharedOut<f32>) {
    let (width, dim) = (shape.width(), shape.head_dim);
    for row in 0..span.rows {
        let token = span.slot + span.past + row;
        let lane = token % TILE;
        let source = &qkv[(span.first_row + row) * 3 * width + width..][..2 * width];
        let (k, v) = source.split_at(width);
        for head in 0..shape.heads {
            let tile = shape.tile(token, head);
            for d in 0..dim {
                // SAFETY: slots of different spans are disjoint and inside the store (`Kernels::attention` checked).
                unsafe {
                    *keys.at(tile + d * TILE + lane) = k[head * dim + d];
                    *values.at(tile + lane * dim + d) = v[head * dim + d];
                }
            }
        }
    }
}

/// One head over up to [`TASK_ROWS`] rows of a span.
struct HeadOp<'a> {
    shape: HeadShape,
    scale: f32,
    qkv: &'a [f32],
    span: KvSpan,
    keys: &'a [f32],
    values: &'a [f32],
    head: usize,
    /// First row, counted in the span.
    first: usize,
    scores: &'a mut Buffer,
    outputs: &'a mut Buffer,
    z: SharedOut<f32>,
}

impl SimdOp for HeadOp<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let dim = self.shape.head_dim;
        let scores = self.scores.at_least(ROWS * GROUP);
        // Rows of the running output are padded, so that vectors may pass their end.
        let padded = dim.next_multiple_of(16);
        let outputs = self.outputs.at_least(ROWS * padded);
        let last = self.span.rows.min(self.first + TASK_ROWS);
        for first in (self.first..last).step_by(ROWS) {
            let rows = ROWS.min(last - first);
            let block = RowBlock {
                shape: self.shape,
                scale: self.scale,
                queries: &self.qkv[(self.span.first_row + first) * 3 * self.shape.width() + self.head * dim..],
                keys: self.keys,
                values: self.values,
                slot: self.span.slot,
                head: self.head,
                rows,
                limit: self.span.past + first + 1,
                padded,
            };
            match rows {
                1 => block.attend::<S, 1>(s, scores, outputs),
                2 => block.attend::<S, 2>(s, scores, outputs),
                3 => block.attend::<S, 3>(s, scores, outputs),
                4 => block.attend::<S, 4>(s, scores, outputs),
                5 => block.attend::<S, 5>(s, scores, outputs),
                _ => block.attend::<S, 6>(s, scores, outputs),
            }
            for (row, output) in outputs.chunks_exact(padded).enumerate().take(rows) {
                let at = (self.span.first_row + first + row) * self.shape.width() + self.head * dim;
                for (d, &x) in output[..dim].iter().enumerate() {
                    // SAFETY: this task alone writes this head of these rows.
                    unsafe { *self.z.at(at + d) = x };
                }
            }
        }
    }
}

/// Up to [`ROWS`] consecutive rows of one head.
struct RowBlock<'a> {
    shape: HeadShape,
    scale: f32,
    /// The first row's query; rows are `3 · width` apart.
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    slot: usize,
    head: usize,
    rows: usize,
    /// Keys the first row sees; each further row sees one more.
    limit: usize,
    padded: usize,
}

impl RowBlock<'_> {
    #[inline(always)]
    fn attend<S: Simd, const R: usize>(&self, s: S, scores: &mut [f32], outputs: &mut [f32]) {
        debug_assert_eq!(R, self.rows);
        outputs[..R * self.padded].fill(0.0);
        let mut max = [f32::NEG_INFINITY; R];
        let mut sum = [0.0; R];
        for start in (0..self.limit + R - 1).step_by(GROUP) {
            let seen: [usize; R] = std::array::from_fn(|r| (self.limit + r).saturating_sub(start).min(GROUP));
            self.scores::<S, R>(s, start, seen[R - 1], scores);
            for r in 0..R {
                if seen[r] == 0 {
                    continue;
                }
                let row = &mut scores[r * GROUP..][..GROUP];
                row[seen[r]..].fill(f32::NEG_INFINITY);
                let factor = softmax_step(s, row, self.scale, &mut max[r], &mut sum[r]);
                scale_row(s, &mut outputs[r * self.padded..][..self.padded], factor);
            }
            // Keys that all rows see, side by side; then each row's own last few.
            let common = seen[0];
            self.add_values::<S, R>(s, start, 0..common, scores, outputs);
            for r in 1..R {
                let (scores, outputs) = (&scores[r * GROUP..], &mut outputs[r * self.padded..]);
                self.add_values::<S, 1>(s, start, common..seen[r], scores, outputs);
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            for x in &mut outputs[r * self.padded..][..self.padded] {
                *x /= sum;
            }
        }
    }

    /// `scores[r][j] = q_r · k_{start + j}`, for whole tiles up to `seen` keys.
    #[inline(always)]
    fn scores<S: Simd, const R: usize>(&self, s: S, start: usize, seen: usize, scores: &mut [f32]) {
        let dim = self.shape.head_dim;
        let stride = 3 * self.shape.width();
        assert!(self.queries.len() >= (R - 1) * stride + dim && scores.len() >= R * GROUP);
        // Two tiles at a time with AVX-512: 2 × 6 sums in flight.
        let pair = 2 * TILE / S::LANES;
        for at in (0..seen).step_by(2 * TILE) {
            let tiles = [0, 1].map(|t| {
                // A second tile that no row sees is the first again; its scores are masked.
                let token = if at + t * TILE < seen { at + t * TILE } else { at };
                self.shape.tile(self.slot + start + token, self.head)
            });
            assert!(tiles.iter().all(|t| t + TILE * dim <= self.keys.len()));
            for part in (0..pair).step_by(2) {
                let mut acc = [[s.splat(0.0); 2]; R];
                let column = |v: usize| {
                    let lane = (part + v) * S::LANES;
                    (tiles[lane / TILE], lane % TILE)
                };
                for d in 0..dim {
                    // SAFETY: inside a tile of keys and inside the queries, both asserted above.
                    unsafe {
                        let load = |v: usize| {
                            let (tile, lane) = column(v);
                            s.load(self.keys.as_ptr().add(tile + d * TILE + lane))
                        };
                        let k = [load(0), load(1)];
                        for (r, acc) in acc.iter_mut().enumerate() {
                            let q = s.splat(*self.queries.get_unchecked(r * stride + d));
                            acc[0] = s.fma(q, k[0], acc[0]);
                            acc[1] = s.fma(q, k[1], acc[1]);
                        }
                    }
                }
                for (r, acc) in acc.iter().enumerate() {
                    for (v, &sum) in acc.iter().enumerate() {
                        // SAFETY: `at + 2 · TILE ≤ GROUP`.
                        unsafe { s.store(scores.as_mut_ptr().add(r * GROUP + at + (part + v) * S::LANES), sum) };
                    }
                }
            }
        }
    }

    /// `outputs[r] += Σ_j p[r][j] · v_{start + j}` over `keys`, j ascending.
    #[inline(always)]
    fn add_values<S: Simd, const R: usize>(
        &self,
        s: S,
        start: usize,
        keys: std::ops::Range<usize>,
        p: &[f32],
        outputs: &mut [f32],
    ) {
        let dim = self.shape.head_dim;
        assert!(p.len() >= (R - 1) * GROUP + keys.end && outputs.len() >= (R - 1) * self.padded + dim);
        if keys.is_empty() {
            return;
        }
        let last = self.shape.tile(self.slot + start + keys.end - 1, self.head);
        assert!(last + TILE * dim <= self.values.len());
        for d in (0..dim).step_by(S::LANES) {
            let n = S::LANES.min(dim - d);
            // SAFETY: values of token j at `tile + lane · dim + d`, n of them, inside a tile (asserted); outputs
            // and p asserted above.
            unsafe {
                let mut acc = [s.splat(0.0); R];
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc = s.load_first(outputs.as_ptr().add(r * self.padded + d), n);
                }
                for j in keys.clone() {
                    let token = self.slot + start + j;
                    let from = self.values.as_ptr().add(self.shape.tile(token, self.head) + token % TILE * dim + d);
                    let v = s.load_first(from, n);
                    for (r, acc) in acc.iter_mut().enumerate() {
                        *acc = s.fma(s.splat(*p.get_unchecked(r * GROUP + j)), v, *acc);
                    }
                }
                for (r, &acc) in acc.iter().enumerate() {
                    s.store_first(outputs.as_mut_ptr().add(r * self.padded + d), acc, n);
                }
            }
        }
    }
}

/// Turns a group's scores into weights `exp(scale · score − max)` under the new running maximum, updates maximum and sum, and returns
/// the factor for what was summed under the old one.
#[inline(always)]
fn softmax_step<S: Simd>(s: S, scores: &mut [f32], scale: f32, max: &mut f32, sum: &mut f32) -> f32 {
    let scale = s.splat(scale);
    let mut greatest = s.splat(*max);
    for chunk in scores.chunks_exact_mut(S::LANES) {
        // SAFETY: exactly LANES elements.
        unsafe {
            let v = s.mul(s.load(chunk.as_ptr()), scale);
            s.store(chunk.as_mut_ptr(), v);
            // The accumulator is the second operand: it survives a NaN, which then shows in the weights.
            greatest = s.max(v, greatest);
        }
    }
    let new = s.max_lane(greatest);
    // While every score is −∞ there is no maximum to subtract; the final 0 / 0 is the NaN the definition gives.
    let shift = if new == f32::NEG_INFINITY { 0.0 } else { new };
    let mut total = s.splat(0.0);
    for chunk in scores.chunks_exact_mut(S::LANES) {
        // SAFETY: exactly LANES elements.
        unsafe {
            let p = s.exp(s.sub(s.load(chunk.as_ptr()), s.splat(shift)));
            s.store(chunk.as_mut_ptr(), p);
            total = s.add(total, p);
        }
    }
    let factor = s.to_array(s.exp(s.splat(*max - shift)))[0];
    *max = new;
    *sum = *sum * factor + s.sum(total);
    factor
}

#[inline(always)]
fn scale_row<S: Simd>(s: S, row: &mut [f32], factor: f32) {
    for chunk in row.chunks_exact_mut(S::LANES) {
        // SAFETY: exactly LANES elements.
        unsafe { s.store(chunk.as_mut_ptr(), s.mul(s.load(chunk.as_ptr()), s.splat(factor))) };
    }
}
