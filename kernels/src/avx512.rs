//! AVX-512 vectors: 16 lanes.

use crate::gemm::PackedTile;
use crate::gemm::arithmetic::Arithmetic;
use crate::gemm::lines::Lines;
use crate::gemm::tile::packed_tile;
use crate::simd::{Simd, SimdOp};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// Proof that the processor has AVX-512 F, BW, DQ and VL; with `BF16` also its dot product of bf16 pairs.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(());

impl<const BF16: bool> Avx512<BF16> {
    /// The token, if the processor has the instructions.
    #[inline(always)]
    pub(crate) fn detect() -> Option<Self> {
        let dot = !BF16 || is_x86_feature_detected!("avx512bf16");
        (dot && crate::Isa::Avx512.is_available()).then_some(Avx512(()))
    }
}

/// Rounds to bf16, to nearest even, left in the high half of each lane; a NaN stays one.
#[inline(always)]
unsafe fn round_bf16(v: __m512) -> __m512i {
    // SAFETY: the caller holds a token; register operands only.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
        _mm512_and_si512(kept, _mm512_set1_epi32(-0x1_0000))
    }
}

#[inline(always)]
fn first(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

// SAFETY (all arithmetic below): the token proves that the processor has the instructions; register operands only.
impl<const BF16: bool> Simd for Avx512<BF16> {
    const LANES: usize = 16;
    // 14 × 2 accumulators + 2 vectors of b + 1 broadcast = 31 of 32 registers; 28 FMAs per 16 loads.
    const MR: usize = 14;
    const NV: usize = 2;
    type V = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: masked-off lanes are not accessed; the others are the caller's.
        unsafe { _mm512_maskz_loadu_ps(first(n), p) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> __m512 {
        // SAFETY: the caller's; an f16 is two bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> __m512 {
        // SAFETY: the caller's; a bf16 is the upper half of an f32.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: __m512, n: usize) {
        // SAFETY: masked-off lanes are not accessed; the others are the caller's.
        unsafe { _mm512_mask_storeu_ps(p, first(n), v) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn prefetch_far(self, p: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    fn prefetch_write(self, p: *const u8) {
        // The intrinsic for it makes a plain prefetch.
        // SAFETY: a prefetch never faults, and changes no register.
        unsafe { std::arch::asm!("prefetchw [{p}]", p = in(reg) p, options(nostack, preserves_flags, readonly)) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn round_bf16(self, v: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_castsi512_ps(round_bf16(v)) }
    }
    #[inline(always)]
    fn pair_bf16(self, even: __m512, odd: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe {
            let low = _mm512_srli_epi32::<16>(round_bf16(even));
            _mm512_castsi512_ps(_mm512_or_si512(round_bf16(odd), low))
        }
    }
    #[inline(always)]
    fn narrow_bf16(self, low: __m512, high: __m512) -> __m512 {
        // Even values to the low halves, odd values to the high ones.
        // SAFETY: see the impl.
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            self.pair_bf16(_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high))
        }
    }
    #[inline(always)]
    fn dot_bf16(self, a: __m512, b: __m512, acc: __m512) -> __m512 {
        // SAFETY: see the impl; BF16 is part of the proof. The casts reinterpret 512 bits.
        unsafe {
            if BF16 {
                return _mm512_dpbf16_ps(
                    acc,
                    std::mem::transmute::<__m512, __m512bh>(a),
                    std::mem::transmute::<__m512, __m512bh>(b),
                );
            }
            let low = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(v)));
            let high = |v| _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(-0x1_0000)));
            _mm512_fmadd_ps(high(a), high(b), _mm512_fmadd_ps(low(a), low(b), acc))
        }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn zero_where_zero(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(b, _mm512_setzero_ps()), a) }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: __m512, n: __m512) -> __m512 {
        // SAFETY: see the impl.
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    fn count_greater(self, a: __m512, b: __m512) -> u32 {
        // SAFETY: see the impl.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) }.count_ones()
    }
    #[inline(always)]
    fn max_lane(self, v: __m512) -> f32 {
        // SAFETY: see the impl. The second operand takes the place of a NaN.
        unsafe { _mm512_reduce_max_ps(_mm512_max_ps(v, _mm512_set1_ps(f32::NEG_INFINITY))) }
    }
    #[inline(always)]
    fn transpose(self, rows: &mut [__m512]) {
        let r: &mut [__m512; 16] = rows.try_into().expect("16 rows");
        // SAFETY: see the impl.
        unsafe {
            // Interleave pairs, then quads, then exchange 128-bit lanes by halves.
            let mut t = *r;
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut q = t;
            for i in 0..4 {
                let pd = |v| _mm512_castps_pd(v);
                let ps = |v| _mm512_castpd_ps(v);
                q[4 * i] = ps(_mm512_unpacklo_pd(pd(t[4 * i]), pd(t[4 * i + 2])));
                q[4 * i + 1] = ps(_mm512_unpackhi_pd(pd(t[4 * i]), pd(t[4 * i + 2])));
                q[4 * i + 2] = ps(_mm512_unpacklo_pd(pd(t[4 * i + 1]), pd(t[4 * i + 3])));
                q[4 * i + 3] = ps(_mm512_unpackhi_pd(pd(t[4 * i + 1]), pd(t[4 * i + 3])));
            }
            for j in 0..4 {
                let lo02 = _mm512_shuffle_f32x4::<0x88>(q[j], q[j + 4]);
                let lo13 = _mm512_shuffle_f32x4::<0xdd>(q[j], q[j + 4]);
                let hi02 = _mm512_shuffle_f32x4::<0x88>(q[j + 8], q[j + 12]);
                let hi13 = _mm512_shuffle_f32x4::<0xdd>(q[j + 8], q[j + 12]);
                r[j] = _mm512_shuffle_f32x4::<0x88>(lo02, hi02);
                r[j + 4] = _mm512_shuffle_f32x4::<0x88>(lo13, hi13);
                r[j + 8] = _mm512_shuffle_f32x4::<0xdd>(lo02, hi02);
                r[j + 12] = _mm512_shuffle_f32x4::<0xdd>(lo13, hi13);
            }
        }
    }
    #[inline(always)]
    fn run<Op: SimdOp>(self, op: Op) -> Op::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn compiled<Op: SimdOp>(s: Avx512<false>, op: Op) -> Op::Output {
            op.eval(s)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
        fn compiled_bf16<Op: SimdOp>(s: Avx512<true>, op: Op) -> Op::Output {
            op.eval(s)
        }
        // SAFETY: the token proves that the processor has the instructions.
        unsafe { if BF16 { compiled_bf16(Avx512(()), op) } else { compiled(Avx512(()), op) } }
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
                6 => packed_tile::<Self, A, 6, 2>(self, tile, coming),
                7 => packed_tile::<Self, A, 7, 2>(self, tile, coming),
                8 => packed_tile::<Self, A, 8, 2>(self, tile, coming),
                9 => packed_tile::<Self, A, 9, 2>(self, tile, coming),
                10 => packed_tile::<Self, A, 10, 2>(self, tile, coming),
                11 => packed_tile::<Self, A, 11, 2>(self, tile, coming),
                12 => packed_tile::<Self, A, 12, 2>(self, tile, coming),
                13 => packed_tile::<Self, A, 13, 2>(self, tile, coming),
                _ => packed_tile::<Self, A, 14, 2>(self, tile, coming),
            }
        }
    }
}
