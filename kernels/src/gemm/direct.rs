//! The direct path: few rows. b is read once, straight from where it lies, and never copied.
//!
//! `[k, n]`: vectors of a row of b meet a broadcast element of a. `[n, k]`: blocks of `LANES × LANES` elements of b are
//! transposed in registers first. Either way a lane is one output's chain over k, as in the register tile.

use super::packed::blocks;
use super::{Epilogue, Layout, SharedOut, WeightMatrix, pack::Element};
use crate::pool::Leader;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Isa, WeightData};

/// Rows up to which reading b as it lies beats packing it (measured at GPT-2's shapes).
const MAX_ROWS: usize = 8;

/// Columns of one task: 8 vectors of AVX-512.
const COLUMNS: usize = 128;

/// Rows of b fetched ahead of use.
const PREFETCH: usize = 8;

/// Whether the direct path can and should run this product.
pub(crate) fn fits(rows: usize, b: &WeightMatrix<'_>) -> bool {
    rows <= MAX_ROWS && (b.layout == Layout::OutIn || b.n.is_multiple_of(COLUMNS))
}

/// The direct matrix product; the caller has checked [`fits`].
pub(crate) fn gemm(
    isa: Isa,
    leader: &mut Leader<'_>,
    a: &[f32],
    b: WeightMatrix<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let rows = a.len() / b.k;
    let out = SharedOut::new(out);
    leader.share(rows * b.k * b.n, b.n.div_ceil(COLUMNS), |task| {
        dispatch(isa, Op { a, b: &b, epilogue, column: task * COLUMNS, out });
    });
}

/// All rows of up to [`COLUMNS`] columns.
struct Op<'a> {
    a: &'a [f32],
    b: &'a WeightMatrix<'a>,
    epilogue: Epilogue<'a>,
    column: usize,
    out: SharedOut<f32>,
}

impl SimdOp for Op<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        match self.b.data {
            WeightData::F32(data) => self.with(s, data),
            WeightData::F16(data) => self.with(s, data),
            WeightData::Bf16(data) => self.with(s, data),
        }
    }
}

