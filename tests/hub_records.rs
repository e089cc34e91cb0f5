//! Remembered checks: what spares reading a file, and what doesn't.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use lesion::weights::{CheckError, CheckMode, Checked, ErrorKind, LockedFile, Records};
use sha2::{Digest, Sha256};

const CONTENT: &[u8] = b"weights of some kind";

struct Case {
    folder: tempfile::TempDir,
    path: PathBuf,
    records: Records,
    expected: LockedFile,
}

impl Case {
    fn new() -> Case {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, CONTENT).unwrap();
        let records = Records::at(folder.path().join("records"));
        let sha256 = format!("{:x}", Sha256::digest(CONTENT));
        let expected = LockedFile { path: "model.safetensors".into(), size: CONTENT.len() as u64, sha256 };
        Case { folder, path, records, expected }
    }

    /// The check, and how many bytes were read for it.
    fn check(&self, mode: CheckMode) -> (Result<Checked, CheckError>, u64) {
        let mut read = 0;
        let checked = self.records.check(&self.path, Some(&self.expected), mode, &mut |done| read = done);
        (checked, read)
    }

    fn record(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.folder.path().join("records")).unwrap();
        let path = entries.next().unwrap().unwrap().path();
        assert!(entries.next().is_none(), "one record, no temporary files");
        path
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[3] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
#[cfg(unix)]
fn the_first_check_reads_and_the_next_does_not() {
    let case = Case::new();
    let (first, read) = case.check(CheckMode::Remembered);
    assert_eq!((first.unwrap().remembered, read), (false, CONTENT.len() as u64));
    let (second, read) = case.check(CheckMode::Remembered);
    let second = second.unwrap();
    assert_eq!((second.remembered, read), (true, 0));
    assert_eq!((second.sha256, second.size), (case.expected.sha256.clone(), case.expected.size));
    let (third, read) = case.check(CheckMode::Always);
    assert_eq!((third.unwrap().remembered, read), (false, CONTENT.len() as u64));
}

#[test]
fn one_flipped_bit_is_refused_also_with_the_dates_set_back() {
    let case = Case::new();
    case.check(CheckMode::Remembered).0.unwrap();
    let modified = fs::metadata(&case.path).unwrap().modified().unwrap();
    flip(&case.path);
    File::options().write(true).open(&case.path).unwrap().set_modified(modified).unwrap();
    assert_eq!(fs::metadata(&case.path).unwrap().modified().unwrap(), modified);
    for mode in [CheckMode::Remembered, CheckMode::Always] {
        let error = case.check(mode).0.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadFile);
        let message = error.to_string();
        let found = format!("{:x}", Sha256::digest(fs::read(&case.path).unwrap()));
        assert!(message.contains(&case.expected.sha256) && message.contains(&found), "{message}");
        assert!(message.contains("model.safetensors"), "{message}");
    }
    flip(&case.path);
    case.check(CheckMode::Remembered).0.unwrap();
}

#[test]
fn a_write_right_after_the_check_is_seen() {
    let case = Case::new();
    for _ in 0..20 {
        case.check(CheckMode::Remembered).0.unwrap();
        flip(&case.path);
        assert!(matches!(case.check(CheckMode::Remembered).0, Err(CheckError::Hash { .. })));
        flip(&case.path);
    }
}

#[test]
fn the_size_is_compared_before_anything_is_read() {
    let case = Case::new();
    fs::write(&case.path, b"short").unwrap();
    let (error, read) = case.check(CheckMode::Remembered);
    assert!(matches!(error, Err(CheckError::Size { expected: 20, found: 5, .. })));
    assert_eq!(read, 0);
}

#[test]
#[cfg(unix)]
fn a_damaged_record_counts_as_none() {
    let case = Case::new();
    case.check(CheckMode::Remembered).0.unwrap();
    let record = case.record();
    let good = fs::read_to_string(&record).unwrap();
    let damaged = [
        String::new(),
        "{".into(),
        "null".into(),
        good.replace("\"schema\": 1", "\"schema\": 2"),
        good.replace(&case.expected.sha256, "abc"),
        good.replace("\"inode\": ", "\"inode\": 1"),
        good[..good.len() / 2].to_string(),
    ];
    for text in damaged {
        assert_ne!(text, good);
        fs::write(&record, &text).unwrap();
        let (checked, read) = case.check(CheckMode::Remembered);
        assert_eq!((checked.unwrap().remembered, read), (false, CONTENT.len() as u64), "{text}");
        assert_eq!(fs::read_to_string(case.record()).unwrap(), good, "written anew");
    }
    // A record with a hash that the lock contradicts accuses nobody: the file is read.
    fs::write(&record, good.replace(&case.expected.sha256, &"a".repeat(64))).unwrap();
    assert_eq!(case.check(CheckMode::Remembered).1, CONTENT.len() as u64);
}

#[test]
#[cfg(unix)]
fn counts_of_non_finite_values_are_remembered_with_the_content() {
    let case = Case::new();
    let mut checked = case.check(CheckMode::Remembered).0.unwrap();
    assert_eq!(checked.non_finite, None);
    let counts = vec![("h.0.mlp.c_fc.weight".to_string(), 3)];
    assert_eq!(case.records.set_non_finite(&case.path, &mut checked, counts.clone()), None);
    for mode in [CheckMode::Remembered, CheckMode::Always] {
        assert_eq!(case.check(mode).0.unwrap().non_finite, Some(counts.clone()));
    }
    flip(&case.path);
    flip(&case.path);
    assert_eq!(case.check(CheckMode::Remembered).0.unwrap().non_finite, None, "another stamp: scanned again");
}

#[test]
fn without_a_lock_the_hash_is_told() {
    let case = Case::new();
    let checked = case.records.check(&case.path, None, CheckMode::Remembered, &mut |_| {}).unwrap();
    assert_eq!(checked.sha256, case.expected.sha256);
    let checked = Records::disabled().check(&case.path, None, CheckMode::Remembered, &mut |_| {}).unwrap();
    assert_eq!((checked.sha256, checked.remembered), (case.expected.sha256.clone(), false));
}

#[test]
fn folders_pipes_devices_and_nothing_are_refused_unopened() {
    let case = Case::new();
    let check = |path: &Path| case.records.check(path, None, CheckMode::Remembered, &mut |_| {}).unwrap_err();
    assert!(matches!(check(case.folder.path()), CheckError::NotAFile { .. }));
    let missing = check(&case.folder.path().join("absent"));
    assert_eq!(missing.kind(), ErrorKind::Missing);
    assert!(missing.to_string().contains("absent"));
    if cfg!(unix) {
        assert!(matches!(check(Path::new("/dev/zero")), CheckError::NotAFile { .. }));
        let pipe = case.folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(matches!(check(&pipe), CheckError::NotAFile { .. }));
    }
}
