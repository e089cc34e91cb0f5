//! Reading: experiments, their plans, questions, results and completions, as plain data.

use super::error::StoreError;
use super::key::RunKey;
use super::number;
use super::open::Store;
use crate::plan::Plan;
use crate::sweep::Row;
use rusqlite::{OptionalExtension, params};
use serde_json::Value;
use std::collections::HashMap;

/// An experiment in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentSummary {
    /// Its name.
    pub name: String,
    /// What it is: `sweep`.
    pub kind: String,
    /// The model's name.
    pub model: String,
    /// When it was begun: UTC, ISO 8601.
    pub created: String,
    /// Its plans.
    pub plans: u64,
    /// Its examples so far.
    pub examples: u64,
    /// Its examples in all, once all have been seen.
    pub expected_examples: Option<u64>,
    /// Whether its last process ended by itself.
    pub ended: bool,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// Notes that cite it.
    pub notes: u64,
}

impl ExperimentSummary {
    /// Whether all of it has been run: an interrupted process, too, ends by itself, but has not seen all examples.
    pub fn is_complete(&self) -> bool {
        self.ended && self.expected_examples == Some(self.examples)
    }
}

/// An experiment: what was run, with what.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    pub(super) id: i64,
    pub(super) setting: i64,
    /// Its name.
    pub name: String,
    /// What it is: `sweep`.
    pub kind: String,
    /// The model's name.
    pub model: String,
    /// SHA-256 of configuration and weights, hex.
    pub weights: String,
    /// SHA-256 of `tokenizer.json`, hex; none where it has none.
    pub tokenizer: Option<String>,
    /// The model's layers.
    pub n_layer: usize,
    /// Heads of a layer.
    pub n_head: usize,
    /// Tokens that there are: `ln vocab_size` is what a model that knows nothing loses.
    pub vocab_size: usize,
    /// How products were computed: `f32`, `bf16`, …
    pub arithmetic: String,
    /// The version of the bits.
    pub numerics_version: u32,
    /// Whatever else makes it what it is: for a sweep `families` (their texts), `sources`, `bos`, …
    pub spec: Value,
    /// The arguments that reproduce it, the program's name aside.
    pub command: Vec<String>,
    /// When it was begun: UTC, ISO 8601.
    pub created: String,
    /// Its plans, in their order.
    pub plans: Vec<StoredPlan>,
    /// The intact model, among the plans or not.
    pub intact: StoredPlan,
    /// Its tasks and texts, in the order of their first examples.
    pub tasks: Vec<StoredTask>,
    /// Its examples in all, once all have been seen.
    pub expected_examples: Option<u64>,
    /// The processes that computed it, the oldest first.
    pub observations: Vec<Observation>,
    /// Its tags, sorted.
    pub tags: Vec<String>,
}

/// A plan of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPlan {
    pub(super) id: i64,
    /// The canonical text.
    pub text: String,
    /// Its steps.
    pub plan: Plan,
    /// Block evaluations.
    pub blocks: f64,
}

/// A task or text of an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTask {
    pub(super) id: Option<i64>,
    /// Its name.
    pub name: String,
    /// Its examples in the experiment, so far.
    pub examples: u64,
}

/// A process that wrote results.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When it began: UTC, ISO 8601.
    pub started: String,
    /// How long it took; none where it has not ended, or was killed.
    pub seconds: Option<f64>,
    /// The machine's name.
    pub host: String,
    /// The version of lesion.
    pub version: String,
    /// The git commit of the source, where it was known.
    pub commit: Option<String>,
    /// The instruction set.
    pub isa: String,
    /// Threads.
    pub threads: usize,
    /// The model, as `--model` named it.
    pub model: String,
    /// Its arguments.
    pub command: Vec<String>,
}

