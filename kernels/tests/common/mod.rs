//! What the kernel tests share: teams of every instruction set, seeded numbers, weight matrices in every dtype and
//! layout, gates, and a list of failures that is shown whole.

#![allow(dead_code, reason = "each test file uses its own part")]

use half::{bf16, f16};
use lesion_kernels::{Dtype, Isa, Layout, Team, WeightData, WeightMatrix};
use std::fmt::Display;

/// 2⁻²⁴: the rounding error of one f32 operation, relative.
pub(crate) const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// Thread counts; three are more than a small machine has cores.
pub(crate) const THREADS: &[usize] = if cfg!(miri) { &[1, 2] } else { &[1, 2, 3] };

/// Sweeps try every `thin()`-th of their cases: 1, all of them, unless `LESION_TEST_THIN` says otherwise, which an
/// emulator needs. An odd number leaves sizes of every remainder by a number of lanes.
///
/// # Panics
/// If the variable is not a positive number.
pub(crate) fn thin() -> usize {
    match std::env::var("LESION_TEST_THIN") {
        Ok(text) => text.parse::<std::num::NonZeroUsize>().expect("LESION_TEST_THIN").get(),
        Err(_) => 1,
    }
}

/// Sizes that a dimension is swept over.
pub(crate) fn sizes() -> Vec<usize> {
    if cfg!(miri) { vec![1, 9, 17] } else { (1..=130).chain(1023..=1025).step_by(thin()).collect() }
}

/// A team for each instruction set here and each number of threads.
pub(crate) fn teams() -> Vec<Team> {
    let pairs = Isa::available().flat_map(|isa| THREADS.iter().map(move |&threads| (isa, threads)));
    pairs.map(|(isa, threads)| Team::new(isa, threads).unwrap()).collect()
}

/// A team of one thread for each instruction set here.
pub(crate) fn single_threads() -> Vec<Team> {
    Isa::available().map(|isa| Team::new(isa, 1).unwrap()).collect()
}

/// SplitMix64 (Steele, Lea & Flood 2014).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, mean 0 and variance 1, with all bits of the significand in use.
    pub(crate) fn normal(&mut self) -> f32 {
        ((0..6).map(|_| self.unit()).sum::<f64>() - 3.0) as f32 * std::f32::consts::SQRT_2
    }

    pub(crate) fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }

    /// Integers of −4 to 4.
    pub(crate) fn integers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.below(9) as f32 - 4.0).collect()
    }

    /// Multiples of 1/64 below 2: exact in f32, f16 and bf16.
    pub(crate) fn short(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.below(255) as f32 - 127.0) / 64.0).collect()
    }

    /// Log-uniform in `1..=most`: small sizes are where tails are.
    pub(crate) fn size(&mut self, most: usize) -> usize {
        ((self.unit() * ((most + 1) as f64).ln()).exp() as usize).clamp(1, most)
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

pub(crate) const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];
pub(crate) const LAYOUTS: [Layout; 2] = [Layout::InOut, Layout::OutIn];

enum Elements {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// A weight matrix that owns its elements.
pub(crate) struct Weights {
    elements: Elements,
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) layout: Layout,
}

impl Weights {
    /// From a dense `[k, n]` matrix, rounded to the dtype.
    pub(crate) fn new(dense: &[f32], k: usize, n: usize, layout: Layout, dtype: Dtype) -> Weights {
        assert_eq!(dense.len(), k * n);
        let laid: Vec<f32> = match layout {
            Layout::InOut => dense.to_vec(),
            Layout::OutIn => (0..k * n).map(|at| dense[at % k * n + at / k]).collect(),
        };
        let elements = match dtype {
            Dtype::F32 => Elements::F32(laid),
            Dtype::F16 => Elements::F16(laid.into_iter().map(f16::from_f32).collect()),
            Dtype::Bf16 => Elements::Bf16(laid.into_iter().map(bf16::from_f32).collect()),
        };
        Weights { elements, k, n, layout }
    }

