//! NaN, infinities and subnormals at every lane and tail of every kernel: the results are of the class that the f64
//! reference gives, and of its value where that is finite.

mod common;

use common::*;
use half::{bf16, f16};
use lesion_kernels::{
    Dtype, Epilogue, HeadShape, KvSpan, KvStore, Layout, RowScore, WeightData, WeightMatrix, reference,
};

const SPECIAL: [f32; 4] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-41];

/// Every position, or some.
fn positions(n: usize) -> impl Iterator<Item = usize> {
    (0..n).step_by(if cfg!(miri) { n.div_ceil(4) } else { thin() })
}

/// Products whose every operand is spoilt in turn: few rows with tails everywhere, and single ones.
#[test]
fn gemm() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), single_threads(), Rng(41));
    for (m, k, n, layout) in [
        (13, 19, 45, Layout::InOut),
        (13, 19, 45, Layout::OutIn),
        (1, 3, 128, Layout::InOut),
        (7, 2, 128, Layout::InOut),
    ] {
        let (a, b, bias, before) = (rng.normals(m * k), rng.normals(k * n), rng.normals(n), rng.normals(m * n));
        for (which, len) in [a.len(), b.len(), n, m * n].into_iter().enumerate() {
            for at in positions(len) {
                for value in SPECIAL {
                    let mut operands = [a.clone(), b.clone(), bias.clone(), before.clone()];
                    operands[which][at] = value;
                    let [a, b, bias, before] = &operands;
                    let b = Weights::new(b, k, n, layout, [Dtype::F32, Dtype::Bf16, Dtype::F16][at % 3]);
                    let epilogue = match which {
                        0 | 1 if at % 2 == 0 => Epilogue::Store,
                        3 => Epilogue::BiasAdd(bias),
                        _ => Epilogue::BiasGelu(bias),
                    };
                    let want = reference::gemm(&widened(a), &b.matrix(), epilogue, &widened(before));
                    for team in &mut teams {
                        let mut out = before.clone();
                        team.enter(|kernels| kernels.gemm(a, b.matrix(), epilogue, &mut out));
                        let what = format!("{m}×{k}×{n} {layout:?} {} {value} at {at} of operand {which}", team.isa());
                        failures.close(&out, &want, |i| op_gate(want[i]) + 1e-5, what);
                    }
                }
            }
        }
    }
    failures.report();
}

#[test]
fn gemm_keeps_subnormals() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), single_threads(), Rng(42));
    for (m, k, n) in [(13, 19, 45), (2, 5, 128)] {
        let (a, small) = (rng.integers(m * k), rng.integers(k * n));
        // The least subnormal of each type, times small integers: every sum is exact.
        let f32s: Vec<f32> = small.iter().map(|x| x * f32::from_bits(1)).collect();
        let f16s: Vec<f16> = small.iter().map(|x| f16::from_f32(x * f16::from_bits(1).to_f32())).collect();
        let bf16s: Vec<bf16> = small.iter().map(|x| bf16::from_f32(x * bf16::from_bits(1).to_f32())).collect();
        for data in [WeightData::F32(&f32s), WeightData::F16(&f16s), WeightData::Bf16(&bf16s)] {
            for layout in LAYOUTS {
                let b = WeightMatrix::new(data, k, n, layout);
                let want = reference::gemm(&widened(&a), &b, Epilogue::Store, &[]);
                assert!(want.iter().any(|x| *x != 0.0));
                for team in &mut teams {
                    let mut out = vec![0.0; m * n];
                    team.enter(|kernels| kernels.gemm(&a, b, Epilogue::Store, &mut out));
                    let what = format!("{m}×{k}×{n} {:?} {layout:?} {}", data.dtype(), team.isa());
                    failures.close(&out, &want, |_| 0.0, what);
                }
            }
        }
    }
    failures.report();
}

#[test]
fn gelu_of_special_values() {
    let mut failures = Failures::default();
    let mut values: Vec<f32> = vec![0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-41, 89.0, 1e19, 1e13, 3.0, 10.0];
    values.extend((0..400).map(|i| i as f32 / 16.0));
    let values: Vec<f32> = values.iter().flat_map(|&x| [x, -x]).chain(SPECIAL).collect();
    // One input of 1 and no bias: the weights are what GELU sees.
    let (n, bias) = (values.len(), vec![0.0; values.len()]);
    let want: Vec<f64> = values.iter().map(|&x| reference::gelu(f64::from(x))).collect();
    let b = Weights::new(&values, 1, n, Layout::InOut, Dtype::F32);
    for team in &mut single_threads() {
        let mut out = vec![0.0; n];
        team.enter(|kernels| kernels.gemm(&[1.0], b.matrix(), Epilogue::BiasGelu(&bias), &mut out));
        failures.close(&out, &want, |i| op_gate(want[i]), team.isa());
    }
    failures.report();
}

