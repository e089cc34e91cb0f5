//! Downloads from a hub on this machine that behaves, and from one that doesn't.

#![cfg(feature = "hub")]

mod mock_hub;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lesion::weights::{CheckError, CheckMode, ErrorKind, Event, HubCache, HubError, Token, lock_repository, resolve};
use mock_hub::{CONFIG, Fault, MockHub, REPOSITORY, REVISION, TOKENIZER, fetch, model, options, sha256, weights};

const WEIGHTS: &str = "model.safetensors";

fn assert_complete(snapshot: &Path) {
    assert_eq!(fs::read(snapshot.join("config.json")).unwrap(), CONFIG);
    assert_eq!(fs::read(snapshot.join("tokenizer.json")).unwrap(), TOKENIZER);
    assert_eq!(fs::read(snapshot.join(WEIGHTS)).unwrap(), weights());
}

/// The snapshot holds nothing under the weights' name, and no blob is left that isn't right.
fn assert_no_weights(cache: &HubCache) {
    assert!(!cache.snapshot_dir(REPOSITORY, REVISION).join(WEIGHTS).exists());
    assert!(!cache.repository_dir(REPOSITORY).join("blobs").join(sha256(&weights())).exists());
}

fn assert_says(error: &HubError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn a_download_lands_in_the_layout_of_hugging_face() {
    let hub = MockHub::start();
    let (_folder, options) = options(&hub);
    let (mut announced, mut received, mut urls) = (None, 0, Vec::new());
    let snapshot = resolve(&model(), &options, CheckMode::Remembered, &mut |event| match event {
        Event::Missing { repository, revision, files, size, destination } => {
            announced = Some((repository.to_string(), revision.to_string(), files, size, destination.to_path_buf()));
        }
        Event::Download { url, .. } => urls.push(url.to_string()),
        Event::Received { file: WEIGHTS, done, .. } => received = done,
        Event::Retry { reason, .. } => panic!("{reason}"),
        Event::Warning(warning) => panic!("{warning}"),
        _ => {}
    })
    .unwrap();
    assert_complete(&snapshot);
    assert_eq!(snapshot, options.cache.snapshot_dir(REPOSITORY, REVISION));
    let size = (CONFIG.len() + TOKENIZER.len() + weights().len()) as u64;
    assert_eq!(announced, Some((REPOSITORY.into(), REVISION.into(), 3, size, snapshot.clone())));
    assert_eq!(received, weights().len() as u64);
    assert_eq!(urls[2], format!("{}/{REPOSITORY}/resolve/{REVISION}/{WEIGHTS}", hub.endpoint()));

    let folder = options.cache.repository_dir(REPOSITORY);
    assert!(folder.ends_with("models--someone--tiny-gpt2"));
    let mut inside: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    inside.sort();
    assert_eq!(inside, ["blobs", "snapshots"], "nothing of the download's own is left");
    if cfg!(unix) {
        let link = fs::read_link(snapshot.join(WEIGHTS)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(sha256(&weights())));
    }
    let listed = options.cache.snapshots().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].repository.as_str(), listed[0].revision.as_str()), (REPOSITORY, REVISION));
    assert_eq!(listed[0].files[1], (WEIGHTS.to_string(), weights().len() as u64));

    // The second time nothing is asked, nothing hashed.
    let before = hub.requests().len();
    resolve(&model(), &options, CheckMode::Remembered, &mut |event| panic!("{event:?}")).unwrap();
    assert_eq!(hub.requests().len(), before);
}

#[test]
fn a_cache_laid_out_by_python_is_used_without_the_network() {
    let hub = MockHub::start();
    for folder in ["models--someone--tiny-gpt2", "models--tiny-gpt2"] {
        let (_folder, mut options) = options(&hub);
        options.offline = true;
        let repository = options.cache.root().join(folder);
        let snapshot = repository.join("snapshots").join(REVISION);
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(repository.join("refs/main"), REVISION).unwrap();
        for (name, bytes) in [("config.json", CONFIG), ("tokenizer.json", TOKENIZER), (WEIGHTS, &weights())] {
            let blob = repository.join("blobs").join(sha256(bytes));
            fs::write(&blob, bytes).unwrap();
            #[cfg(unix)]
            std::os::unix::fs::symlink(Path::new("../../blobs").join(sha256(bytes)), snapshot.join(name)).unwrap();
            #[cfg(not(unix))]
            fs::copy(&blob, snapshot.join(name)).unwrap();
        }
        assert_eq!(fetch(&options).unwrap(), snapshot);
    }
    assert!(hub.requests().is_empty());
}

