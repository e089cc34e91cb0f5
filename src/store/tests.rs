//! Opening, recording and reading, with made-up results.

use super::*;
use crate::forward::Sampling;
use crate::plan::{Plan, PlanExpr, PlanShape};
use crate::sweep::{Example, Row};
use rusqlite::Connection;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

const SHAPE: PlanShape = PlanShape::gpt2(4, 2);

pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.path().join("store.db")
    }

    pub(super) fn store(&self) -> Store {
        Store::open(&self.file()).unwrap()
    }
}

pub(super) fn setting() -> Setting {
    Setting {
        model: ModelIdentity {
            weights: "83".repeat(32),
            tokenizer: Some("9b".repeat(32)),
            name: "toy".to_owned(),
            n_layer: 4,
            n_head: 2,
            vocab_size: 100,
        },
        arithmetic: "f32".to_owned(),
        numerics_version: 1,
    }
}

fn plan(text: &str) -> Plan {
    text.parse::<PlanExpr>().unwrap().resolve(&SHAPE).unwrap()
}

/// Three plans and, to compare with, the intact one.
pub(super) fn plans() -> Vec<Plan> {
    ["0..4", "0..2", "none", "0..4"].map(plan).to_vec()
}

pub(super) fn example(number: u64) -> Example {
    Example::new(number, vec![0, 7, 8, number as u32, 9, 10 + number as u32 % 3], 4..6)
}

pub(super) fn source(number: u64) -> Source {
    let task = if number.is_multiple_of(2) { "sums" } else { "capitals" };
    Source {
        task: Some(task.to_owned()),
        number: number / 2,
        prompt: Some(format!("prompt {number}")),
        answer: Some(format!(" answer {number}")),
    }
}

/// Plan 1 is NaN on example 5, infinite on example 6.
pub(super) fn row(plan: usize, example: u64) -> Row {
    let plan_of = if plan == 3 { 0 } else { plan };
    let nll = match (plan_of, example) {
        (1, 5) => f64::NAN,
        (1, 6) => f64::INFINITY,
        _ => 0.1 + plan_of as f64 * 2.0 + example as f64 / 8.0,
    };
    Row {
        plan,
        example,
        tokens: 2,
        nll,
        top1: if plan_of == 0 { 2 } else { 1 },
        first_rank: plan_of as u32 * 10,
        entropy: 1.5,
        divergence: Some(if plan_of == 0 { -0.0 } else { 0.25 }),
        non_finite: u32::from(!nll.is_finite()),
        token_nll: Vec::new(),
    }
}

const COMMAND: [&str; 3] = ["sweep", "--family", "keep-first"];

pub(super) fn begin(store: Store, wanted: Wanted, name: Option<&str>) -> Result<Recorder, StoreError> {
    begin_on(store, wanted, name, "avx2")
}

pub(super) fn begin_on(store: Store, wanted: Wanted, name: Option<&str>, isa: &str) -> Result<Recorder, StoreError> {
    let command = COMMAND.map(str::to_owned);
    let observation = NewObservation {
        isa,
        threads: 2,
        model: "toy",
        commit: "",
        host: "here",
        command: &command,
        began: Instant::now(),
    };
    let spec = json!({"families": ["keep-first"]});
    let experiment = NewExperiment { name, kind: "sweep", spec, intact: 3, plans: 3 };
    Recorder::begin(store, &setting(), &plans(), wanted, &observation, Some(&experiment))
}

pub(super) const KL: Wanted = Wanted { divergence: true, token_losses: false };

/// A store with eight examples of two tasks, all plans run on all.
pub(super) fn filled(folder: &Folder) -> (Store, String) {
    let mut recorder = begin(folder.store(), KL, None).unwrap();
    for number in 0..8 {
        assert!(recorder.expect(&example(number), source(number)).unwrap().is_empty());
        let rows: Vec<Row> = (0..4).map(|plan| row(plan, number)).collect();
        recorder.append(&rows).unwrap();
        recorder.sync().unwrap();
        recorder.forget(number);
    }
    let name = recorder.experiment().unwrap().to_owned();
    (recorder.finish(Some(8)).unwrap(), name)
}

