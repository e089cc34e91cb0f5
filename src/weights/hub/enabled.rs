//! The hub's client: downloads a locked model's files into Hugging Face's cache, and locks a repository.
//!
//! Files arrive in a folder of their own inside the repository's cache folder (`.lesion-partial/<commit>`) and are moved
//! among the blobs, and linked into the snapshot, only after their hash was found right. So no tool ever sees a file
//! that isn't verified, and an interrupted download resumes from what that folder holds. One file lock per repository
//! makes processes take turns. The transfer itself is `transfer`'s.

mod transfer;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hf_hub::Cache;
use hf_hub::api::sync::ApiBuilder;
use serde::Deserialize;

use super::lock::{
    CONFIG, EMBEDDED_MODEL, INDEX, TOKENIZER, WEIGHTS, check_path, check_repository, is_commit, is_sha256,
};
use super::{
    CheckError, CheckMode, Checked, ErrorKind, Event, HubCache, HubError, HubOptions, LockProblem, LockedFile,
    LockedModel, Records,
};
use transfer::{Source, Staged};

type Observer<'a> = &'a mut dyn FnMut(Event<'_>);

/// A configuration or an index is read into memory; one beyond this isn't one.
const LARGEST_JSON: u64 = 64 << 20;

/// Why the hub may not be asked, if so.
pub(super) fn unavailable(options: &HubOptions) -> Option<&'static str> {
    options.offline.then_some("downloading is off")
}

/// Downloads, verifies and links the files of `model` that the cache lacks.
pub(super) fn fetch(model: &LockedModel, options: &HubOptions, observe: Observer<'_>) -> Result<(), HubError> {
    let staging = Staging::enter(&options.cache, model.repository(), observe)?;
    // Looked up again under the lock: another process may have just done the work.
    let directory = options.cache.snapshot_dir(model.repository(), model.revision());
    let io_error = |source| HubError::Io { operation: "look into", path: directory.clone(), source };
    let missing = options.cache.locate(model).map_err(io_error)?.missing;
    if missing.is_empty() {
        return Ok(());
    }
    observe(Event::Missing {
        repository: model.repository(),
        revision: model.revision(),
        files: missing.len(),
        size: missing.iter().map(|file| file.size).sum(),
        destination: &directory,
    });
    let source = staging.source(model.repository(), model.revision(), options)?;
    for file in missing {
        let (staged, checked) = download_checked(&source, model, file, observe)?;
        let path = staging.publish(&staged, &directory, &file.path)?;
        if let Some(warning) = options.records.moved(&path, checked) {
            observe(Event::Warning(&warning));
        }
    }
    staging.clear(model.revision())
}

/// One file, in the staging folder, of the size and with the hash that the lock says.
fn download_checked(
    source: &Source<'_>,
    model: &LockedModel,
    file: &LockedFile,
    observe: Observer<'_>,
) -> Result<(Staged, Checked), HubError> {
    let mut again = false;
    loop {
        let staged = source.download(&file.path, file.size, observe)?;
        let mut hashed = |done| observe(Event::Verifying { file: &file.path, done, size: file.size });
        match Records::disabled().check(&staged.blob, Some(file), CheckMode::Always, &mut hashed) {
            Ok(checked) => {
                // Remembered as verified from here on: the content has to outlive a power cut.
                File::open(&staged.blob).and_then(|blob| blob.sync_all()).map_err(|source| HubError::Io {
                    operation: "write",
                    path: staged.blob.clone(),
                    source,
                })?;
                return Ok((staged, checked));
            }
            Err(error @ (CheckError::Size { .. } | CheckError::Hash { .. })) => {
                source.discard(&staged)?;
                // What an earlier attempt left may be the damaged part, so one attempt from the first byte follows;
                // only one, though that one may have been resumed in its turn.
                if again || !staged.resumed {
                    return Err(HubError::Discarded { model: model.name().into(), source: error });
                }
                again = true;
                let reason = format!("{error} (resumed from an earlier attempt)");
                observe(Event::Retry { what: &file.path, reason: &reason, pause: Duration::ZERO });
            }
            Err(source) => return Err(HubError::Check { model: model.name().into(), source }),
        }
    }
}

