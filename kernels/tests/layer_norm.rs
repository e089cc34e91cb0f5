//! LayerNorm against f64, over every width and around every number of rows that a task holds.

mod common;

use common::*;
use lesion_kernels::{Team, reference};

struct Case {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Case {
    fn new(rng: &mut Rng, rows: usize, width: usize) -> Case {
        let mut x = rng.normals(rows * width);
        for row in x.chunks_exact_mut(width) {
            // Rows of their own scale and offset; now and then an outlier as GPT-2's residual stream has them.
            let (scale, offset) = (rng.pick(&[1.0_f32, 0.03, 50.0]), rng.normal());
            row.iter_mut().for_each(|x| *x = (*x + offset) * scale);
            if rng.below(4) == 0 {
                row[rng.below(width)] *= 300.0;
            }
        }
        Case { x, weight: rng.normals(width), bias: rng.normals(width), eps: 1e-5 }
    }

    fn run(&self, team: &mut Team) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.x.len()];
        team.enter(|kernels| kernels.layer_norm(&self.x, &self.weight, &self.bias, self.eps, &mut out));
        out
    }

    fn expected(&self) -> Vec<f64> {
        let (weight, bias) = (widened(&self.weight), widened(&self.bias));
        let rows = self.x.chunks_exact(self.weight.len());
        rows.flat_map(|x| reference::layer_norm(&widened(x), &weight, &bias, f64::from(self.eps))).collect()
    }

    fn check(&self, failures: &mut Failures, teams: &mut [Team]) {
        let (want, width) = (self.expected(), self.weight.len());
        for team in teams {
            let got = self.run(team);
            let what = format!("{} × {width} {} {} threads", got.len() / width, team.isa(), team.threads());
            // The bias may cancel the product: the gate is that of the two terms.
            let gate = |i: usize| {
                let bias = f64::from(self.bias[i % width]);
                op_gate((want[i] - bias).abs() + bias.abs())
            };
            failures.close(&got, &want, gate, what);
        }
    }
}

#[test]
fn every_width() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(11));
    for width in sizes().into_iter().chain(if cfg!(miri) { vec![] } else { vec![255, 256, 257, 768, 1600] }) {
        for rows in [1, 3] {
            Case::new(&mut rng, rows, width).check(&mut failures, &mut teams);
        }
    }
    failures.report();
}

#[test]
fn every_number_of_rows() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(12));
    for rows in if cfg!(miri) { vec![0, 33] } else { (0..=130).chain(1023..=1025).step_by(thin()).collect() } {
        for width in [1, 7, 64] {
            Case::new(&mut rng, rows, width).check(&mut failures, &mut teams);
        }
    }
    failures.report();
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    let (mut failures, mut teams, mut rng) = (Failures::default(), teams(), Rng(13));
    let case = Case::new(&mut rng, if cfg!(miri) { 34 } else { 100 }, 77);
    for team in &mut teams {
        let all = case.run(team);
        for (row, x) in case.x.chunks_exact(77).enumerate() {
            let alone = Case { x: x.to_vec(), weight: case.weight.clone(), bias: case.bias.clone(), eps: case.eps };
            let (isa, threads) = (team.isa(), team.threads());
            let alone = alone.run(team);
            failures.same(&alone, &all[row * 77..][..77], format_args!("row {row} {isa} {threads} threads"));
        }
    }
    failures.report();
}

#[test]
fn a_constant_row_becomes_the_bias() {
    for team in &mut teams() {
        let case = Case { x: vec![3.0; 40], weight: vec![2.0; 20], bias: Rng(14).normals(20), eps: 1e-5 };
        assert_eq!(first_difference(&case.run(team), &case.bias.repeat(2)), None);
        // Without eps the scale is infinite: 0 · ∞.
        assert!(Case { eps: 0.0, ..case }.run(team).iter().all(|x| x.is_nan()));
    }
}
