//! The arithmetics of the matrix product. They differ in what a 32-bit lane of a packed operand holds: one f32, or two
//! bf16 that are consecutive in k. A *unit* is the k that one lane holds; packing and tiles count in units.

use crate::Isa;
use crate::simd::Simd;
use half::{bf16, f16};

/// How products are computed. Sums are f32 in every way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Products of f32.
    #[default]
    F32,
    /// Products of bf16: both operands of every matrix product with weights are rounded to it, and multiplied by f32 FMAs,
    /// which are exact for them. Attention, LayerNorm, GELU and the softmaxes stay f32.
    Bf16,
    /// The same, two consecutive products of a sum at a time, by AVX-512's instruction for that. It flushes subnormals and
    /// rounds in an order of its own: its bits are not those of [`Precision::Bf16`]. Instruction sets without it go the
    /// same way step by step, which is slow.
    Bf16Pairs,
}

impl Precision {
    /// The faster way of multiplying bf16 on `isa` and this processor.
    ///
    /// Pairs are twice as fast as FMAs on AMD (Zen 4 and 5) and half as fast on Intel (Sapphire Rapids).
    pub fn fastest_bf16(isa: Isa) -> Precision {
        if isa.has_fast_bf16_pairs() { Precision::Bf16Pairs } else { Precision::Bf16 }
    }

    /// Its name in records: results of different ones differ in the last bits.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Bf16Pairs => "bf16-pairs",
        }
    }
}

/// An element type b can be stored in.
pub(crate) trait Element: Copy {
    /// Whether rounding to bf16 changes nothing.
    const IS_BF16: bool = false;
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
    const IS_BF16: bool = true;
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

/// Up to `LANES` elements, the other lanes zero.
#[inline(always)]
fn load_slice<S: Simd, E: Element>(s: S, from: &[E]) -> S::V {
    if from.len() >= S::LANES {
        // SAFETY: the slice has LANES elements.
        return unsafe { E::load(s, from.as_ptr()) };
    }
    let mut lanes = [0.0; 16];
    for (lane, &x) in lanes.iter_mut().zip(from) {
        *lane = x.widen();
    }
    // SAFETY: 16 elements, and no instruction set has more lanes.
    unsafe { s.load(lanes.as_ptr()) }
}

/// What a lane of a packed operand holds, and how two of them are multiplied.
pub(crate) trait Arithmetic: Copy + Send + Sync {
    /// Consecutive k in one lane.
    const UNIT: usize;

    /// Up to `LANES` units of a row that is contiguous in k; the rest zero.
    fn along_k<S: Simd, E: Element>(s: S, from: &[E]) -> S::V;
    /// One unit of up to `LANES` columns, from the row of b at k and, where there is one, the next.
    fn across_k<S: Simd, E: Element>(s: S, row: &[E], next: Option<&[E]>) -> S::V;
    /// `acc + a · b`, summed over the unit.
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, acc: S::V) -> S::V;

    /// Lanes that hold `k` values.
    #[inline(always)]
    fn units(k: usize) -> usize {
        k.div_ceil(Self::UNIT)
    }
}

/// One f32 a lane.
#[derive(Clone, Copy)]
pub(crate) struct F32;

impl Arithmetic for F32 {
    const UNIT: usize = 1;
    #[inline(always)]
    fn along_k<S: Simd, E: Element>(s: S, from: &[E]) -> S::V {
        load_slice(s, from)
    }
    #[inline(always)]
    fn across_k<S: Simd, E: Element>(s: S, row: &[E], _: Option<&[E]>) -> S::V {
        load_slice(s, row)
    }
    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, acc: S::V) -> S::V {
        s.fma(a, b, acc)
    }
}

/// One f32 a lane that was rounded to bf16.
#[derive(Clone, Copy)]
pub(crate) struct Bf16;

impl Arithmetic for Bf16 {
    const UNIT: usize = 1;
    #[inline(always)]
    fn along_k<S: Simd, E: Element>(s: S, from: &[E]) -> S::V {
        let v = load_slice(s, from);
        if E::IS_BF16 { v } else { s.round_bf16(v) }
    }
    #[inline(always)]
    fn across_k<S: Simd, E: Element>(s: S, row: &[E], _: Option<&[E]>) -> S::V {
        Self::along_k(s, row)
    }
    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, acc: S::V) -> S::V {
        s.fma(a, b, acc)
    }
}

/// Two bf16 a lane.
#[derive(Clone, Copy)]
pub(crate) struct Bf16Pairs;

impl Arithmetic for Bf16Pairs {
    const UNIT: usize = 2;
    #[inline(always)]
    fn along_k<S: Simd, E: Element>(s: S, from: &[E]) -> S::V {
        let (low, high) = from.split_at(from.len().min(S::LANES));
        s.narrow_bf16(load_slice(s, low), load_slice(s, high))
    }
    #[inline(always)]
    fn across_k<S: Simd, E: Element>(s: S, row: &[E], next: Option<&[E]>) -> S::V {
        let next = next.map_or(s.splat(0.0), |next| load_slice(s, next));
        s.pair_bf16(load_slice(s, row), next)
    }
    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, acc: S::V) -> S::V {
        s.dot_bf16(a, b, acc)
    }
}
