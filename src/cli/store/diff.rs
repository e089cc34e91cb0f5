//! Two experiments side by side.

use lesion::measure::Number;
use lesion::store::{Difference, PlanDifference, Side};
use serde::Serialize;

use super::args::Diff;
use super::reading;
use crate::cli::failure::{Exit, Result};
use crate::cli::output::{Output, SCHEMA_VERSION, shown, table};

/// The difference in JSON: the settings and what is in one only, then an object a plan.
#[derive(Serialize)]
struct Head<'a> {
    schema_version: u32,
    first: &'a str,
    second: &'a str,
    settings: Vec<SettingRecord<'a>>,
    only_first: &'a [String],
    only_second: &'a [String],
    questions: u64,
    only_first_questions: u64,
    only_second_questions: u64,
}

#[derive(Serialize)]
struct SettingRecord<'a> {
    what: &'a str,
    first: &'a str,
    second: &'a str,
}

#[derive(Serialize)]
struct PlanRecord<'a> {
    plan: &'a str,
    examples: u64,
    /// Nats per token; null where no example is in both.
    first: Option<Number>,
    second: Option<Number>,
    delta: Option<Number>,
    first_correct: u64,
    second_correct: u64,
    /// Examples whose loss is the same bit for bit.
    identical: u64,
}

impl<'a> PlanRecord<'a> {
    fn of(plan: &'a PlanDifference) -> PlanRecord<'a> {
        let [first, second] = plan.sides;
        let there = |loss: f64| (plan.examples > 0).then_some(Number(loss));
        PlanRecord {
            plan: &plan.plan,
            examples: plan.examples,
            first: there(first.loss()),
            second: there(second.loss()),
            delta: there(second.loss() - first.loss()),
            first_correct: first.correct,
            second_correct: second.correct,
            identical: plan.identical,
        }
    }
}

pub(super) fn run(args: &Diff) -> Result<Exit> {
    let store = reading(&args.at)?;
    let mut output = Output::open(&args.output)?;
    let (first, second) = (store.experiment(&args.first)?, store.experiment(&args.second)?);
    let difference = store.diff(&first, &second)?;
    let names = [first.name.as_str(), second.name.as_str()];
    if output.json {
        json(&mut output, names, &difference)?;
    } else {
        show(&mut output, names, &difference)?;
    }
    output.finish()?;
    Ok(Exit::Ok)
}

fn json(output: &mut Output, [first, second]: [&str; 2], difference: &Difference) -> Result<()> {
    output.object(&Head {
        schema_version: SCHEMA_VERSION,
        first,
        second,
        settings: (difference.settings.iter())
            .map(|(what, first, second)| SettingRecord { what, first, second })
            .collect(),
        only_first: &difference.only[0],
        only_second: &difference.only[1],
        questions: difference.questions,
        only_first_questions: difference.only_questions[0],
        only_second_questions: difference.only_questions[1],
    })?;
    difference.plans.iter().try_for_each(|plan| output.object(&PlanRecord::of(plan)))
}

fn show(output: &mut Output, [first, second]: [&str; 2], difference: &Difference) -> Result<()> {
    for (what, one, other) in &difference.settings {
        output.line(format!("{what}: {one} in {first}, {other} in {second}"))?;
    }
    let only = |name: &str, plans: &[String], questions: u64| {
        let plans = match plans.len() {
            0 => String::new(),
            some if some > 8 => format!("{some} plans"),
            _ => format!("plans {}", plans.join(" · ")),
        };
        let questions = if questions == 0 { String::new() } else { format!("{questions} questions") };
        let what: Vec<String> = [plans, questions].into_iter().filter(|text| !text.is_empty()).collect();
        (!what.is_empty()).then(|| format!("only in {name}: {}", what.join(", ")))
    };
    for (name, index) in [(first, 0), (second, 1)] {
        if let Some(line) = only(name, &difference.only[index], difference.only_questions[index]) {
            output.line(line)?;
        }
    }
    output.line(format!("{} questions in both", difference.questions))?;
    output.line("")?;
    let header =
        ["plan", "examples", first, second, "Δ nats/token", "correct", "correct", "same bits"].map(str::to_owned);
    let rows: Vec<Vec<String>> = difference.plans.iter().filter(|plan| plan.examples > 0).map(row).collect();
    output.text(&table(&header, &rows, 1))
}

fn row(plan: &PlanDifference) -> Vec<String> {
    let [first, second] = plan.sides;
    let share = |side: Side| format!("{:.1} %", 100.0 * side.correct as f64 / plan.examples as f64);
    let delta = second.loss() - first.loss();
    vec![
        plan.plan.clone(),
        plan.examples.to_string(),
        shown(first.loss()),
        shown(second.loss()),
        if delta > 0.0 { format!("+{}", shown(delta)) } else { shown(delta) },
        share(first),
        share(second),
        format!("{} of {}", plan.identical, plan.examples),
    ]
}
