//! Grids against an independent reference (transformers with hooks, in f64: see `tests/data/golden_inside.py`), what restores
//! nothing or everything, and what is refused.

use super::*;
use crate::forward::SessionOptions;
use crate::model::Model;
use crate::plan::Part;

#[derive(serde::Deserialize)]
struct Golden {
    prompts: std::collections::BTreeMap<String, Vec<u32>>,
    grid: GoldenGrid,
}

#[derive(serde::Deserialize)]
struct GoldenGrid {
    clean: f64,
    corrupted: f64,
    a: u32,
    b: u32,
    #[serde(flatten)]
    sites: std::collections::BTreeMap<String, Vec<Vec<f64>>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/data/golden_inside.json")).unwrap()
}

fn session(precision: Precision) -> Session {
    let options = SessionOptions { threads: 2, precision, ..SessionOptions::default() };
    Session::new(&Model::mini().unwrap(), options).unwrap()
}

fn plan(text: &str) -> Plan {
    Model::mini().unwrap().plan(text).unwrap()
}

fn intact(ids: &[u32]) -> Run {
    Run::new(ids.to_vec(), plan("0..12"))
}

fn limits() -> Limits<'static> {
    Limits { memory: 100_000_000, stop: &|| false, keep: None }
}

/// The clean and the corrupted prompt, and the difference that tells them apart.
fn pair() -> (Run, Run, Metric) {
    let Golden { prompts, grid } = golden();
    let metric = Metric::LogitDifference { answer: grid.a, other: grid.b };
    (intact(&prompts["clean"]), intact(&prompts["corrupted"]), metric)
}

const HEADS: Cells = Cells::Heads { positions: None };

#[test]
fn grids_agree_with_transformers() {
    let GoldenGrid { clean, corrupted, sites, .. } = golden().grid;
    let (clean_run, corrupted_run, metric) = pair();
    let mut session = session(Precision::F32);
    for site in [Site::Pre, Site::Z, Site::Attn, Site::Mlp] {
        let cells = if site == Site::Z { HEADS } else { Cells::Positions(0..15) };
        let grid = PatchGrid::new(clean_run.clone(), corrupted_run.clone(), site, cells, Direction::Denoise).unwrap();
        let found = grid.run(&mut session, &metric, limits()).unwrap();
        assert!((found.clean - clean).abs() < 1e-3 && (found.corrupted - corrupted).abs() < 1e-3);
        let expected = &sites[site.hook()];
        assert_eq!((found.values.len(), found.values[0].len()), (expected.len(), expected[0].len()));
        for (a, b) in found.values.iter().flatten().zip(expected.iter().flatten()) {
            assert!((a - b).abs() < 1e-3, "{site:?}: {a} {b}");
        }
        let score = found.score(found.values[10][1]);
        assert!((score - (expected[10][1] - corrupted) / (clean - corrupted)).abs() < 1e-4, "{score}");
        assert!(found.cost.shared < found.cost.naive);
    }
}

#[test]
fn what_is_the_same_changes_no_bit() {
    let (clean, corrupted, metric) = pair();
    let mut session = session(Precision::F32);
    let mut run = |a: &Run, b: &Run, site, cells: &Cells, direction| {
        let grid = PatchGrid::new(a.clone(), b.clone(), site, cells.clone(), direction).unwrap();
        grid.run(&mut session, &metric, limits()).unwrap()
    };
    let own = run(&clean, &clean, Site::Z, &HEADS, Direction::Denoise);
    assert!(own.values.iter().flatten().chain([&own.corrupted]).all(|value| value.to_bits() == own.clean.to_bits()));
    assert!(!own.is_resolved() && own.score(own.clean).is_nan(), "nothing is divided by 0");
    // A prompt up to which nothing differs, and one behind which nothing is read.
    let denoised = run(&clean, &corrupted, Site::Pre, &Cells::Positions(0..15), Direction::Denoise);
    assert!(denoised.values.iter().all(|row| row[..10].iter().all(|value| *value == denoised.corrupted)));
    assert_eq!((denoised.values[0][10], denoised.score(denoised.values[0][10])), (denoised.clean, 1.0));
    // The other way round it is the other run.
    let noised = run(&clean, &corrupted, Site::Pre, &Cells::Positions(0..15), Direction::Noise);
    assert_eq!((noised.clean, noised.corrupted), (denoised.clean, denoised.corrupted));
    assert_eq!((noised.values[0][10], noised.score(noised.values[0][10])), (noised.corrupted, 0.0));
    assert_eq!(noised.values[0][3], noised.clean);
}

