//! Writing: what is there is given back, what is new is committed in groups.

use super::error::StoreError;
use super::insert::{
    begin_experiment, identity, insert_completion, insert_observation, insert_row, place, plan_ids, setting_id,
};
use super::key::{ExampleKey, Setting, example_hash};
use super::open::Store;
use super::read::row_of;
use super::run::Said;
use crate::forward::Sampling;
use crate::plan::Plan;
use crate::sweep::{Example, Row};
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::Value;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Results that wait for their commit at most, and for how long.
const ROWS: usize = 1_000;
const TIME: Duration = Duration::from_millis(200);

/// The process that writes: decides nothing about results.
#[derive(Clone, Debug)]
pub struct NewObservation<'a> {
    /// The instruction set.
    pub isa: &'a str,
    /// Threads.
    pub threads: usize,
    /// The model, as `--model` named it.
    pub model: &'a str,
    /// The git commit of the source, where it is known.
    pub commit: &'a str,
    /// The machine's name.
    pub host: &'a str,
    /// The arguments of the command.
    pub command: &'a [String],
    /// When it began.
    pub began: Instant,
}

/// An experiment to begin, or to go on with.
#[derive(Clone, Debug)]
pub struct NewExperiment<'a> {
    /// Its name; one made from what it is unless given.
    pub name: Option<&'a str>,
    /// What it is: `sweep`.
    pub kind: &'a str,
    /// Whatever else makes it what it is, for people and reports.
    pub spec: Value,
    /// The number of the plan that others are compared with.
    pub intact: usize,
    /// How many of the plans, the first ones, are its own: the intact model may be there for comparison only.
    pub plans: usize,
}

/// Where an example comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its task or text; none for one that was asked by itself.
    pub task: Option<String>,
    /// Its number there.
    pub number: u64,
    /// The text of the prompt; none for a window of a text, or ids.
    pub prompt: Option<String>,
    /// The text of the answer.
    pub answer: Option<String>,
}

/// What of a row has to be there for it to count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The divergence from the intact model.
    pub divergence: bool,
    /// The losses of single tokens.
    pub token_losses: bool,
}

impl Wanted {
    /// A row with what is wanted and no more; none where it lacks something.
    fn of(self, row: Row) -> Option<Row> {
        let lacks = self.divergence && row.divergence.is_none()
            || self.token_losses && row.token_nll.len() != row.tokens as usize;
        (!lacks).then(|| Row {
            divergence: row.divergence.filter(|_| self.divergence),
            token_nll: if self.token_losses { row.token_nll } else { Vec::new() },
            ..row
        })
    }
}

/// A store that takes results of certain plans under a setting.
///
/// An example is [expected](Recorder::expect), which gives the rows that are there; new ones are
/// [appended](Recorder::append); it is [forgotten](Recorder::forget) when it is complete.
pub struct Recorder {
    store: Store,
    setting: Setting,
    setting_id: i64,
    observation: i64,
    experiment: Option<(i64, String)>,
    wanted: Wanted,
    plans: Vec<Plan>,
    /// Their rows in the store.
    plan_ids: Vec<i64>,
    /// The same, ascending, with the plans' numbers.
    by_id: Vec<(i64, usize)>,
    tasks: HashMap<String, i64>,
    examples: HashMap<u64, UnderWay>,
    /// Examples that are not in the store, or not in the experiment, yet.
    new_examples: Vec<u64>,
    waiting: Vec<Row>,
    completions: Vec<NewCompletion>,
    /// When the first of what waits came.
    since: Option<Instant>,
    began: Instant,
}

/// Keys hash what bridges hold: a plan that doesn't say it has none.
fn check_bound(plans: &[Plan]) -> Result<(), StoreError> {
    let unbound = |plan: &&Plan| plan.bridges().any(|bridge| bridge.content.is_none());
    match plans.iter().find(unbound) {
        Some(plan) => Err(StoreError::Unbound { plan: plan.to_string() }),
        None => Ok(()),
    }
}

/// An example that results are expected of.
struct UnderWay {
    example: Example,
    source: Source,
    key: ExampleKey,
    id: Option<i64>,
}

