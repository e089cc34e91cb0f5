//! `weights.lock`: the exact bytes that a model's name stands for.
//!
//! A TOML file: `version = 1`, then one `[[model]]` per model (name, repository, the 40-hex commit) with one
//! `[[model.file]]` per file (path in the repository, size in bytes, SHA-256). A [`LockedModel`] can only be made
//! through the checks here, so whoever holds one may use its paths and names in file paths and addresses.
//! Finding and fetching the files is [`resolve`](super::resolve())'s.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use super::{ErrorKind, printable, printable_path};

pub(super) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const EMBEDDED_MODEL: &str = "mini";

/// A file of a locked model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedFile {
    /// Path in the repository, `/`-separated.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content, 64 lowercase hex digits.
    pub sha256: String,
}

/// A model pinned to one commit and to the content of each file; every value has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedModel {
    name: String,
    repository: String,
    revision: String,
    files: Vec<LockedFile>,
}

/// Models pinned by name, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightsLock {
    models: Vec<LockedModel>,
}

/// A lock file that can't be used: where, and why.
#[derive(Debug, Error)]
#[error("{}: {problem}", printable_path(place))]
pub struct LockError {
    /// The file, with the line where one is known: `weights.lock:12`.
    pub place: String,
    /// What is wrong there.
    pub problem: LockProblem,
}

/// What is wrong with a lock file or a model in it.
#[derive(Debug, Error)]
pub enum LockProblem {
    /// The file could not be read.
    #[error("can't read it: {0}")]
    Io(#[from] std::io::Error),
    /// Not TOML, or not this file's fields.
    #[error("{}", printable(.0))]
    Syntax(String),
    /// A format that this version doesn't know.
    #[error("version {0} of the format; this build reads version 1")]
    Version(u64),
    /// A model name that can't be one.
    #[error("model name {found:?}: {expected}")]
    Name {
        /// The name.
        found: String,
        /// What a name is.
        expected: &'static str,
    },
    /// Not a repository's name.
    #[error("model {model:?}: repository {found:?} is not of the form \"owner/name\" (letters, digits, . _ -)")]
    Repository {
        /// The model's name.
        model: String,
        /// The value.
        found: String,
    },
    /// The revision isn't a commit.
    #[error("model {model:?}: revision {found:?} {reason}; a lock pins a commit of 40 lowercase hex digits")]
    Revision {
        /// The model's name.
        model: String,
        /// The value.
        found: String,
        /// What it looks like.
        reason: &'static str,
    },
    /// The path isn't one inside the repository.
    #[error("model {model:?}: path {found:?} is not a plain relative path inside the repository")]
    Path {
        /// The model's name.
        model: String,
        /// The value.
        found: String,
    },
    /// The hash isn't a SHA-256.
    #[error("model {model:?}, file {path:?}: sha256 {found:?} {reason}; expected 64 lowercase hex digits")]
    Sha256 {
        /// The model's name.
        model: String,
        /// The file's path.
        path: String,
        /// The value.
        found: String,
        /// What it looks like.
        reason: &'static str,
    },
    /// One path twice.
    #[error("model {model:?}: file {path:?} is listed twice")]
    DuplicateFile {
        /// The model's name.
        model: String,
        /// The file's path.
        path: String,
    },
    /// A file that every model needs has no entry.
    #[error("model {model:?}: {missing} is unlisted")]
    Unlisted {
        /// The model's name.
        model: String,
        /// The file that has no entry.
        missing: &'static str,
    },
    /// Both forms of weights at once.
    #[error("model {model:?}: lists both {WEIGHTS} and {INDEX}; a model has one of them")]
    TwoWeights {
        /// The model's name.
        model: String,
    },
    /// One name, twice in a file or with two contents in two files.
    #[error("model {name:?} is defined twice: {first}, and {second}")]
    DuplicateModel {
        /// The name.
        name: String,
        /// The definition that came first, as `repository at revision`.
        first: String,
        /// The other one.
        second: String,
    },
}

impl LockError {
    /// A lock file that isn't there is [`ErrorKind::Missing`], any other trouble [`ErrorKind::BadFile`].
    pub fn kind(&self) -> ErrorKind {
        match self.problem {
            LockProblem::Io(_) => ErrorKind::Missing,
            _ => ErrorKind::BadFile,
        }
    }
}

impl LockedModel {
    /// A model under `name`: `repository` at the commit `revision`, holding at least the configuration, the tokenizer
    /// and the weights among `files`.
    ///
    /// # Errors
    /// The first value that can't stand in a lock.
    pub fn new(
        name: &str,
        repository: &str,
        revision: &str,
        files: Vec<LockedFile>,
    ) -> Result<LockedModel, LockProblem> {
        check_name(name)?;
        check_repository(name, repository)?;
        check_revision(name, revision)?;
        for (i, file) in files.iter().enumerate() {
            check_path(name, &file.path, &files[..i])?;
            check_sha256(name, &file.path, &file.sha256)?;
        }
        check_complete(name, &files)?;
        Ok(LockedModel { name: name.into(), repository: repository.into(), revision: revision.into(), files })
    }

