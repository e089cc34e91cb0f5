//! `lesion sweep`, `lesion merge` and `lesion search`: what they print, what they read and refuse, how they go on and end.

mod inputs;
#[cfg(target_os = "linux")]
mod memory;
mod output;
mod resume;
mod search;
mod shards;

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::run::{ok, run};

/// Prompts and answers of one token and of several, of two tasks.
const QUESTIONS: [(&str, &str, &str); 6] = [
    ("sums", "8 + 10 =", "18"),
    ("capitals", "The capital of Spain is", "Madrid"),
    ("sums", "1 + 2 =", "3"),
    ("capitals", "The capital of France is", "Paris"),
    ("capitals", "Tom has a dog and a", "big red ball"),
    ("sums", "7 + 7 =", "14."),
];

/// A folder with files of questions.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// With `pairs.jsonl`: six questions of two tasks.
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        let lines = QUESTIONS.map(|(task, prompt, answer)| {
            serde_json::json!({"prompt": prompt, "answer": answer, "task": task}).to_string()
        });
        place.write("pairs.jsonl", lines.join("\n").as_bytes());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file; its path.
    fn write(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }

    /// So many questions of different lengths, all different.
    fn many(&self, name: &str, count: usize) -> String {
        let line = |i: usize| {
            let again = "and a dog ".repeat(i % 4);
            format!(r#"{{"prompt": "Day {i}: Tom has a cat {again}, the capital of Spain is", "answer": "Madrid"}}"#)
        };
        self.write(name, (0..count).map(line).collect::<Vec<_>>().join("\n").as_bytes())
    }

    /// A sweep over `pairs.jsonl` that keeps nothing.
    fn sweep(&self, args: &[&str]) -> Vec<String> {
        let pairs = self.text("pairs.jsonl");
        let own = ["sweep", "--pairs", &pairs, "--no-store"];
        own.iter().chain(args).map(|arg| (*arg).to_owned()).collect()
    }

    /// Its rows and summary.
    fn swept(&self, args: &[&str]) -> (Vec<Value>, Value) {
        swept(&refs(&self.sweep(&[args, &["--json"]].concat())))
    }
}

fn refs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// The rows that a command prints, and its summary.
fn swept(args: &[&str]) -> (Vec<Value>, Value) {
    let printed = ok(args);
    let mut rows: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut last = rows.pop().unwrap();
    assert_eq!(last.as_object().unwrap().len(), 1, "{last}");
    (rows, last["summary"].take())
}

/// What is printed but for the last line, byte for byte.
fn row_lines(printed: &str) -> &str {
    let end = printed.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
    &printed[..end]
}

/// What is told on stderr.
fn told(args: &[&str]) -> String {
    let ended = run(args);
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    ended.stderr
}
