//! Rows of the tables that a recorder writes to: found, or put there.

use super::error::StoreError;
use super::key::{self, RunKey, SPEC_VERSION, Setting};
use super::number;
use super::open::Store;
use super::record::{NewCompletion, NewExperiment, NewObservation, Source};
use crate::plan::Plan;
use crate::sweep::{Example, Row};
use rusqlite::{OptionalExtension, Transaction, params};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

pub(super) fn setting_id(transaction: &Transaction<'_>, setting: &Setting) -> rusqlite::Result<i64> {
    let Setting { model, arithmetic, numerics_version } = setting;
    let tokenizer = model.tokenizer.as_deref().unwrap_or_default();
    transaction.execute(
        "INSERT OR IGNORE INTO models (weights, tokenizer, name, n_layer, n_head, vocab_size) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            model.weights,
            tokenizer,
            model.name,
            model.n_layer as i64,
            model.n_head as i64,
            model.vocab_size as i64
        ],
    )?;
    let model: i64 = transaction.query_row(
        "SELECT id FROM models WHERE weights = ?1 AND tokenizer = ?2",
        params![model.weights, tokenizer],
        |row| row.get(0),
    )?;
    let values = params![model, arithmetic, numerics_version, SPEC_VERSION];
    transaction.execute(
        "INSERT OR IGNORE INTO settings (model, arithmetic, numerics_version, spec_version) VALUES (?1, ?2, ?3, ?4)",
        values,
    )?;
    transaction.query_row(
        "SELECT id FROM settings WHERE model = ?1 AND arithmetic = ?2 AND numerics_version = ?3 AND spec_version = ?4",
        values,
        |row| row.get(0),
    )
}

/// The plans' rows, and what stands for all of them in their order.
pub(super) fn plan_ids(transaction: &Transaction<'_>, plans: &[Plan]) -> rusqlite::Result<(Vec<i64>, RunKey)> {
    let mut select = transaction.prepare("SELECT id FROM plans WHERE hash = ?1")?;
    let mut insert =
        transaction.prepare("INSERT INTO plans (hash, text, steps, blocks) VALUES (?1, ?2, ?3, ?4) RETURNING id")?;
    let mut all = Sha256::new();
    let id = |plan: &Plan| {
        let steps = key::json(plan);
        let hash = key::text_hash(&steps);
        all.update(hash);
        match select.query_row([hash], |row| row.get(0)).optional()? {
            Some(id) => Ok(id),
            None => {
                let values = params![hash, plan.to_string(), steps, plan.cost().blocks()];
                insert.query_row(values, |row| row.get(0))
            }
        }
    };
    let ids = plans.iter().map(id).collect::<rusqlite::Result<_>>()?;
    Ok((ids, RunKey(all.finalize().into())))
}

pub(super) fn insert_observation(
    transaction: &Transaction<'_>,
    observation: &NewObservation<'_>,
    experiment: Option<i64>,
) -> rusqlite::Result<i64> {
    let NewObservation { isa, threads, model, commit, host, command, began } = *observation;
    let ago = format!("-{:.3} seconds", began.elapsed().as_secs_f64());
    transaction.query_row(
        "INSERT INTO observations (started, host, version, git_commit, isa, threads, model, command, experiment)
         VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?9), ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id",
        params![
            host,
            env!("CARGO_PKG_VERSION"),
            commit,
            isa,
            threads as i64,
            model,
            key::json(&command),
            experiment,
            ago
        ],
        |row| row.get(0),
    )
}

/// What makes an experiment what it is.
pub(super) fn identity(new: &NewExperiment<'_>, setting: &Setting, plans: &RunKey) -> [u8; 32] {
    key::text_hash(&key::json(&serde_json::json!({
        "arithmetic": setting.arithmetic,
        "kind": new.kind,
        "numerics": setting.numerics_version,
        "plans": plans.to_string(),
        "spec": new.spec,
        "tokenizer": setting.model.tokenizer,
        "weights": setting.model.weights,
    })))
}