    /// What the model is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hub repository, `owner/name`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The commit, 40 hex digits.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Its files, in the lock's order.
    pub fn files(&self) -> &[LockedFile] {
        &self.files
    }

    /// The file at `path`, if it is listed.
    pub fn file(&self, path: &str) -> Option<&LockedFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The same files under another name.
    ///
    /// # Errors
    /// When `name` can't be a model's name.
    pub fn renamed(self, name: &str) -> Result<LockedModel, LockProblem> {
        check_name(name)?;
        Ok(LockedModel { name: name.into(), ..self })
    }

    fn described(&self) -> String {
        format!("{} at {}", self.repository, self.revision)
    }
}

impl WeightsLock {
    /// The models that lesion ships pinned.
    pub fn bundled() -> WeightsLock {
        WeightsLock::parse(include_str!("../../weights.lock"), "weights.lock").expect("tests parse the bundled lock")
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// When the file can't be read, and as [`WeightsLock::parse`].
    pub fn read(path: &Path) -> Result<WeightsLock, LockError> {
        let place = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => WeightsLock::parse(&text, &place),
            Err(error) => Err(LockError { place, problem: error.into() }),
        }
    }

    /// Parses a lock file's text; `source` names it in errors.
    ///
    /// # Errors
    /// Anything but known fields with checked values, each model complete, each name and each path once.
    pub fn parse(text: &str, source: &str) -> Result<WeightsLock, LockError> {
        let raw: RawLock = toml::from_str(text).map_err(|error| {
            let place = error.span().map_or(source.to_string(), |span| place(source, text, &span));
            LockError { place, problem: LockProblem::Syntax(error.message().to_string()) }
        })?;
        let at = |span: Range<usize>| move |problem| LockError { place: place(source, text, &span), problem };
        if *raw.version.get_ref() != 1 {
            return Err(at(raw.version.span())(LockProblem::Version(*raw.version.get_ref())));
        }
        let mut lock = WeightsLock::default();
        for entry in raw.model {
            let whole = entry.span();
            let RawModel { name, repository, revision, file } = entry.into_inner();
            check_name(name.get_ref()).map_err(at(name.span()))?;
            let name_span = name.span();
            let name = name.into_inner();
            check_repository(&name, repository.get_ref()).map_err(at(repository.span()))?;
            check_revision(&name, revision.get_ref()).map_err(at(revision.span()))?;
            let mut files = Vec::with_capacity(file.len());
            for RawFile { path, size, sha256 } in file {
                check_path(&name, path.get_ref(), &files).map_err(at(path.span()))?;
                check_sha256(&name, path.get_ref(), sha256.get_ref()).map_err(at(sha256.span()))?;
                files.push(LockedFile { path: path.into_inner(), size, sha256: sha256.into_inner() });
            }
            check_complete(&name, &files).map_err(at(whole))?;
            let model =
                LockedModel { name, repository: repository.into_inner(), revision: revision.into_inner(), files };
            if let Some(first) = lock.model(&model.name) {
                return Err(at(name_span)(duplicate(first, &model)));
            }
            lock.models.push(model);
        }
        Ok(lock)
    }

    /// The lock as TOML; parsing it gives an equal lock.
    pub fn to_toml(&self) -> String {
        let mut text = String::from(
            "# Models pinned by commit, size and SHA-256; `lesion models lock REPO` prints an entry.\nversion = 1\n",
        );
        // No value needs escapes: the checks leave only plain characters.
        for LockedModel { name, repository, revision, files } in &self.models {
            write!(text, "\n[[model]]\nname = \"{name}\"\nrepository = \"{repository}\"\nrevision = \"{revision}\"\n")
                .expect("a String takes any text");
            for LockedFile { path, size, sha256 } in files {
                write!(text, "\n[[model.file]]\npath = \"{path}\"\nsize = {size}\nsha256 = \"{sha256}\"\n")
                    .expect("a String takes any text");
            }
        }
        text
    }

    /// The model called `name`.
    pub fn model(&self, name: &str) -> Option<&LockedModel> {
        self.models.iter().find(|model| model.name == name)
    }

    /// All models, in order.
    pub fn models(&self) -> &[LockedModel] {
        &self.models
    }

