//! The cross-entropy against f64. Its reference takes the logits that the matrix product gives, whose own error is that
//! of `gemm.rs`: the target's logit and the rank are then exact.

mod common;

use common::*;
use lesion_kernels::{Candidate, Dtype, Epilogue, Isa, Layout, RowScore, Team, WeightMatrix, reference};

fn score(team: &mut Team, x: &[f32], b: WeightMatrix<'_>, targets: &[u32]) -> Vec<RowScore> {
    let nothing = RowScore { target_logit: f64::NAN, log_sum_exp: f64::NAN, entropy: f64::NAN, rank: u32::MAX };
    let mut out = vec![nothing; targets.len()];
    team.enter(|kernels| kernels.cross_entropy(x, b, targets, &mut out));
    out
}

fn bits(score: &RowScore) -> (u64, u64, u64, u32) {
    (score.target_logit.to_bits(), score.log_sum_exp.to_bits(), score.entropy.to_bits(), score.rank)
}

/// `rows × k × n` on every team, in every dtype and layout.
fn check(failures: &mut Failures, teams: &mut [Team], rng: &mut Rng, (rows, k, n): (usize, usize, usize)) {
    // Logits from almost uniform to one that takes all.
    let scale = rng.pick(&[0.1_f32, 1.0, 8.0]) / (k as f32).sqrt();
    let x: Vec<f32> = rng.normals(rows * k).iter().map(|x| x * scale).collect();
    let targets: Vec<u32> = (0..rows).map(|row| if row == 0 { n - 1 } else { rng.below(n) } as u32).collect();
    let ways = Weights::every_way(&rng.short(k * n), k, n);
    let mut first: Option<(Isa, Vec<RowScore>)> = None;
    for team in teams {
        let (isa, threads) = (team.isa(), team.threads());
        for b in &ways {
            let got = score(team, &x, b.matrix(), &targets);
            let what =
                || format!("{rows}×{k}×{n} {isa} {threads} threads {:?} {:?}", b.matrix().data.dtype(), b.layout);
            if let Some((_, first)) = first.as_ref().filter(|(of, _)| *of == isa) {
                let same = got.iter().map(bits).eq(first.iter().map(bits));
                failures.check(same, || format!("{}: other bits than the first way's", what()));
                continue;
            }
            let mut logits = vec![0.0; rows * n];
            team.enter(|kernels| kernels.gemm(&x, b.matrix(), Epilogue::Store, &mut logits));
            for ((row, logits), got) in logits.chunks_exact(n).enumerate().zip(&got) {
                let target = targets[row] as usize;
                let (nll, log_sum_exp, entropy, rank) = reference::cross_entropy(&widened(logits), target);
                failures.check(got.target_logit.to_bits() == f64::from(logits[target]).to_bits(), || {
                    format!("{} row {row}: target logit {:e}, gemm {:e}", what(), got.target_logit, logits[target])
                });
                failures.check(got.rank == rank, || format!("{} row {row}: rank {}, not {rank}", what(), got.rank));
                for (name, got, want) in
                    [("nll", got.nll(), nll), ("lse", got.log_sum_exp, log_sum_exp), ("entropy", got.entropy, entropy)]
                {
                    failures.check(agrees(got, want, op_gate(want)), || {
                        format!("{} row {row}: {name} {got:e}, reference {want:e}", what())
                    });
                }
            }
            first = Some((isa, got));
        }
    }
}

