//! GPT-2's own weights, where they are to be had, against 176 recorded runs of layer orders and published values.

use std::ops::ControlFlow;

use lesion::forward::{Batch, Finish, Sampling, Session, SessionOptions, Target, complete};
use lesion::measure::{seed_compat_loss, token_losses};
use lesion::model::{Model, Tokenizer};
use lesion::plan::Plan;
use lesion::weights::ReadMode;
use serde::Deserialize;

use super::compare::{Check, Status, departure, is_tie, within};
use crate::cli::args::{ModelArgs, Verify};
use crate::cli::complete::not_a_number;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::model::{self, model_failure};
use crate::cli::{forward_failure, measure_failure, signals};
use lesion::measure::Number;

/// The recorded runs.
const SEED: &str = "gpt2 (recorded runs)";
const PUBLISHED: &str = "gpt2 (published)";

/// The runs were made on another device: closer logits are a tie.
const SEED_MARGIN: f64 = 0.02;
/// Nats.
const SEED_LOSS: f64 = 2e-3;

#[derive(Deserialize)]
struct Recorded {
    rows: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    kind: String,
    layers: Vec<usize>,
    prompt: String,
    greedy_completion: String,
    answer: Option<String>,
    loss: Option<f64>,
}

/// Published values that need nothing but the model, and those that need a data set too.
const NEED_DATA: [(&str, &str); 3] = [
    ("IOI mean logit difference 3.56, P(IO) 49 %", "needs the prompts of Wang et al. 2022, which do not ship"),
    ("WikiText-2 and -103 perplexity 29.41, 37.50", "needs the WikiText data sets, which do not ship"),
    ("LAMBADA perplexity 35.13, accuracy 45.99 %", "needs the LAMBADA data set, which does not ship"),
];

/// Every recorded value: compared, or not checked and why.
pub(super) fn checks(args: &Verify, engine: &SessionOptions) -> Result<Vec<Check>> {
    let recorded: Recorded = serde_json::from_str(include_str!("../../../tests/data/seed_gpt2_layer_orders.json"))
        .expect("the tests read the recorded runs");
    let asked = ModelArgs {
        model: args.gpt2.clone(),
        lock: args.lock.clone(),
        no_mmap: false,
        verify: false,
        require_finite: false,
    };
    let mut checks = match model::open(&asked) {
        Ok(model) => run_all(&model, engine, &recorded.rows)?,
        // Not here and not to be had: that is no mismatch. Anything else (a wrong file, a wrong name) is an error.
        Err(failure) if failure.exit == Exit::Missing => unchecked(&recorded.rows, &failure),
        Err(failure) => return Err(failure),
    };
    checks.extend(NEED_DATA.iter().map(|&(case, why)| not_checked(PUBLISHED, case, "data set", why)));
    Ok(checks)
}

fn unchecked(runs: &[Run], failure: &Failure) -> Vec<Check> {
    let why = format!("the weights of gpt2 are not to be had: {failure}");
    let mut checks = Vec::new();
    for run in runs {
        checks.push(not_checked(SEED, &run.kind, "completion", &why));
        if run.loss.is_some() {
            checks.push(not_checked(SEED, &run.kind, "seed-compat loss", &why));
        }
    }
    checks.push(not_checked(PUBLISHED, "Hello world!", "mean nll", &why));
    for quantity in ["rank", "logit above mean", "probability"] {
        checks.push(not_checked(PUBLISHED, " Mary", quantity, &why));
    }
    checks
}

fn not_checked(reference: &'static str, case: &str, quantity: &'static str, why: &str) -> Check {
    Check {
        reference,
        case: case.to_owned(),
        plan: None,
        quantity,
        status: Status::NotChecked,
        error: None,
        gate: None,
        detail: Some(why.to_owned()),
    }
}

fn run_all(model: &Model, engine: &SessionOptions, runs: &[Run]) -> Result<Vec<Check>> {
    let tokenizer = model.tokenizer().map_err(|error| model_failure(&error))?;
    let mut session = Session::new(model, engine.clone()).map_err(|error| forward_failure(&error))?;
    let mut checks = Vec::new();
    for run in runs {
        signals::check()?;
        check_run(&mut session, tokenizer, run, &mut checks)?;
    }
    model::check_unchanged(model, ReadMode::Map)?;
    if let Err(failure) = published(&mut session, tokenizer, &mut checks) {
        let (status, _, detail) = unfit(failure)?;
        checks.push(Check { status, ..not_checked(PUBLISHED, "the model given", "published values", &detail) });
    }
    Ok(checks)
}

fn encode(session: &Session, text: &str) -> Result<Vec<u32>> {
    session.model().encode(text).map_err(|error| model_failure(&error))
}

