//! What `tokens`, `lens`, `attribute`, `attention`, `similarity` and `cache` may be asked.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lesion::measure::ChangeOrder;

use crate::cli::args::{EngineArgs, ModelArgs, PlanArgs, PromptArgs, RunArgs, positive};
use crate::cli::bridges::BridgeArgs;
use crate::cli::references::ReferenceArgs;
use crate::cli::sweep::args::MemorySize;

/// Show what a plan changes, token by token: losses, ranks, and which tokens became more and less likely
#[derive(Args, Debug)]
#[command(after_help = "\
A row is a place in the text: the token that comes next, its loss in nats and its rank under the intact model and under the \
plan (0: the likeliest), the entropies, and KL(intact ‖ plan). Behind them stand the tokens that gained and lost most, with \
their probabilities before and after. With --json: an object for each place. An output file that ends in .svg or .png is a \
drawing.

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
    pub(crate) run: RunArgs,
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
LayerNorm (with the row's own statistics) and the unembedding; the bolder its colour, the likelier. The top row is what the plan says. \
With --json: an object for each cell, with probability, entropy, the loss and rank of the token that comes next, and the \
divergence from the last row. With --tuned each state goes through the map of its layer first: behind layer l that from l + 1 \
to the end. An output file that ends in .svg or .png is a drawing.

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
    /// Read states through the maps of a tuned lens, a file of `lesion bridge tune` or of `lesion bridge fit --to-end`
    #[arg(long, value_name = "FILE")]
    pub(crate) tuned: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Take a logit apart: what each head and each MLP adds to it (direct logit attribution)
#[derive(Args, Debug)]
#[command(after_help = "\
The parts are the embedding, each head's output through its rows of c_proj, the bias of c_proj, and each MLP's output, all \
through the final LayerNorm with its scale frozen, and the unembedding; with the constant of the LayerNorm's bias they add up \
to the logit, or with --other to the difference of two. It is what parts write, not what would happen without them. What \
a plan's modifiers left is what counts: a zeroed head is 0; a change of the stream itself is a part. Branches of n count 1/n. \
Below the largest parts stands what each head adds, layer by layer. Answers are one token, exactly as written: mind the \
leading space; with --ids they are ids. With --json: an object for each plan, with all parts. An output file that ends in \
.svg or .png is a drawing.

Examples:
  lesion attribute --answer ' Madrid' 'The capital of Spain is'
  lesion attribute --answer ' Madrid' --other ' Paris' 'The capital of Spain is'
  lesion attribute --plan 'skip 5' --answer ' Madrid' 'The capital of Spain is'
  lesion attribute --json --ids 0,275,325,303,1216,292 --answer 7 --position 3")]
pub(crate) struct Attribute {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// The token whose logit is taken apart, exactly as written
    #[arg(long, value_name = "TEXT")]
    pub(crate) answer: String,
    /// The token whose logit is subtracted from it
    #[arg(long, value_name = "TEXT")]
    pub(crate) other: Option<String>,
    /// Behind which token, from 0 [default: the last]
    #[arg(long, value_name = "N")]
    pub(crate) position: Option<u32>,
    /// Parts that are shown one by one: the largest, either way
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = positive())]
    pub(crate) top: u32,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Show where heads look: one head's pattern as a picture, or all heads in a few numbers
#[derive(Args, Debug)]
#[command(after_help = "\
With --layer and --head: a line for each token, dark where it looks. Without --head, for every head (or those of --layer) the \
mean attention to the token before, to position 0 (where BOS is), and the entropy in nats; and its induction score: the \
attention, in the second copy of random tokens, to what followed the token the first time. With --json: an object for each \
head. An output file that ends in .svg or .png is a drawing.

Examples:
  lesion attention 'The capital of Spain is'
  lesion attention --layer 3 --head 0 'The capital of Spain is'
  lesion attention --plan 'repeat 3 x2' --layer 3@1 --head 0 'One day,'
  lesion attention --json --plan 'skip 5' 'The capital of Spain is'")]
pub(crate) struct Attention {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// The layer: 5, 5@1 for its second execution, or an address such as steps.4
    #[arg(long, value_name = "LAYER")]
    pub(crate) layer: Option<String>,
    /// The head
    #[arg(long, value_name = "HEAD", requires = "layer")]
    pub(crate) head: Option<u32>,
    /// The seed of the random tokens
    #[arg(long, default_value_t = 0, value_name = "SEED", conflicts_with = "head")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Compare residual states: how alike they are from step to step, and how much each step turns them
#[derive(Args, Debug)]
#[command(after_help = "\
A cell is the mean cosine of two states, in hundredths; a state is the residual stream behind a step. Block influence is 1 - \
the mean cosine of the states before and behind a step (Men et al. 2024). Means are over all tokens of all texts alike. \
Position 0, where BOS is, behaves otherwise than all others and is left out unless asked for. With --json: an object for each plan, \
with and without position 0. An output file that ends in .svg or .png is a drawing.

Examples:
  lesion similarity 'One day, Anna walked to the park with her dog.'
  lesion similarity --plan 'reverse 4..8' --lines story.txt
  lesion similarity --json --with-first 'The capital of Spain is Madrid.'")]
pub(crate) struct Similar {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// A file of texts, one a line; may be given several times, `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "ids"])]
    pub(crate) lines: Vec<PathBuf>,
    /// Count position 0, too
    #[arg(long)]
    pub(crate) with_first: bool,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Write activations to a file: what modifiers of plans patch in, take the mean of, or steer along
#[derive(Args, Debug)]
#[command(after_help = "\
Sites have the names of TransformerLens; `*` stands for every layer, or every hook. Where a layer runs more than once, \
blocks.5@1.HOOK is its second execution, and steps.6.HOOK is the seventh step, whatever runs there. The file is in the safetensors \
format: a tensor [tokens, width] for each site, and the ids as `tokens`. Its memory is checked before anything runs. \
What blocks.5.HOOK names, --reference finds; the others are there to be read.

Examples:
  lesion cache --site blocks.5.attn.hook_z -o clean.safetensors 'When Tom and Jack went to the market, Tom gave a lamp to'
  lesion tokens --reference clean=clean.safetensors --plan '0..5,5[patch h3 from clean],6..12' 'When Tom and Jack went to the market, Jack gave a lamp to'
  lesion cache --site 'blocks.*.hook_mlp_out' --lines prompts.txt -o means.safetensors
  lesion cache --site steps.6.hook_resid_pre --site ln_final.hook_scale --plan '0..5,5*2,6..12' -o looped.safetensors 'The capital of Spain is'
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
    pub(crate) bridges: BridgeArgs,
    #[command(flatten)]
    pub(crate) references: ReferenceArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}
