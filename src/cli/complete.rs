//! `lesion complete`: prompts continued under one plan or several.

use std::ops::ControlFlow;
use std::time::Instant;

use lesion::forward::{self, Completion, Finish, Sampling, Session};
use lesion::measure::Number;
use lesion::measure::{self, LossSummary};
use lesion::plan::Plan;
use lesion::store::{NewCompletion, Recorder, Wanted};
use serde::Serialize;

use super::args::Complete;
use super::failure::{Exit, Failure, Result};
use super::output::{Output, SCHEMA_VERSION, note, numbers, shown};
use super::resolve::{self, Input, NamedPlan};
use super::{forward_failure, keep, measure_failure, model, signals};

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
    /// `null` where the prompt was given as ids.
    completion: Option<&'a str>,
    finish: &'static str,
    /// With `not-a-number`: how many logits were NaN, and the position whose next token they should have chosen.
    nan_logits: Option<usize>,
    position: Option<usize>,
    sampling: SamplingRecord<'a>,
    isa: &'a str,
    precision: &'static str,
    threads: usize,
}

/// How a completion is drawn, in JSON.
#[derive(Serialize)]
pub(crate) struct SamplingRecord<'a> {
    max_tokens: usize,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    seed: u64,
    stop: &'a [String],
    stop_at_end_of_text: bool,
    cache: bool,
}

impl<'a> From<&'a Sampling> for SamplingRecord<'a> {
    fn from(sampling: &'a Sampling) -> SamplingRecord<'a> {
        SamplingRecord {
            max_tokens: sampling.max_tokens,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: sampling.seed,
            stop: &sampling.stop,
            stop_at_end_of_text: sampling.stop_at_end_of_text,
            cache: sampling.cache,
        }
    }
}