/// Asks the hub for the commit that `revision` (a branch, tag or commit) stands for, for the files lesion needs of it,
/// and for their sizes and SHA-256. Large files' hashes are in the hub's listing; small ones' are not (their ETag is a
/// git id), so they are downloaded and hashed, and nothing is added to the cache. The model is named as the repository,
/// without its owner; `owner-mini` where that name is the embedded model's.
///
/// # Errors
/// When the hub can't be asked, or when the repository isn't a GPT-2 with a `tokenizer.json` and safetensors.
pub fn lock_repository(
    repository: &str,
    revision: &str,
    options: &HubOptions,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<LockedModel, HubError> {
    if let Some(reason) = unavailable(options) {
        return Err(HubError::NoHub { repository: repository.into(), reason: reason.into() });
    }
    check_repository(repository, repository)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if revision.is_empty() || !revision.bytes().all(plain) || revision.contains("..") {
        let reason = "is not the name of a branch or tag, nor a commit";
        return Err(LockProblem::Revision { model: repository.into(), found: revision.into(), reason }.into());
    }

    let staging = Staging::enter(&options.cache, repository, observe)?;
    let listing = Listing::ask(&staging.source(repository, revision, options)?, repository, revision, observe)?;
    let source = staging.source(&listing.id, &listing.sha, options)?;
    let pinned = pin(&source, &listing, observe);
    // What a broken transfer left is of use to the next try; what was refused is not.
    if !pinned.as_ref().is_err_and(|error| error.kind() == ErrorKind::Missing) {
        staging.clear(&listing.sha)?;
    }
    pinned
}

/// The lock entry of a listed revision.
fn pin(source: &Source<'_>, listing: &Listing, observe: Observer<'_>) -> Result<LockedModel, HubError> {
    let unsuitable =
        |reason| HubError::Unsuitable { repository: listing.id.clone(), revision: listing.sha.clone(), reason };
    let absent = |path: &str| unsuitable(format!("has no {path}"));
    let config = listing.file(CONFIG).ok_or_else(|| absent(CONFIG))?;
    let (config, text) = read_small(source, config, observe)?;
    let Config { model_type } = serde_json::from_slice(&text).map_err(|e| unsuitable(format!("{CONFIG}: {e}")))?;
    if model_type.as_deref() != Some("gpt2") {
        let found = model_type.map_or("none".into(), |found| format!("{found:?}"));
        return Err(unsuitable(format!("{CONFIG}: expected model_type \"gpt2\", file has {found}")));
    }
    let mut files = vec![config];
    let mut wanted = vec![TOKENIZER.to_string()];
    if listing.file(WEIGHTS).is_some() {
        wanted.push(WEIGHTS.into());
    } else {
        let index = listing.file(INDEX).ok_or_else(|| absent(WEIGHTS))?;
        let (index, text) = read_small(source, index, observe)?;
        let Index { weight_map } = serde_json::from_slice(&text).map_err(|e| unsuitable(format!("{INDEX}: {e}")))?;
        let shards: std::collections::BTreeSet<String> = weight_map.into_values().collect();
        files.push(index);
        wanted.extend(shards);
    }
    for path in wanted {
        let sibling = listing.file(&path).ok_or_else(|| absent(&path))?;
        files.push(match &sibling.lfs {
            Some(Lfs { sha256, size }) => LockedFile { path, size: *size, sha256: sha256.clone() },
            None => download_unlisted(source, sibling, observe)?.0,
        });
    }
    let name = match listing.id.rsplit('/').next() {
        Some(EMBEDDED_MODEL) | None => listing.id.replace('/', "-"),
        Some(name) => name.to_owned(),
    };
    Ok(LockedModel::new(&name, &listing.id, &listing.sha, files)?)
}

fn read_small(
    source: &Source<'_>,
    sibling: &Sibling,
    observe: Observer<'_>,
) -> Result<(LockedFile, Vec<u8>), HubError> {
    if sibling.size > LARGEST_JSON {
        return Err(HubError::Answer {
            url: source.url(&sibling.rfilename),
            what: "file size",
            found: sibling.size.to_string(),
            expected: format!("at most {LARGEST_JSON}"),
        });
    }
    let (file, blob) = download_unlisted(source, sibling, observe)?;
    let text = fs::read(&blob).map_err(|source| HubError::Io { operation: "read", path: blob, source })?;
    Ok((file, text))
}

/// Downloads a file of which only the size is known, to learn its hash.
fn download_unlisted(
    source: &Source<'_>,
    sibling: &Sibling,
    observe: Observer<'_>,
) -> Result<(LockedFile, PathBuf), HubError> {
    let path = &sibling.rfilename;
    check_path(source.repository(), path, &[])?;
    let staged = source.download(path, sibling.size, observe)?;
    let mut hashed = |done| observe(Event::Verifying { file: path, done, size: sibling.size });
    let checked = Records::disabled()
        .check(&staged.blob, None, CheckMode::Always, &mut hashed)
        .map_err(|source| HubError::Check { model: path.clone(), source })?;
    Ok((LockedFile { path: path.clone(), size: checked.size, sha256: checked.sha256 }, staged.blob))
}

#[derive(Deserialize)]
struct Config {
    model_type: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// The hub's description of one revision of a repository, as far as it is needed.
#[derive(Deserialize)]
struct Listing {
    id: String,
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Its `id` is the repository's present name, which the hub redirects to, and its `sha` a commit.
    fn ask(source: &Source<'_>, repository: &str, revision: &str, observe: Observer<'_>) -> Result<Listing, HubError> {
        let url = source.listing_url();
        let wrong = |what, found: &str, expected: &str| HubError::Answer {
            url: url.clone(),
            what,
            found: found.into(),
            expected: expected.into(),
        };
        let text = source.text(&url, LARGEST_JSON, observe)?;
        let listing: Listing = serde_json::from_str(&text)
            .map_err(|error| wrong("answer", &error.to_string(), "a repository's description"))?;
        check_repository(repository, &listing.id)?;
        if !is_commit(&listing.sha) {
            return Err(wrong("sha", &format!("{:?}", listing.sha), "a commit of 40 hex digits"));
        }
        if is_commit(revision) && listing.sha != revision {
            return Err(wrong("sha", &listing.sha, revision));
        }
        for Sibling { lfs, .. } in &listing.siblings {
            if let Some(Lfs { sha256, .. }) = lfs
                && !is_sha256(sha256)
            {
                return Err(wrong("lfs.sha256", &format!("{sha256:?}"), "64 hex digits"));
            }
        }
        Ok(listing)
    }

    fn file(&self, path: &str) -> Option<&Sibling> {
        self.siblings.iter().find(|sibling| sibling.rfilename == path)
    }
}

/// The folder in which hf-hub works for one repository, held by one process at a time.
struct Staging {
    repository_dir: PathBuf,
    directory: PathBuf,
    _turn: File,
}

impl Staging {
    /// Waits for its turn.
    fn enter(cache: &HubCache, repository: &str, observe: Observer<'_>) -> Result<Staging, HubError> {
        let repository_dir = cache.repository_dir(repository);
        // Where Python's client keeps its own locks; never removed: a process may be waiting on it.
        let locks = cache.root().join(".locks").join(repository_dir.file_name().expect("a folder in the root"));
        make_dir(&locks)?;
        let path = locks.join("lesion.lock");
        let io_error = |source| HubError::Io { operation: "lock", path: path.clone(), source };
        let turn = File::options().write(true).create(true).truncate(false).open(&path).map_err(io_error)?;
        let mut told = false;
        loop {
            match turn.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(io_error(error)),
                Err(TryLockError::WouldBlock) if told => thread::sleep(Duration::from_millis(200)),
                Err(TryLockError::WouldBlock) => observe(Event::Waiting { path: &path }),
            }
            told = true;
        }
        let directory = repository_dir.join(".lesion-partial");
        Ok(Staging { repository_dir, directory, _turn: turn })
    }

    /// A revision at the hub. The environment isn't read again: `options` holds what it said.
    fn source<'a>(&self, repository: &str, revision: &str, options: &'a HubOptions) -> Result<Source<'a>, HubError> {
        let mut builder = ApiBuilder::from_cache(Cache::new(options.cache.root().into()))
            .with_token(options.token.as_ref().map(|token| token.secret().to_string()))
            .with_user_agent("lesion", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder
            .build()
            .map_err(|error| HubError::NoHub { repository: repository.into(), reason: error.to_string() })?;
        Ok(Source::new(&api, repository, revision, &self.directory, options))
    }

    /// Moves a verified file among the repository's blobs and links `path` in the snapshot `directory` to it.
    fn publish(&self, staged: &Staged, directory: &Path, path: &str) -> Result<PathBuf, HubError> {
        let blobs = self.repository_dir.join("blobs");
        let blob = blobs.join(&staged.etag);
        let link = directory.join(path);
        make_dir(&blobs)?;
        make_dir(link.parent().expect("a file in a folder"))?;
        let io_error = |source| HubError::Io { operation: "write", path: link.clone(), source };
        if cfg!(unix) {
            rename(&staged.blob, &blob)?;
            // Up from the file's folder to the repository's: its own depth, the commit, "snapshots".
            let up = "../".repeat(path.split('/').count() + 1);
            // Made beside and renamed, which replaces a link that leads nowhere.
            let temporary = self.directory.join("link");
            remove(&temporary)?;
            symlink(&format!("{up}blobs/{}", staged.etag), &temporary).map_err(io_error)?;
            rename(&temporary, &link)?;
        } else {
            rename(&staged.blob, &link)?;
        }
        Ok(link)
    }

    /// Everything of `revision` is in its place: its partial files go, and the folders above them if that leaves them
    /// empty.
    fn clear(self, revision: &str) -> Result<(), HubError> {
        let partial = self.directory.join(revision);
        match fs::remove_dir_all(&partial) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(HubError::Io { operation: "remove", path: partial, source });
            }
            _ => {}
        }
        let _ = fs::remove_dir(&self.directory).and_then(|()| fs::remove_dir(&self.repository_dir));
        Ok(())
    }
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_target: &str, _link: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn make_dir(path: &Path) -> Result<(), HubError> {
    fs::create_dir_all(path).map_err(|source| HubError::Io { operation: "make", path: path.into(), source })
}

fn rename(from: &Path, to: &Path) -> Result<(), HubError> {
    fs::rename(from, to).map_err(|source| HubError::Io { operation: "write", path: to.into(), source })
}

/// Removes a file; one that isn't there is as good.
fn remove(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(HubError::Io { operation: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}
