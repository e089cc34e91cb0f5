//! `lesion loss`.

use std::fs;

use serde_json::{Value, json};

use crate::run::{fields, floats, golden, ids, object, objects, ok, plan_of, refused, run, with_stdin};

const SPAIN: &str = "The capital of Spain is";

fn assert_close(found: &[f64], expected: &[f64], context: &str) {
    assert_eq!(found.len(), expected.len(), "{context}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-4, "{context}: {found:?} against {expected:?}");
    }
}

#[test]
fn every_recorded_loss_is_found() {
    for prompt in ["capital", "addition", "ioi", "off_distribution"] {
        for row in golden(prompt) {
            let plan = plan_of(&row);
            let found = object(&["loss", "--json", "--plan", &plan, row["text"].as_str().unwrap()]);
            assert_eq!(found["token_ids"], row["ids"]);
            assert_close(&floats(&found["nll"]), &floats(&row["nll"]), &plan);
        }
    }
}

#[test]
fn json_has_the_agreed_fields() {
    let found = object(&["loss", "--json", SPAIN]);
    assert_eq!(
        (&found["schema_version"], &found["model"], &found["plan"]),
        (&json!(1), &json!("mini"), &json!("0..12"))
    );
    let nll = floats(&found["nll"]);
    assert!((found["mean_nll"].as_f64().unwrap() - nll.iter().sum::<f64>() / 5.0).abs() < 1e-12);
    let plain = [
        "bos",
        "isa",
        "mean_nll",
        "measure",
        "model",
        "nll",
        "perplexity",
        "plan",
        "precision",
        "schema_version",
        "sum_nll",
        "threads",
        "token_ids",
        "uniform_nll",
    ];
    assert_eq!(fields(&found), plain);
    let answered = object(&["loss", "--json", "--answer", " Madrid", SPAIN]);
    let mut with_answer = plain.to_vec();
    with_answer.extend(["answer", "answer_ids", "answer_joint", "answer_mean_nll", "answer_nll"]);
    with_answer.sort_unstable();
    assert_eq!(fields(&answered), with_answer);
}

#[test]
fn one_token_has_no_loss() {
    for args in [&["loss", "--json", ""][..], &["loss", "--json", "--ids", "7"]] {
        let found = object(args);
        assert_eq!((&found["nll"], &found["mean_nll"], &found["perplexity"]), (&json!([]), &json!(null), &json!(null)));
    }
    assert!(ok(&["loss", ""]).contains("none"));
    refused(2, &["loss", "--no-bos", ""], &["empty prompt"]);
}

#[test]
fn answers_are_scored_after_their_prompt() {
    for prompt in ["capital", "addition", "ioi"] {
        for row in golden(prompt) {
            let (text, answer) = (row["text"].as_str().unwrap(), row["answer"].as_str().unwrap());
            let plan = plan_of(&row);
            let found = object(&["loss", "--json", "--plan", &plan, "--answer", answer, text]);
            assert_eq!(found["answer_ids"], row["answer_ids"]);
            assert_eq!(found["answer_joint"], true);
            assert_close(&floats(&found["answer_nll"]), &floats(&row["answer_nll"]), &plan);
            let (all, nll) = (ids(&found["token_ids"]), floats(&found["nll"]));
            assert_eq!(all.len(), nll.len() + 1, "the whole sequence is there");
            assert_eq!(nll[nll.len() - 1], floats(&found["answer_nll"])[0]);
        }
    }
}

#[test]
fn a_token_across_the_join_is_told() {
    let found = object(&["loss", "--json", "--answer", "Madrid", "The capital of Spain is "]);
    assert_eq!(found["answer_joint"], false);
    assert!(ok(&["loss", "--answer", "Madrid", "The capital of Spain is "]).contains("encoded apart"));
    refused(2, &["loss", "--answer", "", SPAIN], &["--answer"]);
    refused(2, &["loss", "--answer", " x"], &["--answer", "prompt"]);
    refused(2, &["loss", "--no-bos", "--answer", " x", ""], &["empty prompt"]);
    refused(2, &["loss", "--ids", "1,2", "--answer", " x"], &["--answer"]);
}

#[test]
fn seed_compat_is_another_number_and_says_so() {
    let found = object(&["loss", "--json", "--measure", "seed-compat", "--answer", "Madrid", SPAIN]);
    assert_eq!(found["measure"], "seed-compat");
    let score = found["seed_compat_nll"].as_f64().unwrap();
    // By hand: BOS prompt BOS " Madrid", the last token's loss.
    let by_hand = object(&["loss", "--json", "--ids", "0,275,325,303,1216,292,0,1017"]);
    assert_eq!(score, *floats(&by_hand["nll"]).last().unwrap());
    assert!(found.get("answer_nll").is_none(), "it is not the loss of the answer");
    assert!(
        ok(&["loss", "--measure", "seed-compat", "--answer", "Madrid", SPAIN]).contains("not the loss of the answer")
    );
    refused(2, &["loss", "--measure", "seed-compat", SPAIN], &["--answer"]);
}

