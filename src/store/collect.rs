//! What nothing refers to goes, and experiments that are given up.

use super::error::StoreError;
use super::open::Store;
use super::read::Experiment;
use rusqlite::Transaction;

/// How much went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Experiments that were given up.
    pub experiments: u64,
    /// Results that were computed for them and belong to no other.
    pub results: u64,
    /// Plans, prompts, examples, questions, tasks, models and observations that nothing refers to.
    pub others: u64,
    /// Whether those stay for now: a process without an experiment may be about to refer to some of them. It has begun
    /// within a day and has not ended.
    pub spared: bool,
    /// Bytes of the file before and after.
    pub bytes: (u64, u64),
}

/// Whether a process may be running whose rows nothing refers to yet. Those of an experiment are held by it.
const MAY_BE_RUNNING: &str = "SELECT EXISTS (SELECT 1 FROM observations WHERE experiment IS NULL AND seconds IS NULL
    AND started > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day'))";

/// Rows that nothing refers to, in an order in which each makes others free.
const UNUSED: [&str; 8] = [
    "DELETE FROM observations WHERE experiment IS NULL
        AND id NOT IN (SELECT observation FROM results) AND id NOT IN (SELECT observation FROM completions)
        AND id NOT IN (SELECT kl FROM gains WHERE kl IS NOT NULL)
        AND id NOT IN (SELECT token_nll FROM gains WHERE token_nll IS NOT NULL)",
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
        for experiment in experiments {
            let cited = self.notes(Some(experiment))?;
            if let Some(note) = cited.iter().find(|note| note.experiments.contains(&experiment.name)) {
                let message = format!("experiment `{}` stays: note {} cites it", experiment.name, note.id);
                return Err(StoreError::Query(message));
            }
        }
        let spared = transaction.query_row(MAY_BE_RUNNING, [], |row| row.get(0)).map_err(&failed)?;
        let mut collected = give_up(&transaction, experiments).map_err(&failed)?;
        collected.spared = spared;
        if !collected.spared {
            for sql in UNUSED {
                collected.others += transaction.execute(sql, []).map_err(&failed)? as u64;
            }
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

/// The experiments that have a row of `results`.
const OF_AN_EXPERIMENT: &str = "SELECT e.id FROM questions q JOIN experiment_examples x ON x.question = q.id
    JOIN experiments e ON e.id = x.experiment
    WHERE q.example = results.example AND e.setting = results.setting AND (e.intact = results.plan
        OR results.plan IN (SELECT plan FROM experiment_plans p WHERE p.experiment = e.id))";

/// Deletes experiments and what was computed for them alone. A process of theirs with results that another experiment has
/// becomes that one's, so that they go with it.
fn give_up(transaction: &Transaction<'_>, experiments: &[Experiment]) -> rusqlite::Result<Collected> {
    transaction.execute_batch("CREATE TEMP TABLE given_up (id INTEGER PRIMARY KEY)")?;
    let mut gone = 0;
    for Experiment { id, .. } in experiments {
        let sql = "INSERT OR IGNORE INTO given_up SELECT id FROM observations WHERE experiment = ?1";
        transaction.execute(sql, [id])?;
        gone += transaction.execute("DELETE FROM experiments WHERE id = ?1", [id])? as u64;
    }
    let sql = format!(
        "DELETE FROM results WHERE observation IN (SELECT id FROM given_up)
            AND run_key NOT IN (SELECT run_key FROM note_runs) AND NOT EXISTS ({OF_AN_EXPERIMENT})"
    );
    let results = transaction.execute(&sql, [])? as u64;
    let sql = format!(
        "UPDATE observations SET experiment = (SELECT heir FROM (SELECT ({OF_AN_EXPERIMENT} LIMIT 1) AS heir FROM results
            WHERE results.observation = observations.id) WHERE heir IS NOT NULL LIMIT 1)
         WHERE id IN (SELECT id FROM given_up) AND id IN (SELECT observation FROM results)"
    );
    transaction.execute(&sql, [])?;
    let sql = format!("{} AND id IN (SELECT id FROM given_up)", UNUSED[0]);
    let processes = transaction.execute(&sql, [])? as u64;
    transaction.execute_batch("DROP TABLE given_up")?;
    Ok(Collected { experiments: gone, results, others: processes, ..Collected::default() })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, KL, begin, count, example, filled, plans, row, setting, source};
    use super::super::{NewObservation, Recorder};
    use std::time::Instant;

    #[test]
    fn shared_results_go_with_the_last_experiment() {
        for together in [true, false] {
            let folder = Folder::new();
            let (store, name) = filled(&folder);
            let mut second = begin(store, KL, Some("second")).unwrap();
            for number in 0..4 {
                let _ = second.expect(&example(number), source(number)).unwrap();
            }
            let store = second.finish(Some(4)).unwrap();
            let both = [&name, "second"].map(|name| store.experiment(name).unwrap());
            if together {
                assert_eq!(store.collect(&both, false).unwrap().results, 24);
            } else {
                assert_eq!(store.collect(&both[..1], false).unwrap().results, 12);
                assert_eq!(store.experiment("second").unwrap().observations.len(), 2, "whose results it has");
                assert_eq!(store.collect(&both[1..], false).unwrap().results, 12);
            }
            for table in ["results", "experiments", "plans", "examples", "observations", "models"] {
                assert_eq!(count(&store, table), 0, "{table}");
            }
        }
    }

    /// What a process holds, and nothing refers to yet, is not taken from under it.
    #[test]
    fn a_process_that_may_be_running_is_not_disturbed() {
        let folder = Folder::new();
        let begin = || {
            let (isa, command, began) = ("avx2", &[][..], Instant::now());
            let observation = NewObservation { isa, threads: 1, model: "toy", commit: "", host: "", command, began };
            Recorder::begin(folder.store(), &setting(), &plans(), KL, &observation, None).unwrap()
        };
        let mut recorder = begin();
        let store = folder.store();
        let collected = store.collect(&[], false).unwrap();
        assert_eq!((collected.spared, collected.others), (true, 0));
        let _ = recorder.expect(&example(0), source(0)).unwrap();
        recorder.append(&[row(0, 0)]).unwrap();
        recorder.finish(None).unwrap();
        // Two of three plans have no result.
        let collected = store.collect(&[], false).unwrap();
        assert_eq!((collected.spared, collected.others), (false, 2));
        // One that began long ago was killed.
        drop(begin());
        let sql = "UPDATE observations SET started = '2020-01-01T00:00:00.000Z' WHERE seconds IS NULL";
        assert_eq!(store.connection.execute(sql, []).unwrap(), 1);
        let collected = store.collect(&[], false).unwrap();
        assert_eq!((collected.spared, collected.others), (false, 3));
    }
}
