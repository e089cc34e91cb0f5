//! The matrix product: every shape, dtype, layout, epilogue, instruction set and number of threads against f64, and the
//! promise that a row's bits depend on nothing but the row and the weights.

mod common;

use common::*;
use lesion_kernels::{Dtype, Epilogue, Isa, Layout, Team, WeightMatrix, reference};

#[derive(Clone, Copy, Debug)]
enum Finish {
    Store,
    Bias,
    BiasGelu,
    BiasAdd,
}

const FINISHES: [Finish; 4] = [Finish::Store, Finish::Bias, Finish::BiasGelu, Finish::BiasAdd];

impl Finish {
    fn with(self, bias: &[f32]) -> Epilogue<'_> {
        match self {
            Finish::Store => Epilogue::Store,
            Finish::Bias => Epilogue::Bias(bias),
            Finish::BiasGelu => Epilogue::BiasGelu(bias),
            Finish::BiasAdd => Epilogue::BiasAdd(bias),
        }
    }
}

/// `Σ|a·b|` for every output element.
fn magnitudes(a: &[f32], b: &WeightMatrix<'_>) -> Vec<f64> {
    let mut dense = vec![0.0; b.k * b.n];
    for (at, x) in dense.iter_mut().enumerate() {
        *x = reference::weight(b, at / b.n, at % b.n).abs();
    }
    let mut sums = vec![0.0; a.len() / b.k * b.n];
    for (a, sums) in a.chunks_exact(b.k).zip(sums.chunks_exact_mut(b.n)) {
        for (a, dense) in a.iter().zip(dense.chunks_exact(b.n)) {
            for (sum, b) in sums.iter_mut().zip(dense) {
                *sum += f64::from(a.abs()) * b;
            }
        }
    }
    sums
}

/// A product, its f64 results and its gates.
struct Case {
    a: Vec<f32>,
    bias: Vec<f32>,
    before: Vec<f32>,
    /// Of `Store`, before any epilogue.
    sums: Vec<f64>,
    magnitudes: Vec<f64>,
    k: usize,
    n: usize,
    exact: bool,
}

impl Case {
    fn new(rng: &mut Rng, m: usize, b: &WeightMatrix<'_>, exact: bool) -> Case {
        let (k, n) = (b.k, b.n);
        let mut numbers = |len| if exact { rng.integers(len) } else { rng.normals(len) };
        let (a, bias, before) = (numbers(m * k), numbers(n), numbers(m * n));
        let sums = reference::gemm(&widened(&a), b, Epilogue::Store, &[]);
        let magnitudes = magnitudes(&a, b);
        Case { a, bias, before, sums, magnitudes, k, n, exact }
    }

    fn run(&self, team: &mut Team, b: WeightMatrix<'_>, finish: Finish) -> Vec<f32> {
        let mut out = self.before.clone();
        team.enter(|kernels| kernels.gemm(&self.a, b, finish.with(&self.bias), &mut out));
        out
    }

    /// What an element should be, and how far from it a result may be.
    fn expected(&self, finish: Finish, i: usize) -> (f64, f64) {
        let (sum, bias, before) = (self.sums[i], f64::from(self.bias[i % self.n]), f64::from(self.before[i]));
        let gate = if self.exact { 0.0 } else { 4.0 * (self.k as f64).sqrt() * UNIT * self.magnitudes[i] };
        // Each further operation rounds once.
        let rounded = |x: f64| if self.exact { 0.0 } else { UNIT * x.abs() };
        match finish {
            Finish::Store => (sum, gate),
            Finish::Bias => (sum + bias, gate + rounded(sum + bias) + rounded(gate)),
            Finish::BiasAdd => {
                let added = before + (sum + bias);
                (added, gate + rounded(sum + bias) + rounded(added) + 2.0 * rounded(gate))
            }
            Finish::BiasGelu => {
                let gelu = reference::gelu(sum + bias);
                // GELU is nowhere steeper than 1.13.
                (gelu, 1.13 * (gate + rounded(sum + bias)) + op_gate(gelu))
            }
        }
    }

    fn check(&self, failures: &mut Failures, got: &[f32], finish: Finish, what: &str) {
        let want: Vec<f64> = (0..got.len()).map(|i| self.expected(finish, i).0).collect();
        failures.close(got, &want, |i| self.expected(finish, i).1, format_args!("{what} {finish:?}"));
    }
}