    pub(crate) fn matrix(&self) -> WeightMatrix<'_> {
        let data = match &self.elements {
            Elements::F32(data) => WeightData::F32(data),
            Elements::F16(data) => WeightData::F16(data),
            Elements::Bf16(data) => WeightData::Bf16(data),
        };
        WeightMatrix::new(data, self.k, self.n, self.layout)
    }

    /// The same values in every dtype and layout; `dense` must be exact in all.
    pub(crate) fn every_way(dense: &[f32], k: usize, n: usize) -> Vec<Weights> {
        let ways = LAYOUTS.iter().flat_map(|&layout| DTYPES.iter().map(move |&dtype| (layout, dtype)));
        ways.map(|(layout, dtype)| Weights::new(dense, k, n, layout, dtype)).collect()
    }
}

pub(crate) fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// NaN, one of the infinities, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    NaN,
    Infinite { negative: bool },
    Finite,
}

/// The class of a value once it is an f32.
pub(crate) fn class(x: f64) -> Class {
    let x = x as f32;
    match x {
        x if x.is_nan() => Class::NaN,
        x if x.is_infinite() => Class::Infinite { negative: x < 0.0 },
        _ => Class::Finite,
    }
}

/// Same class, and no further apart than `gate` where finite. A comparison that meets NaN fails unless both are NaN.
pub(crate) fn agrees(got: f64, want: f64, gate: f64) -> bool {
    class(got) == class(want) && (class(want) != Class::Finite || (got - want).abs() <= gate)
}

/// Same bits; any NaN is like any other.
pub(crate) fn same_bits(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// The first index where bits differ.
pub(crate) fn first_difference(a: &[f32], b: &[f32]) -> Option<usize> {
    assert_eq!(a.len(), b.len());
    (0..a.len()).find(|&i| !same_bits(a[i], b[i]))
}

/// All failures of a test, reported together when it ends.
#[derive(Default)]
pub(crate) struct Failures {
    shown: Vec<String>,
    count: usize,
    checks: usize,
}

impl Failures {
    /// Notes a failure unless `ok`.
    pub(crate) fn check(&mut self, ok: bool, what: impl FnOnce() -> String) {
        self.checks += 1;
        if !ok {
            self.count += 1;
            if self.shown.len() < 40 {
                self.shown.push(what());
            }
        }
    }

    /// Notes the first difference in bits of two results.
    pub(crate) fn same(&mut self, got: &[f32], want: &[f32], what: impl Display) {
        let difference = first_difference(got, want);
        self.check(difference.is_none(), || {
            let i = difference.unwrap();
            format!("{what}: element {i} is {:e}, expected the bits of {:e}", got[i], want[i])
        });
    }

    /// Notes the first element that is not within its gate.
    pub(crate) fn close(&mut self, got: &[f32], want: &[f64], gate: impl Fn(usize) -> f64, what: impl Display) {
        assert_eq!(got.len(), want.len());
        let bad = (0..got.len()).find(|&i| !agrees(f64::from(got[i]), want[i], gate(i)));
        self.check(bad.is_none(), || {
            let i = bad.unwrap();
            format!("{what}: element {i} is {:e}, reference {:e}, gate {:e}", got[i], want[i], gate(i))
        });
    }

    /// # Panics
    /// If anything failed, or nothing was checked.
    pub(crate) fn report(self) {
        assert!(self.checks > 0, "nothing was checked");
        let more = self.count - self.shown.len();
        assert!(
            self.count == 0,
            "{} of {} checks failed:\n{}{}",
            self.count,
            self.checks,
            self.shown.join("\n"),
            if more > 0 { format!("\n… and {more} more") } else { String::new() }
        );
    }
}

/// The gate of LayerNorm, softmax, GELU and what is made of them: atol 1e-6, rtol 1e-5.
pub(crate) fn op_gate(magnitude: f64) -> f64 {
    1e-6 + 1e-5 * magnitude.abs()
}
