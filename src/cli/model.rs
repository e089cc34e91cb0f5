//! From `--model` to an open model: the embedded one, one that a lock file pins (from the cache, else downloaded, in any
//! case verified), or a directory. Says on stderr what takes time.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lesion::model::{Model, ModelError, OpenOptions, is_mask_buffer};
use lesion::weights::{
    CheckMode, ErrorKind, Event, HubError, HubOptions, LockError, LockedModel, ReadMode, WeightsLock,
};

use super::args::{LockArgs, ModelArgs};
use super::failure::{Exit, Failure, Result};
use super::output::{note, size};
use super::signals;

/// The name of the embedded model.
pub(crate) const MINI: &str = "mini";

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
    let options = hub_options()?;
    let read = if args.no_mmap { ReadMode::Copy } else { ReadMode::Map };
    let pinned = name.and_then(|name| lock.model(name));
    let model = match pinned {
        Some(pinned) => {
            let directory = resolve(pinned, &options, mode)?;
            open_directory(&directory, OpenOptions { read, name: Some(pinned.name().to_owned()) })?
        }
        None if args.model.is_dir() => {
            if args.verify {
                return Err(Failure::usage(format!(
                    "--verify: no lock file says what {} should hold",
                    shown_path(&args.model)
                )));
            }
            open_directory(&args.model, OpenOptions { read, ..OpenOptions::default() })?
        }
        None => return Err(unknown_model(&args.model, &lock)),
    };
    check_finite(&model, &options, args.require_finite)?;
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

fn open_directory(directory: &Path, options: OpenOptions) -> Result<Model> {
    let mapped = options.read == ReadMode::Map;
    let model = Model::open_dir(directory, &options).map_err(|error| model_failure(&error))?;
    if mapped {
        signals::guard_mapped(model.checkpoint().files());
    }
    Ok(model)
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

/// Warns of weights that are NaN or infinite, or refuses them. What was counted before is remembered by file.
fn check_finite(model: &Model, options: &HubOptions, require: bool) -> Result<()> {
    let checkpoint = model.checkpoint();
    let mut known = Vec::new();
    let mut bad: Vec<(String, u64)> = Vec::new();
    for path in checkpoint.files() {
        let checked = options
            .records
            .check(path, None, CheckMode::Remembered, &mut |_| ())
            .map_err(|error| Failure::new(of_kind(error.kind()), error.to_string()))?;
        match &checked.non_finite {
            Some(counts) => bad.extend(counts.iter().cloned()),
            None => known.push((path, checked)),
        }
    }
    for (path, mut checked) in known {
        let here = |tensor: &str| !is_mask_buffer(tensor) && checkpoint.file_of(tensor) == Some(path.as_path());
        let counts: Vec<(String, u64)> = checkpoint
            .non_finite(here)
            .into_iter()
            .map(|found| (found.tensor, (found.nan + found.infinite) as u64))
            .collect();
        bad.extend(counts.iter().cloned());
        // That it can't be remembered has been said when it was opened, or makes the next start slower: no more.
        let _ = options.records.set_non_finite(path, &mut checked, counts);
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
            // Nothing is lost: what has arrived is kept on disk, and the next try resumes there.
            self.end();
            note("interrupted: the next try resumes where this one ends");
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
                if self.terminal && self.bar.is_none() && *size > 50_000_000 {
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

/// An error on opening a model: always about a file.
pub(crate) fn model_failure(error: &ModelError) -> Failure {
    Failure::new(Exit::BadFile, error.to_string())
}

pub(crate) fn hub_failure(error: &HubError) -> Failure {
    Failure::new(of_kind(error.kind()), error.to_string())
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
