//! What the kernels refuse: shapes that don't fit, numbers whose products wrap, teams that can't be had.

mod common;

use common::*;
use lesion_kernels::{
    Against, Columns, Dtype, Epilogue, HeadShape, Isa, Kernels, KvSpan, KvStore, Layout, RowScore, Team, TeamError,
    WeightData, WeightMatrix,
};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

const HUGE: usize = 1 << (usize::BITS - 1);

/// The message of the panic in `work`, which must panic; the team must work afterwards.
fn refusal(work: impl Fn(&mut Kernels<'_, '_>) + Sync) -> String {
    let mut team = Team::new(Isa::best(), 2).unwrap();
    let panic = catch_unwind(AssertUnwindSafe(|| team.enter(&work))).expect_err("it was not refused");
    let mut out = [0.0];
    team.enter(|kernels| kernels.gemm(&[2.0], matrix(&[3.0], 1, 1), Epilogue::Store, &mut out));
    assert_eq!(out, [6.0]);
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap()
}

fn matrix(data: &[f32], k: usize, n: usize) -> WeightMatrix<'_> {
    WeightMatrix::new(WeightData::F32(data), k, n, Layout::InOut)
}

#[test]
fn gemm_names_what_does_not_fit() {
    let gemm = |a: &[f32], b: WeightMatrix<'_>, epilogue: Epilogue<'_>, out: usize| {
        let (a, mut out) = (a.to_vec(), vec![0.0; out]);
        let out = std::sync::Mutex::new(&mut out);
        refusal(|kernels| kernels.gemm(&a, b, epilogue, &mut out.lock().unwrap()))
    };
    let b = [1.0; 6];
    assert!(gemm(&[], matrix(&[], 0, 3), Epilogue::Store, 0).contains("k 0"));
    assert!(gemm(&[1.0; 2], matrix(&b, 2, 4), Epilogue::Store, 4).contains("6 elements, k 2 × n 4"));
    assert!(gemm(&[1.0; 3], matrix(&b, 2, 3), Epilogue::Store, 3).contains("a has 3 elements, k is 2"));
    assert!(gemm(&[1.0; 2], matrix(&b, 2, 3), Epilogue::Store, 4).contains("gemm: out"));
    assert!(gemm(&[1.0; 2], matrix(&b, 2, 3), Epilogue::Bias(&[1.0; 2]), 3).contains("gemm: bias"));
    assert!(gemm(&[1.0; 4], matrix(&[], 2, HUGE), Epilogue::Store, 0).contains("weights"), "k · n wraps to 0");
}

#[test]
fn layer_norm_refuses_what_does_not_fit() {
    let layer_norm = |x: usize, weight: usize, bias: usize, out: usize| {
        refusal(|kernels| {
            kernels.layer_norm(&vec![1.0; x], &vec![1.0; weight], &vec![1.0; bias], 1e-5, &mut vec![0.0; out]);
        })
    };
    assert!(layer_norm(0, 0, 0, 0).contains("weight"));
    assert!(layer_norm(4, 2, 3, 4).contains("weight and bias"));
    assert!(layer_norm(5, 2, 2, 5).contains("rows"));
    assert!(layer_norm(4, 2, 2, 2).contains("rows"));
}

