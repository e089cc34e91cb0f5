//! `lesion loss`: the loss of texts, ids, files and answers under one plan or several.

mod keeping;
mod plot;

use std::ops::Range;
use std::time::Instant;

use lesion::forward::{Bridges, Session, SessionOptions};
use lesion::measure::Number;
use lesion::measure::{self, Answered, LossSummary, Windows};
use lesion::model::Model;
use lesion::plan::Plan;
use lesion::store::Wanted;
use serde::Serialize;

use super::args::{Loss, Measure};
use super::failure::{Exit, Failure, Result};
use super::output::{Output, SCHEMA_VERSION, numbers, shown, table};
use super::resolve::{self, Input, NamedPlan, given_or_stdin, within_context};
use super::{keep, measure_failure, model, signals};
use keeping::{Keeping, Losses};

/// How texts longer than the context are scored, as the output states it.
const WINDOW_CONVENTION: &str =
    "overlapping windows; each token is scored once, by the window that gives it the most context";

/// A loss in JSON. Fields are never renamed.
#[derive(Serialize)]
pub(crate) struct LossRecord<'a> {
    schema_version: u32,
    model: &'a str,
    plan: &'a str,
    measure: &'static str,
    bos: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    token_ids: &'a [u32],
    /// Nats, one per predicted position.
    nll: Vec<Number>,
    mean_nll: Option<Number>,
    sum_nll: Number,
    perplexity: Option<Number>,
    /// ln V: what a model that knows nothing loses per token.
    uniform_nll: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    windows: Option<WindowRecord>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerRecord<'a>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    seed_compat: Option<SeedCompatRecord<'a>>,
    isa: &'a str,
    precision: &'static str,
    threads: usize,
}

#[derive(Serialize)]
struct WindowRecord {
    length: usize,
    stride: usize,
    convention: &'static str,
}

#[derive(Serialize)]
struct AnswerRecord<'a> {
    answer: &'a str,
    answer_ids: &'a [u32],
    /// Nats, one per token of the answer.
    answer_nll: Vec<Number>,
    answer_mean_nll: Option<Number>,
    /// Whether prompt and answer were encoded as one text. False where a token would have spanned the join: then they
    /// were encoded apart.
    answer_joint: bool,
}

/// Beside `token_ids` and `nll`, which are those of the sequence `BOS prompt BOS " "+answer`.
#[derive(Serialize)]
struct SeedCompatRecord<'a> {
    answer: &'a str,
    /// Those of `" "+answer`.
    answer_ids: &'a [u32],
    /// Nats: the last token's alone.
    seed_compat_nll: Number,
}

/// What is scored: tokens and, where there is one, the answer among them.
pub(crate) struct Scored {
    input: Input,
    answer: Option<Answer>,
    windows: Option<Windows>,
}

impl Scored {
    /// An input that fits the context.
    pub(crate) fn whole(input: Input) -> Scored {
        Scored { input, answer: None, windows: None }
    }
}

struct Answer {
    text: String,
    /// Of the token ids.
    span: Range<usize>,
    joint: bool,
}

