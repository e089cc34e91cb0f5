//! `lesion tasks`, and sweeps over what it lists.

use std::fs;

use serde_json::Value;

use crate::run::{assert_refused, fields, object, objects, ok, refused, with_stdin};

#[test]
fn the_bundled_tasks_are_listed_with_their_scores() {
    let listed = objects(&["tasks", "ls", "--json"]);
    assert!(listed.len() >= 20);
    for task in &listed {
        assert_eq!(
            fields(task),
            ["chance", "choice_chance", "description", "examples", "intact", "schema_version", "sha256", "task"]
        );
        assert!(task["examples"].as_u64().unwrap() >= 50);
    }
    let shown = ok(&["tasks", "ls"]);
    assert!(shown.contains("1-digit addition") && shown.contains("indirect object"), "{shown}");
}

#[test]
fn what_is_measured_is_what_is_listed() {
    let names = ["subject-verb agreement", "greater-than years"];
    let measured = objects(&["tasks", "measure", names[0], names[1], "--json"]);
    let listed = objects(&["tasks", "ls", "--json"]);
    for found in &measured {
        let listed = listed.iter().find(|listed| listed["task"] == found["task"]).unwrap();
        assert_eq!(found["sha256"], listed["sha256"]);
        let close = |field: &str, within: f64| {
            let [a, b] = [found, listed].map(|score| score["intact"][field].as_f64().unwrap());
            assert!((a - b).abs() <= within, "{field}: {a} and {b}");
        };
        close("nll_per_token", 1e-4);
        close("accuracy", 0.021);
        close("choice_accuracy", 0.021);
    }
}

#[test]
fn a_file_is_shown_checked_and_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.json");
    let file = path.to_str().unwrap();
    fs::write(&path, r#"[{"name": "t", "examples": [{"prompt": "Spain is ", "answer": "Madrid"}]}]"#).unwrap();
    let found = objects(&["tasks", "check", file, "--json"]);
    assert_eq!((found.len(), &found[0]["kind"]), (1, &Value::from("double-space")));
    assert!(ok(&["tasks", "check", file]).contains("1 task, 1 example: 1 finding with the tokens of mini"));
    assert!(ok(&["tasks", "show", file]).contains("\"Spain is \" → \" Madrid\""));
    fs::write(&path, "[{\"name\": \"t\",\n \"exmaples\": []}]").unwrap();
    refused(3, &["tasks", "check", file], &["t.json", "exmaples", "line 2 column 11"]);
    fs::write(
        &path,
        r#"{"tasks": [{"name": "t", "examples": [{"prompt": "p", "answer": "q", "alternatives": [""]}]}]}"#,
    )
    .unwrap();
    refused(3, &["tasks", "check", file], &["tasks[0].examples[0].alternatives[0]", "is empty"]);
    fs::write(&path, "{\"version\": 2, \"tasks\": []}").unwrap();
    refused(3, &["tasks", "check", file], &["version 2; this build reads version 1"]);
    refused(3, &["tasks", "check", "no-such-task"], &["no-such-task", "lesion tasks ls"]);
    refused(2, &["tasks", "export", "--task", "sums"], &["no bundled task is called `sums`"]);
    refused(2, &["tasks", "export", "--task", "wars", "--examples", "100"], &["task `wars` has 54 different examples"]);
}

#[test]
fn what_is_exported_is_what_is_bundled() {
    let text = ok(&["tasks", "export", "--task", "wars", "--task", "brackets", "--task", "wars"]);
    let checked = with_stdin(&["tasks", "check", "-"], text.as_bytes());
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(checked.stdout.contains("2 tasks, 100 examples: 0 findings"), "{}", checked.stdout);
    let bundled = ok(&["tasks", "show", "brackets", "--json"]);
    let from_file =
        with_stdin(&["tasks", "show", "-", "--json"], ok(&["tasks", "export", "--task", "brackets"]).as_bytes());
    assert_eq!(bundled, from_file.stdout);
    assert_ne!(text, ok(&["tasks", "export", "--task", "wars", "--task", "brackets", "--seed", "1"]));
}

/// A sweep of one truncation with `args`, its results kept in a file of its own.
fn swept(args: &[&str], stdin: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let sweep = ["sweep", "--plan", "0..8", "--json", "--results", results.to_str().unwrap()];
    let ended = with_stdin(&[&sweep[..], args].concat(), stdin.as_bytes());
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn sweeps_and_searches_run_bundled_tasks_without_a_file() {
    let rows = swept(&["--task", "1-digit addition", "--task", "antonyms", "--limit", "3"], "");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["task"].as_str()).collect();
    assert_eq!(names, [["1-digit addition"; 3], ["antonyms"; 3]].concat());
    let search = ["search", "--task", "gendered pronouns", "--limit", "5", "--keep", "0.9", "--method", "greedy"];
    let found = object(&[&search[..], &["--json"]].concat());
    assert_eq!((&found["examples"], &found["intact"]["accuracy"]), (&Value::from(5), &Value::from(1.0)));
    let all = swept(&["--tasks", "bundled", "--limit", "1"], "");
    let listed = objects(&["tasks", "ls", "--json"]).len();
    assert_eq!(all.last().unwrap()["summary"]["examples"], Value::from(listed));
    refused(
        2,
        &["sweep", "--plan", "0..8", "--task", "sums"],
        &["no bundled task is called `sums`", "lesion tasks ls"],
    );
    refused(2, &["sweep", "--plan", "0..8"], &["no examples", "lesion tasks ls"]);
}

#[test]
fn documents_of_lm_evaluation_harness_are_swept() {
    let line = r#"{"question": "The capital of Spain is", "choices": ["Rome", "Madrid"], "answer": 1, "subject": "s"}"#;
    let rows = swept(&["--pairs", "-"], line);
    assert_eq!((&rows[0]["task"], &rows[0]["answer_tokens"]), (&Value::from("stdin"), &Value::from(1)));
    let shown = with_stdin(&["tasks", "show", "-"], line.as_bytes()).stdout;
    assert!(shown.contains("→ \" Madrid\"") && shown.contains("not [\"Rome\"]"), "{shown}");
    let odd = with_stdin(&["tasks", "check", "-"], line.replace("subject", "passage").as_bytes());
    assert_refused(odd, 3, &["stdin, line 1", "field `passage`"]);
}
