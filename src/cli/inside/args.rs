//! What `patch` and `trace` may be asked.

use std::ops::Range;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use lesion::plan::Site;

use super::path::{InputArg, To};
use crate::cli::args::{BosArgs, RunArgs, positive};
use crate::cli::bridges::BridgeArgs;
use crate::cli::store::args::StoreArgs;
use crate::cli::sweep::args::MemoryArgs;

/// Patch activations of a clean run into a corrupted one, layer by position or by head: what brings the answer back?
#[derive(Args, Debug)]
#[command(after_help = "\
A cell is the corrupted run with one activation of the clean run in it, at that layer and that position, or at that layer and that head \
at all positions. Its score is (patched - corrupted) / (clean - corrupted): 1 is the clean run, 0 the corrupted one. Both \
prompts have as many tokens; with --corrupted-plan the prompt stays and the plan corrupts. With --reverse the clean \
run is patched: 0 is then what breaks it.

With --to the cells are senders, and the way is traced (path patching, Wang et al. 2022): each head gives what it gives in the \
other run, all other heads (and MLPs, unless --through-mlps) are held, and what arrives at the receiver takes effect. \
The effect is then that of one head on another, or on the logits, along that way alone. A cell's plan is the pass in which its head \
sends: `other` is the other run, `own` the one that is patched.

The metric is the difference of the logits of two tokens behind the prompt, --answer and --other, or without \
--other the loss of the answer, of any length, in nats; then patches at all positions reach the answer's tokens, too.

All cells are one sweep, which shares what they have in common; the store keeps them, and what is there is not computed again. \
With --json: an object for each cell, and a last one with the baselines and the cost. An output file that ends in .svg or .png \
is a drawing.

Examples:
  lesion patch 'Paris is in' --corrupted 'Madrid is in' --answer ' France'
  lesion patch --site post 'Paris is in' --corrupted 'Rome is in' --answer ' it'
  lesion patch 'Paris is in' --corrupted-plan 'skip 0' --answer ' France'
  lesion patch Paris --corrupted Rome --answer ' is' --to 10.1 --input v
  lesion patch Paris --corrupted Rome --answer ' is' --site mlp --output g.png")]
