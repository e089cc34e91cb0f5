//! `lesion tasks`: the bundled tasks and files of tasks, listed, shown, checked, written and measured.
//!
//! `args` is syntax; `files` finds tasks by name or path, for `sweep` and `search` too; `measure` scores an intact model;
//! `generate` asks a chat model for more, and `journal` keeps what it said.

pub(crate) mod args;
pub(crate) mod files;
#[cfg_attr(not(feature = "agent"), path = "generate_disabled.rs")]
mod generate;
#[cfg(feature = "agent")]
mod journal;
mod measure;

use std::path::Path;

use lesion::report::counted;
use lesion::tasks::bundled::{self, Score};
use lesion::tasks::{Task, check, write_tasks};
use serde::Serialize;

use self::args::TasksCommand;
use self::files::{bundled_failure, named};
use super::args::{ModelArgs, OutputArgs};
use super::failure::{Exit, Result};
use super::output::{Output, SCHEMA_VERSION, note, shown, table};
use super::{measure_failure, model};

pub(crate) fn run(command: &TasksCommand) -> Result<Exit> {
    match command {
        TasksCommand::Ls { output } => list(output),
        TasksCommand::Show { tasks, limit, output } => show(tasks, limit.map(|limit| limit as usize), output),
        TasksCommand::Check { tasks, model, output } => check_tasks(tasks, model, output),
        TasksCommand::Export { task, examples, seed, output, force } => {
            let output = OutputArgs { json: false, output: output.clone(), force: *force };
            export(task, *examples as usize, *seed, &output)
        }
        TasksCommand::Generate(args) => generate::run(args),
        TasksCommand::Measure { tasks, no_bos, model, engine, output } => {
            measure::run(tasks, !no_bos, model, engine, output)
        }
    }
}

/// A task's scores in JSON.
#[derive(Serialize)]
struct ScoreRecord<'a> {
    schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(flatten)]
    score: &'a Score,
}

fn list(args: &OutputArgs) -> Result<Exit> {
    let mut output = Output::open(args)?;
    let tasks = files::tasks_of(Path::new(files::BUNDLED))?;
    let scores = bundled::scores();
    if output.json {
        for (task, score) in tasks.iter().zip(&scores) {
            let description = Some(&*task.description);
            output.object(&ScoreRecord { schema_version: SCHEMA_VERSION, description, score })?;
        }
    } else {
        output.text(&score_table(&scores))?;
        output.line(
            "correct and chosen: the intact embedded model on the examples; `lesion tasks measure` measures others",
        )?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// Scores for people.
fn score_table(scores: &[Score]) -> String {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let choice = |share: Option<f64>| share.map_or_else(|| "–".to_owned(), percent);
    let header = ["task", "examples", "correct", "chance", "nats/token", "chosen", "chance"].map(str::to_owned);
    let row = |score: &Score| {
        vec![
            score.task.clone(),
            score.examples.to_string(),
            percent(score.intact.accuracy),
            percent(score.chance),
            shown(score.intact.nll_per_token.0),
            choice(score.intact.choice_accuracy),
            choice(score.choice_chance),
        ]
    };
    table(&header, &scores.iter().map(row).collect::<Vec<_>>(), 1)
}

/// An example in JSON, with the task that it is of.
#[derive(Serialize)]
struct ExampleRecord<'a> {
    schema_version: u32,
    task: &'a str,
    example: usize,
    prompt: &'a str,
    answer: &'a str,
    join: &'a str,
    alternatives: &'a [String],
    corrupted_prompt: Option<&'a str>,
}

fn show(path: &Path, limit: Option<usize>, args: &OutputArgs) -> Result<Exit> {
    let mut output = Output::open(args)?;
    for (number, task) in named(path)?.iter().enumerate() {
        if number > 0 && !output.json {
            output.line("")?;
        }
        show_task(&mut output, task, limit.unwrap_or(usize::MAX))?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn show_task(output: &mut Output, task: &Task, limit: usize) -> Result<()> {
    if !output.json {
        output.heading(&format!("{}: {}", task.name.escape_debug(), counted(task.examples.len() as u64, "example")))?;
        if !task.description.is_empty() {
            output.line(task.description.escape_debug().to_string())?;
        }
    }
    for (number, example) in task.examples.iter().enumerate().take(limit) {
        let join = example.join.as_deref().unwrap_or(&task.join);
        if output.json {
            output.object(&ExampleRecord {
                schema_version: SCHEMA_VERSION,
                task: &task.name,
                example: number,
                prompt: &example.prompt,
                answer: &example.answer,
                join,
                alternatives: &example.alternatives,
                corrupted_prompt: example.corrupted_prompt.as_deref(),
            })?;
            continue;
        }
        output.line(format!("{number:>4}  {:?} → {:?}", example.prompt, format!("{join}{}", example.answer)))?;
        if !example.alternatives.is_empty() {
            output.line(format!("      not {:?}", example.alternatives))?;
        }
        if let Some(corrupted) = &example.corrupted_prompt {
            output.line(format!("      corrupted {corrupted:?}"))?;
        }
    }
    if !output.json {
        for question in &task.eval_questions {
            output.line(format!("      judged by {question:?}"))?;
        }
    }
    Ok(())
}

/// A finding in JSON.
#[derive(Serialize)]
struct FindingRecord<'a> {
    schema_version: u32,
    task: &'a str,
    example: usize,
    kind: &'static str,
    message: String,
}

fn check_tasks(path: &Path, model_args: &ModelArgs, args: &OutputArgs) -> Result<Exit> {
    let mut output = Output::open(args)?;
    let tasks = named(path)?;
    let model = model::open(model_args)?;
    let tokenizer = model.tokenizer().map_err(|error| model::model_failure(&error))?;
    let findings = check(&tasks, tokenizer, model.config().n_positions).map_err(|error| measure_failure(&error))?;
    for finding in &findings {
        if output.json {
            output.object(&FindingRecord {
                schema_version: SCHEMA_VERSION,
                task: &finding.task,
                example: finding.example,
                kind: finding.kind.name(),
                message: finding.kind.to_string(),
            })?;
        } else {
            output.line(format!("{}, example {}: {}", finding.task.escape_debug(), finding.example, finding.kind))?;
        }
    }
    let examples: usize = tasks.iter().map(|task| task.examples.len()).sum();
    let [tasks, examples, findings] = [(tasks.len(), "task"), (examples, "example"), (findings.len(), "finding")]
        .map(|(n, of)| counted(n as u64, of));
    let summary = format!("{tasks}, {examples}: {findings} with the tokens of {}", model.name());
    if output.json {
        note(summary)
    } else {
        output.line(summary)?
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn export(names: &[String], examples: usize, seed: u64, args: &OutputArgs) -> Result<Exit> {
    let mut output = Output::open(args)?;
    let tasks = if names.is_empty() {
        bundled::tasks(seed, examples)
    } else {
        let unique = names.iter().enumerate().filter(|(i, name)| !names[..*i].contains(name));
        unique.map(|(_, name)| bundled::task(name, seed, examples)).collect()
    };
    output.text(&write_tasks(&tasks.map_err(|error| bundled_failure(&error))?))?;
    output.finish()?;
    Ok(Exit::Ok)
}
