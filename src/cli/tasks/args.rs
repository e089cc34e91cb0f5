//! The syntax of `tasks`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lesion::tasks::bundled;

use crate::cli::args::{EngineArgs, ModelArgs, OutputArgs, positive};

/// Tasks: the bundled ones, and files of them
#[derive(Args, Debug)]
#[command(after_help = "\
A task is a list of prompts with their answers. `--tasks FILE` and `--task NAME` of `lesion sweep` and `lesion search` run them. \
Where FILE|NAME can be given, a name stands for a bundled task and `bundled` for all of them; ./NAME is a file in any case.

A task file is JSON:
  {\"version\": 1, \"tasks\": [{\"name\": \"capitals\", \"description\": \"…\", \"join\": \" \",
    \"examples\": [{\"prompt\": \"The capital of Spain is\", \"answer\": \"Madrid\", \"alternatives\": [\"Rome\"],
                  \"corrupted_prompt\": \"The capital of Italy is\"}],
    \"eval_questions\": [\"Is it a city?\"]}]}
Only name, examples, prompt and answer are needed; a list of tasks alone is a file, too. JSON lines hold an example each, or a \
document of lm-evaluation-harness: query, question, context, ctx, input, text or doc_to_text; gold, answer, label, answerKey, \
target or doc_to_target; choices, endings or doc_to_choice.")]
pub(crate) struct Tasks {
    #[command(subcommand)]
    pub(crate) command: TasksCommand,
}

#[derive(Args, Debug)]
pub(crate) struct Generate {
    /// What there is: a file or bundled tasks, which the output begins with
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) like: PathBuf,
    /// New examples for each task
    #[arg(long, value_name = "N", value_parser = positive())]
    pub(crate) count: u32,
    /// New tasks, with as many examples each
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) new_tasks: u32,
    /// The task file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Replace the output file if it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// The server's address, up to and without /chat/completions
    #[arg(long, value_name = "URL", env = "OPENAI_BASE_URL", default_value = "https://api.openai.com/v1")]
    pub(crate) base_url: String,
    /// The model's name there
    #[arg(long, value_name = "NAME", env = "OPENAI_MODEL")]
    pub(crate) model_name: String,
    /// The environment variable that holds the key; where it is not set no key is sent
    #[arg(long, value_name = "NAME", default_value = "OPENAI_API_KEY")]
    pub(crate) key_env: String,
    /// Send no key
    #[arg(long)]
    pub(crate) no_key: bool,
    /// Examples that one request asks for at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = positive())]
    pub(crate) batch: u32,
    /// Seconds that one answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = positive())]
    pub(crate) timeout: u32,
    /// How often a request is repeated after passing trouble
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) retries: u32,
    /// Print a summary as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum TasksCommand {
    /// List the bundled tasks, what chance would score and what the embedded model does
    #[command(after_help = "Examples:\n  lesion tasks ls\n  lesion tasks ls --json")]
    Ls {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show tasks with their examples
    #[command(
        after_help = "Examples:\n  lesion tasks show '1-digit addition'\n  lesion tasks show 'indirect object' --limit 3 --json"
    )]
    Show {
        /// A bundled task, `bundled`, or a file; `-` reads stdin
        #[arg(value_name = "FILE|NAME")]
        tasks: PathBuf,
        /// The first N examples of each task
        #[arg(long, value_name = "N", value_parser = positive())]
        limit: Option<u32>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Check a file of tasks: errors end it (exit code 3), what is only odd is listed
    #[command(after_help = "\
Odd are: examples that are there twice, white space on both sides of a join, tokens that span prompt and answer, answers and \
alternatives of different numbers of tokens, corrupted prompts of another length, and what does not fit the model's context.

Examples:
  lesion tasks check bundled
  lesion tasks export --task 'JSON to close' | lesion tasks check -")]
    Check {
        /// A file; `-` reads stdin; `bundled` or a name for bundled tasks
        #[arg(value_name = "FILE|NAME")]
        tasks: PathBuf,
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write bundled tasks as a task file
    #[command(after_help = "\
A seed means the same everywhere: ChaCha8, a stream for each task. Seed 0 with 50 examples is the suite that `lesion tasks ls` \
shows scores of.

Examples:
  lesion tasks export --output tasks.json
  lesion tasks export --task wars --task elections --examples 12 --seed 7")]
    Export {
        /// Only this task; may be given several times
        #[arg(long, value_name = "NAME")]
        task: Vec<String>,
        /// Examples of each task
        #[arg(long, value_name = "N", default_value_t = bundled::EXAMPLES as u32, value_parser = positive())]
        examples: u32,
        /// The seed of the draws
        #[arg(long, value_name = "SEED", default_value_t = bundled::SEED)]
        seed: u64,
        /// Write to a file instead of stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace the output file if it exists
        #[arg(long, requires = "output")]
        force: bool,
    },
    /// Ask a chat model for more examples of tasks, and for more tasks
    #[command(after_help = "\
Any server of OpenAI's chat completions will do. Its replies are checked; examples that are there already, or nearly, are left out \
(the same words but for case, punctuation and articles; or the same answer, and nine of ten words of a long prompt); tasks are \
merged by name. Every reply is kept in OUTPUT.journal before it is used, so that the same command goes on after an interruption \
and pays for nothing twice. The key is read from the environment, sent to the server, and written nowhere. Tokens used are \
shown at the end.

Examples:
  lesion tasks generate --like tasks.json --count 20 --output more.json
  lesion tasks generate --like antonyms --count 50 --output a.json
  lesion tasks generate --like tasks.json --count 20 --new-tasks 5 -o more.json")]
    Generate(Box<Generate>),
    /// Measure how an intact model does on tasks, beside chance
    #[command(after_help = "\
An answer is right if each of its tokens is the likeliest; it is chosen if it is likelier than each of its alternatives, by the \
sum over its tokens. Chance guesses the answer that most examples have, or picks an answer or alternative at random. The scores \
that `lesion tasks ls` shows were made by the first example.

Examples:
  lesion tasks measure --json
  lesion tasks measure 'gendered pronouns' 'indirect object'
  lesion tasks measure --model gpt2 bundled")]
    Measure {
        /// Files or bundled tasks [default: all bundled tasks]
        #[arg(value_name = "FILE|NAME")]
        tasks: Vec<PathBuf>,
        /// Put no BOS token before the prompts
        #[arg(long)]
        no_bos: bool,
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        engine: EngineArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}
