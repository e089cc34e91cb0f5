//! Running `lesion` cut off from the network and from the caches of whoever runs the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

/// Caches and records of all test processes: the same files are hashed once.
static HOME: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// A command with a clean environment: offline, its own caches, an empty store, no settings of the user's.
pub(crate) fn lesion() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lesion"));
    isolate(&mut command);
    command.stdin(Stdio::null());
    command
}

/// Takes the user's settings out of a command's environment.
pub(crate) fn isolate(command: &mut Command) {
    for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT", "LESION_ISA", "NO_COLOR", "CLICOLOR_FORCE", "HF_TOKEN_PATH"]
    {
        command.env_remove(name);
    }
    command.env("HOME", HOME.path()).env("XDG_CACHE_HOME", HOME.path().join("cache"));
    command.env("HF_HOME", HOME.path().join("hf")).env("HF_HUB_OFFLINE", "1");
    // What a test computes is no other test's answer.
    static STORES: AtomicUsize = AtomicUsize::new(0);
    let own = STORES.fetch_add(1, Ordering::Relaxed).to_string();
    command.env("XDG_DATA_HOME", HOME.path().join("data").join(own));
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub(crate) fn run(args: &[&str]) -> Ended {
    ended(lesion().args(args).output().unwrap())
}

/// Runs to success; its stdout.
pub(crate) fn ok(args: &[&str]) -> String {
    let ended = run(args);
    assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    ended.stdout
}

/// Runs to success; the objects it printed, one a line.
pub(crate) fn objects(args: &[&str]) -> Vec<Value> {
    ok(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs to success; the one object it printed.
pub(crate) fn object(args: &[&str]) -> Value {
    let mut objects = objects(args);
    assert_eq!(objects.len(), 1, "{args:?}");
    objects.remove(0)
}

/// Runs to this exit code; nothing on stdout, all parts on stderr, no panic.
#[track_caller]
pub(crate) fn refused(code: i32, args: &[&str], parts: &[&str]) {
    assert_refused(run(args), code, parts);
}

#[track_caller]
pub(crate) fn assert_refused(ended: Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "data although it failed");
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "{part:?} is not in: {}", ended.stderr);
    }
}

/// Runs with this on stdin.
pub(crate) fn with_stdin(args: &[&str], stdin: &[u8]) -> Ended {
    use std::io::Write;
    let mut child =
        lesion().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A process that refuses before it reads closes the pipe: that is its answer.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    ended(child.wait_with_output().unwrap())
}

/// The embedded model as a directory, in `folder`.
pub(crate) fn mini_in(folder: &Path) -> PathBuf {
    let directory = folder.join("mini-copy");
    fs::create_dir(&directory).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(source.join(file), directory.join(file)).unwrap();
    }
    directory
}

pub(crate) fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

pub(crate) fn ids(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect()
}

/// The names of an object's fields, sorted.
pub(crate) fn fields(value: &Value) -> Vec<String> {
    let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    names.sort();
    names
}

/// Rows of the golden values for one input.
pub(crate) fn golden(prompt: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden_mini.json");
    let golden: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let rows: Vec<Value> =
        golden["rows"].as_array().unwrap().iter().filter(|row| row["prompt"] == prompt).cloned().collect();
    assert_eq!(rows.len(), 10);
    rows
}

/// A recorded order as a plan's text.
pub(crate) fn plan_of(row: &Value) -> String {
    let layers: Vec<String> = ids(&row["plan"]).iter().map(u64::to_string).collect();
    if layers.is_empty() { "none".to_owned() } else { layers.join(",") }
}
