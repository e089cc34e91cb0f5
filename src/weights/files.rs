//! Opening files that strangers named: regular files only, and small ones read with a limit.

use std::fs::{self, File, FileType, Metadata};
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use super::error::WeightsError;

/// How weights come into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// Memory-mapped: opens in milliseconds, pages come in as they are touched. If another program truncates the file
    /// meanwhile, touching a lost page raises SIGBUS and kills the process.
    #[default]
    Map,
    /// Read into memory at opening, whole: slower, and safe from what others do to the file.
    Copy,
}

/// What tells whether a file changed since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Stamp {
        Stamp { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes)?;
        match self.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            Some(since) => write!(f, " modified at Unix time {}.{:09}", since.as_secs(), since.subsec_nanos()),
            None => Ok(()),
        }
    }
}

/// Opens a regular file. Anything else is refused before it is opened: opening a FIFO would wait for ever.
pub(super) fn open_regular(path: &Path) -> Result<(File, Stamp), WeightsError> {
    let io = |operation| move |source| WeightsError::Io { operation, path: path.to_owned(), source };
    check_regular(path, &fs::metadata(path).map_err(io("open"))?)?;
    let file = File::open(path).map_err(io("open"))?;
    let metadata = file.metadata().map_err(io("examine"))?;
    check_regular(path, &metadata)?;
    Ok((file, Stamp::of(&metadata)))
}

/// The whole content of a regular file of at most `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, WeightsError> {
    let (file, stamp) = open_regular(path)?;
    let too_large = |bytes| WeightsError::TooLarge { path: path.to_owned(), bytes, limit };
    if stamp.bytes > limit {
        return Err(too_large(stamp.bytes));
    }
    let mut bytes = Vec::with_capacity(stamp.bytes as usize);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|source| WeightsError::Io {
        operation: "read",
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

pub(super) fn check_regular(path: &Path, metadata: &Metadata) -> Result<(), WeightsError> {
    if metadata.is_file() {
        Ok(())
    } else {
        Err(WeightsError::NotRegular { path: path.to_owned(), kind: kind(metadata.file_type()) })
    }
}

fn kind(file_type: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return "a FIFO";
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return "a device";
        }
        if file_type.is_socket() {
            return "a socket";
        }
    }
    if file_type.is_dir() { "a directory" } else { "something else" }
}
