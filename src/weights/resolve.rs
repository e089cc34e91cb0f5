//! From a locked model to a folder with its verified files: the cache first, then the hub.
//!
//! The library prints nothing: what happens is told to the caller as [`Event`]s.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::{CheckError, CheckMode, ErrorKind, HubOptions, LockProblem, LockedModel, hub, printable, printable_path};

/// What is going on while a model is being found, fetched and verified. Sizes are bytes.
#[derive(Debug)]
pub enum Event<'a> {
    /// Files are about to be downloaded.
    Missing {
        /// The hub repository.
        repository: &'a str,
        /// The commit.
        revision: &'a str,
        /// How many files.
        files: usize,
        /// How large they are together.
        size: u64,
        /// The folder they will be in.
        destination: &'a Path,
    },
    /// Another process is downloading the same model; its turn comes first.
    Waiting {
        /// The lock file that it holds.
        path: &'a Path,
    },
    /// One file's download begins.
    Download {
        /// Path in the repository.
        file: &'a str,
        /// Where it comes from.
        url: &'a str,
        /// Its size.
        size: u64,
    },
    /// Bytes have arrived.
    Received {
        /// Path in the repository.
        file: &'a str,
        /// Bytes here by now, those of an earlier attempt included.
        done: u64,
        /// The file's size.
        size: u64,
    },
    /// A transfer failed and is taken up again.
    Retry {
        /// Path in the repository, or the address that was asked.
        what: &'a str,
        /// Why it failed.
        reason: &'a str,
        /// How long until the next attempt.
        pause: Duration,
    },
    /// A file is being hashed.
    Verifying {
        /// Path in the repository.
        file: &'a str,
        /// Bytes hashed by now.
        done: u64,
        /// The file's size.
        size: u64,
    },
    /// Something to tell the user that stops nothing.
    Warning(&'a str),
}

/// Why a model's files can't be had.
#[derive(Debug, Error)]
pub enum HubError {
    /// An environment variable that can't be understood; `found` is left out where it may be a secret.
    #[error("{name}{}: expected {expected}", found.as_ref().map(|found| format!("={found:?}")).unwrap_or_default())]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        found: Option<String>,
        /// What it can be.
        expected: &'static str,
    },
    /// No variable tells where caches are.
    #[error("no cache folder: none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME is set")]
    NoHome,
    /// The token's file holds no token.
    #[error("{}: expected one token without spaces or control characters", printable_path(path))]
    TokenFile {
        /// The file.
        path: PathBuf,
    },
    /// A repository or revision that can't be one, or an entry that can't stand in a lock.
    #[error(transparent)]
    Problem(#[from] LockProblem),
    /// A file that isn't what the lock says.
    #[error("model {model:?}: {source}{}", advice(source))]
    Check {
        /// The model's name.
        model: String,
        /// What is wrong.
        source: CheckError,
    },
    /// The hub sent what isn't what the lock says; nothing of it is left.
    #[error("model {model:?}: {source} (what the hub sent was discarded)")]
    Discarded {
        /// The model's name.
        model: String,
        /// What is wrong.
        source: CheckError,
    },
    /// Files are missing and may not be downloaded.
    #[error(
        "model {model:?} ({pinned}): {missing} not in the cache (looked in {}), and {reason}",
        printable_path(looked_in)
    )]
    NotCached {
        /// The model's name.
        model: String,
        /// Repository and commit.
        pinned: String,
        /// The files that aren't there.
        missing: String,
        /// The folder where they would be.
        looked_in: PathBuf,
        /// Why they aren't fetched.
        reason: &'static str,
    },
    /// Asking the hub is impossible.
    #[error("can't ask the hub about {repository}: {}", printable(reason))]
    NoHub {
        /// The repository.
        repository: String,
        /// Why not.
        reason: String,
    },
    /// The hub refuses.
    #[error("{url}: access refused (HTTP {status}); {advice}")]
    Denied {
        /// What was asked for.
        url: String,
        /// 401 or 403.
        status: u16,
        /// What to do about it.
        advice: &'static str,
    },
    /// The hub doesn't have it.
    #[error("{url}: not found (HTTP {status}): no such repository, revision or file, or it is private")]
    NotFound {
        /// What was asked for.
        url: String,
        /// 404 or 410.
        status: u16,
    },
    /// The transfer failed, also when retried.
    #[error("{}: {}{}", printable_path(url), printable(reason), kept(*received))]
    Transfer {
        /// What was asked for.
        url: String,
        /// How the last attempt failed.
        reason: String,
        /// Bytes here by now.
        received: u64,
    },
    /// The transfer stopped moving.
    #[error("{url}: stalled, no byte in {:.1} s{}", waited.as_secs_f64(), kept(*received))]
    Stalled {
        /// What was asked for.
        url: String,
        /// How long nothing came.
        waited: Duration,
        /// Bytes here by now.
        received: u64,
    },
    /// The hub's answer contradicts the lock, or itself.
    #[error("{}: the hub's {what} is {}, expected {}", printable_path(url), printable(found), printable(expected))]
    Answer {
        /// What was asked for.
        url: String,
        /// Which part of the answer.
        what: &'static str,
        /// Its value.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// A repository that lesion can't run.
    #[error("{repository} at {revision}: {}", printable(reason))]
    Unsuitable {
        /// The repository.
        repository: String,
        /// The commit.
        revision: String,
        /// What it lacks.
        reason: String,
    },
    /// The disk.
    #[error("can't {operation} {}: {source}", printable_path(path))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl HubError {
    /// Which of the command's exit codes this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            // Names come from the user, paths from the repository.
            HubError::Problem(LockProblem::Path { .. }) => ErrorKind::BadFile,
            HubError::Variable { .. } | HubError::NoHome | HubError::Problem(_) => ErrorKind::Usage,
            HubError::TokenFile { .. } | HubError::Answer { .. } | HubError::Unsuitable { .. } => ErrorKind::BadFile,
            HubError::Check { source, .. } | HubError::Discarded { source, .. } => source.kind(),
            HubError::NotCached { .. }
            | HubError::NoHub { .. }
            | HubError::Denied { .. }
            | HubError::NotFound { .. }
            | HubError::Transfer { .. }
            | HubError::Stalled { .. }
            | HubError::Io { .. } => ErrorKind::Missing,
        }
    }
}

