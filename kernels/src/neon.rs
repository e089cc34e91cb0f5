//! NEON vectors: 8 lanes in two registers of 4.
//!
//! Eight lanes make every operation's lanes, and with FMA its bits, those of AVX2.

use crate::gemm::PackedTile;
use crate::gemm::arithmetic::Arithmetic;
use crate::gemm::lines::Lines;
use crate::gemm::tile::packed_tile;
use crate::simd::{Simd, SimdOp};
use half::{bf16, f16};
use std::arch::aarch64::*;

/// Proof that the processor has NEON (FMA and the conversion of f16 are part of it).
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// The token, if the processor has the instructions.
    #[inline(always)]
    pub(crate) fn detect() -> Option<Neon> {
        crate::Isa::Neon.is_available().then_some(Neon(()))
    }
}

/// Lanes of one register.
const QUAD: usize = 4;

type Quad = float32x4_t;

/// # Safety
/// The processor has NEON, as every [`Neon`] proves; `n < 4` f32 are readable at `p`.
#[inline(always)]
unsafe fn load_few(p: *const f32, n: usize) -> Quad {
    // SAFETY: only the first n elements are read.
    unsafe {
        let zero = vdupq_n_f32(0.0);
        match n {
            0 => zero,
            1 => vld1q_lane_f32::<0>(p, zero),
            2 => vcombine_f32(vld1_f32(p), vdup_n_f32(0.0)),
            _ => vld1q_lane_f32::<2>(p.add(2), vcombine_f32(vld1_f32(p), vdup_n_f32(0.0))),
        }
    }
}

/// # Safety
/// The processor has NEON, as every [`Neon`] proves; `n < 4` f32 are writable at `p`.
#[inline(always)]
unsafe fn store_few(p: *mut f32, v: Quad, n: usize) {
    // SAFETY: only the first n elements are written.
    unsafe {
        match n {
            0 => {}
            1 => vst1q_lane_f32::<0>(p, v),
            2 => vst1_f32(p, vget_low_f32(v)),
            _ => {
                vst1_f32(p, vget_low_f32(v));
                vst1q_lane_f32::<2>(p.add(2), v);
            }
        }
    }
}

/// # Safety
/// The processor has NEON, as every [`Neon`] proves.
#[inline(always)]
unsafe fn transpose_quads(r: [Quad; QUAD]) -> [Quad; QUAD] {
    // SAFETY: register operands only.
    unsafe {
        let pairs = |v| vreinterpretq_f64_f32(v);
        let lanes = |v| vreinterpretq_f32_f64(v);
        let (even01, odd01) = (pairs(vtrn1q_f32(r[0], r[1])), pairs(vtrn2q_f32(r[0], r[1])));
        let (even23, odd23) = (pairs(vtrn1q_f32(r[2], r[3])), pairs(vtrn2q_f32(r[2], r[3])));
        [
            lanes(vtrn1q_f64(even01, even23)),
            lanes(vtrn1q_f64(odd01, odd23)),
            lanes(vtrn2q_f64(even01, even23)),
            lanes(vtrn2q_f64(odd01, odd23)),
        ]
    }
}

