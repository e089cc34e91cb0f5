//! Questions to the store, and answers as files.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use lesion::store::{Column, ColumnKind, Format, Query, QueryText, Store, Value};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::args::{Export, FormatArg, Query as QueryArgs, Sql, Which};
use super::reading;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::model::shown_path;
use crate::cli::output::{Output, SCHEMA_VERSION, note, shown, table};
use crate::cli::signals;

/// Columns of an export unless others are asked for.
const EXPORTED: &str = "plan,task,example,prompt,answer,completion,loss,delta,nll,tokens,top1,correct,rank,entropy,kl,\
    non_finite,blocks,model,weights,arithmetic,numerics,isa,host,time,version,commit,key";

/// A query as it was written, an experiment's name made whole.
fn parse(store: &Store, which: &Which, select: &[String], limit: Option<u64>) -> Result<Query> {
    let Which { experiment, conditions, group_by, sort, .. } = which;
    let mut conditions = conditions.clone();
    if let Some(name) = experiment {
        conditions.push(format!("experiment={}", store.experiment(name)?.name));
    }
    let text = QueryText { conditions: &conditions, group_by, select, sort: sort.as_deref(), limit };
    Ok(Query::parse(&text)?)
}

pub(super) fn run(args: &QueryArgs) -> Result<Exit> {
    let store = reading(&args.at)?;
    let mut output = Output::open(&args.output)?;
    // One more than is shown tells whether there are more.
    let limit = (args.limit > 0).then_some(args.limit);
    let query = parse(&store, &args.which, &args.which.select, limit.map(|limit| limit + 1))?;
    let columns = query.columns();
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let mut lines = Lines::begin(&mut output, names, args.csv)?;
    let mut more = false;
    store.query(&query, |values| {
        signals::check()?;
        if limit.is_some_and(|limit| lines.count == limit) {
            more = true;
            return Ok(());
        }
        lines.line(values)
    })?;
    lines.end(&columns)?;
    if more {
        note(format!("there are more than {} lines: --limit 0 shows all", args.limit));
    }
    output.finish()?;
    Ok(Exit::Ok)
}

pub(super) fn sql(args: &Sql) -> Result<Exit> {
    let store = reading(&args.at)?;
    let mut output = Output::open(&args.output)?;
    let mut lines = Lines::begin(&mut output, Vec::new(), false)?;
    let names = store.sql(&args.sql, |names, values| {
        signals::check()?;
        if lines.names.is_empty() {
            lines.names = names.to_vec();
        }
        lines.line(values)
    })?;
    lines.names = names;
    let columns: Vec<Column> =
        lines.names.iter().map(|name| Column { name: name.clone(), kind: ColumnKind::Text }).collect();
    lines.end(&columns)?;
    output.finish()?;
    Ok(Exit::Ok)
}

/// Lines on their way out: JSON and CSV at once, tables when all are there.
struct Lines<'o> {
    output: &'o mut Output,
    names: Vec<String>,
    csv: bool,
    rows: Vec<Vec<String>>,
    count: u64,
}

impl<'o> Lines<'o> {
    fn begin(output: &'o mut Output, names: Vec<String>, csv: bool) -> Result<Lines<'o>> {
        if csv {
            output.text(&record(&names)?)?;
        }
        Ok(Lines { output, names, csv, rows: Vec::new(), count: 0 })
    }

    fn line(&mut self, values: &[Value]) -> Result<()> {
        self.count += 1;
        if self.count == 1 && self.output.json {
            let twice = self.names.iter().enumerate().find(|(at, name)| self.names[..*at].contains(name));
            if let Some((_, name)) = twice {
                let message = format!("two columns are called {name}: JSON would hold one of them");
                return Err(Failure::usage(message).with_help("AS gives a column another name"));
            }
        }
        if self.output.json {
            self.output.object(&Object { names: &self.names, values })
        } else if self.csv {
            let cells: Vec<String> = values.iter().map(Value::to_string).collect();
            self.output.text(&record(&cells)?)
        } else {
            let cell = |value: &Value| match value {
                Value::Number(number) => shown(*number),
                other => other.to_string(),
            };
            self.rows.push(values.iter().map(cell).collect());
            Ok(())
        }
    }

    fn end(self, columns: &[Column]) -> Result<()> {
        if self.output.json || self.csv {
            return Ok(());
        }
        // Texts that stand behind the first number go to the right, too: columns are as they were asked for.
        let right = columns.iter().position(|column| column.kind != ColumnKind::Text).unwrap_or(columns.len());
        self.output.text(&table(&self.names, &self.rows, right))
    }
}

/// A line as a JSON object.
struct Object<'a> {
    names: &'a [String],
    values: &'a [Value],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(1 + self.names.len()))?;
        object.serialize_entry("schema_version", &SCHEMA_VERSION)?;
        for (name, value) in self.names.iter().zip(self.values) {
            object.serialize_entry(name, value)?;
        }
        object.end()
    }
}

