//! The packed path: panels of a, strips of b, register tiles.

use super::arithmetic::Arithmetic;
use super::pack::{pack_a_panel, pack_b};
use super::{Epilogue, KC, NT, PackedTile, SharedOut, WeightMatrix};
use crate::Isa;
use crate::pool::Leader;
use crate::scratch::{Buffer, Scratch, ThreadScratch};
use crate::simd::{Simd, SimdOp, dispatch};
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of one task at most: its sums (`rows × NT` f32) stay in L2.
const MAX_TASK_ROWS: usize = 1056;

/// Tasks a thread should have at least, so that a last, lonely one costs little.
const TASKS_PER_THREAD: usize = 3;

/// Rows of a packed into panels: for each block of k, `[panels][units][MR]`.
#[derive(Clone, Copy)]
pub(crate) struct PackedRows<'a, A> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) k: usize,
    pub(crate) arithmetic: PhantomData<A>,
}

/// Packs all rows of a (`[rows, k]`), each panel one task.
pub(crate) fn pack_rows<'a, A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    a: &[f32],
    k: usize,
    into: &'a mut Buffer,
) -> PackedRows<'a, A> {
    struct Op<'a, A> {
        a: &'a [f32],
        k: usize,
        panel: usize,
        panels: usize,
        out: SharedOut<f32>,
        arithmetic: PhantomData<A>,
    }
    impl<A: Arithmetic> SimdOp for Op<'_, A> {
        type Output = ();
        const PAIRS: bool = A::UNIT == 2;
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            let rows = self.a.len() / self.k;
            let first = self.panel * S::MR;
            for block in blocks(self.k) {
                let units = A::units(block.len());
                let at = (A::units(block.start) * self.panels + self.panel * units) * S::MR;
                // SAFETY: each panel of each block has its own range of the output, sized by `pack_rows`.
                let panel = unsafe { std::slice::from_raw_parts_mut(self.out.at(at), units * S::MR) };
                pack_a_panel::<S, A>(s, &self.a[first * self.k..], self.k, block, S::MR.min(rows - first), panel);
            }
        }
    }
    let rows = a.len() / k;
    let mr = register_rows(isa);
    let panels = rows.div_ceil(mr);
    let len = panels * mr * A::units(k);
    let out = SharedOut::new(into.at_least(len));
    // Copying an element costs about as much as ten multiply-adds.
    leader.share(10 * rows * k, panels, |panel| {
        dispatch(isa, Op { a, k, panel, panels, out, arithmetic: PhantomData::<A> });
    });
    PackedRows { data: &into.as_slice()[..len], rows, k, arithmetic: PhantomData }
}

/// Rows of the register tile.
pub(crate) fn register_rows(isa: Isa) -> usize {
    struct Rows;
    impl SimdOp for Rows {
        type Output = usize;
        #[inline(always)]
        fn eval<S: Simd>(self, _: S) -> usize {
            S::MR
        }
    }
    dispatch(isa, Rows)
}

/// The blocks of k, in order.
#[inline(always)]
pub(crate) fn blocks(k: usize) -> impl Iterator<Item = Range<usize>> {
    (0..k).step_by(KC).map(move |start| start..k.min(start + KC))
}

/// How rows and columns are cut into tasks. Affects speed only.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    rows: usize,
    columns: usize,
    task_rows: usize,
    task_columns: usize,
}

impl Cut {
    pub(crate) fn new(rows: usize, columns: usize, mr: usize, task_columns: usize, threads: usize) -> Cut {
        let strips = columns.div_ceil(task_columns).max(1);
        let parts = (TASKS_PER_THREAD * threads).div_ceil(strips).max(rows.div_ceil(MAX_TASK_ROWS));
        let task_rows = rows.div_ceil(parts.max(1)).next_multiple_of(mr).max(mr);
        Cut { rows, columns, task_rows, task_columns }
    }

    pub(crate) fn tasks(&self) -> usize {
        self.rows.div_ceil(self.task_rows) * self.columns.div_ceil(self.task_columns)
    }

