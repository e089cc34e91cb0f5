//! The embedded model against float64 values of Hugging Face transformers: ten layer orders, nine inputs.

use lesion::forward::{Batch, Sampling, Session, SessionOptions, Target, complete};
use lesion::measure::{Answered, answer_losses, token_losses};
use lesion::model::Model;
use lesion::plan::Plan;
use serde::Deserialize;
use std::ops::ControlFlow;

use super::compare::{Check, Status, first_difference, max_abs_error, ranking, within};
use crate::cli::failure::Result;
use crate::cli::model::model_failure;
use crate::cli::{forward_failure, measure_failure, signals};
use lesion::measure::Number;

const REFERENCE: &str = "mini (Hugging Face, f64)";

/// How far an f32 pass may be from the reference.
mod gate {
    /// Nats, at any position.
    pub(super) const NLL: f64 = 1e-4;
    /// Nats, on average over an input.
    pub(super) const MEAN_NLL: f64 = 1e-5;
    /// Nats.
    pub(super) const ENTROPY: f64 = 1e-4;
    /// Relative.
    pub(super) const NORM: f64 = 1e-5;
    /// Logits: closer tokens may change places.
    pub(super) const MARGIN: f64 = 2e-3;
}

#[derive(Deserialize)]
struct Golden {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    prompt: String,
    text: Option<String>,
    ids: Vec<u32>,
    plan: Vec<usize>,
    nll: Vec<f64>,
    last_entropy: f64,
    last_top5: Vec<u32>,
    residual_norms: Vec<f64>,
    answer: Option<String>,
    answer_ids: Option<Vec<u32>>,
    answer_nll: Option<Vec<f64>>,
    greedy_ids: Vec<u32>,
}

/// Every recorded value, compared.
pub(super) fn checks(engine: &SessionOptions) -> Result<Vec<Check>> {
    let golden: Golden = serde_json::from_str(include_str!("../../../tests/data/golden_mini.json"))
        .expect("the tests read the golden values");
    let model = Model::mini().map_err(|error| model_failure(&error))?;
    let mut session = Session::new(&model, engine.clone()).map_err(|error| forward_failure(&error))?;
    let mut checks = Vec::new();
    for row in &golden.rows {
        signals::check()?;
        check_row(&mut session, row, &mut checks)?;
    }
    Ok(checks)
}

