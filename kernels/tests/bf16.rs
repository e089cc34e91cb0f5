//! Products of bf16: exact on small integers, within f32's rounding of the product of the rounded operands, and the
//! same bits whatever the batch, the path or the threads.

use lesion_kernels::{Epilogue, Isa, Kernels, Layout, Precision, RowScore, Team, WeightData, WeightMatrix, reference};

/// Every instruction set in both ways of multiplying bf16.
fn teams(threads: usize) -> impl Iterator<Item = (String, Team)> {
    Isa::available().flat_map(move |isa| {
        [Precision::Bf16, Precision::Bf16Pairs].map(|precision| {
            let team = Team::new(isa, threads).unwrap().with_precision(precision);
            (format!("{isa} {}", precision.name()), team)
        })
    })
}

/// Values in −1..1 that bf16 does not hold exactly.
fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect()
}

/// `(rows, k, n)`; Miri takes the first ones.
const SHAPES: &[(usize, usize, usize)] = {
    let all: &[(usize, usize, usize)] = &[
        (1, 1, 1),
        (5, 31, 17),
        (30, 2, 2),
        (1, 7, 128),
        (3, 255, 128),
        (8, 256, 256),
        (9, 257, 129),
        (17, 130, 33),
        (64, 513, 100),
        (1, 768, 300),
    ];
    if cfg!(miri) { all.split_at(3).0 } else { all }
};

fn product(kernels: &mut Kernels<'_, '_>, a: &[f32], b: WeightMatrix<'_>) -> Vec<f32> {
    let mut out = vec![f32::NAN; a.len() / b.k * b.n];
    kernels.gemm(a, b, Epilogue::Store, &mut out);
    out
}

#[test]
fn close_to_the_product_of_the_rounded_operands() {
    for (isa, mut team) in teams(2) {
        for &(m, k, n) in SHAPES {
            for layout in [Layout::InOut, Layout::OutIn] {
                let (a, b) = (values(m * k, 1), values(k * n, 2));
                let matrix = WeightMatrix::new(WeightData::F32(&b), k, n, layout);
                let ours = team.enter(|kernels| product(kernels, &a, matrix));
                let (ra, rb) = (rounded(&a), rounded(&b));
                let wide: Vec<f64> = ra.iter().map(|&x| f64::from(x)).collect();
                let exact = WeightMatrix::new(WeightData::F32(&rb), k, n, layout);
                let truth = reference::gemm(&wide, &exact, Epilogue::Store, &[]);
                let bound = 4.0 * (k as f64).sqrt() * f64::from(f32::EPSILON) * k as f64;
                for (i, (ours, truth)) in ours.iter().zip(&truth).enumerate() {
                    let error = (f64::from(*ours) - truth).abs();
                    assert!(error <= bound, "{isa} {m}×{k}×{n} {layout:?} [{i}]: {ours} against {truth}");
                }
            }
        }
    }
}