impl Recorder {
    /// Begins an observation: `plans` are numbered as rows will number them.
    ///
    /// # Errors
    /// Where the store can't be written to, the experiment's name is another's, or a plan's bridge has no content.
    pub fn begin(
        store: Store,
        setting: &Setting,
        plans: &[Plan],
        wanted: Wanted,
        observation: &NewObservation<'_>,
        experiment: Option<&NewExperiment<'_>>,
    ) -> Result<Recorder, StoreError> {
        check_bound(plans)?;
        let failed = store.failed("write to");
        let transaction = store.write()?;
        let setting_id = setting_id(&transaction, setting).map_err(&failed)?;
        let (plan_ids, plans_hash) = plan_ids(&transaction, plans).map_err(&failed)?;
        let begin = |new| {
            let identity = identity(new, setting, &plans_hash);
            begin_experiment(&store, &transaction, new, identity, (setting_id, &plan_ids), observation.command)
        };
        let experiment = experiment.map(begin).transpose()?;
        let id = experiment.as_ref().map(|(id, _)| *id);
        let began = observation.began;
        let observation = insert_observation(&transaction, observation, id).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        drop(failed);
        Ok(Recorder {
            store,
            setting: setting.clone(),
            setting_id,
            observation,
            experiment,
            wanted,
            plans: plans.to_vec(),
            by_id: by_id(&plan_ids),
            plan_ids,
            tasks: HashMap::new(),
            examples: HashMap::new(),
            new_examples: Vec::new(),
            waiting: Vec::new(),
            completions: Vec::new(),
            since: None,
            began,
        })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The experiment's name.
    pub fn experiment(&self) -> Option<&str> {
        self.experiment.as_ref().map(|(_, name)| name.as_str())
    }

    /// Goes on with other plans, of no experiment: what was expected of the old ones is committed and forgotten.
    ///
    /// # Errors
    /// Where the store can't be written to, or a plan's bridge has no content.
    pub fn set_plans(&mut self, plans: &[Plan]) -> Result<(), StoreError> {
        check_bound(plans)?;
        self.sync()?;
        self.examples.clear();
        let failed = self.store.failed("write to");
        let transaction = self.store.write()?;
        let (plan_ids, _) = plan_ids(&transaction, plans).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        self.by_id = by_id(&plan_ids);
        (self.plans, self.plan_ids) = (plans.to_vec(), plan_ids);
        Ok(())
    }

    /// How many of the rows that are wanted of an example are there.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn count(&self, example: &Example) -> Result<usize, StoreError> {
        match self.example_id(example)? {
            Some(id) => Ok(self.rows(id, example.number)?.len()),
            None => Ok(0),
        }
    }

