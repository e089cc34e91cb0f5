//! `lesion tokens`: what a plan changes behind each token of a text.

use lesion::measure::{Change, Number, Prediction, Shift, shifts};
use lesion::report::inside::Shown;
use serde::Serialize;

use super::args::Tokens;
use super::{Names, not_empty};
use crate::cli::bridges::bound;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::output::{Output, SCHEMA_VERSION, shown, table};
use crate::cli::resolve::{self, Input, NamedPlan};
use crate::cli::{measure_failure, model, signals};

/// A place in the text. Fields are never renamed.
#[derive(Serialize)]
struct ShiftRecord<'a> {
    schema_version: u32,
    view: &'static str,
    model: &'a str,
    plan: &'a str,
    position: usize,
    token: String,
    token_id: u32,
    next: Option<String>,
    next_id: Option<u32>,
    intact: PredictionRecord,
    corrupted: PredictionRecord,
    /// KL(intact ‖ corrupted), nats.
    kl: Number,
    gained: Vec<ChangeRecord>,
    lost: Vec<ChangeRecord>,
}

#[derive(Serialize)]
pub(super) struct PredictionRecord {
    /// Nats, of the token that comes next; none where the text ends.
    nll: Option<Number>,
    rank: Option<u32>,
    probability: Option<Number>,
    entropy: Number,
    likeliest: String,
    likeliest_id: u32,
}

impl PredictionRecord {
    pub(super) fn new(prediction: &Prediction, next: Option<u32>, names: &Names<'_>) -> PredictionRecord {
        let &Prediction { nll, rank, entropy, likeliest } = prediction;
        PredictionRecord {
            nll: next.map(|_| Number(nll)),
            // What is not a number has no rank.
            rank: next.filter(|_| !nll.is_nan()).map(|_| rank),
            probability: next.map(|_| Number((-nll).exp())),
            entropy: Number(entropy),
            likeliest: names.text(likeliest).unwrap_or_default(),
            likeliest_id: likeliest,
        }
    }
}

#[derive(Serialize)]
struct ChangeRecord {
    token: String,
    token_id: u32,
    logit: Number,
    log_probability: Number,
    probability: [Number; 2],
}

pub(crate) fn run(args: &Tokens) -> Result<Exit> {
    if args.plan.plan.is_empty() {
        return Err(Failure::usage("--plan: which plan is to be compared with the intact model?"));
    }
    args.prompt.text.given()?;
    let plans = resolve::parse_all(&args.plan.plan)?;
    let engine = resolve::engine(&args.run.engine)?;
    let mut output = Output::open_drawn(&args.run.output)?;
    let model = model::open(&args.run.model)?;
    let shape = model.plan_shape();
    let bridges = args.plan.bridges.read(&model)?;
    let named = |parsed| {
        let plan = bound(&resolve::plan(parsed, &shape)?, &bridges)?;
        Ok(NamedPlan::new(plan, model.config()))
    };
    let plans = plans.iter().map(named).collect::<Result<Vec<_>>>()?;
    let input = Input::prompt(&model, &args.prompt)?;
    not_empty(&input)?;
    resolve::within_context(input.ids.len(), model.config())?;
    output.check_drawn(&plans, &|_| input.ids.len(), Shown::default())?;
    let mut session = resolve::session(&model, engine)?;
    session.set_bridges(bridges);
    session.set_references(args.run.references.read()?);
    let names = Names::new(&model, &input);
    for (number, plan) in plans.iter().enumerate() {
        let shifts = shifts(&mut session, &plan.plan, &input.ids, args.changes as usize, args.by.order());
        let shifts = shifts.map_err(|error| measure_failure(&error))?;
        model::check_unchanged(&model, args.run.model.read())?;
        signals::check()?;
        if output.takes_objects() {
            for shift in &shifts {
                output.object(&record(model.name(), plan, &input, shift, &names))?;
            }
            continue;
        }
        if number > 0 {
            output.line("")?;
        }
        show(&mut output, plan, &input, &shifts, &names)?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn record<'a>(model: &'a str, plan: &'a NamedPlan, input: &Input, shift: &Shift, names: &Names<'_>) -> ShiftRecord<'a> {
    let changes = |changes: &[Change]| {
        let record = |change: &Change| ChangeRecord {
            token: names.text(change.id).unwrap_or_default(),
            token_id: change.id,
            logit: Number(change.logit),
            log_probability: Number(change.log_probability),
            probability: change.probability.map(Number),
        };
        changes.iter().map(record).collect()
    };
    let token_id = input.ids[shift.position];
    ShiftRecord {
        schema_version: SCHEMA_VERSION,
        view: "tokens",
        model,
        plan: &plan.text,
        position: shift.position,
        token: names.text(token_id).unwrap_or_default(),
        token_id,
        next: shift.next.and_then(|id| names.text(id)),
        next_id: shift.next,
        intact: PredictionRecord::new(&shift.intact, shift.next, names),
        corrupted: PredictionRecord::new(&shift.corrupted, shift.next, names),
        kl: Number(shift.divergence),
        gained: changes(&shift.gained),
        lost: changes(&shift.lost),
    }
}

fn show(output: &mut Output, plan: &NamedPlan, input: &Input, shifts: &[Shift], names: &Names<'_>) -> Result<()> {
    output.heading(&format!("{}: nats lost more than intact, on the token they were lost on", plan.label()))?;
    let deltas = || shifts.iter().map(|shift| shift.corrupted.nll - shift.intact.nll);
    let extreme = deltas().map(f64::abs).filter(|delta| delta.is_finite()).fold(0.0, f64::max);
    let mut line = names.text(input.ids[0]).unwrap_or_else(|| format!("{} ", input.ids[0]));
    for (shift, delta) in shifts.iter().zip(deltas()) {
        if let Some(next) = shift.next {
            let text = names.text(next).unwrap_or_else(|| format!("{next} "));
            line.push_str(&output.shaded(&text.escape_debug().to_string(), delta, extreme));
        }
    }
    output.line(line)?;
    output.line("")?;
    let header = ["next", "intact", "plan", "Δ", "rank", "entropy", "KL", "more likely", "less likely"];
    let header: Vec<String> = header.map(str::to_owned).into();
    let changes = |changes: &[Change]| {
        let shown = |change: &Change| {
            let [before, after] = change.probability.map(|p| format!("{:.0}", 100.0 * p));
            format!("{} {before}→{after} %", names.quoted(change.id))
        };
        changes.iter().map(shown).collect::<Vec<_>>().join(", ")
    };
    // What is not a number has no rank.
    let rank = |prediction: &Prediction| match prediction.nll.is_nan() {
        true => "–".to_owned(),
        false => prediction.rank.to_string(),
    };
    let rows: Vec<Vec<String>> = shifts
        .iter()
        .map(|shift| {
            let Shift { next, intact, corrupted, .. } = shift;
            let known = |text: String| if next.is_some() { text } else { "–".to_owned() };
            vec![
                next.map_or_else(|| "(the end)".to_owned(), |next| names.quoted(next)),
                known(shown(intact.nll)),
                known(shown(corrupted.nll)),
                known(format!("{:+.4}", corrupted.nll - intact.nll)),
                known(format!("{}→{}", rank(intact), rank(corrupted))),
                format!("{:.2}→{:.2}", intact.entropy, corrupted.entropy),
                shown(shift.divergence),
                changes(&shift.gained),
                changes(&shift.lost),
            ]
        })
        .collect();
    output.text(&table(&header, &rows, 9))
}
