//! Packing: copies of a and b in the order in which the register tile reads them, b widened (or narrowed to bf16) on the
//! way. Panels count k in units of the arithmetic.

use super::arithmetic::{Arithmetic, Element};
use super::{CACHE_LINE, Layout, WeightMatrix};
use crate::WeightData;
use crate::simd::Simd;
use std::ops::Range;

/// Elements of a row of a that are fetched ahead of use.
const PANEL_AHEAD: usize = 128;

/// What is fetched while b is packed: the elements `k` further on, and behind b's last k those of `columns` further columns.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) k: usize,
    pub(crate) columns: usize,
}

/// Packs `rows ≤ width` rows of a (row-major, `stride` apart), columns `k`, into one panel `[units][width]`; missing rows
/// are zero.
#[inline(always)]
pub(crate) fn pack_a_panel<S: Simd, A: Arithmetic>(
    s: S,
    a: &[f32],
    stride: usize,
    k: Range<usize>,
    rows: usize,
    width: usize,
    panel: &mut [f32],
) {
    let units = A::units(k.len());
    assert!(rows <= width && panel.len() == units * width);
    if rows == 0 || k.is_empty() {
        return;
    }
    for first in (0..width).step_by(S::LANES) {
        for done in (0..units).step_by(S::LANES) {
            let from = k.start + done * A::UNIT;
            let to = k.end.min(from + S::LANES * A::UNIT);
            // SAFETY: inside the panel; so is what the first `units - done` lines take from there.
            let first_line = unsafe { panel.as_mut_ptr().add(done * width + first) };
            let line = |i: usize| first_line.wrapping_add(i * width);
            if rows == width && to - from == S::LANES * A::UNIT {
                let mut square = [s.splat(0.0); 16];
                for (i, v) in square.iter_mut().enumerate().take(S::LANES) {
                    // Lanes behind the panel's last row are not stored.
                    let row = &a[(first + i).min(rows - 1) * stride..];
                    *v = A::along_k(s, &row[from..from + S::LANES * A::UNIT]);
                    s.prefetch(row.as_ptr().wrapping_add(from + PANEL_AHEAD).cast());
                }
                s.transpose(&mut square[..S::LANES]);
                for (i, &v) in square.iter().enumerate().take(S::LANES) {
                    // SAFETY: as above.
                    unsafe { s.store_first(line(i), v, width - first) };
                }
                continue;
            }
            let mut square = [s.splat(0.0); 16];
            for (row, v) in (first..rows).zip(square.iter_mut().take(S::LANES)) {
                *v = A::along_k(s, &a[row * stride + from..row * stride + to]);
                s.prefetch(a.as_ptr().wrapping_add(row * stride + from + PANEL_AHEAD).cast());
            }
            s.transpose(&mut square[..S::LANES]);
            for (i, &v) in square.iter().enumerate().take(S::LANES.min(units - done)) {
                // SAFETY: as above.
                unsafe { s.store_first(line(i), v, width - first) };
            }
        }
    }
}

/// Packs the block `k × columns` of b into panels `[columns / NR][units][NR]`; columns beyond the range are zero.
///
/// # Panics
/// If the block is not inside b or `out` is too short.
#[inline(always)]
pub(crate) fn pack_b<S: Simd, A: Arithmetic>(
    s: S,
    b: &WeightMatrix<'_>,
    k: Range<usize>,
    columns: Range<usize>,
    ahead: Ahead,
    out: &mut [f32],
) {
    let nr = S::NV * S::LANES;
    assert!(k.end <= b.k && columns.end <= b.n && b.is_whole());
    assert!(out.len() >= columns.len().next_multiple_of(nr) * A::units(k.len()));
    match (b.data, b.layout) {
        (WeightData::F32(data), Layout::InOut) => pack_in_out::<S, A, _>(s, data, b.stride, k, columns, ahead, out),
        (WeightData::F16(data), Layout::InOut) => pack_in_out::<S, A, _>(s, data, b.stride, k, columns, ahead, out),
        (WeightData::Bf16(data), Layout::InOut) => pack_in_out::<S, A, _>(s, data, b.stride, k, columns, ahead, out),
        (WeightData::F32(data), Layout::OutIn) => pack_out_in::<S, A, _>(s, data, b.stride, k, columns, ahead, out),
        (WeightData::F16(data), Layout::OutIn) => pack_out_in::<S, A, _>(s, data, b.stride, k, columns, ahead, out),
        (WeightData::Bf16(data), Layout::OutIn) => pack_out_in::<S, A, _>(s, data, b.stride, k, columns, ahead, out),
    }
}

