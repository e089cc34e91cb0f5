//! Exports: what pandas and DuckDB read of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Place, refs, swept};
use crate::run::{ended, lesion, objects, ok, refused};

#[test]
fn exports_open_in_pandas_and_duckdb() {
    let place = Place::new();
    swept(&place.sweep(&["--family", "keep-first"]));
    for file in ["rows.parquet", "rows.csv", "rows.jsonl", "copy.db"] {
        ok(&refs(&place.store(&["export", &place.text(file)])));
    }
    let python = std::env::var("LESION_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let probe = Command::new(&python).args(["-c", "import pandas, duckdb, pyarrow"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("not checked: {python} lacks pandas, pyarrow or duckdb (LESION_TEST_PYTHON names another)");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/store/open_exports.py");
    let read = ended(Command::new(&python).arg(script).arg(place.folder.path()).output().unwrap());
    assert_eq!(
        (read.code, read.stdout.trim()),
        (Some(0), "78 rows, 4 files, pandas and DuckDB agree"),
        "{}",
        read.stderr
    );
}

#[test]
fn exports_replace_nothing_unasked() {
    let place = Place::new();
    swept(&place.sweep(&["--plan", "0..5"]));
    let csv = place.text("x.csv");
    fs::write(&csv, "mine").unwrap();
    refused(2, &refs(&place.store(&["export", &csv])), &["exists", "--force"]);
    assert_eq!(fs::read_to_string(&csv).unwrap(), "mine");
    ok(&refs(&place.store(&["export", &csv, "--force", "--where", "task=sums", "--select", "plan,loss"])));
    // Of plan 0..5 and of the intact model, which it was compared with.
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), 1 + 2 * 3);
    let store = place.text("store.db");
    refused(2, &refs(&place.store(&["export", &store, "--force"])), &["the store itself"]);
    refused(2, &refs(&place.store(&["export", &place.text("x.xlsx")])), &["its ending says no format"]);
    refused(2, &refs(&place.store(&["export", &place.text("y.db"), "--where", "task=sums"])), &["a copy of all"]);
    refused(4, &refs(&place.store(&["export", &place.text("no/folder.csv")])), &["folder.csv"]);
    let left: Vec<_> = fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");
    // A copy is a store: what is in it is not computed again.
    let copy = place.text("copy.db");
    ok(&refs(&place.store(&["export", &copy])));
    let pairs = place.text("pairs.jsonl");
    let again = objects(&["sweep", "--plan", "0..5", "--pairs", &pairs, "--store", &copy, "--json"]);
    assert_eq!(again.last().unwrap()["summary"]["computed_rows"], 0);
}

/// `| head -1`: no error, and the store is as it was.
#[test]
fn a_reader_that_leaves_is_no_error() {
    let place = Place::new();
    swept(&place.sweep(&["--family", "skip-pairs"]));
    let mut command = lesion();
    command.args(place.store(&["query", "--limit", "0", "--json"]));
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    ok(&refs(&place.store(&["verify", "--sample", "5"])));
}
