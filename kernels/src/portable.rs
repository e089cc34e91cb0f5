//! Vectors of 8 lanes in plain Rust, for processors without a file of their own.

use crate::gemm::PackedTile;
use crate::gemm::arithmetic::Arithmetic;
use crate::gemm::lines::Lines;
use crate::gemm::tile::packed_tile;
use crate::simd::{Simd, SimdOp};
use half::{bf16, f16};

/// Needs no proof: every processor can.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 8;

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

/// 2ⁿ for n in −126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

impl Simd for Portable {
    const LANES: usize = LANES;
    const MR: usize = 4;
    const NV: usize = 2;
    type V = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: the caller's.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: only i < n is read, which the caller vouches for.
        lanes(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> Self::V {
        // SAFETY: the caller's.
        lanes(|i| unsafe { *p.add(i) }.to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V {
        // SAFETY: the caller's.
        lanes(|i| unsafe { *p.add(i) }.to_f32())
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: the caller's.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize) {
        for (i, &x) in v.iter().enumerate().take(n) {
            // SAFETY: i < n, which the caller vouches for.
            unsafe { *p.add(i) = x }
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] / b[i])
    }
    // Two roundings: `f32::mul_add` without an FMA instruction is a call into a slow library routine.
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn round_bf16(self, v: Self::V) -> Self::V {
        lanes(|i| bf16::from_f32(v[i]).to_f32())
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn zero_where_zero(self, a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| if b[i] != 0.0 { a[i] } else { 0.0 })
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Adding 1.5 · 2²³ leaves no room for a fraction; exact for |a| < 2²².
        lanes(|i| (a[i] + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: Self::V, n: Self::V) -> Self::V {
        // Two factors, so that neither leaves the normal range and only the last product rounds.
        lanes(|i| {
            let n = n[i] as i32;
            a[i] * power_of_two(n >> 1) * power_of_two(n - (n >> 1))
        })
    }
    #[inline(always)]
    fn count_greater(self, a: Self::V, b: Self::V) -> u32 {
        (0..LANES).map(|i| u32::from(a[i] > b[i])).sum()
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [Self::V]) {
        let columns: [Self::V; LANES] = std::array::from_fn(|j| lanes(|i| rows[i][j]));
        rows.copy_from_slice(&columns);
    }
    #[inline(always)]
    fn run<Op: SimdOp>(self, op: Op) -> Op::Output {
        op.eval(self)
    }
    #[inline(always)]
    unsafe fn packed_tile<A: Arithmetic>(self, rows: usize, tile: PackedTile, coming: &mut Lines) {
        // SAFETY: the caller's.
        unsafe {
            match rows {
                1 => packed_tile::<Self, A, 1, 2>(self, tile, coming),
                2 => packed_tile::<Self, A, 2, 2>(self, tile, coming),
                3 => packed_tile::<Self, A, 3, 2>(self, tile, coming),
                _ => packed_tile::<Self, A, 4, 2>(self, tile, coming),
            }
        }
    }
}