fn check_run(session: &mut Session, tokenizer: &Tokenizer, run: &Run, checks: &mut Vec<Check>) -> Result<()> {
    let plan = Plan::from_layers(run.layers.iter().copied()).expect("the recorded plans are short");
    let prompt = encode(session, &run.prompt)?;
    let mut add = |quantity, gate, judged: Result<(Status, Option<f64>, String)>| -> Result<()> {
        let (status, error, detail) = judged.or_else(unfit)?;
        checks.push(Check {
            reference: SEED,
            case: run.kind.clone(),
            plan: Some(plan.to_string()),
            quantity,
            status,
            error: error.map(Number),
            gate: Some(Number(gate)),
            detail: Some(detail),
        });
        Ok(())
    };
    add("completion", SEED_MARGIN, check_completion(session, tokenizer, &plan, &prompt, &run.greedy_completion))?;
    if let (Some(answer), Some(recorded)) = (&run.answer, run.loss) {
        let found = seed_compat_loss(session, &plan, tokenizer, &run.prompt, answer);
        let judged = found.map_err(|error| measure_failure(&error)).map(|found| {
            let error = (found - recorded).abs();
            (within(error, SEED_LOSS), Some(error), format!("recorded {recorded}, found {found}"))
        });
        add("seed-compat loss", SEED_LOSS, judged)?;
    }
    Ok(())
}

/// A run that the model given can't make (a plan or a prompt that does not fit it) is a mismatch; a broken file or an
/// interrupt ends the command.
fn unfit(failure: Failure) -> Result<(Status, Option<f64>, String)> {
    match failure.exit {
        Exit::Usage | Exit::Missing => Ok((Status::Mismatch, None, failure.to_string())),
        _ => Err(failure),
    }
}

/// Whether greedy tokens spell the recorded text, or part from it where two tokens are as likely.
fn check_completion(
    session: &mut Session,
    tokenizer: &Tokenizer,
    plan: &Plan,
    prompt: &[u32],
    recorded: &str,
) -> Result<(Status, Option<f64>, String)> {
    let recorded = recorded.as_bytes();
    let mut length = 0;
    // A token has at least a byte: as many tokens as the record has bytes are enough.
    let sampling = Sampling::greedy(recorded.len().max(1));
    let completion = complete(session, plan, prompt, &sampling, Some(tokenizer), &mut |_, text| {
        let agrees = recorded[length.min(recorded.len())..].iter().zip(text.as_bytes()).all(|(a, b)| a == b);
        length += text.len();
        if agrees && length < recorded.len() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .map_err(|error| forward_failure(&error))?;
    let bytes = |id: u32| tokenizer.token_bytes(id);
    if let Finish::NotANumber { count, position } = completion.finish {
        return Ok((Status::Mismatch, None, not_a_number(count, position)));
    }
    let departed = departure(recorded, completion.ids.iter().map(|&id| bytes(id).unwrap_or_default()));
    let (status, detail) = match departed {
        None => (Status::Passed, "the completions agree".to_owned()),
        Some(at) => {
            let before = [prompt, &completion.ids[..at.tokens]].concat();
            let logits = session.logits(plan, &before).map_err(|error| forward_failure(&error))?;
            let rest = &recorded[at.bytes..];
            let tie = is_tie(rest, logits, SEED_MARGIN, bytes);
            let detail = format!(
                "after {} tokens: recorded {:?}, found {:?}",
                at.tokens,
                excerpt(rest),
                completion.ids.get(at.tokens).map(|&id| String::from_utf8_lossy(bytes(id).unwrap_or_default()))
            );
            (if tie { Status::Tie } else { Status::Mismatch }, detail)
        }
    };
    Ok((status, None, detail))
}

fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned()
}

fn published(session: &mut Session, tokenizer: &Tokenizer, checks: &mut Vec<Check>) -> Result<()> {
    let plan = Plan::intact(session.model().config().n_layer);
    let mut add = |case: &str, quantity, recorded: f64, found: f64, gate: f64| {
        let error = (found - recorded).abs();
        checks.push(Check {
            reference: PUBLISHED,
            case: case.to_owned(),
            plan: Some(plan.to_string()),
            quantity,
            status: within(error, gate),
            error: Some(Number(error)),
            gate: Some(Number(gate)),
            detail: Some(format!("published {recorded}, found {found}")),
        });
    };
    // The acceptance test of TransformerLens.
    let ids = encode(session, "Hello world!")?;
    let nll = token_losses(session, &plan, &[&ids]).map_err(|error| measure_failure(&error))?.concat();
    add("Hello world!", "mean nll", 5.33186, nll.iter().sum::<f64>() / nll.len() as f64, 1e-4);

    // The seed's notebook, whose logits are TransformerLens's: their mean over the vocabulary is 0.
    let ids = encode(session, "After John and Mary went to the store, John gave a bottle of milk to")?;
    let answer = tokenizer.encode(" Mary").map_err(|error| crate::cli::resolve::tokenizer_failure(&error))?;
    let target = Target { row: ids.len() - 1, id: answer[0] };
    let score = session.score(&plan, &Batch::new([&ids[..]]), &[target]).map_err(|error| forward_failure(&error))?[0];
    let logits = session.logits(&plan, &ids).map_err(|error| forward_failure(&error))?;
    let mean = logits.iter().map(|&logit| f64::from(logit)).sum::<f64>() / logits.len() as f64;
    add(" Mary", "rank", 0.0, f64::from(score.rank), 0.0);
    add(" Mary", "logit above mean", 18.09, score.target_logit - mean, 0.01);
    add(" Mary", "probability", 0.7007, (-score.nll()).exp(), 1e-4);
    Ok(())
}