fn long_ids(count: usize) -> String {
    (0..count).map(|i| ((i * 37) % 2000 + 5).to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn long_texts_are_scored_in_windows_and_the_convention_is_stated() {
    let long = long_ids(600);
    let found = object(&["loss", "--json", "--ids", &long]);
    assert_eq!(floats(&found["nll"]).len(), 599, "every token but the first, once");
    assert_eq!((&found["windows"]["length"], &found["windows"]["stride"]), (&json!(256), &json!(128)));
    assert!(found["windows"]["convention"].as_str().unwrap().contains("scored once"));
    assert!(ok(&["loss", "--ids", &long]).contains("windows of 256 tokens every 128"));

    let short = long_ids(100);
    let whole = object(&["loss", "--json", "--ids", &short]);
    assert!(whole.get("windows").is_none(), "what fits is not cut");
    let cut = object(&["loss", "--json", "--ids", &short, "--window", "64", "--stride", "16"]);
    assert_eq!(floats(&cut["nll"])[..63], floats(&whole["nll"])[..63], "the first window has the same context");
    assert_ne!(cut["nll"], whole["nll"]);
    refused(2, &["loss", "--ids", &long, "--window", "257"], &["--window 257", "256"]);
    refused(2, &["loss", "--ids", &long, "--window", "1"], &["--window 1"]);
    refused(2, &["loss", "--ids", &long, "--stride", "256"], &["--stride 256", "255"]);
}

#[test]
fn an_answer_beyond_the_context_is_refused() {
    let prompt = "The capital of Spain is Madrid. ".repeat(60);
    refused(2, &["loss", "--answer", " x", &prompt], &["tokens", "256"]);
}

#[test]
fn files_and_stdin_are_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (one, two) = (write("one.txt", SPAIN.as_bytes()), write("two.txt", b"8 + 10 = 18\n"));
    let found = objects(&["loss", "--json", "--file", &one, "--file", &two, "--plan", "none", "--plan", "0..8"]);
    let order: Vec<(bool, &str)> =
        found.iter().map(|row| (row["file"] == one.as_str(), row["plan"].as_str().unwrap())).collect();
    assert_eq!(
        order,
        [(true, "0..12"), (true, "none"), (true, "0..8"), (false, "0..12"), (false, "none"), (false, "0..8")]
    );
    assert_eq!(found[0]["nll"], object(&["loss", "--json", SPAIN])["nll"]);
    let piped: Value = serde_json::from_str(&with_stdin(&["loss", "--json", "-"], SPAIN.as_bytes()).stdout).unwrap();
    assert_eq!(piped["nll"], found[0]["nll"]);

    let bad = write("bad.txt", b"ab\xffcd");
    refused(3, &["loss", "--file", &bad], &["bad.txt", "byte 2"]);
    refused(3, &["loss", "--file", "no-such-file"], &["no-such-file"]);
    refused(2, &["loss", "--file", &one, SPAIN], &["--file"]);
}

#[test]
fn several_plans_are_columns_and_tokens_are_rows() {
    let text = ok(&["loss", "--plan", "0..8", "--plan", "none", "--tokens", SPAIN]);
    let header = text.lines().nth(1).unwrap();
    assert_eq!(header.split_whitespace().collect::<Vec<_>>(), ["0..12", "(intact)", "0..8", "none"]);
    for name in ["nats per token", "bits per token", "perplexity", "nats in all", "uniform, ln V"] {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        assert_eq!(line[name.len()..].split_whitespace().count(), 3, "{line}");
    }
    assert!(text.contains("\" Spain\"    1216"), "{text}");
    assert!(!text.lines().any(|line| line.ends_with(' ')), "no trailing spaces");
    let units: Vec<f64> = ["nats per token", "bits per token", "perplexity"]
        .iter()
        .map(|name| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().next().unwrap().parse().unwrap()
        })
        .collect();
    assert!((units[1] - units[0] / std::f64::consts::LN_2).abs() < 1e-3);
    assert!((units[2] - units[0].exp()).abs() < 1e-2);
}

#[test]
fn a_bad_plan_stops_before_anything_is_printed() {
    refused(2, &["loss", "--json", "--plan", "0..8", "--plan", "0..13", SPAIN], &["0..13", "^^", "12"]);
    let ended = run(&["loss", "--plan", "0..5,12", SPAIN]);
    assert_eq!(ended.stderr, "error: plan, column 6: layer 12 of 12: layers are 0..=11\n  0..5,12\n       ^^\n");
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    let answer = ["--answer", " Madrid", SPAIN];
    refused(2, &[&["loss", "--window", "64"], &answer[..]].concat(), &["--window", "--answer"]);
    refused(2, &[&["loss", "--stride", "64"], &answer[..]].concat(), &["--stride", "--answer"]);
    let seed_compat = ["loss", "--measure", "seed-compat"];
    refused(2, &[&seed_compat[..], &["--no-bos"], &answer].concat(), &["--no-bos", "seed-compat"]);
    refused(2, &[&seed_compat[..], &["--window", "64"], &answer].concat(), &["--window"]);
    refused(2, &[&seed_compat[..], &["--tokens"], &answer].concat(), &["--tokens", "seed-compat"]);
    refused(2, &[&seed_compat[..], &["--ids", "1,2"]].concat(), &["--answer"]);
}

#[test]
fn seed_compat_has_the_fields_of_a_loss() {
    let found = object(&["loss", "--json", "--measure", "seed-compat", "--answer", "Madrid", SPAIN]);
    assert_eq!(found["token_ids"], json!([0, 275, 325, 303, 1216, 292, 0, 1017]));
    assert_eq!((&found["answer_ids"], &found["bos"]), (&json!([1017]), &json!(true)));
    assert_eq!(found["seed_compat_nll"], found["nll"][6]);
    for field in ["mean_nll", "isa", "threads", "uniform_nll"] {
        assert!(!found[field].is_null(), "{field}");
    }
}