/// NaN is equal to itself here.
fn same(a: &impl std::fmt::Debug, b: &impl std::fmt::Debug) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

pub(super) fn results(store: &Store, experiment: &Experiment) -> Vec<StoredRow> {
    let mut rows = Vec::new();
    let take = |row| {
        rows.push(row);
        Ok::<(), StoreError>(())
    };
    store.results(experiment, take).unwrap();
    rows
}

pub(super) fn count(store: &Store, table: &str) -> i64 {
    store.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn what_is_recorded_comes_back() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    store.check_integrity().unwrap();
    drop(store);
    let store = Store::read(&folder.file()).unwrap();
    let experiment = store.experiment(&name).unwrap();
    assert_eq!(experiment, store.experiment("sweep-").unwrap(), "the beginning of a name is enough");
    assert_eq!((&*experiment.model, experiment.n_layer, &*experiment.arithmetic), ("toy", 4, "f32"));
    assert_eq!(experiment.command, COMMAND);
    assert_eq!(experiment.spec["families"][0], "keep-first");
    let texts: Vec<&str> = experiment.plans.iter().map(|plan| plan.text.as_str()).collect();
    assert_eq!((texts, &*experiment.intact.text), (vec!["0..4", "0..2", "none"], "0..4"));
    assert_eq!(experiment.plans[1].plan, plan("0..2"));
    let tasks: Vec<_> = experiment.tasks.iter().map(|task| (task.name.as_str(), task.examples)).collect();
    assert_eq!((tasks, experiment.expected_examples), (vec![("sums", 4), ("capitals", 4)], Some(8)));
    assert_eq!(experiment.observations.len(), 1);
    assert!(experiment.observations[0].seconds.is_some());

    let mut questions = Vec::new();
    let take = |question| {
        questions.push(question);
        Ok::<(), StoreError>(())
    };
    store.questions(&experiment, take).unwrap();
    let third = &questions[3];
    assert_eq!((third.example, third.task, third.number), (3, 1, 1));
    assert_eq!((third.prompt.as_deref(), third.answer.as_deref()), (Some("prompt 3"), Some(" answer 3")));
    assert_eq!((&third.prompt_ids[..], &third.answer_ids[..]), (&[0, 7, 8, 3][..], &[9, 10][..]));

    let rows = results(&store, &experiment);
    assert_eq!(rows.len(), 24);
    for stored in rows {
        let plan = stored.plan.unwrap();
        assert_eq!(stored.task, stored.example as usize % 2);
        let want = Row { plan: 0, example: 0, ..row(plan, stored.example) };
        assert!(same(&stored.row, &want), "{stored:?}");
        assert_eq!(stored.key, setting().run_key(&plans()[plan], &example(stored.example)));
    }
    let [listed] = &store.experiments().unwrap()[..] else { panic!("one experiment") };
    assert_eq!((listed.plans, listed.examples, listed.expected_examples), (3, 8, Some(8)));
}

#[test]
fn a_run_is_computed_once() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    let results = count(&store, "results");
    let mut again = begin(store, KL, None).unwrap();
    assert_eq!(again.experiment(), Some(&*name));
    for number in 0..8 {
        let there = again.expect(&example(number), source(number)).unwrap();
        let rows: Vec<Row> = there.iter().map(|(row, _)| row.clone()).collect();
        let want: Vec<Row> = (0..4).map(|plan| row(plan, number)).collect();
        assert!(same(&rows, &want), "{rows:?}");
        assert!(there.iter().all(|(_, isas)| isas[..] == ["avx2"]));
    }
    let unknown = Example::new(9, vec![1, 2, 3], 1..3);
    assert!(again.expect(&unknown, Source::default()).unwrap().is_empty());
    // The same results again, as of another process that computed them too.
    again.append(&[row(0, 0), row(1, 0)]).unwrap();
    let store = again.finish(None).unwrap();
    assert_eq!((count(&store, "results"), count(&store, "experiments")), (results, 1));
    assert_eq!(count(&store, "observations"), 2);
}

