//! The cross-entropy of rows over a vocabulary: log-sum-exp, the target's logit and rank, and the entropy, in one pass
//! over tiles of the vocabulary. The logits are never stored.

use crate::Isa;
use crate::gemm::packed::{Cut, PackedRows, blocks, output_weights, pack_rows, register_rows, strip_sums};
use crate::gemm::{SharedOut, WeightMatrix};
use crate::pool::Leader;
use crate::scratch::{Buffer, Scratch};
use crate::simd::{Simd, SimdOp, dispatch};
use std::ops::Range;

/// Vocabulary entries of one tile. Part of the order of sums: never tuned to a machine.
const TILE: usize = 256;

/// Rows of one task when target logits are taken.
const TARGET_ROWS: usize = 8;

/// What one row's distribution over the vocabulary says of its target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowScore {
    /// The target's logit.
    pub target_logit: f32,
    /// `ln Σ exp(logit)`, nats.
    pub log_sum_exp: f64,
    /// Entropy of the distribution, nats.
    pub entropy: f64,
    /// How many logits are strictly greater than the target's (a NaN never is).
    pub rank: u32,
}

impl RowScore {
    /// `−ln p(target)`, nats.
    pub fn nll(&self) -> f64 {
        self.log_sum_exp - f64::from(self.target_logit)
    }
}

/// One row over one tile of the vocabulary.
#[derive(Clone, Copy, Default)]
pub(crate) struct Partial {
    /// Greatest logit.
    max: f32,
    /// `Σ exp(logit − max)`
    sum: f32,
    /// `Σ exp(logit − max) · (logit − max)`
    weighted: f32,
    /// Logits strictly greater than the target's.
    greater: u32,
}

/// Scores each row of `x` (`[rows, k]`) against its target over all n outputs of `b`.
pub(crate) fn cross_entropy(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    x: &[f32],
    b: WeightMatrix<'_>,
    targets: &[u32],
    out: &mut [RowScore],
) {
    target_logits(isa, leader, scratch, x, &b, targets, out);
    let tiles = b.n.div_ceil(TILE);
    let rows = targets.len();
    scratch.partials.resize(rows * tiles, Partial::default());
    let Scratch { rows: packed, partials, threads, .. } = scratch;
    let a = pack_rows(isa, leader, x, b.k, packed);
    let cut = Cut::new(rows, b.n, register_rows(isa), TILE, threads.len());
    let written = SharedOut::new(partials);
    let scores = &*out;
    leader.share(rows * b.k * b.n, cut.tasks(), |task| {
        let (rows, columns) = cut.task(task);
        let mut own = threads.own();
        let own = &mut *own;
        let (packed_b, sums) = (&mut own.packed, &mut own.sums);
        dispatch(isa, TileOp { a, b: &b, rows, columns, tiles, packed_b, sums, scores, partials: written });
    });
    for (out, partials) in out.iter_mut().zip(partials.chunks_exact(tiles)) {
        merge(partials, out);
    }
}

/// Merges a row's tiles, in their order, in f64.
fn merge(partials: &[Partial], out: &mut RowScore) {
    // A NaN shows in the sums; here it only must not hide the finite maxima.
    let max = partials.iter().fold(f32::NEG_INFINITY, |m, p| if p.max > m { p.max } else { m });
    let (mut sum, mut weighted, mut rank) = (0.0, 0.0, 0);
    for p in partials {
        rank += p.greater;
        // An all −∞ tile has sum 0; where every tile is, the log-sum-exp is ln 0 and the entropy 0 / 0.
        let shift = if p.max == max { 0.0 } else { f64::from(p.max) - f64::from(max) };
        let factor = shift.exp();
        sum += factor * f64::from(p.sum);
        if factor != 0.0 {
            weighted += factor * (f64::from(p.weighted) + shift * f64::from(p.sum));
        }
    }
    out.log_sum_exp = f64::from(max) + sum.ln();
    out.entropy = sum.ln() - weighted / sum;
    out.rank = rank;
}

struct TileOp<'a> {
    a: PackedRows<'a>,
    b: &'a WeightMatrix<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    tiles: usize,
    packed_b: &'a mut Buffer,
    sums: &'a mut Buffer,
    scores: &'a [RowScore],
    partials: SharedOut<Partial>,
}