// SAFETY (all arithmetic below): the token proves that the processor has the instructions; register operands only.
impl Simd for Neon {
    const LANES: usize = 2 * QUAD;
    // 6 × 2 × 2 accumulators + 4 registers of b + 1 broadcast = 29 of 32 registers; 24 FMAs per 10 loads.
    const MR: usize = 6;
    const NV: usize = 2;
    type V = [Quad; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see the impl.
        [unsafe { vdupq_n_f32(x) }; 2]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: the caller's.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(QUAD))] }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: only the first n lanes are read, which the caller vouches for.
        unsafe {
            if n >= Self::LANES {
                self.load(p)
            } else if n >= QUAD {
                [vld1q_f32(p), load_few(p.add(QUAD), n - QUAD)]
            } else {
                [load_few(p, n), vdupq_n_f32(0.0)]
            }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> Self::V {
        // SAFETY: the caller's; an f16 is two bytes.
        unsafe {
            let h = vld1q_u16(p.cast());
            [vget_low_u16(h), vget_high_u16(h)].map(|h| vcvt_f32_f16(vreinterpret_f16_u16(h)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V {
        // SAFETY: the caller's; a bf16 is the upper half of an f32.
        unsafe {
            let h = vld1q_u16(p.cast());
            [vget_low_u16(h), vget_high_u16(h)].map(|h| vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(h))))
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: the caller's.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(QUAD), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: only the first n lanes are written, which the caller vouches for.
        unsafe {
            if n >= Self::LANES {
                self.store(p, v);
            } else if n >= QUAD {
                vst1q_f32(p, v[0]);
                store_few(p.add(QUAD), v[1], n - QUAD);
            } else {
                store_few(p, v[0], n);
            }
        }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // The intrinsic is not stable yet.
        // SAFETY: a prefetch never faults and changes no register.
        unsafe { std::arch::asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(nostack, readonly, preserves_flags)) }
    }
    #[inline(always)]
    fn prefetch_far(self, p: *const u8) {
        // SAFETY: as above.
        unsafe { std::arch::asm!("prfm pldl2keep, [{p}]", p = in(reg) p, options(nostack, readonly, preserves_flags)) }
    }
    #[inline(always)]
    fn prefetch_write(self, p: *const u8) {
        // SAFETY: as above.
        unsafe { std::arch::asm!("prfm pstl1keep, [{p}]", p = in(reg) p, options(nostack, readonly, preserves_flags)) }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see the impl.
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see the impl.
        unsafe { [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see the impl.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see the impl.
        unsafe { [vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see the impl.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }
    #[inline(always)]
    fn round_bf16(self, v: Self::V) -> Self::V {
        // SAFETY: see the impl.
        v.map(|v| unsafe {
            let bits = vreinterpretq_u32_f32(v);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x40_0000));
            let kept = vbslq_u32(vceqq_f32(v, v), rounded, quiet);
            vreinterpretq_f32_u32(vandq_u32(kept, vdupq_n_u32(0xffff_0000)))
        })
    }
    // NEON's own maximum and minimum return NaN for a NaN in either operand.
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see the impl.
        let max = |i: usize| unsafe { vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]) };
        [max(0), max(1)]
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see the impl.
        let min = |i: usize| unsafe { vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]) };
        [min(0), min(1)]
    }
    #[inline(always)]
    fn zero_where_zero(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see the impl.
        let kept = |i: usize| unsafe {
            let zero = vceqq_f32(b[i], vdupq_n_f32(0.0));
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a[i]), zero))
        };
        [kept(0), kept(1)]
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // SAFETY: see the impl.
        unsafe { [vrndnq_f32(a[0]), vrndnq_f32(a[1])] }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: Self::V, n: Self::V) -> Self::V {
        // Two factors, so that neither leaves the normal range and only the last product rounds.
        // SAFETY: see the impl.
        let scale = |a, n| unsafe {
            let n = vcvtq_s32_f32(n);
            let half = vshrq_n_s32::<1>(n);
            let rest = vsubq_s32(n, half);
            let bias = vdupq_n_s32(127);
            let power = |n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, bias)));
            vmulq_f32(vmulq_f32(a, power(half)), power(rest))
        };
        [scale(a[0], n[0]), scale(a[1], n[1])]
    }
    #[inline(always)]
    fn count_greater(self, a: Self::V, b: Self::V) -> u32 {
        // A lane that is greater is all ones: −1.
        // SAFETY: see the impl.
        unsafe { vaddvq_u32(vaddq_u32(vcgtq_f32(a[0], b[0]), vcgtq_f32(a[1], b[1]))) }.wrapping_neg()
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [Self::V]) {
        let r: &mut [Self::V; 8] = rows.try_into().expect("8 rows");
        let quarter = |row: usize, half: usize| [0, 1, 2, 3].map(|i| r[row + i][half]);
        // SAFETY: see the impl.
        let [a, b, c, d] =
            [quarter(0, 0), quarter(0, 1), quarter(4, 0), quarter(4, 1)].map(|q| unsafe { transpose_quads(q) });
        for i in 0..QUAD {
            r[i] = [a[i], c[i]];
            r[i + QUAD] = [b[i], d[i]];
        }
    }
    #[inline(always)]
    fn run<Op: SimdOp>(self, op: Op) -> Op::Output {
        #[target_feature(enable = "neon")]
        fn compiled<Op: SimdOp>(s: Neon, op: Op) -> Op::Output {
            op.eval(s)
        }
        // SAFETY: the token proves that the processor has the instructions.
        unsafe { compiled(self, op) }
    }
    #[inline(always)]
    unsafe fn packed_tile<A: Arithmetic>(self, rows: usize, tile: PackedTile, coming: &mut Lines) {
        // SAFETY: the caller's.
        unsafe {
            match rows {
                1 => packed_tile::<Self, A, 1, 2>(self, tile, coming),
                2 => packed_tile::<Self, A, 2, 2>(self, tile, coming),
                3 => packed_tile::<Self, A, 3, 2>(self, tile, coming),
                4 => packed_tile::<Self, A, 4, 2>(self, tile, coming),
                5 => packed_tile::<Self, A, 5, 2>(self, tile, coming),
                _ => packed_tile::<Self, A, 6, 2>(self, tile, coming),
            }
        }
    }
}