    /// The rows of an example that are there, by plan, each with the instruction sets that computed it. More may follow.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn expect(&mut self, example: &Example, source: Source) -> Result<Vec<(Row, Vec<String>)>, StoreError> {
        let id = self.example_id(example)?;
        let known = id.map_or_else(|| Ok(Vec::new()), |id| self.rows(id, example.number))?;
        if id.is_none() || !self.is_placed(example.number, id, &source)? {
            self.new_examples.push(example.number);
            self.since.get_or_insert_with(Instant::now);
        }
        let key = ExampleKey::new(&self.setting, example);
        self.examples.insert(example.number, UnderWay { example: example.clone(), source, key, id });
        Ok(known)
    }

    /// Takes new rows of examples that are expected; commits them if enough have come, or enough time has passed.
    ///
    /// # Errors
    /// Where the store can't be written to. What was not acknowledged may be lost then.
    ///
    /// # Panics
    /// Where a row is of an example that is not expected, or of a plan that is none of the recorder's.
    pub fn append(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        for row in rows {
            self.waiting.push(row.clone());
            self.since.get_or_insert_with(Instant::now);
            if self.waiting.len() >= ROWS {
                self.sync()?;
            }
        }
        self.tick()
    }

    /// Commits what has waited long enough.
    ///
    /// # Errors
    /// As [`Recorder::append`].
    pub fn tick(&mut self) -> Result<(), StoreError> {
        if self.since.is_some_and(|since| since.elapsed() >= TIME) { self.sync() } else { Ok(()) }
    }

    /// Commits everything: it is acknowledged when this returns.
    ///
    /// # Errors
    /// As [`Recorder::append`].
    pub fn sync(&mut self) -> Result<(), StoreError> {
        if self.since.is_some() { self.commit(|_| Ok(())) } else { Ok(()) }
    }

    /// One transaction with all that waits, and with what else there is to write.
    fn commit(&mut self, also: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), StoreError> {
        let failed = self.store.failed("write to");
        let transaction = self.store.write()?;
        // Rows of a transaction that fails have not been there: what was learned of them is forgotten with it.
        let mut tasks = std::mem::take(&mut self.tasks);
        for number in &self.new_examples {
            let Some(under_way) = self.examples.get_mut(number) else { continue };
            let UnderWay { example, source, id, .. } = under_way;
            let placed = place(&transaction, example, source, &mut tasks).map_err(&failed)?;
            *id = Some(placed.example);
            if let Some((experiment, _)) = &self.experiment {
                let sql = "INSERT OR REPLACE INTO experiment_examples VALUES (?1, ?2, ?3, ?4)";
                let values = params![experiment, *number as i64, placed.question, source.number as i64];
                transaction.prepare_cached(sql).and_then(|mut insert| insert.execute(values)).map_err(&failed)?;
            }
        }
        for row in &self.waiting {
            let under_way = &self.examples[&row.example];
            let example = under_way.id.expect("examples are placed before their rows");
            let key = under_way.key.of(&self.plans[row.plan]);
            let place = (self.setting_id, example, self.plan_ids[row.plan]);
            insert_row(&transaction, row, place, key, self.observation).map_err(&failed)?;
        }
        for completion in &self.completions {
            let (plan, prompt) = (self.plan_ids[completion.plan], &completion.prompt);
            let key = self.setting.completion_key(&self.plans[completion.plan], prompt, &completion.sampling);
            let place = (self.setting_id, plan, self.observation);
            insert_completion(&transaction, completion, place, key).map_err(&failed)?;
        }
        also(&transaction).and_then(|()| transaction.commit()).map_err(&failed)?;
        drop(failed);
        self.tasks = tasks;
        self.new_examples.clear();
        self.waiting.clear();
        self.completions.clear();
        self.since = None;
        Ok(())
    }

    /// An example whose rows have all come, and are committed.
    pub fn forget(&mut self, example: u64) {
        self.examples.remove(&example);
    }

    /// Takes what a plan has said behind a prompt; one that is there already stays.
    ///
    /// # Errors
    /// As [`Recorder::append`].
    pub fn complete(&mut self, completion: NewCompletion) -> Result<(), StoreError> {
        self.completions.push(completion);
        self.since.get_or_insert_with(Instant::now);
        if self.completions.len() >= ROWS { self.sync() } else { self.tick() }
    }

    /// What a plan has said behind a prompt, where that is there already, and committed.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn said(&self, plan: usize, prompt: &[u32], sampling: &Sampling) -> Result<Option<Said>, StoreError> {
        self.store.said(self.setting.completion_key(&self.plans[plan], prompt, sampling))
    }

    /// Commits everything and ends the observation; `examples` is how many the experiment has in all, where all were seen.
    ///
    /// # Errors
    /// As [`Recorder::append`].
    pub fn finish(mut self, examples: Option<u64>) -> Result<Store, StoreError> {
        let (observation, seconds) = (self.observation, self.began.elapsed().as_secs_f64());
        let counted = self.experiment.as_ref().map(|(id, _)| *id).zip(examples);
        self.commit(|transaction| {
            let ended = "UPDATE observations SET seconds = ?2 WHERE id = ?1";
            transaction.execute(ended, params![observation, seconds])?;
            if let Some((experiment, examples)) = counted {
                let values = params![experiment, examples as i64];
                transaction.execute("UPDATE experiments SET examples = ?2 WHERE id = ?1", values)?;
                // A text that has become shorter since.
                let gone = "DELETE FROM experiment_examples WHERE experiment = ?1 AND position >= ?2";
                transaction.execute(gone, values)?;
            }
            Ok(())
        })?;
        Ok(self.store)
    }

    fn example_id(&self, example: &Example) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT id FROM examples WHERE hash = ?1";
        let found = self
            .store
            .connection
            .prepare_cached(sql)
            .and_then(|mut select| select.query_row([example_hash(example)], |row| row.get(0)).optional());
        found.map_err(self.store.failed("read"))
    }

    /// Whether the experiment has an example in its place; without one, whether it is known where the example comes from.
    fn is_placed(&self, number: u64, id: Option<i64>, source: &Source) -> Result<bool, StoreError> {
        let Some((experiment, _)) = &self.experiment else {
            let sql = "SELECT 1 FROM questions q LEFT JOIN tasks t ON t.id = q.task
                WHERE q.example = ?1 AND (?2 IS NULL OR t.name = ?2) LIMIT 1";
            return Ok(self.store.one(sql, params![id, source.task], |_| Ok(()))?.is_some());
        };
        let sql = "SELECT q.example, t.name, e.number FROM experiment_examples e JOIN questions q ON q.id = e.question
            LEFT JOIN tasks t ON t.id = q.task WHERE e.experiment = ?1 AND e.position = ?2";
        let found = self.store.connection.prepare_cached(sql).and_then(|mut select| {
            let there = |row: &rusqlite::Row<'_>| {
                let (example, task, number): (i64, Option<String>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Some(example) == id && task == source.task && number as u64 == source.number)
            };
            select.query_row(params![experiment, number as i64], there).optional()
        });
        Ok(found.map_err(self.store.failed("read"))?.unwrap_or(false))
    }

    /// The rows of an example that hold what is wanted.
    fn rows(&self, id: i64, number: u64) -> Result<Vec<(Row, Vec<String>)>, StoreError> {
        let sql = "SELECT r.plan, r.tokens, r.nll, r.nll_class, r.top1, r.first_rank, r.entropy, r.entropy_class, r.kl,
            r.kl_class, r.non_finite, r.token_nll, o.isa, k.isa, t.isa
            FROM results r JOIN observations o ON o.id = r.observation LEFT JOIN gains g ON g.run_key = r.run_key
            LEFT JOIN observations k ON k.id = g.kl LEFT JOIN observations t ON t.id = g.token_nll
            WHERE r.setting = ?1 AND r.example = ?2";
        let failed = self.store.failed("read");
        let mut select = self.store.connection.prepare_cached(sql).map_err(&failed)?;
        let mut found = select.query([self.setting_id, id]).map_err(&failed)?;
        let mut rows = Vec::new();
        while let Some(columns) = found.next().map_err(&failed)? {
            let plan = columns.get(0).map_err(&failed)?;
            let from = self.by_id.partition_point(|(id, _)| *id < plan);
            // The intact model may be among the plans twice: asked for, and to compare with.
            let numbers = self.by_id[from..].iter().take_while(|(id, _)| *id == plan).map(|(_, number)| *number);
            for plan in numbers {
                let Some(row) = row_of(columns).map_err(&failed)? else {
                    return Err(self.store.damaged(format!("a result of plan {} is no number", self.plans[plan])));
                };
                if let Some(row) = self.wanted.of(Row { plan, example: number, ..row }) {
                    let isa = |column: usize| columns.get::<_, Option<String>>(column).map_err(&failed);
                    let gained = [self.wanted.divergence.then_some(13), self.wanted.token_losses.then_some(14)];
                    let mut isas: Vec<String> = isa(12)?.into_iter().collect();
                    for column in gained.into_iter().flatten() {
                        isas.extend(isa(column)?);
                    }
                    isas.dedup();
                    rows.push((row, isas));
                }
            }
        }
        rows.sort_by_key(|(row, _)| row.plan);
        Ok(rows)
    }
}