pub(crate) struct Patch {
    /// The clean prompt; `-` reads it from stdin, byte for byte
    #[arg(value_name = "TEXT")]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) bos: BosArgs,
    /// The corrupted prompt
    #[arg(long, value_name = "TEXT", required_unless_present = "corrupted_plan")]
    pub(crate) corrupted: Option<String>,
    /// The plan of the corrupted run [default: that of the clean one]
    #[arg(long, value_name = "PLAN")]
    pub(crate) corrupted_plan: Option<String>,
    /// The plan of the clean run (see `lesion plan --help`) [default: the intact model]
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan: Option<String>,
    /// What the clean run says, exactly as written: mind its leading space
    #[arg(long, value_name = "TEXT")]
    pub(crate) answer: String,
    /// What the corrupted run says: a token, as the answer then is
    #[arg(long, value_name = "TEXT")]
    pub(crate) other: Option<String>,
    /// What is patched: q, k, v, pattern and z head by head, the others position by position
    #[arg(long, value_enum, default_value_t = SiteArg::Z, value_name = "SITE")]
    pub(crate) site: SiteArg,
    /// Only these positions, from 0, half-open [default: those from the first token on that differs; of heads all]
    #[arg(long, value_name = "I..J")]
    pub(crate) positions: Option<Positions>,
    /// Patch the corrupted run's activations into the clean one
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Along the way from each head to here alone: `logits`, or heads of a layer, as in 10.1 or 10.1,10.5
    #[arg(long, value_name = "RECEIVER", conflicts_with_all = ["site", "positions", "corrupted_plan", "reference"])]
    pub(crate) to: Option<To>,
    /// What the receiving heads take in
    #[arg(long, value_enum, default_value_t = InputArg::Q, value_name = "INPUT", requires = "to")]
    pub(crate) input: InputArg,
    /// Let the way lead through MLPs, which are held otherwise
    #[arg(long, requires = "to")]
    pub(crate) through_mlps: bool,
    #[command(flatten)]
    pub(crate) bridges: BridgeArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Trace an answer causally: noise the subject, restore one state at a time, and see what brings the answer back
#[derive(Args, Debug)]
#[command(after_help = "\
Gaussian noise is added to the embeddings of the subject's tokens; then the clean run's state at a layer and position is put back \
under the same noise (Meng et al. 2022). A cell is how much likelier that makes the answer: \
p(answer | restored) - p(answer | noised), the mean over seeds. With --json: an object for each cell, with the 95 % bootstrap \
interval over seeds, and a last one with the baselines and the cost. What is in the store is not computed again. An output file \
that ends in .svg or .png is a drawing.

Examples:
  lesion trace 'The capital of Spain is' --subject Spain --answer ' Madrid'
  lesion trace 'Paris is in' --subject Paris --answer ' France' --site mlp
  lesion trace 'Paris is in' --subject Paris --answer ' France' --seeds 3 --json
  lesion trace 'Paris is in' --subject Paris --answer ' France' --output t.svg")]
pub(crate) struct Trace {
    /// The prompt; `-` reads it from stdin, byte for byte
    #[arg(value_name = "TEXT")]
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) bos: BosArgs,
    /// What of the prompt is noised: all tokens that hold a part of this text, which is in it once
    #[arg(long, value_name = "TEXT", required_unless_present = "subject_tokens", conflicts_with = "subject_tokens")]
    pub(crate) subject: Option<String>,
    /// The same as positions, from 0, half-open
    #[arg(long, value_name = "I..J")]
    pub(crate) subject_tokens: Option<Positions>,
    /// The answer, exactly as written: mind its leading space
    #[arg(long, value_name = "TEXT")]
    pub(crate) answer: String,
    /// The noise's standard deviation [default: 3 times that of the token embeddings, over the vocabulary]
    #[arg(allow_negative_numbers = true, long, value_name = "SIGMA")]
    pub(crate) sigma: Option<f64>,
    /// How many times noise is drawn
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = positive())]
    pub(crate) seeds: u32,
    /// Layers in a row that are restored together, the cell's in their middle
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive())]
    pub(crate) window: u32,
    /// What is restored
    #[arg(long, value_enum, default_value_t = SiteArg::Post, value_name = "SITE")]
    pub(crate) site: SiteArg,
    /// The plan, in which no layer runs twice (see `lesion plan --help`) [default: the intact model]
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan: Option<String>,
    #[command(flatten)]
    pub(crate) bridges: BridgeArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Sites, by their words in plans.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SiteArg {
    /// The residual stream before a layer
    Pre,
    /// Queries
    Q,
    /// Keys
    K,
    /// Values
    V,
    /// Attention probabilities
    Pattern,
    /// The heads' outputs, before they are mixed
    Z,
    /// What the attention adds
    Attn,
    /// The residual stream between the halves
    Mid,
    /// The MLP's neurons
    Neurons,
    /// What the MLP adds
    Mlp,
    /// The residual stream behind a layer
    Post,
}

impl SiteArg {
    pub(crate) fn site(self) -> Site {
        match self {
            SiteArg::Pre => Site::Pre,
            SiteArg::Q => Site::Q,
            SiteArg::K => Site::K,
            SiteArg::V => Site::V,
            SiteArg::Pattern => Site::Pattern,
            SiteArg::Z => Site::Z,
            SiteArg::Attn => Site::Attn,
            SiteArg::Mid => Site::Mid,
            SiteArg::Neurons => Site::Neurons,
            SiteArg::Mlp => Site::Mlp,
            SiteArg::Post => Site::Post,
        }
    }

    /// Whether columns are heads.
    pub(crate) fn has_heads(self) -> bool {
        matches!(self, SiteArg::Q | SiteArg::K | SiteArg::V | SiteArg::Pattern | SiteArg::Z)
    }
}

/// `i..j`, or `i` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Positions(pub(crate) Range<usize>);

impl FromStr for Positions {
    type Err = String;

    fn from_str(text: &str) -> Result<Positions, String> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let range = match text.split_once("..") {
            Some((first, end)) => number(first).zip(number(end)),
            None => number(text).and_then(|at| Some((at, at.checked_add(1)?))),
        };
        match range {
            Some((first, end)) if first < end => Ok(Positions(first as usize..end as usize)),
            _ => Err("positions are i..j with i < j, or i".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_half_open() {
        assert_eq!("3..5".parse(), Ok(Positions(3..5)));
        assert_eq!("7".parse(), Ok(Positions(7..8)));
        for text in ["", "..", "5..3", "3..3", "-1..2", "+1", "1..=2", "4294967295", "x"] {
            assert!(text.parse::<Positions>().is_err(), "{text}");
        }
    }
}
