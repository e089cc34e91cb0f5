//! What a sweep prints: JSON, CSV, tables and maps.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Place, QUESTIONS, refs, swept, told};
use crate::run::{ended, fields, floats, lesion, mini_in, objects, ok, refused, run};

/// Orders, halves, heads, groups and nothing at all.
const PLANS: [&str; 8] =
    ["0..12", "none", "11..=0", "0..7,7a,8..12", "7m", "0..4,(4|5|6|7),8..12", "0..7,7[zero h3 h5],8..12", "3*4"];

fn plan_args(plans: &[&'static str]) -> Vec<&'static str> {
    plans.iter().flat_map(|plan| ["--plan", plan]).collect()
}

#[test]
fn rows_are_the_losses_bit_for_bit() {
    let place = Place::new();
    let plans = plan_args(&PLANS);
    for precision in ["f32", "bf16"] {
        let (rows, _) = place.swept(&[&plans[..], &["--precision", precision]].concat());
        for (task, prompt, answer) in QUESTIONS {
            let answer = format!(" {answer}");
            let args = ["loss", "--json", "--precision", precision, "--no-store", "--answer", &answer, prompt];
            let losses = objects(&[&args[..], &plans].concat());
            let index = QUESTIONS.iter().filter(|other| other.0 == task).position(|other| other.1 == prompt).unwrap();
            for loss in losses {
                let found = rows
                    .iter()
                    .filter(|row| row["plan"] == loss["plan"] && row["task"] == task && row["example"] == index as u64);
                let found: Vec<&Value> = found.collect();
                assert_eq!(found.len(), 1, "{}", loss["plan"]);
                let nll = floats(&loss["answer_nll"]);
                assert_eq!(found[0]["answer_nll"].as_f64(), Some(nll.iter().sum()), "{} {prompt}", loss["plan"]);
                assert_eq!(found[0]["answer_tokens"], nll.len());
            }
        }
    }
}

#[test]
fn rows_have_the_agreed_fields_and_come_by_example_then_plan() {
    let place = Place::new();
    let (rows, summary) = place.swept(&["--family", "drop-last"]);
    let mut agreed = vec![
        "answer_nll",
        "answer_tokens",
        "correct",
        "entropy",
        "example",
        "first_rank",
        "index",
        "intact_nll",
        "kl",
        "non_finite",
        "plan",
        "schema_version",
        "task",
        "top1",
    ];
    assert!(rows.iter().all(|row| fields(row) == agreed));
    let plans: Vec<String> = (0..=12)
        .map(|dropped| ["none".into(), "0".into()].get(12 - dropped).cloned().unwrap_or(format!("0..{}", 12 - dropped)))
        .collect();
    // Tasks in the order in which they are met: the questions of each are together.
    let order: Vec<(u64, &str, u64)> =
        (0..6).map(|index| (index, if index < 3 { "sums" } else { "capitals" }, index % 3)).collect();
    let expected: Vec<Value> = order
        .iter()
        .flat_map(|(index, task, example)| plans.iter().map(move |plan| json!([index, task, example, plan])))
        .collect();
    let found: Vec<Value> =
        rows.iter().map(|row| json!([row["index"], row["task"], row["example"], row["plan"]])).collect();
    assert_eq!(found, expected);
    let tokens: u64 = rows.iter().step_by(13).map(|row| row["answer_tokens"].as_u64().unwrap()).sum();
    assert!(tokens > 6, "some answers have several tokens");
    for (field, value) in [
        ("plans", json!(13)),
        ("block_evaluations", json!(12.0)),
        ("naive_block_evaluations", json!(78.0)),
        ("scored_positions", json!(13 * tokens)),
        ("examples", json!(6)),
        ("computed_rows", json!(78)),
        ("model", json!("mini")),
        ("bos", json!(true)),
        ("shard", json!("0/1")),
    ] {
        assert_eq!(summary[field], value, "{field}");
    }
    assert!(summary["seconds"].as_f64().unwrap() > 0.0 && summary["key"].as_str().unwrap().len() == 64);
    for row in &rows {
        let number = |field: &str| row[field].as_f64().unwrap();
        let intact = &rows[13 * number("index") as usize];
        assert_eq!(intact["plan"], "0..12");
        assert_eq!(row["intact_nll"], intact["answer_nll"]);
        assert_eq!(row["plan"] == "0..12", number("kl") == 0.0, "{row}");
        assert_eq!(row["correct"], row["top1"] == row["answer_tokens"]);
        assert!(number("entropy") > 0.0 && number("first_rank") < 2048.0 && row["non_finite"] == 0);
    }

    let (bare, _) = place.swept(&["--family", "drop-last", "--no-kl", "--tokens"]);
    agreed.retain(|field| *field != "kl");
    agreed.push("token_nll");
    agreed.sort_unstable();
    for (row, whole) in bare.iter().zip(&rows) {
        assert_eq!(fields(row), agreed);
        assert_eq!(row["answer_nll"].as_f64(), Some(floats(&row["token_nll"]).iter().sum()));
        assert_eq!((&row["answer_nll"], &row["entropy"]), (&whole["answer_nll"], &whole["entropy"]));
    }
}

#[test]
fn the_cost_is_told_first() {
    let place = Place::new();
    let said = told(&refs(&place.sweep(&["--family", "drop-last"])));
    assert!(said.starts_with("13 plans on 6 examples: 12 block evaluations each instead of 78 (6.5× fewer), about "));
    assert!(said.lines().last().unwrap().starts_with("78 results, "), "{said}");
    let said = told(&refs(&place.sweep(&["--family", "skip-one", "--limit", "1", "--json"])));
    // One example of each task.
    assert!(said.starts_with("12 plans and the intact model on 2 examples: 78 block evaluations each instead of 144"));
    let said = told(&refs(&place.sweep(&["--plan", "0..8,8a", "--plan", "0..8", "--limit", "1"])));
    assert!(said.contains("12 block evaluations each instead of 28.333"), "{said}");
    // f64 shares nothing.
    let f64 = ["--plan", "0..2", "--plan", "0..3", "--limit", "1", "--precision", "f64"];
    refused(2, &refs(&place.sweep(&f64)), &["f64", "--no-kl"]);
    let (rows, summary) = place.swept(&[&f64[..], &["--no-kl"]].concat());
    assert_eq!((rows.len(), &summary["block_evaluations"]), (4, &json!(17.0)));
    assert_eq!(summary["naive_block_evaluations"], 17.0);
    let f32 = place.swept(&["--plan", "0..2", "--plan", "0..3", "--limit", "1"]).0;
    for (exact, row) in rows.iter().zip(&f32) {
        let [a, b] = [exact, row].map(|row| row["answer_nll"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-4 && a != b, "{a} and {b}");
    }
}

/// Cells of a line of CSV.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

#[test]
fn csv_has_the_same_values() {
    let place = Place::new();
    let plans = plan_args(&PLANS);
    let (rows, _) = place.swept(&plans);
    let text = ok(&refs(&place.sweep(&[&plans[..], &["--csv"]].concat())));
    let mut lines = text.lines();
    let header = cells(lines.next().unwrap());
    assert_eq!(header.len(), 13);
    let mut count = 0;
    for (line, row) in lines.zip(&rows) {
        let found = cells(line);
        assert_eq!(found.len(), header.len(), "{line}");
        for (name, cell) in header.iter().zip(&found) {
            match &row[name] {
                Value::String(text) => assert_eq!(cell, text),
                Value::Number(number) => assert_eq!(cell.parse::<f64>().unwrap(), number.as_f64().unwrap(), "{name}"),
                other => assert_eq!(cell, &other.to_string()),
            }
        }
        count += 1;
    }
    assert_eq!(count, rows.len());
    assert!(text.contains("\n\"0..4,(4|5|6|7),8..12\",sums,0,0,"), "{text}");
    // Without divergences the column is there and empty.
    let text = ok(&refs(&place.sweep(&["--plan", "3*4", "--no-kl", "--csv", "--limit", "1"])));
    let line = text.lines().nth(1).unwrap();
    assert_eq!(cells(line)[11], "", "{line}");
    refused(2, &refs(&place.sweep(&["--plan", "0", "--csv", "--json"])), &["--csv", "--json"]);
    refused(2, &refs(&place.sweep(&["--plan", "0", "--csv", "--tokens"])), &["--tokens", "--csv"]);
}

#[test]
fn an_output_file_is_written_whole_or_not_at_all() {
    let place = Place::new();
    let out = place.text("out.jsonl");
    let args = place.sweep(&["--family", "keep-first", "--json", "--output", &out]);
    assert_eq!(ok(&refs(&args)), "");
    let written = std::fs::read_to_string(&out).unwrap();
    assert_eq!(written.lines().count(), 79);
    refused(2, &refs(&args), &["out.jsonl exists", "--force"]);
    ok(&[&refs(&args)[..], &["--force"]].concat());
    let (rows, _) = place.swept(&["--family", "keep-first"]);
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[..78], rows);
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 2, "no partial file is left");
    refused(3, &refs(&place.sweep(&["--plan", "0", "--json", "--output", "no-such-folder/x"])), &["no-such-folder/x"]);
}

#[test]
fn tables_are_sorted_and_have_a_map() {
    let place = Place::new();
    let text = ok(&refs(&place.sweep(&["--family", "skip-one"])));
    let table: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert!(table[0].starts_with("all tasks: 6 examples, ") && table[1].contains("nats/token"), "{text}");
    assert!(table[2].starts_with("intact "), "{text}");
    let losses: Vec<f64> =
        table[3..].iter().map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap()).collect();
    assert!(losses.len() == 12 && losses.is_sorted(), "{losses:?}");
    assert!(table[14].ends_with(&"█".repeat(16)), "the worst has the longest bar: {text}");
    assert!(text.contains("\nsums: 3 examples, ") && text.contains("\ncapitals: 3 examples, "), "{text}");
    assert!(!text.contains('\u{1b}') && !text.lines().any(|line| line.ends_with(' ')), "{text}");
    // The means are those of the rows.
    let (rows, _) = place.swept(&["--plan", "1..12"]);
    let sum = |field: &str| rows.iter().map(|row| row[field].as_f64().unwrap()).sum::<f64>();
    let mean = format!("{:.4}", sum("answer_nll") / sum("answer_tokens"));
    assert!(table.iter().any(|line| line.starts_with("1..12 ") && line.contains(&mean)), "{mean}: {text}");

    let text = ok(&refs(&place.sweep(&["--family", "skip-one", "--sort", "plan", "--top", "2"])));
    let plans: Vec<&str> = text.lines().skip(2).take(4).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(plans, ["intact", "1..12", "0,2..12", "…"], "{text}");
    assert!(text.contains("… and 10 plans more: --top 0 shows all"), "{text}");
    let all = ok(&refs(&place.sweep(&["--family", "skip-pairs", "--top", "0"])));
    assert!(!all.contains("more: --top"), "{all}");

    // A map: rows and columns of layers, the upper triangle filled.
    let map: Vec<&str> = all.lines().skip_while(|line| !line.starts_with("skip-pairs: ")).collect();
    assert_eq!(
        map[1].split_whitespace().collect::<Vec<_>>(),
        ["first", "↓", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "→", "second"]
    );
    for (i, line) in map[2..13].iter().enumerate() {
        assert_eq!(line.split_whitespace().count(), 12 - i, "{line}");
    }
    // A wide one is shades alone.
    let wide = ok(&refs(&place.sweep(&["--family", "repeat-one x1..40", "--limit", "1", "--top", "1"])));
    let map: Vec<&str> = wide.lines().skip_while(|line| !line.starts_with("repeat-one x1..40: ")).collect();
    assert!(map[1].contains("→ times 1 … 39") && map[2].starts_with("0 ") && map[2].contains('░'), "{wide}");
    assert!(map[2..14].iter().any(|line| line.contains('█')), "{wide}");
}

