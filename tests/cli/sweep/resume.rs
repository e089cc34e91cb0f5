//! Sweeps that are killed, interrupted, or go on from a file that is not theirs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Place, refs, row_lines, swept};
use crate::run::{assert_refused, ended, lesion, mini_in, ok, refused, run};

pub(super) fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// The arguments of a sweep over a file of pairs, its results in another.
fn sweep(pairs: &str, results: &str, more: &[&str]) -> Vec<String> {
    let own = ["sweep", "--pairs", pairs, "--results", results];
    own.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
}

fn computed(args: &[String]) -> u64 {
    swept(&[&refs(args)[..], &["--json"]].concat()).1["computed_rows"].as_u64().unwrap()
}

#[test]
fn what_is_there_is_not_computed_again() {
    let place = Place::new();
    let (pairs, results) = (place.text("pairs.jsonl"), place.text("rows"));
    for more in [&["--json"][..], &["--json", "--tokens"], &["--csv"], &["--json", "--no-kl"]] {
        let args = sweep(&pairs, &results, &[&["--family", "skip-pairs"], more].concat());
        let first = ok(&refs(&args));
        let again = ok(&refs(&args));
        if more == ["--csv"] {
            assert_eq!(first, again);
        } else {
            assert_eq!(row_lines(&first), row_lines(&again), "{more:?}");
            assert!(first.contains("\"computed_rows\":396,") && again.contains("\"computed_rows\":0,"), "{again}");
        }
        fs::remove_file(&results).unwrap();
    }
    let args = sweep(&pairs, &results, &["--family", "skip-one"]);
    let (first, again) = (run(&refs(&args)), run(&refs(&args)));
    assert_eq!((first.code, &first.stdout), (Some(0), &again.stdout), "{}", first.stderr);
    assert!(first.stderr.contains("72 results, ") && first.stderr.contains("kept in "), "{}", first.stderr);
    assert!(again.stderr.contains("all 72 results were there, nothing was computed"), "{}", again.stderr);
    assert_eq!(again.stderr.matches(&results).count(), 1);
    // Neither threads nor memory nor how many examples are asked for makes it another sweep.
    let fresh = place.text("fresh");
    assert_eq!(computed(&sweep(&pairs, &fresh, &["--family", "skip-one", "--limit", "1", "--threads", "1"])), 24);
    assert_eq!(computed(&sweep(&pairs, &fresh, &["--family", "skip-one", "--limit", "1", "--memory", "64MB"])), 0);
    let all = sweep(&pairs, &place.text("all"), &["--family", "skip-one", "--json"]);
    assert_eq!(row_lines(&ok(&refs(&all))).lines().count(), 72);
    // Texts, too.
    let text = place.write("t.txt", "One day, Tom went to the park with his dog. ".repeat(40).as_bytes());
    let args =
        ["sweep", "--text", &text, "--plan", "0..6", "--json", "--results", &place.text("text-rows"), "--window", "50"];
    let (first, again) = (ok(&args), ok(&args));
    assert_eq!(row_lines(&first), row_lines(&again));
    assert!(again.contains("\"computed_rows\":0,"), "{again}");
}

/// A number of repetitions; the environment may ask for more.
fn kills() -> usize {
    std::env::var("LESION_TEST_KILLS").map_or(50, |text| text.parse().unwrap())
}

