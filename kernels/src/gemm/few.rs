//! The product of few rows (one, as in decoding, included) with weights that lie `[k, n]`: b is read once, from where it
//! lies, about as fast as memory gives it, and never copied. The order of sums is that of the packed product.
//!
//! A task is a block of k and a range of columns. It takes [`LINES`] consecutive rows of b at a time, which are as many
//! streams from memory, and runs register tiles along them: the sums of a block wait in cache from one set of lines to the
//! next. The blocks' sums are added up afterwards.

use super::arithmetic::{Arithmetic, Element};
use super::rows::PackedRows;
use super::{CACHE_LINE, Epilogue, KC, SharedOut, WeightMatrix};
use crate::pool::Leader;
use crate::scratch::Scratch;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Isa, WeightData};
use std::ops::Range;

/// Rows of b that are read side by side. Processors follow about as many streams; more of them at a time, and longer
/// runs of each, were slower.
const LINES: usize = 16;

/// Bytes of a line of b that are fetched ahead of use.
const BYTES_AHEAD: usize = 256;

/// Columns of a register tile on any instruction set (two vectors), at most.
const TILE_COLUMNS: usize = 32;

/// Tasks of each thread at least, where there are columns enough.
const TASKS_PER_THREAD: usize = 2;

/// The product of rows that were packed for it with a `[k, n]` matrix.
pub(crate) fn gemm<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    a: &[f32],
    b: WeightMatrix<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let Scratch { rows: packed, partial_sums, threads, .. } = scratch;
    let a = &super::rows::pack_rows::<A>(isa, leader, a, b.k, 0..b.k, packed);
    let count = b.k.div_ceil(KC);
    let parts = (TASKS_PER_THREAD * threads.len()).div_ceil(count);
    let columns = b.n.div_ceil(parts).next_multiple_of(2 * TILE_COLUMNS);
    let parts = b.n.div_ceil(columns);
    // An odd number of cache lines, or rows would fall on the same few sets of the cache.
    let width = b.n.next_multiple_of(TILE_COLUMNS) + CACHE_LINE / size_of::<f32>();
    let rows = a.rows.next_multiple_of(a.panel);
    let sums = &mut partial_sums.at_least(count * rows * width)[..count * rows * width];
    let shared = SharedOut::new(sums);
    let work = a.rows * b.k * b.n;
    leader.share(work, count * parts, |task| {
        let (block, part) = (task / parts, task % parts);
        let columns = part * columns..b.n.min((part + 1) * columns);
        let k = block * KC..b.k.min((block + 1) * KC);
        // SAFETY: inside `[count][rows][width]`.
        let sums = unsafe { shared.at(block * rows * width + columns.start) };
        dispatch(isa, Block { a, b: &b, k, columns, sums: SharedOut::from(sums), width });
    });
    let (sums, out) = (&*sums, SharedOut::new(out));
    leader.share(2 * count * a.rows * b.n, a.rows, |row| {
        let sums = &sums[row * width..];
        dispatch(isa, Total { sums, stride: rows * width, blocks: count, row, n: b.n, epilogue, out });
    });
}

/// The sums of one block of k over some columns of b.
struct Block<'a, A> {
    a: &'a PackedRows<'a, A>,
    b: &'a WeightMatrix<'a>,
    k: Range<usize>,
    columns: Range<usize>,
    /// Those of the first row; a row's sums are [`TILE_COLUMNS`]-padded, `width` from the next row's.
    sums: SharedOut<f32>,
    width: usize,
}

impl<A: Arithmetic> SimdOp for Block<'_, A> {
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

impl<A: Arithmetic> Block<'_, A> {
    #[inline(always)]
    fn with<S: Simd, E: Element>(self, s: S, b: &[E]) {
        let Block { a, columns, width, .. } = &self;
        let (stride, nr) = (self.b.stride, S::NV * S::LANES);
        assert!(self.k.end <= self.b.k && columns.end <= self.b.n && self.b.is_whole() && nr <= TILE_COLUMNS);
        let mut tail = [0.0_f32; LINES * TILE_COLUMNS];
        for first in self.k.clone().step_by(LINES) {
            let lines = first..self.k.end.min(first + LINES);
            for column in columns.clone().step_by(nr) {
                let wanted = nr.min(columns.end - column);
                let goes_on = first > self.k.start;
                for panel in (0..a.rows).step_by(a.panel) {
                    // SAFETY: the rows of a panel, and the padded columns, are this task's part of the sums.
                    let sums = unsafe { self.sums.at(panel * width + column - columns.start) };
                    let at = Tile { a: a.panel_at(panel, first), sums, width: *width, goes_on };
                    let k = lines.len();
                    if wanted == nr {
                        // The lines' own next columns; behind their last ones, the next lines' first.
                        let ahead = BYTES_AHEAD / size_of::<E>();
                        let wraps = column + ahead >= columns.end;
                        let ahead = if wraps { ahead + LINES * stride - columns.len() } else { ahead };
                        let ahead = if panel == 0 { Some(ahead) } else { None };
                        let from = Source { b: b[first * stride + column..].as_ptr(), stride, k, ahead };
                        // SAFETY: `k` lines of `nr` columns lie inside b.
                        unsafe { at.run::<S, A, E>(s, a.panel, from) };
                    } else {
                        if panel == 0 {
                            for (line, tail) in lines.clone().zip(tail.chunks_exact_mut(nr)) {
                                let line = &b[line * stride + column..line * stride + column + wanted];
                                tail[wanted..].fill(0.0);
                                tail.iter_mut().zip(line).for_each(|(to, x)| *to = x.widen());
                            }
                        }
                        let from = Source { b: tail.as_ptr(), stride: nr, k, ahead: None };
                        // SAFETY: `tail` has `LINES` lines of `nr` columns.
                        unsafe { at.run::<S, A, f32>(s, a.panel, from) };
                    }
                }
            }
        }
    }
}

