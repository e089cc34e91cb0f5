//! The register tile: `MR × NR` sums held in registers over one block of k.

use super::arithmetic::Arithmetic;
use crate::simd::Simd;

/// One call of the register tile.
#[derive(Clone, Copy)]
pub(crate) struct PackedTile {
    /// A panel of a: `[units][MR]`.
    pub(crate) a: *const f32,
    /// A panel of b: `[units][NR]`.
    pub(crate) b: *const f32,
    pub(crate) units: usize,
    /// The sums: `[rows][c_stride]`.
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Whether this block's sums join those that are there already.
    pub(crate) accumulate: bool,
}

/// `c[i][j] (+)= Σ_k a[k][i] · b[k][j]` for `i < M`, `j < NV · LANES`.
///
/// # Safety
/// `units · MR` f32 are readable at `a`, `units · NV · LANES` at `b`, and `M` rows of `NV · LANES` f32 that are `c_stride` apart
/// are readable and writable at `c`.
#[inline(always)]
pub(crate) unsafe fn packed_tile<S: Simd, A: Arithmetic, const M: usize, const NV: usize>(s: S, t: PackedTile) {
    let mut acc = [[s.splat(0.0); NV]; M];
    let (mut a, mut b) = (t.a, t.b);
    // SAFETY: the pointers advance one unit at a time and stay inside what the caller vouches for.
    unsafe {
        for _ in 0..t.units {
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
            a = a.add(S::MR);
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