/// The experiment's row and name: the one that is there, or a new one.
pub(super) fn begin_experiment(
    store: &Store,
    transaction: &Transaction<'_>,
    new: &NewExperiment<'_>,
    identity: [u8; 32],
    (setting, plan_ids): (i64, &[i64]),
    command: &[String],
) -> Result<(i64, String), StoreError> {
    let failed = store.failed("write to");
    let own_name = || format!("{}-{}", new.kind, &RunKey(identity).to_string()[..10]);
    let name = new.name.map_or_else(own_name, str::to_owned);
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(StoreError::Query(format!("experiment `{}`: expected a name", name.escape_debug())));
    }
    let sql = "SELECT id, identity FROM experiments WHERE name = ?1";
    let known = transaction.query_row(sql, [&name], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?)));
    match known.optional().map_err(&failed)? {
        Some((_, known)) if known != identity => return Err(StoreError::Taken { name }),
        Some((id, _)) => return Ok((id, name)),
        None => {}
    }
    let sql = "INSERT INTO experiments (name, kind, identity, setting, intact, spec, command, created)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) RETURNING id";
    let (spec, command) = (key::json(&new.spec), key::json(&command));
    let values = params![name, new.kind, identity, setting, plan_ids[new.intact], spec, command];
    let id: i64 = transaction.query_row(sql, values, |row| row.get(0)).map_err(&failed)?;
    let mut insert = transaction.prepare("INSERT INTO experiment_plans VALUES (?1, ?2, ?3)").map_err(&failed)?;
    for (position, plan) in plan_ids[..new.plans].iter().enumerate() {
        insert.execute(params![id, position as i64, plan]).map_err(&failed)?;
    }
    Ok((id, name))
}

/// An example's rows.
pub(super) struct Placed {
    pub(super) example: i64,
    pub(super) question: i64,
}

/// Puts an example and where it comes from into the store, if they are not there.
pub(super) fn place(
    transaction: &Transaction<'_>,
    example: &Example,
    source: &Source,
    tasks: &mut HashMap<String, i64>,
) -> rusqlite::Result<Placed> {
    let example_id = example_id(transaction, example)?;
    let Source { task, number, prompt, answer } = source;
    let task = task.as_ref().map(|name| task_id(transaction, name, tasks)).transpose()?;
    // One that was asked by itself is whatever task's it turns out to be.
    let known = "SELECT id, task FROM questions WHERE example = ?1 AND (task IS ?2 OR task IS NULL OR ?2 IS NULL)
        ORDER BY task IS ?2 DESC LIMIT 1";
    let known = transaction
        .prepare_cached(known)?
        .query_row(params![example_id, task], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?)));
    let question = match known.optional()? {
        Some((question, known)) => {
            if known.is_none() && task.is_some() {
                let sql = "UPDATE questions SET task = ?2, number = ?3, prompt = ?4, answer = ?5 WHERE id = ?1";
                transaction.execute(sql, params![question, task, *number as i64, prompt, answer])?;
            }
            question
        }
        None => {
            let sql = "INSERT INTO questions (task, example, number, prompt, answer) VALUES (?1, ?2, ?3, ?4, ?5)
                RETURNING id";
            let values = params![task, example_id, *number as i64, prompt, answer];
            transaction.prepare_cached(sql)?.query_row(values, |row| row.get(0))?
        }
    };
    Ok(Placed { example: example_id, question })
}

