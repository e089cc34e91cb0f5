//! What is wrong with a file of tasks.

use thiserror::Error;

/// Why a file of tasks was refused.
#[derive(Debug, Error)]
#[error("{}{}: {problem}", source_name.escape_debug(), line.map_or(String::new(), |line| format!(", line {line}")))]
pub struct TaskError {
    /// The file, as it was named.
    pub source_name: String,
    /// The line, counted from 1, where one is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: TaskProblem,
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
    /// No tasks, or no pairs.
    #[error("it has no {0}")]
    Nothing(&'static str),
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
}
