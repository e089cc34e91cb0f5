//! What was verified before: a file's SHA-256 and its count of non-finite values, remembered by the file's stamp
//! (device, inode, size, time of modification, time of change), so that a verified model opens without being read.
//!
//! One small JSON file per weights file in lesion's own cache folder, named by device and inode, written beside and
//! renamed. A record that is damaged, or that belongs to another stamp, counts as none: the file is hashed again. The
//! time of change can't be set back by a program, so a file edited in place with its dates restored has a new stamp.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{ErrorKind, LockedFile, printable_path};

const SCHEMA: u32 = 1;

/// The folder of records; or none, and then every check reads the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    directory: Option<PathBuf>,
}

/// Whether a remembered check counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckMode {
    /// Hash only what is new or has changed.
    Remembered,
    /// Hash in any case (`--verify`).
    Always,
}

/// A file whose content is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, 64 lowercase hex digits.
    pub sha256: String,
    /// Whether the hash was remembered rather than taken now.
    pub remembered: bool,
    /// Tensors that hold NaN or infinities, with how many; `None` before [`Records::set_non_finite`].
    pub non_finite: Option<Vec<(String, u64)>>,
    /// Why this check won't be remembered, if it won't.
    pub warning: Option<String>,
    stamp: Option<Stamp>,
}

/// A file that isn't what it has to be.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The file can't be read.
    #[error("can't read {}: {source}", printable_path(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{} is not a regular file", printable_path(path))]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Not as long as the lock says.
    #[error("{}: expected {expected} bytes, file has {found}", printable_path(path))]
    Size {
        /// The file.
        path: PathBuf,
        /// The lock's value.
        expected: u64,
        /// The file's.
        found: u64,
    },
    /// Not the content that the lock says.
    #[error("{}: expected SHA-256 {expected}, file has {found}", printable_path(path))]
    Hash {
        /// The file.
        path: PathBuf,
        /// The lock's value.
        expected: String,
        /// The file's.
        found: String,
    },
    /// Someone wrote to it meanwhile.
    #[error("{} changed while it was being hashed", printable_path(path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl CheckError {
    /// Unreadable is [`ErrorKind::Missing`], anything else [`ErrorKind::BadFile`].
    pub fn kind(&self) -> ErrorKind {
        match self {
            CheckError::Io { .. } => ErrorKind::Missing,
            _ => ErrorKind::BadFile,
        }
    }
}

/// Changes whenever the file's content does; times are seconds and nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    schema: u32,
    /// For people who look into the folder; the stamp alone identifies the file.
    path: String,
    stamp: Stamp,
    sha256: String,
    non_finite: Option<Vec<(String, u64)>>,
}

impl Records {
    /// Records in `directory`, which is made when the first one is written.
    pub fn at(directory: PathBuf) -> Records {
        Records { directory: Some(directory) }
    }

    /// Remembers nothing.
    pub fn disabled() -> Records {
        Records { directory: None }
    }

