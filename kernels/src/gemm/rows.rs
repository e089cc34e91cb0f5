//! Rows of a, packed into panels in the order in which the register tile reads them, and the cut of a product into
//! tasks.

use super::arithmetic::Arithmetic;
use super::pack::pack_a_panel;
use super::{KC, blocks};
use crate::Isa;
use crate::gemm::SharedOut;
use crate::pool::Leader;
use crate::scratch::Buffer;
use crate::simd::{Simd, SimdOp, dispatch};
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of one task at most: with several pieces of k its sums (`rows × NT` f32) wait in L2.
const MAX_TASK_ROWS: usize = 1056;

/// Tasks a thread should have at least, so that a last, lonely one costs little.
const TASKS_PER_THREAD: usize = 3;

/// Rows of a packed into panels: for each block of k, `[panels][units][panel]`.
#[derive(Clone)]
pub(crate) struct PackedRows<'a, A> {
    data: &'a [f32],
    pub(crate) rows: usize,
    /// Begins a block.
    pub(crate) k: Range<usize>,
    /// Rows of a panel: at most the register tile's, and as even as the rows allow (16 rows are twice 8, not 12 and 4).
    pub(crate) panel: usize,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> PackedRows<'_, A> {
    /// The panel of `row`, from unit `k` of its block on.
    ///
    /// # Panics
    /// If row or k is outside.
    #[inline(always)]
    pub(crate) fn panel_at(&self, row: usize, k: usize) -> *const f32 {
        let start = k / KC * KC;
        let units = A::units(self.k.end.min(start + KC) - start);
        let panels = self.rows.div_ceil(self.panel);
        let block = A::units(start - self.k.start) * panels * self.panel;
        self.data[block + (row / self.panel * units + A::units(k - start)) * self.panel..].as_ptr()
    }
}

/// Packs `k` of all rows of a (`[rows, stride]`), each panel one task.
pub(crate) fn pack_rows<'a, A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    a: &[f32],
    stride: usize,
    k: Range<usize>,
    into: &'a mut Buffer,
) -> PackedRows<'a, A> {
    struct Op<'a, A> {
        a: &'a [f32],
        stride: usize,
        k: Range<usize>,
        panel: usize,
        panels: usize,
        panel_rows: usize,
        out: SharedOut<f32>,
        arithmetic: PhantomData<A>,
    }
    impl<A: Arithmetic> SimdOp for Op<'_, A> {
        type Output = ();
        const PAIRS: bool = A::UNIT == 2;
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            let first = self.panel * self.panel_rows;
            let rows = self.panel_rows.min(self.a.len() / self.stride - first);
            for block in blocks(self.k.clone()) {
                let units = A::units(block.len());
                let at = (A::units(block.start - self.k.start) * self.panels + self.panel * units) * self.panel_rows;
                // SAFETY: each panel of each block has its own range of the output, sized by `pack_rows`.
                let panel = unsafe { std::slice::from_raw_parts_mut(self.out.at(at), units * self.panel_rows) };
                pack_a_panel::<S, A>(
                    s,
                    &self.a[first * self.stride..],
                    self.stride,
                    block,
                    rows,
                    self.panel_rows,
                    panel,
                );
            }
        }
    }
    let rows = a.len() / stride;
    let panels = rows.div_ceil(register_rows(isa));
    let panel_rows = rows.div_ceil(panels);
    let panels = rows.div_ceil(panel_rows);
    let len = panels * panel_rows * A::units(k.len());
    let out = SharedOut::new(into.at_least(len));
    // Copying an element costs about as much as ten multiply-adds.
    leader.share(10 * rows * k.len(), panels, |panel| {
        dispatch(isa, Op { a, stride, k: k.clone(), panel, panels, panel_rows, out, arithmetic: PhantomData::<A> });
    });
    PackedRows { data: &into.as_slice()[..len], rows, k, panel: panel_rows, arithmetic: PhantomData }
}

/// Rows of the register tile.
fn register_rows(isa: Isa) -> usize {
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

/// How rows and columns are cut into tasks. Affects speed only.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    rows: usize,
    columns: usize,
    task_rows: usize,
    task_columns: usize,
}

impl Cut {
    /// Tasks of `task_columns` columns, and of as many rows as leave each thread a few; rows in whole panels.
    pub(crate) fn new(rows: usize, panel: usize, columns: usize, task_columns: usize, threads: usize) -> Cut {
        let strips = columns.div_ceil(task_columns).max(1);
        let parts = (TASKS_PER_THREAD * threads).div_ceil(strips).max(rows.div_ceil(MAX_TASK_ROWS));
        let task_rows = rows.div_ceil(parts.max(1)).next_multiple_of(panel).max(panel);
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
