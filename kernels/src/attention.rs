//! Causal self-attention over keys and values that belong to one execution of one block.
//!
//! Keys and values lie in tiles of [`TILE`] tokens: keys `[tile][head][head_dim][TILE]`, values
//! `[tile][head][TILE][head_dim]`, so that scores and outputs are both broadcast-times-vector products.
//!
//! A row passes over its keys in groups of [`GROUP`], counted from the sequence's first token, keeping a running
//! maximum, sum and output (online softmax: Milakov & Gimelshein 2018; Dao et al. 2022). Its arithmetic depends on its
//! own position only, never on the rows computed beside it: a cached decode step gives the prefill's bits. Scores of
//! keys behind a row's own position are thrown away and their values never read, so a NaN cannot leak backwards in time.

use crate::gemm::SharedOut;
use crate::gemm::arithmetic::F32;
use crate::gemm::pack::pack_a_panel;
use crate::pool::Leader;
use crate::scratch::Scratch;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Floats, Isa};
use std::ops::Range;

/// Tokens per tile of a [`KvStore`].
pub const TILE: usize = 16;

/// Keys between two updates of the running maximum: eight tiles. Part of the order of sums.
const GROUP: usize = 128;

/// Rows computed side by side at most.
const ROWS: usize = 12;

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

/// Rows inside a wider matrix: some of its columns.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The matrix, row-major.
    pub data: &'a [f32],
    /// Its columns.
    pub stride: usize,
    /// The first of those that are meant.
    pub first: usize,
}

impl<'a> Columns<'a> {
    /// All columns of a matrix that has as many.
    pub fn all(data: &'a [f32], stride: usize) -> Columns<'a> {
        Columns { data, stride, first: 0 }
    }

    /// The matrix from `column` of those that are meant on, in `row`.
    #[inline(always)]
    fn from(&self, row: usize, column: usize) -> &'a [f32] {
        &self.data[row * self.stride + self.first + column..]
    }

    /// A row, from the first column that is meant to the matrix's last.
    #[inline(always)]
    fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride + self.first..(row + 1) * self.stride]
    }
}

/// Keys and values of one execution for a batch of sequences.
#[derive(Clone, Debug, Default)]
pub struct KvStore {
    keys: Floats,
    values: Floats,
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
        self.keys.at_least(len);
        self.values.at_least(len);
    }

    /// Tokens there is room for.
    pub fn slots(&self, shape: HeadShape) -> usize {
        self.keys.len() / shape.width()
    }

    /// Anonymous memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }
}

/// Stores the new keys and values of all spans. The arguments are those of `Kernels::remember`, checked.
pub(crate) fn remember(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    shape: HeadShape,
    kv: Columns<'_>,
    spans: &[KvSpan],
    store: &mut KvStore,
) {
    let first_task = &mut scratch.span_tasks;
    let (keys, values) = (SharedOut::new(&mut store.keys), SharedOut::new(&mut store.values));
    let rows: usize = spans.iter().map(|span| span.rows).sum();
    let tasks = number(spans, |span| (span.past % TILE + span.rows).div_ceil(TILE), first_task);
    leader.share(6 * rows * shape.width(), tasks, |task| {
        let (span, tile) = place(first_task, task);
        dispatch(isa, Remember { shape, kv, span: spans[span], tile, keys, values });
    });
}