/// A row gains what was not measured before, and what is there stays.
#[test]
fn rows_gain_what_they_lack() {
    let folder = Folder::new();
    let with = |kl: bool, tokens: bool| Row {
        divergence: kl.then_some(0.5),
        token_nll: if tokens { vec![0.1, f64::NEG_INFINITY] } else { Vec::new() },
        ..row(1, 0)
    };
    let mut there = Vec::new();
    for (kl, tokens) in [(false, false), (true, false), (false, true), (true, true)] {
        let wanted = Wanted { divergence: kl, token_losses: tokens };
        let mut recorder = begin(folder.store(), wanted, None).unwrap();
        let known = recorder.expect(&example(0), source(0)).unwrap();
        there.push(known.len());
        match known.first() {
            Some((known, _)) => assert!(same(known, &with(kl, tokens)), "{known:?}"),
            None => recorder.append(&[with(kl, tokens)]).unwrap(),
        }
        recorder.finish(None).unwrap();
    }
    assert_eq!(there, [0, 0, 0, 1], "at last both are there");
}

/// Nothing is acknowledged before it is committed, and a commit takes a thousand rows at most.
#[test]
fn rows_are_committed_in_groups() {
    let folder = Folder::new();
    let mut recorder = begin(folder.store(), Wanted::default(), None).unwrap();
    let other = Store::read(&folder.file()).unwrap();
    for number in 0..500 {
        let _ = recorder.expect(&example(number), source(number)).unwrap();
    }
    recorder.sync().unwrap();
    let start = Instant::now();
    recorder.append(&[row(0, 0), row(1, 0)]).unwrap();
    if start.elapsed() < std::time::Duration::from_millis(100) {
        assert_eq!(count(&other, "results"), 0);
    }
    let rows: Vec<Row> = (1..500).flat_map(|number| (0..2).map(move |plan| row(plan, number))).collect();
    recorder.append(&rows).unwrap();
    assert_eq!(count(&other, "results"), 1_000);
    recorder.append(&[row(2, 7)]).unwrap();
    recorder.sync().unwrap();
    assert_eq!(count(&other, "results"), 1_001);
}

#[test]
fn names_of_experiments() {
    let folder = Folder::new();
    let named = begin(folder.store(), KL, Some("mine")).unwrap();
    let store = named.finish(None).unwrap();
    assert!(begin(store, KL, Some("mine")).is_ok(), "the same one goes on");
    let observation = NewObservation {
        isa: "avx2",
        threads: 2,
        model: "toy",
        commit: "",
        host: "",
        command: &[],
        began: Instant::now(),
    };
    let other = NewExperiment { name: Some("mine"), kind: "sweep", spec: json!({}), intact: 3, plans: 3 };
    let error = Recorder::begin(folder.store(), &setting(), &plans(), KL, &observation, Some(&other)).err().unwrap();
    assert!(matches!(error, StoreError::Taken { .. }), "{error}");
    assert_eq!(error.kind(), StoreErrorKind::Usage);
    for name in ["", " ", "a\nb"] {
        assert!(matches!(begin(folder.store(), KL, Some(name)), Err(StoreError::Query(_))), "{name:?}");
    }
    let error = folder.store().experiment("nothing").unwrap_err();
    assert_eq!(error.to_string(), "no experiment `nothing`: there are mine");
}

