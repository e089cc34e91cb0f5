//! How far rows' distributions over the vocabulary are from those of reference rows: the Kullback–Leibler divergence
//! `KL(reference ‖ row) = Σ p (ln p − ln q)`, taken up in the cross-entropy's pass over the logits, strip by strip.

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

    /// Elements of the buffer that [`Compared`] keeps a strip of the references in.
    pub(crate) fn buffer_len(&self) -> usize {
        2 * self.log_sum_exp.len() * NT
    }
}

/// Takes a chunk of logits into the divergences of its rows; keeps what it has of references for the rows behind them.
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
