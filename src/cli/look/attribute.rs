//! `lesion attribute`: the parts that a logit, or the difference of two, is made of.

use lesion::measure::{Answered, Attributed, Attribution, LogitPart, LogitSource, Number, attribute, nan_last};
use lesion::model::Model;
use lesion::report::plot::{Bars, Drawing, Plot};
use lesion::sweep::Estimate;
use serde::Serialize;

use super::args::Attribute;
use super::picture::Picture;
use super::{Names, Ran, not_empty};
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::inside::map::{self, Map};
use crate::cli::output::{Output, SCHEMA_VERSION};
use crate::cli::resolve::{self, Input, NamedPlan};
use crate::cli::{measure_failure, model, signals};

/// A logit and its parts. Fields are never renamed.
#[derive(Serialize)]
struct AttributionRecord<'a> {
    schema_version: u32,
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
    layer: Option<usize>,
    occurrence: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<String>,
    value: Number,
}

pub(crate) fn run(args: &Attribute) -> Result<Exit> {
    args.prompt.text.given()?;
    let plans = resolve::parse_all(&args.plan.plan)?;
    let engine = resolve::engine(&args.engine)?;
    let mut output = Output::open(&args.output)?;
    let model = model::open(&args.model)?;
    let bridges = args.plan.bridges.read(&model)?;
    let plans = resolve::plans(&plans, &model, &bridges)?;
    let picture = Picture::wanted(&args.output, plans.len())?;
    let input = Input::prompt(&model, &args.prompt)?;
    not_empty(&input)?;
    resolve::within_context(input.ids.len(), model.config())?;
    let asked = asked(args, &model, &input)?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    session.set_references(args.references.read()?);
    let names = Names::new(&model, &input);
    for (number, plan) in plans.iter().enumerate() {
        let found = attribute(&mut session, &plan.plan, &input.ids, asked);
        let found = found.map_err(|error| measure_failure(&error))?;
        model::check_unchanged(&model, args.model.read())?;
        signals::check()?;
        if output.json {
            output.object(&record(model.name(), plan, &input, asked, &found, &names))?;
            continue;
        }
        let plot = bars(plan, &input, asked, &found, args.top as usize, &names);
        if let Some(picture) = picture {
            picture.draw(&mut output, &plot)?;
            continue;
        }
        if number > 0 {
            output.line("")?;
        }
        output.plot(&plot)?;
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
    match joined.ids[joined.answer] {
        [id] => Ok(id),
        ref several => {
            let shown = |id: &u32| tokenizer.decode(&[*id]).map_or_else(|_| id.to_string(), |text| format!("{text:?}"));
            let shown: Vec<String> = several.iter().map(shown).collect();
            let message = format!("{flag} {text:?} is {} tokens: {}", shown.len(), shown.join(" "));
            Err(Failure::usage(message).with_help("a logit is one token's: give the first of them"))
        }
    }
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

/// The largest parts, either way, and what all others make together.
fn bars(
    plan: &NamedPlan,
    input: &Input,
    asked: Attributed,
    found: &Attribution,
    top: usize,
    names: &Names<'_>,
) -> Plot {
    let ran = Ran::all(&plan.plan);
    let bridges: Vec<_> = plan.plan.bridges().collect();
    let label = |part: &LogitPart| {
        let what = match part.source {
            LogitSource::Embedding => "embed".to_owned(),
            LogitSource::Head(head) => format!("h{head}"),
            LogitSource::AttentionBias => "bias".to_owned(),
            LogitSource::Attention => "attn".to_owned(),
            LogitSource::Mlp => "mlp".to_owned(),
            LogitSource::Change(site) => format!("change of {}", site.word()),
            LogitSource::Bridge(number) => bridges[number].to_string(),
        };
        part.execution.map_or(what.clone(), |execution| format!("{} {what}", ran[execution].label))
    };
    let mut parts: Vec<(String, f64)> = found.parts.iter().map(|part| (label(part), part.value)).collect();
    parts.push(("ln_f bias".to_owned(), found.constant));
    parts.sort_by(|(_, a), (_, b)| nan_last(-a.abs(), -b.abs()));
    let rest = parts.split_off(parts.len().min(top));
    if !rest.is_empty() {
        let others = format!("{} others", rest.len());
        parts.push((others, rest.iter().map(|(_, value)| value).sum()));
    }
    let certain = |value: f64| Estimate { value, low: f64::NAN, high: f64::NAN };
    let bars = parts.into_iter().map(|(label, value)| (label, certain(value))).collect();
    let Attributed { position, answer, other } = asked;
    let of = |id: u32| format!("logit {}", names.quoted(id));
    let what = other.map_or_else(|| of(answer), |other| format!("{} − {}", of(answer), of(other)));
    Plot {
        title: format!("{}: {what} behind {}", plan.label(), names.quoted(input.ids[position])),
        measure: format!("{:.2} in all", found.value).replace('-', "−"),
        drawing: Drawing::Bars(Bars { axis: String::new(), bars, difference: false, reference: None }),
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
