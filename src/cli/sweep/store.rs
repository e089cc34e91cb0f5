//! Where the results of a sweep are kept, and what is there already, so that an interrupted one goes on.

use std::collections::HashMap;
use std::fs;
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
    /// By example; rows by plan.
    before: HashMap<u64, (ExampleDigest, Vec<Row>)>,
}

impl Kept {
    /// What the file for a sweep with this key holds of so many plans.
    pub(crate) fn open(place: &Place, key: &str, shard: Option<Shard>, plans: usize) -> Result<Kept> {
        let Some(path) = place.file(key, shard)? else { return Ok(Kept::default()) };
        let mut before = HashMap::new();
        let file = Results::open(&path, key, &mut |digest, row| {
            if row.plan < plans {
                before.entry(row.example).or_insert_with(|| (digest, Vec::new())).1.push(row);
            }
        });
        let file = file.map_err(|error| results_failure(&error))?;
        for (_, rows) in before.values_mut() {
            rows.sort_by_key(|row| row.plan);
            rows.dedup_by_key(|row| row.plan);
        }
        Ok(Kept { file: Some(file), before })
    }

    /// Whether a row is there.
    pub(crate) fn contains(&self, plan: usize, example: u64) -> bool {
        self.before.get(&example).is_some_and(|(_, rows)| rows.binary_search_by_key(&plan, |row| row.plan).is_ok())
    }

    /// Whether the rows of all plans are there.
    pub(crate) fn is_complete(&self, plans: usize, example: u64) -> bool {
        self.before.get(&example).is_some_and(|(_, rows)| rows.len() == plans)
    }

    /// Refuses an example whose number was another's when results were kept.
    pub(crate) fn check(&self, example: &Example) -> Result<()> {
        match self.before.get(&example.number) {
            Some((digest, _)) if *digest != ExampleDigest::of(example) => {
                let message = format!("example {} is not the one whose results are kept", example.number);
                Err(Failure::usage(message).with_help("--no-results computes all anew"))
            }
            _ => Ok(()),
        }
    }

    /// An example's rows from before.
    pub(crate) fn take(&mut self, example: u64) -> Vec<Row> {
        self.before.remove(&example).map_or_else(Vec::new, |(_, rows)| rows)
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
