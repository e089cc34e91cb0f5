//! Divergences from reference rows, taken in the cross-entropy's pass, against f64: in value, in class, and in their
//! promises — scores keep their bits, equal rows are 0 apart, and neither threads nor the batch change a bit.

mod common;

use common::*;
use lesion_kernels::{Against, Dtype, Epilogue, Isa, Layout, Precision, RowScore, Team, WeightMatrix, reference};

/// References, and rows of which each is compared with one of them.
struct Batch {
    /// `[rows, k]`
    x: Vec<f32>,
    references: usize,
    of: Vec<u32>,
    targets: Vec<u32>,
}

impl Batch {
    fn rows(&self) -> usize {
        self.references + self.of.len()
    }

    /// Scores without references, scores with them, divergences.
    fn run(&self, team: &mut Team, b: WeightMatrix<'_>) -> (Vec<RowScore>, Vec<RowScore>, Vec<f64>) {
        let nothing = RowScore { target_logit: f64::NAN, log_sum_exp: f64::NAN, entropy: f64::NAN, rank: u32::MAX };
        let (mut alone, mut scores) = (vec![nothing; self.rows()], vec![nothing; self.rows()]);
        let mut divergence = vec![f64::NAN; self.of.len()];
        team.enter(|kernels| {
            kernels.cross_entropy(&self.x, b, &self.targets, &mut alone);
            let log_sum_exp: Vec<f64> = alone[..self.references].iter().map(|score| score.log_sum_exp).collect();
            let against = Against { log_sum_exp: &log_sum_exp, of: &self.of };
            kernels.cross_entropy_against(&self.x, b, &self.targets, against, &mut divergence, &mut scores);
        });
        (alone, scores, divergence)
    }

    fn logits(&self, team: &mut Team, b: WeightMatrix<'_>) -> Vec<Vec<f64>> {
        let mut logits = vec![0.0; self.rows() * b.n];
        team.enter(|kernels| kernels.gemm(&self.x, b, Epilogue::Store, &mut logits));
        logits.chunks_exact(b.n).map(widened).collect()
    }
}

fn bits(scores: &[RowScore]) -> Vec<(u64, u64, u64, u32)> {
    let bits = |s: &RowScore| (s.target_logit.to_bits(), s.log_sum_exp.to_bits(), s.entropy.to_bits(), s.rank);
    scores.iter().map(bits).collect()
}

/// Same bits; any NaN is like any other.
fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

/// How far a divergence may be from the f64 one, given the same logits `l` of the reference and `m` of the row:
/// `Σ p·(l − m) + (ln Σ eᵐ − ln Σ eˡ)`.
///
/// A term `p·|l − m|` is off by the roundings of `l − m`, of `l − L` (`L` being the reference's log-sum-exp) and of `eˣ`
/// (1.02 ULP): `1 + |l − L| + 2.04` units. A sum over a group takes at most 128 terms a lane, whose roundings walk
/// `√128` units of it. So do those of the two log-sum-exps, which are sums of `eˣ`, and the first of them is in every p.
fn gate(l: &[f64], m: &[f64]) -> f64 {
    let [l_sum, m_sum] = [l, m].map(|logits| reference::cross_entropy(logits, 0).1);
    let sum = 128_f64.sqrt();
    // The relative error of `Σ eˣ`, in units: that of the sum, of the differences, and of each power.
    let log_sum_exp = |logits: &[f64], log_sum: f64| {
        let powers: f64 = logits.iter().map(|x| (x - log_sum).exp() * (x - log_sum).abs()).sum();
        sum + powers + 2.04
    };
    let (l_error, m_error) = (log_sum_exp(l, l_sum), log_sum_exp(m, m_sum));
    let terms: f64 = (l.iter().zip(m))
        .map(|(l, m)| {
            let (p, apart) = ((l - l_sum).exp(), (l - m).abs());
            // What f32 rounds to 0 is missing.
            let lost = if p < 1e-45 { p * apart / UNIT } else { 0.0 };
            p * apart * (3.04 + (l - l_sum).abs() + sum + l_error) + lost
        })
        .sum();
    UNIT * (terms + l_error + m_error)
}