/// Killed at any moments, with any numbers of threads and amounts of memory, it ends with the rows of one that never was.
#[test]
fn a_sweep_that_is_killed_again_and_again_ends_as_if_it_had_not_been() {
    let place = Place::new();
    // A chunk holds about a dozen of these.
    let line = |i: usize| {
        format!(
            r#"{{"prompt": "Day {i}: {}the capital of Spain is", "answer": "Madrid"}}"#,
            "a dog and ".repeat(20 + i % 9)
        )
    };
    let pairs = place.write("long.jsonl", (0..90).map(line).collect::<Vec<_>>().join("\n").as_bytes());
    let results = place.text("rows");
    let plans = ["--family", "keep-first", "--json"];
    let whole = ok(&[&["sweep", "--pairs", &pairs, "--no-store"], &plans[..]].concat());
    let length = || fs::metadata(&results).map_or(0, |file| file.len());
    let mut seed = 11_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let (mut killed, mut resumed, mut before) = (0, 0, 0);
    while killed < kills() {
        let memory = ["24MB", "64MB", "1GB"][random(3) as usize];
        let threads = ["1", "2", "3"][random(3) as usize];
        let more = [&plans[..], &["--threads", threads, "--memory", memory]].concat();
        let args = sweep(&pairs, &results, &more);
        let mut child = lesion().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || std::io::read_to_string(stdout).unwrap());
        // Some milliseconds after it was started, or after it has kept so many times more.
        let (mut keeps, mut last) = (random(4), length());
        while keeps > 0 && child.try_wait().unwrap().is_none() {
            let now = length();
            keeps -= u64::from(now > last);
            last = now;
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random(60_000)));
        child.kill().unwrap();
        let ended = ended(child.wait_with_output().unwrap());
        let printed = reader.join().unwrap();
        assert!(ended.code.is_none() || ended.code == Some(0), "{args:?}: {}", ended.stderr);
        if ended.code == Some(0) {
            // It was faster.
            assert_eq!(row_lines(&printed), row_lines(&whole), "{memory} {threads}");
            fs::remove_file(&results).unwrap();
            before = 0;
            continue;
        }
        // What it printed before is right as far as it goes.
        let lines = &printed[..printed.rfind('\n').map_or(0, |at| at + 1)];
        assert!(whole.starts_with(lines), "{memory} {threads}");
        killed += 1;
        // It had rows, and has more.
        resumed += usize::from(before > 200 && length() > before);
        before = length();
    }
    assert!(kills() < 50 || resumed > 5, "few files grew from kill to kill: {resumed}");
    let last = ok(&refs(&sweep(&pairs, &results, &plans)));
    assert_eq!(row_lines(&last), row_lines(&whole));
    println!("{killed} kills, {resumed} of which of sweeps that had gone on");
}

#[test]
fn control_c_finishes_what_is_in_flight_and_tells_how_to_go_on() {
    let place = Place::new();
    let (pairs, results) = (place.many("many.jsonl", 400), place.text("rows"));
    let plans = ["--family", "skip-pairs", "--json", "--memory", "24MB"];
    let args = sweep(&pairs, &results, &plans);
    let mut child = lesion().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    interrupt(&child);
    let rest = std::io::read_to_string(&mut stdout).unwrap();
    let first = ended(child.wait_with_output().unwrap());
    assert_eq!(first.code, Some(130), "{}", first.stderr);
    assert!(first.stderr.contains("error: interrupted") && !first.stderr.contains("panicked"), "{}", first.stderr);
    assert!(
        first.stderr.contains(&format!("kept in {results}: the same command goes on from there")),
        "{}",
        first.stderr
    );
    assert!(!rest.contains("summary") && rest.ends_with('\n'), "whole rows, and no end: {rest}");
    let whole = ok(&[&["sweep", "--pairs", &pairs, "--no-store"], &plans[..]].concat());
    let again = ok(&refs(&args));
    assert_eq!(row_lines(&again), row_lines(&whole));
    let (_, summary) = swept(&refs(&args));
    assert_eq!(summary["computed_rows"], 0);
    assert!(!again.contains("\"computed_rows\":26400,"), "it went on: {again}");

    // Without a place for results there is nothing to go on from; the second signal ends it at once.
    let mut child = lesion()
        .args(["sweep", "--family", "subsets", "--pairs", &pairs, "--no-store", "--threads", "1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    interrupt(&child);
    interrupt(&child);
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{}", ended.stderr);
    assert!(!ended.stderr.contains("goes on from there"), "{}", ended.stderr);
}

#[test]
fn a_damaged_file_is_refused_and_a_torn_end_is_cut() {
    let place = Place::new();
    let (pairs, results) = (place.text("pairs.jsonl"), place.text("rows"));
    let args = sweep(&pairs, &results, &["--family", "skip-one"]);
    let table = ok(&refs(&args));
    let whole = fs::read(&results).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 1 + 13 * 6, "a header, twelve plans and the intact one");
    let at = lines[..40].iter().map(|line| line.len()).sum::<usize>();
    let mut flipped = whole.clone();
    flipped[at + 30] ^= 1;
    fs::write(&results, &flipped).unwrap();
    refused(3, &refs(&args), &["rows, line 41: damaged"]);
    assert_eq!(fs::read(&results).unwrap(), flipped, "a refused file is left as it is");
    for other in
        [&b"not results\n"[..], b"", &whole[..12], &whole[..at + 50], &[&whole[..], b"5f5f5f5f {\"example\""].concat()]
    {
        fs::write(&results, other).unwrap();
        if other.starts_with(b"not") {
            refused(3, &refs(&args), &["rows holds no results of a sweep"]);
            continue;
        }
        assert_eq!(ok(&refs(&args)), table);
        let mut found: Vec<Vec<u8>> =
            fs::read(&results).unwrap().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let mut expected: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "each row once, whole");
    }
    refused(3, &refs(&sweep(&pairs, place.folder.path().to_str().unwrap(), &["--plan", "0"])), &["can't open"]);
    refused(3, &refs(&sweep(&pairs, "no-such-folder/rows", &["--plan", "0"])), &["no-such-folder/rows"]);
}