pub(crate) fn run(args: &Loss) -> Result<Exit> {
    refuse_early(args)?;
    let plans = resolve::parse_all(&args.plan.plan)?;
    let engine = resolve::engine(&args.run.engine)?;
    let mut output = Output::open(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let bridges = args.plan.bridges.read(&model)?;
    let plans = resolve::plans(&plans, &model, &bridges)?;
    if args.measure == Measure::SeedCompat {
        return seed_compat(args, &model, &plans, bridges, engine, output);
    }
    let scored = scored(args, &model)?;
    let store = keep::open_if_possible(&args.store)?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    let references = args.run.references.read()?;
    session.set_references(references.clone());
    let all: Vec<Plan> = plans.iter().map(|plan| plan.plan.clone()).collect();
    let wanted = Wanted { divergence: false, token_losses: true };
    let recorder = store
        .map(|store| keep::begin(store, &session, &args.run.model, &all, wanted, None, Instant::now()))
        .transpose()?;
    let mut keeping = recorder.map(|recorder| Keeping::new(recorder, &args.run.model, references));
    for (index, scored) in scored.iter().enumerate() {
        let mut losses = Vec::new();
        if let Some(keeping) = &mut keeping {
            keeping.expect(scored, model.config().n_positions)?;
        }
        for (number, plan) in plans.iter().enumerate() {
            let found = match &mut keeping {
                Some(keeping) => keeping.losses(&mut session, number, plan)?,
                None => Losses { nll: losses_of(&mut session, plan, scored)?, isa: None },
            };
            model::check_unchanged(&model, args.run.model.read())?;
            if output.json {
                let record = record(&session, plan, scored, &found.nll);
                let isa = found.isa.as_deref().unwrap_or(record.isa);
                output.object(&LossRecord { isa, ..record })?;
                output.flush()?;
            }
            losses.push(found.nll);
            signals::check()?;
        }
        if let Some(keeping) = &mut keeping {
            keeping.finish_input()?;
        }
        if !output.json {
            if index > 0 {
                output.line("")?;
            }
            show(&mut output, &model, &plans, scored, &losses, args.tokens)?;
            if args.plot {
                plot::show(&mut output, &model, &plans, scored, &losses, args.tokens)?;
            }
        }
    }
    if let Some(keeping) = keeping {
        keeping.finish()?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// What the command line alone shows to be impossible, before any model is opened.
fn refuse_early(args: &Loss) -> Result<()> {
    let seed_compat = args.measure == Measure::SeedCompat;
    if seed_compat && (args.prompt.text.prompt.is_none() || args.answer.is_none()) {
        return Err(Failure::usage("--measure seed-compat needs a TEXT and --answer"));
    }
    if seed_compat && !args.prompt.bos.wanted() {
        return Err(Failure::usage("--no-bos with --measure seed-compat: its two BOS tokens are part of it"));
    }
    if seed_compat && args.plot {
        return Err(Failure::usage("--plot with --measure seed-compat: it scores one token"));
    }
    if seed_compat && args.tokens {
        return Err(Failure::usage("--tokens with --measure seed-compat: it scores one token"));
    }
    if args.answer.is_some() {
        if args.prompt.text.prompt.is_none() {
            return Err(Failure::usage("--answer needs a prompt: give a TEXT, or `-` for stdin"));
        }
        if args.answer.as_deref() == Some("") {
            return Err(Failure::usage("--answer '': there is nothing to score"));
        }
    }
    if args.file.is_empty() { args.prompt.text.given() } else { Ok(()) }
}

/// The inputs of the command line, tokenised and checked against the context.
fn scored(args: &Loss, model: &Model) -> Result<Vec<Scored>> {
    let bos = args.prompt.bos.wanted();
    if let Some(answer) = &args.answer {
        let prompt = args.prompt.text.prompt.as_deref().unwrap_or_default();
        return Ok(vec![answered(model, &given_or_stdin(prompt)?, answer, bos)?]);
    }
    let inputs = if args.file.is_empty() {
        vec![Input::prompt(model, &args.prompt)?]
    } else {
        args.file.iter().map(|file| Input::file(model, file, bos)).collect::<Result<_>>()?
    };
    inputs.into_iter().map(|input| Ok(Scored { windows: windows(args, model, &input)?, input, answer: None })).collect()
}

fn answered(model: &Model, prompt: &str, answer: &str, bos: bool) -> Result<Scored> {
    if prompt.is_empty() && !bos {
        return Err(Failure::usage("empty prompt with --no-bos: the answer's first token has nothing before it"));
    }
    let tokenizer = model.tokenizer().map_err(|error| model::model_failure(&error))?;
    let bos_id = bos.then(|| model.bos()).transpose().map_err(|error| model::model_failure(&error))?;
    let joined = Answered::encode(tokenizer, bos_id, prompt, answer).map_err(|error| measure_failure(&error))?;
    within_context(joined.ids.len(), model.config())?;
    let input = Input { ids: joined.ids, bos, text: Some(prompt.to_owned()), file: None };
    let answer = Answer { text: answer.to_owned(), span: joined.answer, joint: joined.joint };
    Ok(Scored { input, answer: Some(answer), windows: None })
}

/// The windows over an input: none where it fits the context and none were asked for.
fn windows(args: &Loss, model: &Model, input: &Input) -> Result<Option<Windows>> {
    let context = model.config().n_positions;
    let length = args.window.map_or(Windows::of_context(context).length, |window| window as usize);
    if !(2..=context).contains(&length) {
        return Err(Failure::usage(format!("--window {length}: 2 to {context} tokens (n_positions)")));
    }
    let stride = args.stride.map_or(Windows::of_context(length).stride, |stride| stride as usize);
    if !(1..length).contains(&stride) {
        return Err(Failure::usage(format!("--stride {stride}: 1 to {} tokens, less than the window", length - 1)));
    }
    let asked = args.window.is_some() && input.ids.len() > length;
    Ok((asked || input.ids.len() > context).then_some(Windows { length, stride }))
}

/// Nats, one per predicted position.
pub(crate) fn losses_of(session: &mut Session, plan: &NamedPlan, scored: &Scored) -> Result<Vec<f64>> {
    let ids = &scored.input.ids;
    let losses = match scored.windows {
        None => measure::token_losses(session, &plan.plan, &[ids]).map(|all| all.into_iter().flatten().collect()),
        Some(windows) => {
            let bos = scored.input.bos.then(|| ids[0]);
            measure::windowed_losses(session, &plan.plan, ids, bos, windows)
        }
    };
    losses.map_err(|error| measure_failure(&error))
}

/// The losses of the answer's tokens: token i is predicted at position i − 1.
fn of_answer<'a>(answer: &Answer, nll: &'a [f64]) -> &'a [f64] {
    &nll[answer.span.start - 1..answer.span.end - 1]
}

/// What a loss is in JSON.
pub(crate) fn record<'a>(session: &'a Session, plan: &'a NamedPlan, scored: &'a Scored, nll: &[f64]) -> LossRecord<'a> {
    let summary = LossSummary::from_iter(nll);
    let input = &scored.input;
    LossRecord {
        schema_version: SCHEMA_VERSION,
        model: session.model().name(),
        plan: &plan.text,
        measure: "default",
        bos: input.bos,
        file: input.file.as_deref(),
        token_ids: &input.ids,
        nll: numbers(nll),
        mean_nll: summary.mean().map(Number),
        sum_nll: Number(summary.sum),
        perplexity: summary.perplexity().map(Number),
        uniform_nll: uniform(session.model()),
        windows: scored.windows.map(|windows| WindowRecord {
            length: windows.length,
            stride: windows.stride,
            convention: WINDOW_CONVENTION,
        }),
        answer: scored.answer.as_ref().map(|answer| AnswerRecord {
            answer: &answer.text,
            answer_ids: &input.ids[answer.span.clone()],
            answer_nll: numbers(of_answer(answer, nll)),
            answer_mean_nll: LossSummary::from_iter(of_answer(answer, nll)).mean().map(Number),
            answer_joint: answer.joint,
        }),
        seed_compat: None,
        isa: session.isa().name(),
        precision: session.precision().name(),
        threads: session.threads(),
    }
}

