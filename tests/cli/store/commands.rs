//! The subcommands of `store`.

use std::fs;

use serde_json::Value;

use super::{Place, refs, swept};
use crate::run::{fields, object, objects, ok, refused, run, with_stdin};

/// A store with one experiment, `truncations`, and two completions.
fn filled() -> Place {
    let place = Place::new();
    swept(&place.sweep(&["--family", "keep-first", "--experiment", "truncations"]));
    let store = place.text("store.db");
    ok(&["complete", "-n", "3", "--plan", "0..8", "--plan", "0..12", "The capital of Spain is", "--store", &store]);
    place
}

fn answers(place: &Place, args: &[&str]) -> Vec<Value> {
    objects(&refs(&place.store(&[args, &["--json"]].concat())))
}

/// Every example of the help pages, in a folder whose user has a store.
#[test]
fn the_examples_of_the_help_pages_run() {
    let place = filled();
    swept(&place.sweep(&["--family", "keep-first", "--precision", "bf16", "--experiment", "rounded"]));
    ok(&refs(&place.store(&["note", "the first"])));
    let key =
        answers(&place, &["query", "--limit", "1", "--select", "key"])[0]["key"].as_str().unwrap()[..12].to_owned();
    let program = assert_cmd::cargo::cargo_bin!("lesion");
    let mut examples = 0;
    for command in ["", "ls", "show", "query", "sql", "diff", "note", "notes", "tag", "verify", "export", "gc"] {
        let args: Vec<&str> = ["store", command, "--help"].into_iter().filter(|arg| !arg.is_empty()).collect();
        let help = ok(&args);
        let lines = help.lines().skip_while(|line| !line.starts_with("Examples:")).skip(1).map(str::trim);
        for line in lines.take_while(|line| !line.is_empty()) {
            assert!(line.starts_with("lesion store ") && line.chars().count() <= 78, "{command}: {line}");
            let user = tempfile::tempdir().unwrap();
            fs::create_dir(user.path().join("lesion")).unwrap();
            fs::copy(place.path("store.db"), user.path().join("lesion/store.db")).unwrap();
            let mut shell = std::process::Command::new("sh");
            crate::run::isolate(&mut shell);
            let line = line.replace("lesion ", "\"$0\" ").replace("3f9c1a", &key);
            shell.env("XDG_DATA_HOME", user.path()).current_dir(user.path()).args(["-c", &line]).arg(program);
            let ended = crate::run::ended(shell.output().unwrap());
            assert_eq!(ended.code, Some(0), "{line}: {}", ended.stderr);
            examples += 1;
        }
    }
    assert!(examples >= 20, "{examples}");
}