pub(crate) fn run(args: &Complete) -> Result<Exit> {
    let began = Instant::now();
    let sampling = resolve::sampling(&args.sampling)?;
    args.prompt.text.given()?;
    if args.prompt.text.ids.is_some() && !sampling.stop.is_empty() {
        return Err(Failure::usage("--stop with --ids: ids in means ids out, and a stop text is no id"));
    }
    let plans = resolve::parse_all(&args.plan.plan)?;
    let engine = resolve::engine(&args.run.engine)?;
    let mut output = Output::open(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let bridges = args.plan.bridges.read(&model)?;
    let plans = resolve::plans(&plans, &model, &bridges)?;
    let input = Input::prompt(&model, &args.prompt)?;
    input.within_context(model.config())?;
    let references = args.run.references.read()?;
    // What references hold is no part of what stands for a completion in the store.
    let store = if references.is_empty() { keep::open_if_possible(&args.store)? } else { None };
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    session.set_references(references);
    let all: Vec<Plan> = plans.iter().map(|plan| plan.plan.clone()).collect();
    let begin = |store| keep::begin(store, &session, &args.run.model, &all, Wanted::default(), None, began);
    let mut recorder = store.map(begin).transpose()?;
    let several = plans.len() > 1;
    for (number, plan) in plans.iter().enumerate() {
        let there = there(recorder.as_ref(), number, &input, &sampling)?;
        let prompt_nll = prompt_nll(&mut session, plan, &input)?;
        let told = format!("{}{}", summary(&session, plan, &prompt_nll), from_store(&session, there.as_ref()));
        if several && !output.json {
            output.heading(&told)?;
        }
        let completion = match &there {
            Some(There { completion, .. }) => completion.clone(),
            None if output.json => speak(&mut session, plan, &input, &sampling, &mut |_, _| Ok(()))?,
            None => speak_aloud(&mut session, plan, &input, &sampling, &mut output)?,
        };
        model::check_unchanged(&model, args.run.model.read())?;
        if output.json {
            let record = record(&session, plan, &input, &sampling, &prompt_nll, &completion);
            let isa = there.as_ref().map_or(record.isa, |there| &there.isa);
            output.object(&CompleteRecord { isa, ..record })?;
        } else if there.is_some() {
            show(&mut output, &completion)?;
        }
        if several && !output.json {
            output.line("")?;
        } else if !output.json {
            note(told);
        }
        signals::check()?;
        if let (Some(recorder), None) = (&mut recorder, &there) {
            recorder.complete(kept(number, &input, &sampling, completion))?;
        }
    }
    if let Some(recorder) = recorder {
        recorder.finish(None)?;
    }
    if !output.json {
        let uniform = (model.config().vocab_size as f64).ln();
        let baseline = format!("uniform baseline ln V: {} nats per token", shown(uniform));
        if several { output.line(baseline)? } else { note(baseline) }
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// A completion that the store has.
struct There {
    completion: Completion,
    /// The instruction set that computed it.
    isa: String,
}

/// What a plan of this number has said before. What the store does not hold in full is said again: the text, where only ids were
/// asked for, and where NaN came from.
fn there(recorder: Option<&Recorder>, number: usize, input: &Input, sampling: &Sampling) -> Result<Option<There>> {
    let Some(recorder) = recorder else { return Ok(None) };
    let Some(said) = recorder.said(number, &input.ids, sampling)? else { return Ok(None) };
    let whole = input.text.is_none() || said.text.is_some();
    let finish = FINISHES.into_iter().find(|known| finish(*known) == said.finish).filter(|_| whole);
    Ok(finish.map(|finish| {
        let text = said.text.filter(|_| input.text.is_some());
        There { completion: Completion { ids: said.ids, text, finish }, isa: said.observation.isa }
    }))
}

/// For people: whether it was there, and what computed it where that is not what would now.
fn from_store(session: &Session, there: Option<&There>) -> String {
    match there {
        None => String::new(),
        Some(There { isa, .. }) if isa == session.isa().name() => "; it was in the store".to_owned(),
        Some(There { isa, .. }) => format!("; it was in the store, computed with {isa}"),
    }
}

/// A completion as the store takes it.
fn kept(plan: usize, input: &Input, sampling: &Sampling, completion: Completion) -> NewCompletion {
    NewCompletion {
        plan,
        prompt: input.ids.clone(),
        prompt_text: input.text.clone(),
        sampling: sampling.clone(),
        ids: completion.ids,
        text: completion.text,
        finish: finish(completion.finish),
    }
}

/// A completion that is not being said: its text, or its ids.
fn show(output: &mut Output, completion: &Completion) -> Result<()> {
    match &completion.text {
        Some(text) => output.model_text(text)?,
        None => output.text(&completion.ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","))?,
    }
    output.line("")
}

/// The loss of the prompt, nats, one per predicted position.
pub(crate) fn prompt_nll(session: &mut Session, plan: &NamedPlan, input: &Input) -> Result<Vec<f64>> {
    let losses = measure::token_losses(session, &plan.plan, &[&input.ids]).map_err(|error| measure_failure(&error))?;
    Ok(losses.concat())
}

/// Continues the input under a plan; tokens go to `on_token` as they come. After Ctrl-C it ends with what there is.
pub(crate) fn speak(
    session: &mut Session,
    plan: &NamedPlan,
    input: &Input,
    sampling: &Sampling,
    on_token: &mut dyn FnMut(u32, &str) -> Result<()>,
) -> Result<Completion> {
    let mut failure = None;
    let opened = session.model().clone();
    // Ids in, ids out: the tokenizer is not even loaded.
    let tokenizer = match input.text {
        Some(_) => Some(opened.tokenizer().map_err(|error| model::model_failure(&error))?),
        None => None,
    };
    let completion = forward::complete(session, &plan.plan, &input.ids, sampling, tokenizer, &mut |id, text| {
        if let Err(error) = on_token(id, text) {
            failure = Some(error);
        }
        if failure.is_some() || signals::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .map_err(|error| forward_failure(&error))?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    if let Finish::NotANumber { count, position } = completion.finish {
        note(format!("{}: {}", plan.label(), not_a_number(count, position)));
    }
    Ok(completion)
}

/// What a completion that NaN ended has to say.
pub(crate) fn not_a_number(count: usize, position: usize) -> String {
    format!("{count} logits at position {position} are NaN: no next token can be chosen")
}

/// The same, with the text (ids for ids) going to the output as it is made, and a line break after it.
pub(crate) fn speak_aloud(
    session: &mut Session,
    plan: &NamedPlan,
    input: &Input,
    sampling: &Sampling,
    output: &mut Output,
) -> Result<Completion> {
    let mut separator = "";
    let completion = speak(session, plan, input, sampling, &mut |id, text| {
        match input.text {
            Some(_) => output.model_text(text)?,
            None => output.text(&format!("{separator}{id}"))?,
        }
        separator = ",";
        output.flush()
    })?;
    output.line("")?;
    Ok(completion)
}

/// What a completion is in JSON.
pub(crate) fn record<'a>(
    session: &Session,
    plan: &'a NamedPlan,
    input: &'a Input,
    sampling: &'a Sampling,
    prompt_nll: &[f64],
    completion: &'a Completion,
) -> CompleteRecord<'a> {
    let nan = match completion.finish {
        Finish::NotANumber { count, position } => Some((count, position)),
        _ => None,
    };
    CompleteRecord {
        schema_version: SCHEMA_VERSION,
        model: session.model().name().to_owned(),
        plan: &plan.text,
        bos: input.bos,
        prompt_ids: &input.ids,
        prompt_nll: numbers(prompt_nll),
        prompt_mean_nll: LossSummary::from_iter(prompt_nll).mean().map(Number),
        completion_ids: &completion.ids,
        completion: completion.text.as_deref(),
        finish: finish(completion.finish),
        nan_logits: nan.map(|(count, _)| count),
        position: nan.map(|(_, position)| position),
        sampling: SamplingRecord::from(sampling),
        isa: session.isa().name(),
        precision: session.precision().name(),
        threads: session.threads(),
    }
}

/// One line for people: the plan, its cost in blocks, and the prompt's loss.
pub(crate) fn summary(session: &Session, plan: &NamedPlan, prompt_nll: &[f64]) -> String {
    let loss = match LossSummary::from_iter(prompt_nll).mean() {
        Some(mean) => format!("prompt {} nats per token", shown(mean)),
        None => "a prompt of one token has no loss".to_owned(),
    };
    format!("{}: {}; {loss}", plan.label(), cost(session, plan))
}

/// `8 blocks (12 intact)`
pub(crate) fn cost(session: &Session, plan: &NamedPlan) -> String {
    let cost = plan.plan.cost();
    let n_layer = session.model().config().n_layer;
    if plan.intact { format!("{cost} blocks") } else { format!("{cost} blocks ({n_layer} intact)") }
}

/// The ends of completions that their names say all of.
const FINISHES: [Finish; 4] = [Finish::Length, Finish::Stop, Finish::Context, Finish::EndOfText];

pub(crate) fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Stop => "stop",
        Finish::Context => "context",
        Finish::EndOfText => "end-of-text",
        Finish::NotANumber { .. } => "not-a-number",
        Finish::Cancelled => "cancelled",
    }
}