/// A random batch whose logits are of size `scale`; rows are near their references or far from them.
fn batch(rng: &mut Rng, (references, others, k, n): (usize, usize, usize, usize), scale: f32) -> (Batch, Vec<f32>) {
    let mut weights = rng.short(k * n);
    // The first input moves all logits alike, and so no probability.
    if k > 1 {
        weights[..n].fill(1.0);
    }
    let size = scale / (k as f32).sqrt();
    let mut x: Vec<f32> = rng.normals(references * k).iter().map(|x| x * size).collect();
    // GPT-2's logits are about −100, and a lesion moves them by tens.
    let level = rng.pick(&[0.0_f32, -100.0]);
    x.iter_mut().step_by(k).for_each(|x| *x += level);
    let of: Vec<u32> = (0..others).map(|_| rng.below(references) as u32).collect();
    for &reference in &of {
        let near = rng.pick(&[1e-6_f32, 1e-3, 0.1, 1.0]);
        let shift = rng.pick(&[0.0_f32, 0.0, 30.0]);
        let row = &x[reference as usize * k..][..k];
        let row: Vec<f32> = row.iter().map(|x| x + near * size * rng.normal()).collect();
        x.extend(row);
        let first = x.len() - k;
        x[first] += shift;
    }
    let targets = (0..references + others).map(|_| rng.below(n) as u32).collect();
    (Batch { x, references, of, targets }, weights)
}

/// A batch on every team: the first result of an instruction set against f64, the others against its bits.
fn check(failures: &mut Failures, teams: &mut [Team], rng: &mut Rng, shape: (usize, usize, usize, usize), scale: f32) {
    let (batch, weights) = batch(rng, shape, scale);
    let (_, _, k, n) = shape;
    let ways = Weights::every_way(&weights, k, n);
    let turn = rng.below(ways.len());
    let mut first: Option<(Isa, Vec<f64>)> = None;
    for team in teams {
        let (isa, threads) = (team.isa(), team.threads());
        // Several threads take one dtype and layout, in turn.
        let ways = if threads == 1 { &ways[..] } else { &ways[(turn + threads) % ways.len()..][..1] };
        for b in ways {
            let (alone, scores, got) = batch.run(team, b.matrix());
            let what = || format!("{shape:?} × {scale} {isa} {threads} threads {:?}", b.layout);
            failures.check(bits(&alone) == bits(&scores), || format!("{}: scores have other bits", what()));
            if let Some((_, first)) = first.as_ref().filter(|(of, _)| *of == isa) {
                failures.check(same(&got, first), || format!("{}: other bits than the first way's", what()));
                continue;
            }
            let logits = batch.logits(team, b.matrix());
            for (i, (&got, &of)) in got.iter().zip(&batch.of).enumerate() {
                let (l, m) = (&logits[of as usize], &logits[batch.references + i]);
                let (want, gate) = (reference::divergence(l, m), gate(l, m));
                failures.check(agrees(got, want, gate), || {
                    format!("{} row {i}: {got:e}, reference {want:e}, gate {gate:e}", what())
                });
            }
            first = Some((isa, got));
        }
    }
}

#[test]
fn logits_of_every_size() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(81));
    let shapes: &[_] = if cfg!(miri) {
        &[(1, 2, 2, 5), (2, 3, 3, 17)]
    } else {
        &[(1, 6, 7, 33), (2, 13, 64, 300), (3, 40, 5, 1025), (5, 60, 300, 2500), (1, 3, 9, 128)]
    };
    for &shape in shapes.iter().step_by(thin().min(2)) {
        for scale in [1e-3, 0.1, 1.0, 8.0, 60.0, 1e4] {
            check(&mut failures, &mut teams, &mut rng, shape, scale);
        }
    }
    failures.report();
}

