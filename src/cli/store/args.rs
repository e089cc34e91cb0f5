//! The syntax of `store`, and of the flags by which other commands name one.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lesion::store::NoteKind;

use crate::cli::args::{EngineArgs, LockArgs, OutputArgs};

/// Where a command keeps what it measures.
#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    /// Keep results in this store, and take from it what is there [default: lesion/store.db in the user's data folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// Keep nothing, and compute everything now
    #[arg(long, conflicts_with = "store")]
    pub(crate) no_store: bool,
}

/// Results that are kept: list, query, compare, annotate, check and export them
#[derive(Args, Debug)]
#[command(after_help = "\
`sweep`, `search`, `patch`, `trace`, `loss` and `complete` keep what they measure in one SQLite file: \
$XDG_DATA_HOME/lesion/store.db, or ~/.local/share/lesion/store.db (`chat`, seed-compat losses, and completions with --reference \
keep nothing). A run is kept under the hash of all that decides it (weights, tokenizer, arithmetic, tokens, plan), \
and is computed once. Results of a sweep make an experiment, which has a name.

Examples:
  lesion store ls
  lesion store show truncations
  lesion store query --where task=capitals --group-by plan --select loss,correct
  lesion store export rows.parquet")]
pub(crate) struct Store {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum StoreCommand {
    Ls(Ls),
    Show(Show),
    Query(Query),
    Sql(Sql),
    Diff(Diff),
    Note(Note),
    Notes(Notes),
    Tag(Tag),
    Verify(Verify),
    Export(Export),
    Gc(Gc),
}

/// The store that is meant.
#[derive(Args, Debug)]
pub(crate) struct At {
    /// The store [default: lesion/store.db in the user's data folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
}

/// List the experiments, the newest first
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  lesion store ls\n  lesion store ls --tag seed --json")]
pub(crate) struct Ls {
    /// Only those with this tag
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Show an experiment, or a run by its key
#[derive(Args, Debug)]
#[command(after_help = "\
The beginning of a name is enough where only one begins so, and six digits of a key.

Examples:
  lesion store show truncations
  lesion store show 3f9c1a --json")]
pub(crate) struct Show {
    /// The experiment's name, or the run's key
    #[arg(value_name = "NAME|KEY")]
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Which results are meant.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Only results of this experiment
    #[arg(long, value_name = "NAME")]
    pub(crate) experiment: Option<String>,
    /// Only results for which this holds: FIELD and = != < <= > >= or, in texts, ~ (contains) and !~; all must hold
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    pub(crate) conditions: Vec<String>,
    /// Group by these fields
    #[arg(long, value_name = "FIELD,…")]
    pub(crate) group_by: Vec<String>,
    /// Show these fields; in groups the mean of a number, and of a text how many there are where there are several.
    /// mean(FIELD), min(…), max(…), sum(…) and count are possible, too
    #[arg(long, value_name = "FIELD,…")]
    pub(crate) select: Vec<String>,
    /// Sort by this column; with a minus before it the largest first
    #[arg(long, value_name = "[-]COLUMN", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
}

/// Filter and group results by any field
#[derive(Args, Debug)]
#[command(after_help = query_help())]
pub(crate) struct Query {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Lines at most; 0 shows all
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) limit: u64,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// The fields are the library's to name.
fn query_help() -> String {
    format!(
        "A line is a result and a task that its example is of. What is NaN in one line of a group is NaN in its mean. Means count \
         every line once; those of `sweep`, `store diff` and reports count tokens.\n\n\
         Fields:\n{}\n\
         Examples:\n  \
         lesion store query --experiment truncations --group-by task,plan --sort loss\n  \
         lesion store query --where 'loss>5' --select prompt,completion,loss,key\n  \
         lesion store query --where task=capitals --where 'correct=true' --csv\n  \
         lesion store query --group-by task --select 'min(blocks),count' --json\n",
        lesion::store::Query::fields()
    )
}

/// Answer SQL that only reads
#[derive(Args, Debug)]
#[command(after_help = "\
The view `rows` holds a line for each result and each task that its example is of. A measured number is a REAL and a class beside \
it: 0 for a finite number, 1 NaN (the REAL is NULL then), 2 inf, 3 -inf, 4 for -0.

Examples:
  lesion store sql 'SELECT plan, avg(loss), count(*) FROM rows GROUP BY plan'
  lesion store sql --json 'SELECT name, sql FROM sqlite_schema'")]
pub(crate) struct Sql {
    /// One statement
    #[arg(value_name = "SQL")]
    pub(crate) sql: String,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Compare two experiments, plan by plan, on the questions that both have
#[derive(Args, Debug)]
#[command(after_help = "\
Questions are the same if task, prompt and answer are, also where the models differ. Exit code 0 whatever the difference.

Examples:
  lesion store diff truncations rounded
  lesion store diff truncations rounded --json")]
pub(crate) struct Diff {
    /// An experiment
    pub(crate) first: String,
    /// Another
    pub(crate) second: String,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Write a note, which may cite experiments and runs, or remove one
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  lesion store note 'The last layers only sharpen.' --run 3f9c1a
  lesion store note 'Why layer 5?' --kind hypothesis --experiment truncations
  lesion store note --remove 1")]
pub(crate) struct Note {
    /// The text; `-` reads it from stdin
    #[arg(value_name = "TEXT", required_unless_present = "remove")]
    pub(crate) text: Option<String>,
    /// What it is: experiment, task, observation or hypothesis
    #[arg(long, default_value = "observation", value_name = "KIND")]
    pub(crate) kind: NoteKind,
    /// Cite this experiment; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) experiment: Vec<String>,
    /// Cite the run with this key; may be given several times
    #[arg(long, value_name = "KEY")]
    pub(crate) run: Vec<String>,
    /// Remove the note of this number instead
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["text", "experiment", "run"])]
    pub(crate) remove: Option<i64>,
    #[command(flatten)]
    pub(crate) at: At,
}

/// List notes
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  lesion store notes\n  lesion store notes truncations --json")]
pub(crate) struct Notes {
    /// Only those that cite this experiment, or a run of it
    #[arg(value_name = "EXPERIMENT")]
    pub(crate) experiment: Option<String>,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Give an experiment tags, or take them away
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  lesion store tag truncations seed figure-2\n  lesion store tag truncations seed --remove"
)]
pub(crate) struct Tag {
    /// The experiment
    pub(crate) experiment: String,
    /// Tags
    #[arg(required = true)]
    pub(crate) tags: Vec<String>,
    /// Take them away
    #[arg(long)]
    pub(crate) remove: bool,
    #[command(flatten)]
    pub(crate) at: At,
}

/// Compute results again and compare them with what is kept; exit 1 on a mismatch, 4 where nothing could be compared
#[derive(Args, Debug)]
#[command(after_help = "\
The file is checked first, then keys against what they stand for, then results against a new computation: bit for bit where \
instruction set, arithmetic and version of the numerics are those of the first time (an instruction set that this machine has is \
used for it), else within the gate of f32 (a mean loss to 1e-5, 99.9 % of the losses to 1e-4, the same classes of numbers) or bf16.

Examples:
  lesion store verify
  lesion store verify truncations --sample 1000
  lesion store verify --run 3f9c1a --json")]
pub(crate) struct Verify {
    /// Only results of this experiment
    #[arg(value_name = "EXPERIMENT")]
    pub(crate) experiment: Option<String>,
    /// The run with this key; may be given several times
    #[arg(long, value_name = "KEY", conflicts_with_all = ["experiment", "sample"])]
    pub(crate) run: Vec<String>,
    /// Results that are drawn; 0 takes all
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) sample: u64,
    /// The model, where it is not found as it was named
    #[arg(short, long, value_name = "NAME|DIR")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    /// Threads, instruction set; the precision is each result's own
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Write results to a file for other programs, or copy the whole store
#[derive(Args, Debug)]
#[command(after_help = "\
The file's ending says the format unless --format does: .parquet, .csv, .jsonl, or .db and .sqlite for a copy of the whole store.

Examples:
  lesion store export rows.parquet
  lesion store export capitals.csv --where task=capitals --select plan,loss
  lesion store export all.jsonl --experiment truncations
  lesion store export copy.db")]
pub(crate) struct Export {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its format
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<FormatArg>,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Replace the file if it exists
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormatArg {
    Parquet,
    Csv,
    Jsonl,
    Sqlite,
}

/// Delete what nothing refers to, and experiments that are named, and make the file small
#[derive(Args, Debug)]
#[command(after_help = "\
Results that were computed for an experiment go with it, unless another experiment has them or a note cites them. While a process \
that is of no experiment (`loss`, `complete`, `search`) may be running, what nothing refers to stays.

Examples:
  lesion store gc
  lesion store gc --experiment truncations --dry-run")]
pub(crate) struct Gc {
    /// Delete this experiment; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) experiment: Vec<String>,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) at: At,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