impl SimdOp for TileOp<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let TileOp { a, b, rows, columns, .. } = self;
        let width = strip_sums(s, a, b, rows.clone(), columns.clone(), self.packed_b, self.sums);
        let logits = self.sums.at_least(rows.len() * width);
        for (row, logits) in rows.zip(logits.chunks_exact_mut(width)) {
            // Columns behind the vocabulary's end weigh nothing.
            logits[columns.len()..].fill(f32::NEG_INFINITY);
            let partial = partial_of(s, logits, self.scores[row].target_logit);
            // SAFETY: this task alone writes its rows of its tile.
            unsafe { *self.partials.at(row * self.tiles + columns.start / TILE) = partial };
        }
    }
}

/// One row over one tile; the number of logits is a multiple of the lanes.
#[inline(always)]
fn partial_of<S: Simd>(s: S, logits: &[f32], target: f32) -> Partial {
    let vectors = || {
        logits.chunks_exact(S::LANES).map(|c| {
            // SAFETY: a chunk has exactly LANES elements.
            unsafe { s.load(c.as_ptr()) }
        })
    };
    let mut greatest = s.splat(f32::NEG_INFINITY);
    let mut greater = 0;
    let target = s.splat(target);
    for v in vectors() {
        // The accumulator is the second operand: it survives a NaN.
        greatest = s.max(v, greatest);
        greater += s.count_greater(v, target);
    }
    let max = s.max_lane(greatest);
    let shift = s.splat(if max == f32::NEG_INFINITY { 0.0 } else { max });
    let (mut sum, mut weighted) = (s.splat(0.0), s.splat(0.0));
    for v in vectors() {
        let d = s.sub(v, shift);
        let p = s.exp(d);
        sum = s.add(sum, p);
        // exp(−200) is 0 in f32: the bound keeps 0 · −∞ out and changes nothing else.
        weighted = s.fma(p, s.max(s.splat(-200.0), d), weighted);
    }
    Partial { max, sum: s.sum(sum), weighted: s.sum(weighted), greater }
}

/// The targets' logits, summed in the order of the matrix product, so that they equal the logits it would give.
fn target_logits(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    x: &[f32],
    b: &WeightMatrix<'_>,
    targets: &[u32],
    out: &mut [RowScore],
) {
    struct Op<'a> {
        x: &'a [f32],
        weights: &'a [f32],
        k: usize,
        out: &'a mut [RowScore],
    }
    impl SimdOp for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            // Rows side by side: their chains of FMAs overlap.
            let rows = self.out.len();
            let mut sums = [0.0; TARGET_ROWS];
            for block in blocks(self.k) {
                let mut acc = [0.0; TARGET_ROWS];
                for i in block.clone() {
                    for (row, acc) in acc.iter_mut().enumerate().take(rows) {
                        *acc = s.fma_scalar(self.x[row * self.k + i], self.weights[row * self.k + i], *acc);
                    }
                }
                for (sum, acc) in sums.iter_mut().zip(acc) {
                    *sum = if block.start > 0 { *sum + acc } else { acc };
                }
            }
            for (out, sum) in self.out.iter_mut().zip(sums) {
                out.target_logit = sum;
            }
        }
    }
    let k = b.k;
    let rows = targets.len();
    let out = SharedOut::new(out);
    let threads = &scratch.threads;
    leader.share(10 * rows * k, rows.div_ceil(TARGET_ROWS), |task| {
        let rows = task * TARGET_ROWS..rows.min((task + 1) * TARGET_ROWS);
        let mut own = threads.own();
        let weights = own.packed.at_least(rows.len() * k);
        for (target, weights) in targets[rows.clone()].iter().zip(weights.chunks_exact_mut(k.max(1))) {
            output_weights(b, *target as usize, weights);
        }
        // SAFETY: each task has rows of its own.
        let out = unsafe { std::slice::from_raw_parts_mut(out.at(rows.start), rows.len()) };
        dispatch(isa, Op { x: &x[rows.start * k..rows.end * k], weights, k, out });
    });
}