#[test]
fn every_vocabulary_and_number_of_rows() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(82));
    let sizes: Vec<usize> = if cfg!(miri) {
        vec![1, 16]
    } else {
        (1..=70).chain([127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 2049]).step_by(thin()).collect()
    };
    for n in sizes {
        let (references, others) = (rng.size(4), rng.pick(if cfg!(miri) { &[0, 3] } else { &[0, 1, 2, 7, 44, 50] }));
        let k = rng.pick(if cfg!(miri) { &[1, 2] } else { &[1, 2, 9, 257] });
        check(&mut failures, &mut teams, &mut rng, (references, others, k, n), 2.0);
    }
    failures.report();
}

/// More rows than one task of a plain product takes, and more references than a panel has rows.
#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn many_rows_and_many_references() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(83));
    for shape in [(1, 1056, 3, 140), (1, 1100, 5, 1300), (40, 1200, 4, 257), (130, 20, 8, 1100)] {
        check(&mut failures, &mut teams, &mut rng, shape, 3.0);
    }
    failures.report();
}

#[test]
fn equal_rows_are_nothing_apart() {
    let mut rng = Rng(84);
    let (references, k, n) = if cfg!(miri) { (2, 3, 20) } else { (3, 37, 1300) };
    for scale in [0.1_f32, 5.0, 1e3] {
        let mut x: Vec<f32> = rng.normals(references * k).iter().map(|x| x * scale).collect();
        let of: Vec<u32> = [0, 1, 0, 1, 1].into();
        of.iter().for_each(|&of| x.extend_from_within(of as usize * k..(of as usize + 1) * k));
        let batch = Batch { x, references, targets: vec![1; references + of.len()], of };
        for layout in LAYOUTS {
            let b = Weights::new(&rng.normals(k * n), k, n, layout, Dtype::F32);
            for precision in [Precision::F32, Precision::Bf16, Precision::Bf16Pairs] {
                for team in single_threads() {
                    let mut team = team.with_precision(precision);
                    let (_, _, divergence) = batch.run(&mut team, b.matrix());
                    assert!(divergence.iter().all(|d| d.to_bits() == 0), "{scale} {}: {divergence:?}", team.isa());
                }
            }
        }
    }
}

/// Alone with its reference a row is as far from it as among others, also in products of bf16.
#[test]
fn the_batch_changes_no_bit() {
    let (mut failures, mut rng) = (Failures::default(), Rng(85));
    let shape = if cfg!(miri) { (2, 4, 3, 20) } else { (4, 70, 33, 1500) };
    let (all, weights) = batch(&mut rng, shape, 2.0);
    let (references, others, k, n) = shape;
    let b = Weights::new(&weights, k, n, Layout::OutIn, Dtype::F32);
    for precision in [Precision::F32, Precision::Bf16, Precision::Bf16Pairs] {
        for team in teams() {
            let mut team = team.with_precision(precision);
            let (_, scores, divergences) = all.run(&mut team, b.matrix());
            for i in (0..others).step_by(3) {
                let (row, of) = (references + i, all.of[i] as usize);
                let alone = Batch {
                    x: [&all.x[of * k..(of + 1) * k], &all.x[row * k..(row + 1) * k]].concat(),
                    references: 1,
                    of: vec![0],
                    targets: vec![all.targets[of], all.targets[row]],
                };
                let (_, alone_scores, alone) = alone.run(&mut team, b.matrix());
                let ok = same(&alone, &divergences[i..=i]) && bits(&alone_scores[1..]) == bits(&scores[row..=row]);
                failures.check(ok, || format!("row {i} {precision:?} {} {} threads", team.isa(), team.threads()));
            }
        }
    }
    failures.report();
}

/// What a logit of a row can be made, by inputs that meet large weights there and zeros elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spoilt {
    No,
    Infinite,
    NegativeInfinite,
    NaN,
}