    /// Rows and columns of a task. Tasks of one strip of columns follow each other.
    pub(crate) fn task(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let parts = self.rows.div_ceil(self.task_rows);
        let (row, column) = (i % parts * self.task_rows, i / parts * self.task_columns);
        (row..self.rows.min(row + self.task_rows), column..self.columns.min(column + self.task_columns))
    }
}

/// A strip of the product, unfinished: `sums[rows][width] = a[rows] · b[columns]`, the result being `width`, the columns
/// rounded up to whole panels. `rows.start` is a multiple of MR.
///
/// An operation of its own, shared by all users: it holds every register tile.
pub(crate) struct Strip<'a, A> {
    pub(crate) a: PackedRows<'a, A>,
    pub(crate) b: &'a WeightMatrix<'a>,
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
    pub(crate) packed_b: &'a mut Buffer,
    pub(crate) sums: &'a mut Buffer,
}

impl<A: Arithmetic> SimdOp for Strip<'_, A> {
    type Output = usize;
    const PAIRS: bool = A::UNIT == 2;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) -> usize {
        let Strip { a, b, rows, columns, packed_b, sums } = self;
        let nr = S::NV * S::LANES;
        let width = columns.len().next_multiple_of(nr);
        let panels = a.rows.div_ceil(S::MR);
        assert!(rows.start.is_multiple_of(S::MR) && rows.end <= a.rows && a.k == b.k);
        assert!(a.data.len() == panels * S::MR * A::units(a.k));
        let sums = sums.at_least(rows.len() * width);
        for block in blocks(b.k) {
            let units = A::units(block.len());
            let packed = packed_b.at_least(width * units);
            pack_b::<S, A>(s, b, block.clone(), columns.clone(), packed);
            for column in (0..width).step_by(nr) {
                for row in rows.clone().step_by(S::MR) {
                    let panel = A::units(block.start) * panels * S::MR + row * units;
                    let tile = PackedTile {
                        a: a.data[panel..].as_ptr(),
                        b: packed[column * units..].as_ptr(),
                        units,
                        c: sums[(row - rows.start) * width + column..].as_mut_ptr(),
                        c_stride: width,
                        accumulate: block.start > 0,
                    };
                    // SAFETY: the panel of a is whole (packing pads it), the panel of b is whole (`pack_b` pads it), and
                    // the tile's rows end at `rows.end`, its columns at `width`: inside `sums`.
                    unsafe { s.packed_tile::<A>(S::MR.min(rows.end - row), tile) };
                }
            }
        }
        width
    }
}

/// The packed matrix product.
pub(crate) fn gemm<A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    scratch: &mut Scratch,
    a: &[f32],
    b: WeightMatrix<'_>,
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let mr = register_rows(isa);
    let threads = scratch.threads.len();
    let a = pack_rows::<A>(isa, leader, a, b.k, &mut scratch.rows);
    let cut = Cut::new(a.rows, b.n, mr, NT, threads);
    let out = SharedOut::new(out);
    let threads = &scratch.threads;
    leader.share(a.rows * b.k * b.n, cut.tasks(), |task| {
        let (rows, columns) = cut.task(task);
        let mut own = threads.own();
        let ThreadScratch { packed: packed_b, sums, .. } = &mut *own;
        let strip = Strip { a, b: &b, rows: rows.clone(), columns: columns.clone(), packed_b, sums };
        let width = dispatch(isa, strip);
        dispatch(isa, Finish { sums: sums.as_slice(), width, rows, columns, n: b.n, epilogue, out });
    });
}

/// Puts the epilogue to a strip's sums and stores them.
struct Finish<'a> {
    sums: &'a [f32],
    width: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    n: usize,
    epilogue: Epilogue<'a>,
    out: SharedOut<f32>,
}

impl SimdOp for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Finish { columns, n, .. } = self;
        for (row, sums) in self.rows.zip(self.sums.chunks_exact(self.width)) {
            for (column, sums) in columns.clone().step_by(S::LANES).zip(sums.chunks_exact(S::LANES)) {
                // SAFETY: this task alone writes its rows and columns of the output; the vector ends at the last column;
                // the bias has n elements (`Kernels::gemm` checked).
                unsafe {
                    let out = self.out.at(row * n + column);
                    self.epilogue.finish(s, s.load(sums.as_ptr()), column, columns.end - column, out);
                }
            }
        }
    }
}
