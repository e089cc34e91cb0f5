//! The product of one row, as in decoding: b is read once, from where it lies, as fast as memory gives it, and never
//! copied. The order of sums is that of the packed product.
//!
//! `[k, n]`: a task is a block of k and as many columns as leave every thread a few tasks; it takes a few consecutive rows
//! of b at a time, sums in L1. The blocks' sums are added up afterwards. `[n, k]`: a task is some outputs; blocks of
//! `LANES × LANES` elements of b are transposed in registers, so that here, too, a lane is one output's chain over k.

use super::arithmetic::{Arithmetic, Element};
use super::{CACHE_LINE, Epilogue, KC, Layout, SharedOut, WeightMatrix, blocks};
use crate::pool::Leader;
use crate::scratch::Scratch;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Isa, WeightData};
use std::marker::PhantomData;
use std::ops::Range;

/// Tasks of each thread at least, where there are columns enough.
const TASKS_PER_THREAD: usize = 2;

/// Columns of a task are a multiple of this: whole cache lines in any type.
const COLUMNS: usize = 64;

/// Outputs of a task, `[n, k]`.
const OUTPUTS: usize = 256;

/// Units of k that meet the sums of a column together.
const TOGETHER: usize = 4;

/// Rows of b, `[k, n]`, that are fetched ahead of use.
const ROWS_AHEAD: usize = 16;

/// Elements of k, `[n, k]`, that are fetched ahead of use.
const K_AHEAD: usize = 128;

/// The product of a single row.
pub(crate) fn gemm<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    a: &[f32],
    b: WeightMatrix<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let Scratch { rows, partial_sums, threads, .. } = scratch;
    let units = &mut rows.at_least(A::units(b.k))[..A::units(b.k)];
    dispatch(isa, Units::<A> { a, units, arithmetic: PhantomData });
    let a = &*units;
    let work = b.k * b.n;
    if b.layout == Layout::OutIn {
        let out = SharedOut::new(out);
        leader.share(work, b.n.div_ceil(OUTPUTS), |task| {
            let columns = task * OUTPUTS..b.n.min((task + 1) * OUTPUTS);
            dispatch(isa, Outputs::<A> { a, b: &b, columns, epilogue, out, arithmetic: PhantomData });
        });
        return;
    }
    let blocks = b.k.div_ceil(KC);
    let parts = (TASKS_PER_THREAD * threads.len()).div_ceil(blocks);
    let columns = b.n.div_ceil(parts).next_multiple_of(COLUMNS);
    let parts = b.n.div_ceil(columns);
    let width = b.n.next_multiple_of(COLUMNS);
    let sums = &mut partial_sums.at_least(blocks * width)[..blocks * width];
    let shared = SharedOut::new(sums);
    leader.share(work, blocks * parts, |task| {
        let (block, part) = (task / parts, task % parts);
        let columns = part * columns..b.n.min((part + 1) * columns);
        let padded = columns.len().next_multiple_of(COLUMNS);
        // SAFETY: each task has a block and columns of its own; whole lines, the last one padded, as the buffer is.
        let sums = unsafe { std::slice::from_raw_parts_mut(shared.at(block * width + columns.start), padded) };
        let k = block * KC..b.k.min((block + 1) * KC);
        dispatch(isa, Block::<A> { a, b: &b, k, columns, sums, arithmetic: PhantomData });
    });
    dispatch(isa, Total { sums, width, n: b.n, epilogue, out: SharedOut::new(out) });
}

/// The row as units of the arithmetic.
struct Units<'a, A> {
    a: &'a [f32],
    units: &'a mut [f32],
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> SimdOp for Units<'_, A> {
    type Output = ();
    const PAIRS: bool = A::UNIT == 2;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for (a, units) in self.a.chunks(S::LANES * A::UNIT).zip(self.units.chunks_mut(S::LANES)) {
            // SAFETY: the chunk holds `units.len() ≤ LANES` elements.
            unsafe { s.store_first(units.as_mut_ptr(), A::along_k(s, a), units.len()) };
        }
    }
}

/// The sums of one block of k over some columns of b, `[k, n]`.
struct Block<'a, A> {
    /// `[units]`, of all of k.
    a: &'a [f32],
    b: &'a WeightMatrix<'a>,
    k: Range<usize>,
    columns: Range<usize>,
    sums: &'a mut [f32],
    arithmetic: PhantomData<A>,
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
        let Block { a, columns, k, sums, .. } = self;
        let n = self.b.n;
        sums.fill(0.0);
        for first in k.clone().step_by(TOGETHER * A::UNIT) {
            let lines = Lines::<E> { b, n, columns: &columns, k: first..k.end };
            let a = &a[first / A::UNIT..];
            match A::units(k.end - first) {
                TOGETHER.. => lines.join::<S, A, TOGETHER>(s, a, sums),
                3 => lines.join::<S, A, 3>(s, a, sums),
                2 => lines.join::<S, A, 2>(s, a, sums),
                _ => lines.join::<S, A, 1>(s, a, sums),
            }
        }
    }
}

/// Adds up the sums of the blocks, `[blocks][width]`, in their order, and finishes them.
struct Total<'a> {
    sums: &'a [f32],
    width: usize,
    n: usize,
    epilogue: Epilogue<'a>,
    out: SharedOut<f32>,
}

impl SimdOp for Total<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        for column in (0..self.n).step_by(S::LANES) {
            let blocks = self.sums.chunks_exact(self.width);
            // SAFETY: a vector of a padded line.
            let mut sums = blocks.map(|line| unsafe { s.load(line[column..column + S::LANES].as_ptr()) });
            let first = sums.next().expect("k is not 0");
            let total = sums.fold(first, |total, sum| s.add(total, sum));
            // SAFETY: the vector ends with the row; the bias has n elements (`Kernels::gemm` checked).
            unsafe { self.epilogue.finish(s, total, column, self.n - column, self.out.at(column)) };
        }
    }
}