#[test]
fn layer_norm() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), single_threads(), Rng(43));
    for width in [1, 2, 5, 8, 15, 16, 17, 31, 33, 64, 70] {
        let operands = [rng.normals(width), rng.normals(width), rng.normals(width)];
        for which in 0..3 {
            for at in positions(width) {
                for value in SPECIAL {
                    let mut operands = operands.clone();
                    operands[which][at] = value;
                    let [x, weight, bias] = &operands;
                    // A clean row on each side.
                    let rows = [&rng.normals(width)[..], x, &rng.normals(width)].concat();
                    let want = rows.chunks_exact(width);
                    let want: Vec<f64> = want
                        .flat_map(|x| {
                            reference::layer_norm(&widened(x), &widened(weight), &widened(bias), f64::from(1e-5_f32))
                        })
                        .collect();
                    for team in &mut teams {
                        let mut out = vec![0.0; rows.len()];
                        team.enter(|kernels| kernels.layer_norm(&rows, weight, bias, 1e-5, &mut out));
                        let what = format!("width {width} {} {value} at {at} of operand {which}", team.isa());
                        failures.close(&out, &want, |i| op_gate(want[i]) + 1e-5, what);
                    }
                }
            }
        }
    }
    failures.report();
}

#[test]
fn attention() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), single_threads(), Rng(44));
    for (dim, tokens) in [(1, 18), (5, 67), (17, 34), (2, 130)] {
        let tokens = if cfg!(miri) { tokens.min(18) } else { tokens };
        let shape = HeadShape { heads: 2, head_dim: dim };
        let row = 3 * shape.width();
        let clean = rng.normals(tokens * row);
        for at in positions(tokens * row).step_by(if dim > 1 { 7 } else { 1 }) {
            for value in SPECIAL {
                let mut qkv = clean.clone();
                qkv[at] = value;
                // The other head is compared too: it must not notice.
                let mut want = vec![0.0; tokens * shape.width()];
                for head in 0..2 {
                    let [q, k, v] = [0, 1, 2].map(|part| {
                        let at = part * shape.width() + head * dim;
                        qkv.chunks_exact(row).flat_map(|row| widened(&row[at..at + dim])).collect::<Vec<f64>>()
                    });
                    let z = reference::attention(&q, &k, &v, dim, f64::from(0.5_f32));
                    for (z, into) in z.chunks_exact(dim).zip(want.chunks_exact_mut(shape.width())) {
                        into[head * dim..][..dim].copy_from_slice(z);
                    }
                }
                for team in &mut teams {
                    let mut z = vec![0.0; want.len()];
                    let mut store = KvStore::new(shape, tokens);
                    let span = KvSpan { first_row: 0, rows: tokens, past: 0, slot: 0 };
                    team.enter(|kernels| kernels.attention(shape, 0.5, &qkv, &[span], &mut store, &mut z));
                    let what = format!("{tokens} tokens of {dim} {} {value} at {at}", team.isa());
                    failures.close(&z, &want, |i| op_gate(want[i]) + 1e-5, what);
                }
            }
        }
    }
    failures.report();
}

#[test]
fn attention_under_extreme_scores() {
    // Query 1: the keys, times the scale, are the scores.
    let mut failures = Failures::default();
    let shape = HeadShape { heads: 1, head_dim: 1 };
    let low = f32::NEG_INFINITY;
    for length in [3, 16, 65, 140] {
        let patterns: [&dyn Fn(usize) -> f32; 6] = [
            &|_| low,
            &|i| if i % 64 < 63 { low } else { 1.0 },
            &|i| if i < 70 { low } else { i as f32 },
            &|i| i as f32 * 1e36,
            &|i| -(i as f32) * 1e36,
            &|i| if i == 66 { f32::INFINITY } else { 0.0 },
        ];
        for (pattern, score) in patterns.iter().enumerate() {
            let qkv: Vec<f32> = (0..length).flat_map(|i| [1.0, score(i), (i % 7) as f32]).collect();
            let parts =
                [0, 1, 2].map(|part| qkv.iter().skip(part).step_by(3).map(|&x| f64::from(x)).collect::<Vec<_>>());
            let want = reference::attention(&parts[0], &parts[1], &parts[2], 1, 1.0);
            for team in &mut single_threads() {
                let mut z = vec![0.0; length];
                let mut store = KvStore::new(shape, length);
                let span = KvSpan { first_row: 0, rows: length, past: 0, slot: 0 };
                team.enter(|kernels| kernels.attention(shape, 1.0, &qkv, &[span], &mut store, &mut z));
                let what = format!("pattern {pattern}, {length} tokens, {}", team.isa());
                failures.close(&z, &want, |i| op_gate(want[i]), what);
            }
        }
    }
    failures.report();
}

