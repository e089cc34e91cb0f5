//! What is wrong with a file of tasks, and where.

use std::fmt;

use thiserror::Error;

use super::FORMAT_VERSION;

/// Why a file of tasks was refused.
#[derive(Debug, Error)]
#[error("{}{}: {problem}", source_name.escape_debug(), Shown(place))]
pub struct TaskError {
    /// The file, as it was named.
    pub source_name: String,
    /// Where in the file, if not all of it is to blame or `problem` says it (JSON errors name line and column).
    pub place: Option<Place>,
    /// What is wrong.
    pub problem: TaskProblem,
}

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this line and, where it is not JSON, at this column, both counted from 1.
    Line {
        /// The line.
        line: usize,
        /// The column, in bytes.
        column: Option<usize>,
    },
    /// At this JSON path, such as `tasks[2].examples[0].answer`.
    Path(String),
}

struct Shown<'a>(&'a Option<Place>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(Place::Line { line, column: None }) => write!(f, ", line {line}"),
            Some(Place::Line { line, column: Some(column) }) => write!(f, ", line {line} column {column}"),
            Some(Place::Path(path)) => write!(f, ", {path}"),
        }
    }
}

/// What is wrong with it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TaskProblem {
    /// Not the JSON that is expected.
    #[error("{0}")]
    Json(serde_json::Error),
    /// Not UTF-8.
    #[error("not UTF-8 at byte {0}")]
    Utf8(usize),
    /// Written for a later build.
    #[error("version {found}; this build reads version {FORMAT_VERSION}")]
    Version {
        /// The file's version.
        found: u64,
    },
    /// No tasks, or no pairs.
    #[error("it has no {0}")]
    Nothing(&'static str),
    /// A task without a name.
    #[error("the name is empty")]
    NoName,
    /// A task without questions.
    #[error("task `{}` has no examples", task.escape_debug())]
    NoExamples {
        /// Its name.
        task: String,
    },
    /// Two tasks of one name.
    #[error("task `{}` is there twice", task.escape_debug())]
    Twice {
        /// The name.
        task: String,
    },
    /// A question that can't be scored.
    #[error("task `{}`, example {example}: the answer is empty", task.escape_debug())]
    EmptyAnswer {
        /// Its task.
        task: String,
        /// Its number in the task, from 0.
        example: usize,
    },
    /// An alternative that can't compete with the answer.
    #[error("alternative {alternative:?} {fault}")]
    Alternative {
        /// The alternative.
        alternative: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A pair whose halves are one.
    #[error("the corrupted prompt is the prompt itself, {prompt:?}")]
    SamePrompt {
        /// The prompt.
        prompt: String,
    },
    /// A line that is not JSON, or neither a pair nor a document of a known form.
    #[error("{0}")]
    Document(String),
}