/// Attends to what is stored. The arguments are those of `Kernels::attend`, checked.
#[expect(clippy::too_many_arguments, reason = "one call site, which names them")]
pub(crate) fn attend(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    shape: HeadShape,
    scale: f32,
    q: Columns<'_>,
    spans: &[KvSpan],
    store: &KvStore,
    z: &mut [f32],
) {
    let Scratch { span_tasks: first_task, threads, .. } = scratch;
    // A task is a head over a block of rows.
    let tasks = number(spans, |span| span.rows.div_ceil(TASK_ROWS) * shape.heads, first_task);
    let work = spans.iter().map(|span| 2 * span.rows * (span.past + span.rows) * shape.width()).sum();
    let (keys, values, z) = (&store.keys[..], &store.values[..], SharedOut::new(z));
    threads.reserve(ROWS * (GROUP + shape.head_dim), ROWS * padded(shape), 0, 0);
    // Later rows see more keys: the longest tasks go first.
    leader.share(work, tasks, |task| {
        let (i, within) = place(first_task, tasks - 1 - task);
        let mut own = threads.own();
        let own = &mut *own;
        dispatch(
            isa,
            HeadOp {
                shape,
                scale,
                q,
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

/// Length of a row of the running output: padded, so that pairs of vectors may pass its end.
fn padded(shape: HeadShape) -> usize {
    shape.head_dim.next_multiple_of(2 * TILE)
}

/// Numbers the tasks of all spans, the first of each into `first_task`; returns how many there are.
fn number(spans: &[KvSpan], tasks_of: impl Fn(&KvSpan) -> usize, first_task: &mut Vec<usize>) -> usize {
    first_task.clear();
    spans.iter().fold(0, |tasks, span| {
        first_task.push(tasks);
        tasks + tasks_of(span)
    })
}

/// The span of a task, and its number there.
fn place(first_task: &[usize], task: usize) -> (usize, usize) {
    let span = first_task.partition_point(|&first| first <= task) - 1;
    (span, task - first_task[span])
}

/// Stores the keys and values of those of a span's new rows that belong to one tile.
struct Remember<'a> {
    shape: HeadShape,
    kv: Columns<'a>,
    span: KvSpan,
    /// Counted from the tile of the span's first new token.
    tile: usize,
    keys: SharedOut<f32>,
    values: SharedOut<f32>,
}

impl SimdOp for Remember<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Remember { shape, span, .. } = self;
        let (width, dim) = (shape.width(), shape.head_dim);
        let first = (span.past / TILE + self.tile) * TILE;
        let tokens = span.past.max(first)..(span.past + span.rows).min(first + TILE);
        let row = |token: usize| &self.kv.row(span.first_row + token - span.past)[..2 * width];
        for head in 0..shape.heads {
            let tile = shape.tile(span.slot + first, head);
            for token in tokens.clone() {
                let value = &row(token)[width + head * dim..][..dim];
                // SAFETY: slots of different spans, and tiles of one span, are disjoint; they are inside the store
                // (`Kernels::remember` checked).
                let to = unsafe { std::slice::from_raw_parts_mut(self.values.at(tile + (token - first) * dim), dim) };
                to.copy_from_slice(value);
            }
            let squares = if tokens.len() == TILE { dim / S::LANES * S::LANES } else { 0 };
            for (d, lane) in (0..squares).step_by(S::LANES).flat_map(|d| [(d, 0), (d, 8)]) {
                if lane % S::LANES != 0 {
                    continue;
                }
                let mut square = [s.splat(0.0); 16];
                let square = &mut square[..S::LANES];
                for (i, v) in square.iter_mut().enumerate() {
                    // SAFETY: `d + LANES ≤ dim`.
                    *v = unsafe { s.load(row(first + lane + i)[head * dim + d..].as_ptr()) };
                }
                s.transpose(square);
                for (i, &v) in square.iter().enumerate() {
                    // SAFETY: a vector of line `d + i` of this tile, as above.
                    unsafe { s.store(self.keys.at(tile + (d + i) * TILE + lane), v) };
                }
            }
            for token in tokens.clone() {
                for (d, &k) in row(token)[head * dim..][..dim].iter().enumerate().skip(squares) {
                    // SAFETY: as above.
                    unsafe { *self.keys.at(tile + d * TILE + token - first) = k };
                }
            }
        }
    }
}

/// One head over up to [`TASK_ROWS`] rows of a span.
struct HeadOp<'a> {
    shape: HeadShape,
    scale: f32,
    q: Columns<'a>,
    span: KvSpan,
    keys: &'a [f32],
    values: &'a [f32],
    head: usize,
    /// First row, counted in the span.
    first: usize,
    scores: &'a mut Floats,
    outputs: &'a mut Floats,
    z: SharedOut<f32>,
}

impl SimdOp for HeadOp<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let dim = self.shape.head_dim;
        let (scores, queries) = self.scores.at_least(ROWS * (GROUP + dim)).split_at_mut(ROWS * GROUP);
        let padded = padded(self.shape);
        let outputs = self.outputs.at_least(ROWS * padded);
        let last = self.span.rows.min(self.first + TASK_ROWS);
        let mut first = self.first;
        while first < last {
            let from = self.q.from(self.span.first_row + first, self.head * dim);
            let block = RowBlock {
                shape: self.shape,
                scale: self.scale,
                keys: self.keys,
                values: self.values,
                slot: self.span.slot,
                head: self.head,
                limit: self.span.past + first + 1,
                padded,
            };
            // As many as the registers take; what is left over in few sizes.
            let stride = self.q.stride;
            let rows = match S::MR.min(last - first) {
                12.. => block.attend::<S, 12>(s, from, stride, queries, scores, outputs),
                6.. => block.attend::<S, 6>(s, from, stride, queries, scores, outputs),
                4.. => block.attend::<S, 4>(s, from, stride, queries, scores, outputs),
                2.. => block.attend::<S, 2>(s, from, stride, queries, scores, outputs),
                _ => block.attend::<S, 1>(s, from, stride, queries, scores, outputs),
            };
            for (row, output) in outputs.chunks_exact(padded).enumerate().take(rows) {
                let at = (self.span.first_row + first + row) * self.shape.width() + self.head * dim;
                // SAFETY: this task alone writes this head of these rows.
                unsafe { std::slice::from_raw_parts_mut(self.z.at(at), dim) }.copy_from_slice(&output[..dim]);
            }
            first += rows;
        }
    }
}

