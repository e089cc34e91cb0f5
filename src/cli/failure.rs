//! How a command fails: the exit code and what the user is told. Errors of the library's rooms are sorted here.

use std::fmt;
use std::io;

use lesion::plan::PlanError;

/// Exit codes, as documented in `lesion --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    /// A comparison with a reference failed.
    Mismatch = 1,
    /// The command line, a plan or a prompt can't be meant.
    Usage = 2,
    /// A file is not what it should be.
    BadFile = 3,
    /// A GPU, an instruction set, disk space or the network is missing.
    Missing = 4,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The system refused: no room is something missing, anything else is about the file.
    pub(crate) fn of_io(error: &io::Error) -> Exit {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
                Exit::Missing
            }
            _ => Exit::BadFile,
        }
    }
}

/// A command's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// One line, or several: shown after `error: `.
    message: String,
    help: Option<String>,
    /// The reader of stdout went away (`| head -1`): not an error, nothing is printed.
    closed: bool,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), help: None, closed: false }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// The same, said of something.
    pub(crate) fn about(mut self, what: &str) -> Failure {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same with another exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }

    /// A plan that can't be, with carets under the fault.
    pub(crate) fn plan(error: &PlanError) -> Failure {
        let caret: Vec<String> = error.caret().lines().map(|line| format!("\n  {line}")).collect();
        Failure::usage(format!("plan, column {}: {}{}", error.column() + 1, error.problem(), caret.concat()))
    }

    /// Reading or writing `what` (a path, `stdin`, `stdout`) failed.
    pub(crate) fn io(operation: &str, what: &str, error: &io::Error) -> Failure {
        Failure::new(Exit::of_io(error), format!("cannot {operation} {what}: {error}"))
    }

    /// Writing to stdout failed.
    pub(crate) fn stdout(error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure { exit: Exit::Ok, message: String::new(), help: None, closed: true };
        }
        Failure::io("write to", "stdout", error)
    }

    /// Whether there is anything to tell.
    pub(crate) fn is_silent(&self) -> bool {
        self.closed
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}
