//! How far rows' distributions over the vocabulary are from those of reference rows: the Kullback–Leibler divergence
//! `KL(reference ‖ row) = Σ p (ln p − ln q)`, taken up in the cross-entropy's pass over the logits, strip by strip.
//!
//! With `ln p = l − L` and `ln q = m − M` it is `Σ p·(l − m) + (M − L)`: the pass takes up the sum, for the row's own
//! log-sum-exp `M` is known at its end only. `L` must be known before. The sum is in f32, as logits are: it takes `p` with
//! `L` rounded, which the end makes good ([`of_sum`]), and a `p` below f32's least is 0 and weighs nothing, even where the
//! row has −∞.

use crate::Floats;
use crate::cross_entropy::{APART, STATE};
use crate::gemm::NT;
use crate::gemm::packed::Chunk;
use crate::simd::{Simd, SimdOp};

/// What rows are compared with: the first rows of the batch themselves, scored like the others.
#[derive(Clone, Copy, Debug)]
pub struct Against<'a> {
    /// `ln Σ exp(logit)` of each reference.
    pub log_sum_exp: &'a [f64],
    /// The reference of each of the other rows.
    pub of: &'a [u32],
}

impl Against<'_> {
    /// No row is a reference.
    pub(crate) const NOTHING: Against<'static> = Against { log_sum_exp: &[], of: &[] };

    /// Elements of the buffer in which [`Compared`] keeps a strip of the references.
    pub(crate) fn buffer_len(&self) -> usize {
        2 * self.log_sum_exp.len() * NT
    }
}

/// A row's divergence, given `Σ p·(l − m)` as [`Compared`] takes it up and both log-sum-exps. Near 0 the roundings of the
/// terms can leave it below.
pub(crate) fn of_sum(sum: f64, reference_log_sum_exp: f64, log_sum_exp: f64) -> f64 {
    // Rows' logits are often tens apart as a whole, which multiplies what the f32 is off by: each p has the same factor
    // too much.
    let rounded = f64::from(reference_log_sum_exp as f32);
    sum * (rounded - reference_log_sum_exp).exp() + (log_sum_exp - reference_log_sum_exp)
}

/// Takes a chunk of logits into the divergences of its rows. What it has of references it keeps for the rows behind them,
/// which meet the same columns before the next ones come (see [`crate::gemm::packed::Then::Give`]).
pub(crate) struct Compared<'a> {
    pub(crate) chunk: Chunk<'a>,
    pub(crate) against: Against<'a>,
    /// `[references][2][NT]`: logits and probabilities.
    pub(crate) strip: &'a mut Floats,
    /// The running states of the chunk's rows, `[rows][STATE]`, from [`APART`] on the lanes' sums of
    /// `p · (reference's logit − row's logit)`.
    pub(crate) state: &'a mut [f32],
    /// Whether these are the first of their group.
    pub(crate) begins: bool,
}

impl SimdOp for Compared<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Compared { chunk: Chunk { rows, columns, sums }, against, strip, state, begins } = self;
        let references = against.log_sum_exp.len();
        let strip = strip.at_least(against.buffer_len());
        for ((row, logits), state) in rows.zip(sums.chunks_exact(NT)).zip(state.chunks_exact_mut(STATE)) {
            if row < references {
                let log_sum_exp = s.splat(against.log_sum_exp[row] as f32);
                let (kept, p) = strip[2 * row * NT..][..2 * NT].split_at_mut(NT);
                for at in (0..columns.len()).step_by(S::LANES) {
                    // SAFETY: a vector of a line of NT.
                    unsafe {
                        let v = s.load(logits.as_ptr().add(at));
                        s.store(kept.as_mut_ptr().add(at), v);
                        s.store(p.as_mut_ptr().add(at), s.exp(s.sub(v, log_sum_exp)));
                    }
                }
                continue;
            }
            let reference = against.of[row - references] as usize;
            let (kept, p) = strip[2 * reference * NT..][..2 * NT].split_at(NT);
            let apart = &mut state[APART..STATE];
            // SAFETY: a line holds a vector of any instruction set.
            let mut sum = if begins { s.splat(0.0) } else { unsafe { s.load(apart.as_ptr()) } };
            for at in (0..columns.len()).step_by(S::LANES) {
                let n = columns.len() - at;
                // SAFETY: `n` elements of lines of NT; lanes behind the vocabulary's end are zero in all three.
                unsafe {
                    let [kept, p, logits] = [kept, p, logits].map(|line| s.load_first(line.as_ptr().add(at), n));
                    // What has no weight adds nothing, however far apart.
                    sum = s.fma(p, s.zero_where_zero(s.sub(kept, logits), p), sum);
                }
            }
            // SAFETY: as above.
            unsafe { s.store(apart.as_mut_ptr(), sum) };
        }
    }
}
