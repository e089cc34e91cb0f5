//! What `tokens` and `lens` may be asked.

use clap::{Args, ValueEnum};
use lesion::measure::ChangeOrder;

use crate::cli::args::{EngineArgs, ModelArgs, OutputArgs, PlanArgs, PromptArgs};

/// Show what a plan changes, token by token: losses, ranks, and which tokens became more and less likely
#[derive(Args, Debug)]
#[command(after_help = "\
A row is a place in the text: the token that comes next, its loss in nats and its rank under the intact model and under the \
plan (0: the likeliest), the entropies, and KL(intact ‖ plan). Behind them stand the tokens that gained and lost most, with \
their probabilities before and after. With --json: an object for each place.

Examples:
  lesion tokens --plan 0..8 'The capital of Spain is Madrid.'
  lesion tokens --plan 'skip 5' --plan 'swap 3 7' --changes 2 'The capital of Spain is'
  lesion tokens --plan '0..7,7[zero h3],8..12' --by logit --json 'One day, Anna walked to the'")]
pub(crate) struct Tokens {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// Tokens that gained, and as many that lost, that are shown
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) changes: u32,
    /// By what gains and losses are ordered
    #[arg(long, value_enum, default_value_t = By::Probability, value_name = "MEASURE")]
    pub(crate) by: By,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The difference of probabilities
    Probability,
    /// The difference of log-probabilities: tokens that are unlikely under both come first
    LogProbability,
    /// The difference of logits
    Logit,
}

impl By {
    pub(crate) fn order(self) -> ChangeOrder {
        match self {
            By::Probability => ChangeOrder::Probability,
            By::LogProbability => ChangeOrder::LogProbability,
            By::Logit => ChangeOrder::Logit,
        }
    }
}

/// Show what the model would say if it stopped after each step: the logit lens, layer by position
#[derive(Args, Debug)]
#[command(after_help = "\
A cell is the likeliest token behind a step, in each place of the text, on the residual state there through the final \
LayerNorm (with the row's own statistics) and the unembedding; the bolder its colour, the likelier. The last row is what the plan says. \
With --json: an object for each cell, with probability, entropy, the loss and rank of the token that comes next, and the \
divergence from the last row.

Examples:
  lesion lens 'The capital of Spain is'
  lesion lens --plan 'repeat 3 x4' --last 4 'The capital of Spain is'
  lesion lens --json 'When Tom and Jack went to the market, Tom gave a lamp to'")]
pub(crate) struct Lens {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// Only the last N places of the text
    #[arg(long, value_name = "N")]
    pub(crate) last: Option<u32>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
