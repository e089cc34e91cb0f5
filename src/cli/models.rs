//! `lesion models`: what is pinned, what is in the cache; fetch, pin, verify, and a synthetic model to measure with.

use std::path::Path;

use lesion::weights::synthetic::write_model;
use lesion::weights::{CheckMode, Dtype, HubOptions, LockedModel, WeightsError, WeightsLock, lock_repository};
use serde::Serialize;

use super::args::{DtypeArg, LockArgs, ModelsCommand, OutputArgs};
use super::failure::{Exit, Failure, Result};
use super::model::{self, MINI, hub_failure, hub_options, locked, shown_path};
use super::output::{Output, SCHEMA_VERSION, note, size, table};

#[derive(Serialize)]
struct ModelRecord<'a> {
    schema_version: u32,
    model: &'a str,
    repository: Option<&'a str>,
    revision: Option<&'a str>,
    size: u64,
    /// Whether all of its files are in the cache (or in the binary).
    cached: bool,
    path: Option<String>,
}

pub(crate) fn run(command: &ModelsCommand) -> Result<Exit> {
    match command {
        ModelsCommand::List { lock, output } => list(lock, output),
        ModelsCommand::Fetch { name, lock, output } => fetch(name, lock, output, CheckMode::Remembered),
        ModelsCommand::Verify { name, lock, output } => verify(name, lock, output),
        ModelsCommand::Path { output } => path(output),
        ModelsCommand::Lock { repository, name, revision, output, force } => {
            pin(repository, name.as_deref(), revision, output.as_deref(), *force)
        }
        ModelsCommand::Synthesize { out, layers, dtype } => synthesize(out, *layers as usize, *dtype),
    }
}

fn list(lock: &LockArgs, args: &OutputArgs) -> Result<Exit> {
    let mut output = Output::open(args)?;
    let lock = model::lock(lock)?;
    let options = hub_options()?;
    let mut records = vec![ModelRecord {
        schema_version: SCHEMA_VERSION,
        model: MINI,
        repository: None,
        revision: None,
        size: include_bytes!("../../models/mini/model.safetensors").len() as u64,
        cached: true,
        path: None,
    }];
    records.extend(lock.models().iter().map(|model| locked_record(model, &options)));
    if output.json {
        records.iter().try_for_each(|record| output.object(record))?;
    } else {
        let rows: Vec<Vec<String>> = records
            .iter()
            .map(|record| {
                let here = match (record.repository, record.cached) {
                    (None, _) => "embedded",
                    (_, true) => "in the cache",
                    (_, false) => "not fetched",
                };
                let from = record.repository.unwrap_or("this binary").to_owned();
                let revision = record.revision.map_or(String::new(), |revision| revision[..12].to_owned());
                vec![record.model.to_owned(), here.to_owned(), from, revision, size(record.size)]
            })
            .collect();
        output.text(&table(&["model", "where", "repository", "revision", "size"].map(str::to_owned), &rows, 4))?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn locked_record<'a>(model: &'a LockedModel, options: &HubOptions) -> ModelRecord<'a> {
    let directory = options.cache.snapshot_dir(model.repository(), model.revision());
    let cached = model.files().iter().all(|file| directory.join(&file.path).exists());
    ModelRecord {
        schema_version: SCHEMA_VERSION,
        model: model.name(),
        repository: Some(model.repository()),
        revision: Some(model.revision()),
        size: model.files().iter().map(|file| file.size).sum(),
        cached,
        path: cached.then(|| shown_path(&directory)),
    }
}

/// The files of a model, verified; where they are goes to stdout.
fn fetch(name: &str, lock: &LockArgs, args: &OutputArgs, mode: CheckMode) -> Result<Exit> {
    let mut output = Output::open(args)?;
    let lock = model::lock(lock)?;
    let pinned = locked(&lock, name)?;
    let options = hub_options()?;
    let directory = model::resolve(pinned, &options, mode)?;
    if output.json {
        output.object(&locked_record(pinned, &options))?;
    } else {
        output.line(shown_path(&directory))?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// Hashes what is in the cache; downloads nothing.
fn verify(name: &str, lock: &LockArgs, args: &OutputArgs) -> Result<Exit> {
    let mut output = Output::open(args)?;
    let lock = model::lock(lock)?;
    let pinned = locked(&lock, name)?;
    let options = HubOptions { offline: true, ..hub_options()? };
    model::resolve(pinned, &options, CheckMode::Always)?;
    for file in pinned.files() {
        if output.json {
            output.object(&serde_json::json!({
                "schema_version": SCHEMA_VERSION,
                "model": name,
                "file": file.path,
                "size": file.size,
                "sha256": file.sha256,
                "verified": true,
            }))?;
        } else {
            output.line(format!("{}  {}", file.sha256, file.path))?;
        }
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn path(args: &OutputArgs) -> Result<Exit> {
    let mut output = Output::open(args)?;
    let options = hub_options()?;
    let root = shown_path(options.cache.root());
    if output.json {
        output.object(&serde_json::json!({ "schema_version": SCHEMA_VERSION, "cache": root }))?;
    } else {
        output.line(root)?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn pin(repository: &str, name: Option<&str>, revision: &str, file: Option<&Path>, force: bool) -> Result<Exit> {
    let mut lock = match file {
        Some(path) if path.exists() => WeightsLock::read(path).map_err(|error| model::lock_failure(&error))?,
        _ => WeightsLock::default(),
    };
    let usage = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
    let mut pinned =
        lock_repository(repository, revision, &hub_options()?, &mut |_| ()).map_err(|e| hub_failure(&e))?;
    if let Some(name) = name {
        pinned = pinned.renamed(name).map_err(|error| usage(&error))?;
    }
    if force {
        let mut others = WeightsLock::default();
        for other in lock.models().iter().filter(|other| other.name() != pinned.name()) {
            others.insert(other.clone()).map_err(|error| usage(&error))?;
        }
        lock = others;
    }
    let name = pinned.name().to_owned();
    lock.insert(pinned).map_err(|error| usage(&error).with_help("--force replaces it; --name gives another name"))?;
    match file {
        Some(path) => {
            let args = OutputArgs { json: false, output: Some(path.to_owned()), force: true };
            let mut output = Output::open(&args)?;
            output.text(&lock.to_toml())?;
            output.finish()?;
            note(format!("{name} is pinned in {}", shown_path(path)));
        }
        None => {
            let mut output = Output::stdout(false);
            output.text(&lock.to_toml())?;
            output.finish()?;
        }
    }
    Ok(Exit::Ok)
}

fn synthesize(out: &Path, layers: usize, dtype: DtypeArg) -> Result<Exit> {
    let dtype = match dtype {
        DtypeArg::F32 => Dtype::F32,
        DtypeArg::F16 => Dtype::F16,
        DtypeArg::Bf16 => Dtype::Bf16,
    };
    if std::fs::symlink_metadata(out).is_ok() {
        return Err(Failure::usage(format!("{} exists", shown_path(out))));
    }
    write_model(out, layers, dtype).map_err(|error| match &error {
        WeightsError::Io { source, .. } => Failure::new(Failure::io("write", "", source).exit, error.to_string()),
        _ => Failure::new(Exit::BadFile, error.to_string()),
    })?;
    note(format!("{}: {layers} layers of GPT-2's shape; it takes token ids only", shown_path(out)));
    Ok(Exit::Ok)
}
