//! What is there already of a sweep's results, and where new ones go: the store, or a file that travels.
//!
//! The store is the place for results. A file (`--results`) is for the parts of a sweep that run where no store should be:
//! SQLite's log does not work over a network's file system, and a file of rows is what a job of a cluster can leave behind.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use lesion::plan::Plan;
use lesion::store::Recorder;
use lesion::sweep::{Example, ExampleDigest, Results, ResultsError, Row};

use super::inputs::Placed;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::keep::store_failure;
use crate::cli::model::shown_path;

/// Bytes of memory that a store takes besides what it gives back: pages, statements, rows that wait.
const STORE_MEMORY: usize = 12 << 20;

/// Results from before, and what takes more.
pub(crate) struct Kept {
    place: Place,
    /// Rows by example: of a store those of the examples under way, of a file those that were read again.
    before: HashMap<u64, Vec<Row>>,
    /// Instruction sets that computed rows that were there.
    isas: BTreeSet<String>,
}

enum Place {
    Nowhere,
    File { file: Results, there: HashMap<u64, There> },
    Store(Box<Recorder>),
}

/// What a file holds of an example; its rows stay on the disk until they are asked for.
struct There {
    digest: ExampleDigest,
    /// Whether a plan's row is there, and of how many plans it is.
    plans: Vec<bool>,
    count: usize,
    /// Where in the file all of them lie, among others.
    lines: Range<u64>,
}

impl Kept {
    pub(crate) fn nowhere() -> Kept {
        Kept { place: Place::Nowhere, before: HashMap::new(), isas: BTreeSet::new() }
    }

    pub(crate) fn store(recorder: Recorder) -> Kept {
        Kept { place: Place::Store(Box::new(recorder)), ..Kept::nowhere() }
    }

    /// What the file for a sweep with this key holds of so many plans.
    pub(crate) fn file(path: &Path, key: &str, plans: usize) -> Result<Kept> {
        let mut there: HashMap<u64, There> = HashMap::new();
        let file = Results::open(path, key, &mut |digest, row, lines| {
            let new = || There { digest, plans: vec![false; plans], count: 0, lines: lines.clone() };
            let there = there.entry(row.example).or_insert_with(new);
            // A row may be there twice: the first counts.
            if there.plans.get(row.plan) == Some(&false) {
                there.plans[row.plan] = true;
                there.count += 1;
                there.lines = there.lines.start.min(lines.start)..there.lines.end.max(lines.end);
            }
        });
        let file = file.map_err(|error| results_failure(&error))?;
        Ok(Kept { place: Place::File { file, there }, ..Kept::nowhere() })
    }

    /// Goes on with other plans, which a store alone can: what was expected of the old ones is on the disk and forgotten.
    pub(crate) fn set_plans(&mut self, plans: &[Plan]) -> Result<()> {
        match &mut self.place {
            Place::Nowhere | Place::File { .. } => Ok(()),
            Place::Store(recorder) => recorder.set_plans(plans).map_err(|error| store_failure(&error)),
        }
    }

    /// Bytes that it takes beside the rows of examples under way.
    pub(crate) fn memory(&self, plans: usize) -> usize {
        match &self.place {
            Place::Nowhere | Place::File { .. } => 0,
            Place::Store(_) => STORE_MEMORY + plans * 3 * size_of::<i64>(),
        }
    }

    /// Whether a row is there.
    pub(crate) fn contains(&self, plan: usize, example: u64) -> bool {
        match &self.place {
            Place::Nowhere => false,
            Place::File { there, .. } => there.get(&example).is_some_and(|there| there.plans[plan]),
            Place::Store(_) => {
                let rows = self.before.get(&example);
                rows.is_some_and(|rows| rows.binary_search_by_key(&plan, |row| row.plan).is_ok())
            }
        }
    }

    /// Whether the rows of all plans are there.
    pub(crate) fn is_complete(&self, plans: usize, example: &Example) -> Result<bool> {
        match &self.place {
            Place::Nowhere => Ok(false),
            Place::File { there, .. } => Ok(there.get(&example.number).is_some_and(|there| there.count == plans)),
            Place::Store(recorder) => Ok(recorder.count(example).map_err(|error| store_failure(&error))? == plans),
        }
    }

    /// Rows of an example will come. Refuses one whose number was another's when results were kept.
    pub(crate) fn expect(&mut self, placed: &Placed, groups: &[String]) -> Result<()> {
        let example = &placed.example;
        match &mut self.place {
            Place::File { there, .. } => match there.get(&example.number) {
                Some(there) if there.digest != ExampleDigest::of(example) => {
                    let message = format!("example {} is not the one whose results are kept", example.number);
                    Err(Failure::usage(message).with_help("another file keeps this sweep's results: --results FILE"))
                }
                _ => Ok(()),
            },
            Place::Store(recorder) => {
                let known = recorder.expect(example, placed.source(groups)).map_err(|error| store_failure(&error))?;
                let (rows, isas): (Vec<Row>, Vec<Vec<String>>) = known.into_iter().unzip();
                self.isas.extend(isas.into_iter().flatten());
                if !rows.is_empty() {
                    self.before.insert(example.number, rows);
                }
                Ok(())
            }
            Place::Nowhere => Ok(()),
        }
    }

