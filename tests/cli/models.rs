//! `lesion models`.

use std::fs;

use crate::run::{ended, fields, lesion, object, objects, ok, refused, run};

#[test]
fn the_list_tells_what_is_pinned_and_what_is_here() {
    let models = objects(&["models", "list", "--json"]);
    assert_eq!(fields(&models[0]), ["cached", "model", "path", "repository", "revision", "schema_version", "size"]);
    assert_eq!((&models[0]["model"], &models[0]["cached"]), (&"mini".into(), &true.into()));
    let gpt2 = models.iter().find(|model| model["model"] == "gpt2").unwrap();
    assert_eq!(gpt2["repository"], "openai-community/gpt2");
    assert_eq!(gpt2["revision"].as_str().unwrap().len(), 40);
    assert_eq!(gpt2["cached"], false);
    let text = ok(&["models", "list"]);
    assert!(text.contains("embedded") && text.contains("not fetched"), "{text}");
}

#[test]
fn the_cache_is_where_hugging_face_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let run = lesion().env(name, folder.path()).args(["models", "path"]).output().unwrap();
        String::from_utf8(run.stdout).unwrap().trim().to_owned()
    };
    let root = folder.path().to_str().unwrap();
    assert_eq!(path("HF_HUB_CACHE"), root);
    assert_eq!(path("HF_HOME"), format!("{root}/hub"));
    assert!(object(&["models", "path", "--json"])["cache"].is_string());
}

#[test]
fn what_is_missing_exits_4_and_what_is_unknown_2() {
    refused(4, &["models", "fetch", "gpt2"], &["gpt2", "offline"]);
    refused(4, &["complete", "--model", "gpt2", "x"], &["gpt2", "not in the cache"]);
    refused(4, &["models", "verify", "gpt2"], &["not in the cache"]);
    refused(4, &["models", "lock", "someone/model"], &["offline"]);
    refused(2, &["models", "fetch", "gpt3"], &["gpt3", "gpt2"]);
}

#[test]
fn a_bad_lock_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.lock");
    let lock = |text: &str| {
        fs::write(&path, text).unwrap();
        run(&["models", "list", "--lock", path.to_str().unwrap()])
    };
    let branch = "version = 1\n[[model]]\nname = \"x\"\nrepository = \"a/b\"\nrevision = \"main\"\nfile = []\n";
    for (text, part) in [("version = 2\n", "my.lock:1"), ("version = 1\nmore = 1\n", "more"), (branch, "main")] {
        let ended = lock(text);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(ended.stderr.contains(part) && ended.stderr.contains("my.lock"), "{}", ended.stderr);
    }
    refused(3, &["models", "list", "--lock", "no-such.lock"], &["no-such.lock"]);
}

#[test]
fn a_synthetic_model_runs_on_ids() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("synthetic");
    let out = out.to_str().unwrap();
    ok(&["models", "synthesize", "--out", out, "--layers", "1", "--dtype", "f16"]);
    let found = object(&["loss", "--json", "--model", out, "--ids", "50256,464,3139"]);
    assert_eq!((&found["plan"], found["nll"].as_array().unwrap().len()), (&"0".into(), 2));
    refused(2, &["complete", "--model", out, "--ids", &vec!["5"; 1025].join(",")], &["1025 tokens", "1024"]);
    refused(3, &["loss", "--model", out, "text"], &["tokenizer.json"]);
    refused(2, &["models", "synthesize", "--out", out], &["exists"]);
}

#[cfg(feature = "hub")]
mod hub {
    use super::*;
    use crate::mock_hub::{Fault, MockHub, REPOSITORY};

    /// A mock hub that holds the embedded model, and commands that use it with a cache of their own.
    struct Setting {
        hub: MockHub,
        folder: tempfile::TempDir,
    }

    impl Setting {
        fn new() -> Setting {
            let hub = MockHub::start();
            for (file, lfs) in [("config.json", false), ("tokenizer.json", false), ("model.safetensors", true)] {
                let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/mini").join(file);
                hub.put(file, &fs::read(path).unwrap(), lfs);
            }
            Setting { hub, folder: tempfile::tempdir().unwrap() }
        }

