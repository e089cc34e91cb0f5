//! `lesion merge`: the rows of a sweep's shards, as one machine would have printed them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use super::args::{Merge as MergeArgs, Shard};
use super::rows::{SummaryLine, SummaryRecord};
use crate::cli::args::OutputArgs;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::model::shown_path;
use crate::cli::output::Output;
use crate::cli::signals;

/// What of a row says where it goes.
#[derive(Deserialize)]
struct Place {
    index: u64,
}

/// A shard's file.
struct ShardFile {
    name: String,
    shard: Shard,
    summary: SummaryRecord,
    reader: BufReader<File>,
    /// Rows that were read of it.
    rows: u64,
}

pub(crate) fn run(args: &MergeArgs) -> Result<Exit> {
    let mut output = Output::open(&OutputArgs { json: true, output: args.output.clone(), force: args.force })?;
    let mut shards = args.files.iter().map(|path| ShardFile::open(path)).collect::<Result<Vec<_>>>()?;
    shards.sort_by_key(|file| file.shard.index);
    let summary = checked(&shards)?;
    // Each example is in one shard, and a shard's examples come in their order.
    let mut next = BinaryHeap::new();
    let mut lines: Vec<Option<String>> = Vec::new();
    for (i, file) in shards.iter_mut().enumerate() {
        let (line, index) = file.row()?.map_or((None, None), |(line, index)| (Some(line), Some(index)));
        next.extend(index.map(|index| Reverse((index, i))));
        lines.push(line);
    }
    while let Some(Reverse((_, i))) = next.pop() {
        if let Some(line) = lines[i].take() {
            output.text(&line)?;
        }
        if let Some((line, index)) = shards[i].row()? {
            lines[i] = Some(line);
            next.push(Reverse((index, i)));
        }
        signals::check()?;
    }
    output.object(&SummaryLine { summary })?;
    output.finish()?;
    Ok(Exit::Ok)
}

impl ShardFile {
    fn open(path: &Path) -> Result<ShardFile> {
        let name = shown_path(path);
        let io = |error| Failure::io("read", &name, &error);
        let mut reader = BufReader::new(File::open(path).map_err(|error| Failure::io("open", &name, &error))?);
        let (mut line, mut last, mut lines) = (String::new(), String::new(), 0_u64);
        while reader.read_line(&mut line).map_err(io)? > 0 {
            std::mem::swap(&mut line, &mut last);
            line.clear();
            lines += 1;
            signals::check()?;
        }
        let summary = serde_json::from_str::<SummaryLine>(&last).map_err(|_| {
            let message = format!("{name}: the last line is not the summary of a sweep");
            Failure::new(Exit::BadFile, message).with_help("it is what `lesion sweep --json` wrote to its end")
        })?;
        let summary = summary.summary;
        let shard: Shard = summary
            .shard
            .parse()
            .map_err(|_| Failure::new(Exit::BadFile, format!("{name}: shard {:?}", summary.shard)))?;
        let (rows, expected) = (lines - 1, summary.examples.saturating_mul(summary.plans as u64));
        if rows != expected {
            let SummaryRecord { plans, examples, .. } = summary;
            let message = format!("{name}: {rows} rows, but {plans} plans on {examples} examples make {expected}");
            return Err(Failure::new(Exit::BadFile, message));
        }
        reader.seek(SeekFrom::Start(0)).map_err(io)?;
        Ok(ShardFile { name, shard, summary, reader, rows: 0 })
    }

    /// The next row as it was written, and the number of its example.
    fn row(&mut self) -> Result<Option<(String, u64)>> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).map_err(|error| Failure::io("read", &self.name, &error))?;
        if read == 0 || serde_json::from_str::<SummaryLine>(&line).is_ok() {
            return Ok(None);
        }
        let place: Place = serde_json::from_str(&line)
            .map_err(|error| Failure::new(Exit::BadFile, format!("{}: not a row of a sweep: {error}", self.name)))?;
        // A shard has one example in `count`, and a row of each plan on it.
        let Shard { index, count } = self.shard;
        let expected = (self.rows / (self.summary.plans as u64).max(1)).saturating_mul(count).saturating_add(index);
        self.rows += 1;
        if place.index != expected {
            let message = format!(
                "{}, line {}: a row of example {}, where shard {index}/{count} has one of example {expected}",
                self.name, self.rows, place.index
            );
            return Err(Failure::new(Exit::BadFile, message));
        }
        Ok(Some((line, place.index)))
    }
}

/// The summary of shards that belong together and are all there.
fn checked(shards: &[ShardFile]) -> Result<SummaryRecord> {
    let first = &shards[0];
    let refuse = |message: String| Err(Failure::usage(message));
    for file in shards {
        let differs =
            |what: &str, own: &str, other: &str| format!("{}: {what} {own}, but {other} in {}", file.name, first.name);
        let (own, other) = (&file.summary, &first.summary);
        if own.numerics != other.numerics {
            return refuse(differs("numerics", &own.numerics, &other.numerics));
        }
        if own.key != other.key {
            return refuse(differs("another sweep, key", &own.key, &other.key));
        }
        if file.shard.count != first.shard.count {
            return refuse(differs("shard", &own.shard, &other.shard));
        }
        if own.all_examples != other.all_examples {
            return refuse(differs("examples in all", &own.all_examples.to_string(), &other.all_examples.to_string()));
        }
    }
    let count = first.shard.count;
    for index in 0..count {
        let there = shards.iter().filter(|file| file.shard.index == index).count();
        if there != 1 {
            return refuse(format!("shard {index}/{count} is there {there} times: each is needed once"));
        }
    }
    let sum = |of: &dyn Fn(&SummaryRecord) -> u64| shards.iter().map(|file| of(&file.summary)).sum();
    Ok(SummaryRecord {
        examples: sum(&|summary| summary.examples),
        scored_positions: sum(&|summary| summary.scored_positions),
        computed_rows: sum(&|summary| summary.computed_rows),
        seconds: shards.iter().map(|file| file.summary.seconds).sum(),
        shard: "0/1".to_owned(),
        experiment: None,
        ..first.summary.clone()
    })
}
