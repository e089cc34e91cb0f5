//! What `tokens` and `lens` may be asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lesion::measure::ChangeOrder;

use crate::cli::args::{EngineArgs, ModelArgs, OutputArgs, PlanArgs, PromptArgs};
use crate::cli::references::ReferenceArgs;
use crate::cli::sweep::args::MemorySize;

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
    pub(crate) references: ReferenceArgs,
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
    pub(crate) references: ReferenceArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Write activations to a file: what modifiers of plans patch in, take the mean of, or steer along
#[derive(Args, Debug)]
#[command(after_help = "\
Sites have the names of TransformerLens; `*` stands for every layer, or every hook. The file is in the safetensors format: a tensor \
[tokens, width] for each site, and the ids as `tokens`. Its memory is checked before anything runs.

Examples:
  lesion cache --site blocks.5.attn.hook_z -o clean.safetensors 'When Tom and Jack went to the market, Tom gave a lamp to'
  lesion tokens --reference clean=clean.safetensors --plan '0..5,5[patch h3 from clean],6..12' 'When Tom and Jack went to the market, Jack gave a lamp to'
  lesion cache --site 'blocks.*.hook_mlp_out' --lines prompts.txt -o means.safetensors
  lesion sweep --reference m=means.safetensors --plan '0..5,5[mean mlp from m],6..12' --task antonyms")]
pub(crate) struct Cache {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// A file of prompts, one a line: their tokens one behind the other, to take means of
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "ids"])]
    pub(crate) lines: Option<PathBuf>,
    /// What is written; may be given several times
    #[arg(long, value_name = "NAME", required = true)]
    pub(crate) site: Vec<String>,
    /// Which layers run, in which order [default: the intact model]
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan: Option<String>,
    /// The file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Bytes that activations may take, such as 4GB [default: a quarter of the memory]
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: Option<MemorySize>,
    #[command(flatten)]
    pub(crate) references: ReferenceArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}
