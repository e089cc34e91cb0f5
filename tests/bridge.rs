//! Linear shortcuts against an independent reference (transformers, numpy and autograd in f64: see
//! `tests/data/golden_bridge.py`), what must not change a bit, sweeps against one pass each, and what is refused.

#![cfg(feature = "mini")]

use lesion::forward::{
    Batch, Bridges, Cache, ForwardError, LinearMap, Precision, Session, SessionOptions, Shortcuts, Target,
};
use lesion::model::Model;
use lesion::plan::Plan;
use lesion::sweep::{Event, Example, Row, Sweep, SweepOptions};
use std::ops::ControlFlow;
use std::sync::Arc;

fn session(precision: Precision) -> Session {
    let options = SessionOptions { threads: 2, precision, ..SessionOptions::default() };
    Session::new(&Model::mini().unwrap(), options).unwrap()
}

fn plan(text: &str) -> Plan {
    Model::mini().unwrap().plan(text).unwrap()
}

/// A map by a rule, the same as the reference's.
fn rule() -> LinearMap {
    let width = 128;
    let element = |i: usize, j: usize| {
        let diagonal = if i == j { 1.0 } else { 0.0 };
        (((31 * i + 17 * j) % 13) as f32 - 6.0) / 200.0 + diagonal
    };
    let weight = (0..width * width).map(|at| element(at / width, at % width)).collect();
    LinearMap::new(weight, (0..width).map(|i| (((37 * i) % 11) as f32 - 5.0) / 20.0).collect()).unwrap()
}

/// Diagonal maps.
fn scaling(by: f32) -> LinearMap {
    let identity = LinearMap::identity(128);
    LinearMap::new(identity.weight().iter().map(|x| x * by).collect(), vec![0.0; 128]).unwrap()
}

/// The same map between any two layers.
fn everywhere(map: &LinearMap) -> Arc<Shortcuts> {
    let mut shortcuts = Shortcuts::default();
    for from in 0..=12 {
        (from..=12).for_each(|to| shortcuts.insert(from, to, map.clone()));
    }
    Arc::new(shortcuts)
}

fn bridges() -> Bridges {
    let mut bridges = Bridges::default();
    bridges.insert("rule", everywhere(&rule()));
    bridges.insert("same", everywhere(&LinearMap::identity(128)));
    bridges.insert("double", everywhere(&scaling(2.0)));
    bridges.insert("half", everywhere(&scaling(0.5)));
    bridges
}

fn bridged(precision: Precision) -> Session {
    let mut session = session(precision);
    session.set_bridges(bridges());
    session
}

fn ids(count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 37 + 5) % 2000) as u32).collect()
}

fn logit_bits(session: &mut Session, text: &str, ids: &[u32]) -> Vec<u32> {
    session.all_logits(&plan(text), ids).unwrap().iter().map(|x| x.to_bits()).collect()
}

#[derive(serde::Deserialize)]
struct Golden {
    ids: Vec<u32>,
    plans: Vec<PlanCase>,
    #[cfg(feature = "fit")]
    #[serde(flatten)]
    fits: fits::Fits,
}

#[derive(serde::Deserialize)]
struct PlanCase {
    plan: String,
    nll: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("data/golden_bridge.json")).unwrap()
}

#[test]
fn plans_with_bridges_agree_with_transformers() {
    let golden = golden();
    assert_eq!(golden.plans.len(), 8);
    for (precision, gate) in [(Precision::F64, 1e-9), (Precision::F32, 1e-4)] {
        let mut session = bridged(precision);
        let targets = golden.ids[1..].iter().enumerate().map(|(row, &id)| Target { row, id });
        let targets: Vec<Target> = targets.collect();
        for PlanCase { plan: text, nll } in &golden.plans {
            let scores = session.score(&plan(text), &Batch::new([&golden.ids[..]]), &targets).unwrap();
            for (score, want) in scores.iter().zip(nll) {
                assert!((score.nll() - want).abs() <= gate, "{precision} {text}: {} {want}", score.nll());
            }
        }
    }
}

