//! The commands: parse (`args`) → resolve (`resolve`, `model`) → run (one module each) → exit code. No numerics here;
//! results go to stdout through `output`, everything for people's eyes to stderr.

mod args;
mod bench;
mod bridge;
mod bridges;
mod chat;
mod complete;
mod doctor;
mod failure;
mod inside;
mod keep;
mod look;
mod loss;
mod model;
mod models;
mod output;
mod plan;
mod references;
mod report;
mod resolve;
mod signals;
mod store;
mod sweep;
mod tasks;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::{CommandFactory, Parser};
use lesion::forward::ForwardError;
use lesion::measure::MeasureError;

use args::{Command, CommandLine};
use failure::{Exit, Failure, Result};

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let arguments = CommandLine::parse();
    signals::watch_interrupt();
    let exit = run(arguments.command).unwrap_or_else(|failure| {
        if !failure.is_silent() {
            let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
            output::note(format!("{red}error:{red:#} {failure}"));
        }
        failure.exit
    });
    // An exit code is a byte: 130 fits.
    ExitCode::from(exit as u8)
}

fn run(command: Command) -> Result<Exit> {
    match command {
        Command::Complete(args) => complete::run(&args),
        Command::Loss(args) => loss::run(&args),
        Command::Tokens(args) => look::tokens::run(&args),
        Command::Lens(args) => look::lens::run(&args),
        Command::Attribute(args) => look::attribute::run(&args),
        Command::Attention(args) => look::attention::run(&args),
        Command::Similar(args) => look::similarity::run(&args),
        Command::Patch(args) => inside::patch::run(&args),
        Command::Trace(args) => inside::trace::run(&args),
        Command::Cache(args) => look::cache::run(&args),
        Command::Bridge(args) => bridge::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Search(args) => sweep::search::run(&args),
        Command::Merge(args) => sweep::merge::run(&args),
        Command::Store(args) => store::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Study(args) => report::study::run(&args),
        Command::Tasks(args) => tasks::run(&args.command),
        Command::Chat(args) => chat::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Models(args) => models::run(&args.command),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "lesion", &mut script);
            print(&script)
        }
        Command::Man { subcommand } => print(&manual(subcommand.as_deref())?),
    }
}

fn manual(subcommand: Option<&str>) -> Result<Vec<u8>> {
    let mut root = CommandLine::command();
    root.build();
    let page = match subcommand {
        None => root,
        Some(name) => {
            let unknown = || Failure::usage(format!("no command `{}`", name.escape_debug()));
            root.find_subcommand(name).cloned().ok_or_else(unknown)?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).expect("a Vec takes any bytes");
    Ok(text)
}

fn print(bytes: &[u8]) -> Result<Exit> {
    std::io::stdout().lock().write_all(bytes).map_err(|error| Failure::stdout(&error))?;
    Ok(Exit::Ok)
}

/// An error of the forward pass: about what was asked for, unless the machine refused threads or memory.
fn forward_failure(error: &ForwardError) -> Failure {
    let exit = match error {
        ForwardError::Team(_) | ForwardError::CacheMemory { .. } => Exit::Missing,
        _ => Exit::Usage,
    };
    let failure = Failure::new(exit, error.to_string());
    match error {
        ForwardError::Bridge { .. } => {
            failure.with_help("--bridge NAME=FILE gives what bridges find; `lesion bridge fit` makes such files")
        }
        ForwardError::Uncacheable { .. } => {
            failure.with_help("--no-cache computes every token from the whole text again")
        }
        ForwardError::CacheMemory { .. } => {
            failure.with_help("--no-cache computes every token from the whole text again")
        }
        _ => failure,
    }
}

/// An error of a measure.
fn measure_failure(error: &MeasureError) -> Failure {
    match error {
        MeasureError::Forward(error) => forward_failure(error),
        MeasureError::Tokenizer(error) => resolve::tokenizer_failure(error),
        _ => Failure::usage(error.to_string()),
    }
}
