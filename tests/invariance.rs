//! What must not change a bit, in any precision: how the intact plan is written, the number of threads, the batch, the
//! cache.

#![cfg(feature = "mini")]

use lesion::forward::{Batch, Cache, Precision, Sampling, Session, SessionOptions, Target, complete};
use lesion::measure::{Windows, token_losses, windowed_losses};
use lesion::model::Model;
use lesion::plan::{Plan, PlanExpr, PlanShape};
use lesion_kernels::Isa;
use std::ops::ControlFlow;

fn model() -> Model {
    Model::mini().unwrap()
}

fn session(isa: Isa, threads: usize) -> Session {
    Session::new(&model(), SessionOptions { isa, threads, ..SessionOptions::default() }).unwrap()
}

/// A session for every instruction set and precision.
fn every_way(threads: usize) -> impl Iterator<Item = (String, Session)> {
    let kernels = Isa::available().flat_map(|isa| [(isa, Precision::F32), (isa, Precision::Bf16)]);
    kernels.chain([(Isa::Portable, Precision::F64)]).map(move |(isa, precision)| {
        let session = Session::new(&model(), SessionOptions { isa, threads, precision }).unwrap();
        assert_eq!((session.isa(), session.threads(), session.precision()), (isa, threads, precision));
        (format!("{isa} {precision}"), session)
    })
}

fn plan(text: &str) -> Plan {
    text.parse::<PlanExpr>().unwrap().resolve(&PlanShape::gpt2(12, 8)).unwrap()
}

/// Token sequences of these lengths, different from each other.
fn sequences(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 21
    };
    lengths.iter().map(|&n| (0..n).map(|_| next()).collect()).collect()
}

fn bits(losses: &[f64]) -> Vec<u64> {
    losses.iter().map(|loss| loss.to_bits()).collect()
}

const PLANS: [&str; 7] = [
    "0..12",
    "none",
    "0..5,6..12",
    "0..3,3*3,4..12",
    "11..=0",
    "0..4,(4|5|6,6|none),8..12",
    "0..6,6a,7m,7[zero h1 h7]",
];

#[test]
fn the_intact_plan_however_it_is_written() {
    let ids = &sequences(&[70])[0];
    for (way, mut session) in every_way(2) {
        let intact = token_losses(&mut session, &Plan::intact(12), &[ids]).unwrap().concat();
        for same in ["0..12", "0..=11", "(0..6),6..12", "0,1,2,3,4..12", "swap 2 2", "0..4,(4|4),5..12", "4..4,0..12"] {
            let losses = token_losses(&mut session, &plan(same), &[ids]).unwrap().concat();
            assert_eq!(bits(&losses), bits(&intact), "{way} {same}");
        }
    }
}

#[test]
fn the_number_of_threads() {
    let sequences = sequences(&[1, 2, 17, 100, 256, 33]);
    let all: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let losses = |session: &mut Session, text| bits(&token_losses(session, &plan(text), &all).unwrap().concat());
    for (way, mut one) in every_way(1) {
        let alone = PLANS.map(|text| losses(&mut one, text));
        let more: &[usize] = if one.precision() == Precision::F32 { &[2, 3, 5] } else { &[3] };
        for &threads in more {
            let (_, mut many) = every_way(threads).find(|(other, _)| *other == way).unwrap();
            for (text, alone) in PLANS.iter().zip(&alone) {
                assert_eq!(losses(&mut many, text), *alone, "{way}, {threads} threads, {text}");
            }
        }
    }
}

#[test]
fn the_batch() {
    let sequences = sequences(&[3, 1, 64, 65, 16, 200, 7, 256, 2, 31]);
    let all: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    for (way, mut session) in every_way(2) {
        for text in PLANS {
            let plan = plan(text);
            let together = token_losses(&mut session, &plan, &all).unwrap();
            for (ids, together) in all.iter().zip(&together) {
                let alone = token_losses(&mut session, &plan, &[ids]).unwrap().concat();
                assert_eq!(bits(together), bits(&alone), "{way}, {text}, {} tokens", ids.len());
            }
        }
    }
}

