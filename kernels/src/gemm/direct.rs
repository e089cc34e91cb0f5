//! The direct path: few rows, b `[k, n]`. b is read once, straight from where it lies, and never copied.

use super::packed::blocks;
use super::{Epilogue, KC, Layout, SharedOut, WeightMatrix, pack::Element};
use crate::pool::Leader;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Isa, WeightData};

/// Rows up to which reading b as it lies beats packing it (measured at GPT-2's shapes: `benches/gemm.rs`).
pub(crate) const MAX_ROWS: usize = 8;

/// Columns of one task: 8 vectors of AVX-512.
const COLUMNS: usize = 128;

/// Rows of b fetched ahead of use.
const PREFETCH: usize = 8;

/// Whether the direct path can and should run this product.
pub(crate) fn fits(rows: usize, b: &WeightMatrix<'_>) -> bool {
    rows <= MAX_ROWS && b.layout == Layout::InOut && b.n.is_multiple_of(COLUMNS)
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
        fn with<S: Simd, E: Element>(&self, s: S, data: &[E]) {
            let rows = self.a.len() / self.b.k;
            let mut row = 0;
            while row < rows {
                // Fewer rows leave registers for more columns: at least 8 sums are in flight.
                match rows - row {
                    1 => self.rows::<S, E, 1, 8>(s, data, row),
                    2 => self.rows::<S, E, 2, 4>(s, data, row),
                    3 => self.rows::<S, E, 3, 4>(s, data, row),
                    _ => self.rows::<S, E, 4, 2>(s, data, row),
                }
                row += (rows - row).min(4);
            }
        }

        /// `M` rows over this task's columns, `NV` vectors at a time.
        #[inline(always)]
        fn rows<S: Simd, E: Element, const M: usize, const NV: usize>(&self, s: S, b: &[E], row: usize) {
            let (k, n) = (self.b.k, self.b.n);
            assert!(b.len() == k * n && self.a.len() >= (row + M) * k && self.column + COLUMNS <= n);
            for column in (self.column..self.column + COLUMNS).step_by(NV * S::LANES) {
                let mut sums = [[s.splat(0.0); NV]; M];
                for block in blocks(k) {
                    let mut acc = [[s.splat(0.0); NV]; M];
                    for i in block.clone() {
                        let mut bv = [s.splat(0.0); NV];
                        // SAFETY: row i of b, columns `column .. + NV · LANES ≤ n`: inside b by the assertion.
                        // A prefetch address may be anything.
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
    }
    const { assert!(KC.is_power_of_two()) };
    let out = SharedOut::new(out);
    leader.for_each(b.n / COLUMNS, |task| {
        dispatch(isa, Op { a, b: &b, epilogue, column: task * COLUMNS, out });
    });
}
