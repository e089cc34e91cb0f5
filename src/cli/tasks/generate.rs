//! `lesion tasks generate`: ask, keep, read, merge, until there is enough.

use std::time::Duration;

use lesion::llm::{ApiKey, Client, ClientOptions, LlmError, Message, Reply, Structured, Usage, Watch};
use lesion::tasks::generate::{Added, Ask, Draft, Pool, another_task, more_examples};
use lesion::tasks::write_tasks;
use serde::Serialize;

use super::args::Generate;
use super::files::named;
use super::journal::{Entry, Journal};
use crate::cli::args::OutputArgs;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::model::shown_path;
use crate::cli::output::{Output, SCHEMA_VERSION, note};
use crate::cli::signals;

/// Replies in a row that bring nothing new, after which asking further is waste.
const MAX_BARREN: usize = 3;

/// Characters of a reply that it is shown again, to be told what is wrong with it.
const SHOWN_REPLY: usize = 2_000;

/// What came of it, in JSON.
#[derive(Serialize)]
struct Summary<'a> {
    schema_version: u32,
    output: &'a str,
    journal: &'a str,
    tasks: Vec<TaskSummary<'a>>,
    /// Replies that this run asked for.
    replies: usize,
    /// What they cost, as far as the server said.
    usage: Usage,
    replies_without_usage: usize,
    /// The same with the replies that were in the journal.
    all_replies: usize,
    all_usage: Usage,
    all_replies_without_usage: usize,
}

#[derive(Serialize)]
struct TaskSummary<'a> {
    task: &'a str,
    examples: usize,
    new: usize,
}

/// Replies and what they cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    replies: usize,
    without: usize,
    usage: Usage,
}

impl Cost {
    fn add(&mut self, usage: Option<Usage>) {
        self.replies += 1;
        match usage {
            Some(usage) => self.usage += usage,
            None => self.without += 1,
        }
    }

    fn told(&self) -> String {
        let Usage { prompt_tokens, completion_tokens } = self.usage;
        let replies = match self.replies {
            1 => "1 reply".to_owned(),
            many => format!("{many} replies"),
        };
        let unknown = if self.without > 0 { format!(", {} without usage", self.without) } else { String::new() };
        format!("{replies}: {prompt_tokens} tokens sent and {completion_tokens} received{unknown}")
    }
}

pub(super) fn run(args: &Generate) -> Result<Exit> {
    let client = Client::new(options(args)?).map_err(|error| llm_failure(&error, args))?;
    let file = OutputArgs { json: false, output: Some(args.output.clone()), force: args.force };
    let mut output = Output::open(&file)?;
    let mut pool = Pool::new(named(&args.like)?);
    let base = pool.tasks().len();
    let count = args.count as usize;
    let (journal, entries) = Journal::open(&args.output)?;
    let (mut all, now) = (Cost::default(), Cost::default());
    for entry in &entries {
        pool.add(Draft::read(&entry.reply), entry.task.as_deref(), count);
        all.add(entry.usage);
    }
    if !entries.is_empty() {
        note(format!("{} had {}", journal.shown(), all.told()));
    }
    let mut generating = Generating {
        args,
        pool,
        base,
        journal,
        structured: Structured::new(client),
        all,
        now,
        talk: Vec::new(),
        batch: args.batch as usize,
    };
    let ended = generating.run();
    note(format!("this run: {}", generating.now.told()));
    let kept = format!("all replies are kept in {}: the same command goes on from there", generating.journal.shown());
    ended.map_err(|failure| failure.with_help(kept))?;
    output.text(&write_tasks(generating.pool.tasks()))?;
    output.finish()?;
    if args.json {
        let mut output = Output::stdout(true);
        output.object(&generating.summary(&shown_path(&args.output), &generating.journal.shown()))?;
        output.finish()?;
    }
    Ok(Exit::Ok)
}

fn options(args: &Generate) -> Result<ClientOptions> {
    let key = match std::env::var(&args.key_env) {
        _ if args.no_key => None,
        Ok(text) if text.trim().is_empty() => None,
        Ok(text) => Some(ApiKey::new(&text).ok_or_else(|| {
            Failure::usage(format!("${}: a key has no white space or control characters", args.key_env.escape_debug()))
        })?),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(Failure::usage(format!("${}: not UTF-8", args.key_env.escape_debug())));
        }
    };
    Ok(ClientOptions {
        timeout: Duration::from_secs(args.timeout.into()),
        retries: args.retries,
        ..ClientOptions::new(&args.base_url, &args.model_name, key)
    })
}

/// Work under way.
struct Generating<'a> {
    args: &'a Generate,
    pool: Pool,
    /// How many of the pool's tasks were there at first.
    base: usize,
    journal: Journal,
    structured: Structured,
    all: Cost,
    now: Cost,
    /// What the last reply was told about itself.
    talk: Vec<Message>,
    /// Examples that the next request asks for at most.
    batch: usize,
}

