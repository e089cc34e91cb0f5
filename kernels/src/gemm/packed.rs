//! The product of packed rows with columns of b: strips of columns, pieces of k, chunks of rows, register tiles.

use super::arithmetic::Arithmetic;
use super::finish::Finish;
use super::lines::Lines;
use super::pack::{Ahead, pack_b};
use super::rows::{Cut, FEW, PackedRows, pack_rows};
use super::{Epilogue, KC, Layout, NT, PackedTile, SharedOut, WeightMatrix, blocks};
use crate::Isa;
use crate::pool::Leader;
use crate::scratch::{PerThread, Scratch, ThreadScratch};
use crate::simd::{Simd, SimdOp, dispatch};
use std::marker::PhantomData;
use std::ops::Range;

/// k packed at a time when there are many rows: with [`NT`] columns 384 KiB, read from L2 by each chunk of rows.
const PIECE: usize = 3 * KC;

/// Columns packed at a time when there are few rows: with a block of k 32 KiB, which stay in L1.
const FEW_COLUMNS: usize = 32;

/// Rows that meet a packed piece before the next ones do: with them `a` and the sums have room beside it in L2.
const CHUNK: usize = 98;

/// A chunk of the product that is complete: `sums[rows][NT]`, of which the first `columns.len()` columns are real.
pub(crate) struct Chunk<'a> {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
    pub(crate) sums: &'a mut [f32],
}

/// What becomes of complete sums.
pub(crate) enum Then<'a> {
    /// They get their epilogue and are stored, register tile by register tile.
    Store(Finish<'a>),
    /// They are given away, chunk by chunk: strips of [`NT`] columns one after the other, in each the rows in order.
    Give(&'a mut dyn FnMut(Chunk<'_>)),
}

impl<'a> Then<'a> {
    /// What the register tiles do with complete sums.
    fn finish(&self) -> Option<Finish<'a>> {
        match self {
            Then::Store(finish) => Some(*finish),
            Then::Give(_) => None,
        }
    }

    /// Takes a complete chunk, if nobody has stored it yet.
    fn give(&mut self, chunk: Chunk<'_>) {
        if let Then::Give(give) = self {
            give(chunk);
        }
    }
}

/// Sums of all rows that wait for the next piece of k, when a is packed piece by piece: `[strips][rows][NT]`.
#[derive(Clone, Copy)]
pub(crate) struct Carried {
    sums: SharedOut<f32>,
    rows: usize,
}

impl Carried {
    /// The sums of `rows` of the strip that begins at `column`.
    ///
    /// # Safety
    /// No other task has them.
    unsafe fn of<'a>(self, rows: &Range<usize>, column: usize) -> &'a mut [f32] {
        assert!(column.is_multiple_of(NT) && rows.end <= self.rows);
        // SAFETY: inside `[strips][rows][NT]`; the caller vouches that it is the only user.
        unsafe {
            std::slice::from_raw_parts_mut(self.sums.at((column / NT * self.rows + rows.start) * NT), rows.len() * NT)
        }
    }
}

/// Room for [`multiply`] on every thread, for tasks of up to `task_rows` rows; and for `gathered` and `strip` elements.
pub(crate) fn reserve(threads: &PerThread, k: usize, task_rows: usize, gathered: usize, strip: usize) {
    threads.reserve(NT * PIECE.min(k), task_rows * NT, gathered, strip);
}

/// A part of the product: some rows of a, some columns of b.
pub(crate) struct Part<'a, A> {
    pub(crate) a: &'a PackedRows<'a, A>,
    pub(crate) b: &'a WeightMatrix<'a>,
    /// Begin a panel.
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
    /// Where a is a piece of k: what came of the pieces before.
    pub(crate) carried: Option<Carried>,
}

