//! The bundled suite: tasks whose examples are made by procedures, from a seed.
//!
//! A seed means the same everywhere and in every version of this crate: draws come from ChaCha8 seeded by
//! `seed_from_u64(seed)`, its stream the first 8 bytes (little-endian) of the SHA-256 of the task's name, so that no task
//! depends on the others; a number below n is `(u · n) >> 64` (in 128 bits), u being the next 64-bit output. A task's examples
//! are the first so many of its draws whose prompts are new.
//!
//! Most procedures speak the language of the embedded model's corpus (`models/mini/recipe/corpus.py`), so that it can do
//! what they ask; the others (two and more digits, wars, code, phrases, facts) are there for GPT-2. What the embedded model
//! scores is in [`scores`], beside what chance would.

mod arithmetic;
mod draw;
mod facts;
mod language;
mod patterns;
mod scores;
mod words;
mod world;

use std::collections::HashSet;

use thiserror::Error;

use self::draw::Draw;
use super::{Example, JOIN, Task};

pub use scores::{IntactScore, Score, scores};

/// The seed of the suite that is measured and documented.
pub const SEED: u64 = 0;

/// Examples of each of its tasks.
pub const EXAMPLES: usize = 50;

/// Draws for each example asked for, after which a procedure is taken to have no more.
const DRAWS: usize = 200;

/// How a task is made.
struct Procedure {
    name: &'static str,
    description: &'static str,
    join: &'static str,
    eval_questions: &'static [&'static str],
    make: fn(&mut Draw) -> Example,
}

impl Procedure {
    const fn new(name: &'static str, description: &'static str, make: fn(&mut Draw) -> Example) -> Procedure {
        Procedure { name, description, join: JOIN, eval_questions: &[], make }
    }

    const fn joined(self, join: &'static str) -> Procedure {
        Procedure { join, ..self }
    }

    const fn judged(self, eval_questions: &'static [&'static str]) -> Procedure {
        Procedure { eval_questions, ..self }
    }
}

fn procedures() -> impl Iterator<Item = &'static Procedure> {
    [arithmetic::PROCEDURES, patterns::PROCEDURES, world::PROCEDURES, language::PROCEDURES, facts::PROCEDURES]
        .into_iter()
        .flatten()
}

/// Why there is no such task.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BundledError {
    /// No bundled task has this name.
    #[error("no bundled task is called `{}`", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// A procedure has fewer examples than were asked for.
    #[error("task `{task}` has {found} different examples, {asked} were asked for")]
    Exhausted {
        /// The task.
        task: &'static str,
        /// How many.
        asked: usize,
        /// How many there are, or were found.
        found: usize,
    },
    /// A task without examples is none.
    #[error("0 examples were asked for")]
    None,
}

/// The names of all bundled tasks, in their order.
pub fn names() -> impl Iterator<Item = &'static str> {
    procedures().map(|procedure| procedure.name)
}

/// All bundled tasks with so many examples each.
///
/// # Errors
/// Where a procedure does not have so many.
pub fn tasks(seed: u64, examples: usize) -> Result<Vec<Task>, BundledError> {
    procedures().map(|procedure| made(procedure, seed, examples)).collect()
}

/// One bundled task.
///
/// # Errors
/// Where there is none of this name, or it does not have so many examples.
pub fn task(name: &str, seed: u64, examples: usize) -> Result<Task, BundledError> {
    let unknown = || BundledError::Name { name: name.to_owned() };
    made(procedures().find(|procedure| procedure.name == name).ok_or_else(unknown)?, seed, examples)
}

fn made(procedure: &Procedure, seed: u64, asked: usize) -> Result<Task, BundledError> {
    if asked == 0 {
        return Err(BundledError::None);
    }
    let mut draw = Draw::new(seed, procedure.name);
    let mut prompts = HashSet::new();
    let mut examples: Vec<Example> = Vec::new();
    for _ in 0..asked.saturating_mul(DRAWS) {
        let example = (procedure.make)(&mut draw);
        if prompts.insert(example.prompt.clone()) {
            examples.push(example);
            if examples.len() == asked {
                return Ok(Task {
                    name: procedure.name.to_owned(),
                    description: procedure.description.to_owned(),
                    join: procedure.join.to_owned(),
                    examples,
                    eval_questions: procedure.eval_questions.iter().map(|&question| question.to_owned()).collect(),
                });
            }
        }
    }
    Err(BundledError::Exhausted { task: procedure.name, asked, found: examples.len() })
}

#[cfg(test)]
mod tests;
