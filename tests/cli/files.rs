//! Models that are files: directories, bad weights, NaN, names that are not UTF-8.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::run::{ended, lesion, mini_in, object, objects, ok, refused, run};

const SPAIN: &str = "The capital of Spain is";

/// Overwrites the first value of a tensor with a NaN (f16).
pub(crate) fn poison(directory: &Path, tensor: &str) {
    let path = directory.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let parsed: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = 8 + header + parsed[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start..start + 2].copy_from_slice(&0x7e00_u16.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

pub(crate) fn tensor_of(directory: &Path, ending: &str) -> String {
    let bytes = fs::read(directory.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let parsed: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    parsed.as_object().unwrap().keys().find(|name| name.ends_with(ending)).unwrap().clone()
}

#[test]
fn a_directory_is_a_model_mapped_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let model = model.to_str().unwrap();
    let embedded = object(&["loss", "--json", SPAIN]);
    for args in [&[][..], &["--no-mmap"], &["--require-finite"]] {
        let found = object(&[&["loss", "--json", "--model", model], args, &[SPAIN]].concat());
        assert_eq!(found["nll"], embedded["nll"]);
        assert_eq!(found["model"], "mini-copy");
    }
    refused(2, &["loss", "--verify", "--model", model, SPAIN], &["--verify", "no lock file"]);
    refused(2, &["loss", "--verify", SPAIN], &["embedded"]);
    let file = format!("{model}/model.safetensors");
    refused(3, &["loss", "--model", &file, SPAIN], &["is a file", "directory"]);
    refused(2, &["loss", "--model", "no-such-model", SPAIN], &["no-such-model", "mini", "gpt2"]);
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf8_works() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"mod\xffel"));
    fs::rename(model, &odd).unwrap();
    let run = ended(lesion().args(["complete", "-n", "1", SPAIN, "--model"]).arg(&odd).output().unwrap());
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), " Madrid\n"), "{}", run.stderr);
    let file = folder.path().join(std::ffi::OsStr::from_bytes(b"te\xffxt"));
    fs::write(&file, SPAIN).unwrap();
    let run = ended(lesion().args(["loss", "--json", "--file"]).arg(&file).output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn nan_is_a_result_with_a_warning_unless_finite_weights_are_required() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let tensor = tensor_of(&model, "h.5.mlp.c_fc.weight");
    poison(&model, &tensor);
    let model = model.to_str().unwrap();
    for _ in 0..2 {
        // The second time the count is remembered.
        let run = run(&["loss", "--json", "--model", model, SPAIN]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.contains("warning") && run.stderr.contains(&tensor), "{}", run.stderr);
        let found: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(found["nll"][0], "NaN");
        assert_eq!(found["mean_nll"], "NaN");
    }
    refused(3, &["loss", "--require-finite", "--model", model, SPAIN], &["NaN", &tensor, "1 weights"]);
    let without = object(&["loss", "--json", "--plan", "skip 5", "--model", model, SPAIN]);
    assert_eq!(
        without["nll"],
        object(&["loss", "--json", "--plan", "skip 5", SPAIN])["nll"],
        "a skipped layer is not run"
    );
    let spoken = objects(&["complete", "--json", "--plan", "0..12", "--plan", "skip 5", "--model", model, SPAIN]);
    assert_eq!(spoken.len(), 2, "the next plan goes on");
    assert_eq!((&spoken[0]["finish"], &spoken[0]["position"]), (&"not-a-number".into(), &5.into()));
    assert!(spoken[0]["nan_logits"].as_u64().unwrap() > 0);
    assert_eq!(spoken[0]["completion_ids"].as_array().unwrap().len(), 0);
    assert_eq!((&spoken[1]["finish"], &spoken[1]["nan_logits"]), (&"length".into(), &Value::Null));
    let said = run(&["complete", "--model", model, SPAIN]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stderr.contains("position 5 are NaN"), "{}", said.stderr);
    let verified = run(&["verify", "--only", "gpt2", "--gpt2", model]);
    assert_eq!(verified.code, Some(1), "{}", verified.stderr);
    assert!(verified.stdout.contains("are NaN") && verified.stdout.contains("mismatches"), "{}", verified.stdout);
    assert!(ok(&["loss", "--model", model, SPAIN]).contains("NaN"));
}

#[test]
fn bad_files_are_named() {
    type Spoil = fn(&Path);
    let cases: [(Spoil, &[&str]); 8] = [
        (|d| fs::write(d.join("model.safetensors"), b"").unwrap(), &["model.safetensors", "0 bytes"]),
        (|d| fs::write(d.join("model.safetensors"), u64::MAX.to_le_bytes()).unwrap(), &["model.safetensors", "header"]),
        (
            |d| fs::write(d.join("model.safetensors"), b"version https://git-lfs.github.com/spec/v1\n").unwrap(),
            &["Git LFS"],
        ),
        (|d| fs::remove_file(d.join("model.safetensors")).unwrap(), &["model.safetensors"]),
        (|d| fs::remove_file(d.join("config.json")).unwrap(), &["config.json"]),
        (|d| fs::write(d.join("config.json"), b"{").unwrap(), &["config.json"]),
        (|d| edit(&d.join("config.json"), "\"n_head\": 8", "\"n_head\": 7"), &["config.json", "n_head", "7"]),
        (|d| edit(&d.join("config.json"), "\"n_layer\": 12", "\"n_layer\": 13"), &["n_layer 13", "12 layers"]),
    ];
    for (spoil, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        let model = mini_in(folder.path());
        spoil(&model);
        refused(3, &["complete", "--model", model.to_str().unwrap(), SPAIN], parts);
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_directory_needs_no_hub_and_no_home() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let mut command = lesion();
    command.env("HF_HUB_OFFLINE", "2").env_remove("HOME").env_remove("XDG_CACHE_HOME").env_remove("HF_HOME");
    let run = ended(command.args(["complete", "-n", "1", SPAIN, "--model"]).arg(&model).output().unwrap());
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), " Madrid\n"), "{}", run.stderr);
}
