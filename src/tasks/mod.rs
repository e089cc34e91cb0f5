//! What is asked of a model: prompts with the answers that a model that can do the task would give.
//!
//! A task file is JSON: a list of tasks, or an object with such a list under `tasks`.
//!
//! ```json
//! [{"name": "capitals", "description": "…", "examples": [{"prompt": "The capital of Spain is", "answer": "Madrid"}]}]
//! ```
//!
//! The text that is scored is prompt, then `join`, then answer; `join` is a space unless a task, or one of its examples,
//! says otherwise (`""` where the answer goes on in the middle of a word, as in JSON). Pairs may also come one a line
//! (JSON lines), each with the name of its task if it has one. Unknown fields are errors.
//!
//! Nothing here knows plans.

mod error;
mod read;

pub use error::{TaskError, TaskProblem};
pub use read::{read_pairs, read_tasks};

/// What stands between prompt and answer unless a file says otherwise.
pub const JOIN: &str = " ";

/// A task: questions of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// What it is about, for people; may be empty.
    pub description: String,
    /// The questions: one at least.
    pub questions: Vec<Question>,
}

/// A prompt and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The prompt.
    pub prompt: String,
    /// The answer as it goes on behind the prompt, what joins them included.
    pub answer: String,
}