#[test]
fn plans_corrupt_too() {
    let (clean, _, metric) = pair();
    let mut session = session(Precision::F32);
    let corrupted = Run { plan: plan("0..5,(6|7),8..11,11*2"), ..clean.clone() };
    let grid = |site, direction| PatchGrid::new(clean.clone(), corrupted.clone(), site, HEADS, direction);
    let found = grid(Site::Z, Direction::Denoise).unwrap().run(&mut session, &metric, limits()).unwrap();
    let places: Vec<String> = found.rows.iter().map(|row| row.address.to_string()).collect();
    assert_eq!(places.len(), 12);
    assert_eq!(places[5..8], ["steps.5.0", "steps.5.1", "steps.6"]);
    assert_eq!(found.rows[11].occurrence, 1);
    // Into the clean run there is nothing to put of a layer that ran twice, or not at all.
    let found = grid(Site::Z, Direction::Noise).unwrap().run(&mut session, &metric, limits()).unwrap();
    assert_eq!(found.rows.iter().map(|row| row.layer).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]);
    let halves = Run { plan: plan("0..12m"), ..clean.clone() };
    let grid = PatchGrid::new(clean.clone(), halves, Site::Z, HEADS, Direction::Denoise).unwrap();
    let nothing = grid.run(&mut session, &metric, limits()).unwrap_err();
    assert!(nothing.to_string().contains("nothing passes z"), "{nothing}");
}

#[test]
fn answers_of_several_tokens_are_scored_whole() {
    let (clean, corrupted, _) = pair();
    let mut session = session(Precision::F32);
    let answer = vec![826, 12, 282];
    let metric = Metric::Nll { answer: answer.clone() };
    let cells = Cells::Positions(0..15);
    let grid = PatchGrid::new(clean.clone(), corrupted, Site::Pre, cells, Direction::Denoise).unwrap();
    let found = grid.run(&mut session, &metric, limits()).unwrap();
    let all = [clean.ids, answer].concat();
    let losses = crate::measure::token_losses(&mut session, &plan("0..12"), &[&all]).unwrap().concat();
    assert!((found.clean - losses[14..].iter().sum::<f64>()).abs() < 1e-9);
    assert_eq!(found.values[0][10], found.clean, "all of the difference is in one token");
}

fn spain() -> Trace {
    let ids = Model::mini().unwrap().encode("The capital of Spain is").unwrap();
    let answer = Model::mini().unwrap().encode(" Madrid").unwrap()[1..].to_vec();
    Trace {
        run: intact(&ids),
        answer,
        subject: 4..5,
        sigma: noise_level(&Model::mini().unwrap()),
        seeds: 3,
        site: Site::Post,
        window: 1,
        positions: 0..ids.len(),
    }
}

#[test]
fn traces_restore_all_or_nothing_where_they_must() {
    let mut session = session(Precision::F32);
    let mut run = |trace: Trace| trace.run(&mut session, limits()).unwrap();
    let silent = run(Trace { sigma: 0.0, ..spain() });
    let effects = || silent.cells.iter().flatten().map(|cell| cell.effect);
    assert!(effects().chain([silent.total]).all(|e| (e.value, e.low, e.high) == (0.0, 0.0, 0.0)));
    let found = run(spain());
    assert!(found.total.value > 0.1, "{found:?}");
    assert_eq!((found.cells.len(), found.cells[0].len()), (12, 6));
    // The state that the answer is read from, and the subject's own before anything has read it.
    assert_eq!(found.cells[11][5].restored, found.clean);
    assert_eq!(found.cells[11][5].effect, found.total);
    let early = run(Trace { site: Site::Pre, ..spain() });
    assert_eq!(early.cells[0][4].restored, early.clean);
    // Tokens before the subject were never noised.
    assert!(found.cells.iter().all(|row| row[..4].iter().all(|cell| cell.effect.value == 0.0)));
    assert_eq!(found.noised, early.noised, "the same seeds are the same noise");
    let wide = run(Trace { window: 24, site: Site::Mlp, ..spain() });
    assert!(
        wide.cells.iter().all(|row| row.iter().map(|cell| cell.restored).eq(wide.cells[0].iter().map(|c| c.restored)))
    );
    assert_ne!(wide.cells[0][4], run(Trace { site: Site::Mlp, ..spain() }).cells[0][4]);
    let one = run(Trace { seeds: 1, ..spain() });
    assert!(one.total.value.is_finite() && one.total.low.is_nan());
}