fn uniform(model: &Model) -> f64 {
    (model.config().vocab_size as f64).ln()
}

fn show(
    output: &mut Output,
    model: &Model,
    plans: &[NamedPlan],
    scored: &Scored,
    losses: &[Vec<f64>],
    tokens: bool,
) -> Result<()> {
    let input = &scored.input;
    let bos = if input.bos { " with BOS" } else { "" };
    let from = input.file.as_ref().map_or(String::new(), |file| format!("{file}: "));
    let (ids, predicted) = (input.ids.len(), losses.first().map_or(0, Vec::len));
    output.heading(&format!("{from}{ids} tokens{bos}, {predicted} predicted"))?;
    let header: Vec<String> = std::iter::once(String::new()).chain(plans.iter().map(NamedPlan::label)).collect();
    let row = |name: &str, value: &dyn Fn(&[f64]) -> Option<f64>| {
        let cells = losses.iter().map(|nll| value(nll).map_or("none".to_owned(), shown));
        std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let summary = |nll: &[f64]| LossSummary::from_iter(nll);
    let mut rows = vec![
        row("nats per token", &|nll| summary(nll).mean()),
        row("bits per token", &|nll| summary(nll).bits()),
        row("perplexity", &|nll| summary(nll).perplexity()),
        row("nats in all", &|nll| Some(summary(nll).sum)),
    ];
    if let Some(answer) = &scored.answer {
        let count = answer.span.len();
        let name =
            if count == 1 { "answer, 1 token: nats".to_owned() } else { format!("answer, {count} tokens: nats") };
        rows.push(row(&name, &|nll| Some(summary(of_answer(answer, nll)).sum)));
        rows.push(row("answer: nats per token", &|nll| summary(of_answer(answer, nll)).mean()));
    }
    rows.push(row("uniform, ln V", &|_| Some(uniform(model))));
    output.text(&table(&header, &rows, 1))?;
    if tokens {
        output.line("")?;
        show_tokens(output, model, plans, input, losses)?;
    }
    if let Some(Windows { length, stride }) = scored.windows {
        output.line(format!("windows of {length} tokens every {stride}: {WINDOW_CONVENTION}"))?;
    }
    if scored.answer.as_ref().is_some_and(|answer| !answer.joint) {
        output.line("a token would have spanned prompt and answer: they were encoded apart")?;
    }
    Ok(())
}

fn show_tokens(
    output: &mut Output,
    model: &Model,
    plans: &[NamedPlan],
    input: &Input,
    losses: &[Vec<f64>],
) -> Result<()> {
    // Without a tokenizer the ids stand alone.
    let tokenizer = if input.text.is_some() { model.tokenizer().ok() } else { None };
    let mut header = vec!["token".to_owned(), "id".to_owned()];
    header.extend(plans.iter().map(NamedPlan::label));
    let predicted = input.ids.iter().skip(input.ids.len() - losses[0].len());
    let rows: Vec<Vec<String>> = predicted
        .enumerate()
        .map(|(index, id)| {
            let text = tokenizer.and_then(|tokenizer| tokenizer.decode(&[*id]).ok());
            let mut row = vec![text.map_or(String::new(), |text| format!("{text:?}")), id.to_string()];
            row.extend(losses.iter().map(|nll| shown(nll[index])));
            row
        })
        .collect();
    output.text(&table(&header, &rows, 1))
}

/// The scoring of the recorded runs, which is not the loss of the answer: only asked for by name.
fn seed_compat(
    args: &Loss,
    model: &Model,
    plans: &[NamedPlan],
    bridges: Bridges,
    engine: SessionOptions,
    mut output: Output,
) -> Result<Exit> {
    let prompt = given_or_stdin(args.prompt.text.prompt.as_deref().unwrap_or_default())?;
    let answer = args.answer.as_deref().unwrap_or_default();
    let tokenizer = model.tokenizer().map_err(|error| model::model_failure(&error))?;
    let encode = |text: &str| model.encode(text).map_err(|error| model::model_failure(&error));
    let (before, behind) = (encode(&prompt)?, encode(&format!(" {answer}"))?);
    let answer_ids = &behind[1..];
    let ids = [&before[..], &behind[..]].concat();
    within_context(ids.len(), model.config())?;
    let scored = Scored::whole(Input { ids, bos: true, text: Some(prompt.clone()), file: None });
    let mut session = resolve::session(model, engine)?;
    session.set_bridges(bridges);
    session.set_references(args.run.references.read()?);
    let mut rows = Vec::new();
    for plan in plans {
        let found = measure::seed_compat_loss(&mut session, &plan.plan, tokenizer, &prompt, answer)
            .map_err(|error| measure_failure(&error))?;
        if output.json {
            let nll = losses_of(&mut session, plan, &scored)?;
            model::check_unchanged(model, args.run.model.read())?;
            let seed_compat = SeedCompatRecord { answer, answer_ids, seed_compat_nll: Number(found) };
            output.object(&LossRecord {
                measure: "seed-compat",
                seed_compat: Some(seed_compat),
                ..record(&session, plan, &scored, &nll)
            })?;
        }
        rows.push(vec![plan.label(), shown(found)]);
        signals::check()?;
    }
    model::check_unchanged(model, args.run.model.read())?;
    if !output.json {
        output.text(&table(&["plan".to_owned(), "seed-compat, nats".to_owned()], &rows, 1))?;
        output.line("only the last token of `BOS prompt BOS \" \"+answer` counts: not the loss of the answer")?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}