/// Decoding with a cache gives the bits of recomputation, in whatever pieces the tokens come.
#[test]
fn the_cache() {
    let ids = &sequences(&[90])[0];
    for (way, mut session) in every_way(2) {
        for text in PLANS {
            let plan = plan(text);
            let mut cache = Cache::new(&session, &plan, ids.len()).unwrap();
            for piece in [1, 1, 14, 1, 1, 30, 1, 17, 1, 23] {
                let from = cache.tokens();
                let cached = session.extend(&plan, &mut cache, &ids[from..from + piece]).unwrap().to_vec();
                let anew = session.logits(&plan, &ids[..from + piece]).unwrap();
                assert!(cached.iter().zip(anew).all(|(a, b)| a.to_bits() == b.to_bits()), "{way} {text} {from}");
            }
            let refused = session.extend(&plan, &mut cache, &[1]).unwrap_err();
            assert_eq!(refused.to_string(), "cache: it has room for 90 tokens, 91 are needed");
        }
    }
}

#[test]
fn a_cache_is_refused_by_another_plan_precision_or_model() {
    let mut session = session(Isa::best(), 1);
    let mut cache = Cache::new(&session, &plan("0..12"), 16).unwrap();
    for other in ["0..8", "11..=0", "0..7,7[zero h3],8..12"] {
        let refused = session.extend(&plan(other), &mut cache, &[1]).unwrap_err().to_string();
        assert_eq!(refused, format!("cache: made for plan 0..12, continued with {}", plan(other)));
    }
    let mut cache = Cache::new(&self::session(Isa::best(), 1), &plan("0..12"), 16).unwrap();
    let refused = session.extend(&plan("0..12"), &mut cache, &[1]).unwrap_err();
    assert_eq!(refused.to_string(), "cache: made for model mini, continued with mini");
    let options = SessionOptions { precision: Precision::F64, ..SessionOptions::default() };
    let mut exact = Session::new(session.model(), options).unwrap();
    let mut cache = Cache::new(&session, &plan("0..12"), 16).unwrap();
    let refused = exact.extend(&plan("0..12"), &mut cache, &[1]).unwrap_err();
    assert_eq!(refused.to_string(), "cache: made for precision f32, continued with f64");
}

#[test]
fn a_cache_that_would_take_all_memory_is_refused_before_it_takes_any() {
    let refused = Cache::new(&session(Isa::best(), 1), &plan("(0..12)*5000"), usize::MAX).err().unwrap().to_string();
    assert!(refused.starts_with("a cache for 60000 attentions and 18446744073709551615 tokens"), "{refused}");
    let sampling = Sampling::greedy(usize::MAX);
    let refused = complete(&mut session(Isa::best(), 1), &plan("(0..12)*5000"), &[1], &sampling, None, &mut |_, _| {
        ControlFlow::Continue(())
    });
    let refused = refused.unwrap_err().to_string();
    assert!(refused.ends_with("15728640000 bytes, 8589934592 are allowed: go without it"), "{refused}");
}

#[test]
fn which_rows_are_scored() {
    let ids = &sequences(&[120])[0];
    let mut session = session(Isa::best(), 2);
    let all = token_losses(&mut session, &Plan::intact(12), &[ids]).unwrap().concat();
    let target = |row: usize| Target { row, id: ids[row + 1] };
    for rows in [vec![118], vec![0, 5, 118], vec![7, 3, 3]] {
        let targets: Vec<_> = rows.iter().map(|&row| target(row)).collect();
        let some = session.score(&Plan::intact(12), &Batch::new([&ids[..]]), &targets).unwrap();
        for (row, score) in rows.iter().zip(some) {
            assert_eq!(score.nll().to_bits(), all[*row].to_bits());
        }
    }
}

