//! Views of some outputs of a weight matrix: their product has the bits of those columns of the whole product, in every
//! dtype, layout, precision and number of rows, and so have scores over them.

mod common;

use common::*;
use lesion_kernels::{Dtype, Epilogue, Isa, Kernels, Layout, Precision, RowScore, Team, WeightMatrix};
use std::ops::Range;

/// Rows of each path: alone, few with one panel and with several, the most of few, then packed, in one piece of k or more.
fn row_counts() -> Vec<usize> {
    if cfg!(miri) { vec![1, 2, 5] } else { vec![1, 2, 5, 16, 48, 49, 120] }
}

/// `(k, n)`, and the outputs that are looked at.
fn cases() -> Vec<(usize, usize, Vec<Range<usize>>)> {
    if cfg!(miri) {
        return vec![(3, 21, vec![0..1, 5..21, 20..21]), (18, 40, vec![1..40, 3..36])];
    }
    let cases = [
        (1, 2, vec![0..1, 1..2]),
        (5, 33, vec![0..33, 1..33, 32..33, 7..24]),
        (64, 200, vec![0..128, 1..129, 31..97, 72..200, 199..200]),
        (301, 131, vec![3..131, 64..128, 17..50]),
        (801, 150, vec![1..150, 149..150, 20..85]),
    ];
    cases.into_iter().step_by(thin().min(3)).collect()
}

fn product(kernels: &mut Kernels<'_, '_>, a: &[f32], b: WeightMatrix<'_>, bias: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; a.len() / b.k * b.n];
    kernels.gemm(a, b, Epilogue::Bias(bias), &mut out);
    out
}

/// Columns of a row-major matrix of `n` columns.
fn columns(whole: &[f32], n: usize, columns: &Range<usize>) -> Vec<f32> {
    whole.chunks_exact(n).flat_map(|row| &row[columns.clone()]).copied().collect()
}

#[test]
fn some_outputs_have_the_bits_of_those_columns_of_all() {
    let (mut failures, mut rng) = (Failures::default(), Rng(61));
    let precisions = [Precision::F32, Precision::Bf16, Precision::Bf16Pairs];
    let each = |isa| precisions.map(|precision| Team::new(isa, 2).unwrap().with_precision(precision));
    let mut teams: Vec<Team> = Isa::available().flat_map(each).collect();
    for (k, n, views) in cases() {
        let (dense, bias) = (rng.normals(k * n), rng.normals(n));
        for rows in row_counts() {
            let a = rng.normals(rows * k);
            for (layout, dtype) in LAYOUTS.into_iter().flat_map(|layout| DTYPES.map(|dtype| (layout, dtype))) {
                let b = Weights::new(&dense, k, n, layout, dtype);
                for team in &mut teams {
                    let what = format!("{rows}×{k}×{n} {layout:?} {dtype:?} {} {:?}", team.isa(), team.precision());
                    team.enter(|kernels| {
                        let whole = product(kernels, &a, b.matrix(), &bias);
                        for view in &views {
                            let some = product(kernels, &a, b.matrix().outputs(view.clone()), &bias[view.clone()]);
                            failures.same(&some, &columns(&whole, n, view), format_args!("{what}, outputs {view:?}"));
                        }
                    });
                }
            }
        }
    }
    failures.report();
}

#[test]
fn a_view_of_a_view_is_a_view() {
    let mut rng = Rng(62);
    let (k, n) = (7, 60);
    let (dense, a, bias) = (rng.normals(k * n), rng.normals(3 * k), rng.normals(n));
    for layout in LAYOUTS {
        let b = Weights::new(&dense, k, n, layout, Dtype::F32);
        for team in &mut single_threads() {
            team.enter(|kernels| {
                let twice = product(kernels, &a, b.matrix().outputs(5..50).outputs(3..20), &bias[8..25]);
                let once = product(kernels, &a, b.matrix().outputs(8..25), &bias[8..25]);
                assert_eq!(first_difference(&twice, &once), None, "{layout:?}");
            });
        }
    }
}

/// A view's scores are those of a matrix that holds these outputs alone.
#[test]
fn scores_over_some_outputs_are_those_of_a_matrix_of_their_own() {
    let (mut failures, mut rng) = (Failures::default(), Rng(63));
    let (k, n) = if cfg!(miri) { (3, 30) } else { (65, 1500) };
    let views = if cfg!(miri) { vec![1..30, 29..30] } else { vec![0..1025, 3..1500, 1499..1500, 200..333] };
    let dense = rng.short(k * n);
    for rows in row_counts() {
        let x = rng.normals(rows * k);
        for view in &views {
            let targets: Vec<u32> = (0..rows).map(|_| rng.below(view.len()) as u32).collect();
            let alone = columns(&dense, n, view);
            for (layout, dtype) in LAYOUTS.into_iter().zip([Dtype::F16, Dtype::F32]) {
                let whole = Weights::new(&dense, k, n, layout, dtype);
                let alone = Weights::new(&alone, k, view.len(), layout, dtype);
                for team in &mut single_threads() {
                    let mut score = |b: WeightMatrix<'_>| {
                        let mut out = vec![RowScore::default(); rows];
                        team.enter(|kernels| kernels.cross_entropy(&x, b, &targets, &mut out));
                        out
                    };
                    let same = score(whole.matrix().outputs(view.clone())) == score(alone.matrix());
                    failures.check(same, || format!("{rows} rows, outputs {view:?} {layout:?} {}", team.isa()));
                }
            }
        }
    }
    failures.report();
}

#[test]
fn outputs_that_are_none_or_not_there_are_refused() {
    let data = [0.0; 6];
    for layout in LAYOUTS {
        let b = WeightMatrix::new(lesion_kernels::WeightData::F32(&data), 2, 3, layout);
        #[expect(clippy::reversed_empty_ranges, reason = "it is what is refused")]
        let bad = [0..0, 3..3, 2..1, 0..4, 3..4, 1..usize::MAX, usize::MAX - 1..usize::MAX];
        for outputs in bad {
            let refused = std::panic::catch_unwind(|| b.outputs(outputs.clone()).n);
            assert!(refused.is_err(), "{layout:?}: outputs {outputs:?} of 3");
        }
        assert_eq!(b.outputs(0..3).data.len(), 6);
    }
}

/// The elements of a view that are not its own lie between its rows: what is there changes nothing.
#[test]
fn what_lies_between_the_rows_of_a_view_is_not_used() {
    let mut rng = Rng(64);
    let (rows, k, n, view) = if cfg!(miri) { (2, 5, 20, 3..18) } else { (20, 300, 100, 11..94) };
    for rows in [1, rows, 3 * rows] {
        let (a, dense, bias) = (rng.normals(rows * k), rng.normals(k * n), vec![0.0; view.len()]);
        let beside = |at: usize| !view.contains(&(at % n));
        let spoilt: Vec<f32> = dense.iter().enumerate().map(|(at, &x)| if beside(at) { f32::NAN } else { x }).collect();
        for layout in [Layout::InOut, Layout::OutIn] {
            let [clean, spoilt] = [&dense, &spoilt].map(|dense| Weights::new(dense, k, n, layout, Dtype::F32));
            for team in &mut single_threads() {
                let [want, got] = [&clean, &spoilt]
                    .map(|b| team.enter(|kernels| product(kernels, &a, b.matrix().outputs(view.clone()), &bias)));
                assert_eq!(first_difference(&got, &want), None, "{rows} rows {layout:?} {}", team.isa());
                assert!(got.iter().all(|x| x.is_finite()));
            }
        }
    }
}
