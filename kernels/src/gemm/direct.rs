//! The direct path: few rows. b is read once, straight from where it lies, and never copied.
//!
//! `[k, n]`: vectors of a row of b meet a broadcast element of a. `[n, k]`: blocks of `LANES × LANES` elements of b are
//! transposed in registers first. Either way a lane is one output's chain over k, as in the register tile.

use super::arithmetic::{Arithmetic, Element};
use super::packed::blocks;
use super::{Epilogue, Layout, SharedOut, WeightMatrix};
use crate::pool::Leader;
use crate::scratch::Scratch;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Isa, WeightData};
use std::marker::PhantomData;

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
pub(crate) fn gemm<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    a: &[f32],
    b: WeightMatrix<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let arithmetic = PhantomData::<A>;
    let rows = a.len() / b.k;
    let units = A::units(b.k);
    let lanes = scratch.rows.at_least(rows * units);
    dispatch(isa, Units { a, k: b.k, lanes: &mut lanes[..rows * units], arithmetic });
    let a = &lanes[..rows * units];
    let out = SharedOut::new(out);
    leader.share(rows * b.k * b.n, b.n.div_ceil(COLUMNS), |task| {
        dispatch(isa, Op { a, rows, b: &b, epilogue, column: task * COLUMNS, out, arithmetic });
    });
}

/// Rows of a as lanes of the arithmetic, `[rows, units]`.
struct Units<'a, A> {
    a: &'a [f32],
    k: usize,
    lanes: &'a mut [f32],
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> SimdOp for Units<'_, A> {
    type Output = ();
    const PAIRS: bool = A::UNIT == 2;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (a, lanes) in self.a.chunks_exact(self.k).zip(self.lanes.chunks_exact_mut(A::units(self.k))) {
            for (a, lanes) in a.chunks(S::LANES * A::UNIT).zip(lanes.chunks_mut(S::LANES)) {
                // SAFETY: the chunk holds `lanes.len() ≤ LANES` elements.
                unsafe { s.store_first(lanes.as_mut_ptr(), A::along_k(s, a), lanes.len()) };
            }
        }
    }
}

/// All rows of up to [`COLUMNS`] columns.
struct Op<'a, A> {
    /// `[rows, units]`
    a: &'a [f32],
    rows: usize,
    b: &'a WeightMatrix<'a>,
    epilogue: Epilogue<'a>,
    column: usize,
    out: SharedOut<f32>,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> SimdOp for Op<'_, A> {
    type Output = ();
    const PAIRS: bool = A::UNIT == 2;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        match self.b.data {
            WeightData::F32(data) => self.with(s, data),
            WeightData::F16(data) => self.with(s, data),
            WeightData::Bf16(data) => self.with(s, data),
        }
    }
}

impl<A: Arithmetic> Op<'_, A> {
    #[inline(always)]
    fn with<S: Simd, E: Element>(&self, s: S, b: &[E]) {
        let mut row = 0;
        while row < self.rows {
            // Fewer rows leave registers for more columns: at least 8 sums are in flight.
            row += match (self.b.layout, self.rows - row) {
                (Layout::InOut, 1) => self.in_out::<S, E, 1, 8>(s, b, row),
                (Layout::InOut, 2 | 3) => self.in_out::<S, E, 2, 4>(s, b, row),
                (Layout::InOut, _) => self.in_out::<S, E, 4, 2>(s, b, row),
                (Layout::OutIn, 1) => self.out_in::<S, E, 1>(s, b, row),
                (Layout::OutIn, _) => self.out_in::<S, E, 2>(s, b, row),
            }
        }
    }

    /// One unit of row `row` of a in every lane.
    #[inline(always)]
    fn broadcast<S: Simd>(&self, s: S, row: usize, unit: usize) -> S::V {
        // SAFETY: both callers assert that a has `row + 1` rows, and stay below the units of k.
        s.splat(unsafe { *self.a.get_unchecked(row * A::units(self.b.k) + unit) })
    }

    /// `M` rows over this task's columns, `NV` vectors at a time; returns `M`.
    #[inline(always)]
    fn in_out<S: Simd, E: Element, const M: usize, const NV: usize>(&self, s: S, b: &[E], row: usize) -> usize {
        let (k, n) = (self.b.k, self.b.n);
        assert!(b.len() == k * n && self.a.len() >= (row + M) * A::units(k) && self.column + COLUMNS <= n);
        for column in (self.column..self.column + COLUMNS).step_by(NV * S::LANES) {
            let mut sums = [[s.splat(0.0); NV]; M];
            for block in blocks(k) {
                let mut acc = [[s.splat(0.0); NV]; M];
                for i in block.clone().step_by(A::UNIT) {
                    let mut bv = [s.splat(0.0); NV];
                    for (v, bv) in bv.iter_mut().enumerate() {
                        let at = i * n + column + v * S::LANES;
                        let next = (A::UNIT > 1 && i + 1 < k).then(|| &b[at + n..at + n + S::LANES]);
                        *bv = A::across_k(s, &b[at..at + S::LANES], next);
                    }
                    s.prefetch(b.as_ptr().wrapping_add((i + PREFETCH) * n + column).cast());
                    for (m, acc) in acc.iter_mut().enumerate() {
                        let a = self.broadcast(s, row + m, i / A::UNIT);
                        for (acc, &bv) in acc.iter_mut().zip(&bv) {
                            *acc = A::multiply_add(s, a, bv, *acc);
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
        M
    }

    /// `M` rows over this task's columns, a vector of outputs at a time; returns `M`.
    #[inline(always)]
    fn out_in<S: Simd, E: Element, const M: usize>(&self, s: S, b: &[E], row: usize) -> usize {
        let (k, n) = (self.b.k, self.b.n);
        assert!(b.len() == k * n && self.a.len() >= (row + M) * A::units(k));
        let end = n.min(self.column + COLUMNS);
        for column in (self.column..end).step_by(S::LANES) {
            let outputs = S::LANES.min(end - column);
            let mut sums = [s.splat(0.0); M];
            for block in blocks(k) {
                let mut acc = [s.splat(0.0); M];
                for start in block.clone().step_by(S::LANES * A::UNIT) {
                    let stop = block.end.min(start + S::LANES * A::UNIT);
                    let mut square = [s.splat(0.0); 16];
                    let square = &mut square[..S::LANES];
                    for (j, v) in square.iter_mut().enumerate().take(outputs) {
                        *v = A::along_k(s, &b[(column + j) * k + start..(column + j) * k + stop]);
                    }
                    s.transpose(square);
                    for (i, &bv) in square.iter().enumerate().take(A::units(stop - start)) {
                        for (m, acc) in acc.iter_mut().enumerate() {
                            *acc = A::multiply_add(s, self.broadcast(s, row + m, start / A::UNIT + i), bv, *acc);
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
        M
    }
}
