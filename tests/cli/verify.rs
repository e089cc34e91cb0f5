//! `lesion verify`.

use std::process::Command;

use serde_json::Value;

use crate::run::{ended, isolate, lesion, mini_in, object, ok, refused, run};

fn statuses<'a>(found: &'a Value, reference: &str) -> Vec<&'a str> {
    let checks = found["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["reference"].as_str().unwrap().starts_with(reference))
        .map(|check| check["status"].as_str().unwrap())
        .collect()
}

#[test]
fn the_embedded_model_passes_on_every_instruction_set() {
    for isa in lesion_kernels::Isa::available() {
        let found = object(&["verify", "--json", "--only", "mini", "--isa", isa.name()]);
        assert_eq!(found["mismatches"], 0, "{isa}");
        assert_eq!(found["isa"], isa.name());
        let count = statuses(&found, "mini").len();
        assert_eq!(found["passed"].as_u64().unwrap() + found["ties"].as_u64().unwrap(), count as u64);
        assert!(count > 500, "{count} checks");
    }
}

#[test]
fn what_cannot_be_checked_is_never_passed() {
    let run = run(&["verify", "--only", "gpt2"]);
    assert_eq!(run.code, Some(4), "nothing checked is nothing passed: {}", run.stderr);
    assert!(run.stderr.contains("nothing was checked: the weights of gpt2 are not to be had"), "{}", run.stderr);
    assert!(run.stdout.contains("not checked") && run.stdout.contains("not in the cache"), "{}", run.stdout);
    assert!(run.stdout.contains(" 0 passed,"), "{}", run.stdout);
    assert_eq!(run.stdout.matches("passed").count(), 1, "{}", run.stdout);
    let json = crate::run::run(&["verify", "--json", "--only", "gpt2"]);
    assert_eq!(json.code, Some(4));
    let found: Value = serde_json::from_str(&json.stdout).unwrap();
    let statuses = statuses(&found, "gpt2");
    assert!(statuses.len() >= 176 + 52 + 4, "{}", statuses.len());
    assert!(statuses.iter().all(|status| *status == "not-checked"));
    assert_eq!(found["passed"], 0);
}

#[test]
fn another_model_is_a_mismatch() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let run = run(&["verify", "--only", "gpt2", "--gpt2", model.to_str().unwrap()]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains("MISMATCHES") && run.stdout.contains("recorded"), "{}", run.stdout);
}

#[test]
fn a_file_or_name_at_fault_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    refused(3, &["verify", "--only", "gpt2", "--gpt2", folder.path().to_str().unwrap()], &["config.json"]);
    refused(2, &["verify", "--only", "gpt2", "--gpt2", "gpt3"], &["gpt3"]);
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(&["completions", shell]).contains("complete"), "{shell}");
    }
    assert!(ok(&["man"]).contains(".TH lesion"));
    assert!(ok(&["man", "loss"]).contains("answer"));
    refused(2, &["man", "nothing"], &["nothing"]);
    let mut syntax = Command::new("bash");
    isolate(&mut syntax);
    // As a file: it is longer than an argument may be.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("lesion.bash");
    std::fs::write(&script, ok(&["completions", "bash"])).unwrap();
    let checked = syntax.arg("-n").arg(&script).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn version_and_usage() {
    assert!(ok(&["--version"]).starts_with(&format!("lesion {}", env!("CARGO_PKG_VERSION"))));
    let none = ended(lesion().output().unwrap());
    assert_eq!(none.code, Some(2));
    refused(2, &["nothing"], &["nothing"]);
}

#[test]
fn a_reader_that_leaves_still_gets_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let mut child = lesion()
        .args(["verify", "--only", "gpt2", "--gpt2", model.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(ended(child.wait_with_output().unwrap()).code, Some(1));
}
