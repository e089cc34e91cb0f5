//! Why a store, or what was asked of it, was refused.

use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a store, or what was asked of it, was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite refused.
    #[error("can't {operation} {}: {source}", path.display())]
    Sqlite {
        /// What was tried.
        operation: &'static str,
        /// The store.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The system refused.
    #[error("can't {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file to read is not there.
    #[error("no store at {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of lesion wrote it.
    #[error("{}: a store of version {found}, this version of lesion knows {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An older version of lesion wrote it, and it can't be written to.
    #[error("{}: a store of version {found}, which has to be made one of version {known}, and can't be written to", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It is an SQLite file of something else.
    #[error("{}: an SQLite file, but not one of lesion's", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// Results wait in a log beside it that can't be read without writing.
    #[error("{}: the last results are in its log (-wal), which can't be read in a folder that can't be written to", path.display())]
    Log {
        /// The file.
        path: PathBuf,
    },
    /// A row of it is not what it should be.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An experiment of this name is another one.
    #[error("experiment `{}` is there already and another one: its model, numerics, plans or examples differ", name.escape_debug())]
    Taken {
        /// The name.
        name: String,
    },
    /// There is no such thing.
    #[error("no {what} `{}`{}", name.escape_debug(), known.as_deref().map_or(String::new(), |known| format!(": there are {known}")))]
    Unknown {
        /// What it would be.
        what: &'static str,
        /// How it was named.
        name: String,
        /// What there is, where that is a short list.
        known: Option<String>,
    },
    /// A plan with a bridge of unknown content: a key of its results would stand for any content.
    #[error("plan {plan}: what its bridges hold is not known; forward::Bridges::bind says it")]
    Unbound {
        /// The plan.
        plan: String,
    },
    /// What was asked can't be meant.
    #[error("{0}")]
    Query(String),
    /// An export failed in its own format.
    #[error("can't write {}: {problem}", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

/// What kind of thing is wrong: command lines turn it into exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// What was asked can't be meant.
    Usage,
    /// The file is not what it should be.
    BadFile,
    /// Room, permission or a file is missing.
    Missing,
}

impl StoreError {
    pub(super) fn sqlite(operation: &'static str, path: &Path, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { operation, path: path.to_owned(), source }
    }

    /// What kind of thing is wrong.
    pub fn kind(&self) -> StoreErrorKind {
        match self {
            StoreError::Sqlite { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreErrorKind::BadFile,
                Some(_) => StoreErrorKind::Missing,
                None => StoreErrorKind::BadFile,
            },
            StoreError::Io { .. } | StoreError::Missing { .. } | StoreError::Log { .. } | StoreError::Older { .. } => {
                StoreErrorKind::Missing
            }
            StoreError::Newer { .. } | StoreError::Other { .. } | StoreError::Damaged { .. } => StoreErrorKind::BadFile,
            StoreError::Taken { .. }
            | StoreError::Unbound { .. }
            | StoreError::Unknown { .. }
            | StoreError::Query(_) => StoreErrorKind::Usage,
            StoreError::Export { .. } => StoreErrorKind::Missing,
        }
    }
}
