//! What the bundled tasks score: by chance, and measured on the embedded model. The measurements are the lines of
//! `scores.jsonl`, which `lesion tasks measure --json` prints.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::measure::Number;
use crate::tasks::{Task, write_task};

/// A task's scores: those of chance, and those that a model was measured to have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The task's name.
    pub task: String,
    /// How many examples.
    pub examples: usize,
    /// Stands for the task as it was measured: the SHA-256 of its text in a task file.
    pub sha256: String,
    /// What guessing the answer that most examples have gets right, as a share.
    pub chance: f64,
    /// What picking an answer or alternative at random gets right; none without alternatives.
    pub choice_chance: Option<f64>,
    /// What the model was measured to do.
    pub intact: IntactScore,
}

/// What an intact model does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntactScore {
    /// The model's name.
    pub model: String,
    /// Whether BOS stood before the prompts.
    pub bos: bool,
    /// The share of the examples whose answer's tokens are each the likeliest in their place.
    pub accuracy: f64,
    /// Nats per token of the answers, token-weighted.
    pub nll_per_token: Number,
    /// The share of the examples whose answer is likelier than each of its alternatives, by the sum over its tokens; none
    /// without alternatives.
    pub choice_accuracy: Option<f64>,
}

impl Score {
    /// A measured task.
    pub fn new(task: &Task, intact: IntactScore) -> Score {
        Score {
            task: task.name.clone(),
            examples: task.examples.len(),
            sha256: Sha256::digest(write_task(task)).iter().map(|byte| format!("{byte:02x}")).collect(),
            chance: task.majority(),
            choice_chance: task.choice_chance(),
            intact,
        }
    }
}

/// The scores of the bundled tasks with [`SEED`](super::SEED) and [`EXAMPLES`](super::EXAMPLES) on the embedded model, in
/// their order.
pub fn scores() -> Vec<Score> {
    let lines = include_str!("scores.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("a test reads every line")).collect()
}