#[test]
fn experiments_are_listed_and_shown() {
    let place = filled();
    let [listed] = &answers(&place, &["ls"])[..] else { panic!("one experiment") };
    assert_eq!(
        (&listed["experiment"], &listed["plans"], &listed["examples"]),
        (&"truncations".into(), &13.into(), &6.into())
    );
    let shown = object(&refs(&place.store(&["show", "trunc", "--json"])));
    assert_eq!((&shown["results"], &shown["completions"]), (&78.into(), &2.into()));
    assert_eq!(shown["spec"]["families"][0], "keep-first");
    assert_eq!(shown["tasks"][0], serde_json::json!({"task": "sums", "examples": 3}));
    let command: Vec<&str> = shown["command"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    assert_eq!(command[..2], ["sweep", "--pairs"]);
    assert_eq!(shown["observations"][0]["commit"].as_str().map_or(40, |commit| commit[..40].len()), 40);
    let text = ok(&refs(&place.store(&["show", "truncations"])));
    for part in ["keep-first", "78 of 78", "capitals (3)", "lesion sweep --pairs"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    refused(2, &refs(&place.store(&["show", "nothing"])), &["no experiment `nothing`: there are truncations"]);
    refused(2, &refs(&place.store(&["show", "abcdef"])), &["no run `abcdef`"]);
}

#[test]
fn runs_are_shown_by_key() {
    let place = filled();
    let rows = answers(
        &place,
        &["query", "--where", "plan=0..8", "--where", "prompt~Spain", "--select", "key,loss,completion"],
    );
    let key = rows[0]["key"].as_str().unwrap();
    let shown = object(&refs(&place.store(&["show", &key[..12], "--json"])));
    assert_eq!((&shown["key"], &shown["plan"]), (&key.into(), &"0..8".into()));
    assert_eq!(shown["questions"][0]["answer"], " Madrid");
    assert_eq!(shown["experiments"], serde_json::json!(["truncations"]));
    assert_eq!(shown["nll"], rows[0]["loss"]);
    assert!(ok(&refs(&place.store(&["show", key]))).contains("Madrid"));
    let sql = "SELECT lower(hex(run_key)) AS key FROM completions";
    let said = answers(&place, &["sql", sql]);
    let shown = object(&refs(&place.store(&["show", said[0]["key"].as_str().unwrap(), "--json"])));
    assert_eq!((&shown["prompt"], &shown["finish"]), (&"The capital of Spain is".into(), &"length".into()));
    assert_eq!(shown["completion"], rows[0]["completion"]);
}

#[test]
fn queries_filter_and_group() {
    let place = filled();
    let by_plan = answers(
        &place,
        &[
            "query",
            "--where",
            "task=capitals",
            "--where",
            "loss>5",
            "--group-by",
            "plan",
            "--select",
            "prompt,completion,loss",
        ],
    );
    assert!(!by_plan.is_empty());
    assert_eq!(fields(&by_plan[0]), ["completion", "loss", "plan", "prompt", "schema_version"]);
    assert!(by_plan.iter().all(|row| row["loss"].as_f64().unwrap() > 5.0), "{by_plan:?}");
    // The means are those of the sweep itself.
    let (rows, _) = swept(&place.sweep(&["--family", "keep-first"]));
    let own: Vec<f64> = (rows.iter().filter(|row| row["plan"] == "0..4"))
        .map(|row| row["answer_nll"].as_f64().unwrap() / row["answer_tokens"].as_f64().unwrap())
        .collect();
    let mean =
        answers(&place, &["query", "--experiment", "truncations", "--where", "plan=0..4", "--select", "mean(loss)"]);
    let difference = mean[0]["mean(loss)"].as_f64().unwrap() - own.iter().sum::<f64>() / own.len() as f64;
    assert!(difference.abs() < 1e-12, "{difference}");
    let deltas = answers(&place, &["query", "--where", "plan=0..12", "--select", "delta,kl"]);
    assert!(deltas.iter().all(|row| row["delta"] == 0.0 && row["kl"] == 0.0), "{deltas:?}");
    let first =
        ok(&refs(&place.store(&["query", "--csv", "--sort", "-loss", "--limit", "1", "--select", "plan,prompt,loss"])));
    assert!(first.starts_with("plan,prompt,loss\nnone,"), "{first}");
    let more = run(&refs(&place.store(&["query", "--limit", "5"])));
    assert_eq!(more.stdout.lines().count(), 6, "{}", more.stdout);
    assert!(more.stderr.contains("more than 5 lines"), "{}", more.stderr);
    refused(2, &refs(&place.store(&["query", "--where", "los>5"])), &["no field `los`"]);
    refused(2, &refs(&place.store(&["query", "--experiment", "nothing"])), &["no experiment `nothing`"]);
}

#[test]
fn sql_only_reads() {
    let place = filled();
    let rows = answers(&place, &["sql", "SELECT task, count(*) AS n FROM rows GROUP BY task"]);
    assert_eq!(rows.iter().map(|row| row["n"].as_u64().unwrap()).collect::<Vec<_>>(), [39, 39]);
    let before = fs::read(place.path("store.db")).unwrap();
    let copy = format!("VACUUM INTO '{}'", place.text("stolen.db"));
    for sql in [
        "DELETE FROM results",
        "DROP TABLE results",
        "INSERT INTO tasks (name) VALUES ('x') RETURNING id",
        "SELECT 1; DELETE FROM results",
        "PRAGMA user_version = 7",
        "CREATE TEMP TABLE t (x)",
        &copy,
        "nonsense",
        "",
    ] {
        let refused = run(&refs(&place.store(&["sql", sql])));
        assert!(refused.code != Some(0), "{sql}: {}", refused.stdout);
    }
    assert_eq!(fs::read(place.path("store.db")).unwrap(), before);
    assert!(!place.path("stolen.db").exists());
    assert_eq!(answers(&place, &["sql", "SELECT count(*) AS n FROM results"])[0]["n"], 78);
}

#[test]
fn experiments_are_compared() {
    let place = filled();
    swept(&place.sweep(&[
        "--family",
        "keep-first",
        "--plan",
        "11..=0",
        "--precision",
        "bf16",
        "--experiment",
        "rounded",
    ]));
    let mut lines = answers(&place, &["diff", "truncations", "rounded"]);
    let head = lines.remove(0);
    assert_eq!(
        (&head["questions"], &head["only_second"]),
        (&6.into(), &serde_json::json!(["11,10,9,8,7,6,5,4,3,2,1,0"]))
    );
    assert!(head["settings"].as_array().unwrap().iter().any(|setting| setting["what"] == "arithmetic"));
    assert_eq!(lines.len(), 13);
    for line in &lines {
        assert!(line["delta"].as_f64().unwrap().abs() < 0.1, "{line}");
        assert_eq!(line["examples"], 6);
    }
    let text = ok(&refs(&place.store(&["diff", "rounded", "rounded"])));
    assert!(text.contains("6 questions in both") && text.contains("6 of 6"), "{text}");
    // Nothing in common is no difference, and no NaN.
    fs::write(place.path("pairs.jsonl"), r#"{"prompt": "A cat is", "answer": "an animal", "task": "others"}"#).unwrap();
    swept(&place.sweep(&["--plan", "0..6", "--experiment", "others"]));
    let lines = answers(&place, &["diff", "truncations", "others"]);
    assert_eq!(
        (&lines[0]["questions"], &lines[1]["examples"], &lines[1]["delta"]),
        (&0.into(), &0.into(), &Value::Null)
    );
    assert!(!ok(&refs(&place.store(&["diff", "truncations", "others"]))).contains("NaN"));
    // A name that is taken by another sweep.
    let other = place.sweep(&["--family", "skip-one", "--experiment", "rounded"]);
    refused(2, &refs(&other), &["experiment `rounded` is there already", "--experiment NAME"]);
}

#[test]
fn notes_and_tags() {
    let place = filled();
    let rows = answers(&place, &["query", "--where", "plan=none", "--select", "key"]);
    let key = rows[0]["key"].as_str().unwrap();
    let note = place.store(&["note", "-", "--kind", "hypothesis", "--experiment", "trunc", "--run", &key[..10]]);
    let ended = with_stdin(&refs(&note), "late layers <script> sharpen\u{1b}[31m".as_bytes());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
    ok(&refs(&place.store(&["note", "of nothing"])));
    let notes = answers(&place, &["notes", "truncations"]);
    assert_eq!((notes.len(), &notes[0]["kind"], &notes[0]["runs"][0]), (1, &"hypothesis".into(), &key.into()));
    assert_eq!(notes[0]["text"], "late layers <script> sharpen\u{1b}[31m");
    assert_eq!(answers(&place, &["notes"]).len(), 2);
    refused(2, &refs(&place.store(&["note", "x", "--run", "0123456789"])), &["no run `0123456789`"]);
    refused(
        2,
        &refs(&place.store(&["sql", "--json", "SELECT 1 AS a, 2 AS a"])),
        &["two columns are called a", "AS gives"],
    );
    refused(2, &refs(&place.store(&["note", "x", "--run", "0"])), &["6 to 64 hexadecimal digits"]);
    refused(2, &refs(&place.store(&["note", " "])), &["a note needs a text"]);
    refused(2, &refs(&place.store(&["note", "x", "--kind", "opinion"])), &["hypothesis"]);
    ok(&refs(&place.store(&["note", "--remove", "2"])));
    refused(2, &refs(&place.store(&["note", "--remove", "2"])), &["no note `2`"]);
    ok(&refs(&place.store(&["tag", "truncations", "seed", "figure 2"])));
    assert_eq!(answers(&place, &["ls", "--tag", "seed"])[0]["tags"], serde_json::json!(["figure 2", "seed"]));
    assert_eq!(answers(&place, &["query", "--where", "tag=seed", "--select", "count"])[0]["count"], 78);
    ok(&refs(&place.store(&["tag", "truncations", "seed", "--remove"])));
    assert_eq!(answers(&place, &["ls", "--tag", "seed"]).len(), 0);
    // A note keeps what it cites.
    refused(2, &refs(&place.store(&["gc", "--experiment", "truncations"])), &["stays: note 1 cites it"]);
}

#[test]
fn what_is_given_up_is_collected() {
    let place = filled();
    let dry = object(&refs(&place.store(&["gc", "--experiment", "truncations", "--dry-run", "--json"])));
    assert_eq!((&dry["experiments"], &dry["results"]), (&1.into(), &78.into()));
    assert_eq!(answers(&place, &["ls"]).len(), 1);
    let gone = object(&refs(&place.store(&["gc", "--experiment", "truncations", "--json"])));
    assert_eq!(gone["results"], 78);
    assert_eq!(
        answers(&place, &["sql", "SELECT (SELECT count(*) FROM results) AS r, count(*) AS c FROM completions"])[0]["c"],
        2
    );
    assert_eq!(answers(&place, &["ls"]).len(), 0);
}

#[test]
fn results_are_verified() {
    let place = filled();
    let verified = object(&refs(&place.store(&["verify", "--json"])));
    // And two completions.
    assert_eq!((&verified["compared"], &verified["identical"]), (&80.into(), &80.into()));
    let other =
        object(&refs(&place.store(&["verify", "truncations", "--sample", "20", "--isa", "portable", "--json"])));
    let number = |name: &str| other[name].as_u64().unwrap();
    let not_compared = other["not_compared"].as_array().unwrap().len() as u64;
    assert_eq!(number("within_gate") + number("identical") + not_compared, 20, "{other}");
    // A loss whose last bit has been changed in the file.
    let rows = answers(&place, &["query", "--where", "plan=0..5", "--select", "key,nll"]);
    let (key, nll) = (rows[0]["key"].as_str().unwrap(), rows[0]["nll"].as_f64().unwrap());
    let path = place.path("store.db");
    let mut bytes = fs::read(&path).unwrap();
    let kept = nll.to_be_bytes();
    let places: Vec<usize> = (0..bytes.len() - 8).filter(|at| bytes[*at..at + 8] == kept).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at + 7] ^= 1);
    fs::write(&path, bytes).unwrap();
    let found = run(&refs(&place.store(&["verify", "--run", key, "--json"])));
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!((&found["mismatches"][0]["key"], &found["identical"]), (&key.into(), &0.into()));
    // A completion that says something else.
    let sql = "SELECT lower(hex(run_key)) AS key, ids FROM completions LIMIT 1";
    let said = &answers(&place, &["sql", sql])[0];
    let (key, ids) = (said["key"].as_str().unwrap(), said["ids"].as_str().unwrap());
    let bytes = fs::read(&path).unwrap();
    let mut other = bytes.clone();
    for at in (0..bytes.len() - ids.len()).filter(|at| bytes[*at..].starts_with(ids.as_bytes())) {
        other[at + 1] = if bytes[at + 1] == b'1' { b'2' } else { b'1' };
    }
    fs::write(&path, other).unwrap();
    let found = run(&refs(&place.store(&["verify", "--run", key])));
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    assert!(found.stdout.contains("said ["), "{}", found.stdout);
    fs::write(&path, bytes).unwrap();
    ok(&refs(&place.store(&["verify", "--run", key])));
    let key = rows[0]["key"].as_str().unwrap();
    // A model that is not there.
    let gone = run(&refs(&place.store(&["verify", "--run", key, "--model", &place.text("no-model")])));
    assert_eq!(gone.code, Some(4), "{}", gone.stderr);
    assert!(gone.stderr.contains("1 results not compared"), "{}", gone.stderr);
}
