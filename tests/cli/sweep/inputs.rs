//! What a sweep reads: tasks, pairs, texts and plans, from files and stdin, good ones and bad ones.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Place, refs, row_lines, swept};
use crate::run::{Ended, assert_refused, ended, floats, lesion, object, refused, run, with_stdin};

const TEXT: &str = "One day, Tom's dog ran to the park. \"It is 8 + 10 = 18,\" said the café owner.\n\n";

/// The same arguments with a file's name, and with `-` and its bytes on stdin.
fn by_file_and_by_stdin(place: &Place, args: &[&str], option: &str, bytes: &[u8]) -> [Ended; 2] {
    let file = place.write("input", bytes);
    [run(&[args, &[option, &file]].concat()), with_stdin(&[args, &[option, "-"]].concat(), bytes)]
}

#[test]
fn texts_are_windows_whose_losses_are_the_text_s() {
    let place = Place::new();
    let text = TEXT.repeat(16);
    let file = place.write("story.txt", text.as_bytes());
    for (more, loss) in [
        (&[][..], &[][..]),
        (&["--window", "64", "--stride", "20"], &["--window", "64", "--stride", "20"]),
        (&["--no-bos", "--window", "100"], &["--no-bos", "--window", "100"]),
    ] {
        let args = ["sweep", "--text", &file, "--plan", "0..8", "--plan", "0..12", "--tokens", "--json", "--no-store"];
        let (rows, summary) = swept(&[&args[..], more].concat());
        for (plan, which) in [("0..8", 0), ("0..12", 1)] {
            let own = rows.iter().skip(which).step_by(2).inspect(|row| assert_eq!(row["plan"], plan));
            let nll: Vec<f64> = own.flat_map(|row| floats(&row["token_nll"])).collect();
            let whole = object(&[&["loss", "--json", "--no-store", "--plan", plan, "--file", &file], loss].concat());
            assert_eq!(nll, floats(&whole["nll"]), "{plan} {more:?}");
        }
        assert_eq!(summary["examples"], rows.len() / 2);
        assert!(rows.len() > 4 && rows.iter().enumerate().all(|(i, row)| row["example"] == i / 2));
        assert_eq!(rows[0]["task"], file.as_str());
    }
}

#[test]
fn stdin_is_a_file_like_others() {
    let place = Place::new();
    let sweep = ["sweep", "--plan", "0..8", "--json", "--no-store"];
    let pairs = fs::read(place.path("pairs.jsonl")).unwrap();
    let tasks = br#"{"tasks": [{"name": "t", "examples": [{"prompt": "8 + 10 =", "answer": "18"}]}]}"#;
    for (option, bytes) in [("--text", TEXT.as_bytes()), ("--pairs", &pairs), ("--tasks", tasks)] {
        let [file, stdin] = by_file_and_by_stdin(&place, &sweep, option, bytes).map(|ended| {
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
        });
        let values = |rows: &[Value]| rows.iter().map(|row| row["answer_nll"].clone()).collect::<Vec<_>>();
        assert_eq!(values(&file), values(&stdin), "{option}");
        assert!(option != "--text" || stdin[0]["task"] == "stdin");
    }
    // Plans come that way, too; nothing is read twice.
    let args = ["sweep", "--pairs", &place.text("pairs.jsonl"), "--json", "--no-store", "--plans", "-"];
    let found = with_stdin(&args, b"# two\n0..8\n[{\"layer\": 3}]\n");
    assert_eq!((found.code, found.stdout.lines().count()), (Some(0), 13), "{}", found.stderr);
    for twice in [["--pairs", "-", "--text", "-"], ["--pairs", "-", "--plans", "-"], ["--tasks", "-", "--pairs", "-"]] {
        let found = with_stdin(&[&["sweep", "--plan", "0"], &twice[..]].concat(), &pairs);
        assert_refused(found, 2, &["stdin can be read once"]);
    }
    let search = with_stdin(&["search", "--keep", "0.9", "--pairs", "-", "--tasks", "-"], &pairs);
    assert_refused(search, 2, &["stdin can be read once"]);
}