/// Some outputs of b, `[n, k]`.
struct Outputs<'a, A> {
    /// `[units]`
    a: &'a [f32],
    b: &'a WeightMatrix<'a>,
    columns: Range<usize>,
    epilogue: Epilogue<'a>,
    out: SharedOut<f32>,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> SimdOp for Outputs<'_, A> {
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

impl<A: Arithmetic> Outputs<'_, A> {
    #[inline(always)]
    fn with<S: Simd, E: Element>(self, s: S, b: &[E]) {
        let Outputs { a, columns, epilogue, out, .. } = self;
        let k = self.b.k;
        let step = S::LANES * A::UNIT;
        for column in columns.clone().step_by(S::LANES) {
            let outputs = S::LANES.min(columns.end - column);
            let mut total = s.splat(0.0);
            for block in blocks(0..k) {
                let mut chain = s.splat(0.0);
                for from in block.clone().step_by(step) {
                    let to = block.end.min(from + step);
                    let at = column * k + from;
                    let mut square = [s.splat(0.0); 16];
                    let square = &mut square[..S::LANES];
                    if outputs == S::LANES && to - from == step {
                        let rows = &b[at..at + (S::LANES - 1) * k + step];
                        // Behind the end of these outputs' rows come those of the next ones.
                        let further = if from + K_AHEAD < k { 0 } else { (S::LANES - 1) * k };
                        let coming = b.as_ptr().wrapping_add(at + K_AHEAD + further);
                        for (j, v) in square.iter_mut().enumerate() {
                            // SAFETY: `step` elements of row `j < LANES`.
                            *v = A::along_k(s, unsafe { std::slice::from_raw_parts(rows.as_ptr().add(j * k), step) });
                            if (from * size_of::<E>()).is_multiple_of(CACHE_LINE) {
                                s.prefetch(coming.wrapping_add(j * k).cast());
                            }
                        }
                    } else {
                        for (j, v) in square.iter_mut().enumerate().take(outputs) {
                            *v = A::along_k(s, &b[at + j * k..at + j * k + (to - from)]);
                        }
                    }
                    s.transpose(square);
                    for (&a, &v) in a[from / A::UNIT..A::units(to)].iter().zip(&*square) {
                        chain = A::multiply_add(s, s.splat(a), v, chain);
                    }
                }
                total = if block.start > 0 { s.add(total, chain) } else { chain };
            }
            // SAFETY: this task alone writes its outputs, and the vector ends with them; the bias has n elements
            // (`Kernels::gemm` checked).
            unsafe { epilogue.finish(s, total, column, outputs, out.at(column)) };
        }
    }
}

/// Some columns of b, `[k, n]`, from a row on to the end of its block.
struct Lines<'a, E> {
    b: &'a [E],
    n: usize,
    columns: &'a Range<usize>,
    k: Range<usize>,
}

impl<E: Element> Lines<'_, E> {
    /// `chain[c] ← fma(a[u], b[u][c], chain[c])` for the first `U` units, in their order.
    #[inline(always)]
    fn join<S: Simd, A: Arithmetic, const U: usize>(&self, s: S, a: &[f32], chain: &mut [f32]) {
        let Lines { b, n, columns, k } = self;
        let a: [S::V; U] = std::array::from_fn(|u| s.splat(a[u]));
        let width = columns.len();
        assert!(chain.len() >= width.next_multiple_of(S::LANES));
        let block = &b[k.start * n + columns.start..(k.end - 1) * n + columns.end];
        let coming = block.as_ptr().wrapping_add(ROWS_AHEAD * A::UNIT * n);
        // Vectors of a cache line.
        let step = S::LANES.max(CACHE_LINE / size_of::<E>());
        let whole = width / step * step;
        for line in (0..whole).step_by(step) {
            for row in 0..U * A::UNIT {
                s.prefetch(coming.wrapping_add(row * n + line).cast());
            }
            for at in (line..line + step).step_by(S::LANES) {
                // SAFETY: a whole vector before the end of each of the block's lines, of which there are enough for `U`
                // units, and of the chain (asserted).
                unsafe {
                    let take = |row: usize| std::slice::from_raw_parts(block.as_ptr().add(row * n + at), S::LANES);
                    let mut sum = s.load(chain.as_ptr().add(at));
                    for (u, &a) in a.iter().enumerate() {
                        let row = u * A::UNIT;
                        let next = (A::UNIT > 1 && row + 1 < k.len()).then(|| take(row + 1));
                        sum = A::multiply_add(s, a, A::across_k(s, take(row), next), sum);
                    }
                    s.store(chain.as_mut_ptr().add(at), sum);
                }
            }
        }
        for at in (whole..width).step_by(S::LANES) {
            let take = |row: usize| &block[row * n + at..row * n + width.min(at + S::LANES)];
            let chain = &mut chain[at..at + S::LANES];
            // SAFETY: exactly LANES elements.
            let mut sum = unsafe { s.load(chain.as_ptr()) };
            for (u, &a) in a.iter().enumerate() {
                let row = u * A::UNIT;
                let next = (A::UNIT > 1 && row + 1 < k.len()).then(|| take(row + 1));
                sum = A::multiply_add(s, a, A::across_k(s, take(row), next), sum);
            }
            // SAFETY: as above.
            unsafe { s.store(chain.as_mut_ptr(), sum) };
        }
    }
}
