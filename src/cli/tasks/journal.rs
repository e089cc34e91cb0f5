//! The journal of `lesion tasks generate`: every reply as it came, a JSON line each, on the disk before it is used. What was
//! paid for is never lost: the next run with the same output reads it before it asks for anything.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use lesion::llm::Usage;
use serde::{Deserialize, Serialize};

use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::model::shown_path;
use crate::cli::output::note;

/// A reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) schema_version: u32,
    /// Which model said it.
    pub(super) model: String,
    /// The task that it was asked for examples of; none where it was asked for a task.
    pub(super) task: Option<String>,
    /// Its text.
    pub(super) reply: String,
    /// Why it ended.
    pub(super) finish: Option<String>,
    /// What it cost, if the server said.
    pub(super) usage: Option<Usage>,
}

pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// The journal beside an output file, with what it holds. A last line that was cut off is taken away: its writing was
    /// never acknowledged.
    pub(super) fn open(output: &Path) -> Result<(Journal, Vec<Entry>)> {
        let mut path = output.to_owned().into_os_string();
        path.push(".journal");
        let path = PathBuf::from(path);
        let shown = &shown_path(&path);
        let failed = |operation: &'static str| move |error: io::Error| Failure::io(operation, shown, &error);
        let mut file = File::options().read(true).append(true).create(true).open(&path).map_err(failed("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::usage(format!("{shown} is in use by another process")));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed("read"))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            note(format!("{shown}: a last reply that was cut off while it was written is taken away"));
            file.set_len(whole as u64).map_err(failed("write"))?;
        }
        let entry = |(number, line): (usize, &str)| {
            let bad = |error: serde_json::Error| {
                let (column, message) = (error.column(), format!("{shown}, line {}", number + 1));
                Failure::new(Exit::BadFile, format!("{message} column {column}: not a reply of this journal: {error}"))
            };
            serde_json::from_str(line).map_err(bad)
        };
        let entries = text[..whole].lines().enumerate().map(entry).collect::<Result<_>>()?;
        Ok((Journal { path, file }, entries))
    }

    /// Keeps a reply: on the disk when this returns.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_string(entry).expect("entries are plain data");
        line.push('\n');
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| Failure::io("write", &shown_path(&self.path), &error))
    }

    pub(super) fn shown(&self) -> String {
        shown_path(&self.path)
    }
}