fn check_row(session: &mut Session, row: &Row, checks: &mut Vec<Check>) -> Result<()> {
    let plan = Plan::from_layers(row.plan.iter().copied()).expect("the recorded plans are short");
    let mut add = |quantity, status, error: Option<f64>, gate: Option<f64>, detail: String| {
        checks.push(Check {
            reference: REFERENCE,
            case: row.prompt.clone(),
            plan: Some(plan.to_string()),
            quantity,
            status,
            error: error.map(Number),
            gate: gate.map(Number),
            detail: Some(detail),
        });
    };
    let model = session.model().clone();
    let tokenizer = model.tokenizer().map_err(|error| model_failure(&error))?;
    if let Some(text) = &row.text {
        let ids = model.encode(text).map_err(|error| model_failure(&error))?;
        let same = if ids == row.ids { Status::Passed } else { Status::Mismatch };
        add("token ids", same, None, None, format!("recorded {:?}, found {ids:?}", row.ids));
    }

    let nll = token_losses(session, &plan, &[&row.ids]).map_err(|error| measure_failure(&error))?.concat();
    let error = max_abs_error(&row.nll, &nll);
    add("nll", within(error, gate::NLL), Some(error), Some(gate::NLL), format!("off by {error:e}"));
    if !nll.is_empty() {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (recorded, found) = (mean(&row.nll), mean(&nll));
        let error = (recorded - found).abs();
        let both = format!("recorded {recorded}, found {found}");
        add("mean nll", within(error, gate::MEAN_NLL), Some(error), Some(gate::MEAN_NLL), both);
    }

    let logits = session.logits(&plan, &row.ids).map_err(|error| forward_failure(&error))?.to_vec();
    let last = row.ids.len() - 1;
    let targets: Vec<Target> = row.last_top5.iter().map(|&id| Target { row: last, id }).collect();
    let scores =
        session.score(&plan, &Batch::new([&row.ids[..]]), &targets).map_err(|error| forward_failure(&error))?;
    let entropy = scores.first().map_or(f64::NAN, |score| score.entropy);
    let error = (entropy - row.last_entropy).abs();
    let both = format!("recorded {}, found {entropy}", row.last_entropy);
    add("entropy", within(error, gate::ENTROPY), Some(error), Some(gate::ENTROPY), both);
    let ranks: Vec<u32> = scores.iter().map(|score| score.rank).collect();
    let status = if ranks.iter().copied().eq(0..row.last_top5.len() as u32) {
        Status::Passed
    } else {
        // Only whether it is a tie is asked of the logits: ranks that differ never pass.
        let gap = |a: u32, b: u32| f64::from(logits[a as usize] - logits[b as usize]).abs();
        match ranking(&row.last_top5, &top(&logits, ranks.len()), gate::MARGIN, gap) {
            Status::Tie => Status::Tie,
            _ => Status::Mismatch,
        }
    };
    add("top 5", status, None, Some(gate::MARGIN), format!("recorded {:?}, found at ranks {ranks:?}", row.last_top5));

    let norms = norms(session, &plan, &row.ids)?;
    let relative: Vec<f64> = norms.iter().zip(&row.residual_norms).map(|(found, recorded)| found / recorded).collect();
    let error = if norms.len() == row.residual_norms.len() {
        max_abs_error(&vec![1.0; relative.len()], &relative)
    } else {
        f64::NAN
    };
    let both = format!("recorded {:?}, found {norms:?}", row.residual_norms);
    add("residual norms", within(error, gate::NORM), Some(error), Some(gate::NORM), both);

    if let (Some(text), Some(answer), Some(ids), Some(recorded)) =
        (&row.text, &row.answer, &row.answer_ids, &row.answer_nll)
    {
        let bos = session.model().config().bos_token_id;
        let answered = Answered::encode(tokenizer, bos, text, answer).map_err(|error| measure_failure(&error))?;
        let found = answer_losses(session, &plan, &answered).map_err(|error| measure_failure(&error))?;
        let found_ids = &answered.ids[answered.answer.clone()];
        let error = if found_ids == ids { max_abs_error(recorded, &found) } else { f64::NAN };
        let both = format!("recorded {recorded:?} for {ids:?}, found {found:?} for {found_ids:?}");
        add("answer nll", within(error, gate::NLL), Some(error), Some(gate::NLL), both);
    }
    if !row.greedy_ids.is_empty() {
        let (status, detail) = check_greedy(session, &plan, row)?;
        add("greedy ids", status, None, Some(gate::MARGIN), detail);
    }
    Ok(())
}

/// The recorded tokens are the likeliest ones at each step, or within the margin of them where the sequences part.
fn check_greedy(session: &mut Session, plan: &Plan, row: &Row) -> Result<(Status, String)> {
    let sampling = Sampling::greedy(row.greedy_ids.len());
    let found = complete(session, plan, &row.ids, &sampling, None, &mut |_, _| ControlFlow::Continue(()))
        .map_err(|error| forward_failure(&error))?
        .ids;
    let detail = format!("recorded {:?}, found {found:?}", row.greedy_ids);
    let Some(at) = first_difference(&row.greedy_ids, &found) else { return Ok((Status::Passed, detail)) };
    let (Some(&recorded), Some(&ours)) = (row.greedy_ids.get(at), found.get(at)) else {
        return Ok((Status::Mismatch, detail));
    };
    let before = [&row.ids[..], &found[..at]].concat();
    let logits = session.logits(plan, &before).map_err(|error| forward_failure(&error))?;
    let gap = f64::from(logits[ours as usize] - logits[recorded as usize]);
    Ok((if gap < gate::MARGIN { Status::Tie } else { Status::Mismatch }, detail))
}

/// The Euclidean norm of the last position's residual stream before the first step and after each.
fn norms(session: &mut Session, plan: &Plan, ids: &[u32]) -> Result<Vec<f64>> {
    let mut norms = Vec::new();
    session
        .residuals(plan, &Batch::new([ids]), |residual| {
            let width = residual.hidden.len() / ids.len();
            let last = &residual.hidden[residual.hidden.len() - width..];
            norms.push(last.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt());
        })
        .map_err(|error| forward_failure(&error))?;
    Ok(norms)
}

/// The ids of the `count` greatest logits, the greatest first.
fn top(logits: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    ids.truncate(count);
    ids
}