fn example_id(transaction: &Transaction<'_>, example: &Example) -> rusqlite::Result<i64> {
    let hash = key::example_hash(example);
    let known = transaction
        .prepare_cached("SELECT id FROM examples WHERE hash = ?1")?
        .query_row([hash], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    let (before, behind) = example.ids.split_at(example.scored.start);
    let prompt = prompt_id(transaction, before)?;
    transaction
        .prepare_cached(
            "INSERT INTO examples (hash, prompt, ids, scored, named) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id",
        )?
        .query_row(
            params![hash, prompt, key::json(&behind), example.scored.len() as i64, example.references.digest()],
            |row| row.get(0),
        )
}

fn prompt_id(transaction: &Transaction<'_>, ids: &[u32]) -> rusqlite::Result<i64> {
    let hash = key::ids_hash(ids);
    let known = transaction
        .prepare_cached("SELECT id FROM prompts WHERE hash = ?1")?
        .query_row([hash], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    transaction
        .prepare_cached("INSERT INTO prompts (hash, ids) VALUES (?1, ?2) RETURNING id")?
        .query_row(params![hash, key::json(&ids)], |row| row.get(0))
}

fn task_id(transaction: &Transaction<'_>, name: &str, known: &mut HashMap<String, i64>) -> rusqlite::Result<i64> {
    if let Some(id) = known.get(name) {
        return Ok(*id);
    }
    transaction.execute("INSERT OR IGNORE INTO tasks (name) VALUES (?1)", [name])?;
    let id = transaction.query_row("SELECT id FROM tasks WHERE name = ?1", [name], |row| row.get(0))?;
    known.insert(name.to_owned(), id);
    Ok(id)
}

/// A result that is there stays; it gains what it lacks.
pub(super) fn insert_row(
    transaction: &Transaction<'_>,
    row: &Row,
    (setting, example, plan): (i64, i64, i64),
    key: RunKey,
    observation: i64,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO results VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
        ON CONFLICT DO NOTHING";
    let ((nll, nll_class), (entropy, entropy_class)) = (number::columns(row.nll), number::columns(row.entropy));
    let (kl, kl_class) = row.divergence.map_or((None, None), |kl| {
        let (kl, class) = number::columns(kl);
        (kl, Some(class))
    });
    let token_nll = (!row.token_nll.is_empty()).then(|| number::bytes(&row.token_nll));
    let inserted = transaction.prepare_cached(sql)?.execute(params![
        setting,
        example,
        plan,
        key.0,
        observation,
        row.tokens,
        nll,
        nll_class,
        row.top1,
        row.first_rank,
        entropy,
        entropy_class,
        kl,
        kl_class,
        row.non_finite,
        token_nll
    ])?;
    if inserted == 0 { gain(transaction, row, key, observation) } else { Ok(()) }
}

/// Gives a result that is there what it lacks, and says beside it whose that is: its bits are those of another process.
fn gain(transaction: &Transaction<'_>, row: &Row, key: RunKey, observation: i64) -> rusqlite::Result<()> {
    let sql = "SELECT kl_class IS NULL, token_nll IS NULL FROM results WHERE run_key = ?1";
    let lacks = |row: &rusqlite::Row<'_>| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?));
    let (lacks_kl, lacks_tokens) = transaction.prepare_cached(sql)?.query_row([key.0], lacks)?;
    let kl = row.divergence.filter(|_| lacks_kl);
    let token_nll = Some(&row.token_nll).filter(|losses| lacks_tokens && !losses.is_empty());
    if let Some(kl) = kl {
        let (kl, class) = number::columns(kl);
        let sql = "UPDATE results SET kl = ?2, kl_class = ?3 WHERE run_key = ?1";
        transaction.prepare_cached(sql)?.execute(params![key.0, kl, class])?;
    }
    if let Some(losses) = token_nll {
        let sql = "UPDATE results SET token_nll = ?2 WHERE run_key = ?1";
        transaction.prepare_cached(sql)?.execute(params![key.0, number::bytes(losses)])?;
    }
    if kl.is_some() || token_nll.is_some() {
        let sql = "INSERT INTO gains (run_key, kl, token_nll) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET
            kl = ifnull(kl, excluded.kl), token_nll = ifnull(token_nll, excluded.token_nll)";
        let values = params![key.0, kl.map(|_| observation), token_nll.map(|_| observation)];
        transaction.prepare_cached(sql)?.execute(values)?;
    }
    Ok(())
}

/// A completion that is there stays; one of ids gains its text.
pub(super) fn insert_completion(
    transaction: &Transaction<'_>,
    completion: &NewCompletion,
    (setting, plan, observation): (i64, i64, i64),
    key: RunKey,
) -> rusqlite::Result<()> {
    let NewCompletion { prompt, prompt_text, sampling, ids, text, finish, .. } = completion;
    let prompt = prompt_id(transaction, prompt)?;
    let sql = "INSERT INTO completions
        (run_key, setting, plan, prompt, sampling, prompt_text, ids, text, finish, observation)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
        ON CONFLICT DO UPDATE SET text = excluded.text, prompt_text = excluded.prompt_text
        WHERE text IS NULL AND excluded.text IS NOT NULL AND ids = excluded.ids";
    let (sampling, ids) = (key::sampling_json(sampling), key::json(ids));
    let values = params![key.0, setting, plan, prompt, sampling, prompt_text, ids, text, finish, observation];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}