#[test]
fn completions_belong_to_the_experiments_that_ask_the_same() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    let mut recorder = begin(store, KL, None).unwrap();
    let sampling = Sampling::greedy(3);
    let prompt = &example(4).ids[..4];
    let said = |plan, text: &str| NewCompletion {
        plan,
        prompt: prompt.to_vec(),
        prompt_text: Some("prompt 4".to_owned()),
        sampling: sampling.clone(),
        ids: vec![5, 6],
        text: Some(text.to_owned()),
        finish: "length",
    };
    assert!(recorder.said(2, prompt, &sampling).unwrap().is_none());
    recorder.complete(said(2, " four")).unwrap();
    recorder.complete(said(1, " five")).unwrap();
    recorder.complete(said(2, " once is enough")).unwrap();
    recorder.sync().unwrap();
    let there = recorder.said(2, prompt, &sampling).unwrap().unwrap();
    assert_eq!((there.text.as_deref(), &there.prompt_ids[..], &there.plan), (Some(" four"), prompt, &plans()[2]));
    assert_eq!((there.computed_key(), &there.sampling), (there.key, &sampling));
    let store = recorder.finish(None).unwrap();
    let experiment = store.experiment(&name).unwrap();
    let completions = store.completions(&experiment).unwrap();
    let got: Vec<_> = completions.iter().map(|c| (c.plan, c.example, c.text.as_deref())).collect();
    assert_eq!(got, [(Some(1), 4, Some(" five")), (Some(2), 4, Some(" four"))]);
    assert_eq!(completions[0].sampling["max_tokens"], 3);
    assert_eq!(store.key(&completions[0].key.to_string()[..20]).unwrap(), completions[0].key);
}

#[test]
fn notes_cite_what_exists() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    let experiment = store.experiment(&name).unwrap();
    let key = setting().run_key(&plans()[1], &example(5));
    let note = |text: &str, runs: &[RunKey]| store.add_note(NoteKind::Observation, text, &[], runs);
    let first = note("layers 2 and 3 are needed", &[key]).unwrap();
    let by_name = std::slice::from_ref(&experiment);
    store.add_note(NoteKind::Hypothesis, "<b>sums</b>", by_name, &[]).unwrap();
    note("of nothing", &[]).unwrap();
    let nowhere = setting().run_key(&plans()[1], &example(99));
    assert!(matches!(note("x", &[nowhere]), Err(StoreError::Unknown { .. })));
    assert!(matches!(note(" \n", &[]), Err(StoreError::Query(_))));
    let all = store.notes(None).unwrap();
    assert_eq!(all.iter().map(|note| note.text.as_str()).collect::<Vec<_>>()[1..], ["<b>sums</b>", "of nothing"]);
    assert_eq!((all[0].kind, &all[0].runs[..]), (NoteKind::Observation, &[key][..]));
    let own = store.notes(Some(&experiment)).unwrap();
    assert_eq!(own.len(), 2, "by name, and by a result of it");
    assert_eq!(own[1].experiments, [name]);
    store.remove_note(first).unwrap();
    assert!(store.remove_note(first).is_err());

    assert!(store.tag(&experiment, "seed study", true).unwrap());
    assert!(!store.tag(&experiment, "seed study", true).unwrap());
    assert_eq!(store.experiment(&experiment.name).unwrap().tags, ["seed study"]);
    assert!(store.tag(&experiment, "seed study", false).unwrap());
    assert!(store.tag(&experiment, "", true).is_err());
}

#[test]
fn two_experiments_side_by_side() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    let mut other = setting();
    other.arithmetic = "bf16".to_owned();
    let plans = [plan("0..2"), plan("none"), plan("0"), plan("0..4")];
    let observation = NewObservation {
        isa: "avx512",
        threads: 1,
        model: "toy",
        commit: "",
        host: "",
        command: &[],
        began: Instant::now(),
    };
    let new = NewExperiment {
        name: Some("other"),
        kind: "sweep",
        spec: json!({"families": ["keep-first"]}),
        intact: 3,
        plans: 3,
    };
    let mut recorder = Recorder::begin(store, &other, &plans, KL, &observation, Some(&new)).unwrap();
    for number in 4..10 {
        let _ = recorder.expect(&example(number), source(number)).unwrap();
        // Plan 0 here is plan 1 there; plan 1 here says half a nat more than plan 2 there.
        let rows =
            [Row { plan: 0, ..row(1, number) }, Row { plan: 1, nll: row(2, number).nll + 0.5, ..row(2, number) }];
        recorder.append(&rows).unwrap();
    }
    let store = recorder.finish(Some(10)).unwrap();
    let (a, b) = (store.experiment(&name).unwrap(), store.experiment("other").unwrap());
    let difference = store.diff(&a, &b).unwrap();
    let what: Vec<_> = difference.settings.iter().map(|(what, ..)| *what).collect();
    assert_eq!(what, ["arithmetic", "instruction set"]);
    assert_eq!((difference.questions, difference.only_questions), (4, [4, 2]));
    assert_eq!(difference.only, [vec!["0..4".to_owned()], vec!["0".to_owned()]]);
    let [two, none] = &difference.plans[..] else { panic!("{difference:?}") };
    assert_eq!((&*two.plan, two.examples, two.identical), ("0..2", 4, 4));
    assert!(two.sides[0].loss().is_nan(), "NaN and infinity are in it");
    assert_eq!((&*none.plan, none.examples, none.identical), ("none", 4, 0));
    assert!((none.sides[1].loss() - none.sides[0].loss() - 0.25).abs() < 1e-12, "half a nat over two tokens");
}

