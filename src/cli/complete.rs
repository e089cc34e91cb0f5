//! `lesion complete`: prompts continued under one plan or several.

use std::ops::ControlFlow;

use lesion::forward::{self, Completion, Finish, Sampling, Session};
use lesion::measure::{self, LossSummary};
use serde::Serialize;

use super::args::Complete;
use super::failure::{Exit, Result};
use super::output::{Number, Output, SCHEMA_VERSION, note, numbers, shown};
use super::resolve::{self, Input, NamedPlan};
use super::{forward_failure, measure_failure, model, signals};

/// A completion in JSON.
#[derive(Serialize)]
pub(crate) struct CompleteRecord<'a> {
    schema_version: u32,
    model: String,
    plan: &'a str,
    bos: bool,
    prompt_ids: &'a [u32],
    /// Nats, one per predicted position of the prompt.
    prompt_nll: Vec<Number>,
    prompt_mean_nll: Option<Number>,
    completion_ids: &'a [u32],
    completion: &'a str,
    finish: &'static str,
    sampling: SamplingRecord<'a>,
    isa: &'static str,
    threads: usize,
}

#[derive(Serialize)]
struct SamplingRecord<'a> {
    max_tokens: usize,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    seed: u64,
    stop: &'a [String],
    stop_at_end_of_text: bool,
    cache: bool,
}

/// A completion and the loss of the prompt it continues.
pub(crate) struct Spoken {
    pub(crate) completion: Completion,
    /// Nats, one per predicted position of the prompt.
    pub(crate) prompt_nll: Vec<f64>,
}

pub(crate) fn run(args: &Complete) -> Result<Exit> {
    let sampling = resolve::sampling(&args.sampling)?;
    let mut output = Output::open(&args.output)?;
    let model = model::open(&args.model)?;
    let plans = resolve::plans(&args.plan.plan, model.config())?;
    let input = Input::prompt(&model, &args.prompt)?;
    input.within_context(model.config())?;
    let mut session = resolve::session(&model, &args.engine)?;
    let several = plans.len() > 1;
    for (index, plan) in plans.iter().enumerate() {
        if output.json {
            let spoken = speak(&mut session, plan, &input, &sampling, &mut |_| Ok(()))?;
            output.object(&record(&session, plan, &input, &sampling, &spoken))?;
        } else {
            if several {
                if index > 0 {
                    output.line("")?;
                }
                output.heading(&plan.label())?;
            }
            let spoken = speak_aloud(&mut session, plan, &input, &sampling, &mut output)?;
            let summary = summary(&session, plan, &spoken);
            if several { output.line(format!("  {summary}"))? } else { note(summary) }
        }
        signals::check()?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// Continues the input under a plan; text goes to `on_text` as it is made. After Ctrl-C it ends with what there is.
pub(crate) fn speak(
    session: &mut Session,
    plan: &NamedPlan,
    input: &Input,
    sampling: &Sampling,
    on_text: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Spoken> {
    let losses = measure::token_losses(session, &plan.plan, &[&input.ids]).map_err(|error| measure_failure(&error))?;
    let mut failure = None;
    let completion = forward::complete(session, &plan.plan, &input.ids, sampling, &mut |text| {
        if let Err(error) = on_text(text) {
            failure = Some(error);
        }
        if failure.is_some() || signals::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(|error| forward_failure(&error))?;
    match failure {
        Some(failure) => Err(failure),
        None => Ok(Spoken { completion, prompt_nll: losses.into_iter().flatten().collect() }),
    }
}

/// The same, with the text going to the output as it is made, and a line break after it.
pub(crate) fn speak_aloud(
    session: &mut Session,
    plan: &NamedPlan,
    input: &Input,
    sampling: &Sampling,
    output: &mut Output,
) -> Result<Spoken> {
    let spoken = speak(session, plan, input, sampling, &mut |text| {
        output.model_text(text)?;
        output.flush()
    })?;
    output.line("")?;
    Ok(spoken)
}

/// What a completion is in JSON.
pub(crate) fn record<'a>(
    session: &Session,
    plan: &'a NamedPlan,
    input: &'a Input,
    sampling: &'a Sampling,
    spoken: &'a Spoken,
) -> CompleteRecord<'a> {
    CompleteRecord {
        schema_version: SCHEMA_VERSION,
        model: session.model().name().to_owned(),
        plan: &plan.text,
        bos: input.bos,
        prompt_ids: &input.ids,
        prompt_nll: numbers(&spoken.prompt_nll),
        prompt_mean_nll: LossSummary::from_iter(&spoken.prompt_nll).mean().map(Number),
        completion_ids: &spoken.completion.ids,
        completion: &spoken.completion.text,
        finish: finish(spoken.completion.finish),
        sampling: SamplingRecord {
            max_tokens: sampling.max_tokens,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: sampling.seed,
            stop: &sampling.stop,
            stop_at_end_of_text: sampling.stop_at_end_of_text,
            cache: sampling.cache,
        },
        isa: session.isa().name(),
        threads: session.threads(),
    }
}

/// One line for people: the plan, its cost, and the prompt's loss beside that of a model that knows nothing.
pub(crate) fn summary(session: &Session, plan: &NamedPlan, spoken: &Spoken) -> String {
    let config = session.model().config();
    let uniform = (config.vocab_size as f64).ln();
    let loss = match LossSummary::from_iter(&spoken.prompt_nll).mean() {
        Some(mean) => format!("prompt {} nats per token", shown(mean)),
        None => "a prompt of one token has no loss".to_owned(),
    };
    let cost = plan.plan.cost();
    format!("{}: {cost} of {} blocks; {loss} (uniform ln V {})", plan.text, config.n_layer, shown(uniform))
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Stop => "stop",
        Finish::Context => "context",
        Finish::EndOfText => "end-of-text",
        Finish::Cancelled => "cancelled",
    }
}