        fn run(&self, args: &[&str]) -> crate::run::Ended {
            let mut command = lesion();
            command.env("HF_ENDPOINT", self.hub.endpoint()).env("HF_HUB_OFFLINE", "0");
            command.env("HF_HOME", self.folder.path().join("hf")).env("XDG_CACHE_HOME", self.folder.path());
            ended(command.args(args).output().unwrap())
        }

        fn lock(&self) -> String {
            self.folder.path().join("my.lock").to_str().unwrap().to_owned()
        }
    }

    #[test]
    fn lock_fetch_speak_verify() {
        let setting = Setting::new();
        let lock = setting.lock();
        let pinned = setting.run(&["models", "lock", REPOSITORY, "--name", "tiny", "--output", &lock]);
        assert_eq!(pinned.code, Some(0), "{}", pinned.stderr);
        let fetched = setting.run(&["models", "fetch", "tiny", "--lock", &lock]);
        assert_eq!(fetched.code, Some(0), "{}", fetched.stderr);
        assert!(fetched.stderr.contains("downloading 3 files, 5.5 MB"), "{}", fetched.stderr);
        assert!(fetched.stdout.contains("snapshots"), "{}", fetched.stdout);
        let requests = setting.hub.requests().len();
        let said = setting.run(&["complete", "--lock", &lock, "--model", "tiny", "-n", "1", "The capital of Spain is"]);
        assert_eq!((said.code, said.stdout.as_str()), (Some(0), " Madrid\n"), "{}", said.stderr);
        assert_eq!(setting.hub.requests().len(), requests, "nothing is asked of the hub again");
        let verified = setting.run(&["models", "verify", "tiny", "--lock", &lock]);
        assert_eq!((verified.code, verified.stdout.lines().count()), (Some(0), 3), "{}", verified.stderr);

        // One bit of the cached weights flips: refused before anything is computed.
        let weights = fs::canonicalize(std::path::Path::new(fetched.stdout.trim()).join("model.safetensors")).unwrap();
        let mut bytes = fs::read(&weights).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&weights, bytes).unwrap();
        for args in [
            &["models", "verify", "tiny"][..],
            &["loss", "--model", "tiny", "x"],
            &["loss", "--verify", "--model", "tiny", "x"],
        ] {
            let ended = setting.run(&[args, &["--lock", &lock]].concat());
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{}", ended.stderr);
            assert!(ended.stderr.contains("SHA-256") && ended.stderr.contains("model.safetensors"), "{}", ended.stderr);
        }
    }

    #[test]
    fn a_damaged_download_is_refused_and_a_full_lock_is_kept() {
        let setting = Setting::new();
        let lock = setting.lock();
        assert_eq!(setting.run(&["models", "lock", REPOSITORY, "--name", "tiny", "--output", &lock]).code, Some(0));
        let before = fs::read_to_string(&lock).unwrap();
        setting.hub.fault("model.safetensors", Fault::Flip(1000));
        let fetched = setting.run(&["models", "fetch", "tiny", "--lock", &lock]);
        assert!(matches!(fetched.code, Some(3)), "{:?} {}", fetched.code, fetched.stderr);
        assert_eq!(fetched.stdout, "");

        // The hub's branch moves on: the name stands for something else, and is not replaced unasked.
        setting.hub.put("config.json", b"{\"model_type\": \"gpt2\", \"n_layer\": 2}", false);
        let again = setting.run(&["models", "lock", REPOSITORY, "--name", "tiny", "--output", &lock]);
        assert_eq!(again.code, Some(2), "{}", again.stderr);
        assert_eq!(fs::read_to_string(&lock).unwrap(), before);
        let forced = setting.run(&["models", "lock", REPOSITORY, "--name", "tiny", "--output", &lock, "--force"]);
        assert_eq!(forced.code, Some(0), "{}", forced.stderr);
        assert_ne!(fs::read_to_string(&lock).unwrap(), before);
    }
}