#[test]
fn what_is_given_up_goes_and_nothing_else() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    // Another experiment shares half of the examples; a note cites one result.
    let mut second = begin(store, KL, Some("second")).unwrap();
    for number in 0..4 {
        let _ = second.expect(&example(number), source(number)).unwrap();
    }
    let store = second.finish(Some(4)).unwrap();
    let cited = setting().run_key(&plans()[2], &example(7));
    store.add_note(NoteKind::Observation, "kept", &[], &[cited]).unwrap();
    let experiment = store.experiment(&name).unwrap();
    let before = count(&store, "results");
    let pretended = store.collect(std::slice::from_ref(&experiment), true).unwrap();
    assert_eq!(count(&store, "results"), before);
    let collected = store.collect(std::slice::from_ref(&experiment), false).unwrap();
    assert_eq!((pretended.results, collected.results, collected.experiments), (11, 11, 1));
    store.check_integrity().unwrap();
    assert_eq!((count(&store, "results"), count(&store, "experiments")), (13, 1));
    assert_eq!(count(&store, "examples"), 5);
    let second = store.experiment("second").unwrap();
    assert_eq!(results(&store, &second).len(), 12);
    let note = store.add_note(NoteKind::Experiment, "stays", std::slice::from_ref(&second), &[]).unwrap();
    let refused = store.collect(std::slice::from_ref(&second), false).unwrap_err().to_string();
    assert_eq!(refused, format!("experiment `second` stays: note {note} cites it"));
    assert_eq!(store.collect(&[], false).unwrap().others, 0);
}

#[test]
fn a_copy_is_a_store() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    drop(store);
    let copy = folder.0.path().join("a copy's.db");
    let store = Store::read(&folder.file()).unwrap();
    store.copy_to(&copy).unwrap();
    assert!(matches!(store.copy_to(&copy), Err(StoreError::Io { .. })), "nothing is overwritten");
    assert_eq!(Store::read(&copy).unwrap().experiment(&name).unwrap(), store.experiment(&name).unwrap());
    Store::open(&copy).unwrap().check_integrity().unwrap();
}

fn refused(path: &Path) -> StoreError {
    let before = fs::read(path).unwrap();
    let error = Store::open(path).unwrap_err();
    assert_eq!(fs::read(path).unwrap(), before, "a refused file is left as it is");
    let reading = Store::read(path).unwrap_err();
    assert_eq!(reading.kind(), error.kind(), "{reading}");
    assert_eq!(fs::read(path).unwrap(), before);
    error
}

#[test]
fn other_files_are_refused() {
    let folder = Folder::new();
    let path = folder.file();
    fs::write(&path, "a diary, which is longer than the header of SQLite files by far: ".repeat(40)).unwrap();
    let error = refused(&path);
    assert_eq!((error.kind(), error.to_string().contains("not a database")), (StoreErrorKind::BadFile, true));
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE letters (text)").unwrap();
    let error = refused(&path);
    assert!(matches!(error, StoreError::Other { .. }), "{error}");
    assert!(matches!(Store::open(folder.0.path()), Err(StoreError::Io { .. })), "a folder");
    assert!(matches!(Store::read(&folder.0.path().join("none")), Err(StoreError::Missing { .. })));
    assert!(!folder.0.path().join("none").exists(), "reading makes nothing");
    let nowhere = folder.0.path().join("no folder").join("store.db");
    assert_eq!(Store::open(&nowhere).unwrap_err().kind(), StoreErrorKind::Missing);
}