#[inline(always)]
fn pack_in_out<S: Simd, A: Arithmetic, E: Element>(
    s: S,
    b: &[E],
    stride: usize,
    k: Range<usize>,
    columns: Range<usize>,
    ahead: Ahead,
    out: &mut [f32],
) {
    let nr = S::NV * S::LANES;
    let (units, total) = (A::units(k.len()), b.len().div_ceil(stride));
    let whole = columns.len() / nr * nr;
    for unit in 0..units {
        let row = k.start + unit * A::UNIT;
        let line = |row: usize| &b[row * stride + columns.start..row * stride + columns.end];
        let (line, next) = (line(row), (A::UNIT > 1 && row + 1 < k.end).then(|| line(row + 1)));
        // Behind the last row come the first ones of a strip further on.
        let behind = if row + ahead.k < total { 0 } else { (total * stride).wrapping_sub(ahead.columns) };
        let coming = line.as_ptr().wrapping_add(ahead.k * stride).wrapping_sub(behind);
        // SAFETY: the unit's line of the first panel (`pack_b` checked the length of `out`).
        let mut to = unsafe { out.as_mut_ptr().add(unit * nr) };
        for column in (0..whole).step_by(nr) {
            for vector in (column..column + nr).step_by(S::LANES) {
                // SAFETY: whole vectors before the ends of the lines; a line of a panel has `nr` elements.
                unsafe {
                    let take = |line: &[E]| std::slice::from_raw_parts(line.as_ptr().add(vector), S::LANES);
                    let v = A::across_k(s, take(line), next.map(take));
                    s.store(to.add(vector - column), v);
                }
                if (vector * size_of::<E>()).is_multiple_of(CACHE_LINE) {
                    s.prefetch(coming.wrapping_add(vector).cast());
                    if A::UNIT > 1 {
                        s.prefetch(coming.wrapping_add(stride + vector).cast());
                    }
                }
            }
            to = to.wrapping_add(units * nr);
        }
        for column in (whole..columns.len().next_multiple_of(nr)).step_by(S::LANES) {
            let rest = |line: &'_ [E]| -> Range<usize> { column.min(line.len())..line.len().min(column + S::LANES) };
            let v = A::across_k(s, &line[rest(line)], next.map(|next| &next[rest(next)]));
            // SAFETY: as above.
            unsafe { s.store(to.add(column - whole), v) };
        }
    }
}

