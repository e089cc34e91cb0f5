//! `weights.lock`: the bundled file, the round trip, and every way in which an entry can be wrong.

use lesion::weights::{ErrorKind, LockProblem, LockedFile, LockedModel, WeightsLock};

const GOOD: &str = r#"version = 1

[[model]]
name = "small"
repository = "someone/small"
revision = "0123456789abcdef0123456789abcdef01234567"

[[model.file]]
path = "config.json"
size = 12
sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

[[model.file]]
path = "tokenizer.json"
size = 13
sha256 = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

[[model.file]]
path = "model.safetensors"
size = 14
sha256 = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
"#;

/// The error of the good lock with one text replaced.
fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    let error = WeightsLock::parse(&GOOD.replacen(from, to, 1), "my.lock").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadFile);
    error.to_string()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn the_bundled_lock_pins_gpt2() {
    let lock = WeightsLock::bundled();
    let gpt2 = lock.model("gpt2").unwrap();
    assert_eq!(gpt2.repository(), "openai-community/gpt2");
    assert_eq!(gpt2.revision(), "607a30d783dfa663caf39e06633721c8d4cfcd7e");
    let weights = gpt2.file("model.safetensors").unwrap();
    assert_eq!(weights.size, 548_105_171);
    assert_eq!(weights.sha256, "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707");
    assert_eq!(gpt2.files().len(), 3);
    assert_eq!(lock.to_toml(), include_str!("../weights.lock"), "the file is what lesion itself would print");
}

#[test]
fn printing_and_parsing_agree() {
    let mut lock = WeightsLock::parse(GOOD, "my.lock").unwrap();
    lock.merge(WeightsLock::bundled(), "weights.lock").unwrap();
    assert_eq!(lock.models().len(), 2);
    assert_eq!(WeightsLock::parse(&lock.to_toml(), "printed").unwrap(), lock);
    let empty = WeightsLock::default();
    assert_eq!(WeightsLock::parse(&empty.to_toml(), "printed").unwrap(), empty);
}

#[test]
fn a_branch_is_not_a_commit() {
    let message = broken("0123456789abcdef0123456789abcdef01234567", "main");
    assert_says(&message, &["my.lock:6:", "\"small\"", "\"main\"", "branch", "40 lowercase hex digits"]);
    assert_says(&broken("0123456789abcdef0123456789abcdef01234567", "0123456"), &["shortened commit"]);
    assert_says(&broken("0123456789abcdef0123456789abcdef01234567", &"a".repeat(64)), &["is a SHA-256, not a commit"]);
}

#[test]
fn a_git_id_is_not_a_sha256() {
    let message = broken(&"c".repeat(64), &"c".repeat(40));
    assert_says(&message, &["my.lock:21:", "\"model.safetensors\"", "git id", "64 lowercase hex digits"]);
    assert_says(&broken(&"c".repeat(64), &"C".repeat(64)), &["not written in lowercase"]);
    assert_says(&broken(&"c".repeat(64), &"c".repeat(63)), &["another length"]);
}

#[test]
fn paths_stay_inside() {
    for path in
        ["../config.json", "/etc/passwd", "a/../b", "a//b", "", "a\\\\b", "./a", "a b", "a\\u0000", "C:x", "a%2fb"]
    {
        let message = broken("\"tokenizer.json\"", &format!("\"{path}\""));
        assert_says(&message, &["my.lock:14:", "not a plain relative path"]);
    }
}

#[test]
fn repositories_and_names_are_plain() {
    for repository in ["../up", "a/b/c", "a//b", "a--b/c", "", "a b/c", "https://x/y"] {
        assert_says(&broken("someone/small", repository), &["my.lock:5:", "owner/name"]);
    }
    for name in ["", "a/b", "..", "a b"] {
        assert_says(&broken("\"small\"", &format!("{name:?}")), &["my.lock:4:", "model name"]);
    }
    assert_says(&broken("\"small\"", "\"mini\""), &["inside the program"]);
}

#[test]
fn nothing_twice_nothing_missing_nothing_unknown() {
    assert_says(&broken("tokenizer.json", "config.json"), &["my.lock:14:", "\"config.json\" is listed twice"]);
    assert_says(&broken("tokenizer.json", "vocab.json"), &["my.lock:3:", "tokenizer.json is unlisted"]);
    assert_says(&broken("model.safetensors", "pytorch_model.bin"), &["model.safetensors is unlisted"]);
    assert_says(&broken("model.safetensors", "model.safetensors.index.json"), &["every shard", "is unlisted"]);
    assert_says(&broken("size = 13", "size = 13\nmd5 = \"x\""), &["my.lock:16:", "md5"]);
    assert_says(&broken("size = 13\n", ""), &["size"]);
    assert_says(&broken("size = 13", "size = -13"), &["my.lock:15:", "-13"]);
    assert_says(&broken("version = 1", "version = 2"), &["my.lock:1:", "version 2"]);
    assert_says(&broken("version = 1\n", ""), &["version"]);
    assert_says(&broken("name = \"small\"", "name = small"), &["my.lock:4:"]);

    let second = GOOD.replacen("version = 1", "", 1);
    let error = WeightsLock::parse(&format!("{GOOD}{second}"), "my.lock").unwrap_err().to_string();
    assert_says(&error, &["my.lock:25:", "\"small\" is defined twice"]);
}

#[test]
fn merging_accepts_the_same_and_refuses_another() {
    let mut lock = WeightsLock::bundled();
    lock.merge(WeightsLock::bundled(), "mine").unwrap();
    assert_eq!(lock, WeightsLock::bundled());
    let other = WeightsLock::parse(&GOOD.replace("\"small\"", "\"gpt2\""), "mine").unwrap();
    let error = lock.merge(other, "mine").unwrap_err();
    assert!(matches!(error.problem, LockProblem::DuplicateModel { .. }));
    assert_says(&error.to_string(), &["mine:", "\"gpt2\"", "someone/small", "openai-community/gpt2"]);
}

#[test]
fn a_model_made_in_code_is_checked_too() {
    let file = |path: &str| LockedFile { path: path.into(), size: 1, sha256: "a".repeat(64) };
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let files = vec![file("config.json"), file("tokenizer.json"), file("model.safetensors")];
    let model = LockedModel::new("x", "a/b", commit, files.clone()).unwrap();
    assert_eq!(model.renamed("y").unwrap().name(), "y");
    assert!(LockedModel::new("x", "a/b", "main", files.clone()).is_err());
    assert!(LockedModel::new("x", "a/b", commit, files[..2].to_vec()).is_err());
    let both = [files, vec![file("model.safetensors.index.json")]].concat();
    assert!(matches!(LockedModel::new("x", "a/b", commit, both), Err(LockProblem::TwoWeights { .. })));
}

#[test]
fn a_lock_that_is_not_there_is_missing() {
    let error = WeightsLock::read("no/such.lock".as_ref()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert_says(&error.to_string(), &["no/such.lock"]);
}