/// NaN and infinities in the reference, in the row, and in both, at one output or two.
#[test]
fn special_logits_give_the_class_of_the_reference() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), single_threads(), Rng(86));
    const ALL: [Spoilt; 4] = [Spoilt::No, Spoilt::Infinite, Spoilt::NegativeInfinite, Spoilt::NaN];
    const K: usize = 6;
    for n in [1, 2, 7, 16, 33, 130, 1030].into_iter().filter(|&n| !cfg!(miri) || n < 20) {
        let mut places: Vec<(usize, usize)> = vec![(0, 0), (n - 1, n - 1), (0, n - 1), (n / 2, n / 2)];
        places.extend([(n - 1, 0), (n / 2, n / 3)]);
        for (of_reference, of_row) in places {
            // Clean logits of the reference and of the row, then what overflows upwards and downwards at each one's place.
            let mut weights = [rng.normals(2 * n), vec![0.0; 4 * n]].concat();
            for (line, at, value) in
                [(2, of_reference, 1e30), (3, of_reference, -1e30), (4, of_row, 1e30), (5, of_row, -1e30)]
            {
                weights[line * n + at] = value;
            }
            let b = Weights::new(&weights, K, n, Layout::InOut, Dtype::F32);
            let spoil = |spoilt: Spoilt| match spoilt {
                Spoilt::No => [0.0, 0.0],
                Spoilt::Infinite => [1e30, 0.0],
                Spoilt::NegativeInfinite => [0.0, 1e30],
                Spoilt::NaN => [1e30, 1e30],
            };
            // One reference of each kind, one row of each kind against each of them.
            let references = ALL.iter().flat_map(|&kind| [&[1.0_f32, 0.0][..], &spoil(kind), &[0.0; 2]].concat());
            let rows = ALL
                .iter()
                .flat_map(|_| ALL.iter().flat_map(|&kind| [&[0.0_f32, 1.0, 0.0, 0.0][..], &spoil(kind)].concat()));
            let of: Vec<u32> = (0..16).map(|row| row / 4).collect();
            let x = references.chain(rows).collect();
            let batch = Batch { x, references: 4, of, targets: vec![0; 20] };
            for team in &mut teams {
                let logits = batch.logits(team, b.matrix());
                let (alone, scores, divergence) = batch.run(team, b.matrix());
                failures.check(alone.iter().zip(&scores).all(|(a, b)| a.rank == b.rank), || format!("{n}: ranks"));
                for (i, &got) in divergence.iter().enumerate() {
                    let (l, m) = (&logits[i / 4], &logits[4 + i]);
                    let want = reference::divergence(l, m);
                    failures.check(agrees(got, want, op_gate(want)), || {
                        let what = (ALL[i / 4], of_reference, ALL[i % 4], of_row);
                        format!("{n} logits {} {what:?}: {got:e}, reference {want:e}", team.isa())
                    });
                }
            }
        }
    }
    failures.report();
}

/// Logits that leave the reference, the row or both without any weight somewhere, or everywhere.
#[test]
fn whole_groups_without_weight_give_the_class_of_the_reference() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), single_threads(), Rng(87));
    let n = if cfg!(miri) { 21 } else { 3 * 1024 + 5 };
    let (third, two_thirds) = (n / 3, n / 3 * 2);
    for (of_reference, of_row) in [
        (0..third, 0..third),
        (third..two_thirds, 0..0),
        (0..0, third..two_thirds),
        (0..two_thirds, 0..third),
        (0..third, 0..two_thirds),
        (0..n, 0..0),
        (0..0, 0..n),
        (0..n, 0..n),
        (1..n, 0..n - 1),
        (1..n, 1..n),
    ] {
        let mut weights = [rng.normals(2 * n), vec![0.0; 2 * n]].concat();
        weights[2 * n..][of_reference.clone()].fill(-1e30);
        weights[3 * n..][of_row.clone()].fill(-1e30);
        let b = Weights::new(&weights, 4, n, Layout::OutIn, Dtype::F32);
        let x = vec![1.0, 0.0, 1e30, 0.0, 0.0, 1.0, 0.0, 1e30];
        let batch = Batch { x, references: 1, of: vec![0], targets: vec![0, (n - 1) as u32] };
        for team in &mut teams {
            let logits = batch.logits(team, b.matrix());
            let (got, want) = (batch.run(team, b.matrix()).2[0], reference::divergence(&logits[0], &logits[1]));
            failures.check(agrees(got, want, op_gate(want)), || {
                format!("−∞ at {of_reference:?}, {of_row:?} {}: {got:e}, reference {want:e}", team.isa())
            });
        }
    }
    failures.report();
}
