//! What nothing refers to goes, and experiments that are given up.

use super::error::StoreError;
use super::open::Store;
use super::read::Experiment;
use rusqlite::{Transaction, params};

/// How much went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Experiments that were given up.
    pub experiments: u64,
    /// Results that were computed for them and belong to no other.
    pub results: u64,
    /// Plans, prompts, examples, questions, tasks, models and observations that nothing refers to.
    pub others: u64,
    /// Bytes of the file before and after.
    pub bytes: (u64, u64),
}

/// Rows that nothing refers to, in an order in which each makes others free.
const UNUSED: [&str; 8] = [
    "DELETE FROM observations WHERE experiment IS NULL
        AND id NOT IN (SELECT observation FROM results) AND id NOT IN (SELECT observation FROM completions)",
    "DELETE FROM questions WHERE id NOT IN (SELECT question FROM experiment_examples)
        AND example NOT IN (SELECT example FROM results)",
    "DELETE FROM tasks WHERE id NOT IN (SELECT task FROM questions WHERE task IS NOT NULL)",
    "DELETE FROM examples WHERE id NOT IN (SELECT example FROM results) AND id NOT IN (SELECT example FROM questions)",
    "DELETE FROM prompts WHERE id NOT IN (SELECT prompt FROM examples) AND id NOT IN (SELECT prompt FROM completions)",
    "DELETE FROM plans WHERE id NOT IN (SELECT plan FROM results) AND id NOT IN (SELECT plan FROM completions)
        AND id NOT IN (SELECT plan FROM experiment_plans) AND id NOT IN (SELECT intact FROM experiments)",
    "DELETE FROM settings WHERE id NOT IN (SELECT setting FROM results)
        AND id NOT IN (SELECT setting FROM completions) AND id NOT IN (SELECT setting FROM experiments)",
    "DELETE FROM models WHERE id NOT IN (SELECT model FROM settings)",
];

impl Store {
    /// Gives experiments up, with the results that were computed for them, unless another experiment has them too or a note
    /// cites them; deletes what nothing refers to; and makes the file as small as it can be. `pretend` only counts.
    ///
    /// # Errors
    /// Where a note cites an experiment that is to go, or the store can't be written to.
    pub fn collect(&self, experiments: &[Experiment], pretend: bool) -> Result<Collected, StoreError> {
        let failed = self.failed("write to");
        let before = self.bytes()?;
        let transaction = self.write()?;
        let mut collected = Collected::default();
        for experiment in experiments {
            let cited = self.notes(Some(experiment))?;
            if let Some(note) = cited.iter().find(|note| note.experiments.contains(&experiment.name)) {
                let message = format!("experiment `{}` stays: note {} cites it", experiment.name, note.id);
                return Err(StoreError::Query(message));
            }
            collected.results += give_up(&transaction, experiment).map_err(&failed)?;
            collected.experiments += 1;
        }
        for sql in UNUSED {
            collected.others += transaction.execute(sql, []).map_err(&failed)? as u64;
        }
        collected.bytes = (before, before);
        if pretend {
            return Ok(collected);
        }
        transaction.commit().map_err(&failed)?;
        if collected.experiments + collected.results + collected.others > 0 {
            self.connection.execute_batch("VACUUM").map_err(&failed)?;
        }
        let checkpoint = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        checkpoint.map_err(&failed)?;
        collected.bytes.1 = self.bytes()?;
        Ok(collected)
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        let bytes: i64 = self.connection.query_row(sql, [], |row| row.get(0)).map_err(self.failed("read"))?;
        Ok(bytes as u64)
    }
}

/// Deletes an experiment and what was computed for it alone; how many results.
fn give_up(transaction: &Transaction<'_>, experiment: &Experiment) -> rusqlite::Result<u64> {
    let id = params![experiment.id];
    transaction.execute("CREATE TEMP TABLE given_up AS SELECT id FROM observations WHERE experiment = ?1", id)?;
    transaction.execute("DELETE FROM experiments WHERE id = ?1", id)?;
    let results = transaction.execute(
        "DELETE FROM results WHERE observation IN (SELECT id FROM given_up)
            AND run_key NOT IN (SELECT run_key FROM note_runs)
            AND NOT EXISTS (SELECT 1 FROM questions q JOIN experiment_examples x ON x.question = q.id
                JOIN experiments e ON e.id = x.experiment
                WHERE q.example = results.example AND e.setting = results.setting AND (e.intact = results.plan
                    OR results.plan IN (SELECT plan FROM experiment_plans p WHERE p.experiment = e.id)))",
        [],
    )?;
    transaction.execute_batch("DROP TABLE given_up")?;
    Ok(results as u64)
}
