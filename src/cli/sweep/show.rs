//! What a sweep shows to people: tables of plans with bars, and heat maps of families with two axes.

use lesion::measure::nan_last;
use lesion::report::plot::{Drawing, Plot};
use lesion::report::{Results, counted, grouped, heat_map};
use lesion::sweep::{Estimate, Summary};

use super::args::Order;
use super::plans::{Members, Plans};
use crate::cli::failure::Result;
use crate::cli::output::{Output, escape_controls, shown, table};

/// Columns of a bar.
const BAR: usize = 16;

/// How tables are shown.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) order: Order,
    /// Plans; 0 for all.
    pub(crate) top: usize,
}

/// A table of plans on the examples of one task, or of all.
pub(crate) fn plans(
    output: &mut Output,
    title: &str,
    plans: &Plans,
    summaries: &[Summary],
    intact: &Summary,
    look: Look,
) -> Result<()> {
    let tokens = format!("{}, {}", counted(intact.examples as u64, "example"), counted(intact.tokens, "scored token"));
    output.heading(&format!("{}: {tokens}", escape_controls(title)))?;
    let kl = !intact.divergence.is_nan();
    let mut header = vec!["plan", "blocks", "nats/token", "Δ to intact", "95 %", "correct", "top-1", "entropy"];
    header.extend(kl.then_some("KL"));
    header.extend(summaries.iter().any(|summary| summary.non_finite > 0).then_some("not finite"));
    header.push("");
    let header: Vec<String> = header.into_iter().map(str::to_owned).collect();
    let mut order: Vec<usize> = (0..plans.plans.len()).collect();
    if look.order == Order::Loss {
        order.sort_by(|&a, &b| nan_last(summaries[a].nll.value, summaries[b].nll.value).then(a.cmp(&b)));
    }
    let all = order.len();
    let shown_plans = if look.top == 0 { all } else { look.top.min(all) };
    let widest = order.iter().filter_map(|&plan| summaries[plan].delta).map(|delta| delta.value.abs());
    let widest = widest.filter(|delta| delta.is_finite()).fold(0.0, f64::max);
    let row = |label: &str, blocks: String, summary: &Summary| {
        let delta = summary.delta.unwrap_or(Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN });
        let mut row = vec![
            label.to_owned(),
            blocks,
            shown(summary.nll.value),
            signed(delta.value),
            format!("{} … {}", signed(delta.low), signed(delta.high)),
            percent(summary.correct),
            percent(summary.top1),
            shown(summary.entropy),
        ];
        row.extend(kl.then(|| shown(summary.divergence)));
        row.extend((header.len() > row.len() + 1).then(|| summary.non_finite.to_string()));
        row.push(bar(delta.value, widest));
        row
    };
    let mut rows = Vec::with_capacity(shown_plans + 1);
    if plans.intact.is_none_or(|intact| !order[..shown_plans].contains(&intact)) {
        rows.push(row("intact", String::new(), intact));
    }
    for &plan in &order[..shown_plans] {
        let label = if plans.intact == Some(plan) {
            format!("{} (intact)", plans.texts[plan])
        } else {
            plans.texts[plan].clone()
        };
        rows.push(row(&label, plans.plans[plan].cost().to_string(), &summaries[plan]));
    }
    output.text(&output.painted(&table(&header, &rows, 1)))?;
    if shown_plans < all {
        output.line(format!("… and {} plans more: --top 0 shows all", grouped((all - shown_plans) as u64)))?;
    }
    output.line("")
}

/// A family's plans on its two axes: how much each differs from the intact model.
pub(crate) fn map(output: &mut Output, members: &Members, summaries: &[Summary]) -> Result<()> {
    let facts = members.facts();
    if facts.axes.len() != 2 || facts.members.is_empty() {
        return Ok(());
    }
    let delta = |plan: usize| summaries[plan].delta.map_or(f64::NAN, |delta| delta.value);
    let plot = Plot {
        title: facts.text.clone(),
        measure: "nats per token more than intact".to_owned(),
        drawing: Drawing::Map(heat_map(&facts, &delta)),
    };
    output.plot(&plot)?;
    output.line("")
}

/// All figures that fit, in place of the tables.
pub(crate) fn figures(output: &mut Output, results: &Results) -> Result<()> {
    for figure in lesion::report::figures(results) {
        output.plot(&figure.plot)?;
        output.line(figure.caption)?;
        output.line("")?;
    }
    Ok(())
}

fn signed(value: f64) -> String {
    if value == 0.0 || !value.is_finite() || value.abs() < 1e-3 { shown(value) } else { format!("{value:+.4}") }
}

fn percent(share: f64) -> String {
    if share.is_nan() { "–".to_owned() } else { format!("{:.1} %", 100.0 * share) }
}

/// A difference as a bar, eighths of a column exact.
fn bar(value: f64, widest: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if widest <= 0.0 {
        return String::new();
    }
    let eighths = ((value.abs() / widest).min(1.0) * (8 * BAR) as f64).round() as usize;
    let bar = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    if value < 0.0 && !bar.is_empty() { format!("−{bar}") } else { bar }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_they_say() {
        assert_eq!(bar(1.0, 1.0), "█".repeat(16));
        assert_eq!([bar(0.5, 1.0).chars().count(), bar(0.0, 1.0).chars().count()], [8, 0]);
        assert_eq!(bar(1.0 / 128.0, 1.0), "▏");
        assert_eq!((bar(-0.25, 1.0), bar(f64::NAN, 1.0), bar(0.0, 0.0)), ("−████".into(), "NaN".into(), String::new()));
        assert_eq!(bar(f64::INFINITY, 2.0), "█".repeat(16));
    }
}