/// A question of an experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its position among all examples: [`StoredRow::example`] names it.
    pub example: u64,
    /// Its task's place in [`Experiment::tasks`].
    pub task: usize,
    /// Its number in the task.
    pub number: u64,
    /// The prompt's text; none for a window of a text.
    pub prompt: Option<String>,
    /// The answer's text.
    pub answer: Option<String>,
    /// The prompt's tokens, BOS included.
    pub prompt_ids: Vec<u32>,
    /// The scored tokens.
    pub answer_ids: Vec<u32>,
}

/// A result: a plan on an example.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    /// The plan's place in [`Experiment::plans`]; none for the intact model, where it is not one of them.
    pub plan: Option<usize>,
    /// The example's position among all.
    pub example: u64,
    /// The task's place in [`Experiment::tasks`].
    pub task: usize,
    /// The measures; `plan` and `example` in it are 0.
    pub row: Row,
    /// Its key.
    pub key: RunKey,
}

/// What a plan said behind a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCompletion {
    /// The plan's place in [`Experiment::plans`]; none for the intact model, where it is not one of them.
    pub plan: Option<usize>,
    /// The position among all examples of the first one with this prompt.
    pub example: u64,
    /// The prompt's text.
    pub prompt: Option<String>,
    /// How it was drawn.
    pub sampling: Value,
    /// What was said, as tokens.
    pub ids: Vec<u32>,
    /// The same as text; none where the prompt was given as ids.
    pub text: Option<String>,
    /// Why it ended: `length`, `stop`, `context`, `end-of-text`, `not-a-number`.
    pub finish: String,
    /// Its key.
    pub key: RunKey,
}

