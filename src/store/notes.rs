//! Notes, which cite runs and experiments that exist, and tags of experiments.

use super::error::StoreError;
use super::key::RunKey;
use super::open::Store;
use super::read::{Experiment, parsed, unknown};
use rusqlite::params;
use std::fmt;
use std::str::FromStr;

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    /// An experiment.
    Experiment,
    /// A task.
    Task,
    /// What was seen.
    Observation,
    /// What might be the case.
    Hypothesis,
}

impl NoteKind {
    const ALL: [NoteKind; 4] = [NoteKind::Experiment, NoteKind::Task, NoteKind::Observation, NoteKind::Hypothesis];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            NoteKind::Experiment => "experiment",
            NoteKind::Task => "task",
            NoteKind::Observation => "observation",
            NoteKind::Hypothesis => "hypothesis",
        }
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NoteKind {
    type Err = String;

    fn from_str(text: &str) -> Result<NoteKind, String> {
        let known = NoteKind::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| "expected experiment, task, observation or hypothesis".to_owned())
    }
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its number.
    pub id: i64,
    /// What it is about.
    pub kind: NoteKind,
    /// Its text: as it was written, to be shown as text.
    pub text: String,
    /// When it was written: UTC, ISO 8601.
    pub created: String,
    /// The experiments that it cites, by name.
    pub experiments: Vec<String>,
    /// The runs that it cites.
    pub runs: Vec<RunKey>,
}

impl Store {
    /// Takes a note; its number.
    ///
    /// # Errors
    /// Where it has no text, cites what is not there, or the store can't be written to.
    pub fn add_note(
        &self,
        kind: NoteKind,
        text: &str,
        experiments: &[Experiment],
        runs: &[RunKey],
    ) -> Result<i64, StoreError> {
        if text.trim().is_empty() {
            return Err(StoreError::Query("a note needs a text".to_owned()));
        }
        let failed = self.failed("write to");
        let transaction = self.write()?;
        let sql = "INSERT INTO notes (kind, text, created)
            VALUES (?1, ?2, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) RETURNING id";
        let id = transaction.query_row(sql, params![kind.name(), text], |row| row.get(0)).map_err(&failed)?;
        for experiment in experiments {
            let sql = "INSERT OR IGNORE INTO note_experiments VALUES (?1, ?2)";
            transaction.execute(sql, params![id, experiment.id]).map_err(&failed)?;
        }
        for run in runs {
            let sql = "SELECT 1 FROM results WHERE run_key = ?1 UNION ALL SELECT 1 FROM completions WHERE run_key = ?1";
            if self.one(sql, [run.0], |_| Ok(()))?.is_none() {
                return Err(unknown("run", &run.to_string(), &[]));
            }
            let sql = "INSERT OR IGNORE INTO note_runs VALUES (?1, ?2)";
            transaction.execute(sql, params![id, run.0]).map_err(&failed)?;
        }
        transaction.commit().map_err(&failed)?;
        Ok(id)
    }

    /// Deletes a note.
    ///
    /// # Errors
    /// Where there is none of this number, or the store can't be written to.
    pub fn remove_note(&self, id: i64) -> Result<(), StoreError> {
        let failed = self.failed("write to");
        let transaction = self.write()?;
        let gone = transaction.execute("DELETE FROM notes WHERE id = ?1", [id]).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        if gone == 0 { Err(unknown("note", &id.to_string(), &[])) } else { Ok(()) }
    }

    /// Notes, the oldest first: all, or those that cite an experiment or a result of it.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn notes(&self, experiment: Option<&Experiment>) -> Result<Vec<Note>, StoreError> {
        let sql = "SELECT n.id, n.kind, n.text, n.created,
                (SELECT json_group_array(e.name ORDER BY e.name) FROM note_experiments c
                    JOIN experiments e ON e.id = c.experiment WHERE c.note = n.id),
                (SELECT json_group_array(lower(hex(c.run_key)) ORDER BY c.run_key) FROM note_runs c WHERE c.note = n.id)
            FROM notes n
            WHERE ?1 IS NULL OR n.id IN (SELECT note FROM note_experiments WHERE experiment = ?1)
                OR EXISTS (SELECT 1 FROM note_runs c JOIN results r ON r.run_key = c.run_key
                    JOIN questions q ON q.example = r.example
                    JOIN experiment_examples x ON x.question = q.id AND x.experiment = ?1
                    WHERE c.note = n.id AND r.setting = ?2
                        AND (r.plan = ?3 OR r.plan IN (SELECT plan FROM experiment_plans WHERE experiment = ?1)))
            ORDER BY n.id";
        let of = experiment.map(|experiment| (experiment.id, experiment.setting, experiment.intact.id));
        let values = params![of.map(|of| of.0), of.map(|of| of.1), of.map(|of| of.2)];
        self.all(sql, values, |row| {
            let invalid = |column: usize| {
                move |error: String| {
                    let text = rusqlite::types::Type::Text;
                    rusqlite::Error::FromSqlConversionFailure(column, text, error.into())
                }
            };
            let runs: Vec<String> = parsed(row, 5)?;
            Ok(Note {
                id: row.get(0)?,
                kind: row.get::<_, String>(1)?.parse().map_err(invalid(1))?,
                text: row.get(2)?,
                created: row.get(3)?,
                experiments: parsed(row, 4)?,
                runs: runs.iter().map(|run| run.parse()).collect::<Result<_, _>>().map_err(invalid(5))?,
            })
        })
    }

    /// Gives an experiment a tag, or takes it away; whether that changed anything.
    ///
    /// # Errors
    /// Where the tag is empty or holds control characters, or the store can't be written to.
    pub fn tag(&self, experiment: &Experiment, tag: &str, there: bool) -> Result<bool, StoreError> {
        if tag.trim().is_empty() || tag.chars().any(char::is_control) {
            return Err(StoreError::Query(format!("tag `{}`: expected a word or more", tag.escape_debug())));
        }
        let sql = match there {
            true => "INSERT OR IGNORE INTO tags VALUES (?1, ?2)",
            false => "DELETE FROM tags WHERE experiment = ?1 AND tag = ?2",
        };
        let failed = self.failed("write to");
        let transaction = self.write()?;
        let changed = transaction.execute(sql, params![experiment.id, tag]).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        Ok(changed > 0)
    }
}
