//! The tables, and how a store of an older version becomes one of this.
//!
//! A result is a plan on an example under a setting: each of the three is a row of its own, so that a million results
//! repeat none of them. Hashes are SHA-256. An f64 is two columns, its REAL and its class (see [`super::number`]).

use super::error::StoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// `lsn1`: what SQLite's header says that the file is a store of ours.
pub(super) const APPLICATION_ID: i64 = 0x6c73_6e31;

/// The version of the tables below, in `PRAGMA user_version`.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// From version i to i + 1. Never changed once a release has it.
const MIGRATIONS: [&str; 3] = [VERSION_1, VERSION_2, VERSION_3];

const VERSION_1: &str = "
-- A model: equal bytes are one model, wherever they lie.
CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    weights TEXT NOT NULL,                  -- SHA-256 of configuration and weights, hex
    tokenizer TEXT NOT NULL,                -- SHA-256 of tokenizer.json, hex; '' where there is none
    name TEXT NOT NULL,                     -- as it was called first
    n_layer INTEGER NOT NULL,
    n_head INTEGER NOT NULL,
    vocab_size INTEGER NOT NULL,
    UNIQUE (weights, tokenizer)
) STRICT;

-- What decides a result besides its plan and its tokens.
CREATE TABLE settings (
    id INTEGER PRIMARY KEY,
    model INTEGER NOT NULL REFERENCES models,
    arithmetic TEXT NOT NULL,               -- f32, bf16, …
    numerics_version INTEGER NOT NULL,
    spec_version INTEGER NOT NULL,          -- of the text that run keys hash
    UNIQUE (model, arithmetic, numerics_version, spec_version)
) STRICT;

CREATE TABLE plans (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),   -- of steps
    text TEXT NOT NULL,                     -- canonical
    steps TEXT NOT NULL CHECK (json_valid(steps)),
    blocks REAL NOT NULL                    -- block evaluations
) STRICT;
CREATE INDEX plans_by_text ON plans (text);

-- Tokens before the first scored one.
CREATE TABLE prompts (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    ids TEXT NOT NULL CHECK (json_valid(ids))
) STRICT;

-- Tokens, of which `scored` behind the prompt are predicted.
CREATE TABLE examples (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    prompt INTEGER NOT NULL REFERENCES prompts,
    ids TEXT NOT NULL CHECK (json_valid(ids)),             -- those behind the prompt
    scored INTEGER NOT NULL CHECK (scored > 0)
) STRICT;
CREATE INDEX examples_by_prompt ON examples (prompt);

-- Tasks and texts that examples come from.
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE questions (
    id INTEGER PRIMARY KEY,
    task INTEGER REFERENCES tasks,          -- NULL for one that was asked by itself
    example INTEGER NOT NULL REFERENCES examples,
    number INTEGER NOT NULL,                -- in its task, when first seen
    prompt TEXT,                            -- NULL for a window of a text
    answer TEXT
) STRICT;
CREATE UNIQUE INDEX questions_once ON questions (example, ifnull(task, 0));

CREATE TABLE experiments (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    identity BLOB NOT NULL CHECK (length(identity) = 32),  -- of setting, plans and spec
    setting INTEGER NOT NULL REFERENCES settings,
    intact INTEGER NOT NULL REFERENCES plans,              -- what the others are compared with
    spec TEXT NOT NULL CHECK (json_valid(spec)),
    command TEXT NOT NULL CHECK (json_valid(command)),     -- the arguments that reproduce it
    created TEXT NOT NULL,                  -- UTC
    examples INTEGER                        -- in all; NULL until all have been seen
) STRICT;

CREATE TABLE experiment_plans (
    experiment INTEGER NOT NULL REFERENCES experiments ON DELETE CASCADE,
    position INTEGER NOT NULL,
    plan INTEGER NOT NULL REFERENCES plans,
    PRIMARY KEY (experiment, position),
    UNIQUE (experiment, plan)
) STRICT, WITHOUT ROWID;

