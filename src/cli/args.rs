//! The syntax of the command line: what may be written, its help and its examples. Nothing here opens a file or looks
//! at the machine; `resolve` gives the values a meaning.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lesion::weights::ReadMode;
use lesion_kernels::Team;

use super::bridge::args::Bridge;
use super::bridges::BridgeArgs;
use super::inside::args::{Patch, Trace};
use super::look::args::{Attention, Attribute, Cache, Lens, Similar, Tokens};
use super::references::ReferenceArgs;
use super::report::args::{Report, Study};
use super::store::args::{Store, StoreArgs};
use super::sweep::args::{Merge, Search, Sweep};
use super::tasks::args::Tasks;

/// Run GPT-2 with its layers skipped, repeated, re-ordered or averaged, and measure what breaks
#[derive(Parser, Debug)]
#[command(name = "lesion", version = VERSION, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 a comparison failed, 2 usage, 3 bad file, 4 something is missing (GPU, disk, network), 130 interrupted.
Data goes to stdout, everything else to stderr. Plans hold characters that shells read: quote * ( | ; [.

Start here:
  lesion complete --plan 0..8 'The capital of Spain is'
  lesion plan --help";

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Complete(Complete),
    Loss(Loss),
    Tokens(Tokens),
    Lens(Lens),
    Attribute(Attribute),
    Attention(Attention),
    #[command(name = "similarity")]
    Similar(Similar),
    Patch(Box<Patch>),
    Trace(Box<Trace>),
    Cache(Cache),
    Bridge(Bridge),
    Sweep(Box<Sweep>),
    Search(Box<Search>),
    Merge(Merge),
    Store(Store),
    Report(Report),
    Study(Study),
    Tasks(Tasks),
    Chat(Chat),
    Plan(PlanCommand),
    Models(Models),
    Bench(Bench),
    Doctor(Doctor),
    Verify(Verify),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page: the command's own, or a subcommand's
    #[command(hide = true)]
    Man {
        /// A subcommand, such as `complete`
        subcommand: Option<String>,
    },
}

/// Let the model speak: continue a prompt, greedily unless told otherwise
#[derive(Args, Debug)]
#[command(after_help = "\
The completion alone goes to stdout, as it is made; with several plans, a block for each, the intact model's first. \
The summary on stderr gives the loss of the prompt beside the uniform baseline ln V. Ids in means ids out: with --ids \
the tokenizer is not read, the completion is printed as ids, and there are no stop texts.

Examples:
  lesion complete 'The capital of Spain is'
  lesion complete --plan 0..8 'The capital of Spain is'
  lesion complete --plan 'drop-last 4' --plan '11..=0' 'The capital of Spain is'
  lesion complete --plan '0..4,(4|5|6|7),8..12' -n 8 'The capital of Spain is'
  lesion complete --plan '0..7,7[zero h3],8..12' --temperature 0.8 'One day,'
  printf 'The capital of Spain is' | lesion complete --json -
  lesion complete --ids 0,275,325,303,1216,292 --json
  lesion complete --model gpt2 --plan 'repeat 3 x4' 'The capital of Spain is'")]
pub(crate) struct Complete {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Measure the loss of a text, or of an answer after a prompt
#[derive(Args, Debug)]
#[command(after_help = "\
Losses are -ln p of each token given those before it, in nats. With BOS the first token of the text is predicted too. \
A text longer than the model's context is scored in overlapping windows; the output says how.

Examples:
  lesion loss 'The capital of Spain is Madrid.'
  lesion loss --plan 0..8 --plan 'skip 5' 'The capital of Spain is Madrid.'
  lesion loss --plan 'drop-last 4' --answer ' Madrid' 'The capital of Spain is'
  lesion loss --plot --plan 0..10 --plan 0..8 'The capital of Spain is Madrid.'
  printf 'The capital of Spain is Madrid.' | lesion loss --tokens -
  lesion loss --json --plan 'swap 3 7' --ids 0,275,325,303,1216,292
  lesion loss --precision f64 --tokens 'The capital of Spain is Madrid.'
  lesion loss --model gpt2 --file story.txt --stride 256")]
pub(crate) struct Loss {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Score the text of a file; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "ids"])]
    pub(crate) file: Vec<PathBuf>,
    /// Score this answer after the prompt, exactly as written: mind its leading space
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["ids", "file"])]
    pub(crate) answer: Option<String>,
    /// How an answer is scored: `seed-compat` keeps only the last token of `BOS prompt BOS " "+answer`, as the
    /// recorded runs that `lesion verify` replays did
    #[arg(long, value_enum, default_value_t = Measure::Default, value_name = "MEASURE")]
    pub(crate) measure: Measure,
    /// Tokens in a window over a text longer than the context [default: the context]
    #[arg(long, conflicts_with = "answer", value_name = "TOKENS", value_parser = positive())]
    pub(crate) window: Option<u32>,
    /// Tokens between the starts of two windows [default: half a window]
    #[arg(long, conflicts_with = "answer", value_name = "TOKENS", value_parser = positive())]
    pub(crate) stride: Option<u32>,
    /// Show the loss of every token
    #[arg(long)]
    pub(crate) tokens: bool,
    /// Draw the losses beside the table
    #[arg(long, conflicts_with = "json")]
    pub(crate) plot: bool,
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Speak with the model, changing its layers between turns
#[derive(Args, Debug)]
#[command(after_help = "\
Every line is a prompt, continued on its own. `:plan skip 5` changes the model, `:diff` shows the last prompt continued \
by the intact and the corrupted model side by side, `:help` lists the rest. Lines may come from a pipe; there a \
`:plan` that fails ends the conversation, exit code 2.