/// One shape in every way. The first result of an instruction set and epilogue is compared with f64, all others with its
/// bits: neither dtype, layout (of equal weights) nor threads may change one. Several threads take one dtype and layout a
/// shape, in turn.
fn every_way(
    failures: &mut Failures,
    teams: &mut [Team],
    rng: &mut Rng,
    (m, k, n): (usize, usize, usize),
    exact: bool,
) {
    let dense = if exact { rng.integers(k * n) } else { rng.short(k * n) };
    let ways = Weights::every_way(&dense, k, n);
    let case = Case::new(rng, m, &ways[0].matrix(), exact);
    let turn = rng.below(ways.len());
    for (i, finish) in FINISHES.into_iter().enumerate() {
        let mut first: Option<(Isa, Vec<f32>)> = None;
        for team in teams.iter_mut() {
            let ways = if team.threads() == 1 { &ways[..] } else { &ways[(turn + i) % ways.len()..][..1] };
            for b in ways {
                let got = case.run(team, b.matrix(), finish);
                let (isa, threads, dtype) = (team.isa(), team.threads(), b.matrix().data.dtype());
                let what = || format!("{m}×{k}×{n} {isa} {threads} threads {dtype:?} {:?} {finish:?}", b.layout);
                match &first {
                    Some((of, first)) if *of == isa => failures.same(&got, first, Lazy(what)),
                    _ => {
                        case.check(failures, &got, finish, &what());
                        first = Some((isa, got));
                    }
                }
            }
        }
    }
}

/// Formats only when shown.
struct Lazy<F>(F);

impl<F: Fn() -> String> std::fmt::Display for Lazy<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&(self.0)())
    }
}

fn others() -> &'static [usize] {
    if cfg!(miri) { &[1, 7] } else { &[1, 7, 64] }
}

/// Sweeps one dimension, with the two others at 1, 7 and 64.
fn sweep(seed: u64, sizes: &[usize], shape: impl Fn(usize, usize, usize) -> (usize, usize, usize)) {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(seed));
    for &size in sizes {
        for &first in others() {
            for &second in others() {
                every_way(&mut failures, &mut teams, &mut rng, shape(size, first, second), false);
            }
        }
    }
    failures.report();
}

#[test]
fn any_number_of_rows() {
    sweep(1, &sizes(), |m, k, n| (m, k, n));
}

#[test]
fn any_number_of_inputs() {
    let mut sizes = sizes();
    // The blocks of k end at multiples of 256.
    sizes.extend(if cfg!(miri) { 257..=257 } else { 254..=258 });
    sweep(2, &sizes, |k, m, n| (m, k, n));
}

#[test]
fn any_number_of_outputs() {
    sweep(3, &sizes(), |n, m, k| (m, k, n));
}

#[test]
fn few_rows_and_whole_strips_of_columns() {
    // One row, and few.
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(4));
    let inputs: &[usize] =
        if cfg!(miri) { &[1, 9] } else { &[1, 2, 3, 7, 8, 9, 31, 64, 127, 255, 256, 257, 511, 512, 513, 770] };
    for m in if cfg!(miri) { 3..=4 } else { 1..=10 } {
        for &k in inputs.iter().skip(m % thin()).step_by(thin()) {
            for n in if cfg!(miri) { vec![128] } else { vec![128, 384] } {
                every_way(&mut failures, &mut teams, &mut rng, (m, k, n), k % 2 == 0);
            }
        }
    }
    failures.report();
}

/// Every number of rows that weights are slower than, over columns that end amid a tile and in several tasks, and k that
/// ends amid a set of lines and in several blocks.
#[test]
fn few_rows_and_tails_everywhere() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(10));
    for m in (1..=if cfg!(miri) { 5 } else { 49 }).step_by(thin().min(3)) {
        for n in if cfg!(miri) { [1, 5, 33, 70] } else { [1, 33, 95, 417] } {
            let k = rng.pick(if cfg!(miri) { &[1, 17, 33] } else { &[1, 15, 16, 17, 31, 255, 257, 273, 530] });
            every_way(&mut failures, &mut teams, &mut rng, (m, k, n), false);
        }
    }
    failures.report();
}

#[test]
fn many_rows_make_several_tasks() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(5));
    let rows: &[usize] = if cfg!(miri) { &[40] } else { &[1055, 1056, 1057, 1069, 2113, 3500] };
    for &m in rows.iter().step_by(thin()) {
        every_way(&mut failures, &mut teams, &mut rng, (m, 5, 3), false);
        every_way(&mut failures, &mut teams, &mut rng, (m, 3, 140), true);
    }
    failures.report();
}