/// Computes a part. Where a is a piece of k, its sums are complete behind the last.
pub(crate) fn multiply<A: Arithmetic>(isa: Isa, part: Part<'_, A>, own: &mut ThreadScratch, mut then: Then<'_>) {
    let Part { a, b, rows, columns: all, carried } = part;
    assert!(rows.start.is_multiple_of(a.panel) && rows.end <= a.rows && all.end <= b.n);
    let chunk_rows = (CHUNK / a.panel).max(1) * a.panel;
    let ThreadScratch { packed, sums, .. } = own;
    let packed = packed.at_least(NT * PIECE.min(b.k));
    let own_sums = sums.at_least(rows.len() * NT);
    // With few rows b would go to L2 and back for little: it is packed as much at a time as L1 holds.
    let few = a.rows <= FEW;
    let (piece, width) = if few { (KC, FEW_COLUMNS) } else { (PIECE, NT) };
    let ahead = match b.layout {
        Layout::InOut => Ahead { k: 16, columns: width },
        Layout::OutIn => Ahead { k: 128, columns: 16 },
    };
    for strip in parts(all.clone(), NT) {
        for columns in parts(strip.clone(), width) {
            for k in parts(a.k.clone(), piece) {
                let arithmetic = PhantomData::<A>;
                dispatch(isa, Pack { b, k: k.clone(), columns: columns.clone(), ahead, packed, arithmetic });
                // Behind the last k sums are complete, behind the last columns all of the strip's.
                let complete = k.end == b.k;
                let last = columns.end == strip.end;
                for chunk in parts(rows.clone(), chunk_rows) {
                    let sums = match carried {
                        // SAFETY: this task alone has these rows of this strip.
                        Some(carried) => unsafe { carried.of(&chunk, strip.start) },
                        // What no later piece needs may stay where it is hot.
                        None if b.k <= piece => &mut own_sums[..chunk.len() * NT],
                        None => &mut own_sums[(chunk.start - rows.start) * NT..][..chunk.len() * NT],
                    };
                    let mut coming = if few {
                        behind::<A>(b, &k, &columns, all.end, a.rows.div_ceil(a.panel))
                    } else {
                        Lines::none()
                    };
                    let tiles = Multiply {
                        a,
                        k: k.clone(),
                        rows: chunk.clone(),
                        columns: columns.clone(),
                        packed,
                        sums: &mut sums[columns.start - strip.start..],
                        finish: then.finish().filter(|_| complete),
                        coming: &mut coming,
                    };
                    dispatch(isa, tiles);
                    if complete && last {
                        then.give(Chunk { rows: chunk, columns: strip.clone(), sums });
                    }
                }
            }
        }
    }
}

/// A range in parts of `size`, the last one what is left.
fn parts(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size).map(move |start| start..end.min(start + size))
}

/// What few rows meet behind a piece: the next k of its columns, or the next columns. It is fetched while the `panels` of a
/// are computed.
fn behind<A: Arithmetic>(
    b: &WeightMatrix<'_>,
    k: &Range<usize>,
    columns: &Range<usize>,
    end: usize,
    panels: usize,
) -> Lines {
    if k.end < b.k {
        Lines::of_weights(b, k.end..b.k.min(k.end + KC), columns.clone(), A::units(k.len()) * panels)
    } else {
        Lines::of_weights(
            b,
            0..b.k.min(KC),
            columns.end..end.min(columns.end + FEW_COLUMNS),
            A::units(k.len()) * panels,
        )
    }
}

/// Packs `k × columns` of b, block by block.
struct Pack<'a, A> {
    b: &'a WeightMatrix<'a>,
    k: Range<usize>,
    columns: Range<usize>,
    ahead: Ahead,
    packed: &'a mut [f32],
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> SimdOp for Pack<'_, A> {
    type Output = ();
    const PAIRS: bool = A::UNIT == 2;
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let width = self.columns.len().next_multiple_of(S::NV * S::LANES);
        let mut packed = self.packed;
        for k in blocks(self.k) {
            let (now, later) = packed.split_at_mut(A::units(k.len()) * width);
            pack_b::<S, A>(s, self.b, k, self.columns.clone(), self.ahead, now);
            packed = later;
        }
    }
}

