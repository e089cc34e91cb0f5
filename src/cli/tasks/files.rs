//! From a name or a path to tasks.

use std::path::Path;

use lesion::tasks::bundled::{self, BundledError};
use lesion::tasks::{Task, TaskError, read_any};

use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::sweep::inputs::{name, read, stem};

/// What stands for all bundled tasks.
pub(crate) const BUNDLED: &str = "bundled";

/// All bundled tasks, or those of a file.
pub(crate) fn tasks_of(path: &Path) -> Result<Vec<Task>> {
    if path.as_os_str() == BUNDLED {
        return bundled::tasks(bundled::SEED, bundled::EXAMPLES).map_err(|error| bundled_failure(&error));
    }
    read_any(&read(path)?, &name(path), &stem(path)).map_err(|error| task_failure(&error))
}

/// The bundled task of this name.
pub(crate) fn bundled(name: &str) -> Result<Vec<Task>> {
    let task = bundled::task(name, bundled::SEED, bundled::EXAMPLES).map_err(|error| bundled_failure(&error))?;
    Ok(vec![task])
}

/// A bundled task, all of them, or those of a file.
pub(super) fn named(tasks: &Path) -> Result<Vec<Task>> {
    match tasks.to_str().filter(|name| bundled::names().any(|task| task == *name)) {
        Some(name) => bundled(name),
        None => tasks_of(tasks).map_err(|failure| match tasks.exists() || tasks.as_os_str() == "-" {
            true => failure,
            false => failure.with_help("`lesion tasks ls` lists the bundled tasks"),
        }),
    }
}

pub(crate) fn task_failure(error: &TaskError) -> Failure {
    Failure::new(Exit::BadFile, error.to_string())
}

pub(crate) fn bundled_failure(error: &BundledError) -> Failure {
    let failure = Failure::usage(error.to_string());
    match error {
        BundledError::Name { .. } => failure.with_help("`lesion tasks ls` lists them"),
        _ => failure,
    }
}
