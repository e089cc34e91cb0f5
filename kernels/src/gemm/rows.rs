//! Rows of a, packed into panels in the order in which the register tile reads them, and the cut of a product into
//! tasks.

use super::KC;
use super::arithmetic::Arithmetic;
use super::pack::pack_a_panel;
use crate::gemm::SharedOut;
use crate::pool::Leader;
use crate::simd::{Simd, SimdOp, dispatch};
use crate::{Floats, Isa};
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of one task at most, but for the rounding to whole panels: with several pieces of k its sums (`rows × NT` f32)
/// wait in L2.
const MAX_TASK_ROWS: usize = 1056;

/// Rows up to which weights are the slower side to come.
pub(crate) const FEW: usize = 48;

/// Tasks a thread should have at least, so that a last, lonely one costs little.
const TASKS_PER_THREAD: usize = 3;

/// Rows of a packed into panels: for each block of k, `[panels][units][panel]`.
pub(crate) struct PackedRows<'a, A> {
    data: &'a [f32],
    pub(crate) rows: usize,
    /// Begins a block.
    pub(crate) k: Range<usize>,
    /// Rows of a panel: those of the register tile, or fewer where there are few.
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

/// Packs `k`, whole blocks, of all rows of a (`[rows, stride]`), each block of each panel one task.
pub(crate) fn pack_rows<'a, A: Arithmetic>(
    isa: Isa,
    leader: &mut Leader<'_>,
    a: &[f32],
    stride: usize,
    k: Range<usize>,
    into: &'a mut Floats,
) -> PackedRows<'a, A> {
    struct Op<'a, A> {
        a: &'a [f32],
        stride: usize,
        k: Range<usize>,
        block: Range<usize>,
        panel: usize,
        panel_rows: usize,
        out: SharedOut<f32>,
        arithmetic: PhantomData<A>,
    }
    impl<A: Arithmetic> SimdOp for Op<'_, A> {
        type Output = ();
        const PAIRS: bool = A::UNIT == 2;
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            let Op { a, stride, k, block, panel, panel_rows, .. } = self;
            let (all, first) = (a.len() / stride, panel * panel_rows);
            let panels = all.div_ceil(panel_rows);
            let units = A::units(block.len());
            let at = (A::units(block.start - k.start) * panels + panel * units) * panel_rows;
            // SAFETY: each panel of each block has its own range of the output, sized by `pack_rows`.
            let packed = unsafe { std::slice::from_raw_parts_mut(self.out.at(at), units * panel_rows) };
            let rows = panel_rows.min(all - first);
            pack_a_panel::<S, A>(s, &a[first * stride..], stride, block, rows, panel_rows, packed);
        }
    }
    let rows = a.len() / stride;
    let tile_rows = tile_rows(isa);
    let panel_rows = if rows <= FEW { panel_of_few(rows, tile_rows) } else { tile_rows };
    let panels = rows.div_ceil(panel_rows);
    let len = panels * panel_rows * A::units(k.len());
    let out = SharedOut::new(into.at_least(len));
    let count = k.len().div_ceil(KC);
    // Copying an element costs about as much as ten multiply-adds.
    leader.share(10 * rows * k.len(), panels * count, |task| {
        let start = k.start + task % count * KC;
        let block = start..k.end.min(start + KC);
        let panel = task / count;
        dispatch(isa, Op { a, stride, k: k.clone(), block, panel, panel_rows, out, arithmetic: PhantomData::<A> });
    });
    PackedRows { data: &into[..len], rows, k, panel: panel_rows, arithmetic: PhantomData }
}

/// Rows of a panel where there are few: the fewest that cover them in as few panels as possible, of the sizes that
/// [`super::few`] has tiles for.
fn panel_of_few(rows: usize, tile_rows: usize) -> usize {
    let panel =
        |least: usize| [1, 2, 4, 6, 8, 12].into_iter().filter(|&size| size <= tile_rows).find(|&size| size >= least);
    let panels = (1..=rows).find(|&panels| panel(rows.div_ceil(panels)).is_some());
    panels.and_then(|panels| panel(rows.div_ceil(panels))).unwrap_or(1)
}

/// Rows of the register tile.
fn tile_rows(isa: Isa) -> usize {
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

    /// Tasks of `task_columns` columns and all rows.
    pub(crate) fn of_columns(rows: usize, panel: usize, columns: usize, task_columns: usize) -> Cut {
        Cut { rows, columns, task_rows: rows.next_multiple_of(panel).max(panel), task_columns }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::NT;

    /// Tasks of GPT-2 small's products at 1024 rows in the panels of AVX-512, and of its unembedding by groups of 1024
    /// outputs.
    #[test]
    fn two_threads_and_sixty_four_are_fed() {
        let counts = |threads| {
            let tasks = |n, columns| Cut::new(1024, 14, n, columns, threads).tasks();
            [tasks(768, NT), tasks(2304, NT), tasks(3072, NT), tasks(50_257, 1024)]
        };
        assert_eq!(counts(1), [6, 18, 24, 50]);
        assert_eq!(counts(2), [6, 18, 24, 50]);
        assert_eq!(counts(64), [150, 198, 192, 200]);
    }

    /// The tiles of `few`, which has no others.
    const TILES: [usize; 6] = [1, 2, 4, 6, 8, 12];

    #[test]
    fn few_rows_take_the_smallest_panel_that_makes_the_fewest() {
        for tile_rows in Isa::available().map(tile_rows).chain([1, 2, 4, 6, 8, 14]) {
            let tiles = || TILES.into_iter().filter(|&tile| tile <= tile_rows);
            for rows in 1..=FEW {
                let panel = panel_of_few(rows, tile_rows);
                assert!(tiles().any(|tile| tile == panel), "{rows} rows: {panel}, tiles of {tile_rows}");
                let fewest = tiles().map(|tile| rows.div_ceil(tile)).min();
                assert_eq!(
                    Some(rows.div_ceil(panel)),
                    fewest,
                    "{rows} rows in panels of {panel}, tiles of {tile_rows}"
                );
                let smaller = tiles().take_while(|&tile| tile < panel).last();
                assert!(smaller.is_none_or(|tile| Some(rows.div_ceil(tile)) > fewest), "{rows} rows: {panel}");
            }
        }
        let panels =
            |tile_rows| [1, 2, 3, 5, 7, 9, 12, 13, 16, 17, 24, 25, 48].map(|rows| panel_of_few(rows, tile_rows));
        assert_eq!(panels(14), [1, 2, 4, 6, 8, 12, 12, 8, 8, 12, 12, 12, 12]);
        assert_eq!(panels(6), [1, 2, 4, 6, 4, 6, 6, 6, 6, 6, 6, 6, 6]);
    }

    #[test]
    fn tasks_cover_every_row_and_column_once() {
        for (rows, columns, threads) in [(1, 1, 1), (1024, 768, 2), (1000, 2305, 64), (97, 50_257, 7), (25, 130, 64)] {
            let cut = Cut::new(rows, 14, columns, NT, threads);
            let mut seen = vec![0_u8; rows * columns];
            for (rows, range) in (0..cut.tasks()).map(|task| cut.task(task)) {
                assert!(rows.start.is_multiple_of(14));
                rows.for_each(|row| seen[row * columns..][range.clone()].iter_mut().for_each(|seen| *seen += 1));
            }
            assert!(seen.iter().all(|&seen| seen == 1), "{rows} × {columns}, {threads} threads");
        }
    }
}