Examples:
  printf 'The capital of Spain is\\n:plan skip 5\\n:diff\\n' | lesion chat
  printf ':plan 11..=0\\nThe capital of Spain is\\n' | lesion chat --json")]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) bos: BosArgs,
    /// The plan to begin with [default: the intact model]
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan: Option<String>,
    #[command(flatten)]
    pub(crate) bridges: BridgeArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Print each turn as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Explain a plan: its canonical form, a picture of the order, its cost
#[derive(Args, Debug)]
#[command(after_help = "\
Layers count from 0 and ranges are half-open:
  0..12 intact · 0..8 without the last four · 0..5,6..12 without layer 5 · '0..3,3*4,4..12' layer 3 four times
  11..=0 reversed · 7a and 7m the attention and MLP halves · '7[zero h3 h5]' two heads zeroed · none no layer at all
  '0..4,(4|5|6|7),8..12' the middle side by side, its updates averaged · '0..4,par(4..8)*3,8..12' the same, looped
  '0..6,bridge(6:11,fit),11' layers 6 to 10 replaced by a linear map (see `lesion bridge fit --help`)
or edits of the intact order, left to right, between semicolons:
  keep-first n · drop-last n · drop-first n · skip i · skip i..j · swap i j · move i j · repeat i xN · reverse i..j
  shuffle i..j seed S
In brackets stands what changes inside, in the order of the sites whatever the order in the text:
  zero SITE · mean SITE from NAME · patch SITE from NAME · noise σ [seed S] SITE · steer TIMES SITE from NAME
  knockout [HEADS] keys i..j (queries no longer see these keys; one that sees none is NaN)
  behind each @i or @i..j: only at these positions
  sites: pre · ln1 · q · k · v · pattern · z, or heads alone (h3 h5) · attn · mid · ln2 · neurons, or some (n17) · mlp · post;
  q, k, v, pattern and z may name heads (q h3); a pattern and the scales ln1 and ln2 can be patched only: they are frozen

Examples:
  lesion plan 'drop-last 4'
  lesion plan '0..5,5[zero h1 h2 @2..5,noise 0.1 mlp],6..12'
  lesion plan '0..4,(4|5|6|7),8..12'
  lesion plan 'skip 5; swap 2 3' 'repeat 3 x4'
  lesion plan --json '0..7,7[zero h3 h5],8..12'
  lesion plan --layers 48 --heads 25 'shuffle 4..40 seed 1'")]
