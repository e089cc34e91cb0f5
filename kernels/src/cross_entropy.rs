//! The cross-entropy of rows over a vocabulary: log-sum-exp, the target's logit and rank, the entropy, and, where they are
//! wanted, the greatest logits and the divergences from reference rows, in one pass over strips of the vocabulary. The
//! logits are never stored.

use crate::divergence::{self, Against, Compared};
use crate::gemm::arithmetic::Arithmetic;
use crate::gemm::packed::{Chunk, Part, Then, multiply, reserve};
use crate::gemm::rows::{Cut, PackedRows, pack_rows};
use crate::gemm::{Layout, NT, SharedOut, WeightMatrix};
use crate::pool::Leader;
use crate::scratch::{PerThread, Scratch};
use crate::simd::{Simd, SimdOp, dispatch};
use crate::top::{self, Candidate};
use crate::{Isa, WeightData};
use std::ops::Range;

/// Vocabulary entries that one running softmax passes over. Part of the order of sums: never tuned to a machine.
const GROUP: usize = 8 * NT;

/// Rows merged by one task.
const MERGED_ROWS: usize = 64;

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

/// One row over one group of the vocabulary.
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
    /// `Σ p · (reference's logit − logit)`, p being the reference's probability.
    apart: f32,
}

/// What is wanted of each row besides its score.
pub(crate) struct Wanted<'a> {
    /// The greatest logits, `[rows, as many as are wanted]`.
    pub(crate) greatest: &'a mut [Candidate],
    /// The first rows are references for the others.
    pub(crate) against: Against<'a>,
    /// The divergences of those others.
    pub(crate) divergence: &'a mut [f64],
}

/// Scores each row of `x` (`[rows, k]`) against its target over all n outputs of `b`.
#[expect(clippy::too_many_arguments, reason = "one call site, which names them")]
pub(crate) fn cross_entropy<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    x: &[f32],
    b: WeightMatrix<'_>,
    targets: &[u32],
    wanted: Wanted<'_>,
    out: &mut [RowScore],
) {
    let Wanted { greatest, against, divergence } = wanted;
    let references = against.log_sum_exp.len();
    let groups = b.n.div_ceil(GROUP);
    let rows = targets.len();
    let count = greatest.len() / rows;
    let Scratch { rows: packed, partials, tops, threads, .. } = scratch;
    let a = &pack_rows::<A>(isa, leader, x, b.k, 0..b.k, packed);
    // A strip's references come before the rows that are compared with them: rows are not divided then.
    let cut = match references {
        0 => Cut::new(rows, a.panel, b.n, GROUP, threads.len()),
        _ => Cut::of_columns(rows, a.panel, b.n, GROUP),
    };
    let task_rows = cut.task(0).0.len();
    let compared = against.buffer_len();
    reserve(threads, b.k, task_rows, (task_rows * STATE).max(a.panel * b.k), compared);
    target_logits(isa, leader, threads, a, &b, targets, out);
    partials.resize(rows * groups, Partial::default());
    tops.resize(rows * groups * count, Candidate::NONE);
    let (written, lists) = (SharedOut::new(partials), SharedOut::new(tops));
    let scores = &*out;
    leader.share(rows * b.k * b.n, cut.tasks(), |task| {
        let (rows, columns) = cut.task(task);
        let group = columns.start / GROUP;
        let mut own = threads.own();
        let mut running = std::mem::take(&mut own.gathered);
        let mut strip = std::mem::take(&mut own.strip);
        let part = Part { a, b: &b, rows: rows.clone(), columns: columns.clone(), carried: None };
        let mut score = |chunk: Chunk<'_>| {
            let state = running.at_least(rows.len() * STATE);
            let state = &mut state[(chunk.rows.start - rows.start) * STATE..][..chunk.rows.len() * STATE];
            let begins = chunk.columns.start == columns.start;
            let tops = Tops { lists, count, group, groups };
            let logits = Chunk { rows: chunk.rows.clone(), columns: chunk.columns.clone(), sums: &mut *chunk.sums };
            dispatch(isa, Scored { chunk: logits, begins, scores, state: &mut *state, tops });
            if references > 0 {
                dispatch(isa, Compared { chunk, against, strip: &mut strip, state, begins });
            }
        };
        multiply(isa, part, &mut own, Then::Give(&mut score));
        let state = &running[..rows.len() * STATE];
        dispatch(isa, Concluded { rows, group, groups, references, state, partials: written });
        own.gathered = running;
        own.strip = strip;
    });
    let (partials, tops) = (&partials[..], &tops[..]);
    let (out, greatest) = (SharedOut::new(out), SharedOut::new(greatest));
    let divergence = SharedOut::new(divergence);
    leader.share(200 * partials.len(), rows.div_ceil(MERGED_ROWS), |task| {
        for row in task * MERGED_ROWS..rows.min((task + 1) * MERGED_ROWS) {
            // SAFETY: each task has rows of its own.
            let score = unsafe { &mut *out.at(row) };
            let partials = &partials[row * groups..][..groups];
            merge(partials, score);
            if row >= references && references > 0 {
                let apart: f64 = partials.iter().map(|p| f64::from(p.apart)).sum();
                let reference = against.log_sum_exp[against.of[row - references] as usize];
                // SAFETY: as above.
                unsafe { *divergence.at(row - references) = divergence::of_sum(apart, reference, score.log_sum_exp) };
            }
            // SAFETY: as above.
            let greatest = unsafe { std::slice::from_raw_parts_mut(greatest.at(row * count), count) };
            greatest.fill(Candidate::NONE);
            for &candidate in &tops[row * groups * count..][..groups * count] {
                top::insert(greatest, candidate);
            }
        }
    });
}