/// Plans' rows, ascending, with the plans' numbers.
fn by_id(plan_ids: &[i64]) -> Vec<(i64, usize)> {
    let mut by_id: Vec<(i64, usize)> = plan_ids.iter().copied().zip(0..).collect();
    by_id.sort_unstable();
    by_id
}

/// What a plan, by its number, has said behind a prompt.
#[derive(Clone, Debug)]
pub struct NewCompletion {
    /// The plan's number.
    pub plan: usize,
    /// The prompt's ids.
    pub prompt: Vec<u32>,
    /// The prompt's text; none where it was given as ids.
    pub prompt_text: Option<String>,
    /// How it was drawn.
    pub sampling: Sampling,
    /// What was said.
    pub ids: Vec<u32>,
    /// The same as text; none where the prompt was given as ids.
    pub text: Option<String>,
    /// Why it ended.
    pub finish: &'static str,
}

impl Store {
    /// A transaction that may write.
    pub(super) fn write(&self) -> Result<Transaction<'_>, StoreError> {
        // Unchecked: the connection is borrowed, and nothing here nests transactions.
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate).map_err(self.failed("write to"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Gained;
    use super::super::tests::{Folder, KL, begin, begin_on, count, example, plans, row, setting, source};
    use super::*;

    /// The bits that a row gains may be another instruction set's: it is said which one's.
    #[test]
    fn what_is_gained_has_its_own_process() {
        let folder = Folder::new();
        let expect = |recorder: &mut Recorder| recorder.expect(&example(0), source(0)).unwrap();
        let mut first = begin(folder.store(), Wanted::default(), None).unwrap();
        expect(&mut first);
        first.append(&[Row { divergence: None, ..row(1, 0) }]).unwrap();
        let mut second = begin_on(first.finish(None).unwrap(), KL, None, "portable").unwrap();
        assert!(expect(&mut second).is_empty());
        second.append(&[Row { nll: 9.0, divergence: Some(0.5), ..row(1, 0) }]).unwrap();
        let mut third = begin_on(second.finish(None).unwrap(), KL, None, "avx512").unwrap();
        let there = expect(&mut third);
        let [(there, isas)] = &there[..] else { panic!("one row: {there:?}") };
        assert_eq!(
            (there.nll, there.divergence, &isas[..]),
            (row(1, 0).nll, Some(0.5), &["avx2", "portable"].map(String::from)[..])
        );
        let mut fourth = begin_on(third.finish(None).unwrap(), Wanted::default(), None, "avx512").unwrap();
        assert_eq!(expect(&mut fourth)[0].1, ["avx2"], "of what is wanted alone");
        let store = fourth.finish(None).unwrap();
        store.collect(&[], false).unwrap();
        let run = store.run(setting().run_key(&plans()[1], &example(0))).unwrap();
        let gained = Gained { divergence: Some("portable".to_owned()), token_losses: None };
        assert_eq!((run.observation.isa.as_str(), run.gained), ("avx2", gained));
    }

    /// A transaction that fails leaves nothing behind, not in memory either: another process may have taken its numbers.
    #[test]
    fn a_commit_that_failed_is_done_anew() {
        let folder = Folder::new();
        let mut recorder = begin(folder.store(), KL, None).unwrap();
        let _ = recorder.expect(&example(0), source(0)).unwrap();
        let broken = "CREATE TEMP TRIGGER broken BEFORE INSERT ON results BEGIN SELECT RAISE(ABORT, 'no'); END";
        recorder.store().connection.execute_batch(broken).unwrap();
        assert!(recorder.append(&[row(0, 0)]).and_then(|()| recorder.sync()).is_err());
        recorder.store().connection.execute_batch("DROP TRIGGER broken").unwrap();
        folder.store().connection.execute("INSERT INTO tasks (name) VALUES ('another')", []).unwrap();
        let store = recorder.finish(Some(1)).unwrap();
        let sql = "SELECT t.name FROM questions q JOIN tasks t ON t.id = q.task";
        let task: String = store.connection.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!((task.as_str(), count(&store, "results")), ("sums", 1));
    }
}
