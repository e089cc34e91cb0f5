//! Hugging Face's own cache on disk, read the way every other tool of that world lays it out:
//! `<root>/models--owner--name/snapshots/<commit>/<path>`, each a link into `blobs/`.
//!
//! Nothing here writes, reads the environment or looks at file contents.

use std::io;
use std::path::{Path, PathBuf};

use super::lock::{LockedFile, LockedModel};

/// A cache of hub repositories, by its root folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCache {
    root: PathBuf,
}

/// One commit of one repository, as far as it is in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedSnapshot {
    /// `owner/name`.
    pub repository: String,
    /// The commit.
    pub revision: String,
    /// The folder with the files.
    pub path: PathBuf,
    /// Path in the repository and bytes, sorted by path; links that lead nowhere are left out.
    pub files: Vec<(String, u64)>,
}

/// Where a model's files are, or would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// The snapshot's folder.
    pub directory: PathBuf,
    /// The files that are not in it, in the lock's order.
    pub missing: Vec<&'a LockedFile>,
}

impl HubCache {
    /// The cache at `root`, which need not exist.
    pub fn new(root: PathBuf) -> HubCache {
        HubCache { root }
    }

    /// The root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of `repository` (`owner/name`).
    pub fn repository_dir(&self, repository: &str) -> PathBuf {
        self.root.join(format!("models--{}", repository.replace('/', "--")))
    }

    /// The folder of `repository`'s files at the commit `revision`.
    pub fn snapshot_dir(&self, repository: &str, revision: &str) -> PathBuf {
        self.repository_dir(repository).join("snapshots").join(revision)
    }

    /// Looks for all files of `model`. Repositories that were once named without an owner may be cached under that
    /// short name; the commit and the hashes say whether it is the same model.
    ///
    /// # Errors
    /// When a file can't be looked for.
    pub fn locate<'a>(&self, model: &'a LockedModel) -> io::Result<Located<'a>> {
        let repository = model.repository();
        let directory = self.snapshot_dir(repository, model.revision());
        let missing = missing_in(&directory, model)?;
        if let (false, Some((_, short))) = (missing.is_empty(), repository.split_once('/')) {
            let directory = self.snapshot_dir(short, model.revision());
            if missing_in(&directory, model)?.is_empty() {
                return Ok(Located { directory, missing: Vec::new() });
            }
        }
        Ok(Located { directory, missing })
    }

    /// Every snapshot in the cache, sorted by repository and revision; none if the root doesn't exist.
    ///
    /// # Errors
    /// When a folder can't be listed.
    pub fn snapshots(&self) -> io::Result<Vec<CachedSnapshot>> {
        let mut found = Vec::new();
        for folder in entries(&self.root)? {
            let Some(repository) = folder.0.strip_prefix("models--").map(|name| name.replacen("--", "/", 1)) else {
                continue;
            };
            for (revision, path) in entries(&folder.1.join("snapshots"))? {
                let mut files = Vec::new();
                list_files(&path, "", &mut files)?;
                found.push(CachedSnapshot { repository: repository.clone(), revision, path, files });
            }
        }
        Ok(found)
    }
}

fn missing_in<'a>(directory: &Path, model: &'a LockedModel) -> io::Result<Vec<&'a LockedFile>> {
    let mut missing = Vec::new();
    for file in model.files() {
        if !directory.join(&file.path).try_exists()? {
            missing.push(file);
        }
    }
    Ok(missing)
}

/// Names and paths in `directory`, sorted; empty when it isn't there. Names that aren't UTF-8 are none of the hub's.
fn entries(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let listing = match std::fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn list_files(directory: &Path, prefix: &str, files: &mut Vec<(String, u64)>) -> io::Result<()> {
    for (name, path) in entries(directory)? {
        // Folders inside a snapshot are real folders: only files are links, so a link can't lead in circles here.
        if path.symlink_metadata()?.is_dir() {
            list_files(&path, &format!("{prefix}{name}/"), files)?;
        } else if let Ok(metadata) = path.metadata()
            && metadata.is_file()
        {
            files.push((format!("{prefix}{name}"), metadata.len()));
        }
    }
    Ok(())
}