    /// Adds a model; one that is already there, equal in everything, changes nothing.
    ///
    /// # Errors
    /// [`LockProblem::DuplicateModel`] when the name stands for something else.
    pub fn insert(&mut self, model: LockedModel) -> Result<(), LockProblem> {
        match self.model(&model.name) {
            None => self.models.push(model),
            Some(first) if *first == model => {}
            Some(first) => return Err(duplicate(first, &model)),
        }
        Ok(())
    }

    /// Adds all models of `other`, which was read from `source`.
    ///
    /// # Errors
    /// As [`WeightsLock::insert`].
    pub fn merge(&mut self, other: WeightsLock, source: &str) -> Result<(), LockError> {
        other
            .models
            .into_iter()
            .try_for_each(|model| self.insert(model))
            .map_err(|problem| LockError { place: source.to_string(), problem })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLock {
    version: Spanned<u64>,
    #[serde(default)]
    model: Vec<Spanned<RawModel>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    name: Spanned<String>,
    repository: Spanned<String>,
    revision: Spanned<String>,
    #[serde(default)]
    file: Vec<RawFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    path: Spanned<String>,
    size: u64,
    sha256: Spanned<String>,
}

fn place(source: &str, text: &str, span: &Range<usize>) -> String {
    let line = 1 + text.bytes().take(span.start).filter(|&byte| byte == b'\n').count();
    format!("{source}:{line}")
}

fn duplicate(first: &LockedModel, second: &LockedModel) -> LockProblem {
    LockProblem::DuplicateModel { name: first.name.clone(), first: first.described(), second: second.described() }
}

/// A component of a path or address that means itself everywhere: no separators, no `..`, nothing to escape.
fn is_plain(component: &str) -> bool {
    !component.is_empty()
        && component != "."
        && component != ".."
        && component.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` is a full commit id.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

pub(super) fn is_sha256(text: &str) -> bool {
    is_hex(text, 64)
}

fn check_name(name: &str) -> Result<(), LockProblem> {
    let expected = if name == EMBEDDED_MODEL {
        "is the model inside the program; choose another name"
    } else if !is_plain(name) {
        "expected letters, digits, . _ - +"
    } else {
        return Ok(());
    };
    Err(LockProblem::Name { found: name.into(), expected })
}

/// `--` separates owner and name in the cache's folder names, so no repository may hold it.
pub(super) fn check_repository(model: &str, repository: &str) -> Result<(), LockProblem> {
    let parts = repository.split('/');
    if parts.clone().count() <= 2 && parts.clone().all(|part| is_plain(part) && !part.contains("--")) {
        return Ok(());
    }
    Err(LockProblem::Repository { model: model.into(), found: repository.into() })
}

fn check_revision(model: &str, revision: &str) -> Result<(), LockProblem> {
    if is_commit(revision) {
        return Ok(());
    }
    let reason = match revision.len() {
        64 if is_sha256(revision) => "is a SHA-256, not a commit",
        40 => "is not a commit",
        1..40 if revision.bytes().all(|byte| byte.is_ascii_hexdigit()) => "is a shortened commit",
        _ => "is the name of a branch or tag, which moves",
    };
    Err(LockProblem::Revision { model: model.into(), found: revision.into(), reason })
}

pub(super) fn check_path(model: &str, path: &str, before: &[LockedFile]) -> Result<(), LockProblem> {
    if !path.split('/').all(is_plain) {
        return Err(LockProblem::Path { model: model.into(), found: path.into() });
    }
    if before.iter().any(|file| file.path == path) {
        return Err(LockProblem::DuplicateFile { model: model.into(), path: path.into() });
    }
    Ok(())
}

fn check_sha256(model: &str, path: &str, sha256: &str) -> Result<(), LockProblem> {
    if is_sha256(sha256) {
        return Ok(());
    }
    let reason = match sha256.len() {
        40 if is_commit(sha256) => "is a git id, not a hash of the content",
        64 => "is not written in lowercase hex digits",
        _ => "has another length",
    };
    Err(LockProblem::Sha256 { model: model.into(), path: path.into(), found: sha256.into(), reason })
}

fn check_complete(model: &str, files: &[LockedFile]) -> Result<(), LockProblem> {
    let has = |path| files.iter().any(|file| file.path == path);
    let shard = |file: &LockedFile| file.path.ends_with(".safetensors");
    let missing = if !has(CONFIG) {
        CONFIG
    } else if !has(TOKENIZER) {
        TOKENIZER
    } else if !has(WEIGHTS) && !has(INDEX) {
        WEIGHTS
    } else if has(INDEX) && !files.iter().any(shard) {
        "every shard of model.safetensors.index.json"
    } else if has(INDEX) && has(WEIGHTS) {
        return Err(LockProblem::TwoWeights { model: model.into() });
    } else {
        return Ok(());
    };
    Err(LockProblem::Unlisted { model: model.into(), missing })
}
