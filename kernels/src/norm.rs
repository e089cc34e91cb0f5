//! LayerNorm over the rows of a matrix `[rows, width]`.

use crate::Isa;
use crate::gemm::SharedOut;
use crate::pool::Leader;
use crate::simd::{Simd, SimdOp, dispatch};

/// Rows of one task.
const ROWS: usize = 32;

/// `out = (x − mean) / √(variance + eps) · weight + bias` per row; mean and variance in two passes over the row.
pub(crate) fn layer_norm(
    isa: Isa,
    leader: &mut Leader<'_>,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    struct Op<'a> {
        x: &'a [f32],
        weight: &'a [f32],
        bias: &'a [f32],
        eps: f32,
        out: &'a mut [f32],
    }
    impl SimdOp for Op<'_> {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            let width = self.weight.len();
            for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
                let mean = sum_of(s, x, |v, _| v) / width as f32;
                let centre = s.splat(mean);
                let squares = sum_of(s, x, |v, valid| {
                    let d = s.sub(v, centre);
                    // Lanes behind the row's end hold 0 − mean: taken out again.
                    let d = if valid < S::LANES { keep_first(s, d, valid) } else { d };
                    s.mul(d, d)
                });
                let scale = s.splat(1.0 / (squares / width as f32 + self.eps).sqrt());
                for at in (0..width).step_by(S::LANES) {
                    let n = (width - at).min(S::LANES);
                    // SAFETY: `at + n ≤ width`, the length of x, weight, bias and out.
                    unsafe {
                        let load = |from: &[f32]| s.load_first(from.as_ptr().add(at), n);
                        let normal = s.mul(s.sub(load(x), centre), scale);
                        s.store_first(out.as_mut_ptr().add(at), s.fma(normal, load(self.weight), load(self.bias)), n);
                    }
                }
            }
        }
    }
    let width = weight.len();
    let rows = x.len() / width;
    let out = SharedOut::new(out);
    leader.share(10 * x.len(), rows.div_ceil(ROWS), |task| {
        let rows = task * ROWS..rows.min((task + 1) * ROWS);
        let x = &x[rows.start * width..rows.end * width];
        // SAFETY: each task has rows of its own.
        let out = unsafe { std::slice::from_raw_parts_mut(out.at(rows.start * width), rows.len() * width) };
        dispatch(isa, Op { x, weight, bias, eps, out });
    });
}

/// Sum over a row of `f(vector, valid lanes)`, in four interleaved chains.
#[inline(always)]
fn sum_of<S: Simd>(s: S, x: &[f32], f: impl Fn(S::V, usize) -> S::V) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    for (i, at) in (0..x.len()).step_by(S::LANES).enumerate() {
        let n = (x.len() - at).min(S::LANES);
        // SAFETY: `at + n ≤ x.len()`.
        let v = unsafe { s.load_first(x.as_ptr().add(at), n) };
        sums[i % 4] = s.add(sums[i % 4], f(v, n));
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// Zeroes the lanes from `n` on.
#[inline(always)]
fn keep_first<S: Simd>(s: S, v: S::V, n: usize) -> S::V {
    let lanes = s.to_array(v);
    // SAFETY: `n ≤ LANES ≤ 16` elements are readable.
    unsafe { s.load_first(lanes.as_ptr(), n) }
}