#[test]
fn only_what_is_missing_is_fetched_and_a_link_to_nothing_is_missing() {
    let hub = MockHub::start();
    let (_folder, options) = options(&hub);
    let snapshot = fetch(&options).unwrap();
    let before = hub.requests().len();
    fs::remove_file(options.cache.repository_dir(REPOSITORY).join("blobs").join(sha256(&weights()))).unwrap();
    assert_complete(&fetch(&options).unwrap());
    assert!(hub.requests()[before..].iter().all(|request| !request.path.ends_with(".json")));
    fs::remove_file(snapshot.join("config.json")).unwrap();
    assert_complete(&fetch(&options).unwrap());
}

#[test]
fn a_truncated_or_reset_body_resumes_where_it_ended() {
    for fault in [Fault::Truncate(100_000), Fault::Reset(100_000), Fault::Short(100_000)] {
        let hub = MockHub::start();
        hub.fault(WEIGHTS, fault);
        let (_folder, options) = options(&hub);
        let mut retries = Vec::new();
        let snapshot = resolve(&model(), &options, CheckMode::Remembered, &mut |event| {
            if let Event::Retry { reason, .. } = event {
                retries.push(reason.to_string());
            }
        });
        assert_complete(&snapshot.unwrap_or_else(|error| panic!("{fault:?}: {error}")));
        assert_eq!(retries.len(), 1, "{fault:?}: {retries:?}");
        assert_eq!(hub.store_ranges(), ["bytes=0-", "bytes=100000-"], "{fault:?}");
    }
}

#[test]
fn a_download_that_keeps_breaking_fails_and_resumes_in_the_next_run() {
    let hub = MockHub::start();
    for _ in 0..3 {
        hub.fault(WEIGHTS, Fault::Truncate(50_000));
    }
    let (_folder, options) = options(&hub);
    let error = fetch(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert_says(&error, &[WEIGHTS, "150000 bytes are kept", "resumes"]);
    assert_no_weights(&options.cache);
    assert_complete(&fetch(&options).unwrap());
    assert_eq!(hub.store_ranges(), ["bytes=0-", "bytes=50000-", "bytes=100000-", "bytes=150000-"]);
}

#[test]
fn a_stalled_download_is_given_up_in_time_and_resumes() {
    let hub = MockHub::start();
    hub.fault(WEIGHTS, Fault::Stall(65_536));
    let (_folder, mut options) = options(&hub);
    options.stall_timeout = Duration::from_millis(300);
    let start = Instant::now();
    let error = fetch(&options).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(matches!(error, HubError::Stalled { received: 65_536, .. }), "{error}");
    assert_says(&error, &[WEIGHTS, "no byte in 0.3 s", "65536 bytes are kept"]);
    assert_no_weights(&options.cache);
    options.stall_timeout = Duration::from_secs(20);
    assert_complete(&fetch(&options).unwrap());
    assert_eq!(hub.store_ranges(), ["bytes=0-", "bytes=65536-"]);
}

#[test]
fn a_flipped_bit_is_refused_and_the_next_try_downloads_again() {
    let hub = MockHub::start();
    hub.fault(WEIGHTS, Fault::Flip(123_456));
    let (_folder, options) = options(&hub);
    let error = fetch(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadFile);
    let mut flipped = weights();
    flipped[123_456] ^= 1;
    assert_says(&error, &["\"tiny\"", WEIGHTS, &sha256(&weights()), &sha256(&flipped), "discarded"]);
    assert!(!error.to_string().contains("delete"), "{error}");
    assert_no_weights(&options.cache);
    assert_complete(&fetch(&options).unwrap());
    assert_eq!(hub.store_ranges(), ["bytes=0-", "bytes=0-"]);
}

#[test]
fn a_damaged_first_part_costs_one_clean_attempt() {
    let hub = MockHub::start();
    for fault in [Fault::Truncate(10_000), Fault::Truncate(10_000), Fault::Truncate(10_000)] {
        hub.fault(WEIGHTS, fault);
    }
    let (_folder, options) = options(&hub);
    fetch(&options).unwrap_err();
    let partial = options.cache.repository_dir(REPOSITORY).join(".lesion-partial").join(REVISION).join(WEIGHTS);
    let mut bytes = fs::read(&partial).unwrap();
    assert_eq!(bytes.len(), 30_000);
    bytes[7] ^= 1;
    fs::write(&partial, &bytes).unwrap();
    assert_complete(&fetch(&options).unwrap());
    assert_eq!(hub.store_ranges()[3..], ["bytes=30000-", "bytes=0-"]);
}

#[test]
fn a_partial_file_that_is_whole_or_too_long_is_no_trap() {
    let hub = MockHub::start();
    let (_folder, options) = options(&hub);
    let partial = options.cache.repository_dir(REPOSITORY).join(".lesion-partial").join(REVISION);
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join(WEIGHTS), weights()).unwrap();
    fs::write(partial.join("config.json"), [CONFIG, b"more"].concat()).unwrap();
    let other = partial.parent().unwrap().join("f".repeat(40));
    fs::create_dir_all(&other).unwrap();
    assert_complete(&fetch(&options).unwrap());
    assert!(other.exists() && !partial.exists(), "another revision's partial files stay");
    assert_eq!(hub.store_ranges(), ["bytes=299999-"]);
}

