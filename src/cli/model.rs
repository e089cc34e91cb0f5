//! From `--model` to an open model: the embedded one, one that a lock file pins (from the cache, else downloaded, in any
//! case verified), or a directory. Says on stderr what takes time.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lesion::model::{Config, Model, ModelError, OpenOptions, is_mask_buffer};
use lesion::plan::PlanShape;
use lesion::weights::{
    CheckError, CheckMode, ErrorKind, Event, HubError, HubOptions, LockError, LockedModel, ReadMode, Records,
    WeightsError, WeightsLock, lock_repository,
};

use sha2::{Digest, Sha256};

use super::args::{LockArgs, ModelArgs};
use super::failure::{Exit, Failure, Result};
use super::output::{note, size};
use super::resolve::tokenizer_failure;
use super::signals;

/// The name of the embedded model.
pub(crate) const MINI: &str = "mini";

/// Bytes from which on reading a file takes long enough to be told.
const LARGE: u64 = 50_000_000;

/// No honest config.json is longer.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// How often a download says how far it is where no progress bar can be drawn.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// The lock file that was asked for, or the one built in.
pub(crate) fn lock(args: &LockArgs) -> Result<WeightsLock> {
    match &args.lock {
        Some(path) => WeightsLock::read(path).map_err(|error| lock_failure(&error)),
        None => Ok(WeightsLock::bundled()),
    }
}

/// The entry of a lock file, or an error that lists its names.
pub(crate) fn locked<'a>(lock: &'a WeightsLock, name: &str) -> Result<&'a LockedModel> {
    lock.model(name).ok_or_else(|| {
        let names: Vec<&str> = lock.models().iter().map(LockedModel::name).collect();
        Failure::usage(format!("no model `{}` in the lock file: it pins {}", name.escape_debug(), names.join(", ")))
    })
}

/// The layers and heads of the model named, from its configuration alone: no weights are read or fetched.
pub(crate) fn shape(name: &Path, lock_args: &LockArgs) -> Result<PlanShape> {
    if name.to_str() == Some(MINI) {
        return Model::mini().map(|model| model.plan_shape()).map_err(|error| model_failure(&error));
    }
    let lock = lock(lock_args)?;
    let file = match name.to_str().and_then(|name| lock.model(name)) {
        Some(pinned) => {
            let options = hub_options()?;
            let file = options.cache.snapshot_dir(pinned.repository(), pinned.revision()).join("config.json");
            if !file.exists() {
                let name = pinned.name();
                return Err(Failure::new(
                    Exit::Missing,
                    format!("model `{name}` is not in the cache: what a plan means for it can't be told"),
                )
                .with_help(format!("`lesion models fetch {name}` fetches it; --layers and --heads need no model")));
            }
            let checked = options.records.check(&file, pinned.file("config.json"), CheckMode::Remembered, &mut |_| ());
            checked.map_err(|error| check_failure(&error))?;
            file
        }
        None if name.is_dir() => name.join("config.json"),
        None => return Err(unknown_model(name, &lock)),
    };
    let shown = shown_path(&file);
    let mut json = Vec::new();
    let read = File::open(&file).and_then(|file| file.take(MAX_CONFIG_BYTES).read_to_end(&mut json));
    read.map_err(|error| Failure::io("read", &shown, &error))?;
    let config = Config::from_json(&json, &shown).map_err(|error| Failure::new(Exit::BadFile, error.to_string()))?;
    Ok(PlanShape { n_layer: config.n_layer, n_head: config.n_head, n_inner: config.n_inner })
}

/// Opens the model that the arguments name, with its files verified and its non-finite weights counted.
pub(crate) fn open(args: &ModelArgs) -> Result<Model> {
    let mode = if args.verify { CheckMode::Always } else { CheckMode::Remembered };
    let lock = lock(&args.lock)?;
    let name = args.model.to_str();
    if name == Some(MINI) {
        if args.verify {
            return Err(Failure::usage("--verify: the embedded model has no files to hash")
                .with_help("`lesion verify --only mini` compares what it computes"));
        }
        return Model::mini().map_err(|error| model_failure(&error));
    }
    let read = args.read();
    let pinned = name.and_then(|name| lock.model(name));
    let (model, records) = match pinned {
        Some(pinned) => {
            let options = hub_options()?;
            let directory = resolve(pinned, &options, mode)?;
            (opened(&directory, read, || Model::open_locked(&directory, pinned, read))?, options.records)
        }
        None if args.model.is_dir() => {
            if args.verify {
                return Err(Failure::usage(format!(
                    "--verify: no lock file says what {} should hold",
                    shown_path(&args.model)
                )));
            }
            let options = OpenOptions { read, ..OpenOptions::default() };
            (opened(&args.model, read, || Model::open_dir(&args.model, &options))?, local_records())
        }
        None => return Err(unknown_model(&args.model, &lock)),
    };
    check_finite(&model, &records, args.require_finite)?;
    model.warnings().iter().for_each(|warning| note(format!("warning: {warning}")));
    Ok(model)
}

