//! What `bridge` may be asked.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::cli::args::{BosArgs, EngineArgs, ModelArgs, positive};
use crate::cli::sweep::args::{ExampleArgs, MemorySize};

/// Fit linear shortcuts between layers, and judge them: files for `bridge(6:11,NAME)` in plans
#[derive(Args, Debug)]
pub(crate) struct Bridge {
    #[command(subcommand)]
    pub(crate) command: BridgeCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BridgeCommand {
    Fit(Box<Fit>),
    Tune(Box<Tune>),
    Eval(Box<Eval>),
    Show(Show),
}

/// Fit maps by ridge regression: from the state at the input of one layer to that of another
#[derive(Args, Debug)]
#[command(after_help = "\
A map 6:11 makes the plan 0..6,bridge(6:11,NAME),11 complete: layers 6 to 10 are replaced by h A + b. It is the least-squares \
solution with the penalty L T v |A|^2, L being --ridge, T the rows and v the mean variance of an element of the state. \
On the text that is held out, each map stands beside A = I, the plan 0..6,11: r2 of the state (1 - the squared error over the squared \
deviation from the mean, without the first token of each sequence), the share of places whose likeliest token is the intact \
model's (precision@1), or has it among its ten likeliest, KL(intact || plan) and the loss in nats. A text is cut into windows that don't overlap; \
of its windows, or of the examples of tasks, every n-th is held out. With --json: an object for each map.

Examples:
  lesion bridge fit --text story.txt --pairs 6:11 --held-out 0 --output fit.st
  lesion bridge fit --task antonyms --pairs 6:11,0:12 -o fit.safetensors
  lesion bridge fit --task antonyms --to-end --json -o lens.safetensors")]
pub(crate) struct Fit {
    #[command(flatten)]
    pub(crate) text: TextArgs,
    /// The maps: layers I:J, separated by commas; J may be the number of layers, which is the final state
    #[arg(long, value_name = "I:J", value_delimiter = ',', required_unless_present = "to_end")]
    pub(crate) pairs: Vec<Pair>,
    /// From each layer to the final state, too
    #[arg(long)]
    pub(crate) to_end: bool,
    /// The penalty, as a share of the mean variance of a state's elements
    #[arg(long, default_value_t = 1e-3, value_name = "L", allow_negative_numbers = true)]
    pub(crate) ridge: f64,
    #[command(flatten)]
    pub(crate) to: ToArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Tune a lens: affine maps from each layer to the final state, by the divergence of what is read there
#[derive(Args, Debug)]
#[command(after_help = "\
The tuned lens (Belrose et al. 2023): maps l:L that minimise KL(what the model says || what is read behind the map), by Adam \
from the identity, the rate falling to 0. The file is one of bridges: 0..6,bridge(6:12,NAME) is what the model knows at layer \
6, and `lesion lens --tuned FILE` reads every state through it. The same seed gives the same maps, on any number of threads. \
The table is that of `lesion bridge fit`.

Examples:
  lesion bridge tune --task antonyms --steps 5 -o tuned.safetensors")]
pub(crate) struct Tune {
    #[command(flatten)]
    pub(crate) text: TextArgs,
    /// Steps of the optimiser
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = positive())]
    pub(crate) steps: u32,
    /// Places of the text in a step, at least
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = positive())]
    pub(crate) rows: u32,
    /// The rate of the first step
    #[arg(long, default_value_t = 2e-3, value_name = "RATE", allow_negative_numbers = true)]
    pub(crate) rate: f64,
    /// The order of the text
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) to: ToArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Judge the maps of a file on a text: the table of `fit`, all of the text counting
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lesion bridge fit --task antonyms --pairs 6:11 -o fit.safetensors
  lesion bridge eval fit.safetensors --task elections")]
pub(crate) struct Eval {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    /// Print one JSON object for each map
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Show what a file of bridges holds
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print one JSON object for each map
    #[arg(long)]
    pub(crate) json: bool,
}

/// What maps are fitted to.
#[derive(Args, Debug)]
pub(crate) struct TextArgs {
    /// A text; `-` reads stdin; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Vec<PathBuf>,
    /// A file of tasks, whose prompts and answers are the text; `bundled` stands for all bundled tasks
    #[arg(long, value_name = "FILE")]
    pub(crate) tasks: Vec<PathBuf>,
    /// Only the tasks of this name; without a file it is the name of a bundled one; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Vec<String>,
    /// The first N windows or examples of each text or task
    #[arg(long, value_name = "N", value_parser = positive())]
    pub(crate) limit: Option<u32>,
    /// Tokens in a window over a text [default: the context]
    #[arg(long, value_name = "TOKENS", value_parser = positive(), requires = "text")]
    pub(crate) window: Option<u32>,
    #[command(flatten)]
    pub(crate) bos: BosArgs,
    /// Memory that the fit may take, as 512MB or 4GiB [default: a quarter of the machine's]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<MemorySize>,
}

impl TextArgs {
    /// As sweeps take them: windows that don't overlap but for the token that each begins with.
    pub(crate) fn examples(&self, n_positions: usize) -> ExampleArgs {
        let window = self.window.unwrap_or(u32::try_from(n_positions).unwrap_or(u32::MAX));
        ExampleArgs {
            tasks: self.tasks.clone(),
            pairs: Vec::new(),
            text: self.text.clone(),
            task: self.task.clone(),
            limit: self.limit,
            window: Some(window),
            stride: Some(window.saturating_sub(1)),
            bos: BosArgs { bos: self.bos.bos, no_bos: self.bos.no_bos },
        }
    }
}

/// Where maps go, and how they are judged.
#[derive(Args, Debug)]
pub(crate) struct ToArgs {
    /// The share of the text that is held out to judge the maps; 0 judges nothing
    #[arg(long, default_value_t = 0.2, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    pub(crate) held_out: f64,
    /// The file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one JSON object for each map
    #[arg(long)]
    pub(crate) json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..1.0).contains(share)).ok_or_else(|| "0 or more, and less than 1".to_owned())
}

/// The layers that a map leads from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair(pub(crate) usize, pub(crate) usize);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Pair, String> {
        let number = |text: &str| if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None };
        let pair = text.split_once(':').and_then(|(from, to)| Some(Pair(number(from)?, number(to)?)));
        pair.filter(|Pair(from, to)| from <= to).ok_or_else(|| "expected layers I:J, I ≤ J, as in 6:11".to_owned())
    }
}
