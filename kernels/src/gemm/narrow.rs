//! The product of few rows: lanes are rows of a, and every element of b (in bf16 arithmetic, every pair) meets them all in
//! one FMA (or a few), broadcast from where it lies. b is read once. f32 arithmetic on whole columns of `[k, n]` f32 copies
//! nothing; all else is packed first, a few KiB at a time. The order of sums is that of the packed product.

use super::arithmetic::Arithmetic;
use super::lines::Lines;
use super::pack::{Ahead, pack_b};
use super::rows::PackedRows;
use super::{Layout, NT, WeightMatrix};
use crate::WeightData;
use crate::simd::{Simd, SimdOp};
use std::ops::Range;

/// Vectors of rows at most.
pub(crate) const ROW_VECTORS: usize = 3;

/// Columns that one operation takes: two cache lines of f32.
pub(crate) const COLUMNS: usize = 32;

/// Rows of b that are fetched into the nearest cache ahead of use.
const ROWS_AHEAD: usize = 8;

/// All rows over [`COLUMNS`] columns of one block of k.
pub(crate) struct Narrow<'a, A> {
    pub(crate) a: &'a PackedRows<'a, A>,
    pub(crate) b: &'a WeightMatrix<'a>,
    pub(crate) k: Range<usize>,
    pub(crate) columns: Range<usize>,
    /// Where the columns lie in the sums.
    pub(crate) at: usize,
    /// What to fetch meanwhile.
    pub(crate) coming: &'a mut Lines,
    /// Room for the packed columns.
    pub(crate) packed: &'a mut [f32],
    /// Room for the block's sums, `[COLUMNS][panel]`.
    pub(crate) block: &'a mut [f32],
    /// `[rows][NT]`
    pub(crate) sums: &'a mut [f32],
}

impl<A: Arithmetic> SimdOp for Narrow<'_, A> {
    type Output = ();
    const PAIRS: bool = A::UNIT == 2;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        // 16 or 24 sums in flight with AVX-512, 8 or 12 where there are half the registers.
        match (self.a.panel / S::LANES, S::MR > 6) {
            (1, true) => self.run::<S, 1, 16>(s),
            (2, true) => self.run::<S, 2, 8>(s),
            (_, true) => self.run::<S, 3, 8>(s),
            (1, false) => self.run::<S, 1, 8>(s),
            (2, false) => self.run::<S, 2, 4>(s),
            (_, false) => self.run::<S, 3, 4>(s),
        }
    }
}

impl<A: Arithmetic> Narrow<'_, A> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const C: usize>(mut self, s: S) {
        let (units, panel, n) = (A::units(self.k.len()), self.a.panel, self.b.n);
        assert!(panel == R * S::LANES && self.block.len() == COLUMNS * panel && self.columns.len() <= COLUMNS);
        assert!(self.at + COLUMNS <= NT && self.sums.len() == self.a.rows * NT && COLUMNS.is_multiple_of(S::LANES));
        let line = self.k.start * n + self.columns.start;
        let file = match (self.b.data, self.b.layout) {
            (WeightData::F32(data), Layout::InOut) if A::UNIT == 1 && self.columns.len() == COLUMNS => Some(data),
            _ => None,
        };
        if let Some(data) = file {
            assert!(data.len() >= line + (self.k.len() - 1) * n + COLUMNS);
        } else {
            self.pack(s);
        }
        let nr = S::NV * S::LANES;
        for column in (0..self.columns.len()).step_by(C) {
            let (b, stride) = match file {
                Some(data) => (data[line + column..].as_ptr(), n),
                None => (self.packed[column / nr * nr * units + column % nr..].as_ptr(), nr),
            };
            let columns = Columns { a: self.a.panel_at(0, self.k.start), b, stride, units };
            // SAFETY: the panel of a is whole; b has `units` lines of `C` elements here (asserted, or packed and padded).
            unsafe { columns.sum::<S, A, R, C>(s, self.coming, &mut self.block[column * panel..][..C * panel]) };
        }
        self.store(s);
    }

    #[inline(always)]
    fn pack<S: Simd>(&mut self, s: S) {
        // Memory's part is `coming`'s; this is from the second cache to the first.
        let ahead = match self.b.layout {
            Layout::InOut => Ahead { k: ROWS_AHEAD, columns: 0 },
            Layout::OutIn => Ahead { k: 64, columns: S::LANES },
        };
        pack_b::<S, A>(s, self.b, self.k.clone(), self.columns.clone(), ahead, self.packed);
    }

    /// Turns the block's sums by squares and adds them to the rows' sums.
    #[inline(always)]
    fn store<S: Simd>(self, s: S) {
        let panel = self.a.panel;
        let mut square = [s.splat(0.0); 16];
        let square = &mut square[..S::LANES];
        for column in (0..self.columns.len()).step_by(S::LANES) {
            for row in (0..self.a.rows).step_by(S::LANES) {
                for (i, v) in square.iter_mut().enumerate() {
                    // SAFETY: a vector of line `column + i < COLUMNS` (asserted in `run`).
                    *v = unsafe { s.load(self.block.as_ptr().add((column + i) * panel + row)) };
                }
                s.transpose(square);
                for (i, &v) in square.iter().enumerate().take(self.a.rows - row) {
                    // SAFETY: a vector of row `row + i`, inside a line of NT (asserted in `run`).
                    unsafe {
                        let to = self.sums.as_mut_ptr().add((row + i) * NT + self.at + column);
                        s.store(to, if self.k.start > 0 { s.add(s.load(to), v) } else { v });
                    }
                }
            }
        }
    }
}

/// Some columns over one block of k.
struct Columns {
    /// `[units][R · LANES]`
    a: *const f32,
    /// Lines of units, `stride` apart.
    b: *const f32,
    stride: usize,
    units: usize,
}

impl Columns {
    /// `sums[c][rows] = Σ_k a[k][rows] · b[k][c]` for `c < C`.
    ///
    /// # Safety
    /// `units` lines of `R · LANES` f32 are readable at `a`, and of `C` at `b`.
    #[inline(always)]
    unsafe fn sum<S: Simd, A: Arithmetic, const R: usize, const C: usize>(
        self,
        s: S,
        coming: &mut Lines,
        sums: &mut [f32],
    ) {
        assert!(sums.len() == C * R * S::LANES);
        let Columns { mut a, mut b, stride, units } = self;
        let mut acc = [[s.splat(0.0); R]; C];
        for _ in 0..units {
            s.prefetch(b.wrapping_add(ROWS_AHEAD * stride).cast());
            coming.fetch(s);
            // SAFETY: the pointers advance one line at a time and stay inside what the caller vouches for.
            unsafe {
                let mut av = [s.splat(0.0); R];
                for (r, av) in av.iter_mut().enumerate() {
                    *av = s.load(a.add(r * S::LANES));
                }
                for (c, acc) in acc.iter_mut().enumerate() {
                    let bv = s.splat(*b.add(c));
                    for (acc, &av) in acc.iter_mut().zip(&av) {
                        *acc = A::multiply_add(s, av, bv, *acc);
                    }
                }
                a = a.add(R * S::LANES);
                b = b.wrapping_add(stride);
            }
        }
        for (acc, line) in acc.iter().zip(sums.chunks_exact_mut(R * S::LANES)) {
            for (&acc, to) in acc.iter().zip(line.chunks_exact_mut(S::LANES)) {
                // SAFETY: exactly LANES elements.
                unsafe { s.store(to.as_mut_ptr(), acc) };
            }
        }
    }
}