#[test]
fn a_newer_store_is_refused() {
    let folder = Folder::new();
    let (store, _) = filled(&folder);
    store.connection.pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    drop(store);
    let error = refused(&folder.file());
    let want = format!("a store of version {}, this version of lesion knows {}", schema::VERSION + 1, schema::VERSION);
    assert!(error.to_string().contains(&want), "{error}");
    assert_eq!(error.kind(), StoreErrorKind::BadFile);
}

#[test]
fn a_damaged_store_is_refused() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    drop(store);
    let path = folder.file();
    let whole = fs::read(&path).unwrap();
    // The header's magic; the schema's page; the file's end.
    let mut header = whole.clone();
    header[3] ^= 1;
    let mut schema = whole.clone();
    schema[100..140].fill(0xff);
    for damaged in [header, schema, whole[..4096 * 3 + 17].to_vec()] {
        fs::write(&path, &damaged).unwrap();
        let opened = Store::read(&path);
        let error = match opened {
            Err(error) => error,
            Ok(store) => match store.check_integrity() {
                Err(error) => error,
                Ok(()) => {
                    store.experiment(&name).and_then(|e| store.results(&e, |_| Ok::<(), StoreError>(()))).unwrap_err()
                }
            },
        };
        assert_eq!(error.kind(), StoreErrorKind::BadFile, "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "nothing is made anew");
    }
    // A number whose class says that it is none.
    fs::write(&path, &whole).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA ignore_check_constraints = 1; UPDATE results SET nll_class = 1").unwrap();
    drop(connection);
    let store = Store::read(&path).unwrap();
    let experiment = store.experiment(&name).unwrap();
    let error = store.results(&experiment, |_| Ok::<(), StoreError>(())).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// Many threads make one store at once, and write the same and different results to it.
#[test]
fn several_writers_at_once() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        for writer in 0..6_u64 {
            let folder = &folder;
            scope.spawn(move || {
                let mut recorder = begin(folder.store(), KL, None).unwrap();
                for number in (writer / 2 * 10)..(writer / 2 * 10 + 20) {
                    let _ = recorder.expect(&example(number), source(number)).unwrap();
                    recorder.append(&[row(0, number), row(1, number)]).unwrap();
                    recorder.sync().unwrap();
                }
                recorder.finish(None).unwrap();
            });
        }
    });
    let store = folder.store();
    store.check_integrity().unwrap();
    assert_eq!((count(&store, "results"), count(&store, "experiments"), count(&store, "observations")), (80, 1, 6));
}

/// Where the disk is full the results so far stay, and more can follow.
#[test]
fn a_full_disk_loses_nothing() {
    let folder = Folder::new();
    let (store, name) = filled(&folder);
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    let mut recorder = begin(store, KL, None).unwrap();
    let mut full = None;
    for number in 100..2_000 {
        let _ = recorder.expect(&example(number), source(number)).unwrap();
        full = recorder.append(&[row(0, number), row(1, number)]).and_then(|()| recorder.sync()).err();
        if full.is_some() {
            break;
        }
    }
    let full = full.expect("no room");
    assert_eq!((full.kind(), full.to_string().contains("full")), (StoreErrorKind::Missing, true), "{full}");
    drop(recorder);
    let store = folder.store();
    store.check_integrity().unwrap();
    let experiment = store.experiment(&name).unwrap();
    assert!(results(&store, &experiment).len() >= 24);
    let mut recorder = begin(store, KL, None).unwrap();
    let _ = recorder.expect(&example(5_000), source(5_000)).unwrap();
    recorder.append(&[row(0, 5_000)]).unwrap();
    recorder.finish(None).unwrap();
}