/// What a file calls a task can't speak to the terminal.
#[test]
fn names_are_printed_escaped() {
    let place = Place::new();
    let lines = [
        r#"{"prompt": "8 + 10 =", "answer": "18", "task": "a\u001b[31m\u0007"}"#,
        r#"{"prompt": "1 + 2 =", "answer": "3", "task": "b"}"#,
    ];
    let pairs = place.write("odd.jsonl", lines.join("\n").as_bytes());
    for args in [
        &["--family", "skip-pairs", "--top", "1"][..],
        &["--family", "skip-one", "--plot"],
        &["--plan", "0..3", "--task", "a\u{1b}[31m\u{7}"],
    ] {
        let printed = ok(&[&["sweep", "--no-store", "--pairs", &pairs], args].concat());
        assert!(!printed.contains(['\u{1b}', '\u{7}']) && printed.contains("a\\u{1b}[31m"), "{printed}");
    }
}

#[test]
fn colour_is_for_who_asks_for_it() {
    let place = Place::new();
    let args = place.sweep(&["--family", "skip-pairs", "--limit", "1"]);
    let coloured = |name: &str| {
        let run = ended(lesion().args(&args).env(name, "1").output().unwrap());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        run.stdout
    };
    let (forced, plain, never) = (coloured("CLICOLOR_FORCE"), ok(&refs(&args)), coloured("NO_COLOR"));
    assert!(forced.contains("\u{1b}[31m") && forced.contains("\u{1b}[48;5;"), "bars and maps: {forced}");
    assert_eq!(plain, never);
    assert!(!plain.contains('\u{1b}'));
    let stripped: String = forced
        .split('\u{1b}')
        .enumerate()
        .map(|(i, part)| if i == 0 { part } else { &part[part.find('m').unwrap() + 1..] })
        .collect();
    assert_eq!(stripped, plain, "colour changes nothing else");
}