#[test]
fn attention_refuses_spans_that_leave_the_batch_or_the_store_or_overlap() {
    let shape = HeadShape { heads: 2, head_dim: 3 };
    let attention = |shape: HeadShape, rows: usize, spans: &[KvSpan]| {
        refusal(|kernels| {
            let mut store = KvStore::new(HeadShape { heads: 2, head_dim: 3 }, 32);
            let (qkv, mut z) = (vec![0.0; rows * 18], vec![0.0; rows * 6]);
            kernels.attention(shape, 1.0, &qkv, spans, &mut store, &mut z);
        })
    };
    let span = KvSpan { first_row: 0, rows: 4, past: 0, slot: 0 };
    assert!(attention(shape, 3, &[span]).contains("batch"));
    assert!(attention(shape, 4, &[KvSpan { past: 29, ..span }]).contains("store"));
    assert!(attention(shape, 4, &[KvSpan { slot: 8, ..span }]).contains("attention"), "not a whole tile");
    assert!(attention(shape, 8, &[span, KvSpan { slot: 0, first_row: 4, ..span }]).contains("attention"), "slots");
    assert!(attention(shape, 8, &[span, KvSpan { slot: 16, first_row: 3, ..span }]).contains("attention"), "rows");
    assert!(attention(HeadShape { heads: 0, head_dim: 3 }, 4, &[span]).contains("HeadShape"));
    // Sums and products that wrap.
    assert!(attention(HeadShape { heads: HUGE + 3, head_dim: 2 }, 4, &[span]).contains("HeadShape"));
    assert!(attention(shape, 4, &[KvSpan { past: usize::MAX - 3, ..span }]).contains("store"));
    assert!(attention(shape, 4, &[KvSpan { first_row: usize::MAX - 1, ..span }]).contains("batch"));
    assert!(attention(shape, 4, &[KvSpan { rows: usize::MAX, ..span }]).contains("attention"));
}

/// The two halves of attention: matrices of which some columns are meant.
#[test]
fn attention_refuses_columns_that_are_not_there() {
    let shape = HeadShape { heads: 2, head_dim: 3 };
    let data = [0.0; 48];
    let span = KvSpan { first_row: 0, rows: 3, past: 0, slot: 0 };
    let remember = |stride: usize, first: usize, span: KvSpan| {
        refusal(|kernels| {
            let kv = Columns { data: &data, stride, first };
            kernels.remember(shape, kv, &[span], &mut KvStore::new(shape, 16));
        })
    };
    // Three rows of 16 columns, of which keys and values take 12.
    for (stride, first) in [(16, 5), (11, 0), (0, 0), (16, usize::MAX), (16, usize::MAX - 11), (usize::MAX, 0), (13, 0)]
    {
        assert!(remember(stride, first, span).contains("keys and values"), "stride {stride}, first {first}");
    }
    assert!(remember(16, 4, KvSpan { rows: 4, ..span }).contains("batch"));
    assert!(remember(16, 4, KvSpan { past: 14, ..span }).contains("store"));
    assert!(remember(12, 0, KvSpan { first_row: 2, ..span }).contains("batch"));
    let attend = |stride: usize, first: usize, scale: f32, span: KvSpan, z: usize| {
        refusal(|kernels| {
            let q = Columns { data: &data, stride, first };
            kernels.attend(shape, scale, q, &[span], &KvStore::new(shape, 16), &mut vec![0.0; z]);
        })
    };
    for (stride, first) in [(16, 11), (5, 0), (0, 0), (16, usize::MAX), (16, usize::MAX - 5), (usize::MAX, 0), (7, 0)] {
        assert!(attend(stride, first, 1.0, span, 18).contains("queries"), "stride {stride}, first {first}");
    }
    for scale in [0.0, -1.0, f32::NAN] {
        assert!(attend(16, 0, scale, span, 18).contains("scale"));
    }
    assert!(attend(16, 0, 1.0, span, 17).contains("queries and z"));
    assert!(attend(16, 0, 1.0, KvSpan { rows: 4, ..span }, 18).contains("batch"));
    assert!(attend(16, 0, 1.0, KvSpan { past: 14, ..span }, 18).contains("store"));
    assert!(attend(16, 0, 1.0, KvSpan { slot: 3, ..span }, 18).contains("whole tile"));
    // A store that was made for another shape, or not at all, has other slots.
    let message = refusal(|kernels| {
        kernels.attend(shape, 1.0, Columns::all(&data, 6), &[span], &KvStore::default(), &mut [0.0; 48]);
    });
    assert!(message.contains("0 slots"), "{message}");
}