#[test]
fn the_greatest_logits_are_those_of_the_logits() {
    let ids = &sequences(&[40])[0];
    let batch = Batch::new([&ids[..]]);
    let plan = plan("0..4,6,5,8..12");
    for precision in [Precision::F32, Precision::Bf16, Precision::F64] {
        let options = SessionOptions { threads: 2, isa: Isa::best(), precision };
        let mut session = Session::new(&Model::mini().unwrap(), options).unwrap();
        let logits = session.all_logits(&plan, ids).unwrap().to_vec();
        let vocab_size = logits.len() / ids.len();
        let targets: Vec<_> = [39, 0, 17].map(|row| Target { row, id: 3 }).to_vec();
        let plain = session.score(&plan, &batch, &targets).unwrap().to_vec();
        let (scores, greatest) = session.score_top(&plan, &batch, &targets, 5).unwrap();
        assert_eq!(scores, plain, "{precision}");
        for (target, greatest) in targets.iter().zip(greatest.chunks_exact(5)) {
            let logits = &logits[target.row * vocab_size..][..vocab_size];
            let mut order: Vec<u32> = (0..vocab_size as u32).collect();
            order.sort_by(|&i, &j| logits[j as usize].total_cmp(&logits[i as usize]));
            let found: Vec<_> = greatest.iter().map(|candidate| candidate.id).collect();
            assert_eq!(found, order[..5], "{precision}");
            assert!(greatest.iter().all(|candidate| candidate.logit == logits[candidate.id as usize]));
        }
        let refused = session.score_top(&plan, &batch, &targets, 2049).unwrap_err().to_string();
        assert_eq!(refused, "the 2049 greatest logits: the vocabulary has 2048");
    }
}

/// The logit lens behind the last step is the model itself.
#[test]
fn states_are_unembedded_as_the_pass_does() {
    let ids = &sequences(&[40])[0];
    let batch = Batch::new([&ids[..]]);
    let plan = plan("0..4,6,5,8..12");
    let targets: Vec<_> = (0..40).map(|row| Target { row, id: 3 }).collect();
    for (way, mut session) in every_way(2) {
        let mut last = Vec::new();
        session.residuals(&plan, &batch, |residual| last = residual.hidden.to_vec()).unwrap();
        let logits = session.all_logits(&plan, ids).unwrap().to_vec();
        let (scores, greatest) = session.score_top(&plan, &batch, &targets, 4).unwrap();
        let (scores, greatest) = (scores.to_vec(), greatest.to_vec());
        let unembedded = session.unembed(&last).unwrap().to_vec();
        let (again, again_greatest) = session.score_states(&last, &[3; 40], 4).unwrap();
        match way.ends_with("f64") {
            // The tap shows f32.
            true => assert!(logits.iter().zip(&unembedded).all(|(a, b)| (a - b).abs() < 1e-4), "{way}"),
            false => {
                assert_eq!(logits, unembedded, "{way}");
                assert_eq!((&scores[..], &greatest[..]), (again, again_greatest), "{way}");
            }
        }
        let refused = session.unembed(&last[1..]).unwrap_err().to_string();
        assert_eq!(refused, format!("{} elements of states: rows have 128", last.len() - 1));
    }
}

#[test]
fn a_target_s_logit_is_the_logit() {
    let ids = &sequences(&[40])[0];
    let mut session = session(Isa::best(), 2);
    let logits = session.all_logits(&Plan::intact(12), ids).unwrap().to_vec();
    let targets: Vec<_> = (0..39).map(|row| Target { row, id: ids[row + 1] }).collect();
    let scores = session.score(&Plan::intact(12), &Batch::new([&ids[..]]), &targets).unwrap();
    for (target, score) in targets.iter().zip(scores) {
        let row = &logits[target.row * 2048..][..2048];
        assert_eq!(score.target_logit.to_bits(), f64::from(row[target.id as usize]).to_bits());
        assert_eq!(score.rank as usize, row.iter().filter(|&&l| f64::from(l) > score.target_logit).count());
        let exact = row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
        assert!((score.log_sum_exp - exact).abs() < 1e-6, "{} {exact}", score.log_sum_exp);
    }
}

