//! What is kept: computed once, shared by processes, never lost, and answered for.

mod commands;
mod export;
mod hazards;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::run::{ended, fields, lesion, mini_in, objects, ok, refused, run};

/// A folder with some questions and a place for a store.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        place.questions("pairs.jsonl", 6);
        place
    }

    /// So many sums and capitals, in turn.
    fn questions(&self, name: &str, count: usize) -> String {
        let capitals = [("Spain", "Madrid"), ("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo")];
        let line = |i: usize| {
            if i.is_multiple_of(2) {
                format!(r#"{{"prompt": "{} + {i} =", "answer": "{}", "task": "sums"}}"#, i % 7, i % 7 + i)
            } else {
                let (country, capital) = capitals[i / 2 % 4];
                let again = if i < 8 { String::new() } else { format!("{i}. ") };
                format!(
                    r#"{{"prompt": "{again}The capital of {country} is", "answer": "{capital}", "task": "capitals"}}"#
                )
            }
        };
        let lines: Vec<String> = (0..count).map(line).collect();
        fs::write(self.path(name), lines.join("\n")).unwrap();
        self.text(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The arguments of a sweep into this folder's store.
    fn sweep(&self, more: &[&str]) -> Vec<String> {
        let (pairs, store) = (self.text("pairs.jsonl"), self.text("store.db"));
        let own = ["sweep", "--pairs", &pairs, "--store", &store, "--json"];
        own.iter().chain(more).map(|text| (*text).to_owned()).collect()
    }

    /// A subcommand of `store` on it.
    fn store(&self, args: &[&str]) -> Vec<String> {
        let store = self.text("store.db");
        ["store"].iter().chain(args).chain(&["--store", &store]).map(|text| (*text).to_owned()).collect()
    }
}

fn refs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// A sweep's rows and its summary.
fn swept(args: &[String]) -> (Vec<Value>, Value) {
    let mut rows = objects(&refs(args));
    let summary = rows.pop().unwrap()["summary"].clone();
    (rows, summary)
}

fn computed(args: &[String]) -> u64 {
    swept(args).1["computed_rows"].as_u64().unwrap()
}

#[test]
fn a_sweep_is_computed_once() {
    let place = Place::new();
    let args = place.sweep(&["--family", "keep-first"]);
    let (first, summary) = swept(&args);
    assert_eq!((first.len(), &summary["computed_rows"]), (78, &Value::from(78)));
    let name = summary["experiment"].as_str().unwrap();
    assert!(name.starts_with("sweep-"), "{name}");
    let again = run(&refs(&args));
    let mut rows: Vec<Value> = again.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = rows.pop().unwrap()["summary"].clone();
    assert_eq!(rows, first, "byte for byte what was computed");
    assert_eq!((&summary["computed_rows"], &summary["experiment"]), (&Value::from(0), &Value::from(name)));
    // For people.
    let table = ended(lesion().args(args.iter().filter(|arg| *arg != "--json")).output().unwrap());
    assert!(table.stderr.contains("all 78 results were there, nothing was computed"), "{}", table.stderr);
    assert!(table.stderr.contains(&format!("kept as {name} in ")), "{}", table.stderr);
    // More plans: only those are computed, and the intact model is one of the others.
    let more = place.sweep(&["--family", "keep-first", "--plan", "11..=0"]);
    assert_eq!(computed(&more), 6);
    // Other questions.
    place.questions("pairs.jsonl", 8);
    assert_eq!(computed(&args), 26);
}

/// One weight bit, the tokenizer, BOS or the plan: each makes another run.
#[test]
fn whatever_decides_a_result_makes_another_run() {
    let place = Place::new();
    let model = mini_in(place.folder.path());
    let with_model = |more: &[&str]| {
        let model = model.to_str().unwrap();
        place.sweep(&[&["--model", model, "--plan", "0..6"], more].concat())
    };
    assert_eq!(computed(&with_model(&[])), 6);
    assert_eq!(computed(&with_model(&[])), 0);
    // The embedded model is the same one.
    assert_eq!(computed(&place.sweep(&["--plan", "0..6"])), 0);
    assert_eq!(computed(&place.sweep(&["--plan", "0..6", "--threads", "1", "--memory", "256MB"])), 0);
    assert_eq!(computed(&with_model(&["--no-bos"])), 6);
    assert_eq!(computed(&place.sweep(&["--plan", "0..7"])), 6);
    assert_eq!(computed(&place.sweep(&["--plan", "0..6", "--precision", "bf16"])), 6);
    let tokenizer = model.join("tokenizer.json");
    let text = fs::read_to_string(&tokenizer).unwrap();
    fs::write(&tokenizer, format!("{text}\n")).unwrap();
    assert_eq!(computed(&with_model(&[])), 6);
    fs::write(&tokenizer, text).unwrap();
    assert_eq!(computed(&with_model(&[])), 0);
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_eq!(computed(&with_model(&[])), 6);
}

#[test]
fn losses_and_sweeps_share_what_they_compute() {
    let place = Place::new();
    let store = place.text("store.db");
    let spain =
        ["loss", "The capital of Spain is", "--answer", " Madrid", "--plan", "0..8", "--store", &store, "--json"];
    let first = objects(&spain);
    let again = objects(&spain);
    assert_eq!(first, again);
    // A sweep without divergences finds the answers' losses: of the intact model and of plan 0..8.
    let sweep = place.sweep(&["--plan", "0..8", "--no-kl"]);
    let (rows, summary) = swept(&sweep);
    assert_eq!(summary["computed_rows"], 5);
    let row = rows.iter().find(|row| row["task"] == "capitals" && row["example"] == 0).unwrap();
    assert_eq!(row["answer_nll"], first[0]["answer_nll"][0]);
    // One with divergences needs more than is there.
    assert_eq!(computed(&place.sweep(&["--plan", "0..8"])), 6);
    assert_eq!(computed(&sweep), 0);
    // The losses that are there, and no others.
    let rows = objects(&refs(&place.store(&["query", "--where", "task=capitals", "--where", "example=0", "--json"])));
    assert_eq!(rows.len(), 2);
    let whole = "prompt=";
    let rows = objects(&refs(&place.store(&["query", "--where", whole, "--select", "answer,tokens,plan", "--json"])));
    assert_eq!(rows.iter().map(|row| row["plan"].as_str().unwrap()).collect::<Vec<_>>(), ["0..8"]);
    assert_eq!(rows[0]["answer"], "The capital of Spain is Madrid");
}

/// What a plan has said is not said again.
#[test]
fn completions_are_said_once() {
    let place = Place::new();
    let store = place.text("store.db");
    let complete = |more: &[&str]| run(&[&["complete", "-n", "4", "--store", &store], more].concat());
    let completions = || objects(&refs(&place.store(&["sql", "--json", "SELECT * FROM completions"])));
    let (text, ids) = ("The capital of Spain is", "--ids");
    let first = complete(&[text]);
    let again = complete(&[text]);
    assert_eq!((first.code, first.stdout.as_str()), (Some(0), again.stdout.as_str()), "{}", first.stderr);
    assert!(
        again.stderr.contains("it was in the store") && !first.stderr.contains("it was in the store"),
        "{}",
        again.stderr
    );
    let json = objects(&["complete", "--json", "-n", "4", "--store", &store, text]);
    assert_eq!(json, objects(&["complete", "--json", "-n", "4", "--no-store", text]));
    assert_eq!(completions().len(), 1);
    // The same tokens as ids: no text is asked for; and the other way round the text is missing, and is gained.
    let prompt = json[0]["prompt_ids"].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>().join(",");
    let of_ids = objects(&["complete", "--json", "-n", "4", "--store", &store, ids, &prompt]);
    assert_eq!((&of_ids[0]["completion"], &of_ids[0]["completion_ids"]), (&Value::Null, &json[0]["completion_ids"]));
    assert_eq!(completions().len(), 1);
    fs::remove_file(&store).unwrap();
    let bare = complete(&[ids, &prompt]);
    assert_eq!((bare.code, completions()[0]["text"].clone()), (Some(0), Value::Null), "{}", bare.stderr);
    assert_eq!(complete(&[text]).stdout, first.stdout);
    assert_eq!((completions().len(), &completions()[0]["text"]), (1, &json[0]["completion"]));
    assert_eq!(complete(&[text, "--plan", "0..8", "--plan", "0..12"]).code, Some(0));
    assert_eq!(completions().len(), 2);
    assert!(complete(&[ids, &prompt]).stderr.contains("it was in the store"));
}

/// A result that another instruction set has added to is verified part by part.
#[test]
fn results_of_two_instruction_sets_are_verified() {
    let place = Place::new();
    let sweep = |more: &[&str]| swept(&place.sweep(&[&["--plan", "0..6", "--plan", "0..8"], more].concat())).1;
    sweep(&["--isa", "portable", "--no-kl"]);
    assert_eq!(sweep(&[])["computed_rows"], 12);
    let own = sweep(&[])["numerics"].clone();
    assert!(own.as_str().unwrap().contains("portable"), "{own}");
    let verified = &objects(&refs(&place.store(&["verify", "--json"])))[0];
    assert_eq!((&verified["identical"], &verified["compared"]), (&18.into(), &18.into()), "{verified}");
}

/// Whose task a question is, a search says, too.
#[test]
fn what_a_loss_measured_is_of_the_task_that_a_search_names() {
    let place = Place::new();
    let (pairs, store) = (place.text("pairs.jsonl"), place.text("store.db"));
    ok(&["loss", "The capital of Spain is", "--answer", " Madrid", "--store", &store]);
    let of_the_task =
        || objects(&refs(&place.store(&["query", "--json", "--where", "task=capitals", "--where", "plan=0..12"])));
    assert_eq!(of_the_task().len(), 0);
    ok(&["search", "--pairs", &pairs, "--within", "5", "--method", "greedy", "--store", &store]);
    assert_eq!(of_the_task().len(), 3);
}

/// Examples have the numbers of the experiment that is asked for.
#[test]
fn examples_are_numbered_by_their_experiment() {
    let place = Place::new();
    swept(&place.sweep(&["--plan", "0..6", "--experiment", "all"]));
    let lines = fs::read_to_string(place.path("pairs.jsonl")).unwrap();
    fs::write(place.path("pairs.jsonl"), lines.lines().skip(2).collect::<Vec<_>>().join("\n")).unwrap();
    let (rows, summary) = swept(&place.sweep(&["--plan", "0..6", "--experiment", "fewer"]));
    assert_eq!(summary["computed_rows"], 0);
    let args = ["query", "--json", "--experiment", "fewer", "--select", "task,example,nll", "--sort", "example"];
    let mut found: Vec<_> = objects(&refs(&place.store(&args)));
    found.sort_by_key(|row| (row["task"] == "capitals", row["example"].as_u64()));
    let of = |row: &Value, nll: &str| (row["task"].clone(), row["example"].clone(), row[nll].clone());
    let got: Vec<_> = found.iter().map(|row| of(row, "nll")).collect();
    assert_eq!(got, rows.iter().map(|row| of(row, "answer_nll")).collect::<Vec<_>>());
}

/// A search measures what sweeps measure.
#[test]
fn searches_and_sweeps_share_what_they_compute() {
    let place = Place::new();
    let (pairs, store) = (place.text("pairs.jsonl"), place.text("store.db"));
    let search = ["search", "--pairs", &pairs, "--keep", "0.9", "--method", "greedy", "--store", &store];
    let (first, again) = (run(&search), run(&search));
    assert_eq!((first.code, again.code), (Some(0), Some(0)), "{}", first.stderr);
    assert_eq!(first.stdout, again.stdout);
    assert!(!first.stderr.contains("results were there"), "{}", first.stderr);
    assert!(again.stderr.contains("of their results were there"), "{}", again.stderr);
    // The intact model and those without one layer are among what it looked at.
    let (_, summary) = swept(&place.sweep(&["--family", "skip-one", "--no-kl"]));
    assert_eq!(summary["computed_rows"], 0);
    let apart = run(&[&search[..7], &["--no-store"]].concat());
    assert_eq!(apart.stdout, first.stdout);
}

/// From the store the same bits the second time.
#[test]
fn losses_come_back_as_they_were() {
    let place = Place::new();
    let store = place.text("store.db");
    for plan in ["0..12", "11..=0", "none", "0..4,(4|5),6..12"] {
        let args = ["loss", "--plan", plan, "The capital of Spain is", "--store", &store, "--json"];
        let (first, again) = (ok(&args), ok(&args));
        assert_eq!(first, again);
    }
    // A text longer than a window, and a file.
    let text = place.text("text.txt");
    fs::write(&text, "One day, Tom went to the park with his dog. ".repeat(12)).unwrap();
    let args = ["loss", "--file", &text, "--window", "40", "--stride", "20", "--store", &store, "--json"];
    let (first, again, apart) = (ok(&args), ok(&args), ok(&[&args[..7], &["--no-store", "--json"]].concat()));
    assert_eq!((&first, &first), (&again, &apart));
    // Its windows are those of a sweep.
    let sweep = ["sweep", "--text", &text, "--window", "40", "--stride", "20", "--plan", "0..12", "--no-kl"];
    let sweep: Vec<String> = sweep.iter().chain(&["--store", &store, "--json"]).map(|arg| (*arg).to_owned()).collect();
    assert_eq!(computed(&sweep), 0);
}

#[test]
fn the_default_place_is_the_users_data_folder() {
    let place = Place::new();
    let data = place.path("data");
    let pairs = place.text("pairs.jsonl");
    let run = || {
        let mut command = lesion();
        command.env("XDG_DATA_HOME", &data).args(["sweep", "--plan", "0..3", "--pairs", &pairs]);
        ended(command.output().unwrap())
    };
    assert!(run().stderr.contains(&format!("in {}", data.join("lesion").join("store.db").display())));
    assert!(run().stderr.contains("nothing was computed"));
    let mut command = lesion();
    let home = place.path("home");
    fs::create_dir(&home).unwrap();
    command.env("HOME", &home).env_remove("XDG_DATA_HOME").args(["sweep", "--plan", "0..3", "--pairs", &pairs]);
    assert_eq!(ended(command.output().unwrap()).code, Some(0));
    assert!(home.join(".local/share/lesion/store.db").is_file());
    // Nothing is kept.
    let none = place.path("none");
    let mut command = lesion();
    command.env("XDG_DATA_HOME", &none).args(["sweep", "--plan", "0..3", "--pairs", &pairs, "--no-store"]);
    assert_eq!(ended(command.output().unwrap()).code, Some(0));
    assert!(!none.exists());
}

/// A file of rows instead: for parts that run elsewhere. They are put together by `merge`.
#[test]
fn parts_may_keep_files_instead() {
    let place = Place::new();
    let pairs = place.text("pairs.jsonl");
    let part = |shard: &str, output: &str| {
        let rows = place.text(&format!("{output}.rows"));
        let output = place.text(output);
        ok(&[
            "sweep",
            "--family",
            "keep-first",
            "--pairs",
            &pairs,
            "--shard",
            shard,
            "--results",
            &rows,
            "--json",
            "--output",
            &output,
            "--force",
        ]);
    };
    part("0/2", "a.jsonl");
    part("1/2", "b.jsonl");
    let merged = ok(&["merge", &place.text("a.jsonl"), &place.text("b.jsonl")]);
    let whole = place.sweep(&["--family", "keep-first"]);
    let (rows, _) = swept(&whole);
    let merged: Vec<Value> = merged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(merged[..merged.len() - 1], rows[..]);
    refused(2, &["sweep", "--plan", "0", "--pairs", &pairs, "--results", "x", "--no-store"], &["cannot be used with"]);
}

/// Parts into one store are one experiment.
#[test]
fn parts_into_one_store_are_one_experiment() {
    let place = Place::new();
    let part = |shard: &str| swept(&place.sweep(&["--family", "keep-first", "--shard", shard])).1["experiment"].clone();
    assert_eq!(part("0/2"), part("1/2"));
    let (_, whole) = swept(&place.sweep(&["--family", "keep-first"]));
    assert_eq!(whole["computed_rows"], 0);
    let listed = objects(&refs(&place.store(&["ls", "--json"])));
    assert_eq!((listed.len(), &listed[0]["examples"], &listed[0]["expected_examples"]), (1, &6.into(), &6.into()));
}

/// Another instruction set's results are taken, and it is said.
#[test]
fn results_of_another_instruction_set_are_named() {
    let place = Place::new();
    let (_, here) = swept(&place.sweep(&["--plan", "0..5", "--isa", "portable"]));
    assert_eq!(here["numerics"], "portable f32");
    let doctor = ok(&["doctor", "--json"]);
    let best = if doctor.contains("avx2") { "avx2" } else { return };
    let there = run(&refs(&place.sweep(&["--plan", "0..5", "--plan", "0..6", "--isa", best])));
    let said = format!("computed with portable: equal to {best}'s within f32's gate, not bit for bit");
    assert!(there.stderr.contains(&said), "{}", there.stderr);
    let summary: Value = serde_json::from_str(there.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(summary["summary"]["numerics"], format!("{best}+portable f32"));
    assert_eq!(summary["summary"]["computed_rows"], 6);
}

#[test]
fn a_path_that_is_no_utf8_works() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let store = place.folder.path().join(std::ffi::OsStr::from_bytes(b"st\xffore.db"));
    for computed in [6, 0] {
        let mut command = lesion();
        command.args(["sweep", "--plan", "0..3", "--json", "--pairs"]).arg(place.path("pairs.jsonl"));
        let run = ended(command.arg("--store").arg(&store).output().unwrap());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stdout.contains(&format!("\"computed_rows\":{computed}")), "{}", run.stdout);
    }
    assert!(Path::new(&store).is_file());
    let run = ended(lesion().args(["store", "ls", "--json", "--store"]).arg(&store).output().unwrap());
    let listed: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(fields(&listed).contains(&"experiment".to_owned()));
}