#[test]
fn the_identity_changes_no_bit() {
    let ids = ids(20);
    for precision in [Precision::F32, Precision::Bf16, Precision::F64] {
        let mut session = bridged(precision);
        let intact = logit_bits(&mut session, "0..12", &ids);
        for text in [
            "0..6,bridge(6:6,same),6..12",
            "bridge(0:0,same),0..12,bridge(12:12,same)",
            "0..3,(3,bridge(4:4,same)),4..12",
        ] {
            assert_eq!(logit_bits(&mut session, text, &ids), intact, "{precision} {text}");
        }
        // A product with a power of two is exact, and so is the way back: no sum leaves a trace.
        assert_eq!(logit_bits(&mut session, "0..6,bridge(6:6,double),bridge(6:6,half),6..12", &ids), intact);
        // A = I that leaves layers out is the plan without them.
        let without = logit_bits(&mut session, "0..6,11", &ids);
        assert_eq!(logit_bits(&mut session, "0..6,bridge(6:11,same),11", &ids), without, "{precision}");
        assert_ne!(logit_bits(&mut session, "0..6,bridge(6:11,rule),11", &ids), without);
    }
}

/// A map is no weight: bf16 sessions multiply by it in f32, row by row alike.
#[test]
fn a_map_is_crossed_in_f32_and_row_by_row() {
    let ids = ids(40);
    let states = |precision: Precision, ids: &[u32]| {
        let mut session = bridged(precision);
        let mut states = Vec::new();
        let batch = Batch::new([ids]);
        session.residuals(&plan("bridge(0:1,rule)"), &batch, |residual| states.push(residual.hidden.to_vec())).unwrap();
        states.pop().unwrap()
    };
    let all = states(Precision::F32, &ids);
    assert_eq!(states(Precision::Bf16, &ids), all);
    assert_eq!(states(Precision::F32, &ids[..7])[..], all[..7 * 128]);
    let exact = states(Precision::F64, &ids);
    assert!(all.iter().zip(&exact).all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + b.abs())));
    // And the same of states from anywhere.
    let mut session = bridged(Precision::F32);
    let mut taken = Vec::new();
    session.residuals(&plan("none"), &Batch::new([&ids[..]]), |r| taken.extend_from_slice(r.hidden)).unwrap();
    session.cross(&rule(), &mut taken).unwrap();
    assert_eq!(taken, all);
    assert!(matches!(session.cross(&rule(), &mut [0.0; 5]), Err(ForwardError::States { .. })));
    let narrow = session.cross(&LinearMap::identity(64), &mut [0.0; 128]).unwrap_err();
    assert_eq!(narrow.to_string(), "a map of 64 elements: rows have 128");
}

#[test]
fn decoding_with_a_cache_equals_the_whole_text() {
    let (ids, plan) = (ids(12), plan("0..4,bridge(4:9,rule),9..12"));
    for precision in [Precision::F32, Precision::Bf16, Precision::F64] {
        let mut session = bridged(precision);
        let mut cache = Cache::new(&session, &plan, ids.len()).unwrap();
        for (count, id) in ids.iter().enumerate() {
            let step = session.extend(&plan, &mut cache, &[*id]).unwrap().to_vec();
            let whole = session.logits(&plan, &ids[..=count]).unwrap();
            assert!(step.iter().zip(whole).all(|(a, b)| a.to_bits() == b.to_bits()), "{precision}, token {count}");
        }
    }
}