/// The measures in columns that begin `plan, tokens, nll, nll_class, top1, first_rank, entropy, entropy_class, kl, kl_class,
/// non_finite, token_nll`, without plan and example; none where a number is none.
pub(super) fn row_of(columns: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Row>> {
    let nll = number::value(columns.get(2)?, columns.get(3)?);
    let entropy = number::value(columns.get(6)?, columns.get(7)?);
    let divergence = match columns.get::<_, Option<i64>>(9)? {
        None => Some(None),
        Some(class) => number::value(columns.get(8)?, class).map(Some),
    };
    let (Some(nll), Some(entropy), Some(divergence)) = (nll, entropy, divergence) else { return Ok(None) };
    let token_nll: Option<Vec<u8>> = columns.get(11)?;
    Ok(Some(Row {
        plan: 0,
        example: 0,
        tokens: columns.get(1)?,
        nll,
        top1: columns.get(4)?,
        first_rank: columns.get(5)?,
        entropy,
        divergence,
        non_finite: columns.get(10)?,
        token_nll: token_nll.map_or_else(Vec::new, |bytes| number::values(&bytes)),
    }))
}

impl Store {
    /// All experiments, the newest first.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn experiments(&self) -> Result<Vec<ExperimentSummary>, StoreError> {
        let sql = "SELECT e.name, e.kind, m.name, e.created,
                (SELECT count(*) FROM experiment_plans p WHERE p.experiment = e.id),
                (SELECT count(*) FROM experiment_examples x WHERE x.experiment = e.id),
                e.examples,
                (SELECT o.seconds IS NOT NULL FROM observations o WHERE o.experiment = e.id ORDER BY o.id DESC LIMIT 1),
                (SELECT json_group_array(tag ORDER BY tag) FROM tags t WHERE t.experiment = e.id),
                (SELECT count(*) FROM note_experiments n WHERE n.experiment = e.id)
            FROM experiments e JOIN settings s ON s.id = e.setting JOIN models m ON m.id = s.model
            ORDER BY e.created DESC, e.id DESC";
        let summary = |row: &rusqlite::Row<'_>| {
            Ok(ExperimentSummary {
                name: row.get(0)?,
                kind: row.get(1)?,
                model: row.get(2)?,
                created: row.get(3)?,
                plans: count(row, 4)?,
                examples: count(row, 5)?,
                expected_examples: row.get::<_, Option<i64>>(6)?.map(|count| count as u64),
                ended: row.get::<_, Option<bool>>(7)?.unwrap_or(false),
                tags: parsed(row, 8)?,
                notes: count(row, 9)?,
            })
        };
        self.all(sql, [], summary)
    }

    /// An experiment by its name, or by the beginning of it where only one begins so.
    ///
    /// # Errors
    /// Where there is none, or several.
    pub fn experiment(&self, name: &str) -> Result<Experiment, StoreError> {
        let names: Vec<String> = self.all(
            "SELECT name FROM experiments WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
            [name],
            |row| row.get(0),
        )?;
        let found = match (names.iter().find(|known| *known == name), &names[..]) {
            (Some(exact), _) => exact,
            (None, [only]) => only,
            (None, []) => {
                let known = self.all("SELECT name FROM experiments ORDER BY id DESC LIMIT 5", [], |row| row.get(0))?;
                return Err(unknown("experiment", name, &known));
            }
            (None, several) => return Err(unknown("single experiment", name, several)),
        };
        self.experiment_named(found)
    }

    fn experiment_named(&self, name: &str) -> Result<Experiment, StoreError> {
        let sql = "SELECT e.id, e.setting, e.name, e.kind, m.name, m.weights, m.tokenizer, m.n_layer, m.n_head,
                m.vocab_size, s.arithmetic, s.numerics_version, e.spec, e.command, e.created, e.examples, e.intact
            FROM experiments e JOIN settings s ON s.id = e.setting JOIN models m ON m.id = s.model WHERE e.name = ?1";
        let failed = self.failed("read");
        let (mut experiment, intact) = self
            .connection
            .query_row(sql, [name], |row| {
                let tokenizer: String = row.get(6)?;
                let intact = row.get::<_, i64>(16)?;
                let experiment = Experiment {
                    id: row.get(0)?,
                    setting: row.get(1)?,
                    name: row.get(2)?,
                    kind: row.get(3)?,
                    model: row.get(4)?,
                    weights: row.get(5)?,
                    tokenizer: (!tokenizer.is_empty()).then_some(tokenizer),
                    n_layer: count(row, 7)? as usize,
                    n_head: count(row, 8)? as usize,
                    vocab_size: count(row, 9)? as usize,
                    arithmetic: row.get(10)?,
                    numerics_version: row.get(11)?,
                    spec: parsed(row, 12)?,
                    command: parsed(row, 13)?,
                    created: row.get(14)?,
                    plans: Vec::new(),
                    intact: StoredPlan { id: intact, text: String::new(), plan: Plan::none(), blocks: 0.0 },
                    tasks: Vec::new(),
                    expected_examples: row.get::<_, Option<i64>>(15)?.map(|count| count as u64),
                    observations: Vec::new(),
                    tags: Vec::new(),
                };
                Ok((experiment, intact))
            })
            .map_err(failed)?;
        let plan = |row: &rusqlite::Row<'_>| {
            Ok(StoredPlan { id: row.get(0)?, text: row.get(1)?, plan: parsed(row, 2)?, blocks: row.get(3)? })
        };
        let columns = "p.id, p.text, p.steps, p.blocks";
        let sql = format!(
            "SELECT {columns} FROM experiment_plans e JOIN plans p ON p.id = e.plan WHERE e.experiment = ?1 ORDER BY e.position"
        );
        experiment.plans = self.all(&sql, [experiment.id], plan)?;
        let sql = format!("SELECT {columns} FROM plans p WHERE p.id = ?1");
        experiment.intact = self.connection.query_row(&sql, [intact], plan).map_err(self.failed("read"))?;
        let sql = "SELECT q.task, ifnull(t.name, ''), count(*) FROM experiment_examples e
            JOIN questions q ON q.id = e.question LEFT JOIN tasks t ON t.id = q.task
            WHERE e.experiment = ?1 GROUP BY q.task ORDER BY min(e.position)";
        experiment.tasks = self.all(sql, [experiment.id], |row| {
            Ok(StoredTask { id: row.get(0)?, name: row.get(1)?, examples: count(row, 2)? })
        })?;
        experiment.observations = self.observations(experiment.id)?;
        let sql = "SELECT tag FROM tags WHERE experiment = ?1 ORDER BY tag";
        experiment.tags = self.all(sql, [experiment.id], |row| row.get(0))?;
        Ok(experiment)
    }

    /// The processes that computed an experiment, the oldest first.
    fn observations(&self, experiment: i64) -> Result<Vec<Observation>, StoreError> {
        let sql = "SELECT started, seconds, host, version, git_commit, isa, threads, model, command FROM observations
            WHERE experiment = ?1 ORDER BY id";
        self.all(sql, [experiment], |row| observation_of(row, 0))
    }

    /// The questions of an experiment, in their order.
    ///
    /// # Errors
    /// Where the store can't be read; whatever `take` returns.
    pub fn questions<E: From<StoreError>>(
        &self,
        experiment: &Experiment,
        mut take: impl FnMut(Question) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = "SELECT e.position, q.task, e.number, q.prompt, q.answer, p.ids, x.ids, x.scored
            FROM experiment_examples e JOIN questions q ON q.id = e.question JOIN examples x ON x.id = q.example
            JOIN prompts p ON p.id = x.prompt WHERE e.experiment = ?1 ORDER BY e.position";
        let failed = self.failed("read");
        let mut select = self.connection.prepare(sql).map_err(&failed)?;
        let mut rows = select.query([experiment.id]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let question = || {
                let mut answer_ids: Vec<u32> = parsed(row, 6)?;
                answer_ids.truncate(count(row, 7)? as usize);
                Ok(Question {
                    example: count(row, 0)?,
                    task: experiment.task(row.get(1)?),
                    number: count(row, 2)?,
                    prompt: row.get(3)?,
                    answer: row.get(4)?,
                    prompt_ids: parsed(row, 5)?,
                    answer_ids,
                })
            };
            take(question().map_err(&failed)?)?;
        }
        Ok(())
    }

    /// The results of an experiment, in the order of its examples, the intact model's among them.
    ///
    /// # Errors
    /// Where the store can't be read; whatever `take` returns.
    pub fn results<E: From<StoreError>>(
        &self,
        experiment: &Experiment,
        mut take: impl FnMut(StoredRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = "SELECT r.plan, r.tokens, r.nll, r.nll_class, r.top1, r.first_rank, r.entropy, r.entropy_class, r.kl,
                r.kl_class, r.non_finite, r.token_nll, e.position, q.task, r.run_key
            FROM experiment_examples e JOIN questions q ON q.id = e.question
            CROSS JOIN results r ON r.setting = ?2 AND r.example = q.example
            WHERE e.experiment = ?1 ORDER BY e.position";
        let failed = self.failed("read");
        let plans = experiment.places();
        let mut select = self.connection.prepare(sql).map_err(&failed)?;
        let mut rows = select.query([experiment.id, experiment.setting]).map_err(&failed)?;
        while let Some(columns) = rows.next().map_err(&failed)? {
            let plan: i64 = columns.get(0).map_err(&failed)?;
            let Some(&place) = plans.get(&plan) else { continue };
            let Some(row) = row_of(columns).map_err(&failed)? else {
                return Err(self.damaged(format!("a result of experiment {} is no number", experiment.name)).into());
            };
            let stored = || {
                Ok(StoredRow {
                    plan: place,
                    example: count(columns, 12)?,
                    task: experiment.task(columns.get(13)?),
                    row,
                    key: RunKey(columns.get(14)?),
                })
            };
            take(stored().map_err(&failed)?)?;
        }
        Ok(())
    }

    /// What the plans of an experiment said behind its prompts, by example, then by plan.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn completions(&self, experiment: &Experiment) -> Result<Vec<StoredCompletion>, StoreError> {
        let sql = "SELECT c.plan, min(e.position), c.prompt_text, c.sampling, c.ids, c.text, c.finish, c.run_key
            FROM experiment_examples e JOIN questions q ON q.id = e.question JOIN examples x ON x.id = q.example
            JOIN completions c ON c.prompt = x.prompt AND c.setting = ?2
            WHERE e.experiment = ?1 GROUP BY c.id ORDER BY 2, c.id";
        let plans = experiment.places();
        let all = self.all(sql, [experiment.id, experiment.setting], |row| {
            let Some(&plan) = plans.get(&row.get(0)?) else { return Ok(None) };
            Ok(Some(StoredCompletion {
                plan,
                example: count(row, 1)?,
                prompt: row.get(2)?,
                sampling: parsed(row, 3)?,
                ids: parsed(row, 4)?,
                text: row.get(5)?,
                finish: row.get(6)?,
                key: RunKey(row.get(7)?),
            }))
        })?;
        let mut all: Vec<StoredCompletion> = all.into_iter().flatten().collect();
        all.sort_by_key(|completion| (completion.example, completion.plan));
        Ok(all)
    }

    /// The key that begins so, of a result or a completion.
    ///
    /// # Errors
    /// Where there is none, or several.
    pub fn key(&self, beginning: &str) -> Result<RunKey, StoreError> {
        if beginning.len() < 6 || !beginning.bytes().all(|byte| byte.is_ascii_hexdigit()) || beginning.len() > 64 {
            return Err(StoreError::Query(format!("key `{}`: 6 to 64 hexadecimal digits", beginning.escape_debug())));
        }
        let bound = |digit: &str| format!("{beginning}{}", digit.repeat(64 - beginning.len()));
        let keys = [bound("0"), bound("f")].map(|text| text.parse::<RunKey>().expect("64 hexadecimal digits").0);
        let sql = "SELECT run_key FROM results WHERE run_key BETWEEN ?1 AND ?2 UNION ALL
            SELECT run_key FROM completions WHERE run_key BETWEEN ?1 AND ?2 LIMIT 2";
        let found: Vec<[u8; 32]> = self.all(sql, params![keys[0], keys[1]], |row| row.get(0))?;
        match found[..] {
            [only] => Ok(RunKey(only)),
            [] => Err(unknown("run", beginning, &[])),
            _ => Err(unknown("single run", beginning, &[])),
        }
    }

    /// All rows of a query that is short.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let all = self.connection.prepare_cached(sql).and_then(|mut select| select.query_map(values, row)?.collect());
        all.map_err(self.failed("read"))
    }

    /// The one row of a query, if there is one.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        row: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.connection.query_row(sql, values, row).optional().map_err(self.failed("read"))
    }
}

