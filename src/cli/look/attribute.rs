//! `lesion attribute`: the parts that a logit, or the difference of two, is made of.

use lesion::measure::{Answered, Attributed, Attribution, LogitPart, LogitSource, Number, attribute};
use lesion::model::Model;
use lesion::report::inside::Shown;
use serde::Serialize;

use super::args::Attribute;
use super::{Names, Ran, not_empty};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::inside::map::{self, Map};
use crate::cli::output::{Output, SCHEMA_VERSION, figures_of};
use crate::cli::resolve::{self, Input, NamedPlan};
use crate::cli::{measure_failure, model, signals};

/// A logit and its parts. Fields are never renamed.
#[derive(Serialize)]
struct AttributionRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    plan: &'a str,
    position: usize,
    token: String,
    token_id: u32,
    answer: String,
    answer_id: u32,
    other: Option<String>,
    other_id: Option<u32>,
    /// The logit, or the difference, as it was computed.
    value: Number,
    /// Of all parts and the constant: the value, but for rounding.
    sum: Number,
    constant: Number,
    scale: Number,
    parts: Vec<PartRecord>,
}

#[derive(Serialize)]
struct PartRecord {
    source: &'static str,
    head: Option<usize>,
    site: Option<&'static str>,
    address: Option<String>,
    /// As people read it: `5`, `5a`, `5@1`.
    label: Option<String>,
    layer: Option<usize>,
    occurrence: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<String>,
    value: Number,
}