#[inline(always)]
fn pack_out_in<S: Simd, A: Arithmetic, E: Element>(
    s: S,
    b: &[E],
    stride: usize,
    k: Range<usize>,
    columns: Range<usize>,
    ahead: Ahead,
    out: &mut [f32],
) {
    let nr = S::NV * S::LANES;
    let units = A::units(k.len());
    let step = S::LANES * A::UNIT;
    for column in (0..columns.len().next_multiple_of(nr)).step_by(S::LANES) {
        for done in (0..units).step_by(S::LANES) {
            let from = k.start + done * A::UNIT;
            let to = k.end.min(from + step);
            let at = (columns.start + column) * stride + from;
            // SAFETY: a vector inside the panel's line of unit `done`; so are those of the next units, below `units` (`pack_b`
            // checked the length of `out`).
            let first_line = unsafe { out.as_mut_ptr().add((column / nr * units + done) * nr + column % nr) };
            let line = |i: usize| first_line.wrapping_add(i * nr);
            if column + S::LANES <= columns.len() && to - from == step {
                // Behind the end of these rows come those of outputs further on.
                let further = if from + ahead.k < stride { 0 } else { ahead.columns * stride - stride };
                let coming = b.as_ptr().wrapping_add(at + ahead.k + further);
                let rows = &b[at..at + (S::LANES - 1) * stride + step];
                let fetch = (done * A::UNIT * size_of::<E>()).is_multiple_of(CACHE_LINE);
                let mut square = [s.splat(0.0); 16];
                for (j, v) in square.iter_mut().enumerate().take(S::LANES) {
                    // SAFETY: `step` elements of row `j < LANES`.
                    *v = A::along_k(s, unsafe { std::slice::from_raw_parts(rows.as_ptr().add(j * stride), step) });
                    if fetch {
                        s.prefetch(coming.wrapping_add(j * stride).cast());
                    }
                }
                s.transpose(&mut square[..S::LANES]);
                for (i, &v) in square.iter().enumerate().take(S::LANES) {
                    // SAFETY: as above.
                    unsafe { s.store(line(i), v) };
                }
                continue;
            }
            let mut square = [s.splat(0.0); 16];
            for (j, v) in square.iter_mut().enumerate().take(S::LANES) {
                let row = at + j * stride;
                if columns.start + column + j < columns.end {
                    *v = A::along_k(s, &b[row..row + (to - from)]);
                }
            }
            s.transpose(&mut square[..S::LANES]);
            for (i, &v) in square.iter().enumerate().take(S::LANES.min(units - done)) {
                // SAFETY: as above.
                unsafe { s.store(line(i), v) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::gemm::arithmetic::F32;
    use crate::simd::{SimdOp, dispatch};
    use half::{bf16, f16};

    /// Packs blocks of matrices whose elements are their own indices, padding included, over what an earlier use left.
    struct Pack {
        k: Range<usize>,
        columns: Range<usize>,
    }

    const K: usize = 40;
    const N: usize = 70;

    impl SimdOp for Pack {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            let Pack { k, columns } = self;
            let a: Vec<f32> = (0..S::MR * K).map(|at| at as f32).collect();
            for rows in 1..=S::MR {
                let mut panel = vec![f32::NAN; k.len() * S::MR];
                pack_a_panel::<S, F32>(s, &a[..rows * K], K, k.clone(), rows, S::MR, &mut panel);
                for (at, &x) in panel.iter().enumerate() {
                    let (i, row) = (k.start + at / S::MR, at % S::MR);
                    assert_eq!(x, if row < rows { a[row * K + i] } else { 0.0 }, "{k:?}, {rows} rows: ({i}, {row})");
                }
            }
            // Below 2048, f16 holds every integer.
            let index = |i: usize, j: usize| ((i * N + j) % 2_048) as f32;
            for layout in [Layout::InOut, Layout::OutIn] {
                let at =
                    |at: usize| if layout == Layout::InOut { index(at / N, at % N) } else { index(at % K, at / K) };
                let f32s: Vec<f32> = (0..K * N).map(at).collect();
                let f16s: Vec<f16> = f32s.iter().map(|&x| f16::from_f32(x)).collect();
                let bf16s: Vec<bf16> = f32s.iter().map(|&x| bf16::from_f32(x)).collect();
                for data in [WeightData::F32(&f32s), WeightData::F16(&f16s), WeightData::Bf16(&bf16s)] {
                    let nr = S::NV * S::LANES;
                    let mut out = vec![f32::NAN; columns.len().next_multiple_of(nr) * k.len()];
                    pack_b::<S, F32>(
                        s,
                        &WeightMatrix::new(data, K, N, layout),
                        k.clone(),
                        columns.clone(),
                        Ahead { k: 16, columns: 32 },
                        &mut out,
                    );
                    for (at, &x) in out.iter().enumerate() {
                        let (i, j) = (k.start + at / nr % k.len(), columns.start + at / (nr * k.len()) * nr + at % nr);
                        let want = if j < columns.end { index(i, j) } else { 0.0 };
                        let want = if let WeightData::Bf16(_) = data { bf16::from_f32(want).to_f32() } else { want };
                        assert_eq!(x, want, "{layout:?} {:?} {k:?} × {columns:?}: ({i}, {j})", data.dtype());
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_are_packed_whole_and_padded_with_zeros() {
        for isa in Isa::available() {
            let (some_k, some_columns) = if cfg!(miri) { (1, 2) } else { (6, 6) };
            for k in [3..19, 0..1, 0..K, 8..24, 39..40, 5..36].into_iter().take(some_k) {
                for columns in [64..N, 3..35, 0..1, 0..N, 32..64, 7..24].into_iter().take(some_columns) {
                    dispatch(isa, Pack { k: k.clone(), columns });
                }
            }
        }
    }
}
