//! The syntax of `report` and `study`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::args::{EngineArgs, ModelArgs, positive};
use crate::cli::store::args::At;

/// Report an experiment: figures, what was said, tables, notes, provenance
#[derive(Args, Debug)]
#[command(after_help = "\
One page of HTML that opens from disk: it loads nothing and runs nothing, follows the system's light or dark colours, and prints. \
With --markdown a folder instead: report.md, and each figure as SVG and PNG, 85 and 170 mm wide. Equal results give equal bytes.

Which figures there are follows from the families that were swept: bars with 95 % intervals, maps of two layers, loss and \
right answers against layers kept, loss against the size of windows, the lattice of subsets with the minimal sets, orders \
against Kendall's tau. What plans said is there where `lesion sweep --complete` or `lesion complete` kept it. --view adds what \
was found inside a model: texts and lenses token by token, patch grids and traces, parts of logits, attention, similarity.

Examples:
  lesion report truncations
  lesion report --view lens.jsonl --view grid.jsonl --output inside.html
  lesion report truncations --output page.html --title 'Without the last layers'
  lesion report truncations --markdown --output figures")]
pub(crate) struct Report {
    /// The experiment's name, or the beginning of it
    #[arg(required_unless_present = "view")]
    pub(crate) experiment: Option<String>,
    /// A file with what tokens, lens, attribute, attention, similarity, patch or trace printed with --json: it is shown, too, or
    /// alone where no experiment is named; may be given several times, `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) view: Vec<PathBuf>,
    /// The title [default: the experiment's name]
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// The seed of the intervals' resamples
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) to: ReportTo,
    #[command(flatten)]
    pub(crate) at: At,
}

/// Where a report goes.
#[derive(Args, Debug)]
pub(crate) struct ReportTo {
    /// The page, or with --markdown the folder [default: named after the experiment]
    #[arg(short, long, value_name = "FILE|FOLDER")]
    pub(crate) output: Option<PathBuf>,
    /// Markdown and pictures in a folder, in place of a page
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Replace the page or folder if it exists
    #[arg(long)]
    pub(crate) force: bool,
}

/// Run a study from beginning to end: measure, let the models speak, report
#[derive(Args, Debug)]
pub(crate) struct Study {
    #[command(subcommand)]
    pub(crate) study: Studies,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Studies {
    Truncation(Truncation),
}

/// Remove the last n layers, for every n: from how many layers on are answers right, and what is said before?
#[derive(Args, Debug)]
#[command(after_help = "\
Four kinds of prompt: addition, JSON, distances and elections. Of each the first n layers answer a prompt in words, and more \
examples by their loss. What was found is printed, and a page with everything is written. What has been computed before is \
taken from the store.

Examples:
  lesion study truncation
  lesion study truncation --examples 20 --output page.html
  lesion study truncation --model gpt2 --markdown --output truncation")]
pub(crate) struct Truncation {
    /// Examples of each kind, besides the prompt that is continued
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = positive())]
    pub(crate) examples: u32,
    /// Tokens that each model says
    #[arg(short = 'n', long, default_value_t = 24, value_name = "N", value_parser = positive())]
    pub(crate) max_tokens: u32,
    /// What the store calls it [default: a name made from what it is]
    #[arg(long, value_name = "NAME")]
    pub(crate) experiment: Option<String>,
    #[command(flatten)]
    pub(crate) to: ReportTo,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}