/// A chunk of rows over a packed piece: the operation that holds every register tile.
struct Multiply<'a, A> {
    a: &'a PackedRows<'a, A>,
    k: Range<usize>,
    rows: Range<usize>,
    columns: Range<usize>,
    packed: &'a [f32],
    /// Of the first column on: the rows are [`NT`] apart.
    sums: &'a mut [f32],
    /// What completes the sums, behind the last block of k.
    finish: Option<Finish<'a>>,
    /// What else is fetched meanwhile.
    coming: &'a mut Lines,
}

impl<A: Arithmetic> SimdOp for Multiply<'_, A> {
    type Output = ();
    const PAIRS: bool = A::UNIT == 2;

    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        let Multiply { a, rows, columns, sums, finish, coming, .. } = self;
        let nr = S::NV * S::LANES;
        let width = columns.len().next_multiple_of(nr);
        let last = self.k.end;
        let mut packed = self.packed;
        assert!(rows.end <= a.rows && rows.start.is_multiple_of(a.panel));
        assert!(!rows.is_empty() && width <= NT && sums.len() >= (rows.len() - 1) * NT + width);
        for k in blocks(self.k) {
            let units = A::units(k.len());
            let (now, later) = packed.split_at(units * width);
            let finish = finish.filter(|_| k.end == last);
            for column in (0..width).step_by(nr) {
                for row in rows.clone().step_by(a.panel) {
                    let tile_rows = row..rows.end.min(row + a.panel);
                    let tile_columns = columns.start + column..columns.end.min(columns.start + column + nr);
                    let mut output = finish.map(|finish| finish.lines(&tile_rows, &tile_columns));
                    let coming = output.as_mut().unwrap_or(coming);
                    let tile = PackedTile {
                        a: a.panel_at(row, k.start),
                        a_stride: a.panel,
                        b: now[column * units..].as_ptr(),
                        units,
                        c: sums[(row - rows.start) * NT + column..].as_mut_ptr(),
                        c_stride: NT,
                        accumulate: k.start > 0,
                    };
                    // SAFETY: the panel of a is whole (packing pads it), the panel of b is whole (`pack_b` pads it), and
                    // the tile's rows end at `rows.end`, its columns inside a line of NT.
                    unsafe { s.packed_tile::<A>(tile_rows.len(), tile, coming) };
                    if let Some(finish) = finish {
                        // SAFETY: this task alone has these rows and columns of the output, and the bias has n elements
                        // (`Kernels::gemm` checked).
                        unsafe { finish.store(s, tile_rows, tile_columns, &sums[(row - rows.start) * NT + column..]) };
                    }
                }
            }
            packed = later;
        }
    }
}

/// The matrix product.
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
    let (rows, n) = (a.len() / b.k, b.n);
    // With many rows a is packed a piece at a time: all of it would not stay in cache from strip to strip.
    let step = if rows > CHUNK { PIECE } else { b.k };
    let carried = (b.k > step).then(|| {
        let sums = partial_sums.at_least(n.div_ceil(NT) * rows * NT);
        Carried { sums: SharedOut::new(sums), rows }
    });
    let out = SharedOut::new(out);
    for from in (0..b.k).step_by(step) {
        let k = from..b.k.min(from + step);
        let a = &pack_rows::<A>(isa, leader, a, b.k, k.clone(), packed);
        let cut = Cut::new(rows, a.panel, n, NT, threads.len());
        reserve(threads, b.k, cut.task(0).0.len(), 0, 0);
        leader.share(rows * k.len() * n, cut.tasks(), |task| {
            let (rows, columns) = cut.task(task);
            let finish = Then::Store(Finish { n, epilogue, out });
            multiply(isa, Part { a, b: &b, rows, columns, carried }, &mut threads.own(), finish);
        });
    }
}