    /// The folder, unless disabled.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Makes sure of the content of the file at `path`: its size first, then its SHA-256, remembered or taken now.
    /// `progress` gets the bytes hashed so far. Without `expected` (a file that no lock lists) the hash is only told.
    ///
    /// # Errors
    /// When the file can't be read, or isn't what `expected` says.
    pub fn check(
        &self,
        path: &Path,
        expected: Option<&LockedFile>,
        mode: CheckMode,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Checked, CheckError> {
        let io_error = |source| CheckError::Io { path: path.into(), source };
        // Not opened yet: opening a pipe would wait for a writer.
        let metadata = fs::metadata(path).map_err(io_error)?;
        if !metadata.is_file() {
            return Err(CheckError::NotAFile { path: path.into() });
        }
        if let Some(expected) = expected
            && expected.size != metadata.len()
        {
            return Err(CheckError::Size { path: path.into(), expected: expected.size, found: metadata.len() });
        }
        if mode == CheckMode::Remembered
            && let Some(record) = stamp(&metadata).and_then(|stamp| self.load(&stamp))
            && expected.is_none_or(|expected| expected.sha256 == record.sha256)
        {
            let Record { stamp, sha256, non_finite, .. } = record;
            let (size, stamp) = (stamp.size, Some(stamp));
            return Ok(Checked { size, sha256, remembered: true, non_finite, warning: None, stamp });
        }

        let (sha256, metadata) = hash(path, progress)?;
        if let Some(expected) = expected
            && expected.sha256 != sha256
        {
            return Err(CheckError::Hash { path: path.into(), expected: expected.sha256.clone(), found: sha256 });
        }
        let stamp = stamp(&metadata);
        // Counts belong to the content: taking the hash again doesn't lose them.
        let non_finite = stamp
            .as_ref()
            .and_then(|stamp| self.load(stamp))
            .filter(|record| record.sha256 == sha256)
            .and_then(|record| record.non_finite);
        let mut checked = Checked { size: metadata.len(), sha256, remembered: false, non_finite, warning: None, stamp };
        checked.warning = self.save(path, &checked);
        Ok(checked)
    }

    /// Adds the non-finite counts of a file's tensors to what is remembered of it. Returns why it can't be remembered,
    /// if so.
    pub fn set_non_finite(&self, path: &Path, checked: &mut Checked, counts: Vec<(String, u64)>) -> Option<String> {
        checked.non_finite = Some(counts);
        self.save(path, checked)
    }

    /// Remembers a checked file under its new path. Renaming changes only the time of change; if anything else
    /// differs, it isn't the file that was checked, and the next use hashes it.
    #[cfg(feature = "hub")]
    pub(super) fn moved(&self, to: &Path, mut checked: Checked) -> Option<String> {
        let metadata = fs::metadata(to).ok()?;
        let (before, now) = (checked.stamp.take()?, stamp(&metadata)?);
        if (Stamp { changed: now.changed, ..before }) != now {
            return None;
        }
        checked.stamp = Some(now);
        self.save(to, &checked)
    }

    fn load(&self, stamp: &Stamp) -> Option<Record> {
        let text = fs::read(self.directory.as_ref()?.join(record_name(stamp))).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        (record.schema == SCHEMA && record.stamp == *stamp && super::lock::is_sha256(&record.sha256)).then_some(record)
    }

    fn save(&self, path: &Path, checked: &Checked) -> Option<String> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let (directory, stamp) = (self.directory.as_ref()?, checked.stamp.as_ref()?);
        let record = Record {
            schema: SCHEMA,
            path: path.display().to_string(),
            stamp: stamp.clone(),
            sha256: checked.sha256.clone(),
            non_finite: checked.non_finite.clone(),
        };
        let text = serde_json::to_vec_pretty(&record).expect("plain data with text keys");
        let target = directory.join(record_name(stamp));
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let temporary = directory.join(format!("{}.{}.{serial}.tmp", record_name(stamp), std::process::id()));
        let written = fs::create_dir_all(directory)
            .and_then(|()| fs::write(&temporary, text))
            .and_then(|()| fs::rename(&temporary, &target));
        written.err().map(|error| {
            let _ = fs::remove_file(&temporary);
            format!(
                "{}: can't write the record of a check, the file will be hashed again next time: {error}",
                printable_path(directory)
            )
        })
    }
}

fn record_name(stamp: &Stamp) -> String {
    format!("{:x}-{:x}.json", stamp.device, stamp.inode)
}

/// SHA-256 of a file and its metadata, unchanged from before the first byte to after the last.
fn hash(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<(String, Metadata), CheckError> {
    let io_error = |source| CheckError::Io { path: path.into(), source };
    let mut file = File::open(path).map_err(io_error)?;
    let before = file.metadata().map_err(io_error)?;
    settle(&before);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io_error(error)),
        };
        hasher.update(&buffer[..count]);
        done += count as u64;
        progress(done);
    }
    let after = file.metadata().map_err(io_error)?;
    if stamp(&before) != stamp(&after) || done != after.len() {
        return Err(CheckError::Changed { path: path.into() });
    }
    Ok((format!("{:x}", hasher.finalize()), after))
}

/// Waits until the file's time of change lies a tick of the file system's clock in the past, so that a write after the
/// hash can't leave the stamp as it is: kernels advance that clock every 1 to 10 ms, old file systems every 2 s.
fn settle(metadata: &Metadata) {
    let Some(Stamp { modified, changed, .. }) = stamp(metadata) else { return };
    let coarse = modified.1 == 0 && changed.1 == 0;
    let tick = if coarse { Duration::from_secs(2) } else { Duration::from_millis(20) };
    let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(changed.0), u32::try_from(changed.1)) else { return };
    let age = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(Duration::new(seconds, nanoseconds));
    thread::sleep(tick.saturating_sub(age));
}

#[cfg(unix)]
fn stamp(metadata: &Metadata) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Without inodes and a time of change nothing tells an edited file from a checked one: every use hashes.
#[cfg(not(unix))]
fn stamp(_metadata: &Metadata) -> Option<Stamp> {
    None
}
