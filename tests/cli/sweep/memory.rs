//! The memory of whole processes: what the system says they hold, again and again while they run, stays within `--memory`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::Place;
use crate::run::{ended, lesion, ok, refused};

/// Bytes of anonymous memory that a process holds; none once it has ended.
fn anonymous(child: &Child) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib * 1024)
}

/// Runs to success; the most it held.
fn peak(args: &[&str]) -> usize {
    let mut child = lesion().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || stdout.lines().count());
    let mut peak = 0;
    while let Some(bytes) = anonymous(&child) {
        peak = peak.max(bytes);
        std::thread::sleep(Duration::from_millis(1));
    }
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    println!("{:.1} MB, {} lines: {args:?}", peak as f64 / 1e6, reader.join().unwrap());
    peak
}

/// States, rows for a file, rows of every token, rows that are there, tables: all of it counts.
#[test]
fn a_process_stays_within_its_memory() {
    let place = Place::new();
    let (pairs, rows) = (place.many("many.jsonl", 130), place.text("rows"));
    let text = place.write("t.txt", "One day, Tom went to the park with his dog. ".repeat(120).as_bytes());
    let out = place.text("out.jsonl");
    let subsets = ["sweep", "--family", "subsets 4..12", "--pairs", &pairs];
    let permutations = ["sweep", "--family", "permutations 6..12", "--pairs", &pairs, "--limit", "2"];
    let tokens = ["sweep", "--family", "subsets 7..12", "--text", &text, "--json", "--tokens", "--no-store"];
    for (args, megabytes, least) in [
        (&[&subsets[..], &["--json", "--output", &out, "--results", &rows]].concat()[..], 64, 32),
        (&[&subsets[..], &["--json", "--results", &rows]].concat(), 64, 0),
        (&[&subsets[..], &["--limit", "70"]].concat(), 64, 20),
        (&tokens, 64, 20),
        (&[&permutations[..], &["--csv", "--no-store"]].concat(), 96, 0),
        (&[&subsets[..], &["--limit", "70", "--no-store"]].concat(), 256, 32),
    ] {
        let budget = format!("{megabytes}MB");
        let found = peak(&[args, &["--memory", &budget]].concat());
        assert!(found <= megabytes * 1_000_000, "{args:?}: {found} bytes of {budget}");
        assert!(found >= least * 1_000_000, "{args:?}: {found} bytes, which does not try {budget}");
    }
    let search = ["search", "--pairs", &pairs, "--within", "0.5", "--method", "beam", "--limit", "40", "--no-store"];
    assert!(peak(&[&search[..], &["--memory", "64MB"]].concat()) <= 64_000_000);
    // The store takes its part.
    let kept = [&search[..search.len() - 1], &["--memory", "64MB"]].concat();
    assert!(peak(&kept) <= 64_000_000);
    refused(2, &[&subsets[..], &["--memory", "8MB"]].concat(), &["--memory 8.0 MB"]);
    refused(2, &[&subsets[..], &["--memory", "64"]].concat(), &["--memory", "512MB"]);
}

/// All subsets of the embedded model, and GPT-2's full shape: minutes, so only where it is asked for.
#[test]
#[ignore = "takes minutes: cargo test --release --test cli -- --ignored memory --nocapture"]
fn large_sweeps_stay_within_their_memory() {
    let place = Place::new();
    let pairs = place.many("many.jsonl", 300);
    for megabytes in [64, 96, 256] {
        let budget = format!("{megabytes}MB");
        let args = ["sweep", "--family", "subsets", "--pairs", &pairs, "--json", "--no-store", "--memory", &budget];
        assert!(peak(&args) <= megabytes * 1_000_000);
    }
    let model = place.text("full");
    ok(&["models", "synthesize", "--out", &model]);
    // It has no words of its own: any tokenizer with fewer ids will do.
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini/tokenizer.json");
    std::fs::copy(tokenizer, Path::new(&model).join("tokenizer.json")).unwrap();
    let few = place.many("few.jsonl", 20);
    for (family, pairs, megabytes) in
        [("subsets 4..12", &few, 512), ("skip-pairs", &pairs, 512), ("subsets 5..12", &few, 1_024)]
    {
        let budget = format!("{megabytes}MB");
        let args =
            ["sweep", "--model", &model, "--family", family, "--pairs", pairs, "--no-store", "--memory", &budget];
        assert!(peak(&args) <= megabytes * 1_000_000);
    }
}