CREATE TABLE experiment_examples (
    experiment INTEGER NOT NULL REFERENCES experiments ON DELETE CASCADE,
    position INTEGER NOT NULL,              -- among all
    question INTEGER NOT NULL REFERENCES questions,
    number INTEGER NOT NULL,                -- in its task
    PRIMARY KEY (experiment, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX experiment_examples_by_question ON experiment_examples (question);

CREATE TABLE tags (
    experiment INTEGER NOT NULL REFERENCES experiments ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (experiment, tag)
) STRICT, WITHOUT ROWID;

-- A process that wrote results: where, when and with what. Decides nothing about them.
CREATE TABLE observations (
    id INTEGER PRIMARY KEY,
    started TEXT NOT NULL,                  -- UTC
    seconds REAL,                           -- NULL where it has not ended, or was killed
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    git_commit TEXT NOT NULL,               -- of the source; '' where it is not known
    isa TEXT NOT NULL,
    threads INTEGER NOT NULL,
    model TEXT NOT NULL,                    -- as --model named it
    command TEXT NOT NULL CHECK (json_valid(command)),
    experiment INTEGER REFERENCES experiments ON DELETE SET NULL
) STRICT;
CREATE INDEX observations_by_experiment ON observations (experiment);

CREATE TABLE results (
    setting INTEGER NOT NULL REFERENCES settings,
    example INTEGER NOT NULL REFERENCES examples,
    plan INTEGER NOT NULL REFERENCES plans,
    run_key BLOB NOT NULL UNIQUE CHECK (length(run_key) = 32),
    observation INTEGER NOT NULL REFERENCES observations,
    tokens INTEGER NOT NULL,
    nll REAL,                               -- nats, summed over tokens, as entropy and kl are
    nll_class INTEGER NOT NULL CHECK (nll_class BETWEEN 0 AND 4 AND (nll IS NULL) = (nll_class = 1)),
    top1 INTEGER NOT NULL,
    first_rank INTEGER NOT NULL,
    entropy REAL,
    entropy_class INTEGER NOT NULL CHECK (entropy_class BETWEEN 0 AND 4 AND (entropy IS NULL) = (entropy_class = 1)),
    kl REAL,                                -- class NULL where it was not measured
    kl_class INTEGER CHECK (kl_class IS NULL AND kl IS NULL
        OR kl_class BETWEEN 0 AND 4 AND (kl IS NULL) = (kl_class = 1)),
    non_finite INTEGER NOT NULL,
    token_nll BLOB CHECK (token_nll IS NULL OR length(token_nll) = 8 * tokens),   -- f64, little-endian
    PRIMARY KEY (setting, example, plan)
) STRICT, WITHOUT ROWID;

CREATE TABLE completions (
    id INTEGER PRIMARY KEY,
    run_key BLOB NOT NULL UNIQUE CHECK (length(run_key) = 32),
    setting INTEGER NOT NULL REFERENCES settings,
    plan INTEGER NOT NULL REFERENCES plans,
    prompt INTEGER NOT NULL REFERENCES prompts,
    sampling TEXT NOT NULL CHECK (json_valid(sampling)),
    prompt_text TEXT,                       -- NULL where the prompt was given as ids
    ids TEXT NOT NULL CHECK (json_valid(ids)),
    text TEXT,                              -- NULL where the prompt was given as ids
    finish TEXT NOT NULL,
    observation INTEGER NOT NULL REFERENCES observations
) STRICT;
CREATE INDEX completions_by_prompt ON completions (prompt, plan);

CREATE TABLE notes (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('experiment', 'task', 'observation', 'hypothesis')),
    text TEXT NOT NULL CHECK (text <> ''),
    created TEXT NOT NULL
) STRICT;

CREATE TABLE note_experiments (
    note INTEGER NOT NULL REFERENCES notes ON DELETE CASCADE,
    experiment INTEGER NOT NULL REFERENCES experiments,
    PRIMARY KEY (note, experiment)
) STRICT, WITHOUT ROWID;

-- Results and completions that a note cites, by their keys.
CREATE TABLE note_runs (
    note INTEGER NOT NULL REFERENCES notes ON DELETE CASCADE,
    run_key BLOB NOT NULL CHECK (length(run_key) = 32),
    PRIMARY KEY (note, run_key)
) STRICT, WITHOUT ROWID;

-- For people who write SQL: a line for each result and each task its example is of. A class other than 0 says what the
-- REAL beside it can't: 1 NaN (NULL here), 2 inf, 3 -inf.
CREATE VIEW rows AS SELECT
    lower(hex(r.run_key)) AS key, m.name AS model, s.arithmetic, p.text AS plan, p.blocks, t.name AS task,
    q.number AS example, q.prompt, q.answer, r.nll / r.tokens AS loss, r.nll, r.nll_class, r.tokens, r.top1,
    r.top1 = r.tokens AS correct, r.first_rank, r.entropy, r.entropy_class, r.kl, r.kl_class, r.non_finite, o.isa, o.host,
    o.started, o.version, o.git_commit
FROM results r
JOIN settings s ON s.id = r.setting
JOIN models m ON m.id = s.model
JOIN plans p ON p.id = r.plan
JOIN observations o ON o.id = r.observation
LEFT JOIN questions q ON q.example = r.example
LEFT JOIN tasks t ON t.id = q.task;
";

const VERSION_2: &str = "
-- What a result gained after it was computed, and the process that computed that: maybe with another instruction set.
CREATE TABLE gains (
    run_key BLOB NOT NULL PRIMARY KEY REFERENCES results (run_key) ON DELETE CASCADE,
    kl INTEGER REFERENCES observations,
    token_nll INTEGER REFERENCES observations
) STRICT, WITHOUT ROWID;
";

const VERSION_3: &str = "
-- SHA-256 of what plans' modifiers find by name, which keys hash; NULL where there is nothing.
ALTER TABLE examples ADD COLUMN named BLOB CHECK (named IS NULL OR length(named) = 32);
";

/// What version a file has: none where it is empty. Nothing is written.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<Option<i64>, StoreError> {
    let failed = |source| StoreError::sqlite("read", path, source);
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(failed)?;
    let version = pragma("user_version").map_err(failed)?;
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    match (application, version, objects) {
        (0, 0, 0) => Ok(None),
        (APPLICATION_ID, version, _) if version > VERSION => {
            Err(StoreError::Newer { path: path.to_owned(), found: version, known: VERSION })
        }
        (APPLICATION_ID, version, _) if version > 0 => Ok(Some(version)),
        _ => Err(StoreError::Other { path: path.to_owned() }),
    }
}

