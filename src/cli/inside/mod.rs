//! Experiments inside the model on a pair of runs: patch grids (`patch`) and causal tracing (`trace`), each as a map of layers
//! and positions or heads (`map`).

pub(crate) mod args;
mod keeping;
pub(crate) mod map;
pub(crate) mod patch;
pub(crate) mod path;
pub(crate) mod trace;

use std::cell::RefCell;
use std::ops::Range;

use lesion::forward::{Bridges, Session};
use lesion::inside::{GridRow, InsideError, Limits};
use lesion::measure::Answered;
use lesion::model::Model;
use lesion::plan::{Part, Plan};
use lesion::sweep::SweepCost;
use serde::Serialize;

use self::keeping::Keeping;
use super::args::{BosArgs, ModelArgs};
use super::bridges::bound;
use super::failure::{Exit, Failure, Result};
use super::output::{note, shown};
use super::resolve::{self, Input, NamedPlan};
use super::store::args::StoreArgs;
use super::sweep::args::MemoryArgs;
use super::sweep::memory::memory_for;
use super::sweep::running::sweep_failure;
use super::{forward_failure, measure_failure, model, signals};

/// Runs an experiment, within what it may take and until Ctrl-C, with its results in the store; what it found, and what that is
/// equal within, bit for bit.
fn kept<T>(
    session: &mut Session,
    memory: &MemoryArgs,
    (store, model_args): (&StoreArgs, &ModelArgs),
    run: impl FnOnce(&mut Session, Limits<'_>) -> std::result::Result<T, InsideError>,
) -> Result<(T, String)> {
    let limits = Limits { memory: memory_for(memory.memory, 0)?, stop: &signals::interrupted, keep: None };
    let found = match Keeping::open(store, model_args, session)? {
        None => (run(session, limits).map_err(|error| inside_failure(&error))?, session.numerics()),
        Some(keeping) => {
            let keeping = RefCell::new(keeping);
            let found = run(session, Limits { keep: Some(&keeping), ..limits });
            let keeping = keeping.into_inner();
            match found {
                Ok(found) => (found, keeping.finish(session)?),
                Err(error) => return Err(keeping.break_off(inside_failure(&error))),
            }
        }
    };
    model::check_unchanged(session.model(), model_args.read())?;
    signals::check()?;
    Ok(found)
}

fn inside_failure(error: &InsideError) -> Failure {
    match error {
        InsideError::Cancelled => Failure::new(Exit::Interrupted, "interrupted"),
        InsideError::Sweep(error) => sweep_failure(error),
        InsideError::Forward(error) => forward_failure(error),
        _ => Failure::usage(error.to_string()),
    }
}

/// A plan of the command line; without one the intact model.
fn plan(text: Option<&str>, model: &Model, bridges: &Bridges) -> Result<NamedPlan> {
    let config = model.config();
    let plan = match text {
        Some(text) => bound(&resolve::plan(&resolve::parse(text)?, &model.plan_shape())?, bridges)?,
        None => Plan::intact(config.n_layer),
    };
    Ok(NamedPlan::new(plan, config))
}

/// A prompt's tokens, and those of an answer behind it.
struct Prompted {
    input: Input,
    answer: Vec<u32>,
}

/// Encodes a prompt and an answer behind it as one text, or apart where a token would span their join.
fn prompted(model: &Model, prompt: &str, answer: &str, bos: &BosArgs) -> Result<Prompted> {
    let input = Input::text(model, prompt.to_owned(), bos.wanted())?;
    let tokenizer = model.tokenizer().map_err(|error| model::model_failure(&error))?;
    let first = if input.bos { Some(model.bos().map_err(|error| model::model_failure(&error))?) } else { None };
    let answered = Answered::encode(tokenizer, first, prompt, answer).map_err(|error| measure_failure(&error))?;
    if !answered.joint {
        note(format!("a token would span the prompt's end and {answer:?}: they are encoded apart"));
    }
    resolve::within_context(answered.ids.len(), model.config())?;
    Ok(Prompted { answer: answered.ids[answered.answer].to_vec(), input })
}

/// An answer in JSON.
#[derive(Serialize)]
struct AnswerRecord<'a> {
    text: &'a str,
    ids: &'a [u32],
}

/// Block evaluations in JSON.
#[derive(Serialize)]
struct CostRecord {
    block_evaluations: f64,
    naive_block_evaluations: f64,
}

impl CostRecord {
    fn new(cost: SweepCost) -> CostRecord {
        CostRecord { block_evaluations: cost.shared.blocks(), naive_block_evaluations: cost.naive.blocks() }
    }
}

/// `660 1/3 block evaluations instead of 1164`
fn cost_text(cost: SweepCost) -> String {
    format!("{} block evaluations instead of {}", cost.shared, cost.naive)
}

/// What a row is called: its layer, the half that runs, and which of its layer's executions it is, where there are several.
fn row_label(row: &GridRow, rows: &[GridRow]) -> String {
    let half = match row.part {
        Part::Block => "",
        Part::Attention => "a",
        Part::Mlp => "m",
    };
    let several = rows.iter().filter(|other| other.layer == row.layer).count() > 1;
    let occurrence = if several { format!("@{}", row.occurrence) } else { String::new() };
    format!("{}{half}{occurrence}", row.layer)
}

/// The tokens that hold a part of a text which the prompt holds once.
fn tokens_of(model: &Model, input: &Input, subject: &str) -> Result<Range<usize>> {
    let text = input.text.as_deref().unwrap_or_default();
    let places: Vec<usize> =
        if subject.is_empty() { Vec::new() } else { text.match_indices(subject).map(|(at, _)| at).collect() };
    let [start] = places[..] else {
        let count = places.len();
        return Err(Failure::usage(format!("--subject {subject:?} is {count} times in {text:?}: once is needed"))
            .with_help("--subject-tokens I..J names positions instead"));
    };
    let tokenizer = model.tokenizer().map_err(|error| model::model_failure(&error))?;
    let mut at = 0;
    let mut found: Vec<usize> = Vec::new();
    for (position, id) in input.ids.iter().enumerate().skip(usize::from(input.bos)) {
        let end = at + tokenizer.token_bytes(*id).map_or(0, <[u8]>::len);
        if end > start && at < start + subject.len() {
            found.push(position);
        }
        at = end;
    }
    Ok(found[0]..found[found.len() - 1] + 1)
}

/// A number with its sign.
fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", shown(value)) } else { shown(value) }
}
