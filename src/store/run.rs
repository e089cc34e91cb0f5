//! A single run with all that decides it, so that it can be computed again.

use super::error::StoreError;
use super::key::{ModelIdentity, RunKey, Setting};
use super::open::Store;
use super::read::{Experiment, Observation, count, observation_of, parsed, row_of, unknown};
use crate::plan::Plan;
use crate::sweep::{Example, Row};
use rusqlite::params;

/// A result, and what it is a result of.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its key, as it stands in the store.
    pub key: RunKey,
    /// The setting.
    pub setting: Setting,
    /// The plan.
    pub plan: Plan,
    /// The example; its number is 0.
    pub example: Example,
    /// The measures; `plan` and `example` in it are 0.
    pub row: Row,
    /// The process that computed it.
    pub observation: Observation,
    /// Tasks or texts that the example is of, each with its number, prompt and answer.
    pub questions: Vec<Asked>,
    /// Experiments that have it, by name.
    pub experiments: Vec<String>,
}

/// Where an example comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The task or text; none for what was asked by itself.
    pub task: Option<String>,
    /// The number there.
    pub number: u64,
    /// The prompt's text.
    pub prompt: Option<String>,
    /// The answer's text.
    pub answer: Option<String>,
}

impl Run {
    /// The key that it should have.
    pub fn computed_key(&self) -> RunKey {
        self.setting.run_key(&self.plan, &self.example)
    }
}

impl Store {
    /// Keys of results, the smallest first, which is as good as drawn at random: of an experiment, or of all.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn keys(&self, experiment: Option<&Experiment>, limit: u64) -> Result<Vec<RunKey>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let key = |row: &rusqlite::Row<'_>| row.get(0).map(RunKey);
        match experiment {
            None => self.all("SELECT run_key FROM results ORDER BY run_key LIMIT ?1", [limit], key),
            Some(experiment) => {
                let sql = "SELECT r.run_key FROM experiment_examples e JOIN questions q ON q.id = e.question
                    JOIN results r ON r.setting = ?2 AND r.example = q.example
                    WHERE e.experiment = ?1 AND (r.plan = ?3
                        OR r.plan IN (SELECT plan FROM experiment_plans WHERE experiment = ?1))
                    GROUP BY r.run_key ORDER BY r.run_key LIMIT ?4";
                self.all(sql, params![experiment.id, experiment.setting, experiment.intact.id, limit], key)
            }
        }
    }

    /// The result with this key.
    ///
    /// # Errors
    /// Where there is none, or it is damaged.
    pub fn run(&self, key: RunKey) -> Result<Run, StoreError> {
        let sql = "SELECT r.plan, r.tokens, r.nll, r.nll_class, r.top1, r.first_rank, r.entropy, r.entropy_class, r.kl,
                r.kl_class, r.non_finite, r.token_nll,
                m.weights, m.tokenizer, m.name, m.n_layer, m.n_head, m.vocab_size, s.arithmetic, s.numerics_version,
                p.steps, b.ids, x.ids, x.scored, r.example, r.setting,
                o.started, o.seconds, o.host, o.version, o.git_commit, o.isa, o.threads, o.model, o.command
            FROM results r JOIN settings s ON s.id = r.setting JOIN models m ON m.id = s.model
            JOIN plans p ON p.id = r.plan JOIN examples x ON x.id = r.example JOIN prompts b ON b.id = x.prompt
            JOIN observations o ON o.id = r.observation WHERE r.run_key = ?1";
        let found = self.one(sql, [key.0], |columns| {
            let tokenizer: String = columns.get(13)?;
            let model = ModelIdentity {
                weights: columns.get(12)?,
                tokenizer: (!tokenizer.is_empty()).then_some(tokenizer),
                name: columns.get(14)?,
                n_layer: count(columns, 15)? as usize,
                n_head: count(columns, 16)? as usize,
                vocab_size: count(columns, 17)? as usize,
            };
            let setting = Setting { model, arithmetic: columns.get(18)?, numerics_version: columns.get(19)? };
            let mut ids: Vec<u32> = parsed(columns, 21)?;
            let start = ids.len();
            ids.extend(parsed::<Vec<u32>>(columns, 22)?);
            let scored = start..start + count(columns, 23)? as usize;
            let (plan, example, setting_id): (i64, i64, i64) = (columns.get(0)?, columns.get(24)?, columns.get(25)?);
            let row = row_of(columns)?;
            let observation = observation_of(columns, 26)?;
            Ok((
                setting,
                parsed(columns, 20)?,
                Example { number: 0, ids, scored },
                row,
                observation,
                (plan, example, setting_id),
            ))
        })?;
        let Some((setting, plan, example, row, observation, (plan_id, example_id, setting_id))) = found else {
            return Err(unknown("result", &key.to_string(), &[]));
        };
        let row = row.ok_or_else(|| self.damaged(format!("result {key} is no number")))?;
        let sql = "SELECT t.name, q.number, q.prompt, q.answer FROM questions q LEFT JOIN tasks t ON t.id = q.task
            WHERE q.example = ?1 ORDER BY q.id";
        let questions = self.all(sql, [example_id], |row| {
            Ok(Asked { task: row.get(0)?, number: count(row, 1)?, prompt: row.get(2)?, answer: row.get(3)? })
        })?;
        let sql = "SELECT DISTINCT e.name FROM questions q JOIN experiment_examples x ON x.question = q.id
            JOIN experiments e ON e.id = x.experiment WHERE q.example = ?1 AND e.setting = ?3
            AND (e.intact = ?2 OR ?2 IN (SELECT plan FROM experiment_plans p WHERE p.experiment = e.id)) ORDER BY e.name";
        let experiments = self.all(sql, params![example_id, plan_id, setting_id], |row| row.get(0))?;
        Ok(Run { key, setting, plan, example, row, observation, questions, experiments })
    }
}

/// What a plan said behind a prompt, by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The model's name.
    pub model: String,
    /// The plan's canonical text.
    pub plan: String,
    /// The prompt's text; none where it was given as ids.
    pub prompt: Option<String>,
    /// How it was drawn.
    pub sampling: serde_json::Value,
    /// What was said, as tokens.
    pub ids: Vec<u32>,
    /// The same as text; none where the prompt was given as ids.
    pub text: Option<String>,
    /// Why it ended.
    pub finish: String,
}

impl Store {
    /// The completion with this key, if there is one.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn said(&self, key: RunKey) -> Result<Option<Said>, StoreError> {
        let sql = "SELECT m.name, p.text, c.prompt_text, c.sampling, c.ids, c.text, c.finish FROM completions c
            JOIN settings s ON s.id = c.setting JOIN models m ON m.id = s.model JOIN plans p ON p.id = c.plan
            WHERE c.run_key = ?1";
        self.one(sql, [key.0], |row| {
            Ok(Said {
                model: row.get(0)?,
                plan: row.get(1)?,
                prompt: row.get(2)?,
                sampling: parsed(row, 3)?,
                ids: parsed(row, 4)?,
                text: row.get(5)?,
                finish: row.get(6)?,
            })
        })
    }
}