#[test]
fn sweeps_give_what_one_pass_each_gives() {
    let texts = [
        "0..12",
        "0..6,bridge(6:11,rule),11",
        // The same from position 1 on: rows before are the other plan's.
        "0..3,3[zero mlp @1],4..6,bridge(6:11,rule),11",
        "0..6,bridge(6:12,rule)",
        "0..6,bridge(6:12,half),bridge(12:12,rule)",
        "0..4,(4|bridge(4:5,rule)|none),5..12",
        "bridge(0:3,rule)*2,3..12",
        "0..11,11a,bridge(12:12,rule)",
        "bridge(0:12,rule)",
        "0..5,5[zero h1],bridge(6:11,rule),11m",
    ];
    let plans: Vec<Plan> = texts.iter().map(|text| bridges().bind(&plan(text)).unwrap()).collect();
    let scored = [(20, 1..20), (7, 5..7), (33, 30..33), (5, 1..3)];
    let examples: Vec<Example> = scored
        .into_iter()
        .enumerate()
        .map(|(i, (tokens, scored))| Example::new(i as u64, ids(tokens), scored))
        .collect();
    for (precision, memory) in [(Precision::F32, 64 << 20), (Precision::F32, 30 << 20), (Precision::Bf16, 64 << 20)] {
        let mut session = bridged(precision);
        let options = SweepOptions { memory, divergence: true, token_losses: true };
        let sweep = Sweep::new(plans.clone(), &session.model().plan_shape(), options).unwrap();
        let mut rows: Vec<Row> = Vec::new();
        let tell = &mut |event: Event<'_>| {
            if let Event::Rows(new) = event {
                rows.extend_from_slice(new);
            }
            ControlFlow::Continue(())
        };
        sweep.run(&mut session, examples.clone(), &|_, _| false, tell).unwrap();
        assert_eq!(rows.len(), plans.len() * examples.len());
        for row in &rows {
            let example = &examples[row.example as usize];
            let targets: Vec<Target> =
                example.scored.clone().map(|i| Target { row: i - 1, id: example.ids[i] }).collect();
            let alone = session.score(&plans[row.plan], &Batch::new([&example.ids[..]]), &targets).unwrap();
            let alone: Vec<u64> = alone.iter().map(|score| score.nll().to_bits()).collect();
            let swept: Vec<u64> = row.token_nll.iter().map(|loss| loss.to_bits()).collect();
            assert_eq!(swept, alone, "{precision}, {memory}: {}", texts[row.plan]);
        }
        // What they share is counted: the first six blocks once.
        assert!(sweep.cost().shared.blocks() < sweep.cost().naive.blocks());
    }
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let ids = ids(5);
    let mut narrow = Shortcuts::default();
    narrow.insert(3, 7, LinearMap::identity(64));
    let mut bridges = bridges();
    bridges.insert("thin", Arc::new(narrow));
    let mut session = session(Precision::F32);
    session.set_bridges(bridges.clone());
    for (text, wanted) in [
        ("0..6,bridge(6:11,fit),11", "bridge(6:11,fit): there is no bridge fit"),
        ("(0|bridge(2:7,thin))", "bridge(2:7,thin): thin has no map from 2 to 7, but 3:7"),
        ("bridge(3:7,thin)", "bridge(3:7,thin): its map is 64 wide, the model 128"),
    ] {
        let error = session.logits(&plan(text), &ids).unwrap_err();
        assert!(matches!(error, ForwardError::Bridge { .. }) && error.to_string() == wanted, "{error}");
        let options = SweepOptions { memory: 64 << 20, divergence: false, token_losses: false };
        let sweep = Sweep::new(vec![plan(text)], &session.model().plan_shape(), options).unwrap();
        let swept = sweep.run(&mut session, [], &|_, _| false, &mut |_| ControlFlow::Continue(()));
        assert_eq!(swept.unwrap_err().to_string(), wanted);
    }
    // A plan that is bound to some numbers takes no others.
    let bound = bridges.bind(&plan("bridge(0:12,rule)")).unwrap();
    assert_eq!(bound.to_string(), "bridge(0:12,rule)");
    assert_ne!(bound, plan("bridge(0:12,rule)"));
    assert!(session.logits(&bound, &ids).is_ok());
    bridges.insert("rule", everywhere(&scaling(2.0)));
    session.set_bridges(bridges.clone());
    let other = "bridge(0:12,rule): the plan was made for other numbers under this name";
    assert_eq!(session.logits(&bound, &ids).unwrap_err().to_string(), other);
    assert_eq!(bridges.bind(&bound).unwrap_err().to_string(), other);
}

