//! The vector operations kernels are written in, and the dispatch of an operation to an instruction set.
//!
//! An operation is a struct that implements [`SimdOp`]; [`dispatch`] runs it inside a function compiled for the
//! instruction set. The instruction set is a token type that only its own runtime check can construct, so holding one
//! is the proof that its intrinsics may run. Everything an operation calls is `#[inline(always)]`: that is how it ends
//! up inside the function that has the target feature.

use crate::gemm::PackedTile;
use crate::gemm::arithmetic::Arithmetic;
use crate::gemm::lines::Lines;
use half::{bf16, f16};

/// Vectors of f32 of one instruction set.
///
/// Loads and stores take raw pointers; all arithmetic is safe given the token.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Lanes of a vector.
    const LANES: usize;
    /// Rows of the register tile of the matrix product.
    const MR: usize;
    /// Vectors per row of that tile; `NR = NV · LANES` columns.
    const NV: usize;
    /// A vector of [`Simd::LANES`] f32.
    type V: Copy;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `LANES` f32 are readable at `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Loads the first `min(n, LANES)` lanes and zeroes the others; touches no memory behind them.
    /// # Safety
    /// `n` f32 are readable at `p`.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V;
    /// # Safety
    /// `LANES` f16 are readable at `p`.
    unsafe fn load_f16(self, p: *const f16) -> Self::V;
    /// # Safety
    /// `LANES` bf16 are readable at `p`.
    unsafe fn load_bf16(self, p: *const bf16) -> Self::V;
    /// # Safety
    /// `LANES` f32 are writable at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Stores the first `min(n, LANES)` lanes; touches no memory behind them.
    /// # Safety
    /// `n` f32 are writable at `p`.
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize);

    /// Asks for the cache line at `p`, which may be any address.
    #[inline(always)]
    fn prefetch(self, _p: *const u8) {}
    /// [`Simd::prefetch`], for use later than the first cache keeps it.
    #[inline(always)]
    fn prefetch_far(self, _p: *const u8) {}
    /// [`Simd::prefetch`], of a line that will be written.
    #[inline(always)]
    fn prefetch_write(self, _p: *const u8) {}

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`: one rounding where the processor has FMA.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Rounds to bf16, to nearest even; a NaN stays one.
    fn round_bf16(self, v: Self::V) -> Self::V;
    /// Rounds both to bf16 and lays them side by side: lane i holds `even[i]` in its low half and `odd[i]` in its high half.
    #[inline(always)]
    fn pair_bf16(self, even: Self::V, odd: Self::V) -> Self::V {
        let (even, odd) = (self.to_array(self.round_bf16(even)), self.to_array(self.round_bf16(odd)));
        self.of_lanes(|i| f32::from_bits(odd[i].to_bits() | even[i].to_bits() >> 16))
    }
    /// The same for `2 · LANES` consecutive values: lane i holds the values 2i (low) and 2i + 1 (high).
    #[inline(always)]
    fn narrow_bf16(self, low: Self::V, high: Self::V) -> Self::V {
        let (low, high) = (self.to_array(low), self.to_array(high));
        let at = |i: usize| if i < Self::LANES { low[i] } else { high[i - Self::LANES] };
        self.pair_bf16(self.of_lanes(|i| at(2 * i)), self.of_lanes(|i| at(2 * i + 1)))
    }
    /// `acc + a.low · b.low + a.high · b.high` in each lane of pairs of bf16.
    #[inline(always)]
    fn dot_bf16(self, a: Self::V, b: Self::V, acc: Self::V) -> Self::V {
        let halves = |v| {
            let lanes = self.to_array(v).map(f32::to_bits);
            (
                self.of_lanes(|i| f32::from_bits(lanes[i] << 16)),
                self.of_lanes(|i| f32::from_bits(lanes[i] & 0xffff_0000)),
            )
        };
        let ((a_low, a_high), (b_low, b_high)) = (halves(a), halves(b));
        self.fma(a_high, b_high, self.fma(a_low, b_low, acc))
    }
    /// The greater of the two; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The lesser of the two; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where `b` is not zero, else zero.
    fn zero_where_zero(self, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a · 2ⁿ` for integral `n`, with overflow to infinity and gradual underflow.
    fn scale_by_power_of_two(self, a: Self::V, n: Self::V) -> Self::V;
    /// How many lanes of `a` are strictly greater than those of `b` (NaN never is).
    fn count_greater(self, a: Self::V, b: Self::V) -> u32;
    /// Transposes a `LANES × LANES` block held in `rows`.
    fn transpose(self, rows: &mut [Self::V]);

    /// Runs `op` inside a function compiled for this instruction set.
    fn run<Op: SimdOp>(self, op: Op) -> Op::Output;
    /// [`crate::gemm::tile::packed_tile`] for the first `rows ≤ MR` rows of a tile.
    /// # Safety
    /// As there.
    unsafe fn packed_tile<A: Arithmetic>(self, rows: usize, tile: PackedTile, coming: &mut Lines);

    /// The lanes as an array in the low end, the rest zero.
    #[inline(always)]
    fn to_array(self, v: Self::V) -> [f32; 16] {
        let mut out = [0.0; 16];
        // SAFETY: `out` has 16 elements and no instruction set has more lanes.
        unsafe { self.store(out.as_mut_ptr(), v) };
        out
    }

    /// A vector of `lane(0)`, `lane(1)`, …
    #[inline(always)]
    fn of_lanes(self, lane: impl Fn(usize) -> f32) -> Self::V {
        let lanes: [f32; 16] = std::array::from_fn(|i| if i < Self::LANES { lane(i) } else { 0.0 });
        // SAFETY: 16 elements, and no instruction set has more lanes.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// Sum of the lanes, pairwise by halves (the same order on every call).
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut a = self.to_array(v);
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for i in 0..width {
                a[i] += a[i + width];
            }
        }
        a[0]
    }

    /// Greatest of lanes that are not NaN.
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        let a = self.to_array(v);
        a[..Self::LANES].iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
    }

    /// `eˣ`, at most 1.02 ULP from the true value (over every f32: 1.0103 with FMA, 0.9903 without); exact classes at
    /// NaN, ±∞, overflow and underflow.
    ///
    /// Cody–Waite reduction `x = n·ln 2 + r`, `|r| ≤ ln 2 / 2`, then the minimax polynomial of Cephes' `expf` for
    /// `(eʳ − 1 − r) / r²`.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        // Beyond these the result is 0 or ∞ already; NaN passes (second operand).
        let x = self.min(self.splat(89.0), self.max(self.splat(-105.0), x));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fma(n, self.splat(-0.693_359_4), x);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let mut p = self.splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5_f32] {
            p = self.fma(p, r, self.splat(c));
        }
        let y = self.fma(self.mul(r, r), p, r);
        self.scale_by_power_of_two(self.add(y, self.splat(1.0)), n)
    }

    /// GPT-2's `gelu_new`: `½x(1 + tanh(√(2/π)(x + 0.044715x³)))`, as `x / (1 + e^{−2u})`.
    #[inline(always)]
    fn gelu(self, x: Self::V) -> Self::V {
        let x2 = self.mul(x, x);
        let u = self.mul(x, self.fma(x2, self.splat(-2.0 * 0.797_884_6 * 0.044_715), self.splat(-2.0 * 0.797_884_6)));
        self.div(x, self.add(self.splat(1.0), self.exp(u)))
    }
}

/// An operation that can be compiled for any instruction set.
pub(crate) trait SimdOp {
    type Output;
    /// Whether it multiplies pairs of bf16; if not, the processor's instruction for that makes no difference to it.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AVX-512 has that instruction apart"))]
    const PAIRS: bool = false;
    /// Must be `#[inline(always)]`.
    fn eval<S: Simd>(self, s: S) -> Self::Output;
}

/// Runs `op` on `isa`.
///
/// # Panics
/// If the processor lacks `isa`: [`crate::Team::new`] has checked.
pub(crate) fn dispatch<Op: SimdOp>(isa: crate::Isa, op: Op) -> Op::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        crate::Isa::Avx512 => match crate::avx512::Avx512::<true>::detect() {
            Some(with_bf16) if Op::PAIRS => with_bf16.run(op),
            _ => crate::avx512::Avx512::<false>::detect().expect("AVX-512 was checked").run(op),
        },
        #[cfg(target_arch = "x86_64")]
        crate::Isa::Avx2 => crate::avx2::Avx2::detect().expect("AVX2 was checked").run(op),
        #[cfg(target_arch = "aarch64")]
        crate::Isa::Neon => crate::neon::Neon::detect().expect("NEON was checked").run(op),
        _ => crate::portable::Portable.run(op),
    }
}

#[cfg(test)]
mod tests;