fn unknown_model(asked: &Path, lock: &WeightsLock) -> Failure {
    let mut names = vec![MINI];
    names.extend(lock.models().iter().map(LockedModel::name));
    let asked_as = shown_path(asked);
    let message = format!("model `{asked_as}`: neither a directory nor one of {}", names.join(", "));
    if asked.exists() {
        return Failure::new(
            Exit::BadFile,
            format!("model `{asked_as}` is a file: a model is the directory it lies in"),
        );
    }
    Failure::usage(message).with_help("`lesion models lock OWNER/NAME --output FILE` pins another, for --lock FILE")
}

/// Opens a model whose files lie in `directory`, guarded against their truncation where they are mapped.
fn opened(
    directory: &Path,
    read: ReadMode,
    open: impl FnOnce() -> std::result::Result<Model, ModelError>,
) -> Result<Model> {
    if read == ReadMode::Map {
        // Opening reads pages already; which files they are in is known after it.
        signals::guard_mapped(&[directory.to_owned()]);
    }
    let model = open().map_err(|error| model_failure(&error))?;
    if read == ReadMode::Map {
        signals::guard_mapped(model.checkpoint().files());
    }
    Ok(model)
}

/// Fails where a mapped file was written to since it was opened: what was computed from it is of no known weights.
pub(crate) fn check_unchanged(model: &Model, read: ReadMode) -> Result<()> {
    match read {
        ReadMode::Map => model.checkpoint().check_unchanged().map_err(|error| weights_failure(&error)),
        ReadMode::Copy => Ok(()),
    }
}

/// Stands for a model's weights and configuration: equal for equal bytes, wherever they lie.
pub(crate) fn identity(model: &Model) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(serde_json::to_string(model.config()).expect("a configuration is plain data"));
    if let Some(bytes) = model.checkpoint().embedded() {
        hash.update(hex(&Sha256::digest(bytes)));
    }
    let records = local_records();
    for path in model.checkpoint().files() {
        let checked = records.check(path, None, CheckMode::Remembered, &mut |_| ());
        hash.update(checked.map_err(|error| check_failure(&error))?.sha256);
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is remembered of local files. A directory needs no hub, so that its settings are not looked at; without a home
/// nothing is remembered.
fn local_records() -> Records {
    let homes = |name: &str| match name {
        "XDG_CACHE_HOME" | "HOME" | "USERPROFILE" => std::env::var_os(name),
        _ => None,
    };
    HubOptions::from_lookup(homes).map_or_else(|_| Records::disabled(), |options| options.records)
}

/// The environment's Hugging Face settings.
pub(crate) fn hub_options() -> Result<HubOptions> {
    HubOptions::from_env().map_err(|error| hub_failure(&error))
}

/// The verified files of a pinned model, downloaded if they are not in the cache.
pub(crate) fn resolve(model: &LockedModel, options: &HubOptions, mode: CheckMode) -> Result<std::path::PathBuf> {
    let mut progress = Progress::new();
    let found = lesion::weights::resolve(model, options, mode, &mut |event| progress.show(&event));
    progress.end();
    found.map_err(|error| hub_failure(&error))
}

/// A repository's files as they are now, hashed.
pub(crate) fn pin(repository: &str, revision: &str, options: &HubOptions) -> Result<LockedModel> {
    let mut progress = Progress::new();
    let pinned = lock_repository(repository, revision, options, &mut |event| progress.show(&event));
    progress.end();
    pinned.map_err(|error| hub_failure(&error))
}

/// Warns of weights that are NaN or infinite, or refuses them. What was counted before is remembered by file.
fn check_finite(model: &Model, records: &Records, require: bool) -> Result<()> {
    let checkpoint = model.checkpoint();
    let mut unscanned = Vec::new();
    let mut bad: Vec<(String, u64)> = Vec::new();
    for path in checkpoint.files() {
        if records.directory().is_none() {
            // A hash that nobody remembers is not worth taking.
            unscanned.push((path, None));
            continue;
        }
        let (file, size) = (shown_path(path), path.metadata().map_or(0, |metadata| metadata.len()));
        let mut progress = Progress::new();
        let mut show = |done| progress.show(&Event::Verifying { file: &file, done, size });
        let checked = records.check(path, None, CheckMode::Remembered, &mut show);
        progress.end();
        let checked = checked.map_err(|error| check_failure(&error))?;
        match &checked.non_finite {
            Some(counts) => bad.extend(counts.iter().cloned()),
            None => unscanned.push((path, Some(checked))),
        }
    }
    for (path, checked) in unscanned {
        if path.metadata().is_ok_and(|metadata| metadata.len() > LARGE) {
            note(format!("{}: first use, looking for NaN and infinity", shown_path(path)));
        }
        let here = |tensor: &str| !is_mask_buffer(tensor) && checkpoint.file_of(tensor) == Some(path.as_path());
        let counts: Vec<(String, u64)> = checkpoint
            .non_finite(here)
            .into_iter()
            .map(|found| (found.tensor, (found.nan + found.infinite) as u64))
            .collect();
        bad.extend(counts.iter().cloned());
        // That it can't be remembered has been said when it was opened, or makes the next start slower: no more.
        if let Some(mut checked) = checked {
            let _ = records.set_non_finite(path, &mut checked, counts);
        }
    }
    let Some((tensor, values)) = bad.first() else { return Ok(()) };
    let all: u64 = bad.iter().map(|(_, values)| values).sum();
    let message = format!(
        "{}: {all} weights are NaN or infinite, in {} tensors ({} has {values})",
        checkpoint.describe(),
        bad.len(),
        tensor.escape_debug()
    );
    if require {
        return Err(Failure::new(Exit::BadFile, message));
    }
    note(format!("warning: {message}"));
    Ok(())
}

/// Shows what happens while a model is fetched: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    terminal: bool,
    last: Instant,
}

