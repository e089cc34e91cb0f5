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
mod tests {
    use super::*;
    use crate::{Isa, reference};

    /// Applies a function of one vector to all of `x`, whose length is a multiple of 16.
    struct Map<'a, F>(&'a mut [f32], F);

    trait Function: Copy {
        fn of<S: Simd>(self, s: S, x: S::V) -> S::V;
    }

    impl<F: Function> SimdOp for Map<'_, F> {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            for x in self.0.chunks_exact_mut(S::LANES) {
                // SAFETY: a chunk has exactly LANES elements.
                unsafe { s.store(x.as_mut_ptr(), self.1.of(s, s.load(x.as_ptr()))) };
            }
        }
    }

    #[derive(Clone, Copy)]
    struct Exp;
    impl Function for Exp {
        #[inline(always)]
        fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
            s.exp(x)
        }
    }

    #[derive(Clone, Copy)]
    struct Gelu;
    impl Function for Gelu {
        #[inline(always)]
        fn of<S: Simd>(self, s: S, x: S::V) -> S::V {
            s.gelu(x)
        }
    }

    /// Every `step`-th f32 between two values of one sign, 16 at a time.
    fn each_between(from: f32, to: f32, step: u32, mut f: impl FnMut(&[f32; 16])) {
        let mut bits = from.to_bits();
        while bits <= to.to_bits() {
            f(&std::array::from_fn(|i| f32::from_bits(bits.saturating_add(i as u32 * step).min(to.to_bits()))));
            bits = bits.saturating_add(16 * step);
        }
    }

    /// What [`Simd::exp`] promises.
    const EXP_ULPS: f64 = 1.02;

    /// Distance from the true value in units of the f32 spacing there.
    fn ulps(got: f32, want: f64) -> f64 {
        let exponent = want.abs().log2().floor().max(-126.0);
        (f64::from(got) - want).abs() / (exponent - 23.0).exp2()
    }

    /// The greatest error of exp over every `step`-th f32 whose result is finite, by instruction set.
    fn greatest_exp_error(step: u32) -> Vec<(Isa, f64, f32)> {
        let mut greatest: Vec<_> = Isa::available().map(|isa| (isa, 0.0, 0.0)).collect();
        for (from, to) in [(0.0, 88.722_83), (-0.0, -110.0)] {
            each_between(from, to, step, |x| {
                let want = x.map(|x| f64::from(x).exp());
                for (isa, greatest, at) in &mut greatest {
                    let mut got = *x;
                    dispatch(*isa, Map(&mut got, Exp));
                    for i in 0..16 {
                        let error = ulps(got[i], want[i]);
                        // A NaN must not pass as a small error.
                        if error.is_nan() || error > *greatest {
                            (*greatest, *at) = (error, x[i]);
                        }
                    }
                }
            });
        }
        greatest
    }

    fn check_exp(step: u32) {
        let errors = greatest_exp_error(step);
        errors.iter().for_each(|(isa, error, at)| println!("{isa}: {error:.4} ULP at {at}"));
        assert!(errors.iter().all(|(_, error, _)| *error <= EXP_ULPS), "{errors:?}");
    }

    #[test]
    fn exp_is_within_its_bound() {
        check_exp(if cfg!(miri) { 5_000_011 } else { 509 });
    }

    /// Every f32 there is: some minutes. `cargo nextest run -p lesion-kernels --run-ignored all every_f32 --no-capture`
    #[test]
    #[ignore = "takes minutes"]
    fn exp_is_within_its_bound_at_every_f32() {
        check_exp(1);
    }

    #[test]
    fn exp_of_special_values() {
        let cases = [
            (0.0, 1.0),
            (-0.0, 1.0),
            (f32::INFINITY, f32::INFINITY),
            (f32::MAX, f32::INFINITY),
            (88.722_84, f32::INFINITY),
            (88.9, f32::INFINITY),
            (f32::NEG_INFINITY, 0.0),
            (f32::MIN, 0.0),
            (-104.0, 0.0),
            // The least positive results are subnormal.
            (-103.9, f32::from_bits(1)),
            (1e-41, 1.0),
            (-1e-41, 1.0),
        ];
        for isa in Isa::available() {
            for lane in 0..16 {
                for (x, want) in cases {
                    let mut values = [1.0; 16];
                    values[lane] = x;
                    dispatch(isa, Map(&mut values, Exp));
                    assert_eq!(values[lane].to_bits(), want.to_bits(), "{isa}: exp({x}) is {}", values[lane]);
                }
                let mut values = [1.0; 16];
                values[lane] = f32::NAN;
                dispatch(isa, Map(&mut values, Exp));
                assert_eq!((values[lane].is_nan(), values.iter().filter(|x| x.is_nan()).count()), (true, 1), "{isa}");
            }
        }
    }

    #[test]
    fn gelu_is_within_its_gate() {
        let mut worst = String::new();
        for (from, to) in [(0.0, f32::MAX), (-0.0, f32::MIN)] {
            each_between(from, to, if cfg!(miri) { 9_000_011 } else { 5_003 }, |x| {
                for isa in Isa::available() {
                    let mut got = *x;
                    dispatch(isa, Map(&mut got, Gelu));
                    for (&x, &got) in x.iter().zip(&got) {
                        let want = reference::gelu(f64::from(x));
                        let error = (f64::from(got) - want).abs();
                        if error.is_nan() || error > 1e-6 + 1e-5 * want.abs() {
                            worst = format!("{isa}: gelu({x:e}) is {got:e}, reference {want:e}");
                        }
                    }
                }
            });
        }
        assert!(worst.is_empty(), "{worst}");
    }

    /// Operations that a kernel's result doesn't show one by one.
    struct Lanes;

    impl SimdOp for Lanes {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            let ramp: [f32; 16] = std::array::from_fn(|i| i as f32 + 1.0);
            let nans = [f32::NAN; 16];
            // SAFETY: arrays of 16 elements; no instruction set has more lanes.
            let load = |x: &[f32; 16]| unsafe { s.load(x.as_ptr()) };
            for n in 0..=S::LANES {
                // SAFETY: as above, n ≤ LANES.
                let first = s.to_array(unsafe { s.load_first(ramp.as_ptr(), n) });
                assert!((0..16).all(|i| first[i] == if i < n { ramp[i] } else { 0.0 }), "load_first {n}: {first:?}");
                let mut stored = [-1.0; 16];
                // SAFETY: as above.
                unsafe { s.store_first(stored.as_mut_ptr(), load(&ramp), n) };
                assert!(
                    (0..16).all(|i| stored[i] == if i < n { ramp[i] } else { -1.0 }),
                    "store_first {n}: {stored:?}"
                );
            }
            let all = S::LANES as f32;
            assert_eq!(s.sum(load(&ramp)), all * (all + 1.0) / 2.0);
            assert_eq!(s.max_lane(load(&ramp)), all);
            for n in 0..=S::LANES {
                assert_eq!(s.count_greater(load(&ramp), s.splat(n as f32)), (S::LANES - n) as u32);
            }
            assert_eq!(s.count_greater(load(&nans), load(&ramp)) + s.count_greater(load(&ramp), load(&nans)), 0);
            // The second operand survives a NaN in either.
            for two in [S::max, S::min] {
                assert_eq!(s.to_array(two(s, load(&nans), load(&ramp)))[..S::LANES], ramp[..S::LANES]);
                assert!(s.to_array(two(s, load(&ramp), load(&nans)))[..S::LANES].iter().all(|x| x.is_nan()));
            }
            for (x, want) in [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-0.5, 0.0), (-1.5, -2.0), (151.49, 151.0)] {
                assert_eq!(s.to_array(s.round(s.splat(x)))[0], want, "round {x}");
            }
            for n in -152..=128 {
                for a in [0.7_f32, 1.0, 1.4, f32::NAN, f32::INFINITY] {
                    let got = s.to_array(s.scale_by_power_of_two(s.splat(a), s.splat(n as f32)))[S::LANES - 1];
                    let want = (f64::from(a) * f64::from_bits(((1023 + n) as u64) << 52)) as f32;
                    assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{a} · 2^{n}: {got}");
                }
            }
            let mut block = [s.splat(0.0); 16];
            for (i, row) in block.iter_mut().enumerate() {
                *row = load(&std::array::from_fn(|j| (100 * i + j) as f32));
            }
            s.transpose(&mut block[..S::LANES]);
            for (j, column) in block[..S::LANES].iter().enumerate() {
                let column = s.to_array(*column);
                assert!((0..S::LANES).all(|i| column[i] == (100 * i + j) as f32), "column {j}: {column:?}");
            }
        }
    }

    #[test]
    fn every_lane_is_its_own() {
        for isa in Isa::available() {
            dispatch(isa, Lanes);
        }
    }

    /// All 65,536 values of both 16-bit types, widened by vectors and by `half`.
    struct Widen;

    impl SimdOp for Widen {
        type Output = ();
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            for start in (0..=u16::MAX).step_by(S::LANES * if cfg!(miri) { 61 } else { 1 }) {
                let halves: [f16; 16] = std::array::from_fn(|i| f16::from_bits(start | i as u16));
                let brains: [bf16; 16] = std::array::from_fn(|i| bf16::from_bits(start | i as u16));
                // SAFETY: 16 elements; no instruction set has more lanes.
                let got = unsafe { [s.load_f16(halves.as_ptr()), s.load_bf16(brains.as_ptr())].map(|v| s.to_array(v)) };
                for i in 0..S::LANES {
                    for (got, want) in [(got[0][i], halves[i].to_f32()), (got[1][i], brains[i].to_f32())] {
                        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{start:x} + {i}");
                    }
                }
            }
        }
    }

    /// Pairs of bf16 against `half` and f64: both ways of making them, every lane, ties and special values.
    struct Pairs;

    impl SimdOp for Pairs {
        type Output = ();
        const PAIRS: bool = true;
        #[inline(always)]
        fn eval<S: Simd>(self, s: S) {
            // 1 + 2⁻⁸ and 1 + 3 · 2⁻⁸ are ties; the greatest f32 rounds to ∞; a NaN's payload may lie in the bits cut off.
            let low_nan = f32::from_bits(0x7f80_0001);
            let (tie, up_tie) = (f32::from_bits(0x3f80_8000), f32::from_bits(0x3f81_8000));
            let values = [1.0, tie, -tie, up_tie, f32::MAX, f32::MIN, -0.0, 1e-39, 3.3, low_nan];
            let values = [&values[..], &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.1, -7.7, 1e30, 5e-5]].concat();
            let same = |got: u32, want: f32| {
                let (got, want) = (bf16::from_bits(got as u16), bf16::from_f32(want));
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan()
            };
            for start in 0..values.len() {
                let x: [f32; 32] = std::array::from_fn(|i| values[(start + i) % values.len()]);
                // SAFETY: 32 elements, two vectors of any instruction set.
                let (first, second) = unsafe { (s.load(x.as_ptr()), s.load(x.as_ptr().add(S::LANES))) };
                let pairs = s.to_array(s.pair_bf16(first, second)).map(f32::to_bits);
                let narrow = s.to_array(s.narrow_bf16(first, second)).map(f32::to_bits);
                for i in 0..S::LANES {
                    assert!(same(pairs[i], x[i]) && same(pairs[i] >> 16, x[S::LANES + i]), "pair {x:?}: {pairs:x?}");
                    assert!(same(narrow[i], x[2 * i]) && same(narrow[i] >> 16, x[2 * i + 1]), "{x:?}: {narrow:x?}");
                }
            }
            // Small integers: exact in bf16, and so are their sums of products in f32.
            let (a, b) = (std::array::from_fn(|i| i as f32 - 9.0), std::array::from_fn(|i| 5.0 - i as f32));
            let pairs = |x: &[f32; 32]| {
                // SAFETY: as above.
                unsafe { s.narrow_bf16(s.load(x.as_ptr()), s.load(x.as_ptr().add(S::LANES))) }
            };
            let dots = s.to_array(s.dot_bf16(pairs(&a), pairs(&b), s.splat(0.5)));
            for i in 0..S::LANES {
                assert_eq!(dots[i], 0.5 + a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1]);
            }
        }
    }

    #[test]
    fn pairs_of_bf16_are_rounded_and_multiplied() {
        for isa in Isa::available() {
            dispatch(isa, Pairs);
        }
    }

    #[test]
    fn sixteen_bits_widen_exactly() {
        for isa in Isa::available() {
            dispatch(isa, Widen);
        }
    }
}