#[test]
fn a_store_that_ignores_or_shifts_the_range_spoils_nothing() {
    let hub = MockHub::start();
    hub.fault(WEIGHTS, Fault::Truncate(100_000));
    hub.fault(WEIGHTS, Fault::IgnoreRange);
    let (_folder, options) = options(&hub);
    assert_complete(&fetch(&options).unwrap());

    let hub = MockHub::start();
    hub.fault(WEIGHTS, Fault::ShiftRange(5));
    let (_folder, options) = mock_hub::options(&hub);
    let error = fetch(&options).unwrap_err();
    assert_says(&error, &["Content-Range is 5, expected 0"]);
    assert_eq!(error.kind(), ErrorKind::BadFile);
}

#[test]
fn passing_trouble_is_retried_and_lasting_trouble_is_told() {
    let hub = MockHub::start();
    hub.fault(WEIGHTS, Fault::Status(500));
    hub.fault(WEIGHTS, Fault::Status(429));
    hub.fault("config.json", Fault::Status(503));
    let (_folder, options) = options(&hub);
    assert_complete(&fetch(&options).unwrap());

    let (_folder, options) = mock_hub::options(&hub);
    for _ in 0..3 {
        hub.fault(WEIGHTS, Fault::Status(502));
    }
    let error = fetch(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert_says(&error, &["HTTP 502", WEIGHTS]);

    let (_folder, options) = mock_hub::options(&hub);
    hub.fault(WEIGHTS, Fault::Status(418));
    assert_says(&fetch(&options).unwrap_err(), &["status is 418, expected 200 or 206"]);
}

#[test]
fn what_the_hub_does_not_have_is_named() {
    let hub = MockHub::start();
    hub.remove("tokenizer.json");
    let (_folder, options) = options(&hub);
    let error = fetch(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert_says(&error, &["tokenizer.json", REVISION, "HTTP 404"]);
}

#[test]
fn a_file_of_another_size_commit_or_odd_etag_is_refused_before_it_is_fetched() {
    let hub = MockHub::start();
    hub.put(WEIGHTS, &weights()[..200_000], true);
    let (_folder, options) = options(&hub);
    let error = fetch(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadFile);
    assert_says(&error, &[WEIGHTS, "file size is 200000, expected 300000"]);

    let hub = MockHub::start();
    hub.claim_commit(&"f".repeat(40));
    let (_folder, options) = mock_hub::options(&hub);
    assert_says(&fetch(&options).unwrap_err(), &["X-Repo-Commit", &"f".repeat(40), REVISION]);

    let hub = MockHub::start();
    hub.claim_etag("../../../escape");
    let (folder, options) = mock_hub::options(&hub);
    assert_says(&fetch(&options).unwrap_err(), &["ETag"]);
    assert!(!options.cache.repository_dir(REPOSITORY).exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the cache's root");
}

#[test]
fn offline_names_model_files_and_folder() {
    let hub = MockHub::start();
    let (_folder, mut options) = options(&hub);
    options.offline = true;
    let error = fetch(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    let looked_in = options.cache.snapshot_dir(REPOSITORY, REVISION).display().to_string();
    assert_says(&error, &["\"tiny\"", REPOSITORY, "tokenizer.json", WEIGHTS, &looked_in, "downloading is off"]);
    assert!(hub.requests().is_empty());
    let error = lock_repository(REPOSITORY, "main", &options, &mut |_| {}).unwrap_err();
    assert_says(&error, &[REPOSITORY, "downloading is off"]);
    assert!(!options.cache.root().exists(), "looking makes no folders");
}

#[test]
fn no_hub_at_all_fails_at_once() {
    let hub = MockHub::start();
    let (_folder, mut options) = options(&hub);
    options.endpoint = Some("http://127.0.0.1:1".into());
    options.retry_pause = Duration::from_secs(60);
    let error = fetch(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert_says(&error, &["http://127.0.0.1:1", "refused"]);
}

#[test]
fn the_token_goes_to_the_hub_alone_and_into_no_message() {
    const SECRET: &str = "hf_SecretSecret";
    let (hub, store) = (MockHub::start(), MockHub::start());
    hub.require_token(SECRET);
    hub.store_at(&store);
    let (_folder, mut options) = options(&hub);

    let error = fetch(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert_says(&error, &["HTTP 401", "HF_TOKEN"]);

    options.token = Token::new("hf_WrongWrong");
    let error = fetch(&options).unwrap_err();
    assert_says(&error, &["HTTP 403", "token has no access"]);
    assert!(!format!("{error} {error:?} {options:?}").contains("WrongWrong"));

    options.token = Token::new(&format!("{SECRET}\n"));
    assert_complete(&fetch(&options).unwrap());
    let sent: Vec<_> = hub.requests().into_iter().filter_map(|request| request.authorization).collect();
    assert!(sent.contains(&format!("Bearer {SECRET}")));
    assert!(!store.requests().is_empty());
    assert!(store.requests().iter().all(|request| request.authorization.is_none()));
}

#[test]
fn two_at_once_download_once() {
    let hub = MockHub::start();
    let (_folder, options) = options(&hub);
    thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| fetch(&options))).collect();
        for run in runs {
            assert_complete(&run.join().unwrap().unwrap());
        }
    });
    assert_eq!(hub.store_ranges(), ["bytes=0-"]);
}

#[test]
fn a_damaged_file_in_the_cache_is_refused_and_left_alone() {
    let hub = MockHub::start();
    let (_folder, options) = options(&hub);
    let snapshot = fetch(&options).unwrap();
    let mut bytes = weights();
    bytes[99] ^= 0x80;
    fs::write(snapshot.join(WEIGHTS), &bytes).unwrap();
    let before = hub.requests().len();
    let error = fetch(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadFile);
    assert!(matches!(&error, HubError::Check { source: CheckError::Hash { .. }, .. }));
    assert_says(&error, &[WEIGHTS, &sha256(&weights()), &sha256(&bytes), "delete it"]);
    assert_eq!(hub.requests().len(), before);
    fs::remove_file(snapshot.join(WEIGHTS)).unwrap();
    assert_complete(&fetch(&options).unwrap());
}

#[test]
fn locking_a_branch_pins_its_commit_and_every_hash() {
    let hub = MockHub::start();
    hub.put("README.md", b"not needed", false);
    let (_folder, options) = options(&hub);
    for (repository, revision) in [(REPOSITORY, "main"), (REPOSITORY, REVISION), ("tiny-gpt2", "main")] {
        let locked = lock_repository(repository, revision, &options, &mut |_| {}).unwrap();
        assert_eq!(locked, model().renamed("tiny-gpt2").unwrap());
    }
    assert!(hub.store_ranges().is_empty(), "large files are not downloaded");
    assert!(options.cache.snapshots().unwrap().is_empty(), "the cache is left as it was");
    assert!(!options.cache.repository_dir(REPOSITORY).exists());
}

#[test]
fn locking_a_sharded_model_lists_every_shard() {
    let hub = MockHub::start();
    hub.remove(WEIGHTS);
    let (_folder, options) = options(&hub);
    let lock = || lock_repository(REPOSITORY, "main", &options, &mut |_| {});
    assert_says(&lock().unwrap_err(), &[REPOSITORY, "has no model.safetensors"]);

    let index = br#"{"metadata": {}, "weight_map": {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors", "c": "m-1-of-2.safetensors"}}"#;
    hub.put("model.safetensors.index.json", index, false);
    hub.put("m-1-of-2.safetensors", b"one", true);
    assert_says(&lock().unwrap_err(), &["has no m-2-of-2.safetensors"]);
    hub.put("m-2-of-2.safetensors", b"two!", false); // small enough to be no LFS file: hashed here
    let locked = lock().unwrap();
    let paths: Vec<_> = locked.files().iter().map(|file| file.path.as_str()).collect();
    let shards = ["m-1-of-2.safetensors", "m-2-of-2.safetensors"];
    assert_eq!(paths, ["config.json", "model.safetensors.index.json", "tokenizer.json", shards[0], shards[1]]);
    assert_eq!(locked.file(shards[0]).unwrap().sha256, sha256(b"one"));
    assert_eq!(locked.file(shards[1]).unwrap().sha256, sha256(b"two!"));
    let snapshot = resolve(&locked, &options, CheckMode::Remembered, &mut |_| {}).unwrap();
    assert_eq!(fs::read(snapshot.join(shards[1])).unwrap(), b"two!");

    let evil = "../../evil.safetensors";
    hub.put("model.safetensors.index.json", br#"{"weight_map": {"a": "../../evil.safetensors"}}"#, false);
    assert_says(&lock().unwrap_err(), &["has no ../../evil.safetensors"]);
    for lfs in [false, true] {
        hub.put(evil, b"also listed", lfs);
        assert_says(&lock().unwrap_err(), &[evil, "not a plain relative path"]);
    }
    assert!(hub.requests().iter().all(|request| !request.path.contains("evil")));
}

#[test]
fn locking_refuses_what_is_not_gpt2() {
    let hub = MockHub::start();
    let (_folder, options) = options(&hub);
    let lock = |repository: &str, revision: &str| lock_repository(repository, revision, &options, &mut |_| {});
    hub.put("config.json", br#"{"model_type": "llama"}"#, false);
    let error = lock(REPOSITORY, "main").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadFile);
    assert_says(&error, &[REPOSITORY, "config.json", "\"gpt2\"", "\"llama\""]);
    hub.put("config.json", b"{}", false);
    assert_says(&lock(REPOSITORY, "main").unwrap_err(), &["file has none"]);
    hub.put("config.json", b"{", false);
    assert_says(&lock(REPOSITORY, "main").unwrap_err(), &["config.json"]);
    hub.put("config.json", CONFIG, false);
    hub.remove("tokenizer.json");
    assert_says(&lock(REPOSITORY, "main").unwrap_err(), &["has no tokenizer.json"]);
    assert!(!options.cache.repository_dir(REPOSITORY).exists(), "a refused repository leaves nothing");

    assert_says(&lock(REPOSITORY, "no-such-branch").unwrap_err(), &["no-such-branch", "HTTP 404"]);
    for (repository, revision) in [("../x", "main"), ("a/b/c", "main"), (REPOSITORY, ""), (REPOSITORY, "a?b")] {
        assert_eq!(lock(repository, revision).unwrap_err().kind(), ErrorKind::Usage, "{repository} {revision}");
    }
}

#[test]
fn a_record_folder_that_can_not_be_written_is_a_warning() {
    let hub = MockHub::start();
    let (folder, options) = options(&hub);
    fs::write(folder.path().join("records"), "a file where the folder should be").unwrap();
    let mut warnings = 0;
    let snapshot = resolve(&model(), &options, CheckMode::Remembered, &mut |event| {
        if let Event::Warning(warning) = event {
            assert!(warning.contains("records") && warning.contains("hashed again"), "{warning}");
            warnings += 1;
        }
    });
    assert_complete(&snapshot.unwrap());
    assert!(warnings > 0);
}

#[test]
fn a_store_that_always_breaks_and_damages_gets_one_clean_attempt() {
    let hub = MockHub::start();
    for _ in 0..3 {
        hub.fault(WEIGHTS, Fault::Truncate(100_000));
        hub.fault(WEIGHTS, Fault::Flip(200_000));
    }
    let (_folder, options) = options(&hub);
    let error = fetch(&options).unwrap_err();
    assert!(matches!(&error, HubError::Discarded { source: CheckError::Hash { .. }, .. }), "{error}");
    assert_eq!(hub.store_ranges(), ["bytes=0-", "bytes=100000-", "bytes=0-", "bytes=100000-"]);
    assert_no_weights(&options.cache);
}

#[test]
fn a_shard_name_made_for_terminals_is_escaped() {
    let hub = MockHub::start();
    let (_folder, options) = options(&hub);
    hub.remove(WEIGHTS);
    hub.put("model.safetensors.index.json", b"{\"weight_map\": {\"a\": \"\\u001b[2J.safetensors\"}}", false);
    let error = lock_repository(REPOSITORY, "main", &options, &mut |_| {}).unwrap_err();
    assert_says(&error, &["has no \\u{1b}[2J.safetensors"]);
    assert!(!error.to_string().contains('\x1b'), "{error}");
    assert!(!options.cache.repository_dir(REPOSITORY).exists(), "a refused repository leaves nothing");
}