/// Against sorting the logits that the matrix product gives: ids and bits, whatever the batch and the threads.
#[test]
fn the_greatest_logits_are_those_of_the_product() {
    let (mut failures, mut rng) = (Failures::default(), Rng(35));
    let shapes = [(1, 7, 5, 3), (3, 64, 1, 1), (2, 5, 1025, 10), (13, 16, 2050, 7), (50, 33, 300, 300)];
    for (rows, k, n, count) in if cfg!(miri) { &shapes[..2] } else { &shapes[..] }.iter().copied() {
        let (x, weights) = (rng.short(rows * k), rng.short(k * n));
        let targets: Vec<u32> = (0..rows).map(|row| (row % n) as u32).collect();
        for b in Weights::every_way(&weights, k, n) {
            for team in &mut teams() {
                let mut logits = vec![0.0; rows * n];
                let mut scores = vec![RowScore::default(); rows];
                let mut greatest = vec![Candidate { id: 7, logit: f32::NAN }; rows * count];
                team.enter(|kernels| {
                    kernels.gemm(&x, b.matrix(), Epilogue::Store, &mut logits);
                    kernels.cross_entropy_top(&x, b.matrix(), &targets, &mut greatest, &mut scores);
                });
                for (row, greatest) in greatest.chunks_exact(count).enumerate() {
                    let logits = &logits[row * n..][..n];
                    let mut order: Vec<u32> = (0..n as u32).collect();
                    // A stable sort: of equals the lower id stays in front.
                    order.sort_by(|&i, &j| logits[j as usize].total_cmp(&logits[i as usize]));
                    let mut want: Vec<_> =
                        order.iter().map(|&id| Candidate { id, logit: logits[id as usize] + 0.0 }).collect();
                    want.resize(count.max(n), Candidate::NONE);
                    failures.check(greatest == &want[..count], || {
                        format!("{rows}×{k}×{n} {} row {row}: {greatest:?}, not {:?}", team.isa(), &want[..count])
                    });
                }
            }
        }
    }
    failures.report();
}

#[test]
fn every_vocabulary() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(31));
    let sizes =
        if cfg!(miri) { vec![1, 9, 257] } else { (1..=600).chain([1023, 1024, 1025, 2048]).step_by(thin()).collect() };
    for n in sizes {
        let (rows, k) = (rng.pick(&[1, 2, 7, 13]), rng.pick(&[1, 7, 64]));
        check(&mut failures, &mut teams, &mut rng, (rows, k, n));
    }
    failures.report();
}

#[test]
fn every_number_of_rows_and_inputs() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(32));
    for size in sizes() {
        check(&mut failures, &mut teams, &mut rng, (size, 7, 64));
        check(&mut failures, &mut teams, &mut rng, (3, size, 37));
    }
    failures.report();
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn the_vocabulary_of_gpt2() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(33));
    check(&mut failures, &mut teams, &mut rng, (14, 32, 50257));
    failures.report();
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    let (mut failures, mut rng) = (Failures::default(), Rng(34));
    let (rows, k, n) = if cfg!(miri) { (9, 3, 40) } else { (60, 300, 700) };
    let b = Weights::new(&rng.normals(k * n), k, n, Layout::OutIn, Dtype::F32);
    let (x, targets) = (rng.normals(rows * k), (0..rows).map(|_| rng.below(n) as u32).collect::<Vec<_>>());
    for team in &mut teams() {
        let all = score(team, &x, b.matrix(), &targets);
        for row in 0..rows {
            let alone = score(team, &x[row * k..(row + 1) * k], b.matrix(), &targets[row..=row]);
            let (isa, threads) = (team.isa(), team.threads());
            failures.check(bits(&alone[0]) == bits(&all[row]), || format!("row {row} {isa} {threads} threads"));
        }
    }
    failures.report();
}

#[test]
fn logits_of_any_size_lose_nothing() {
    // k = 1 and x = 1: the weights are the logits.
    let (mut failures, mut rng) = (Failures::default(), Rng(35));
    for n in [1, 5, 16, 255, 256, 257, 513] {
        for (scale, offset) in
            [(1.0, 0.0), (30.0, 0.0), (1.0, 1e4), (1e4, 0.0), (1e30, 0.0), (0.0, -3e38), (1e-40, 0.0)]
        {
            let logits: Vec<f32> = rng.normals(n).iter().map(|x| x * scale + offset).collect();
            let b = Weights::new(&logits, 1, n, Layout::OutIn, Dtype::F32);
            for team in &mut single_threads() {
                for target in [0, n / 2, n - 1] {
                    let got = score(team, &[1.0], b.matrix(), &[target as u32])[0];
                    let (nll, log_sum_exp, entropy, rank) = reference::cross_entropy(&widened(&logits), target);
                    let what = || {
                        format!("{n} logits, {scale:e} {offset:e} {}: {got:?}, not {log_sum_exp} {entropy}", team.isa())
                    };
                    failures.check(got.rank == rank, what);
                    failures.check(agrees(got.nll(), nll, op_gate(nll)), what);
                    failures.check(agrees(got.log_sum_exp, log_sum_exp, op_gate(log_sum_exp)), what);
                    failures.check(agrees(got.entropy, entropy, op_gate(entropy)), what);
                }
            }
        }
    }
    failures.report();
}