#[test]
fn windows_are_cut_off_at_the_ends() {
    let around = |window, index| Trace { window, ..spain() }.window_around(index, 12);
    assert_eq!([around(1, 0), around(1, 11), around(3, 5), around(4, 5)], [0..1, 11..12, 4..7, 3..7]);
    assert_eq!([around(10, 2), around(10, 11), around(usize::MAX, 6)], [0..7, 6..12, 0..12]);
}

#[test]
fn what_can_not_be_is_refused() {
    let (clean, corrupted, metric) = pair();
    let refused = |grid: Result<PatchGrid, InsideError>| grid.unwrap_err().to_string();
    let new = |site, cells| PatchGrid::new(clean.clone(), corrupted.clone(), site, cells, Direction::Denoise);
    let longer = Run { ids: [&clean.ids[..], &[1]].concat(), ..clean.clone() };
    assert_eq!(
        refused(PatchGrid::new(clean.clone(), longer, Site::Z, HEADS, Direction::Denoise)),
        "the clean run has 15 tokens, the corrupted one 16: patching takes as many"
    );
    assert_eq!(refused(new(Site::Pre, Cells::Positions(3..16))), "positions 3..16 of 15 tokens");
    assert_eq!(refused(new(Site::Z, Cells::Heads { positions: Some(15..16) })), "positions 15..16 of 15 tokens");
    assert_eq!(refused(new(Site::Mlp, HEADS)), "mlp is not divided into heads: q, k, v, pattern and z are");
    let none = Run { ids: Vec::new(), ..clean.clone() };
    assert!(refused(PatchGrid::new(none.clone(), none, Site::Z, HEADS, Direction::Denoise)).contains("without tokens"));

    let mut session = session(Precision::F32);
    let mut run = |metric: Metric, limits: Limits<'_>| {
        new(Site::Z, HEADS).unwrap().run(&mut session, &metric, limits).unwrap_err()
    };
    assert!(matches!(run(Metric::Nll { answer: vec![] }, limits()), InsideError::NoAnswer));
    let unknown = run(Metric::Nll { answer: vec![2048] }, limits());
    assert!(unknown.to_string().contains("2048"), "{unknown}");
    assert!(matches!(run(metric.clone(), Limits { stop: &|| true, ..limits() }), InsideError::Cancelled));
    assert!(matches!(
        run(metric.clone(), Limits { memory: 1_000, ..limits() }),
        InsideError::Sweep(SweepError::Memory { .. })
    ));

    let mut trace = |trace: Trace| trace.run(&mut session, limits()).unwrap_err().to_string();
    let with = |text: &str| Trace { run: Run { plan: plan(text), ..spain().run }, ..spain() };
    assert_eq!(trace(Trace { subject: 4..7, ..spain() }), "positions 4..7 of 6 tokens");
    assert!(trace(Trace { sigma: f64::NAN, ..spain() }).contains("σ = NaN"));
    assert!(trace(Trace { sigma: -1.0, ..spain() }).contains("σ = -1"));
    assert!(trace(Trace { seeds: 0, ..spain() }).contains("seeds: 0"));
    assert!(trace(Trace { window: 0, ..spain() }).contains("window: 0"));
    assert!(trace(Trace { seeds: u64::MAX, ..spain() }).contains("plans of 12 blocks"));
    assert!(trace(with("(0|1),2..12")).contains("begins with a group"));
    assert!(trace(with("none")).contains("begins with none"));
    assert!(trace(with("0..3,3*2,4..12")).contains("layer 3 runs 2 times"));
    assert!(trace(Trace { answer: vec![], ..spain() }).contains("without tokens"));
}

#[test]
fn changes_join_those_that_are_there() {
    let changed = plan("0,(1[zero h1]|2m),3");
    let zero =
        |site| crate::plan::Modifier { action: crate::plan::Action::Zero, site, units: vec![], positions: Some(2..3) };
    let added = changed.with_modifiers(&[(1, zero(Site::Mlp)), (1, zero(Site::Pre)), (3, zero(Site::Z))]).unwrap();
    assert_eq!(added.to_string(), "0,(1[zero pre @2,zero h1,zero mlp @2]|2m),3[zero z @2]");
    assert_eq!(changed.executions().nth(2).unwrap().execution.part, Part::Mlp);
    assert!(
        changed.with_modifiers(&[(2, zero(Site::Z))]).unwrap_err().to_string().contains("2m"),
        "no attention there"
    );
}