#[test]
fn integers_are_exact() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(6));
    for _ in 0..if cfg!(miri) { 3 } else { 300_usize.div_ceil(thin()) } {
        let shape = if cfg!(miri) {
            (rng.size(9), rng.size(20), rng.size(40))
        } else {
            (rng.size(150), rng.size(1025), rng.size(200))
        };
        every_way(&mut failures, &mut teams, &mut rng, shape, true);
    }
    failures.report();
}

#[test]
fn random_shapes_with_weights_of_full_precision() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(7));
    for _ in 0..if cfg!(miri) { 10 } else { 2_000_usize.div_ceil(thin()) } {
        let most = if cfg!(miri) { 30 } else { 300 };
        let (m, k, mut n) = (rng.size(most), rng.size(most * 2), rng.size(most));
        if rng.below(4) == 0 {
            n = n.next_multiple_of(128);
        }
        let (dtype, layout, finish) = (rng.pick(&DTYPES), rng.pick(&LAYOUTS), rng.pick(&FINISHES));
        // Small weights reach f16's subnormals.
        let scale = rng.pick(&[1.0_f32, 0.02, 1e-6]);
        let dense: Vec<f32> = rng.normals(k * n).iter().map(|x| x * scale).collect();
        let b = Weights::new(&dense, k, n, layout, dtype);
        let case = Case::new(&mut rng, m, &b.matrix(), false);
        for team in &mut teams {
            let got = case.run(team, b.matrix(), finish);
            let what = format!("{m}×{k}×{n} {} {} threads {dtype:?} {layout:?}", team.isa(), team.threads());
            case.check(&mut failures, &got, finish, &what);
        }
    }
    failures.report();
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(8));
    let shapes: &[(usize, usize)] = if cfg!(miri) {
        &[(9, 20), (3, 128)]
    } else {
        &[(1, 1), (37, 50), (300, 128), (777, 200), (1601, 130), (513, 256)]
    };
    for &(k, n) in shapes {
        // More than 98 rows take a in pieces of 768 k.
        let most = if cfg!(miri) { 10 } else { 130 };
        let (a, bias, before) = (rng.normals(most * k), rng.normals(n), rng.normals(most * n));
        for layout in LAYOUTS {
            let b = Weights::new(&rng.normals(k * n), k, n, layout, Dtype::F32);
            for finish in FINISHES {
                for team in &mut teams {
                    let mut all = before.clone();
                    let mut batched = before.clone();
                    let (isa, threads) = (team.isa(), team.threads());
                    team.enter(|kernels| {
                        kernels.gemm(&a, b.matrix(), finish.with(&bias), &mut all);
                        // Batches of 1, 2, 3 … rows.
                        let (mut row, mut size) = (0, 1);
                        while row < most {
                            let rows = size.min(most - row);
                            let (from, to) = (row, row + rows);
                            let out = &mut batched[from * n..to * n];
                            kernels.gemm(&a[from * k..to * k], b.matrix(), finish.with(&bias), out);
                            (row, size) = (to, size + 1);
                        }
                    });
                    failures.same(
                        &batched,
                        &all,
                        format_args!("{k}×{n} {layout:?} {finish:?} {isa} {threads} threads, in batches"),
                    );
                }
            }
        }
    }
    failures.report();
}

#[test]
fn avx512_and_avx2_give_the_same_bits() {
    let (mut failures, mut rng) = (Failures::default(), Rng(9));
    let [Ok(mut wide), Ok(mut narrow)] = [Isa::Avx512, Isa::Avx2].map(|isa| Team::new(isa, 2)) else {
        println!("skipped: this processor has not both");
        return;
    };
    for (m, k, n) in [(1, 64, 128), (5, 300, 128), (9, 770, 100), (70, 513, 130), (13, 1025, 51)] {
        let b = Weights::new(&rng.normals(k * n), k, n, Layout::InOut, Dtype::F32);
        let case = Case::new(&mut rng, m, &b.matrix(), false);
        for finish in FINISHES {
            let (wide, narrow) = (case.run(&mut wide, b.matrix(), finish), case.run(&mut narrow, b.matrix(), finish));
            failures.same(&wide, &narrow, format_args!("{m}×{k}×{n} {finish:?}"));
        }
    }
    failures.report();
}

#[test]
fn nothing_to_do_is_done() {
    for team in &mut teams() {
        let b = Weights::new(&[1.0, 2.0], 2, 1, Layout::InOut, Dtype::F32);
        let none = Weights::new(&[], 2, 0, Layout::OutIn, Dtype::F16);
        team.enter(|kernels| {
            kernels.gemm(&[], b.matrix(), Epilogue::Bias(&[1.0]), &mut []);
            kernels.gemm(&[1.0, 2.0], none.matrix(), Epilogue::Store, &mut []);
        });
    }
}