/// Each window's own losses, put together by the stated convention.
#[test]
fn windows_of_a_long_text() {
    let bos = 0;
    let text = sequences(&[700]).concat();
    let ids = [&[bos], &text[..]].concat();
    let mut session = session(Isa::best(), 2);
    let intact = Plan::intact(12);
    let windows = Windows { length: 100, stride: 40 };
    let losses = windowed_losses(&mut session, &intact, &ids, Some(bos), windows).unwrap();
    assert_eq!(losses.len(), 700);
    let mut expected = token_losses(&mut session, &intact, &[&ids[..100]]).unwrap().concat();
    let mut end = 100;
    while end < ids.len() {
        let next = ids.len().min(end + 40);
        let window = [&[bos], &ids[next - 99..next]].concat();
        let own = token_losses(&mut session, &intact, &[&window]).unwrap().concat();
        expected.extend_from_slice(&own[own.len() - (next - end)..]);
        end = next;
    }
    assert_eq!(bits(&losses), bits(&expected));
    let short = windowed_losses(&mut session, &intact, &ids[..80], Some(bos), Windows::of_context(256)).unwrap();
    assert_eq!(bits(&short), bits(&token_losses(&mut session, &intact, &[&ids[..80]]).unwrap().concat()));
    let without_bos = windowed_losses(&mut session, &intact, &text, None, windows).unwrap();
    assert_eq!(without_bos.len(), 699);
    for refused in
        [Windows { length: 257, stride: 1 }, Windows { length: 10, stride: 10 }, Windows { length: 10, stride: 0 }]
    {
        assert!(windowed_losses(&mut session, &intact, &ids, Some(bos), refused).is_err());
    }
}

/// The loss of many rows takes less memory than their logits would.
#[test]
fn losses_never_hold_the_logits() {
    let ids = &sequences(&[256])[0];
    let mut session = session(Isa::best(), 2);
    let batch = vec![&ids[..]; 8];
    token_losses(&mut session, &Plan::none(), &batch).unwrap();
    let logits = 8 * 256 * 2048 * size_of::<f32>();
    // All that the session holds, workspace included, is less than the logits alone would be.
    assert!(session.memory() < logits, "{} bytes, the logits are {logits}", session.memory());
}

#[test]
fn one_call_from_text_to_result() {
    let model = Model::open("mini").unwrap();
    let ids = model.encode("The capital of Spain is Madrid.").unwrap();
    let plan = model.plan("drop-last 4").unwrap();
    let losses = token_losses(&mut session(Isa::best(), 1), &plan, &[&ids]).unwrap().concat();
    let summary = model.loss(&ids, &plan).unwrap();
    assert_eq!((summary.tokens, summary.sum), (losses.len(), losses.iter().sum::<f64>()));
    let said = model.complete(&ids[..ids.len() - 2], &plan, &Sampling::greedy(1)).unwrap();
    assert_eq!(said.text.as_deref(), Some(" Madrid"));
    let error = lesion::Error::from(model.plan("0..13").unwrap_err()).to_string();
    assert!(error.starts_with("plan `0..13`, column 4: range end 13 of 12 layers"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut session = session(Isa::best(), 1);
    let refused =
        |session: &mut Session, plan: &Plan, ids: &[u32]| token_losses(session, plan, &[ids]).unwrap_err().to_string();
    let intact = Plan::intact(12);
    assert_eq!(refused(&mut session, &intact, &[]), "sequence 0 is empty: at least one token is needed");
    assert_eq!(refused(&mut session, &intact, &[0; 257]), "sequence 0 has 257 tokens, the model's context is 256");
    assert_eq!(
        refused(&mut session, &intact, &[5, 2048]),
        "token id 2048 in sequence 0: the vocabulary has ids 0..=2047"
    );
    let error = refused(&mut session, &Plan::intact(13), &[0, 1]);
    assert!(error.contains("steps.12") && error.contains("0..=11"), "{error}");
    assert_eq!(token_losses(&mut session, &intact, &[&[3]]).unwrap(), [Vec::<f64>::new()]);
    let empty = session.score(&intact, &Batch::default(), &[]).unwrap_err().to_string();
    assert_eq!(empty, "the batch is empty: at least one sequence is needed");
    let row = session.score(&intact, &Batch::new([&[1, 2][..]]), &[Target { row: 2, id: 0 }]).unwrap_err().to_string();
    assert_eq!(row, "row 2 of 2: the batch has no such row");
}