/// Consecutive rows of one head.
struct RowBlock<'a> {
    shape: HeadShape,
    scale: f32,
    keys: &'a [f32],
    values: &'a [f32],
    slot: usize,
    head: usize,
    /// Keys the first row sees; each further row sees one more.
    limit: usize,
    padded: usize,
}

impl RowBlock<'_> {
    /// `R` rows, whose queries lie `stride` apart in `from`; their outputs are left in `outputs`. Returns `R`.
    #[inline(always)]
    fn attend<S: Simd, const R: usize>(
        &self,
        s: S,
        from: &[f32],
        stride: usize,
        queries: &mut [f32],
        scores: &mut [f32],
        outputs: &mut [f32],
    ) -> usize {
        let dim = self.shape.head_dim;
        let queries = &mut queries[..R * dim];
        pack_a_panel::<S, F32>(s, from, stride, 0..dim, R, R, queries);
        outputs[..R * self.padded].fill(0.0);
        let mut max = [f32::NEG_INFINITY; R];
        let mut sum = [s.splat(0.0); R];
        for start in (0..self.limit + R - 1).step_by(GROUP) {
            let seen: [usize; R] = std::array::from_fn(|r| (self.limit + r).saturating_sub(start).min(GROUP));
            self.scores::<S, R>(s, start, seen[R - 1], queries, scores);
            // Whole vectors of keys that some row sees; the others would weigh nothing.
            let width = seen[R - 1].next_multiple_of(2 * TILE);
            let mut before = [0.0; 16];
            let mut shift = [0.0; R];
            for (r, row) in scores.chunks_exact_mut(GROUP).enumerate().take(R) {
                row[seen[r]..width].fill(f32::NEG_INFINITY);
                let here = greatest(s, &row[..width]) * self.scale;
                let new = if here > max[r] { here } else { max[r] };
                // While every score is −∞ there is no maximum to subtract; the final 0 / 0 is the NaN of the definition.
                shift[r] = if new == f32::NEG_INFINITY { 0.0 } else { new };
                before[r] = max[r] - shift[r];
                max[r] = new;
            }
            let factors = factors(s, before);
            for (r, row) in scores.chunks_exact_mut(GROUP).enumerate().take(R) {
                // Most groups leave the maximum as it was.
                if factors[r] != 1.0 {
                    scale_row(s, &mut outputs[r * self.padded..][..self.padded], factors[r]);
                    sum[r] = s.mul(sum[r], s.splat(factors[r]));
                }
                sum[r] = s.add(sum[r], weights(s, &mut row[..width], self.scale, shift[r]));
            }
            // Keys that all rows see, side by side; then each row's own last few.
            let common = seen[0];
            self.add_values::<S, R>(s, start, 0..common, scores, outputs);
            for r in 1..R {
                let (scores, outputs) = (&scores[r * GROUP..], &mut outputs[r * self.padded..]);
                self.add_values::<S, 1>(s, start, common..seen[r], scores, outputs);
            }
        }
        for (r, &sum) in sum.iter().enumerate() {
            let sum = s.splat(s.sum(sum));
            for chunk in outputs[r * self.padded..][..self.padded].chunks_exact_mut(S::LANES) {
                // SAFETY: exactly LANES elements.
                unsafe { s.store(chunk.as_mut_ptr(), s.div(s.load(chunk.as_ptr()), sum)) };
            }
        }
        R
    }

    /// `scores[r][j] = q_r · k_{start + j}`, for whole tiles up to `seen` keys; `queries` is `[dim][R]`.
    #[inline(always)]
    fn scores<S: Simd, const R: usize>(&self, s: S, start: usize, seen: usize, queries: &[f32], scores: &mut [f32]) {
        let dim = self.shape.head_dim;
        assert!(queries.len() == R * dim && scores.len() >= R * GROUP);
        // Two tiles at a time with AVX-512.
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
                    // SAFETY: a lane of a tile that is inside the keys (asserted).
                    unsafe { self.keys.as_ptr().add(tiles[lane / TILE] + lane % TILE) }
                };
                let columns = [column(0), column(1)];
                for d in 0..dim {
                    // SAFETY: line d of both tiles, and of the queries.
                    unsafe {
                        let k = columns.map(|column| s.load(column.add(d * TILE)));
                        for (r, acc) in acc.iter_mut().enumerate() {
                            let q = s.splat(*queries.get_unchecked(d * R + r));
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
        keys: Range<usize>,
        p: &[f32],
        outputs: &mut [f32],
    ) {
        let dim = self.shape.head_dim;
        assert!(p.len() >= (R - 1) * GROUP + keys.end && outputs.len() >= R * self.padded);
        if keys.is_empty() {
            return;
        }
        let last = self.shape.tile(self.slot + start + keys.end - 1, self.head);
        assert!(last + TILE * dim <= self.values.len());
        for d in (0..dim).step_by(2 * S::LANES) {
            let left = dim - d;
            // SAFETY: values of token j at `tile + lane · dim + d`, `left` of them, inside a tile (asserted); outputs, whose
            // rows are padded to whole pairs of vectors, and p asserted above.
            unsafe {
                let mut acc = [[s.splat(0.0); 2]; R];
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc = [0, 1].map(|v| s.load(outputs.as_ptr().add(r * self.padded + d + v * S::LANES)));
                }
                let mut j = keys.start;
                while j < keys.end {
                    let token = self.slot + start + j;
                    let n = (TILE - token % TILE).min(keys.end - j);
                    let mut from = self.values.as_ptr().add(self.shape.tile(token, self.head) + token % TILE * dim + d);
                    for j in j..j + n {
                        let v = if left >= 2 * S::LANES {
                            [s.load(from), s.load(from.add(S::LANES))]
                        } else if left > S::LANES {
                            [s.load(from), s.load_first(from.add(S::LANES), left - S::LANES)]
                        } else {
                            [s.load_first(from, left), s.splat(0.0)]
                        };
                        for (r, acc) in acc.iter_mut().enumerate() {
                            let p = s.splat(*p.get_unchecked(r * GROUP + j));
                            acc[0] = s.fma(p, v[0], acc[0]);
                            acc[1] = s.fma(p, v[1], acc[1]);
                        }
                        from = from.add(dim);
                    }
                    j += n;
                }
                for (r, acc) in acc.iter().enumerate() {
                    for (v, &acc) in acc.iter().enumerate() {
                        s.store(outputs.as_mut_ptr().add(r * self.padded + d + v * S::LANES), acc);
                    }
                }
            }
        }
    }
}

