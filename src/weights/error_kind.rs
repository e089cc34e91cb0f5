//! The three ways in which getting hold of weights fails, as the command's exit code tells them apart.

/// What kind of failure an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong: a name, a flag, an environment variable. Exit code 2.
    Usage,
    /// A file is not what it has to be. Exit code 3.
    BadFile,
    /// Something the request needs isn't there: network, disk, a file, access to it. Exit code 4.
    Missing,
}