/// Where the greatest logits of each row and group go: `[rows, groups, count]`.
#[derive(Clone, Copy)]
struct Tops {
    lists: SharedOut<Candidate>,
    count: usize,
    group: usize,
    groups: usize,
}

/// Merges a row's groups, in their order, in f64.
fn merge(partials: &[Partial], out: &mut RowScore) {
    // A NaN shows in the sums; here it only must not hide the finite maxima.
    let max = partials.iter().fold(f32::NEG_INFINITY, |m, p| if p.max > m { p.max } else { m });
    let (mut sum, mut weighted, mut rank) = (0.0, 0.0, 0);
    for p in partials {
        rank += p.greater;
        // An all −∞ group has sum 0; where every group is, the log-sum-exp is ln 0 and the entropy 0 / 0.
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

/// A row's running state, in lines of 16 lanes: greatest logits, sums, weighted sums, the count of logits greater than the
/// target's, the sums of [`Compared`].
pub(crate) const STATE: usize = 5 * 16;

/// Where in a row's state the count is.
const GREATER: usize = 3 * 16;

/// Where in a row's state the sums of [`Compared`] are.
pub(crate) const APART: usize = 4 * 16;

/// `−x` at which `eˣ` is 0 in f32: bounds `d` in `eᵈ · d`, which keeps 0 · −∞ out and changes nothing else.
const VANISHED: f32 = -200.0;

/// Takes a chunk of logits into the running state of its rows. Every lane runs a softmax of its own over the logits it
/// meets (Milakov & Gimelshein 2018).
struct Scored<'a> {
    chunk: Chunk<'a>,
    /// Whether these are the first of their group.
    begins: bool,
    scores: &'a [RowScore],
    /// `[rows][STATE]`
    state: &'a mut [f32],
    tops: Tops,
}

impl SimdOp for Scored<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Scored { chunk: Chunk { rows, columns, sums }, begins, scores, state, tops } = self;
        for ((row, logits), state) in rows.zip(sums.chunks_exact_mut(NT)).zip(state.chunks_exact_mut(STATE)) {
            // Columns behind the vocabulary's end weigh nothing.
            logits[columns.len()..].fill(f32::NEG_INFINITY);
            let list = (row * tops.groups + tops.group) * tops.count;
            // SAFETY: this task alone has the lists of its rows and group.
            let list = unsafe { std::slice::from_raw_parts_mut(tops.lists.at(list), tops.count) };
            if begins {
                list.fill(Candidate::NONE);
            }
            top::take(s, logits, columns.start, list);
            // SAFETY: a row's state holds three vectors of any instruction set.
            let [max, sum, weighted] = unsafe { [0, 16, 32].map(|at| s.load(state.as_ptr().add(at))) };
            let mut running = if begins { Running::new(s) } else { Running { max, sum, weighted } };
            let greater = running.take(s, logits, scores[row].target_logit as f32);
            let before = if begins { 0.0 } else { state[GREATER] };
            // SAFETY: as above.
            unsafe {
                s.store(state.as_mut_ptr(), running.max);
                s.store(state.as_mut_ptr().add(16), running.sum);
                s.store(state.as_mut_ptr().add(32), running.weighted);
            }
            // Counts of one group are small integers: exact.
            state[GREATER] = before + greater as f32;
        }
    }
}

/// Running softmaxes, one a lane.
struct Running<S: Simd> {
    max: S::V,
    sum: S::V,
    weighted: S::V,
}

impl<S: Simd> Running<S> {
    #[inline(always)]
    fn new(s: S) -> Self {
        Running { max: s.splat(f32::NEG_INFINITY), sum: s.splat(0.0), weighted: s.splat(0.0) }
    }