/// The greatest of scores that are not NaN.
#[inline(always)]
fn greatest<S: Simd>(s: S, scores: &[f32]) -> f32 {
    let mut all = [s.splat(f32::NEG_INFINITY); 2];
    for pair in scores.chunks_exact(2 * S::LANES) {
        for (v, greatest) in all.iter_mut().enumerate() {
            // SAFETY: exactly two vectors. The accumulator is the second operand: it survives a NaN, which then shows in
            // the weights.
            *greatest = s.max(unsafe { s.load(pair.as_ptr().add(v * S::LANES)) }, *greatest);
        }
    }
    s.max_lane(s.max(all[0], all[1]))
}

/// `exp` of what each row's maximum grew by, negated.
#[inline(always)]
fn factors<S: Simd>(s: S, before: [f32; 16]) -> [f32; 16] {
    let mut factors = [0.0; 16];
    for at in (0..16).step_by(S::LANES) {
        // SAFETY: 16 elements, a multiple of the lanes.
        unsafe { s.store(factors.as_mut_ptr().add(at), s.exp(s.load(before.as_ptr().add(at)))) };
    }
    factors
}

/// Turns a row's scores into weights `exp(scale · score − shift)`; returns their sums, lane by lane.
#[inline(always)]
fn weights<S: Simd>(s: S, scores: &mut [f32], scale: f32, shift: f32) -> S::V {
    let (scale, shift) = (s.splat(scale), s.splat(shift));
    let mut total = s.splat(0.0);
    for chunk in scores.chunks_exact_mut(S::LANES) {
        // SAFETY: exactly LANES elements.
        unsafe {
            // Rounded as the maximum was: the greatest weight is 1, however large the scores.
            let p = s.exp(s.sub(s.mul(s.load(chunk.as_ptr()), scale), shift));
            s.store(chunk.as_mut_ptr(), p);
            total = s.add(total, p);
        }
    }
    total
}

#[inline(always)]
fn scale_row<S: Simd>(s: S, row: &mut [f32], factor: f32) {
    for chunk in row.chunks_exact_mut(S::LANES) {
        // SAFETY: exactly LANES elements.
        unsafe { s.store(chunk.as_mut_ptr(), s.mul(s.load(chunk.as_ptr()), s.splat(factor))) };
    }
}
