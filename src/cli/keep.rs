//! The store, as commands use it: where it is, under which model and numerics they write, and its errors as exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lesion::forward::{NUMERICS_VERSION, Session};
use lesion::model::Model;
use lesion::plan::Plan;
use lesion::store::{
    ModelIdentity, NewExperiment, NewObservation, Recorder, Setting, Store, StoreError, StoreErrorKind, Wanted,
};

use super::args::ModelArgs;
use super::failure::{Exit, Failure, Result};
use super::model::{self, shown_path};
use super::output::note;
use super::store::args::StoreArgs;

/// The commit that this program was built from, where that was known.
const COMMIT: &str = env!("LESION_COMMIT");

const ELSEWHERE: &str = "--store FILE names another place, --no-store keeps nothing";

/// Where a command keeps what it measures; none where it is to keep nothing. The folder of the user's own store is made.
pub(crate) fn place(args: &StoreArgs) -> Result<Option<PathBuf>> {
    match &args.store {
        _ if args.no_store => Ok(None),
        Some(path) => Ok(Some(path.clone())),
        None => {
            let path = default_path()?;
            let folder = path.parent().unwrap_or(Path::new(""));
            fs::create_dir_all(folder).map_err(|error| {
                let failure = Failure::io("make", &shown_path(folder), &error).with_exit(Exit::Missing);
                failure.with_help(ELSEWHERE)
            })?;
            Ok(Some(path))
        }
    }
}

/// The user's own store.
pub(crate) fn default_path() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
    let folder = variable("XDG_DATA_HOME").or_else(|| home().map(|home| home.join(".local").join("share")));
    let folder = folder.ok_or_else(|| {
        let message = "no folder to keep results in: none of XDG_DATA_HOME, HOME and USERPROFILE is set";
        Failure::new(Exit::Missing, message).with_help(ELSEWHERE)
    })?;
    Ok(folder.join("lesion").join("store.db"))
}

/// Opens a store to write to.
pub(crate) fn open(path: &Path) -> Result<Store> {
    Store::open(path).map_err(|error| match error.kind() {
        StoreErrorKind::Usage => store_failure(&error),
        _ => store_failure(&error).with_help(ELSEWHERE),
    })
}

/// What decides the results of a session, besides plans and tokens.
pub(crate) fn setting(session: &Session) -> Result<Setting> {
    let model = session.model();
    Ok(Setting {
        model: identity(model)?,
        arithmetic: session.arithmetic().to_owned(),
        numerics_version: NUMERICS_VERSION,
    })
}

fn identity(model: &Model) -> Result<ModelIdentity> {
    let config = model.config();
    let tokenizer = model.tokenizer_sha256().map_err(|error| model::model_failure(&error))?;
    Ok(ModelIdentity {
        weights: model::identity(model)?,
        tokenizer: tokenizer.map(|hash| model::hex(&hash)),
        name: model.name().to_owned(),
        n_layer: config.n_layer,
        n_head: config.n_head,
        vocab_size: config.vocab_size,
    })
}

/// Begins to keep what a session measures of these plans, in a process that began then.
pub(crate) fn begin(
    store: Store,
    session: &Session,
    model_args: &ModelArgs,
    plans: &[Plan],
    wanted: Wanted,
    experiment: Option<&NewExperiment<'_>>,
    began: Instant,
) -> Result<Recorder> {
    let observation = NewObservation {
        isa: session.isa().name(),
        threads: session.threads(),
        model: &model_args.model.to_string_lossy(),
        commit: COMMIT,
        host: &host(),
        command: &command(),
        began,
    };
    let recorder = Recorder::begin(store, &setting(session)?, plans, wanted, &observation, experiment);
    recorder.map_err(|error| store_failure(&error))
}

/// The store of a command whose result is what it prints: where the user's own one can't be had, it says so and goes on.
pub(crate) fn open_if_possible(args: &StoreArgs) -> Result<Option<Store>> {
    match place(args).and_then(|path| path.map(|path| open(&path)).transpose()) {
        Err(failure) if args.store.is_none() => {
            note(format!("warning: nothing is kept: {failure}"));
            Ok(None)
        }
        other => other,
    }
}

/// The arguments of this process, its own name aside.
pub(crate) fn command() -> Vec<String> {
    std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// The machine's name, where the system says.
fn host() -> String {
    let said = fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| {
        let output = std::process::Command::new("uname").arg("-n").output().ok()?;
        String::from_utf8(output.stdout).ok()
    });
    said.map_or_else(String::new, |name| name.trim().to_owned())
}

/// An error of the store.
pub(crate) fn store_failure(error: &StoreError) -> Failure {
    let exit = match error.kind() {
        StoreErrorKind::Usage => Exit::Usage,
        StoreErrorKind::BadFile => Exit::BadFile,
        StoreErrorKind::Missing => Exit::Missing,
    };
    let failure = Failure::new(exit, error.to_string());
    match error {
        StoreError::Taken { .. } => failure.with_help("--experiment NAME gives this one another name"),
        _ => failure,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        store_failure(&error)
    }
}