#[test]
fn cross_entropy_refuses_targets_behind_the_vocabulary() {
    let score = |x: usize, targets: &[u32], out: usize| {
        refusal(|kernels| {
            let mut out = vec![RowScore::default(); out];
            kernels.cross_entropy(&vec![1.0; x], matrix(&[1.0; 6], 2, 3), targets, &mut out);
        })
    };
    assert!(score(2, &[3], 1).contains("behind the vocabulary"));
    assert!(score(3, &[0], 1).contains("rows"));
    assert!(score(4, &[0, 1], 1).contains("out"));
    let mut team = Team::new(Isa::best(), 1).unwrap();
    team.enter(|kernels| kernels.cross_entropy(&[], matrix(&[1.0; 6], 2, 3), &[], &mut []));
}

#[test]
fn cross_entropy_against_refuses_references_that_are_not_there() {
    let score = |rows: usize, log_sum_exp: &[f64], of: &[u32], divergence: usize, target: u32| {
        refusal(|kernels| {
            let (x, targets) = (vec![1.0; rows * 2], vec![target; rows]);
            let (mut out, mut divergence) = (vec![RowScore::default(); rows], vec![0.0; divergence]);
            let against = Against { log_sum_exp, of };
            kernels.cross_entropy_against(&x, matrix(&[1.0; 6], 2, 3), &targets, against, &mut divergence, &mut out);
        })
    };
    assert!(score(3, &[0.0], &[0], 1, 0).contains("references and rows"));
    assert!(score(3, &[0.0; 3], &[0], 1, 0).contains("references and rows"));
    assert!(score(0, &[0.0], &[], 0, 0).contains("references and rows"));
    assert!(score(3, &[0.0], &[0, 0], 1, 0).contains("divergence"));
    assert!(score(3, &[0.0], &[0, 0], 3, 0).contains("divergence"));
    assert!(score(3, &[0.0], &[0, 1], 2, 0).contains("not there"));
    assert!(score(3, &[0.0], &[u32::MAX, 0], 2, 0).contains("not there"));
    assert!(score(2, &[], &[0, 0], 2, 0).contains("not there"));
    assert!(score(3, &[0.0], &[0, 0], 2, 3).contains("behind the vocabulary"));
    // No rows at all, references alone, and log-sum-exps of nothing are no faults.
    let mut team = Team::new(Isa::best(), 1).unwrap();
    for (rows, log_sum_exp) in [(0, &[][..]), (2, &[f64::NAN, f64::NEG_INFINITY])] {
        let (x, targets, mut out) = (vec![1.0; rows * 2], vec![1; rows], vec![RowScore::default(); rows]);
        let against = Against { log_sum_exp, of: &[] };
        let b = [1.0; 6];
        team.enter(|kernels| {
            kernels.cross_entropy_against(&x, matrix(&b, 2, 3), &targets, against, &mut [], &mut out);
        });
        assert!(out.iter().all(|score| (score.nll() - 3_f64.ln()).abs() < 1e-6));
    }
}