impl Op<'_> {
    #[inline(always)]
    fn with<S: Simd, E: Element>(&self, s: S, b: &[E]) {
        let rows = self.a.len() / self.b.k;
        for row in (0..rows).step_by(4) {
            // Fewer rows leave registers for more columns: at least 8 sums are in flight.
            match (self.b.layout, rows - row) {
                (Layout::InOut, 1) => self.in_out::<S, E, 1, 8>(s, b, row),
                (Layout::InOut, 2) => self.in_out::<S, E, 2, 4>(s, b, row),
                (Layout::InOut, 3) => self.in_out::<S, E, 3, 4>(s, b, row),
                (Layout::InOut, _) => self.in_out::<S, E, 4, 2>(s, b, row),
                (Layout::OutIn, 1) => self.out_in::<S, E, 1>(s, b, row),
                (Layout::OutIn, 2) => self.out_in::<S, E, 2>(s, b, row),
                (Layout::OutIn, 3) => self.out_in::<S, E, 3>(s, b, row),
                (Layout::OutIn, _) => self.out_in::<S, E, 4>(s, b, row),
            }
        }
    }

    /// `M` rows over this task's columns, `NV` vectors at a time.
    #[inline(always)]
    fn in_out<S: Simd, E: Element, const M: usize, const NV: usize>(&self, s: S, b: &[E], row: usize) {
        let (k, n) = (self.b.k, self.b.n);
        assert!(b.len() == k * n && self.a.len() >= (row + M) * k && self.column + COLUMNS <= n);
        for column in (self.column..self.column + COLUMNS).step_by(NV * S::LANES) {
            let mut sums = [[s.splat(0.0); NV]; M];
            for block in blocks(k) {
                let mut acc = [[s.splat(0.0); NV]; M];
                for i in block.clone() {
                    let mut bv = [s.splat(0.0); NV];
                    // SAFETY: row i of b, columns `column .. + NV · LANES ≤ n`: inside b by the assertion.
                    unsafe {
                        let line = b.as_ptr().add(i * n + column);
                        s.prefetch(line.wrapping_add(PREFETCH * n).cast());
                        for (v, bv) in bv.iter_mut().enumerate() {
                            *bv = E::load(s, line.add(v * S::LANES));
                        }
                    }
                    for (m, acc) in acc.iter_mut().enumerate() {
                        // SAFETY: row + m < rows and i < k.
                        let a = s.splat(unsafe { *self.a.get_unchecked((row + m) * k + i) });
                        for (acc, &bv) in acc.iter_mut().zip(&bv) {
                            *acc = s.fma(a, bv, *acc);
                        }
                    }
                }
                for (sums, acc) in sums.iter_mut().zip(&acc) {
                    for (sum, &acc) in sums.iter_mut().zip(acc) {
                        *sum = if block.start > 0 { s.add(*sum, acc) } else { acc };
                    }
                }
            }
            for (m, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    let at = column + v * S::LANES;
                    // SAFETY: this task alone writes these columns; the bias has n elements.
                    unsafe { self.epilogue.finish(s, sum, at, S::LANES, self.out.at((row + m) * n + at)) };
                }
            }
        }
    }

    /// `M` rows over this task's columns, a vector of outputs at a time.
    #[inline(always)]
    fn out_in<S: Simd, E: Element, const M: usize>(&self, s: S, b: &[E], row: usize) {
        let (k, n) = (self.b.k, self.b.n);
        assert!(b.len() == k * n && self.a.len() >= (row + M) * k);
        let end = n.min(self.column + COLUMNS);
        for column in (self.column..end).step_by(S::LANES) {
            let outputs = S::LANES.min(end - column);
            let mut sums = [s.splat(0.0); M];
            for block in blocks(k) {
                let mut acc = [s.splat(0.0); M];
                for start in block.clone().step_by(S::LANES) {
                    let width = S::LANES.min(block.end - start);
                    let mut square = [s.splat(0.0); 16];
                    let square = &mut square[..S::LANES];
                    for (j, v) in square.iter_mut().enumerate().take(outputs) {
                        let from = (column + j) * k + start;
                        *v = if width == S::LANES {
                            // SAFETY: row column + j < n of b, columns start .. start + LANES ≤ k.
                            unsafe { E::load(s, b.as_ptr().add(from)) }
                        } else {
                            load_few(s, &b[from..from + width])
                        };
                    }
                    s.transpose(square);
                    for (i, &bv) in square.iter().enumerate().take(width) {
                        for (m, acc) in acc.iter_mut().enumerate() {
                            // SAFETY: row + m < rows and start + i < k.
                            let a = s.splat(unsafe { *self.a.get_unchecked((row + m) * k + start + i) });
                            *acc = s.fma(a, bv, *acc);
                        }
                    }
                }
                for (sum, &acc) in sums.iter_mut().zip(&acc) {
                    *sum = if block.start > 0 { s.add(*sum, acc) } else { acc };
                }
            }
            for (m, &sum) in sums.iter().enumerate() {
                // SAFETY: this task alone writes these columns; the bias has n elements.
                unsafe { self.epilogue.finish(s, sum, column, outputs, self.out.at((row + m) * n + column)) };
            }
        }
    }
}

/// Fewer elements than a vector has lanes; the rest is zero.
#[inline(always)]
fn load_few<S: Simd, E: Element>(s: S, from: &[E]) -> S::V {
    let mut lanes = [0.0; 16];
    for (lane, &x) in lanes.iter_mut().zip(from) {
        *lane = x.widen();
    }
    // SAFETY: 16 elements, and no instruction set has more lanes.
    unsafe { s.load(lanes.as_ptr()) }
}