    /// Takes in logits, whole vectors of them; returns how many are strictly greater than the target's.
    #[inline(always)]
    fn take(&mut self, s: S, logits: &[f32], target: f32) -> u32 {
        let vectors = || {
            logits.chunks_exact(S::LANES).map(|c| {
                // SAFETY: a chunk has exactly LANES elements.
                unsafe { s.load(c.as_ptr()) }
            })
        };
        let (target, vanished) = (s.splat(target), s.splat(VANISHED));
        let (mut max, mut greater) = (self.max, 0);
        for v in vectors() {
            // The accumulator is the second operand: it survives a NaN.
            max = s.max(v, max);
            greater += s.count_greater(v, target);
        }
        // While a lane has met −∞ alone there is no maximum to subtract.
        let shift = s.max(max, s.splat(f32::MIN));
        let change = s.sub(self.max, shift);
        let factor = s.exp(change);
        let mut weighted = s.mul(factor, s.fma(s.max(vanished, change), self.sum, self.weighted));
        let mut sum = s.mul(factor, self.sum);
        for v in vectors() {
            let d = s.sub(v, shift);
            let p = s.exp(d);
            sum = s.add(sum, p);
            weighted = s.fma(p, s.max(vanished, d), weighted);
        }
        *self = Running { max, sum, weighted };
        greater
    }
}

/// Merges the lanes of finished groups.
struct Concluded<'a> {
    rows: Range<usize>,
    group: usize,
    groups: usize,
    references: usize,
    state: &'a [f32],
    partials: SharedOut<Partial>,
}

impl SimdOp for Concluded<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (row, state) in self.rows.zip(self.state.chunks_exact(STATE)) {
            // SAFETY: a row's state holds three vectors of any instruction set.
            let [lanes, sum, weighted] = unsafe { [0, 16, 32].map(|at| s.load(state.as_ptr().add(at))) };
            let max = s.max_lane(lanes);
            let shift = s.splat(if max == f32::NEG_INFINITY { 0.0 } else { max });
            let change = s.sub(lanes, shift);
            let factor = s.exp(change);
            let weighted = s.mul(factor, s.fma(s.max(s.splat(VANISHED), change), sum, weighted));
            // SAFETY: as above.
            let apart = if self.references > 0 { s.sum(unsafe { s.load(state.as_ptr().add(APART)) }) } else { 0.0 };
            let (sum, weighted) = (s.sum(s.mul(factor, sum)), s.sum(weighted));
            let partial = Partial { max, sum, weighted, greater: state[GREATER] as u32, apart };
            // SAFETY: this task alone writes its rows of its group.
            unsafe { *self.partials.at(row * self.groups + self.group) = partial };
        }
    }
}

/// The targets' logits: the diagonal of the rows' product with their own targets' weights, so that they have the bits
/// the full product would give. A task has a panel of rows.
fn target_logits<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    threads: &PerThread,
    a: &PackedRows<'_, A>,
    b: &WeightMatrix<'_>,
    targets: &[u32],
    out: &mut [RowScore],
) {
    let (rows, k) = (targets.len(), b.k);
    let panel = a.panel;
    let out = SharedOut::new(out);
    leader.share(rows * panel * k, rows.div_ceil(panel), |task| {
        let rows = task * panel..rows.min((task + 1) * panel);
        let mut own = threads.own();
        let mut gathered = std::mem::take(&mut own.gathered);
        let weights = &mut gathered.at_least(rows.len() * k)[..rows.len() * k];
        for (&target, weights) in targets[rows.clone()].iter().zip(weights.chunks_exact_mut(k)) {
            output_weights(b, target as usize, weights);
        }
        let weights = WeightMatrix::new(WeightData::F32(weights), k, rows.len(), Layout::OutIn);
        let part = Part { a, b: &weights, rows: rows.clone(), columns: 0..rows.len(), carried: None };
        let mut diagonal = |chunk: Chunk<'_>| {
            for (i, row) in chunk.rows.enumerate() {
                // SAFETY: each task has rows of its own.
                unsafe { (*out.at(row)).target_logit = f64::from(chunk.sums[i * NT + i]) };
            }
        };
        multiply(isa, part, &mut own, Then::Give(&mut diagonal));
        own.gathered = gathered;
    });
}

/// The weights of one output, widened.
fn output_weights(b: &WeightMatrix<'_>, output: usize, into: &mut [f32]) {
    match b.layout {
        Layout::OutIn => b.data.widen_into(output * b.stride, into),
        Layout::InOut => {
            for (i, to) in into.iter_mut().enumerate() {
                b.data.widen_into(i * b.stride + output, std::slice::from_mut(to));
            }
        }
    }
}
