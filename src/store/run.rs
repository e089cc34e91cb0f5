//! A single run with all that decides it, so that it can be computed again.

use super::error::StoreError;
use super::key::{ExampleKey, ModelIdentity, RunKey, Setting, sampling_of};
use super::open::Store;
use super::read::{Experiment, Observation, count, not_json, observation_of, parsed, row_of, unknown};
use crate::forward::Sampling;
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
    /// The example; its number is 0, and its references are not kept.
    pub example: Example,
    /// SHA-256 of those references, where it had some.
    pub references: Option<[u8; 32]>,
    /// The measures; `plan` and `example` in it are 0.
    pub row: Row,
    /// The process that computed it.
    pub observation: Observation,
    /// The instruction sets that computed its divergence and its token losses, where a later process did.
    pub gained: Gained,
    /// Tasks or texts that the example is of, each with its number, prompt and answer.
    pub questions: Vec<Asked>,
    /// Experiments that have it, by name.
    pub experiments: Vec<String>,
}

/// What a result gained after it was computed: the instruction sets of the processes that computed that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gained {
    /// The divergence's.
    pub divergence: Option<String>,
    /// The token losses'.
    pub token_losses: Option<String>,
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
        ExampleKey::named(&self.setting, &self.example, self.references).of(&self.plan)
    }
}

impl Store {
    /// Keys of results and completions, the smallest first, which is as good as drawn at random: of an experiment, or of all.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn keys(&self, experiment: Option<&Experiment>, limit: u64) -> Result<Vec<RunKey>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let key = |row: &rusqlite::Row<'_>| row.get(0).map(RunKey);
        match experiment {
            None => {
                let sql = "SELECT run_key FROM results UNION ALL SELECT run_key FROM completions ORDER BY 1 LIMIT ?1";
                self.all(sql, [limit], key)
            }
            Some(experiment) => {
                let sql = "SELECT r.run_key FROM experiment_examples e JOIN questions q ON q.id = e.question
                    JOIN results r ON r.setting = ?2 AND r.example = q.example
                    WHERE e.experiment = ?1 AND (r.plan = ?3
                        OR r.plan IN (SELECT plan FROM experiment_plans WHERE experiment = ?1))
                    UNION SELECT c.run_key FROM experiment_examples e JOIN questions q ON q.id = e.question
                    JOIN examples x ON x.id = q.example JOIN completions c ON c.prompt = x.prompt AND c.setting = ?2
                    WHERE e.experiment = ?1 AND (c.plan = ?3
                        OR c.plan IN (SELECT plan FROM experiment_plans WHERE experiment = ?1))
                    ORDER BY 1 LIMIT ?4";
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
                o.started, o.seconds, o.host, o.version, o.git_commit, o.isa, o.threads, o.model, o.command, k.isa, t.isa, x.named
            FROM results r JOIN settings s ON s.id = r.setting JOIN models m ON m.id = s.model
            JOIN plans p ON p.id = r.plan JOIN examples x ON x.id = r.example JOIN prompts b ON b.id = x.prompt
            JOIN observations o ON o.id = r.observation LEFT JOIN gains g ON g.run_key = r.run_key
            LEFT JOIN observations k ON k.id = g.kl LEFT JOIN observations t ON t.id = g.token_nll WHERE r.run_key = ?1";
        let found = self.one(sql, [key.0], |columns| {
            let setting = setting_of(columns, 12)?;
            let mut ids: Vec<u32> = parsed(columns, 21)?;
            let start = ids.len();
            ids.extend(parsed::<Vec<u32>>(columns, 22)?);
            let scored = start..start + count(columns, 23)? as usize;
            let (plan, example, setting_id): (i64, i64, i64) = (columns.get(0)?, columns.get(24)?, columns.get(25)?);
            let row = row_of(columns)?;
            let observation = observation_of(columns, 26)?;
            let gained = Gained { divergence: columns.get(35)?, token_losses: columns.get(36)? };
            Ok((
                setting,
                parsed(columns, 20)?,
                (Example::new(0, ids, scored), columns.get(37)?),
                row,
                (observation, gained),
                (plan, example, setting_id),
            ))
        })?;
        let Some((setting, plan, (example, references), row, (observation, gained), (plan_id, example_id, setting_id))) =
            found
        else {
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
        Ok(Run { key, setting, plan, example, references, row, observation, gained, questions, experiments })
    }
}

/// The setting whose columns begin with its model's `weights` at `first`.
fn setting_of(columns: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Setting> {
    let tokenizer: String = columns.get(first + 1)?;
    let model = ModelIdentity {
        weights: columns.get(first)?,
        tokenizer: (!tokenizer.is_empty()).then_some(tokenizer),
        name: columns.get(first + 2)?,
        n_layer: count(columns, first + 3)? as usize,
        n_head: count(columns, first + 4)? as usize,
        vocab_size: count(columns, first + 5)? as usize,
    };
    Ok(Setting { model, arithmetic: columns.get(first + 6)?, numerics_version: columns.get(first + 7)? })
}

/// What a plan said behind a prompt, and all that decided it.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Its key, as it stands in the store.
    pub key: RunKey,
    /// The setting.
    pub setting: Setting,
    /// The plan.
    pub plan: Plan,
    /// The prompt's tokens.
    pub prompt_ids: Vec<u32>,
    /// The prompt's text; none where it was given as ids.
    pub prompt: Option<String>,
    /// How it was drawn.
    pub sampling: Sampling,
    /// What was said, as tokens.
    pub ids: Vec<u32>,
    /// The same as text; none where the prompt was given as ids.
    pub text: Option<String>,
    /// Why it ended.
    pub finish: String,
    /// The process that let it be said.
    pub observation: Observation,
}

impl Said {
    /// The key that it should have.
    pub fn computed_key(&self) -> RunKey {
        self.setting.completion_key(&self.plan, &self.prompt_ids, &self.sampling)
    }
}

impl Store {
    /// The completion with this key, if there is one.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub fn said(&self, key: RunKey) -> Result<Option<Said>, StoreError> {
        let sql = "SELECT m.weights, m.tokenizer, m.name, m.n_layer, m.n_head, m.vocab_size, s.arithmetic,
                s.numerics_version, p.steps, b.ids, c.prompt_text, c.sampling, c.ids, c.text, c.finish,
                o.started, o.seconds, o.host, o.version, o.git_commit, o.isa, o.threads, o.model, o.command
            FROM completions c JOIN settings s ON s.id = c.setting JOIN models m ON m.id = s.model
            JOIN plans p ON p.id = c.plan JOIN prompts b ON b.id = c.prompt JOIN observations o ON o.id = c.observation
            WHERE c.run_key = ?1";
        self.one(sql, [key.0], |row| {
            Ok(Said {
                key,
                setting: setting_of(row, 0)?,
                plan: parsed(row, 8)?,
                prompt_ids: parsed(row, 9)?,
                prompt: row.get(10)?,
                sampling: sampling_of(&row.get::<_, String>(11)?).map_err(|error| not_json(11, error))?,
                ids: parsed(row, 12)?,
                text: row.get(13)?,
                finish: row.get(14)?,
                observation: observation_of(row, 15)?,
            })
        })
    }
}