pub(crate) struct PlanCommand {
    /// Plans
    #[arg(required = true, value_name = "PLAN")]
    pub(crate) plans: Vec<String>,
    /// Layers to resolve against, instead of a model's
    #[arg(long, value_name = "N", requires = "heads", conflicts_with = "model", value_parser = positive())]
    pub(crate) layers: Option<u32>,
    /// Heads of each layer, with --layers
    #[arg(long, value_name = "N", requires = "layers", value_parser = positive())]
    pub(crate) heads: Option<u32>,
    /// Whose layers and heads: `mini`, a name of weights.lock that is in the cache, or a directory
    #[arg(short, long, default_value = "mini", value_name = "NAME|DIR")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Models: which are pinned, where they are, fetch and verify them
#[derive(Args, Debug)]
pub(crate) struct Models {
    #[command(subcommand)]
    pub(crate) command: ModelsCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ModelsCommand {
    /// List the embedded model and those of weights.lock, and whether they are in the cache
    #[command(after_help = "Examples:\n  lesion models list\n  lesion models list --json")]
    List {
        #[command(flatten)]
        lock: LockArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Download a pinned model into the Hugging Face cache and verify it
    #[command(after_help = "Examples:\n  lesion models fetch gpt2")]
    Fetch {
        /// A model of weights.lock
        name: String,
        #[command(flatten)]
        lock: LockArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Pin a repository: print its entry for weights.lock, or add it to a lock file
    #[command(after_help = "Examples:\n  lesion models lock distilbert/distilgpt2 --output my.lock")]
    Lock {
        /// The repository, as owner/name
        repository: String,
        /// The name it gets [default: the repository's last part]
        #[arg(long)]
        name: Option<String>,
        /// A branch, tag or commit to pin
        #[arg(long, default_value = "main")]
        revision: String,
        /// The lock file to write: an existing one gains the entry
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace an entry of the same name
        #[arg(long, requires = "output")]
        force: bool,
        /// Print JSON: the entry as one object; a lock file is TOML all the same
        #[arg(long)]
        json: bool,
    },
    /// Hash the files of a cached model again and compare them with weights.lock
    #[command(after_help = "Examples:\n  lesion models verify gpt2")]
    Verify {
        /// A model of weights.lock
        name: String,
        #[command(flatten)]
        lock: LockArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print where the cache is
    #[command(after_help = "Examples:\n  lesion models path")]
    Path {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write a model of GPT-2's shape with made-up weights, for measuring speed without a download
    #[command(after_help = "\
Examples:
  lesion models synthesize --out synthetic --layers 1 --dtype f16")]
    Synthesize {
        /// The directory to write; must not exist
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Its number of layers
        #[arg(long, default_value_t = 12, value_name = "N", value_parser = positive())]
        layers: u32,
        /// The type of its weights
        #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
        dtype: DtypeArg,
        /// Print what was written as one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Measure speed: tokens per second, beside what this machine could do at most
#[derive(Args, Debug)]
#[command(after_help = "\
Prefill runs every sequence up to the logits of its last token, loss scores every token, decode goes on token by token. \
FLOP are the multiply-adds of the matrix products; bytes are weights, keys and values, each from memory once a pass. The \
peaks are measured here and now, between the rounds: f32 FMAs and products of bf16 on registers, the best of the \
instruction sets, and a streaming read. FLOP/s are a share of the precision's own peak; f64 has no kernels to measure.

Examples:
  lesion bench
  lesion bench --plan 0..6 --prompt-tokens 16 --decode 64
  lesion bench --model gpt2 --prompt-tokens 1024 --decode 0 --repeats 11
  lesion bench --batch 8 --prompt-tokens 128 --json
  lesion bench --precision bf16 --decode 0")]
pub(crate) struct Bench {
    /// The plan to run (see `lesion plan --help`) [default: the intact model]
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan: Option<String>,
    /// Tokens of each prompt [default: half the context]
    #[arg(long, value_name = "N", value_parser = positive())]
    pub(crate) prompt_tokens: Option<u32>,
    /// Tokens to decode behind one prompt; 0 leaves decoding out [default: 32, a quarter of the context at most]
    #[arg(long, value_name = "N")]
    pub(crate) decode: Option<u32>,
    /// Prompts that run together
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = positive())]
    pub(crate) batch: u32,
    /// Rounds
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = positive())]
    pub(crate) repeats: u32,
    #[command(flatten)]
    pub(crate) bridges: BridgeArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Show what this machine offers: instruction sets, threads, cache, CUDA
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  lesion doctor\n  lesion doctor --json")]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Compare this build with the recorded references; exit 1 on a mismatch, 4 where nothing could be compared
#[derive(Args, Debug)]
#[command(after_help = "\
The embedded model is compared with float64 values of Hugging Face transformers, for ten layer orders. GPT-2 itself, \
where its weights are in the cache or can be fetched, is compared with 176 recorded runs and with published values; \
where they are not, the table says `not checked`. The gates are those of f32; f64 passes them by far.

Examples:
  lesion verify --only mini
  lesion verify --only mini --isa portable --json
  lesion verify --only gpt2 --gpt2 ./gpt2")]
pub(crate) struct Verify {
    /// Only these references
    #[arg(long, value_enum, value_name = "WHICH")]
    pub(crate) only: Option<VerifyOnly>,
    /// Where GPT-2's own weights are: a name of weights.lock, or a directory
    #[arg(long, default_value = "gpt2", value_name = "NAME|DIR")]
    pub(crate) gpt2: PathBuf,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
#[group(id = "input", required = false, multiple = false)]
pub(crate) struct PromptText {
    /// The text; `-` reads it from stdin, byte for byte
    #[arg(value_name = "TEXT", allow_hyphen_values = false)]
    pub(crate) prompt: Option<String>,
    /// Token ids, taken as they are: no BOS is added
    #[arg(allow_negative_numbers = true, long, value_name = "ID,ID,…", value_delimiter = ',', conflicts_with_all = ["bos", "no_bos"])]
    pub(crate) ids: Option<Vec<u32>>,
}

#[derive(Args, Debug)]
pub(crate) struct PromptArgs {
    #[command(flatten)]
    pub(crate) text: PromptText,
    #[command(flatten)]
    pub(crate) bos: BosArgs,
}

#[derive(Args, Debug)]
pub(crate) struct BosArgs {
    /// Put the BOS token before the text (the default; an error where the model has none)
    #[arg(long, overrides_with = "no_bos")]
    pub(crate) bos: bool,
    /// Put no BOS token before the text
    #[arg(long)]
    pub(crate) no_bos: bool,
}

impl BosArgs {
    pub(crate) fn wanted(&self) -> bool {
        !self.no_bos
    }
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// Which layers run, in which order (see `lesion plan --help`); several give several columns, the intact model
    /// first [default: the intact model]
    #[arg(long, value_name = "PLAN")]
    pub(crate) plan: Vec<String>,
    #[command(flatten)]
    pub(crate) bridges: BridgeArgs,
}

#[derive(Args, Debug, Clone)]
pub(crate) struct SamplingArgs {
    /// Tokens to add at most
    #[arg(allow_negative_numbers = true, short = 'n', long, default_value_t = 20, value_name = "N", value_parser = positive())]
    pub(crate) max_tokens: u32,
    /// 0 takes the likeliest token; above it, tokens are drawn from softmax(logits / T)
    #[arg(allow_negative_numbers = true, long, default_value_t = 0.0, value_name = "T")]
    pub(crate) temperature: f64,
    /// Draw from the K likeliest tokens
    #[arg(allow_negative_numbers = true, long, value_name = "K", value_parser = positive())]
    pub(crate) top_k: Option<u32>,
    /// Draw from the likeliest tokens that hold this share of the probability
    #[arg(allow_negative_numbers = true, long, value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// The seed of the draws
    #[arg(allow_negative_numbers = true, long, default_value_t = 0, value_name = "SEED")]
    pub(crate) seed: u64,
    /// Stop before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Stop after the end-of-text token too: what a corrupted model says behind it is data
    #[arg(long)]
    pub(crate) stop_at_end_of_text: bool,
    /// Compute every token from the whole text again, without cached keys and values
    #[arg(long)]
    pub(crate) no_cache: bool,
}

#[derive(Args, Debug, Clone)]
pub(crate) struct LockArgs {
    /// The lock file that pins models [default: the one built in]
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ModelArgs {
    /// `mini` (the embedded model), a name of weights.lock, or a directory. A pinned name wins over a directory of
    /// that name: `./gpt2` means the directory
    #[arg(short, long, default_value = "mini", value_name = "NAME|DIR")]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// Read the weights into memory instead of mapping the file
    #[arg(long)]
    pub(crate) no_mmap: bool,
    /// Hash a pinned model's files again before use
    #[arg(long)]
    pub(crate) verify: bool,
    /// Refuse weights that hold NaN or infinity
    #[arg(long)]
    pub(crate) require_finite: bool,
}

impl ModelArgs {
    pub(crate) fn read(&self) -> ReadMode {
        if self.no_mmap { ReadMode::Copy } else { ReadMode::Map }
    }
}

#[derive(Args, Debug)]
pub(crate) struct EngineArgs {
    /// Threads, 1 to 1024 [default: the processors available]
    #[arg(allow_negative_numbers = true, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=Team::MAX_THREADS as i64))]
    pub(crate) threads: Option<u32>,
    /// The instruction set of the kernels [default: the widest there is]
    #[arg(long, value_enum, env = "LESION_ISA", value_name = "ISA")]
    pub(crate) isa: Option<IsaArg>,
    /// The arithmetic: `bf16` rounds the operands of matrix products, `f64` settles arguments, slowly and without an
    /// instruction set to choose
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32, value_name = "PRECISION")]
    pub(crate) precision: PrecisionArg,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    pub(crate) device: Device,
}

/// What every command that runs plans on texts takes.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) references: ReferenceArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct OutputArgs {
    /// Print JSON, one object per line
    #[arg(long)]
    pub(crate) json: bool,
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the output file if it exists
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IsaArg {
    Avx512,
    Avx2,
    Neon,
    Portable,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrecisionArg {
    F32,
    Bf16,
    F64,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    Cpu,
    Cuda,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Default,
    SeedCompat,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerifyOnly {
    Mini,
    Gpt2,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DtypeArg {
    F32,
    F16,
    Bf16,
}

pub(crate) fn positive() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// Version and features, as `--version` prints them.
const VERSION: &str = if cfg!(feature = "hub") {
    concat!(env!("CARGO_PKG_VERSION"), " (mini, hub, store)")
} else {
    concat!(env!("CARGO_PKG_VERSION"), " (mini, store)")
};

#[cfg(test)]
mod tests;
