//! Tests of the vector operations, on every instruction set here.

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
            assert!((0..16).all(|i| stored[i] == if i < n { ramp[i] } else { -1.0 }), "store_first {n}: {stored:?}");
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

/// bf16 of one f32 a lane against `half`, bit by bit: signs, payloads of NaN, ties, overflow, subnormals; and which lanes
/// are let through by the others.
struct Rounded;

impl SimdOp for Rounded {
    type Output = ();
    #[inline(always)]
    fn eval<S: Simd>(self, s: S) {
        // Every upper half, with lower halves around a tie and at both ends.
        for upper in (0..=u16::MAX).step_by(if cfg!(miri) { 131 } else { 1 }) {
            let lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x4000, 0xc000];
            let x: [f32; 16] = std::array::from_fn(|i| {
                f32::from_bits(u32::from(upper ^ (i as u16 / 8)) << 16 | lower[(i + usize::from(upper)) % 8])
            });
            // SAFETY: 16 elements; no instruction set has more lanes.
            let got = s.to_array(s.round_bf16(unsafe { s.load(x.as_ptr()) }));
            for i in 0..S::LANES {
                let want = bf16::from_f32(x[i]).to_f32();
                assert_eq!(
                    got[i].to_bits(),
                    want.to_bits(),
                    "{:x} in lane {i} is {:x}",
                    x[i].to_bits(),
                    got[i].to_bits()
                );
            }
        }
        let values =
            [0.0, -0.0, 1.0, -1.0, f32::from_bits(1), -1e-41, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX];
        for (at, shift) in (0..values.len()).flat_map(|at| (0..values.len()).map(move |shift| (at, shift))) {
            let a: [f32; 16] = std::array::from_fn(|i| values[(at + i) % values.len()]);
            let b: [f32; 16] = std::array::from_fn(|i| values[(at + shift + i) % values.len()]);
            // SAFETY: as above.
            let got = s.to_array(unsafe { s.zero_where_zero(s.load(a.as_ptr()), s.load(b.as_ptr())) });
            for i in 0..S::LANES {
                // Neither a NaN nor a subnormal is zero; −0 is.
                let want = if b[i] == 0.0 { 0.0 } else { a[i] };
                assert_eq!(got[i].to_bits(), want.to_bits(), "{:e} where {:e}: {:e}", a[i], b[i], got[i]);
            }
        }
    }
}

#[test]
fn bf16_is_rounded_and_zero_lets_nothing_through() {
    for isa in Isa::available() {
        dispatch(isa, Rounded);
    }
}