impl Progress {
    fn new() -> Progress {
        Progress { bar: None, terminal: std::io::stderr().is_terminal(), last: Instant::now() }
    }

    fn show(&mut self, event: &Event<'_>) {
        if signals::interrupted() {
            self.end();
            match event {
                // What has arrived is kept on disk.
                Event::Download { .. } | Event::Received { .. } | Event::Retry { .. } => {
                    note("interrupted: the next try resumes where this one ends");
                }
                _ => note("error: interrupted"),
            }
            std::process::exit(Exit::Interrupted as i32);
        }
        match event {
            Event::Missing { repository, revision, files, size: bytes, destination } => {
                note(format!("{repository} at {revision}: downloading {files} files, {}", size(*bytes)));
                note(format!("to {}", shown_path(destination)));
            }
            Event::Waiting { path } => note(format!("another process downloads this model ({})", shown_path(path))),
            Event::Download { file, url, size: bytes } => {
                self.start(file, *bytes);
                if self.bar.is_none() {
                    note(format!("{file}: {} from {url}", size(*bytes)));
                }
            }
            Event::Received { file, done, size } => self.advance(file, "received", *done, *size),
            Event::Verifying { file, done, size } => {
                if self.terminal && self.bar.is_none() && *size > LARGE {
                    self.start(&format!("verifying {file}"), *size);
                }
                self.advance(file, "verified", *done, *size);
            }
            Event::Retry { what, reason, pause } => {
                note(format!("{what}: {reason}; trying again in {:.1} s", pause.as_secs_f64()));
            }
            Event::Warning(warning) => note(format!("warning: {warning}")),
        }
    }

    fn start(&mut self, what: &str, bytes: u64) {
        self.end();
        self.last = Instant::now();
        if self.terminal {
            let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let bar = ProgressBar::new(bytes).with_message(what.to_owned());
            bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
            self.bar = Some(bar);
        }
    }

    fn advance(&mut self, file: &str, verb: &str, done: u64, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            if done >= bytes {
                self.end();
            }
        } else if !self.terminal && self.last.elapsed() >= LOG_EVERY {
            self.last = Instant::now();
            note(format!("{file}: {} of {} {verb}", size(done), size(bytes)));
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A path as a message shows it.
pub(crate) fn shown_path(path: &Path) -> String {
    path.display()
        .to_string()
        .chars()
        .flat_map(|c| if c == '\'' || c == '"' { vec![c] } else { c.escape_debug().collect() })
        .collect()
}

/// An error on opening a model, or on reading its tokenizer.
pub(crate) fn model_failure(error: &ModelError) -> Failure {
    match error {
        ModelError::Weights(error) => weights_failure(error),
        ModelError::Hub(error) => hub_failure(error),
        ModelError::Tokenizer(error) => tokenizer_failure(error),
        ModelError::NoBos { .. } => {
            Failure::usage(error.to_string()).with_help("--no-bos puts none, --ids takes tokens as they are")
        }
        _ => Failure::new(Exit::BadFile, error.to_string()),
    }
}

pub(crate) fn weights_failure(error: &WeightsError) -> Failure {
    let exit = match error {
        WeightsError::Io { source, .. } => Exit::of_io(source),
        _ => Exit::BadFile,
    };
    Failure::new(exit, error.to_string())
}

fn check_failure(error: &CheckError) -> Failure {
    Failure::new(check_exit(error), error.to_string())
}

/// The same for a pinned file as for one in a directory.
fn check_exit(error: &CheckError) -> Exit {
    match error {
        CheckError::Io { source, .. } => Exit::of_io(source),
        _ => Exit::BadFile,
    }
}

pub(crate) fn hub_failure(error: &HubError) -> Failure {
    let exit = match error {
        HubError::Check { source, .. } => check_exit(source),
        _ => of_kind(error.kind()),
    };
    Failure::new(exit, error.to_string())
}

/// An error of a lock file that was named: a bad file, also where it can't be read.
pub(crate) fn lock_failure(error: &LockError) -> Failure {
    Failure::new(Exit::BadFile, error.to_string())
}

fn of_kind(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Usage => Exit::Usage,
        ErrorKind::BadFile => Exit::BadFile,
        ErrorKind::Missing => Exit::Missing,
    }
}
