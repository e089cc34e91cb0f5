//! The register tile: `M × NR` sums held in registers while k runs over one block.

use super::arithmetic::Arithmetic;
use super::lines::{Lines, UNITS};
use crate::simd::Simd;

/// Units of a that are fetched ahead of use: a is read from start to end, strip after strip, and comes from the last cache.
const AHEAD: usize = 16;

/// One call of the register tile.
#[derive(Clone, Copy)]
pub(crate) struct PackedTile {
    /// A panel of a: `[units][a_stride]`.
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    /// A panel of b: `[units][NR]`.
    pub(crate) b: *const f32,
    pub(crate) units: usize,
    /// Where the sums go: `[rows][c_stride]`.
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Whether they join what is at `c`: the sums of the blocks before.
    pub(crate) accumulate: bool,
}

/// `c[i][j] (+)= Σ_k a[k][i] · b[k][j]` for `i < M`, `j < NV · LANES`; meanwhile `coming` is fetched.
///
/// # Safety
/// `units` lines of `M` f32, `a_stride` apart, are readable at `a`, `units · NV · LANES` f32 at `b`; `M` rows of
/// `NV · LANES` f32, `c_stride` apart, are readable and writable at `c`.
#[inline(always)]
pub(crate) unsafe fn packed_tile<S: Simd, A: Arithmetic, const M: usize, const NV: usize>(
    s: S,
    t: PackedTile,
    coming: &mut Lines,
) {
    let mut acc = [[s.splat(0.0); NV]; M];
    let (mut a, mut b) = (t.a, t.b);
    // SAFETY: the pointers advance one unit at a time and stay inside what the caller vouches for.
    unsafe {
        for unit in 0..t.units {
            if unit % UNITS == 0 {
                coming.fetch(s);
            }
            s.prefetch(a.wrapping_add(AHEAD * t.a_stride).cast());
            let mut bv = [s.splat(0.0); NV];
            for (j, bv) in bv.iter_mut().enumerate() {
                *bv = s.load(b.add(j * S::LANES));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let av = s.splat(*a.add(i));
                for (acc, &bv) in acc.iter_mut().zip(&bv) {
                    *acc = A::multiply_add(s, av, bv, *acc);
                }
            }
            a = a.add(t.a_stride);
            b = b.add(NV * S::LANES);
        }
        for (i, row) in acc.iter().enumerate() {
            for (j, &sum) in row.iter().enumerate() {
                let c = t.c.add(i * t.c_stride + j * S::LANES);
                s.store(c, if t.accumulate { s.add(s.load(c), sum) } else { sum });
            }
        }
    }
}
