//! The syntax of `sweep`, `search` and `merge`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::cli::args::{BosArgs, RunArgs, positive};
use crate::cli::bridges::BridgeArgs;
use crate::cli::store::args::StoreArgs;

/// Measure many corrupted models on many examples, sharing all that they have in common
#[derive(Args, Debug)]
#[command(after_help = "\
Plans that begin alike share their passes as far as they do, and are scored together: the cost is printed first, and a \
result is bit for bit that of a pass of its own. Results are kept in a store (`lesion store --help`): what any sweep or loss has \
computed is not computed again, and a sweep that was interrupted goes on when the same command is given again.

Families: NAME [i..j] [xRANGE] [wRANGE] [seeds RANGE]; ranges are n, n..m or n..=m
  keep-first · drop-last · drop-first · skip-one · skip-pairs · skip-window [wR] · swap-adjacent · swap-any · move
  repeat-one xR · repeat-window [wR] · reverse-window [wR] · shuffle-window seeds R · parallel [wR]
  looped-parallel xR [wR] · middle-repeat [wR] · delete K seeds R · subsets · permutations i..j
  zero-head · skip-attention · skip-mlp
i..j is the window of layers that vary (all of them); xR how often something runs in all; wR the layers of inner windows.

With --json: an object for each plan and example (losses are sums over the answer's tokens, in nats), and a last one with \
the summary. Intervals are 95 % bootstraps over examples, paired for differences.

Examples:
  lesion sweep --family keep-first --task '1-digit addition'
  lesion sweep --family skip-one --tasks bundled --limit 10
  lesion sweep --family skip-one --pairs questions.jsonl --plot
  lesion sweep --family drop-last --task elections --complete 2 --experiment drops
  lesion sweep --family 'repeat-one x2..8' --tasks tasks.json
  lesion sweep --family subsets --pairs questions.jsonl --top 10
  lesion sweep --family swap-any --text story.txt --json
  lesion sweep --plan 0..8 --plan 'skip 5' --plans plans.txt --pairs questions.jsonl --csv
  lesion sweep --family keep-first --tasks tasks.json --experiment truncations
  lesion sweep --family subsets --tasks tasks.json --shard 0/4 --json -o 0.jsonl")]
pub(crate) struct Sweep {
    #[command(flatten)]
    pub(crate) plans: SweptPlans,
    #[command(flatten)]
    pub(crate) examples: ExampleArgs,
    /// Do without the divergences from the intact model
    #[arg(long)]
    pub(crate) no_kl: bool,
    /// Give the loss of every token, too (with --json)
    #[arg(long, requires = "json", conflicts_with = "csv")]
    pub(crate) tokens: bool,
    /// Only the part I of N of the examples; `lesion merge` puts parts together
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// The seed of the intervals' resamples
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// What the store calls this sweep [default: a name made from what it is]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["no_store", "results"])]
    pub(crate) experiment: Option<String>,
    /// Keep the results in a file of rows instead of the store, and go on from it: for parts that run on other machines
    #[arg(long, value_name = "FILE", conflicts_with_all = ["store", "no_store"])]
    pub(crate) results: Option<PathBuf>,
    /// The order of the table
    #[arg(long, value_enum, default_value_t = Order::Loss, value_name = "ORDER")]
    pub(crate) sort: Order,
    /// Plans that the table shows; 0 shows all
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub(crate) top: u32,
    /// Draw figures in place of the tables
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    pub(crate) plot: bool,
    /// Let every plan continue the first N prompts of each task, too: the store keeps it, and `lesion report` shows it
    #[arg(long, value_name = "N", value_parser = positive(), conflicts_with_all = ["no_store", "results"])]
    pub(crate) complete: Option<u32>,
    /// Tokens of each of these completions
    #[arg(short = 'n', long, default_value_t = 24, value_name = "N", value_parser = positive(), requires = "complete")]
    pub(crate) max_tokens: u32,
    /// Print CSV, a line for each plan and example
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Find the smallest sets of layers that a capability needs, or that break it
#[derive(Args, Debug)]
#[command(after_help = "\
A set of layers qualifies if the model of these layers alone, in their order, still does what --keep or --within asks; with \
--break, if the model without them no longer does. The exact search looks at all subsets (up to 16 layers) and lists the \
smallest qualifying sets and all that are minimal under inclusion. `greedy`, `beam` and `bisect` find upper bounds, for models \
of more layers.

Examples:
  lesion search --task 'gendered pronouns' --keep 0.9
  lesion search --pairs questions.jsonl --keep 0.9
  lesion search --tasks tasks.json --task capitals --within 0.5
  lesion search --pairs questions.jsonl --keep 0.9 --break
  lesion search --pairs questions.jsonl --keep 0.9 --method beam --beam 4 --json")]
pub(crate) struct Search {
    #[command(flatten)]
    pub(crate) examples: ExampleArgs,
    /// This share of the intact model's accuracy at least
    #[arg(allow_negative_numbers = true, long, value_name = "SHARE", conflicts_with = "within", required_unless_present = "within", value_parser = share)]
    pub(crate) keep: Option<f64>,
    /// A loss of so many nats per token more at most
    #[arg(allow_negative_numbers = true, long, value_name = "NATS", value_parser = nats)]
    pub(crate) within: Option<f64>,
    /// Look for sets whose removal breaks the capability
    #[arg(long = "break")]
    pub(crate) breaking: bool,
    /// How sets are looked for [default: exact up to 12 layers, else beam]
    #[arg(long, value_enum, value_name = "METHOD")]
    pub(crate) method: Option<MethodArg>,
    /// Sets that a beam goes on from
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = positive())]
    pub(crate) beam: u32,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// Sets that are shown of each kind; 0 shows all
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) top: u32,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Put the JSON results of a sweep's shards together: the rows that one machine would have printed
#[derive(Args, Debug)]
#[command(after_help = "\
The shards must be all there, of the same sweep, and computed with the same instruction set and precision. The rows are those of \
the whole sweep, byte for byte; the last object sums up what the shards took.

