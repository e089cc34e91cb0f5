//! `lesion models`: what is pinned, what is in the cache; fetch, pin, verify, and a synthetic model to measure with.

use std::path::Path;

use lesion::model::synthetic::write_model;
use lesion::weights::{CheckMode, Dtype, HubOptions, LockedModel, WeightsLock};
use serde::Serialize;

use super::args::{DtypeArg, LockArgs, ModelsCommand, OutputArgs};
use super::failure::{Exit, Failure, Result};
use super::model::{self, MINI, hub_options, locked, shown_path, weights_failure};
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
        ModelsCommand::Lock { repository, name, revision, output, force, json } => {
            pin(repository, name.as_deref(), revision, output.as_deref(), *force, *json)
        }
        ModelsCommand::Synthesize { out, layers, dtype, json } => synthesize(out, *layers as usize, *dtype, *json),
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
    let complete = options.cache.locate(model).ok().filter(|found| found.missing.is_empty());
    let cached = complete.is_some();
    ModelRecord {
        schema_version: SCHEMA_VERSION,
        model: model.name(),
        repository: Some(model.repository()),
        revision: Some(model.revision()),
        size: model.files().iter().map(|file| file.size).sum(),
        cached,
        path: complete.map(|found| shown_path(&found.directory)),
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

fn pin(
    repository: &str,
    name: Option<&str>,
    revision: &str,
    file: Option<&Path>,
    force: bool,
    json: bool,
) -> Result<Exit> {
    let mut lock = match file {
        Some(path) if path.exists() => WeightsLock::read(path).map_err(|error| model::lock_failure(&error))?,
        _ => WeightsLock::default(),
    };
    let usage = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
    let mut pinned = model::pin(repository, revision, &hub_options()?)?;
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
    let entry = serde_json::json!({
        "schema_version": SCHEMA_VERSION,
        "model": name,
        "repository": pinned.repository(),
        "revision": pinned.revision(),
        "files": pinned.files().iter().map(|file| {
            serde_json::json!({ "file": file.path, "size": file.size, "sha256": file.sha256 })
        }).collect::<Vec<_>>(),
        "lock": file.map(shown_path),
    });
    lock.insert(pinned).map_err(|error| usage(&error).with_help("--force replaces it; --name gives another name"))?;
    match file {
        Some(path) => {
            let args = OutputArgs { json: false, output: Some(path.to_owned()), force: true };
            let mut output = Output::open(&args)?;
            output.text(&lock.to_toml())?;
            output.finish()?;
            note(format!("{name} is pinned in {}", shown_path(path)));
        }
        None if json => {}
        None => {
            let mut output = Output::stdout(false);
            output.text(&lock.to_toml())?;
            output.finish()?;
        }
    }
    if json {
        let mut output = Output::stdout(true);
        output.object(&entry)?;
        output.finish()?;
    }
    Ok(Exit::Ok)
}

fn synthesize(out: &Path, layers: usize, dtype: DtypeArg, json: bool) -> Result<Exit> {
    let (dtype, name) = match dtype {
        DtypeArg::F32 => (Dtype::F32, "f32"),
        DtypeArg::F16 => (Dtype::F16, "f16"),
        DtypeArg::Bf16 => (Dtype::Bf16, "bf16"),
    };
    if std::fs::symlink_metadata(out).is_ok() {
        return Err(Failure::usage(format!("{} exists", shown_path(out))));
    }
    write_model(out, layers, dtype).map_err(|error| weights_failure(&error))?;
    note(format!("{}: {layers} layers of GPT-2's shape; it takes token ids only", shown_path(out)));
    if json {
        let mut output = Output::stdout(true);
        let record = serde_json::json!({
            "schema_version": SCHEMA_VERSION,
            "path": shown_path(out),
            "n_layer": layers,
            "dtype": name,
        });
        output.object(&record)?;
        output.finish()?;
    }
    Ok(Exit::Ok)
}