/// Lines of b.
struct Source<E> {
    b: *const E,
    stride: usize,
    /// How many.
    k: usize,
    /// Elements from here to those that are fetched meanwhile.
    ahead: Option<usize>,
}

/// A panel of rows over two vectors of columns.
struct Tile {
    /// `[units][panel]`
    a: *const f32,
    sums: *mut f32,
    width: usize,
    /// Whether the sums go on from those that are there.
    goes_on: bool,
}

impl Tile {
    /// # Safety
    /// As [`Tile::sum`], for the panel's number of rows.
    #[inline(always)]
    unsafe fn run<S: Simd, A: Arithmetic, E: Element>(self, s: S, panel: usize, from: Source<E>) {
        // SAFETY: the caller's.
        unsafe {
            match panel {
                1 => self.sum::<S, A, E, 1>(s, from),
                2 => self.sum::<S, A, E, 2>(s, from),
                4 => self.sum::<S, A, E, 4>(s, from),
                6 => self.sum::<S, A, E, 6>(s, from),
                8 if S::MR >= 8 => self.sum::<S, A, E, 8>(s, from),
                12 if S::MR >= 12 => self.sum::<S, A, E, 12>(s, from),
                _ => unreachable!("panels of few rows are those of `panel_of_few`"),
            }
        }
    }

    /// `sums[i][j] (+)= Σ_k a[k][i] · b[k][j]` for `i < M`, `j < 2 · LANES`: one chain, which may go on.
    ///
    /// # Safety
    /// `from` has `k` lines of `2 · LANES` elements; as many units of `M` f32 are readable at `a`; `M` rows of
    /// `2 · LANES` f32, `width` apart, are readable and writable at `sums`.
    #[inline(always)]
    unsafe fn sum<S: Simd, A: Arithmetic, E: Element, const M: usize>(self, s: S, from: Source<E>) {
        const NV: usize = 2;
        assert!(S::NV == NV);
        let Source { mut b, stride, k, ahead } = from;
        let Tile { mut a, sums, width, goes_on } = self;
        // SAFETY: the caller's; pointers advance one unit at a time.
        unsafe {
            let mut acc = [[s.splat(0.0); NV]; M];
            if goes_on {
                for (i, acc) in acc.iter_mut().enumerate() {
                    for (j, acc) in acc.iter_mut().enumerate() {
                        *acc = s.load(sums.add(i * width + j * S::LANES));
                    }
                }
            }
            for unit in 0..A::units(k) {
                if let Some(ahead) = ahead {
                    for line in (0..NV * S::LANES).step_by(CACHE_LINE / size_of::<E>()) {
                        for row in 0..A::UNIT {
                            s.prefetch(b.wrapping_add(ahead + row * stride + line).cast());
                        }
                    }
                }
                let has_next = A::UNIT > 1 && unit * A::UNIT + 1 < k;
                let mut bv = [s.splat(0.0); NV];
                for (j, bv) in bv.iter_mut().enumerate() {
                    let line = |row: usize| std::slice::from_raw_parts(b.add(row * stride + j * S::LANES), S::LANES);
                    *bv = A::across_k(s, line(0), has_next.then(|| line(1)));
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let av = s.splat(*a.add(i));
                    for (acc, &bv) in acc.iter_mut().zip(&bv) {
                        *acc = A::multiply_add(s, av, bv, *acc);
                    }
                }
                a = a.add(M);
                b = b.wrapping_add(A::UNIT * stride);
            }
            for (i, acc) in acc.iter().enumerate() {
                for (j, &acc) in acc.iter().enumerate() {
                    s.store(sums.add(i * width + j * S::LANES), acc);
                }
            }
        }
    }
}

/// Adds up the blocks' sums of one row, in their order, and finishes them.
struct Total<'a> {
    /// Of the first block, from the row on.
    sums: &'a [f32],
    /// From a block's sums to the next's.
    stride: usize,
    blocks: usize,
    row: usize,
    n: usize,
    epilogue: Epilogue<'a>,
    out: SharedOut<f32>,
}

impl SimdOp for Total<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for column in (0..self.n).step_by(S::LANES) {
            // SAFETY: a vector of a padded row.
            let block = |i: usize| unsafe { s.load(self.sums[i * self.stride + column..][..S::LANES].as_ptr()) };
            let total = (1..self.blocks).fold(block(0), |total, i| s.add(total, block(i)));
            // SAFETY: this task alone writes its row; the vector ends with it; the bias has n elements (`Kernels::gemm`
            // checked).
            unsafe {
                let out = self.out.at(self.row * self.n + column);
                self.epilogue.finish(s, total, column, self.n - column, out);
            }
        }
    }
}