/// A line of CSV.
fn record(cells: &[String]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = writer.write_record(cells).map_err(|error| error.to_string());
    let bytes = written.and_then(|()| writer.into_inner().map_err(|error| error.to_string()));
    bytes
        .and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()))
        .map_err(|error| Failure::new(Exit::Usage, error))
}

pub(super) fn export(args: &Export) -> Result<Exit> {
    let format = args.format.map_or_else(|| by_ending(&args.file), Ok)?;
    let shown = shown_path(&args.file);
    if args.file.is_dir() {
        return Err(Failure::usage(format!("{shown} is a directory")));
    }
    if args.file.exists() && !args.force {
        return Err(Failure::usage(format!("{shown} exists")).with_help("--force replaces it"));
    }
    let store = reading(&args.at)?;
    if same_file(&args.file, store.path()) {
        return Err(Failure::usage(format!("{shown} is the store itself")));
    }
    // Whole under another name first.
    let mut partial = args.file.clone().into_os_string();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = write(&store, args, format, &partial);
    let published = written.and_then(|lines| {
        fs::rename(&partial, &args.file)
            .map_err(|error| Failure::io("write", &shown, &error).with_exit(Exit::Missing))?;
        Ok(lines)
    });
    let lines = published.inspect_err(|_| {
        // The first error is the one to tell; the partial file is ours.
        let _ = fs::remove_file(&partial);
    })?;
    match lines {
        Some(lines) => note(format!("{lines} results in {shown}")),
        None => note(format!("the whole store, as it is now, in {shown}")),
    }
    Ok(Exit::Ok)
}

/// Writes the file; how many lines, unless it is a copy of the store.
fn write(store: &Store, args: &Export, format: FormatArg, path: &Path) -> Result<Option<u64>> {
    let format = match format {
        FormatArg::Sqlite => {
            let Which { experiment, conditions, group_by, select, sort } = &args.which;
            if experiment.is_some()
                || sort.is_some()
                || [conditions, group_by, select].iter().any(|list| !list.is_empty())
            {
                return Err(Failure::usage(
                    "a copy of the store is a copy of all: --where and the like choose nothing in it",
                ));
            }
            return store.copy_to(path).map(|()| None).map_err(Failure::from);
        }
        FormatArg::Parquet => Format::Parquet,
        FormatArg::Csv => Format::Csv,
        FormatArg::Jsonl => Format::JsonLines,
    };
    let all = [EXPORTED.to_owned()];
    let plain = args.which.select.is_empty() && args.which.group_by.is_empty();
    let query = parse(store, &args.which, if plain { &all } else { &args.which.select }, None)?;
    let io = |error| Failure::io("write", &shown_path(path), &error).with_exit(Exit::Missing);
    let mut file = BufWriter::new(File::create_new(path).map_err(io)?);
    let lines = store.export(&query, format, &mut file, path)?;
    file.flush().map_err(io)?;
    file.into_inner().map_err(|error| io(error.into_error()))?.sync_all().map_err(io)?;
    Ok(Some(lines))
}

fn by_ending(file: &Path) -> Result<FormatArg> {
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("parquet") => Ok(FormatArg::Parquet),
        Some("csv") => Ok(FormatArg::Csv),
        Some("jsonl" | "ndjson") => Ok(FormatArg::Jsonl),
        Some("db" | "sqlite" | "sqlite3") => Ok(FormatArg::Sqlite),
        _ => Err(Failure::usage(format!("{}: its ending says no format", shown_path(file)))
            .with_help("--format parquet, csv, jsonl or sqlite says it")),
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