#[cfg(feature = "fit")]
mod fits {
    use super::*;
    use lesion::bridge::{Evaluation, Reading, RidgeFit, Sample, in_groups};
    use lesion::measure::{MeasureError, logit_lens, tuned_lens};

    #[derive(serde::Deserialize)]
    pub(super) struct Fits {
        lambda: f64,
        at: Vec<[usize; 2]>,
        pairs: Vec<Fit>,
    }

    #[derive(serde::Deserialize)]
    struct Fit {
        from: usize,
        to: usize,
        weight: Vec<f64>,
        bias: Vec<f64>,
        weight_norm: f64,
        bias_norm: f64,
        bridge: Read,
        identity: Read,
    }

    #[derive(serde::Deserialize)]
    struct Read {
        r2: f64,
        r2_with_first: f64,
        precision_at_1: f64,
        precision_at_10: f64,
        divergence: f64,
        nll: f64,
    }

    /// What is fitted to, and what is held out.
    fn samples() -> (Vec<Sample>, Vec<Sample>) {
        let ids = |w: usize| (0..64).map(|i| ((37 * i + 101 * w + 5) % 2000) as u32).collect();
        let (held, fitted): (Vec<usize>, Vec<usize>) = (0..12).partition(|w| w % 3 == 2);
        let of = |numbers: Vec<usize>| numbers.into_iter().map(|w| Sample::whole(ids(w))).collect();
        (of(fitted), of(held))
    }

    fn fit(session: &mut Session, golden: &Fits) -> Shortcuts {
        let pairs: Vec<(usize, usize)> = golden.pairs.iter().map(|pair| (pair.from, pair.to)).collect();
        let mut fit = RidgeFit::new(session, &pairs).unwrap();
        for group in in_groups(&samples().0) {
            fit.add(session, group).unwrap();
        }
        fit.solve(golden.lambda).unwrap()
    }