/// Brings a file, which [`version`] has let pass, to this version: all of it, or nothing.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::sqlite("migrate", path, source);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have been faster.
    let from = version(&transaction, path)?.unwrap_or(0);
    if from < VERSION {
        for migration in &MIGRATIONS[from as usize..] {
            transaction.execute_batch(migration).map_err(failed)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, KL, begin, example, filled, results, source};
    use super::*;
    use crate::store::Store;

    /// A store as this version made it, with what a store of now holds.
    fn older(path: &Path, version: usize, now: &Path) {
        let connection = Connection::open(path).unwrap();
        MIGRATIONS[..version].iter().for_each(|migration| connection.execute_batch(migration).unwrap());
        connection.execute("ATTACH ?1 AS now", [now.to_str().unwrap()]).unwrap();
        let list = |sql: &str| -> Vec<String> {
            let mut select = connection.prepare(sql).unwrap();
            select.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
        };
        for table in list("SELECT name FROM main.sqlite_schema WHERE type = 'table' ORDER BY rowid") {
            let columns = list(&format!("SELECT name FROM pragma_table_info('{table}')")).join(", ");
            let sql = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}");
            connection.execute_batch(&format!("PRAGMA foreign_keys = 0; {sql}")).unwrap();
        }
        connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        connection.pragma_update(None, "user_version", version as i64).unwrap();
    }

    fn version_of(path: &Path) -> i64 {
        Connection::open(path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn every_older_store_becomes_one_of_now() {
        for version in 1..VERSION as usize {
            for to_read in [true, false] {
                let folder = Folder::new();
                let (store, name) = filled(&folder);
                let all = |store: &Store| format!("{:?}", results(store, &store.experiment(&name).unwrap()));
                let want = all(&store);
                drop(store);
                let path = folder.file().with_extension("older");
                older(&path, version, &folder.file());
                let store = if to_read { Store::read(&path) } else { Store::open(&path) }.unwrap();
                store.check_integrity().unwrap();
                assert_eq!((version_of(&path), all(&store)), (VERSION, want), "from version {version}");
                drop(store);
                let mut recorder = begin(Store::open(&path).unwrap(), KL, None).unwrap();
                assert_eq!(recorder.experiment(), Some(&*name));
                assert_eq!(recorder.expect(&example(3), source(3)).unwrap().len(), 4, "what was there is there");
            }
        }
    }

    #[test]
    fn a_migration_is_done_as_a_whole_or_not_at_all() {
        let folder = Folder::new();
        let (store, _) = filled(&folder);
        drop(store);
        let path = folder.file().with_extension("older");
        older(&path, 1, &folder.file());
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE gains (in_the_way)").unwrap();
        let before: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert!(Store::open(&path).is_err());
        assert!(matches!(Store::read(&path), Err(StoreError::Older { found: 1, .. })));
        let after: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!((version_of(&path), before), (1, after));
        connection.execute_batch("DROP TABLE gains").unwrap();
        Store::open(&path).unwrap().check_integrity().unwrap();
    }
}
