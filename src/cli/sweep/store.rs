//! Where the results of a sweep are kept, and what is there already, so that an interrupted one goes on.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lesion::sweep::{Example, ExampleDigest, Results, ResultsError, Row};

use super::args::Shard;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::model::shown_path;

/// What the command line says of it.
pub(crate) enum Place {
    /// Nowhere.
    None,
    /// In this file.
    File(PathBuf),
    /// In the user's state folder, under the sweep's key.
    Own,
}

impl Place {
    pub(crate) fn of(file: Option<&Path>, none: bool) -> Place {
        match file {
            _ if none => Place::None,
            Some(file) => Place::File(file.to_owned()),
            None => Place::Own,
        }
    }

    /// The file for a sweep with this key, or a part of it; none where nothing is kept.
    fn file(&self, key: &str, shard: Option<Shard>) -> Result<Option<PathBuf>> {
        match self {
            Place::None => Ok(None),
            Place::File(file) => Ok(Some(file.clone())),
            Place::Own => {
                let folder = state_folder().ok_or_else(|| {
                    let message = "no folder to keep results in: none of XDG_STATE_HOME, HOME and USERPROFILE is set";
                    Failure::new(Exit::Missing, message).with_help("--results FILE names one, --no-results keeps none")
                })?;
                let folder = folder.join("lesion").join("sweeps");
                fs::create_dir_all(&folder).map_err(|error| {
                    let failure = Failure::io("make", &shown_path(&folder), &error).with_exit(Exit::Missing);
                    failure.with_help("--results FILE names another place, --no-results keeps none")
                })?;
                let part = shard.map_or(String::new(), |Shard { index, count }| format!("-{index}-of-{count}"));
                Ok(Some(folder.join(format!("{}{part}.rows", &key[..32]))))
            }
        }
    }
}

/// Results from before, and the file that takes more.
#[derive(Default)]
pub(crate) struct Kept {
    file: Option<Results>,
    /// What the file holds of each example.
    before: HashMap<u64, Before>,
    /// Rows that were read again.
    rows: HashMap<u64, Vec<Row>>,
}

/// What a file holds of an example; its rows stay on the disk until they are asked for.
struct Before {
    digest: ExampleDigest,
    /// Plans whose rows are there, and how many these are.
    there: Vec<bool>,
    count: usize,
    /// Where in the file all of them lie, among others.
    lines: Range<u64>,
}

impl Kept {
    /// What the file for a sweep with this key holds of so many plans.
    pub(crate) fn open(place: &Place, key: &str, shard: Option<Shard>, plans: usize) -> Result<Kept> {
        let Some(path) = place.file(key, shard)? else { return Ok(Kept::default()) };
        let mut before: HashMap<u64, Before> = HashMap::new();
        let file = Results::open(&path, key, &mut |digest, row, lines| {
            let new = || Before { digest, there: vec![false; plans], count: 0, lines: lines.clone() };
            let before = before.entry(row.example).or_insert_with(new);
            // A row may be there twice: the first counts.
            if before.there.get(row.plan) == Some(&false) {
                before.there[row.plan] = true;
                before.count += 1;
                before.lines = before.lines.start.min(lines.start)..before.lines.end.max(lines.end);
            }
        });
        let file = file.map_err(|error| results_failure(&error))?;
        Ok(Kept { file: Some(file), before, rows: HashMap::new() })
    }

    /// Whether a row is there.
    pub(crate) fn contains(&self, plan: usize, example: u64) -> bool {
        self.before.get(&example).is_some_and(|before| before.there[plan])
    }

    /// Whether the rows of all plans are there.
    pub(crate) fn is_complete(&self, plans: usize, example: u64) -> bool {
        self.before.get(&example).is_some_and(|before| before.count == plans)
    }

    /// Refuses an example whose number was another's when results were kept.
    pub(crate) fn check(&self, example: &Example) -> Result<()> {
        match self.before.get(&example.number) {
            Some(before) if before.digest != ExampleDigest::of(example) => {
                let message = format!("example {} is not the one whose results are kept", example.number);
                Err(Failure::usage(message).with_help("--no-results computes all anew"))
            }
            _ => Ok(()),
        }
    }

    /// Reads the rows from before of these examples.
    pub(crate) fn read(&mut self, examples: &[u64]) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut known: HashMap<u64, Before> =
            examples.iter().filter_map(|example| Some((*example, self.before.remove(example)?))).collect();
        // Examples that were computed together lie together.
        let mut places: Vec<Range<u64>> = known.values().map(|before| before.lines.clone()).collect();
        places.sort_by_key(|lines| lines.start);
        places.dedup_by(|next, lines| {
            let together = next.start <= lines.end;
            lines.end = if together { lines.end.max(next.end) } else { lines.end };
            together
        });
        for lines in places {
            for row in file.rows(lines).map_err(|error| results_failure(&error))? {
                let there = known.get_mut(&row.example).and_then(|before| before.there.get_mut(row.plan));
                if there.is_some_and(std::mem::take) {
                    self.rows.entry(row.example).or_default().push(row);
                }
            }
        }
        Ok(())
    }

    /// An example's rows from before, once they were read.
    pub(crate) fn take(&mut self, example: u64) -> Vec<Row> {
        self.rows.remove(&example).unwrap_or_default()
    }

    /// New rows, soon on the disk.
    pub(crate) fn append<'r>(&mut self, rows: impl Iterator<Item = (ExampleDigest, &'r Row)>) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.append(rows).map_err(|error| results_failure(&error)))
    }

    /// All rows so far are on the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.sync().map_err(|error| results_failure(&error)))
    }

    /// The file, for people.
    pub(crate) fn path(&self) -> Option<String> {
        self.file.as_ref().map(|file| shown_path(file.path()))
    }
}

/// The user's own place for what programs remember.
fn state_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
    variable("XDG_STATE_HOME").or_else(|| home().map(|home| home.join(".local").join("state")))
}

fn results_failure(error: &ResultsError) -> Failure {
    let exit = match error {
        ResultsError::Io { source, .. } => match Exit::of_io(source) {
            Exit::BadFile if source.kind() == std::io::ErrorKind::PermissionDenied => Exit::Missing,
            exit => exit,
        },
        ResultsError::InUse { .. } => Exit::Missing,
        ResultsError::Key { .. } => Exit::Usage,
        ResultsError::Other { .. } | ResultsError::Damaged { .. } => Exit::BadFile,
    };
    let failure = Failure::new(exit, error.to_string());
    match error {
        ResultsError::Key { .. } => failure.with_help("another file keeps this one's results: --results FILE"),
        ResultsError::Damaged { .. } => failure.with_help("--no-results computes everything without it"),
        _ => failure,
    }
}
