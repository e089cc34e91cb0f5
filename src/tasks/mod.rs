//! What is asked of a model: prompts with the answers that a model that can do the task would give.
//!
//! A task file is JSON: an object with a version and tasks, or the list of tasks alone.
//!
//! ```json
//! {"version": 1, "tasks": [
//!   {"name": "capitals", "description": "…", "join": " ",
//!    "examples": [{"prompt": "The capital of Spain is", "answer": "Madrid", "alternatives": ["Rome"],
//!                  "corrupted_prompt": "The capital of Italy is"}],
//!    "eval_questions": ["Is it a city?"]}]}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `version` | [`FORMAT_VERSION`]; a file without one is read as of that version |
//! | `name`, `description` | of the task; names are unique in a file; a description may be left out |
//! | `join` | stands between prompt and answer: a space unless said otherwise, by the task or by one of its examples (`""` where the answer goes on in the middle of a word, as in JSON) |
//! | `prompt`, `answer` | what is asked and what is scored: the answer is never empty |
//! | `alternatives` | wrong answers that compete with the answer, such as the other name of an indirect-object sentence |
//! | `corrupted_prompt` | the prompt with what decides the answer changed: the other half of a clean/corrupted pair |
//! | `eval_questions` | questions about a completion, for a judge |
//!
//! The text that is scored is prompt, then join, then answer ([`Task::question`]). Unknown and repeated fields are errors.
//! Pairs may also come one a line ([`read_pairs`]), as may documents in the style of lm-evaluation-harness.
//!
//! The [`bundled`] tasks are made by procedures. Nothing here knows plans.

pub mod bundled;
mod check;
mod error;
#[cfg(feature = "agent")]
pub mod generate;
mod lines;
mod read;
mod seed;
mod write;

pub use check::{Finding, FindingKind, check};
pub use error::{Place, TaskError, TaskProblem};
pub use lines::read_pairs;
pub use read::{read_any, read_tasks};
pub use seed::seed_tasks;
pub use write::{write_task, write_tasks};

use std::collections::HashMap;

/// What stands between prompt and answer unless a file says otherwise.
pub const JOIN: &str = " ";

/// The version of task files that this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// A task: questions of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// What it is about, for people; may be empty.
    pub description: String,
    /// What joins prompts and answers, where an example does not say otherwise.
    pub join: String,
    /// The examples: one at least.
    pub examples: Vec<Example>,
    /// Questions about a completion, which a judge may be asked.
    pub eval_questions: Vec<String>,
}

/// A prompt with its answer and what competes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// The prompt.
    pub prompt: String,
    /// The answer, without what joins it to the prompt. Not empty.
    pub answer: String,
    /// What joins them, if not what joins those of the task.
    pub join: Option<String>,
    /// Wrong answers, each once, none of them the answer or empty.
    pub alternatives: Vec<String>,
    /// Another prompt, whose answer is another one.
    pub corrupted_prompt: Option<String>,
}

/// A prompt and its answer, as they are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The prompt.
    pub prompt: String,
    /// The answer as it goes on behind the prompt, what joins them included.
    pub answer: String,
}

impl Question {
    /// Whether white space stands on both sides of where prompt, join and answer meet: two where one is meant.
    pub fn doubles_space(&self) -> bool {
        let mut begins = self.answer.chars().take_while(|c| c.is_whitespace());
        let joins = begins.next().is_some();
        joins && (self.prompt.ends_with(char::is_whitespace) || begins.next().is_some())
    }
}

impl Example {
    /// A prompt and its answer.
    pub fn new(prompt: impl Into<String>, answer: impl Into<String>) -> Example {
        Example { prompt: prompt.into(), answer: answer.into(), ..Example::default() }
    }
}

impl Task {
    /// What is scored for an example; none where there is no such example.
    pub fn question(&self, example: usize) -> Option<Question> {
        let example = self.examples.get(example)?;
        Some(self.asked(example, &example.prompt, &example.answer))
    }

    /// The example's wrong answers behind its prompt.
    pub fn alternatives(&self, example: usize) -> Vec<Question> {
        let Some(example) = self.examples.get(example) else { return Vec::new() };
        example.alternatives.iter().map(|wrong| self.asked(example, &example.prompt, wrong)).collect()
    }

    /// The example's answer behind its corrupted prompt; none where it has none.
    pub fn corrupted(&self, example: usize) -> Option<Question> {
        let example = self.examples.get(example)?;
        Some(self.asked(example, example.corrupted_prompt.as_deref()?, &example.answer))
    }

    fn asked(&self, example: &Example, prompt: &str, answer: &str) -> Question {
        let join = example.join.as_deref().unwrap_or(&self.join);
        Question { prompt: prompt.to_owned(), answer: format!("{join}{answer}") }
    }

    /// The share of the examples that have the answer which most of them have: what guessing without looking at the
    /// prompt gets right. 0 for a task without examples.
    pub fn majority(&self) -> f64 {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        self.examples.iter().for_each(|example| *counts.entry(&example.answer).or_default() += 1);
        let most = counts.into_values().max().unwrap_or(0);
        most as f64 / self.examples.len().max(1) as f64
    }

    /// The share that picking one of answer and alternatives at random gets right; none where an example has no
    /// alternatives.
    pub fn choice_chance(&self) -> Option<f64> {
        let choices = self.examples.iter().map(|example| example.alternatives.len());
        let all: Option<f64> = choices.map(|wrong| (wrong > 0).then(|| 1.0 / (wrong + 1) as f64)).sum();
        all.filter(|_| !self.examples.is_empty()).map(|sum| sum / self.examples.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_joined_as_task_and_example_say() {
        let example =
            Example { alternatives: vec!["b".into()], corrupted_prompt: Some("q".into()), ..Example::new("p", "a") };
        let glued = Example { join: Some(String::new()), ..example.clone() };
        let task = Task {
            name: "t".into(),
            description: String::new(),
            join: ": ".into(),
            examples: vec![example, glued],
            eval_questions: Vec::new(),
        };
        let question = |prompt: &str, answer: &str| Question { prompt: prompt.into(), answer: answer.into() };
        assert_eq!(task.question(0), Some(question("p", ": a")));
        assert_eq!(task.alternatives(1), [question("p", "b")]);
        assert_eq!(task.corrupted(1), Some(question("q", "a")));
        assert_eq!((task.question(2), task.corrupted(2), task.alternatives(2).len()), (None, None, 0));
        assert_eq!((task.majority(), task.choice_chance()), (1.0, Some(0.5)));
    }
}