impl Generating<'_> {
    /// Asks until there is enough.
    fn run(&mut self) -> Result<()> {
        let mut barren = 0;
        while let Some((task, ask)) = self.next() {
            let reply = self.ask(&ask)?;
            let added = self.take(task.as_deref(), &reply)?;
            self.told(task.as_deref(), &added, reply.usage);
            barren = if added.new > 0 { 0 } else { barren + 1 };
            self.answer(&reply, &added);
            if barren == MAX_BARREN {
                return Err(self.shortfall(task.as_deref(), &added));
            }
        }
        Ok(())
    }

    /// What is missing, and the task it is about if it is one that is there.
    fn next(&self) -> Option<(Option<String>, Ask)> {
        let (tasks, count) = (self.pool.tasks(), self.args.count as usize);
        let examples = |task: usize| {
            let missing = count.checked_sub(self.pool.new_examples(task)).filter(|missing| *missing > 0)?;
            Some((Some(tasks[task].name.clone()), more_examples(&tasks[task], missing.min(self.batch))))
        };
        let short = |mut range: std::ops::Range<usize>| range.find_map(examples);
        let new_task = || {
            let is_missing = self.pool.new_tasks() < self.args.new_tasks as usize;
            is_missing.then(|| (None, another_task(tasks, count.min(self.batch))))
        };
        short(0..self.base).or_else(|| short(self.base..tasks.len())).or_else(new_task)
    }

    fn ask(&mut self, ask: &Ask) -> Result<Reply> {
        let messages = [&ask.messages[..], &self.talk].concat();
        let mut retry = |reason: &str, pause: Duration| {
            note(format!("{reason}; asked again in {:.1} s", pause.as_secs_f64()));
        };
        let mut watch = Watch { retry: &mut retry, cancelled: &signals::interrupted };
        self.structured.ask(&messages, &ask.schema, &mut watch).map_err(|error| llm_failure(&error, self.args))
    }

    /// Keeps a reply, then takes what is new in it.
    fn take(&mut self, task: Option<&str>, reply: &Reply) -> Result<Added> {
        self.journal.append(&Entry {
            schema_version: SCHEMA_VERSION,
            model: self.structured.client().model().to_owned(),
            task: task.map(str::to_owned),
            reply: reply.content.clone(),
            finish: reply.finish.clone(),
            usage: reply.usage,
        })?;
        self.all.add(reply.usage);
        self.now.add(reply.usage);
        Ok(self.pool.add(Draft::read(&reply.content), task, self.args.count as usize))
    }

    fn told(&self, task: Option<&str>, added: &Added, usage: Option<Usage>) {
        let name = added.task.as_deref().or(task).unwrap_or("a task").escape_debug();
        let parts = [
            (added.new, "new"),
            (added.same, "there already"),
            (added.near, "nearly there"),
            (added.beyond, "beyond the count"),
            (added.refused.len(), "refused"),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(count, what)| *count > 0 || *what == "new")
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let cost = usage.map_or_else(
            || "no usage".to_owned(),
            |usage| format!("{} + {} tokens", usage.prompt_tokens, usage.completion_tokens),
        );
        let why = added.refused.first().map_or(String::new(), |why| format!(" ({})", why.escape_debug()));
        note(format!("reply {}, {name}: {}{why}; {cost}", self.now.replies, parts.join(", ")));
    }

    /// What the next request says about a reply that brought nothing; where it was cut off, less is asked for.
    fn answer(&mut self, reply: &Reply, added: &Added) {
        self.talk.clear();
        let cut_off = reply.finish.as_deref() == Some("length");
        if cut_off {
            self.batch = (self.batch / 2).max(1);
        }
        if added.new > 0 {
            return;
        }
        let why = match added.refused.first() {
            _ if cut_off => "it was cut off".to_owned(),
            _ if reply.content.is_empty() => "it was empty".to_owned(),
            Some(why) => why.clone(),
            None => "every example was there already".to_owned(),
        };
        if !reply.content.is_empty() {
            self.talk.push(Message::assistant(reply.content.chars().take(SHOWN_REPLY).collect::<String>()));
        }
        self.talk.push(Message::user(format!("That can't be used: {why}. Please answer again, as asked above.")));
    }

    fn shortfall(&self, task: Option<&str>, added: &Added) -> Failure {
        let count = self.args.count;
        let found = task.and_then(|task| self.pool.tasks().iter().position(|other| other.name == task));
        let what = match found {
            Some(task) => {
                let (name, new) = (self.pool.tasks()[task].name.escape_debug(), self.pool.new_examples(task));
                format!("task `{name}` has {new} of {count} new examples")
            }
            None => format!("{} of {} new tasks", self.pool.new_tasks(), self.args.new_tasks),
        };
        let why = added.refused.first().map_or(String::new(), |why| format!(" ({})", why.escape_debug()));
        Failure::new(Exit::Missing, format!("{what}; the last {MAX_BARREN} replies brought nothing new{why}"))
    }

    fn summary<'s>(&'s self, output: &'s str, journal: &'s str) -> Summary<'s> {
        let tasks = self.pool.tasks().iter().enumerate();
        Summary {
            schema_version: SCHEMA_VERSION,
            output,
            journal,
            tasks: tasks
                .map(|(number, task)| TaskSummary {
                    task: &task.name,
                    examples: task.examples.len(),
                    new: self.pool.new_examples(number),
                })
                .collect(),
            replies: self.now.replies,
            usage: self.now.usage,
            replies_without_usage: self.now.without,
            all_replies: self.all.replies,
            all_usage: self.all.usage,
            all_replies_without_usage: self.all.without,
        }
    }
}

fn llm_failure(error: &LlmError, args: &Generate) -> Failure {
    match error {
        LlmError::Address { .. } => Failure::usage(error.to_string()),
        LlmError::Cancelled => Failure::new(Exit::Interrupted, "interrupted"),
        LlmError::Status { status: 401 | 403, .. } => {
            Failure::new(Exit::Missing, format!("{error} (the key comes from ${})", args.key_env.escape_debug()))
        }
        _ => Failure::new(Exit::Missing, error.to_string()),
    }
}