/// Rows come before the text has ended: it is not in memory first.
#[test]
fn a_text_streams() {
    let args = ["sweep", "--text", "-", "--plan", "none", "--no-kl", "--json", "--no-store"];
    let mut child =
        lesion().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // A megabyte is read at a time.
    let writer =
        std::thread::spawn(move || stdin.write_all(TEXT.repeat((2 << 20) / TEXT.len()).as_bytes()).map(|()| stdin));
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let row: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&row["plan"], &row["answer_tokens"]), (&json!("none"), &json!(255)));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(writer.join());
}

#[test]
fn tasks_are_chosen_and_limited() {
    let place = Place::new();
    let order = |args: &[&str]| -> Vec<String> {
        let (rows, summary) = place.swept(&[&["--plan", "0..3"], args].concat());
        assert_eq!(summary["examples"], rows.len());
        rows.iter().map(|row| format!("{} {}", row["task"].as_str().unwrap(), row["example"])).collect()
    };
    assert_eq!(order(&["--task", "capitals"]), ["capitals 0", "capitals 1", "capitals 2"]);
    assert_eq!(order(&["--limit", "1"]), ["sums 0", "capitals 0"]);
    assert_eq!(order(&["--task", "capitals", "--task", "sums", "--limit", "2"]).len(), 4);
    let story = place.write("story.txt", TEXT.repeat(20).as_bytes());
    let tasks =
        place.write("t.json", br#"[{"name": "t", "join": "", "examples": [{"prompt": "8 + 10 ", "answer": "= 18"}]}]"#);
    let all = order(&["--text", &story, "--tasks", &tasks, "--limit", "2"]);
    assert_eq!(
        all,
        ["t 0", "sums 0", "sums 1", "capitals 0", "capitals 1", &format!("{story} 0"), &format!("{story} 1")]
    );

    refused(2, &refs(&place.sweep(&["--plan", "0", "--task", "wars"])), &["--task wars", "sums, capitals"]);
    refused(2, &refs(&place.sweep(&["--plan", "0", "--limit", "0"])), &["--limit"]);
    let twice = place.write("again.jsonl", br#"{"prompt": "1 +", "answer": "1", "task": "sums"}"#);
    refused(2, &refs(&place.sweep(&["--plan", "0", "--pairs", &twice])), &["`sums` is given twice"]);
    refused(2, &["sweep", "--plan", "0"], &["no examples", "--pairs"]);
    refused(2, &refs(&place.sweep(&["--plan", "0", "--window", "30"])), &["--text"]);
    for (args, parts) in [
        (["--window", "257"], &["--window 257", "256"][..]),
        (["--window", "1"], &["--window 1"]),
        (["--stride", "256"], &["--stride 256", "255"]),
    ] {
        refused(2, &[&["sweep", "--plan", "0", "--text", &story], &args[..]].concat(), parts);
    }
}

/// What joins prompt and answer is part of what is scored.
#[test]
fn joins_are_as_the_file_says() {
    let place = Place::new();
    let pairs = place.write(
        "j.jsonl",
        b"{\"prompt\": \"The capital of Spain is\", \"answer\": \"Madrid\"}\n\n{\"prompt\": \"The capital of Spain is \", \"answer\": \"Madrid\", \"join\": \"\"}\n",
    );
    let (rows, _) = swept(&["sweep", "--plan", "0..12", "--pairs", &pairs, "--json", "--no-store"]);
    for (row, (prompt, answer)) in
        rows.iter().zip([("The capital of Spain is", " Madrid"), ("The capital of Spain is ", "Madrid")])
    {
        let loss = object(&["loss", "--json", "--no-store", "--answer", answer, prompt]);
        assert_eq!(row["answer_nll"].as_f64(), Some(floats(&loss["answer_nll"]).iter().sum()));
        assert_eq!(row["task"], "j", "without a name it is the file's");
    }
}

#[test]
fn bad_files_are_refused_with_their_place() {
    let place = Place::new();
    let long = format!("{{\"prompt\": \"{}\", \"answer\": \"x\"}}", "a dog ".repeat(200));
    let good = r#"{"prompt": "p", "answer": "q"}"#;
    let pair = |bad: &str| format!("{good}\n{bad}\n{good}").into_bytes();
    let cases: [(&str, Vec<u8>, i32, &[&str]); 19] = [
        ("--pairs", pair(r#"{"prompt": "p", "answr": "q"}"#), 3, &["line 2", "answr"]),
        ("--pairs", pair(r#"{"prompt": "p", "answer": "q", "answer": "r"}"#), 3, &["line 2", "answer is given twice"]),
        ("--pairs", pair(r#"{"prompt": "p"}"#), 3, &["line 2", "answer"]),
        ("--pairs", pair(r#"{"prompt": "p", "answer": 7}"#), 3, &["line 2"]),
        ("--pairs", pair(r#"{"prompt": "p", "answer": ""}"#), 3, &["line 2", "example 1: the answer is empty"]),
        ("--pairs", pair("not JSON"), 3, &["line 2"]),
        ("--pairs", pair(&long), 2, &["task `bad`, example 1: ", " tokens: the model's context is 256 (n_positions)"]),
        ("--pairs", [good.as_bytes(), b"\n{\"prompt\": \"\xff\"}"].concat(), 3, &["not UTF-8 at byte 43"]),
        ("--pairs", Vec::new(), 3, &["no pairs"]),
        ("--tasks", b"[{\"name\": \"t\",\n\"exmaples\": []}]".to_vec(), 3, &["exmaples", "line 2 column 10"]),
        ("--tasks", br#"[{"name": "t", "name": "u", "examples": []}]"#.to_vec(), 3, &["duplicate field `name`"]),
        ("--tasks", b"[{\"name\": \"t\xff\"}]".to_vec(), 3, &["line 1"]),
        (
            "--tasks",
            format!("[{{\"name\": \"t\", \"examples\": [{long}]}}]").into_bytes(),
            2,
            &["task `t`, example 0: ", "256"],
        ),
        ("--tasks", b"[".repeat(200), 3, &["line 1"]),
        ("--text", b"One day\xff".to_vec(), 3, &["not UTF-8 at byte 7"]),
        ("--text", Vec::new(), 3, &["none of which can be predicted"]),
        (
            "--plans",
            b"0..8\n0..5,12\n".to_vec(),
            3,
            &["line 2: plan, column 6: layer 12 of 12: layers are 0..=11", "     ^^"],
        ),
        ("--plans", b"0..8\n\n[{\"layer\": 12}]\n".to_vec(), 3, &["line 3", "layer 12 of 12: layers are 0..=11"]),
        ("--plans", b"0..8\n\xff".to_vec(), 3, &["not UTF-8 at byte 5"]),
    ];
    for (option, bytes, code, parts) in cases {
        let file = place.write("bad.x", &bytes);
        let mut args = vec!["sweep", "--json", "--no-store", option, &file];
        let pairs = place.text("pairs.jsonl");
        if option == "--plans" {
            args.extend(["--pairs", &pairs])
        } else {
            args.extend(["--plan", "0..8"])
        };
        refused(code, &args, &[&["bad.x"], parts].concat());
    }
    for option in ["--pairs", "--tasks", "--text", "--plans"] {
        let plan = if option == "--plans" { "--family" } else { "--plan" };
        refused(
            3,
            &["sweep", plan, if plan == "--plan" { "0" } else { "subsets" }, option, "no-such-file"],
            &["no-such-file"],
        );
    }
    // What is piped as a prompt is the command line's.
    let piped = with_stdin(&["sweep", "--plan", "0", "--text", "-"], b"One day\xff");
    assert_refused(piped, 2, &["stdin: not UTF-8 at byte 7"]);
}

#[test]
fn an_empty_prompt_needs_bos() {
    let place = Place::new();
    let pairs = place.write(
        "e.jsonl",
        b"{\"prompt\": \"One\", \"answer\": \"day\"}\n{\"prompt\": \"\", \"answer\": \"One\", \"join\": \"\"}",
    );
    let args = ["sweep", "--plan", "0..12", "--pairs", &pairs, "--json", "--no-store"];
    let (rows, _) = swept(&args);
    let loss = object(&["loss", "--json", "--no-store", "--answer", "One", ""]);
    assert_eq!(rows[1]["answer_nll"].as_f64(), Some(floats(&loss["answer_nll"]).iter().sum()));
    refused(2, &[&args[..], &["--no-bos"]].concat(), &["e.jsonl", "task `e`, example 1"]);
}

/// As long as the model can see, and one token more.
#[test]
fn nothing_is_cut() {
    let place = Place::new();
    let pairs = |dogs: usize| {
        let prompt = " dog".repeat(dogs);
        place.write("l.jsonl", format!("{{\"prompt\": \"{prompt}\", \"answer\": \"dog\"}}").as_bytes())
    };
    // BOS, the dogs, and the answer's one.
    let file = pairs(254);
    let (rows, _) = swept(&["sweep", "--plan", "0..12", "--pairs", &file, "--json", "--no-store"]);
    assert_eq!(rows[0]["answer_tokens"], 1);
    let file = pairs(255);
    refused(2, &["sweep", "--plan", "0..12", "--pairs", &file], &["l.jsonl, task `l`, example 0: 257 tokens", "256"]);
    // Examples that are in order are not run before one that isn't.
    let both = place.write(
        "b.jsonl",
        &[fs::read(place.path("pairs.jsonl")).unwrap(), b"\n".to_vec(), fs::read(file).unwrap()].concat(),
    );
    refused(2, &["sweep", "--plan", "0..12", "--pairs", &both, "--json"], &["task `b`, example 0: 257 tokens"]);
    refused(2, &["search", "--keep", "0.9", "--pairs", &both, "--json"], &["task `b`, example 0: 257 tokens"]);
}

#[cfg(unix)]
#[test]
fn paths_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let odd = |name: &[u8], bytes: &[u8]| {
        let path = place.path("x").with_file_name(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, bytes).unwrap();
        path
    };
    let pairs = odd(b"pa\xffirs.jsonl", b"{\"prompt\": \"8 + 10 =\", \"answer\": \"18\"}");
    let tasks = odd(b"ta\xffsks", br#"[{"name": "t", "examples": [{"prompt": "8 + 10 =", "answer": "18"}]}]"#);
    let (text, plans) = (odd(b"te\xffxt", TEXT.as_bytes()), odd(b"pl\xffans", b"0..8"));
    let out = place.path("x").with_file_name(std::ffi::OsStr::from_bytes(b"o\xffut"));
    let rows = place.path("x").with_file_name(std::ffi::OsStr::from_bytes(b"ro\xffws"));
    let mut command = lesion();
    command.args(["sweep", "--json"]);
    for (option, path) in [
        ("--pairs", &pairs),
        ("--tasks", &tasks),
        ("--text", &text),
        ("--plans", &plans),
        ("--output", &out),
        ("--results", &rows),
    ] {
        command.arg(option).arg(path);
    }
    let found = ended(command.output().unwrap());
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let written = fs::read_to_string(&out).unwrap();
    assert_eq!(row_lines(&written).lines().count(), 3);
    assert!(rows.is_file() && written.contains("pa\u{fffd}irs"), "{written}");
    let merged = ended(lesion().arg("merge").arg(&out).output().unwrap());
    assert_eq!((merged.code, row_lines(&merged.stdout)), (Some(0), row_lines(&written)), "{}", merged.stderr);
}

/// A pipe that never ends is no reason not to end.
#[test]
fn control_c_ends_a_wait_for_examples() {
    for option in ["--pairs", "--text"] {
        let mut child = lesion()
            .args(["sweep", "--plan", "0..8", "--no-store", option, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"{\"prompt\": \"p\"").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(700));
        super::resume::interrupt(&child);
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{option}: {}", ended.stderr);
        drop(stdin);
    }
}