    /// Reads the rows of these examples that a file holds.
    pub(crate) fn read(&mut self, examples: &[u64]) -> Result<()> {
        let Place::File { file, there } = &mut self.place else { return Ok(()) };
        let mut wanted: HashMap<u64, There> =
            examples.iter().filter_map(|example| Some((*example, there.remove(example)?))).collect();
        // Examples that were computed together lie together.
        let mut places: Vec<Range<u64>> = wanted.values().map(|there| there.lines.clone()).collect();
        places.sort_by_key(|lines| lines.start);
        places.dedup_by(|next, lines| {
            let together = next.start <= lines.end;
            lines.end = if together { lines.end.max(next.end) } else { lines.end };
            together
        });
        for lines in places {
            let taken = file.rows(lines, &mut |row| {
                let there = wanted.get_mut(&row.example).and_then(|there| there.plans.get_mut(row.plan));
                if there.is_some_and(std::mem::take) {
                    self.before.entry(row.example).or_default().push(row);
                }
            });
            taken.map_err(|error| results_failure(&error))?;
        }
        Ok(())
    }

    /// An example's rows from before; those of a file once they were read.
    pub(crate) fn take(&mut self, example: u64) -> Vec<Row> {
        self.before.remove(&example).unwrap_or_default()
    }

    /// New rows, soon on the disk.
    pub(crate) fn append(&mut self, rows: &[Row], digest: &dyn Fn(u64) -> ExampleDigest) -> Result<()> {
        match &mut self.place {
            Place::Nowhere => Ok(()),
            Place::File { file, .. } => {
                let rows = rows.iter().map(|row| (digest(row.example), row));
                file.append(rows).map_err(|error| results_failure(&error))
            }
            Place::Store(recorder) => recorder.append(rows).map_err(|error| store_failure(&error)),
        }
    }

    /// Time has passed: what has waited long enough goes to the disk.
    pub(crate) fn tick(&mut self) -> Result<()> {
        match &mut self.place {
            Place::Nowhere => Ok(()),
            Place::File { file, .. } => file.tick().map_err(|error| results_failure(&error)),
            Place::Store(recorder) => recorder.tick().map_err(|error| store_failure(&error)),
        }
    }

    /// All rows so far are on the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        match &mut self.place {
            Place::Nowhere => Ok(()),
            Place::File { file, .. } => file.sync().map_err(|error| results_failure(&error)),
            Place::Store(recorder) => recorder.sync().map_err(|error| store_failure(&error)),
        }
    }

    /// An example whose rows have been given away.
    pub(crate) fn forget(&mut self, example: u64) {
        if let Place::Store(recorder) = &mut self.place {
            recorder.forget(example);
        }
    }

    /// Ends with what there is on the disk, as something broke off: that, with how to go on.
    pub(crate) fn break_off(self, failure: Failure) -> Failure {
        // It is what is told, also where the disk is the reason and refuses again.
        match self.end(None).ok().and_then(|kept_in| kept_in.shown()) {
            Some(kept_in) if failure.exit == Exit::Interrupted => {
                failure.with_help(format!("results are {kept_in}: the same command goes on from there"))
            }
            _ => failure,
        }
    }

    /// Ends with everything on the disk. `examples` is how many there are in all, where all were seen.
    pub(crate) fn end(mut self, examples: Option<u64>) -> Result<KeptIn> {
        self.sync()?;
        let Kept { place, isas, .. } = self;
        Ok(match place {
            Place::Nowhere => KeptIn::default(),
            Place::File { file, .. } => {
                KeptIn { file: Some(file.path().to_owned()), experiment: None, isas: BTreeSet::new() }
            }
            Place::Store(recorder) => {
                let experiment = recorder.experiment().map(str::to_owned);
                let store = recorder.finish(examples).map_err(|error| store_failure(&error))?;
                KeptIn { file: Some(store.path().to_owned()), experiment, isas }
            }
        })
    }
}

/// Where results have been kept.
#[derive(Default)]
pub(crate) struct KeptIn {
    file: Option<PathBuf>,
    /// The store's name for them.
    pub(crate) experiment: Option<String>,
    /// Instruction sets that computed rows that were there.
    pub(crate) isas: BTreeSet<String>,
}

impl KeptIn {
    /// For people.
    pub(crate) fn shown(&self) -> Option<String> {
        let file = self.file.as_ref().map(|file| shown_path(file))?;
        Some(match &self.experiment {
            Some(experiment) => format!("kept as {experiment} in {file}"),
            None => format!("kept in {file}"),
        })
    }
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
        ResultsError::Damaged { .. } => failure.with_help("another file, or the store, takes new ones"),
        _ => failure,
    }
}