pub(crate) fn run(args: &Attribute) -> Result<Exit> {
    args.prompt.text.given()?;
    let plans = resolve::parse_all(&args.plan.plan)?;
    let engine = resolve::engine(&args.run.engine)?;
    let mut output = Output::open_drawn(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let bridges = args.plan.bridges.read(&model)?;
    let plans = resolve::plans(&plans, &model, &bridges)?;
    let input = Input::prompt(&model, &args.prompt)?;
    not_empty(&input)?;
    resolve::within_context(input.ids.len(), model.config())?;
    let asked = asked(args, &model, &input)?;
    let shown = Shown { parts: args.top as usize, ..Shown::default() };
    let parts = |plan: &NamedPlan| plan.plan.executions().count().saturating_mul(model.config().n_head + 2) + 1;
    output.check_drawn(&plans, &parts, shown.clone())?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    session.set_references(args.run.references.read()?);
    let names = Names::new(&model, &input);
    for (number, plan) in plans.iter().enumerate() {
        let found = attribute(&mut session, &plan.plan, &input.ids, asked);
        let found = found.map_err(|error| measure_failure(&error))?;
        model::check_unchanged(&model, args.run.model.read())?;
        signals::check()?;
        let record = record(model.name(), plan, &input, asked, &found, &names);
        if output.takes_objects() {
            output.object(&record)?;
            continue;
        }
        if number > 0 {
            output.line("")?;
        }
        let figures = figures_of(&record, &Shown { plan: Some(plan.label()), ..shown.clone() })?;
        figures.first().map_or(Ok(()), |bars| output.plot(&bars.plot))?;
        output.line("")?;
        show_heads(&mut output, plan, &found)?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

/// The position, and the tokens whose logits are meant.
fn asked(args: &Attribute, model: &Model, input: &Input) -> Result<Attributed> {
    let tokens = input.ids.len();
    let position = args.position.map_or(tokens - 1, |position| position as usize);
    if position >= tokens {
        let last = tokens - 1;
        return Err(Failure::usage(format!("--position {position} of {tokens} tokens: positions are 0..={last}")));
    }
    let answer = token(model, input, "--answer", &args.answer)?;
    let other = args.other.as_ref().map(|text| token(model, input, "--other", text)).transpose()?;
    if other == Some(answer) {
        return Err(Failure::usage(format!("--answer and --other are one token, id {answer}: they differ in nothing")));
    }
    Ok(Attributed { position, answer, other })
}

/// The one token that a text is behind the prompt; an id where the prompt is ids.
fn token(model: &Model, input: &Input, flag: &str, text: &str) -> Result<u32> {
    let vocab_size = model.config().vocab_size;
    let Some(prompt) = &input.text else {
        return match text.parse() {
            Ok(id) if (id as usize) < vocab_size => Ok(id),
            _ => {
                let last = vocab_size - 1;
                Err(Failure::usage(format!("{flag} {text:?}: with --ids it is an id, 0..={last}")))
            }
        };
    };
    let tokenizer = model.tokenizer().map_err(|error| model::model_failure(&error))?;
    let bos = input.bos.then(|| model.bos()).transpose().map_err(|error| model::model_failure(&error))?;
    let joined = Answered::encode(tokenizer, bos, prompt, text).map_err(|error| measure_failure(&error))?;
    let help = "a logit is one token's: give the first of them";
    Names::new(model, input).one(&joined.ids[joined.answer], flag, text, help)
}

fn record<'a>(
    model: &'a str,
    plan: &'a NamedPlan,
    input: &Input,
    asked: Attributed,
    found: &Attribution,
    names: &Names<'_>,
) -> AttributionRecord<'a> {
    let Attributed { position, answer, other } = asked;
    let ran = Ran::all(&plan.plan);
    let bridges: Vec<_> = plan.plan.bridges().collect();
    let part = |part: &LogitPart| {
        let (source, head, site) = match part.source {
            LogitSource::Embedding => ("embedding", None, None),
            LogitSource::Head(head) => ("head", Some(head), None),
            LogitSource::AttentionBias => ("attention_bias", None, None),
            LogitSource::Attention => ("attention", None, None),
            LogitSource::Mlp => ("mlp", None, None),
            LogitSource::Change(site) => ("change", None, Some(site.word())),
            LogitSource::Bridge(_) => ("bridge", None, None),
        };
        let ran = part.execution.map(|execution| &ran[execution]);
        PartRecord {
            source,
            head,
            site,
            address: ran.map(|ran| ran.address.clone()),
            label: ran.map(|ran| ran.label.clone()),
            layer: ran.map(|ran| ran.layer),
            occurrence: ran.map(|ran| ran.occurrence),
            bridge: if let LogitSource::Bridge(number) = part.source {
                Some(bridges[number].to_string())
            } else {
                None
            },
            value: Number(part.value),
        }
    };
    AttributionRecord {
        schema_version: SCHEMA_VERSION,
        view: "attribute",
        model,
        plan: &plan.text,
        position,
        token: names.text(input.ids[position]).unwrap_or_default(),
        token_id: input.ids[position],
        answer: names.text(answer).unwrap_or_default(),
        answer_id: answer,
        other: other.and_then(|id| names.text(id)),
        other_id: other,
        value: Number(found.value),
        sum: Number(found.sum()),
        constant: Number(found.constant),
        scale: Number(found.scale),
        parts: found.parts.iter().map(part).collect(),
    }
}

/// What each head adds, layer by layer, as patch grids are shown: blue is better, here as there, towards the answer.
fn show_heads(output: &mut Output, plan: &NamedPlan, found: &Attribution) -> Result<()> {
    let ran = Ran::all(&plan.plan);
    let (mut rows, mut cells): (Vec<String>, Vec<Vec<f64>>) = Default::default();
    for part in &found.parts {
        if let (Some(execution), LogitSource::Head(head)) = (part.execution, part.source) {
            if head == 0 {
                rows.push(ran[execution].label.clone());
                cells.push(Vec::new());
            }
            cells.last_mut().into_iter().for_each(|row| row.push(part.value));
        }
    }
    let Some(heads) = cells.first().map(Vec::len) else { return Ok(()) };
    let sizes = cells.iter().flatten().map(|value| value.abs());
    let extreme = sizes.filter(|size| size.is_finite()).fold(0.0, f64::max);
    let heads = vec![("layer".to_owned(), (0..heads).map(|head| format!("h{head}")).collect())];
    output.heading("what each head adds")?;
    map::show(output, &Map { rows, heads, cells, even: 0.0, extreme })
}