impl Experiment {
    /// Its plans' places by their rows; the intact model's too.
    pub(super) fn places(&self) -> HashMap<i64, Option<usize>> {
        let own = self.plans.iter().enumerate().map(|(place, plan)| (plan.id, Some(place)));
        std::iter::once((self.intact.id, None)).chain(own).collect()
    }

    fn task(&self, id: Option<i64>) -> usize {
        self.tasks.iter().position(|task| task.id == id).unwrap_or(self.tasks.len())
    }
}

/// An observation whose columns begin with `started` at `first`.
pub(super) fn observation_of(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Observation> {
    let commit: String = row.get(first + 4)?;
    Ok(Observation {
        started: row.get(first)?,
        seconds: row.get(first + 1)?,
        host: row.get(first + 2)?,
        version: row.get(first + 3)?,
        commit: (!commit.is_empty()).then_some(commit),
        isa: row.get(first + 5)?,
        threads: count(row, first + 6)? as usize,
        model: row.get(first + 7)?,
        command: parsed(row, first + 8)?,
    })
}

pub(super) fn unknown(what: &'static str, name: &str, known: &[String]) -> StoreError {
    let known = (!known.is_empty()).then(|| known.join(", "));
    StoreError::Unknown { what, name: name.to_owned(), known }
}

pub(super) fn count(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|count| count as u64)
}

/// JSON in a column.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| not_json(column, error))
}

pub(super) fn not_json(column: usize, error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}