#[test]
fn seeds_move_intervals_and_nothing_else() {
    let place = Place::new();
    let table = |seed: &str| ok(&refs(&place.sweep(&["--family", "skip-one", "--seed", seed])));
    assert_eq!(table("1"), table("1"));
    assert_ne!(table("1"), table("2"));
    let rows = |seed: &str| place.swept(&["--family", "skip-one", "--seed", seed]).0;
    assert_eq!(rows("1"), rows("2"));
}

#[test]
fn nan_is_a_result() {
    let place = Place::new();
    let model = mini_in(place.folder.path());
    crate::files::poison(&model, &crate::files::tensor_of(&model, "h.5.mlp.c_fc.weight"));
    let model = ["--model", model.to_str().unwrap(), "--family", "keep-first"];
    let (rows, _) = place.swept(&model);
    for row in &rows {
        let broken =
            ["0..6", "0..7", "0..8", "0..9", "0..10", "0..11", "0..12"].contains(&row["plan"].as_str().unwrap());
        assert_eq!(row["answer_nll"] == "NaN", broken, "{row}");
        assert_eq!(row["non_finite"] == row["answer_tokens"], broken, "{row}");
        assert!(row["kl"] == "NaN" && row["correct"] != broken || !broken, "the intact model is none: {row}");
    }
    let run = run(&refs(&place.sweep(&model)));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("warning") && run.stdout.contains("not finite"), "{}", run.stdout);
    let table: Vec<&str> = run.stdout.lines().take_while(|line| !line.is_empty()).collect();
    assert!(table.last().unwrap().contains("NaN"), "NaN comes last: {}", run.stdout);
    let csv = ok(&refs(&place.sweep(&[&model[..], &["--csv"]].concat())));
    assert!(csv.contains("\n0..12,sums,0,0,NaN,"), "{csv}");
    refused(3, &refs(&place.sweep(&[&model[..], &["--require-finite"]].concat())), &["NaN", "h.5.mlp.c_fc.weight"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let pairs = place.many("many.jsonl", 200);
    for format in ["--json", "--csv"] {
        let args = ["sweep", "--family", "skip-one", "--pairs", &pairs, "--no-store", format];
        let mut child = lesion().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("error") && !ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
    // What was computed is there all the same.
    let rows = place.text("rows");
    let args = ["sweep", "--family", "skip-one", "--pairs", &pairs, "--results", &rows, "--json"];
    let mut child = lesion().args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let (_, summary) = swept(&args);
    assert!(summary["computed_rows"].as_u64().unwrap() < 2_400, "{summary}");
}

#[test]
fn families_of_any_size_are_counted_first() {
    let place = Place::new();
    for (family, parts) in [
        ("permutations 0..12", &["479001600 plans", "262144 are possible"][..]),
        ("delete 6 seeds 0..1000000000000", &["1000000000000 plans", "262144"]),
        ("shuffle-window seeds 0..18446744073709551615", &["18446744073709551615 plans", "262144"]),
        ("repeat-one x2..100000", &["1199976 plans", "262144"]),
        ("repeat-one x2..20000", &["8388608 blocks"]),
        ("permutations 0..13", &["0..13", "0..=11"]),
        ("subsetz", &["no family is called `subsetz`", "subsets"]),
        ("subsets x3", &["`x3`"]),
        ("delete seeds 0..3", &["delete"]),
        ("skip-window w5..5", &["w5..5", "empty"]),
    ] {
        refused(2, &refs(&place.sweep(&["--family", family, "--json"])), &[&["family"], parts].concat());
    }
    let two = ["--family", "permutations 0..8", "--family", "delete 3 seeds 0..250000"];
    refused(2, &refs(&place.sweep(&two)), &["290320 plans in all; 262144 are possible"]);
    refused(2, &refs(&place.sweep(&[])), &["no plans", "--family"]);
    // One that is named twice runs once.
    let (rows, summary) = place.swept(&["--family", "keep-first", "--family", "drop-last", "--plan", "0..3"]);
    assert_eq!((rows.len(), &summary["plans"]), (6 * 13, &json!(13)));
}
