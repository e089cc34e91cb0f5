//! The cross-entropy of rows over a vocabulary: log-sum-exp, the target's logit and rank, and the entropy, in one pass
//! over tiles of the vocabulary. The logits are never stored.

use crate::gemm::arithmetic::Arithmetic;
use crate::gemm::packed::{Cut, PackedRows, Strip, pack_rows, register_rows};
use crate::gemm::{Layout, SharedOut, WeightMatrix};
use crate::pool::Leader;
use crate::scratch::{PerThread, Scratch, ThreadScratch};
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Isa, WeightData};
use std::ops::Range;

/// Vocabulary entries of one tile. Part of the order of sums: never tuned to a machine.
const TILE: usize = 256;

/// What one row's distribution over the vocabulary says of its target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowScore {
    /// The target's logit. The kernels' is an f32; in f64 the log-probability is no less exact than the logit.
    pub target_logit: f64,
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
        self.log_sum_exp - self.target_logit
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
pub(crate) fn cross_entropy<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    x: &[f32],
    b: WeightMatrix<'_>,
    targets: &[u32],
    out: &mut [RowScore],
) {
    let tiles = b.n.div_ceil(TILE);
    let rows = targets.len();
    let Scratch { rows: packed, partials, threads, .. } = scratch;
    let a = pack_rows::<A>(isa, leader, x, b.k, packed);
    target_logits(isa, leader, threads, a, &b, targets, out);
    partials.resize(rows * tiles, Partial::default());
    let cut = Cut::new(rows, b.n, register_rows(isa), TILE, threads.len());
    let written = SharedOut::new(partials);
    let scores = &*out;
    leader.share(rows * b.k * b.n, cut.tasks(), |task| {
        let (rows, columns) = cut.task(task);
        let mut own = threads.own();
        let ThreadScratch { packed: packed_b, sums, .. } = &mut *own;
        let tile = columns.start / TILE;
        let strip = Strip { a, b: &b, rows: rows.clone(), columns: columns.clone(), packed_b, sums };
        let width = dispatch(isa, strip);
        let logits = &mut sums.at_least(rows.len() * width)[..rows.len() * width];
        dispatch(isa, Tile { logits, width, columns: columns.len(), rows, tile, tiles, scores, partials: written });
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

/// The logits of rows over one tile of the vocabulary.
struct Tile<'a> {
    /// `[rows, width]`, of which the first `columns` are the tile.
    logits: &'a mut [f32],
    width: usize,
    columns: usize,
    rows: Range<usize>,
    tile: usize,
    tiles: usize,
    scores: &'a [RowScore],
    partials: SharedOut<Partial>,
}

impl SimdOp for Tile<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (row, logits) in self.rows.zip(self.logits.chunks_exact_mut(self.width)) {
            // Columns behind the vocabulary's end weigh nothing.
            logits[self.columns..].fill(f32::NEG_INFINITY);
            let partial = partial_of(s, logits, self.scores[row].target_logit as f32);
            // SAFETY: this task alone writes its rows of its tile.
            unsafe { *self.partials.at(row * self.tiles + self.tile) = partial };
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

/// The targets' logits: the diagonal of the rows' product with their own targets' weights, so that they have the bits
/// the full product would give. A task has as many rows as the register tile.
fn target_logits<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    threads: &PerThread,
    a: PackedRows<'_, A>,
    b: &WeightMatrix<'_>,
    targets: &[u32],
    out: &mut [RowScore],
) {
    let (rows, k) = (targets.len(), b.k);
    let mr = register_rows(isa);
    let out = SharedOut::new(out);
    leader.share(rows * mr * k, rows.div_ceil(mr), |task| {
        let rows = task * mr..rows.min((task + 1) * mr);
        let mut own = threads.own();
        let ThreadScratch { packed, sums, gathered } = &mut *own;
        let weights = &mut gathered.at_least(rows.len() * k)[..rows.len() * k];
        for (&target, weights) in targets[rows.clone()].iter().zip(weights.chunks_exact_mut(k)) {
            output_weights(b, target as usize, weights);
        }
        let weights = WeightMatrix { data: WeightData::F32(weights), k, n: rows.len(), layout: Layout::OutIn };
        // SAFETY: each task has rows of its own.
        let out = unsafe { std::slice::from_raw_parts_mut(out.at(rows.start), rows.len()) };
        let columns = 0..rows.len();
        let width = dispatch(isa, Strip { a, b: &weights, rows, columns, packed_b: packed, sums });
        for (i, out) in out.iter_mut().enumerate() {
            out.target_logit = f64::from(sums.as_slice()[i * width + i]);
        }
    });
}

/// The weights of one output, widened.
fn output_weights(b: &WeightMatrix<'_>, output: usize, into: &mut [f32]) {
    match b.layout {
        Layout::OutIn => b.data.widen_into(output * b.k, into),
        Layout::InOut => {
            for (i, to) in into.iter_mut().enumerate() {
                b.data.widen_into(i * b.n + output, std::slice::from_mut(to));
            }
        }
    }
}
