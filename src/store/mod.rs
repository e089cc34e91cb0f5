//! Where results stay: one SQLite file, shared by all sweeps, losses and completions of a user.
//!
//! - [`key`]: what a run is, hashed; the same run is computed once.
//! - `schema`: the tables and their migrations; `number`: an f64 in two columns.
//! - [`Store`]: opening, to write or only to read. [`Recorder`] gives what is there and takes what is new.
//! - [`Experiment`], [`StoredRow`], [`StoredCompletion`]: what reports read.
//! - [`Run`]: a result with all that decides it, to be computed again.
//! - [`Query`]: filters and groups over any field; [`Store::export`]: the same for other programs; [`Store::diff`]: two
//!   experiments side by side.
//! - [`Note`]s and tags; [`Store::collect`]: what nothing refers to goes.
//!
//! **Durability.** Write-ahead log, `synchronous=FULL`, `BEGIN IMMEDIATE`; rows are committed in groups, after 200 ms or 1,000
//! of them, and acknowledged when they are committed: what [`Recorder::sync`] returned from survives `kill -9` and a power cut.
//!
//! **No row says "running".** A row is a result that is there; nothing is claimed beforehand, so that a process that dies leaves
//! nothing to be reclaimed. Two processes that compute the same run at once waste time and agree on one row. Sweeps that share
//! work are told apart by `--shard`.
//!
//! **Reading.** Transactions are short; a report over a store in a folder that can't be written to works, as long as the
//! last writer closed it. The live file is never copied by hand: [`Store::copy_to`] asks SQLite.
//!
//! No tensors here, and no decision what is worth computing.

mod collect;
mod diff;
mod error;
mod export;
mod insert;
pub mod key;
mod notes;
mod number;
mod open;
mod query;
mod read;
mod record;
mod run;
mod schema;
mod sql;
#[cfg(test)]
mod tests;

pub use collect::Collected;
pub use diff::{Difference, PlanDifference, Side};
pub use error::{StoreError, StoreErrorKind};
pub use export::Format;
pub use key::{ModelIdentity, RunKey, Setting};
pub use notes::{Note, NoteKind};
pub use open::Store;
pub use query::{Column, ColumnKind, Query, QueryText, Value};
pub use read::{
    Experiment, ExperimentSummary, Observation, Question, StoredCompletion, StoredPlan, StoredRow, StoredTask,
};
pub use record::{NewCompletion, NewExperiment, NewObservation, Recorder, Source, Wanted};
pub use run::{Asked, Gained, Run, Said};