#[test]
fn another_sweep_has_another_key() {
    let place = Place::new();
    let (pairs, results) = (place.text("pairs.jsonl"), place.text("rows"));
    let model = mini_in(place.folder.path());
    let model = model.to_str().unwrap();
    assert_eq!(computed(&sweep(&pairs, &results, &["--plan", "0..8"])), 6);
    // The embedded model is the same one.
    assert_eq!(computed(&sweep(&pairs, &results, &["--plan", "0..8", "--model", model])), 0);
    assert_eq!(computed(&sweep(&pairs, &results, &["--plan", "drop-last 4"])), 0);
    let before = fs::read(&results).unwrap();
    for other in [
        &["--plan", "0..7"][..],
        &["--plan", "0..8", "--plan", "0..7"],
        &["--plan", "0..8", "--isa", "portable"],
        &["--plan", "0..8", "--precision", "bf16"],
        &["--plan", "0..8", "--no-bos"],
        &["--plan", "0..8", "--no-kl"],
        &["--plan", "0..8", "--tokens", "--json"],
    ] {
        refused(
            2,
            &refs(&sweep(&pairs, &results, other)),
            &["rows belongs to another sweep: its key is ", "--results FILE"],
        );
    }
    let weights = format!("{model}/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    refused(2, &refs(&sweep(&pairs, &results, &["--plan", "0..8", "--model", model])), &["belongs to another sweep"]);
    // The same plans on other questions.
    let lines = fs::read_to_string(&pairs).unwrap();
    let swapped: Vec<&str> = lines.lines().rev().collect();
    let other = place.write("other.jsonl", swapped.join("\n").as_bytes());
    refused(
        2,
        &refs(&sweep(&other, &results, &["--plan", "0..8"])),
        &["example 0 is not the one whose results are kept"],
    );
    assert_eq!(fs::read(&results).unwrap(), before);
    // More of them: the first are the same.
    let more = place.write(
        "more.jsonl",
        format!("{lines}\n{{\"prompt\": \"1 +\", \"answer\": \"1\", \"task\": \"z\"}}").as_bytes(),
    );
    assert_eq!(computed(&sweep(&more, &results, &["--plan", "0..8"])), 1);
}

#[test]
fn one_process_at_a_time_writes_a_file() {
    let place = Place::new();
    let results = place.text("rows");
    let args = ["sweep", "--text", "-", "--plan", "0..8", "--results", &results];
    // It holds its file while it waits for its text.
    let mut child =
        lesion().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while fs::metadata(&results).map_or(0, |file| file.len()) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let other = crate::run::with_stdin(&args, b"One day, Tom went to the park.");
    assert_refused(other, 4, &["rows is in use by another process"]);
    child.stdin.take().unwrap().write_all(b"One day, Tom went to the park.").unwrap();
    let first = ended(child.wait_with_output().unwrap());
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(crate::run::with_stdin(&args, b"One day, Tom went to the park.").stderr.contains("nothing was computed"));
}
