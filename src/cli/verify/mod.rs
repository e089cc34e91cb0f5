//! `lesion verify`: this build against recorded references. What can't be checked is said so, and is never "passed".

mod compare;
mod gpt2;
mod mini;

use lesion::forward::Precision;
use lesion::measure::Number;
use serde::Serialize;

use super::args::{Verify, VerifyOnly};
use super::failure::{Exit, Failure, Result};
use super::output::{Output, SCHEMA_VERSION, shown, table};
use super::{resolve, signals};
use compare::{Check, Status, nan_max};

#[derive(Serialize)]
struct VerifyRecord<'a> {
    schema_version: u32,
    isa: &'static str,
    precision: &'static str,
    threads: usize,
    passed: usize,
    ties: usize,
    mismatches: usize,
    not_checked: usize,
    checks: &'a [Check],
}

pub(crate) fn run(args: &Verify) -> Result<Exit> {
    let mut output = Output::open(&args.output)?;
    let engine = resolve::engine(&args.engine)?;
    if engine.precision == Precision::Bf16 {
        return Err(Failure::usage("--precision bf16: the references are compared within the rounding of f32"));
    }
    let mut checks = Vec::new();
    if args.only != Some(VerifyOnly::Gpt2) {
        checks.extend(mini::checks(&engine)?);
        signals::check()?;
    }
    if args.only != Some(VerifyOnly::Mini) {
        checks.extend(gpt2::checks(args, &engine)?);
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let record = VerifyRecord {
        schema_version: SCHEMA_VERSION,
        isa: engine.isa.name(),
        precision: engine.precision.name(),
        threads: engine.threads,
        passed: count(Status::Passed),
        ties: count(Status::Tie),
        mismatches: count(Status::Mismatch),
        not_checked: count(Status::NotChecked),
        checks: &checks,
    };
    let told = if output.json { output.object(&record) } else { show(&mut output, &record) };
    match told.and_then(|()| output.finish()) {
        // Whoever read the first lines alone (`| head -1`) has the verdict in the exit code.
        Err(failure) if !failure.is_silent() => return Err(failure),
        _ => {}
    }
    if record.mismatches > 0 {
        return Ok(Exit::Mismatch);
    }
    if record.passed + record.ties == 0 {
        let why = checks.iter().find_map(|check| check.detail.as_deref()).unwrap_or("there was nothing to compare");
        return Err(Failure::new(Exit::Missing, format!("nothing was checked: {why}")));
    }
    Ok(Exit::Ok)
}

/// A row for every quantity of every reference, then what does not agree, then the counts.
fn show(output: &mut Output, record: &VerifyRecord<'_>) -> Result<()> {
    let mut groups: Vec<Vec<&Check>> = Vec::new();
    let key = |check: &Check| (check.reference, check.quantity, check.status == Status::NotChecked);
    for check in record.checks {
        match groups.iter_mut().find(|group| key(group[0]) == key(check)) {
            Some(group) => group.push(check),
            None => groups.push(vec![check]),
        }
    }
    let rows: Vec<Vec<String>> = groups.iter().map(|group| row(group)).collect();
    let header = ["reference", "quantity", "result", "orders", "cases", "worst error", "gate"].map(str::to_owned);
    output.text(&table(&header, &rows, 3))?;
    for check in record.checks.iter().filter(|check| check.status == Status::Mismatch) {
        let plan = check.plan.as_deref().unwrap_or("");
        let detail = check.detail.as_deref().unwrap_or("");
        output.line(format!("mismatch: {}, {} {plan}, {}: {detail}", check.reference, check.case, check.quantity))?;
    }
    let mut reasons = Vec::new();
    for check in record.checks.iter().filter(|check| check.status == Status::NotChecked) {
        let reason = (check.reference, check.detail.as_deref().unwrap_or(""));
        if !reasons.contains(&reason) {
            reasons.push(reason);
            output.line(format!("not checked: {}: {}", reason.0, reason.1))?;
        }
    }
    output.line(format!(
        "{}, {}, {} threads: {} passed, {} ties, {} mismatches, {} not checked",
        record.isa, record.precision, record.threads, record.passed, record.ties, record.mismatches, record.not_checked
    ))
}

fn row(group: &[&Check]) -> Vec<String> {
    let first = group[0];
    let errors: Vec<f64> = group.iter().filter_map(|check| check.error.map(|Number(error)| error)).collect();
    let worst = if errors.is_empty() { String::new() } else { shown(errors.into_iter().fold(0.0, nan_max)) };
    let count = |status| group.iter().filter(|check| check.status == status).count();
    let result = match (count(Status::Mismatch), count(Status::Tie), count(Status::NotChecked)) {
        (0, 0, 0) => "passed".to_owned(),
        (0, ties, 0) => format!("passed, {ties} ties"),
        (0, ..) => "not checked".to_owned(),
        (mismatches, ..) => format!("{mismatches} MISMATCHES"),
    };
    let mut orders: Vec<&str> = group.iter().filter_map(|check| check.plan.as_deref()).collect();
    orders.sort_unstable();
    orders.dedup();
    let orders = if orders.is_empty() { String::new() } else { orders.len().to_string() };
    let gate = first.gate.map_or(String::new(), |Number(gate)| shown(gate));
    vec![first.reference.to_owned(), first.quantity.to_owned(), result, orders, group.len().to_string(), worst, gate]
}