/// A damaged file in the cache is the user's: it is never deleted behind their back.
fn advice(error: &CheckError) -> &'static str {
    match error {
        CheckError::Size { .. } | CheckError::Hash { .. } => " (not used; delete it to download it again)",
        _ => "",
    }
}

fn kept(received: u64) -> String {
    match received {
        0 => String::new(),
        bytes => format!("; {bytes} bytes are kept, the next try resumes there"),
    }
}

/// The folder that holds all files of `model`, complete and verified: from the cache, else downloaded into it.
/// A file remembered as verified isn't read again, unless `mode` says so.
///
/// # Errors
/// When a file is missing and can't be downloaded, or when one isn't what the lock says.
pub fn resolve(
    model: &LockedModel,
    options: &HubOptions,
    mode: CheckMode,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<PathBuf, HubError> {
    let locate = || {
        options.cache.locate(model).map_err(|source| HubError::Io {
            operation: "look into",
            path: options.cache.snapshot_dir(model.repository(), model.revision()),
            source,
        })
    };
    let mut located = locate()?;
    if !located.missing.is_empty() {
        let not_cached = |reason| HubError::NotCached {
            model: model.name().into(),
            pinned: format!("{} at {}", model.repository(), model.revision()),
            missing: located.missing.iter().map(|file| file.path.as_str()).collect::<Vec<_>>().join(", "),
            looked_in: located.directory.clone(),
            reason,
        };
        if let Some(reason) = hub::unavailable(options) {
            return Err(not_cached(reason));
        }
        hub::fetch(model, options, observe)?;
        located = locate()?;
    }
    for file in model.files() {
        let path = located.directory.join(&file.path);
        let mut hashed = |done| observe(Event::Verifying { file: &file.path, done, size: file.size });
        let checked = options
            .records
            .check(&path, Some(file), mode, &mut hashed)
            .map_err(|source| HubError::Check { model: model.name().into(), source })?;
        if let Some(warning) = checked.warning {
            observe(Event::Warning(&warning));
        }
    }
    Ok(located.directory)
}