#[test]
fn gather_refuses_pieces_of_another_length() {
    let gather = |pieces: &[&[f32]], out: usize| refusal(|kernels| kernels.gather(pieces, &mut vec![0.0; out]));
    assert!(gather(&[], 1).contains("gather"));
    assert!(gather(&[&[1.0; 3], &[1.0; 2]], 4).contains("gather"));
    assert!(gather(&[&[1.0; 3], &[1.0; 2]], 6).contains("gather"));
    assert!(gather(&[&[1.0; 3]], 0).contains("gather"));
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "they are what is refused")]
fn scatter_refuses_places_that_overlap_and_ranges_that_are_not_there() {
    let bad: [&[(Range<usize>, Range<usize>)]; 13] = [
        &[(0..2, 0..2), (2..4, 1..3)],
        &[(2..4, 1..3), (0..2, 0..2)],
        &[(0..1, 3..4), (0..1, 3..4)],
        &[(0..6, 0..6), (0..1, 2..3)],
        &[(0..2, 0..3)],
        &[(0..3, 0..2)],
        &[(0..2, 5..7)],
        &[(5..7, 0..2)],
        &[(0..2, usize::MAX - 1..usize::MAX)],
        &[(usize::MAX - 2..usize::MAX, 0..2)],
        // Lengths of 0 all of them.
        &[(3..1, 0..0)],
        &[(0..0, 3..1)],
        &[(0..0, 7..7)],
    ];
    for copies in bad {
        let message = refusal(|kernels| kernels.scatter(&[1.0; 6], &mut [0.0; 6], copies));
        assert!(message.contains("scatter"), "{copies:?}: {message}");
    }
    // Nothing is written of copies of which one is refused.
    let mut into = [0.0; 6];
    let refused = catch_unwind(AssertUnwindSafe(|| {
        Team::new(Isa::best(), 1)
            .unwrap()
            .enter(|kernels| kernels.scatter(&[1.0; 6], &mut into, &[(0..1, 0..1), (6..7, 1..2)]));
    }));
    assert!(refused.is_err() && into == [0.0; 6]);
}

#[test]
fn teams_that_cannot_be_had() {
    for threads in [0, Team::MAX_THREADS + 1, usize::MAX] {
        let Err(error) = Team::new(Isa::Portable, threads) else { panic!("{threads} threads") };
        assert!(matches!(error, TeamError::Threads(n) if n == threads));
        assert!(error.to_string().contains(&threads.to_string()), "{error}");
    }
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        assert!(matches!(Team::new(isa, 1), Err(TeamError::Isa(of)) if of == isa));
        assert!(isa.name().parse::<Isa>().is_err());
    }
    assert_eq!("portable".parse(), Ok(Isa::Portable));
    for name in ["", "AVX2", "avx2 ", "sse\u{1b}[31m"] {
        let error = name.parse::<Isa>().unwrap_err();
        assert_eq!(error.asked, name);
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }
}

#[test]
fn a_team_says_what_it_is_and_holds() {
    for team in &mut teams() {
        assert_eq!(team.scratch_bytes(), 0);
        let (m, k, n) = if cfg!(miri) { (3, 20, 9) } else { (20, 300, 200) };
        let b = Weights::new(&Rng(1).normals(k * n), k, n, Layout::OutIn, Dtype::F32);
        let (a, mut out) = (Rng(2).normals(m * k), vec![0.0; m * n]);
        team.enter(|kernels| kernels.gemm(&a, b.matrix(), Epilogue::Store, &mut out));
        let held = team.scratch_bytes();
        assert!((m * k * 4..4 << 20).contains(&held), "{held} bytes");
    }
}

#[test]
fn two_teams_work_at_once() {
    let (most, k) = if cfg!(miri) { (3, 5) } else { (30, 300) };
    let b = Weights::new(&Rng(1).normals(k * 128), k, 128, Layout::InOut, Dtype::F32);
    let a = Rng(2).normals(most * k);
    let product = |team: &mut Team, rows: usize| {
        let mut out = vec![0.0; rows * 128];
        team.enter(|kernels| kernels.gemm(&a[..rows * k], b.matrix(), Epilogue::Store, &mut out));
        out
    };
    let rounds = if cfg!(miri) { 1 } else { 50 };
    std::thread::scope(|scope| {
        for threads in [2, 3] {
            scope.spawn(move || {
                let mut team = Team::new(Isa::best(), threads).unwrap();
                let want = product(&mut team, most);
                for rows in (1..=most).cycle().take(rounds) {
                    let got = product(&mut team, rows);
                    assert_eq!(first_difference(&got, &want[..rows * 128]), None);
                }
            });
        }
    });
}