    fn norm(x: &[f32]) -> f64 {
        x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn maps_are_those_of_numpy() {
        let golden = golden().fits;
        // States are f32 either way; f32 passes differ in their last bits, which the inverse enlarges.
        for (precision, gate) in [(Precision::F64, 2e-6), (Precision::F32, 2e-3)] {
            let shortcuts = fit(&mut session(precision), &golden);
            for pair in &golden.pairs {
                let map = shortcuts.get(pair.from, pair.to).unwrap();
                let close = |a: f64, b: f64| (a - b).abs() <= gate * (1.0 + b.abs());
                let at = format!("{precision} {}:{}", pair.from, pair.to);
                for (([i, j], weight), bias) in golden.at.iter().zip(&pair.weight).zip(&pair.bias) {
                    let (a, b) = (f64::from(map.weight()[i * 128 + j]), f64::from(map.bias()[*i]));
                    assert!(close(a, *weight) && close(b, *bias), "{at} [{i}, {j}]: {a} {weight}, {b} {bias}");
                }
                assert!(close(norm(map.weight()), pair.weight_norm) && close(norm(map.bias()), pair.bias_norm), "{at}");
            }
        }
    }

    #[test]
    fn readings_are_those_of_the_reference() {
        let golden = golden().fits;
        let mut session = session(Precision::F64);
        let shortcuts = fit(&mut session, &golden);
        let mut evaluation = Evaluation::new(&session, shortcuts).unwrap();
        let own = {
            session.set_bridges(bridges());
            session.bridges().clone()
        };
        for group in in_groups(&samples().1) {
            evaluation.add(&mut session, group).unwrap();
        }
        assert_eq!(session.bridges(), &own, "the session has its own again");
        let reports = evaluation.finish().unwrap();
        let close = |found: &Reading, want: &Read, at: &str| {
            for (name, found, want) in [
                ("r2", found.r2, want.r2),
                ("r2_with_first", found.r2_with_first, want.r2_with_first),
                ("precision@1", found.precision_at_1, want.precision_at_1),
                ("precision@10", found.precision_at_10, want.precision_at_10),
                ("divergence", found.divergence, want.divergence),
                ("nll", found.nll, want.nll),
            ] {
                assert!((found - want).abs() <= 1e-5 * (1.0 + want.abs()), "{at} {name}: {found} {want}");
            }
        };
        let sorted = |a: &&Fit, b: &&Fit| (a.from, a.to).cmp(&(b.from, b.to));
        let mut pairs: Vec<&Fit> = golden.pairs.iter().collect();
        pairs.sort_by(sorted);
        for (report, pair) in reports.iter().zip(pairs) {
            assert_eq!((report.from, report.to, report.rows), (pair.from, pair.to, 4 * 63));
            close(&report.bridge, &pair.bridge, "bridge");
            close(&report.identity, &pair.identity, "identity");
        }
        // From a layer to itself, A = I is the intact model.
        let own = &reports.iter().find(|report| report.from == report.to).unwrap();
        assert_eq!((own.identity.r2, own.identity.divergence, own.identity.precision_at_1), (1.0, 0.0, 1.0));
        assert_eq!(own.identity.nll, own.intact_nll);
    }

    #[test]
    fn a_tuned_lens_reads_as_its_plans_do() {
        let ids = ids(9);
        for precision in [Precision::F32, Precision::F64] {
            let mut session = bridged(precision);
            let lens = everywhere(&rule());
            let intact = plan("0..12");
            let grid = tuned_lens(&mut session, &intact, &ids, &lens).unwrap();
            for (layer, cells) in grid.iter().enumerate() {
                let text = format!("keep-first {layer}");
                let before = plan(&text).to_string();
                let bridged = match layer {
                    0 => plan("bridge(0:12,rule)"),
                    _ => plan(&format!("{before},bridge({layer}:12,rule)")),
                };
                let targets: Vec<Target> = ids[1..].iter().enumerate().map(|(row, &id)| Target { row, id }).collect();
                let scores = session.score(&bridged, &Batch::new([&ids[..]]), &targets).unwrap();
                for (cell, score) in cells.iter().zip(scores) {
                    assert!((cell.prediction.nll - score.nll()).abs() < 1e-5, "{precision} {layer}");
                }
            }
        }
        let mut session = bridged(Precision::F32);
        let same = everywhere(&LinearMap::identity(128));
        let (lens, logit) = (
            tuned_lens(&mut session, &plan("0..5,bridge(5:9,half),9..12"), &ids, &same).unwrap(),
            logit_lens(&mut session, &plan("0..5,bridge(5:9,half),9..12"), &ids).unwrap(),
        );
        let bits = |grid: &[Vec<lesion::measure::LensCell>]| format!("{grid:?}");
        assert_eq!(bits(&lens), bits(&logit), "A = I is the logit lens");
        let mut some = Shortcuts::default();
        some.insert(0, 12, rule());
        for (text, wanted) in [
            ("0..2", "step 0: the lens has no map from 1 to 12"),
            ("(0|1)", "step (0|1): the lens has no map from within a layer to 12"),
            ("0a", "step 0a: the lens has no map from within a layer to 12"),
        ] {
            let refused = tuned_lens(&mut session, &plan(text), &ids, &some).unwrap_err();
            assert!(
                matches!(refused, MeasureError::NoMap { .. }) && refused.to_string().starts_with(wanted),
                "{refused}"
            );
        }
    }
}