#[test]
fn exact_on_small_integers_from_every_element_type() {
    for (isa, mut team) in teams(1) {
        for &(m, k, n) in SHAPES {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32 - 2.0).collect();
            let b16: Vec<half::f16> = b.iter().map(|&x| half::f16::from_f32(x)).collect();
            let bb16: Vec<half::bf16> = b.iter().map(|&x| half::bf16::from_f32(x)).collect();
            for layout in [Layout::InOut, Layout::OutIn] {
                let wide: Vec<f64> = a.iter().map(|&x| f64::from(x)).collect();
                let matrix = |data| WeightMatrix::new(data, k, n, layout);
                let truth = reference::gemm(&wide, &matrix(WeightData::F32(&b)), Epilogue::Store, &[]);
                for data in [WeightData::F32(&b), WeightData::F16(&b16), WeightData::Bf16(&bb16)] {
                    let ours = team.enter(|kernels| product(kernels, &a, matrix(data)));
                    assert!(ours.iter().zip(&truth).all(|(a, b)| f64::from(*a) == *b), "{isa} {m}×{k}×{n} {layout:?}");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_in_any_batch_and_with_any_threads() {
    for ((isa, mut three), (_, mut one)) in teams(3).zip(teams(1)) {
        for layout in [Layout::InOut, Layout::OutIn] {
            let (k, n) = if cfg!(miri) { (19, 40) } else { (801, 256) };
            let (a, b) = (values(110 * k, 3), values(k * n, 4));
            let matrix = WeightMatrix::new(WeightData::F32(&b), k, n, layout);
            let all = three.enter(|kernels| product(kernels, &a, matrix));
            let counts = [1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 24, 25, 48, 49, 96, 97];
            for &rows in &counts[..if cfg!(miri) { 5 } else { counts.len() }] {
                let some = one.enter(|kernels| product(kernels, &a[..rows * k], matrix));
                assert!(some.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa} {layout:?} {rows}");
            }
        }
    }
}

/// Few rows over columns that end amid a tile and k that ends amid a pair, a set of lines or a block, against more rows
/// than that loop takes; and neither layout nor element type of equal weights changes a bit.
#[test]
fn few_rows_have_the_bits_of_many_in_every_layout_and_element_type() {
    let shapes = [(1, 1), (1, 33), (3, 65), (17, 95), (31, 1), (255, 34), (273, 70), (513, 33)];
    let rows = if cfg!(miri) { 4 } else { 48 };
    for (isa, mut team) in teams(1) {
        for (k, n) in if cfg!(miri) { &shapes[..4] } else { &shapes[..] }.iter().copied() {
            let a = values((rows + 12) * k, 7);
            // Exact in every element type.
            let dense: Vec<f32> = (0..k * n).map(|i| ((i * 37) % 255) as f32 / 64.0 - 2.0).collect();
            let turned: Vec<f32> = (0..k * n).map(|at| dense[at % k * n + at / k]).collect();
            let mut all: Option<Vec<f32>> = None;
            for (layout, laid) in [(Layout::InOut, &dense), (Layout::OutIn, &turned)] {
                let f16s: Vec<half::f16> = laid.iter().map(|&x| half::f16::from_f32(x)).collect();
                let bf16s: Vec<half::bf16> = laid.iter().map(|&x| half::bf16::from_f32(x)).collect();
                for data in [WeightData::F32(laid), WeightData::F16(&f16s), WeightData::Bf16(&bf16s)] {
                    let b = WeightMatrix::new(data, k, n, layout);
                    let many = team.enter(|kernels| product(kernels, &a, b));
                    let all = all.get_or_insert_with(|| many.clone());
                    let same = |some: &[f32]| some.iter().zip(&*all).all(|(a, b)| a.to_bits() == b.to_bits());
                    let what = |rows: usize| format!("{isa} {rows}×{k}×{n} {layout:?} {:?}", data.dtype());
                    assert!(same(&many), "{}", what(rows + 12));
                    for rows in 1..=rows {
                        let few = team.enter(|kernels| product(kernels, &a[..rows * k], b));
                        assert!(same(&few), "{}", what(rows));
                    }
                }
            }
        }
    }
}

#[test]
fn a_targets_logit_is_the_products() {
    for (isa, mut team) in teams(2) {
        let (rows, k, n) = if cfg!(miri) { (5, 7, 150) } else { (14, 200, 500) };
        let (x, b) = (values(rows * k, 5), values(k * n, 6));
        let matrix = WeightMatrix::new(WeightData::F32(&b), k, n, Layout::OutIn);
        let targets: Vec<u32> = (0..rows as u32).map(|i| i * 31).collect();
        let mut scores = vec![RowScore::default(); rows];
        let logits = team.enter(|kernels| {
            kernels.cross_entropy(&x, matrix, &targets, &mut scores);
            product(kernels, &x, matrix)
        });
        for (row, (score, &target)) in scores.iter().zip(&targets).enumerate() {
            assert_eq!(
                score.target_logit.to_bits(),
                f64::from(logits[row * n + target as usize]).to_bits(),
                "{isa} row {row}"
            );
        }
    }
}