/// Compares every part of a score with the reference's for the same logits.
fn check_score(failures: &mut Failures, got: RowScore, logits: &[f64], target: usize, what: &str) {
    let (nll, log_sum_exp, entropy, rank) = reference::cross_entropy(logits, target);
    failures.check(got.rank == rank, || format!("{what}: rank {}, reference {rank}", got.rank));
    for (name, got, want) in
        [("nll", got.nll(), nll), ("lse", got.log_sum_exp, log_sum_exp), ("entropy", got.entropy, entropy)]
    {
        failures.check(agrees(got, want, op_gate(want)), || format!("{what}: {name} {got:e}, reference {want:e}"));
    }
}

#[test]
fn cross_entropy() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), single_threads(), Rng(45));
    for n in (1..=40).chain([255, 256, 257, 300]).filter(|n| !cfg!(miri) || n % 16 == 1) {
        let clean = rng.normals(n);
        for at in positions(n) {
            for value in SPECIAL {
                let mut logits = clean.clone();
                logits[at] = value;
                let b = Weights::new(&logits, 1, n, LAYOUTS[at % 2], Dtype::F32);
                let targets = [at, (at + 1) % n];
                for team in &mut teams {
                    let mut out = [RowScore::default(); 2];
                    let of = targets.map(|target| target as u32);
                    team.enter(|kernels| kernels.cross_entropy(&[1.0; 2], b.matrix(), &of, &mut out));
                    for (got, target) in out.into_iter().zip(targets) {
                        let what = format!("{n} logits {} {value} at {at}, target {target}", team.isa());
                        check_score(&mut failures, got, &widened(&logits), target, &what);
                    }
                }
            }
        }
    }
    failures.report();
}

#[test]
fn cross_entropy_when_whole_tiles_are_special() {
    let mut failures = Failures::default();
    let n = 3 * 256 + 5;
    for value in [f32::NEG_INFINITY, f32::NAN, f32::INFINITY] {
        for (from, to) in [(0, 256), (256, 512), (512, n), (0, 512), (768, n), (0, n), (1, n), (0, n - 1)] {
            let mut logits: Vec<f32> = (0..n).map(|i| (i % 13) as f32 / 4.0).collect();
            logits[from..to].fill(value);
            let b = Weights::new(&logits, 1, n, Layout::OutIn, Dtype::F32);
            for team in &mut single_threads() {
                for target in [0, 300, n - 1] {
                    let mut out = [RowScore::default()];
                    team.enter(|kernels| kernels.cross_entropy(&[1.0], b.matrix(), &[target as u32], &mut out));
                    let what = format!("{value} from {from} to {to}, target {target}, {}", team.isa());
                    check_score(&mut failures, out[0], &widened(&logits), target, &what);
                }
            }
        }
    }
    failures.report();
}

#[test]
fn cross_entropy_of_a_spoilt_row_leaves_the_others() {
    let (mut failures, mut rng) = (Failures::default(), Rng(46));
    let (rows, k, n) = (15, 5, 45);
    let (x, b) = (rng.normals(rows * k), Weights::new(&rng.normals(k * n), k, n, Layout::OutIn, Dtype::F32));
    let targets: Vec<u32> = (0..rows as u32).collect();
    for team in &mut single_threads() {
        let mut score = |x: &[f32]| {
            let mut out = vec![RowScore::default(); rows];
            team.enter(|kernels| kernels.cross_entropy(x, b.matrix(), &targets, &mut out));
            out
        };
        let clean = score(&x);
        for at in positions(x.len()) {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut spoilt = x.clone();
                spoilt[at] = value;
                let got = score(&spoilt);
                for row in 0..rows {
                    let ok = if row == at / k { got[row].nll().is_nan() } else { got[row] == clean[row] };
                    failures
                        .check(ok, || format!("{value} at {at}, row {row}: {:?}, clean {:?}", got[row], clean[row]));
                }
            }
        }
    }
    failures.report();
}
