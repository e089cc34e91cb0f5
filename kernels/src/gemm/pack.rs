//! Packing: copies of a and b in the order in which the register tile reads them, b widened to f32 on the way.

use super::{Layout, WeightMatrix};
use crate::WeightData;
use crate::simd::Simd;
use half::{bf16, f16};
use std::ops::Range;

/// An element type b can be stored in.
pub(crate) trait Element: Copy {
    /// # Safety
    /// `LANES` elements are readable at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::V {
        // SAFETY: the caller's.
        unsafe { s.load(p) }
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f16) -> S::V {
        // SAFETY: the caller's.
        unsafe { s.load_f16(p) }
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const bf16) -> S::V {
        // SAFETY: the caller's.
        unsafe { s.load_bf16(p) }
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

/// Packs `rows ≤ MR` rows of a (row-major, `stride` apart), columns `k`, into one panel `[k][MR]`; missing rows are zero.
#[inline(always)]
pub(crate) fn pack_a_panel<S: Simd>(s: S, a: &[f32], stride: usize, k: Range<usize>, rows: usize, panel: &mut [f32]) {
    debug_assert!(rows <= S::MR && panel.len() == k.len() * S::MR);
    if rows == 0 || k.is_empty() {
        return;
    }
    assert!(a.len() >= (rows - 1) * stride + k.end);
    let mut block = [s.splat(0.0); 16];
    let block = &mut block[..S::LANES];
    let mut done = 0;
    while done < k.len() {
        let width = (k.len() - done).min(S::LANES);
        for (i, v) in block.iter_mut().enumerate() {
            *v = if i < rows {
                // SAFETY: row i < rows, columns k.start + done .. + width ≤ k.end: inside `a` by the assertion.
                unsafe { s.load_first(a.as_ptr().add(i * stride + k.start + done), width) }
            } else {
                s.splat(0.0)
            };
        }
        s.transpose(block);
        for (i, &v) in block.iter().enumerate().take(width) {
            // SAFETY: `(done + i) · MR + MR ≤ panel.len()`.
            unsafe { s.store_first(panel.as_mut_ptr().add((done + i) * S::MR), v, S::MR) };
        }
        done += width;
    }
}

/// Packs the block `k × columns` of b into panels `[columns / NR][k][NR]`; columns beyond the range are zero.
///
/// # Panics
/// If the block is not inside b or `out` is too short.
#[inline(always)]
pub(crate) fn pack_b<S: Simd>(s: S, b: &WeightMatrix<'_>, k: Range<usize>, columns: Range<usize>, out: &mut [f32]) {
    let nr = S::NV * S::LANES;
    assert!(k.end <= b.k && columns.end <= b.n && b.data.len() == b.k * b.n);
    assert!(out.len() >= columns.len().next_multiple_of(nr) * k.len());
    match (b.data, b.layout) {
        (WeightData::F32(data), Layout::InOut) => pack_in_out(s, data, b.n, k, columns, out),
        (WeightData::F16(data), Layout::InOut) => pack_in_out(s, data, b.n, k, columns, out),
        (WeightData::Bf16(data), Layout::InOut) => pack_in_out(s, data, b.n, k, columns, out),
        (WeightData::F32(data), Layout::OutIn) => pack_out_in(s, data, b.k, k, columns, out),
        (WeightData::F16(data), Layout::OutIn) => pack_out_in(s, data, b.k, k, columns, out),
        (WeightData::Bf16(data), Layout::OutIn) => pack_out_in(s, data, b.k, k, columns, out),
    }
}

#[inline(always)]
fn pack_in_out<S: Simd, E: Element>(
    s: S,
    b: &[E],
    stride: usize,
    k: Range<usize>,
    columns: Range<usize>,
    out: &mut [f32],
) {
    let nr = S::NV * S::LANES;
    let whole = columns.len() / nr;
    for (i, row) in k.clone().enumerate() {
        for panel in 0..whole {
            for v in 0..S::NV {
                // SAFETY: the panel is whole, so the vector is inside row `row` of b and inside `out` (`pack_b` checked).
                unsafe {
                    let from = b.as_ptr().add(row * stride + columns.start + panel * nr + v * S::LANES);
                    s.store(out.as_mut_ptr().add((panel * k.len() + i) * nr + v * S::LANES), E::load(s, from));
                }
            }
        }
        let rest = columns.start + whole * nr..columns.end;
        if !rest.is_empty() {
            let line = &mut out[(whole * k.len() + i) * nr..][..nr];
            line.fill(0.0);
            for (to, from) in line.iter_mut().zip(&b[row * stride + rest.start..row * stride + rest.end]) {
                *to = from.widen();
            }
        }
    }
}

#[inline(always)]
fn pack_out_in<S: Simd, E: Element>(
    s: S,
    b: &[E],
    stride: usize,
    k: Range<usize>,
    columns: Range<usize>,
    out: &mut [f32],
) {
    let nr = S::NV * S::LANES;
    let lanes = S::LANES;
    let mut column = 0;
    while column < columns.len().next_multiple_of(nr) {
        let (panel, within) = (column / nr, column % nr);
        let present = columns.len().saturating_sub(column).min(lanes);
        let at = |i: usize| (panel * k.len() + i) * nr + within;
        let mut done = 0;
        if present == lanes {
            let mut block = [s.splat(0.0); 16];
            let block = &mut block[..lanes];
            while done + lanes <= k.len() {
                for (i, v) in block.iter_mut().enumerate() {
                    // SAFETY: column + i < columns.len() and done + LANES ≤ k.len(): inside b (`pack_b` checked).
                    *v = unsafe { E::load(s, b.as_ptr().add((columns.start + column + i) * stride + k.start + done)) };
                }
                s.transpose(block);
                for (i, &v) in block.iter().enumerate() {
                    // SAFETY: `at(k.len() − 1) + LANES` is inside `out` (`pack_b` checked).
                    unsafe { s.store(out.as_mut_ptr().add(at(done + i)), v) };
                }
                done += lanes;
            }
        }
        for i in done..k.len() {
            let line = &mut out[at(i)..][..lanes];
            line.fill(0.0);
            for (j, to) in line.iter_mut().enumerate().take(present) {
                *to = b[(columns.start + column + j) * stride + k.start + i].widen();
            }
        }
        column += lanes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::simd::{SimdOp, dispatch};

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
                pack_a_panel(s, &a[..rows * K], K, k.clone(), rows, &mut panel);
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
                    pack_b(s, &WeightMatrix { data, k: K, n: N, layout }, k.clone(), columns.clone(), &mut out);
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
