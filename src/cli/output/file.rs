//! A file of results: whole under a temporary name beside its own first, so that a failed run leaves no half file, and
//! written as it comes, so that results of any length take little memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cli::failure::{Failure, Result};

/// Bytes that wait at most: results that are shorter touch the disk at their end alone.
const WAITING: usize = 1 << 20;

/// The file, before it has its name.
pub(super) struct OutputFile {
    path: PathBuf,
    force: bool,
    /// A device or a pipe: written to, never replaced.
    in_place: bool,
    waiting: Vec<u8>,
    partial: Option<Partial>,
}

/// What is written to, and its temporary name, if it is to get another.
struct Partial {
    file: File,
    name: Option<PathBuf>,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // The first error is the one to tell; the partial file is ours.
            let _ = fs::remove_file(name);
        }
    }
}

impl OutputFile {
    /// Refuses one that exists.
    pub(super) fn new(path: &Path, force: bool) -> Result<OutputFile> {
        let path = followed(path).map_err(|error| Failure::io("follow", &path.display().to_string(), &error))?;
        let in_place = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                return Err(Failure::usage(format!("{} is a directory", path.display())));
            }
            Ok(found) if found.is_file() && !force => return Err(exists(&path)),
            Ok(found) => !found.is_file(),
            Err(_) => false,
        };
        Ok(OutputFile { path, force, in_place, waiting: Vec::new(), partial: None })
    }

    pub(super) fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.waiting.extend_from_slice(bytes.as_ref());
        if self.waiting.len() >= WAITING { self.write_waiting().map_err(|error| self.failure(&error)) } else { Ok(()) }
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> Result<()> {
        let finished = self.write_waiting().and_then(|()| self.publish());
        finished.map_err(|error| self.failure(&error))
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let partial = match &mut self.partial {
            Some(partial) => partial,
            none => none.insert(if self.in_place {
                Partial { file: File::options().write(true).open(&self.path)?, name: None }
            } else {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{}.partial", std::process::id()));
                let name = PathBuf::from(name);
                Partial { file: File::create_new(&name)?, name: Some(name) }
            }),
        };
        partial.file.write_all(&self.waiting)?;
        self.waiting.clear();
        Ok(())
    }

    fn publish(&mut self) -> io::Result<()> {
        let Some(Partial { file, name }) = &mut self.partial else { return Ok(()) };
        file.flush()?;
        if let Some(from) = name {
            if self.force { replace(from, &self.path) } else { publish(from, &self.path) }?;
            // It is no longer there under this name.
            *name = None;
        }
        Ok(())
    }

    fn failure(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.path),
            _ => Failure::io("write", &self.path.display().to_string(), error),
        }
    }
}

/// Puts a file in the place of another, with the other's permissions.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    if let Ok(old) = fs::metadata(to) {
        fs::set_permissions(from, old.permissions())?;
    }
    fs::rename(from, to)
}

/// Gives a file its name, unless another has taken it meanwhile.
fn publish(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // A file system without hard links: the check and the renaming are two steps there.
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Where a path leads, over symbolic links, the last of which may dangle.
fn followed(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

fn exists(path: &Path) -> Failure {
    Failure::usage(format!("{} exists", path.display())).with_help("--force replaces it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_refused_when_it_exists_and_replaced_when_forced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut output = OutputFile::new(&path, false).unwrap();
        output.write("one\n").unwrap();
        assert!(!path.exists(), "nothing is written before the end");
        output.finish().unwrap();
        assert!(OutputFile::new(&path, false).is_err());
        let mut output = OutputFile::new(&path, true).unwrap();
        output.write("two\n").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        OutputFile::new(&folder.path().join("empty"), false).unwrap().finish().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no partial file is left, an empty one is there");
    }

    #[test]
    fn long_results_wait_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let line = format!("{}\n", "x".repeat(99_999));
        let written = |lines: usize| {
            let mut output = OutputFile::new(&path, false).unwrap();
            for _ in 0..lines {
                output.write(&line).unwrap();
                assert!(output.waiting.len() < WAITING + line.len() && !path.exists());
            }
            output
        };
        drop(written(40));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a failed run leaves nothing");
        let output = written(40);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        output.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), line.repeat(40));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
