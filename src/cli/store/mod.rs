//! `lesion store`: what has been kept. `args` is syntax; `list` shows experiments and runs, `query` answers questions and
//! exports, `diff` compares, `verify` computes again. Everything but notes, tags and `gc` only reads.

pub(crate) mod args;
mod diff;
mod list;
mod notes;
mod query;
mod verify;

use lesion::store::Store;
use serde::Serialize;

use self::args::{At, Gc, Store as StoreArgs, StoreCommand};
use super::failure::{Exit, Result};
use super::keep;
use super::output::{Output, SCHEMA_VERSION, note, size};

pub(crate) fn run(args: &StoreArgs) -> Result<Exit> {
    match &args.command {
        StoreCommand::Ls(args) => list::ls(args),
        StoreCommand::Show(args) => list::show(args),
        StoreCommand::Query(args) => query::run(args),
        StoreCommand::Sql(args) => query::sql(args),
        StoreCommand::Diff(args) => diff::run(args),
        StoreCommand::Note(args) => notes::note(args),
        StoreCommand::Notes(args) => notes::list(args),
        StoreCommand::Tag(args) => notes::tag(args),
        StoreCommand::Verify(args) => verify::run(args),
        StoreCommand::Export(args) => query::export(args),
        StoreCommand::Gc(args) => gc(args),
    }
}

/// The store that is meant, only to be read.
fn reading(at: &At) -> Result<Store> {
    let path = at.store.clone().map_or_else(keep::default_path, Ok)?;
    Ok(Store::read(&path)?)
}

/// The same, to be written to; none is made.
fn writing(at: &At) -> Result<Store> {
    let path = at.store.clone().map_or_else(keep::default_path, Ok)?;
    drop(Store::read(&path)?);
    Ok(Store::open(&path)?)
}

/// What went, in JSON.
#[derive(Serialize)]
struct Gone {
    schema_version: u32,
    dry_run: bool,
    experiments: u64,
    results: u64,
    others: u64,
    /// Whether rows that nothing refers to stay, because a process may be about to.
    spared: bool,
    bytes_before: u64,
    bytes_after: u64,
}

fn gc(args: &Gc) -> Result<Exit> {
    let store = writing(&args.at)?;
    let experiments =
        args.experiment.iter().map(|name| store.experiment(name)).collect::<std::result::Result<Vec<_>, _>>();
    let collected = store.collect(&experiments?, args.dry_run)?;
    let (before, after) = collected.bytes;
    let mut output = Output::stdout(args.json);
    if args.json {
        output.object(&Gone {
            schema_version: SCHEMA_VERSION,
            dry_run: args.dry_run,
            experiments: collected.experiments,
            results: collected.results,
            others: collected.others,
            spared: collected.spared,
            bytes_before: before,
            bytes_after: after,
        })?;
    } else {
        let what = format!(
            "{} experiments, {} results, {} rows that nothing refers to",
            collected.experiments, collected.results, collected.others
        );
        if args.dry_run {
            note(format!("would delete {what}"));
        } else {
            note(format!("deleted {what}; {} before, {} after", size(before), size(after)));
        }
    }
    if collected.spared {
        note(
            "what nothing refers to stays for now: a process that has begun within a day and not ended may be about to",
        );
    }
    output.finish()?;
    Ok(Exit::Ok)
}
