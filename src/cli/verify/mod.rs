//! `lesion verify`: this build against recorded references. What can't be checked is said so, and is never "passed".

mod compare;
mod gpt2;
mod mini;

use serde::Serialize;

use super::args::{Verify, VerifyOnly};
use super::failure::{Exit, Result};
use super::output::{Number, Output, SCHEMA_VERSION, shown, table};
use super::{resolve, signals};
use compare::{Check, Status, nan_max};

#[derive(Serialize)]
struct VerifyRecord<'a> {
    schema_version: u32,
    isa: &'static str,
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
        threads: engine.threads,
        passed: count(Status::Passed),
        ties: count(Status::Tie),
        mismatches: count(Status::Mismatch),
        not_checked: count(Status::NotChecked),
        checks: &checks,
    };
    if output.json {
        output.object(&record)?;
    } else {
        show(&mut output, &record)?;
    }
    let exit = if record.mismatches > 0 { Exit::Mismatch } else { Exit::Ok };
    output.finish()?;
    Ok(exit)
}

/// A row for every quantity of every reference and layer order, then what does not agree, then the counts.
fn show(output: &mut Output, record: &VerifyRecord<'_>) -> Result<()> {
    let mut groups: Vec<(&Check, Vec<&Check>)> = Vec::new();
    for check in record.checks {
        let same = |first: &Check| {
            (first.reference, first.quantity, &first.plan, first.status == Status::NotChecked)
                == (check.reference, check.quantity, &check.plan, check.status == Status::NotChecked)
        };
        // The seed's runs hold too many plans for a row each.
        let same_reference = |first: &Check| {
            (first.reference, first.quantity, first.status == Status::NotChecked)
                == (check.reference, check.quantity, check.status == Status::NotChecked)
        };
        let joins = |first: &Check| if first.reference == gpt2::SEED { same_reference(first) } else { same(first) };
        match groups.iter_mut().find(|(first, _)| joins(first)) {
            Some((_, members)) => members.push(check),
            None => groups.push((check, vec![check])),
        }
    }
    let rows: Vec<Vec<String>> = groups.iter().map(|(first, members)| row(first, members)).collect();
    let header = ["reference", "plan", "quantity", "cases", "worst error", "gate", "result"].map(str::to_owned);
    output.text(&table(&header, &rows))?;
    for check in record.checks.iter().filter(|check| check.status == Status::Mismatch) {
        let plan = check.plan.as_deref().unwrap_or("");
        let detail = check.detail.as_deref().unwrap_or("");
        output.line(format!("mismatch: {} {} {plan} {}: {detail}", check.reference, check.case, check.quantity))?;
    }
    let mut reasons: Vec<&str> = Vec::new();
    for check in record.checks.iter().filter(|check| check.status == Status::NotChecked) {
        let reason = check.detail.as_deref().unwrap_or("");
        if !reasons.contains(&reason) {
            reasons.push(reason);
            output.line(format!("not checked: {}: {reason}", check.reference))?;
        }
    }
    output.line(format!(
        "{} on {} threads: {} passed, {} ties, {} mismatches, {} not checked",
        record.isa, record.threads, record.passed, record.ties, record.mismatches, record.not_checked
    ))
}

fn row(first: &Check, members: &[&Check]) -> Vec<String> {
    let errors: Vec<f64> = members.iter().filter_map(|check| check.error.map(|Number(error)| error)).collect();
    let worst = if errors.is_empty() { String::new() } else { shown(errors.into_iter().fold(0.0, nan_max)) };
    let count = |status| members.iter().filter(|check| check.status == status).count();
    let result = match (count(Status::Mismatch), count(Status::Tie), count(Status::NotChecked)) {
        (0, 0, 0) => "passed".to_owned(),
        (0, ties, 0) => format!("passed, {ties} ties"),
        (0, _, _) => "not checked".to_owned(),
        (mismatches, ..) => format!("{mismatches} MISMATCHES"),
    };
    let plan = if first.reference == gpt2::SEED { String::new() } else { first.plan.clone().unwrap_or_default() };
    let gate = first.gate.map_or(String::new(), |Number(gate)| shown(gate));
    vec![first.reference.to_owned(), plan, first.quantity.to_owned(), members.len().to_string(), worst, gate, result]
}