#[test]
fn paths_agree_with_transformers() {
    #[derive(serde::Deserialize)]
    struct Paths {
        corrupted: f64,
        cases: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        receiver: serde_json::Value,
        through: String,
        values: Vec<Vec<f64>>,
    }
    let golden: Paths = serde_json::from_str(include_str!("../../tests/data/golden_path.json")).unwrap();
    let (clean, corrupted, metric) = pair();
    for (precision, within) in [(Precision::F32, 1e-3), (Precision::F64, 1e-5)] {
        let mut session = session(precision);
        // f64 goes plan by plan: one case of each kind.
        let cases = golden.cases.iter().skip(if precision == Precision::F64 { 3 } else { 0 });
        for Case { receiver, through, values } in cases {
            let end = match receiver.get("site").and_then(serde_json::Value::as_str) {
                None => Receiver::Logits,
                Some(site) => Receiver::Heads {
                    layer: receiver["layer"].as_u64().unwrap() as usize,
                    site: Site::ALL.into_iter().find(|known| known.word() == site).unwrap(),
                    heads: serde_json::from_value(receiver["heads"].clone()).unwrap(),
                },
            };
            let through = if through == "mlps" { Through::Mlps } else { Through::Nothing };
            let (clean, corrupted) = (clean.ids.clone(), corrupted.ids.clone());
            let paths = PathPatch::new(clean, corrupted, plan("0..12"), end, through, Direction::Denoise).unwrap();
            let grid = paths.run(&mut session, &metric, limits()).unwrap();
            assert!((grid.corrupted - golden.corrupted).abs() < within);
            assert_eq!((grid.values.len(), grid.columns.len()), (values.len(), 8), "{receiver}");
            for (row, (ours, theirs)) in grid.values.iter().zip(values).enumerate() {
                for (head, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                    assert!((ours - theirs).abs() < within, "{receiver} {through:?} {row}.{head}: {ours}, {theirs}");
                }
            }
        }
    }
}

#[test]
fn a_path_between_equal_runs_changes_nothing() {
    let (clean, _, metric) = pair();
    let receiver = Receiver::Heads { layer: 6, site: Site::K, heads: vec![2] };
    for receiver in [Receiver::Logits, receiver] {
        let ids = || clean.ids.clone();
        let paths = PathPatch::new(ids(), ids(), plan("0..12"), receiver, Through::Nothing, Direction::Noise).unwrap();
        let grid = paths.run(&mut session(Precision::F32), &metric, limits()).unwrap();
        assert!(grid.values.iter().flatten().all(|value| value.to_bits() == grid.clean.to_bits()));
    }
}

#[test]
fn paths_that_lead_nowhere_are_refused() {
    let (clean, corrupted, _) = pair();
    let new = |clean: &[u32], text: &str, receiver: Receiver| {
        let (ids, plan) = (corrupted.ids.clone(), plan(text));
        PathPatch::new(clean.to_vec(), ids, plan, receiver, Through::Mlps, Direction::Noise).map(|_| ()).unwrap_err()
    };
    let heads = |layer, site, heads: &[usize]| Receiver::Heads { layer, site, heads: heads.to_vec() };
    let clean = &clean.ids[..];
    assert!(matches!(new(&clean[1..], "0..12", Receiver::Logits), InsideError::Lengths { .. }));
    assert!(matches!(new(clean, "0..3,(3|4),5..12", Receiver::Logits), InsideError::NoPath { .. }));
    assert!(matches!(new(clean, "0..5,3..12", Receiver::Logits), InsideError::NoPath { .. }));
    assert!(matches!(new(clean, "none", Receiver::Logits), InsideError::NoSender { .. }));
    assert!(matches!(new(clean, "0..12", heads(0, Site::Q, &[1])), InsideError::NoSender { .. }));
    assert!(matches!(new(clean, "0..6,7..12", heads(6, Site::Q, &[1])), InsideError::NoReceiving { layer: 6, .. }));
    assert!(matches!(new(clean, "0..12", heads(6, Site::Z, &[1])), InsideError::NoReceiver { site: Site::Z }));
    assert!(matches!(new(clean, "0..12", heads(6, Site::V, &[])), InsideError::None { .. }));
    let (ids, plan) = (corrupted.ids.clone(), plan("0..12"));
    let far = PathPatch::new(ids.clone(), ids, plan, heads(6, Site::V, &[8]), Through::Mlps, Direction::Noise).unwrap();
    let (_, _, metric) = pair();
    let refused = far.run(&mut session(Precision::F32), &metric, limits()).unwrap_err();
    assert!(matches!(refused, InsideError::Step(_)), "{refused}");
}