Examples:
  lesion merge shard-0.jsonl shard-1.jsonl --output all.jsonl")]
pub(crate) struct Merge {
    /// What `lesion sweep --shard I/N --json` wrote, in any order
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output file if it exists
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}

#[derive(Args, Debug, Default)]
pub(crate) struct SweptPlans {
    /// A family of plans; may be given several times
    #[arg(long, value_name = "FAMILY")]
    pub(crate) family: Vec<String>,
    /// A plan (see `lesion plan --help`); may be given several times
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan: Vec<String>,
    /// A file of plans, one a line, as text or JSON; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) plans: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) bridges: BridgeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ExampleArgs {
    /// A file of tasks: JSON with names and examples of prompt and answer; `-` reads stdin, `bundled` stands for all bundled
    /// tasks (see `lesion tasks --help`)
    #[arg(long, value_name = "FILE")]
    pub(crate) tasks: Vec<PathBuf>,
    /// A file of pairs: JSON lines with prompt and answer, or with the documents of lm-evaluation-harness; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) pairs: Vec<PathBuf>,
    /// A text, all tokens of which are scored; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Vec<PathBuf>,
    /// Only the tasks of this name; without a file it is the name of a bundled one; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) task: Vec<String>,
    /// The first N examples of each task or text
    #[arg(long, value_name = "N", value_parser = positive())]
    pub(crate) limit: Option<u32>,
    /// Tokens in a window over a text [default: the context]
    #[arg(long, value_name = "TOKENS", value_parser = positive(), requires = "text")]
    pub(crate) window: Option<u32>,
    /// Tokens from one window to the next [default: half a window]
    #[arg(long, value_name = "TOKENS", value_parser = positive(), requires = "text")]
    pub(crate) stride: Option<u32>,
    #[command(flatten)]
    pub(crate) bos: BosArgs,
}

impl ExampleArgs {
    /// None: tasks come from elsewhere.
    pub(crate) fn none() -> ExampleArgs {
        ExampleArgs {
            tasks: Vec::new(),
            pairs: Vec::new(),
            text: Vec::new(),
            task: Vec::new(),
            limit: None,
            window: None,
            stride: None,
            bos: BosArgs { bos: true, no_bos: false },
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct MemoryArgs {
    /// Memory for states, batches and results, as 512MB or 4GiB; the weights are not counted [default: a quarter of the
    /// machine's]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<MemorySize>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// By loss, the best first
    Loss,
    /// As the plans were given
    Plan,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MethodArg {
    Exact,
    Greedy,
    Beam,
    Bisect,
}

/// Part `index` of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) index: u64,
    pub(crate) count: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parts = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((index, count)) if index < count => Ok(Shard { index, count }),
            _ => Err("expected I/N with I from 0 and below N, as 0/4".to_owned()),
        }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemorySize(pub(crate) usize);

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<MemorySize, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: usize = match unit {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err("expected a number and B, kB, MB, GB, KiB, MiB or GiB, as 512MB".to_owned()),
        };
        let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
        bytes.map(MemorySize).ok_or_else(|| "not a number of bytes".to_owned())
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("expected a share above 0, 1 at most".to_owned()),
    }
}

fn nats(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(nats) if nats >= 0.0 && nats.is_finite() => Ok(nats),
        _ => Err("expected a number of nats, 0 or more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("64MB", 64_000_000), ("1GiB", 1 << 30), ("0B", 0), ("12kB", 12_000)] {
            assert_eq!(text.parse(), Ok(MemorySize(bytes)), "{text}");
        }
        for text in ["", "MB", "-1MB", "1.5GB", "12", "1TB", "99999999999999999999GB", "20000000000GiB"] {
            assert!(text.parse::<MemorySize>().is_err(), "{text}");
        }
    }

    #[test]
    fn shards() {
        assert_eq!("0/1".parse(), Ok(Shard { index: 0, count: 1 }));
        for text in ["", "1", "1/1", "4/3", "-1/3", "0/0", "a/b", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_and_nats() {
        assert_eq!((share("0.9"), nats("0")), (Ok(0.9), Ok(0.0)));
        for text in ["0", "1.1", "-1", "NaN", "1e400", "x"] {
            assert!(share(text).is_err(), "{text}");
        }
        assert!(nats("-1").is_err() && nats("NaN").is_err() && nats("1e400").is_err());
    }
}
