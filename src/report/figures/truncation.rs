//! Truncations: loss and right answers against the layers that are left.

use super::{Add, CURVES, DELTA, NONE, by_task, of_tasks, sizes};
use crate::report::data::{FamilyFacts, Group, Results};
use crate::report::plot::{Curves, Drawing, HeatMap, Plot, Sense, Series};
use crate::sweep::{Estimate, Summary};

pub(super) fn draw(results: &Results, family: &FamilyFacts, add: &mut Add<'_>) {
    let first = family.name == "drop-first";
    let axis = if first { "layers left, the last ones" } else { "layers kept, the first ones" };
    let left = |at: u64| if family.name == "keep-first" { at as usize } else { results.n_layer - at as usize };
    let mut plans: Vec<(usize, usize)> = family.members.iter().map(|(plan, at)| (left(at[0]), *plan)).collect();
    plans.sort_unstable();
    let what = if first { "Without the first layers" } else { "Without the last layers" };
    let groups: &[Group] = match results.tasks.len() {
        1..=CURVES => &results.tasks,
        _ => std::slice::from_ref(&results.all),
    };
    let curves = |value: &dyn Fn(&Summary) -> Estimate, shares: bool, reference: Option<(f64, String)>| {
        let series = groups.iter().map(|group| Series {
            name: group.name.clone(),
            points: plans.iter().map(|(kept, plan)| (*kept as f64, value(&group.plans[*plan]))).collect(),
            line: true,
        });
        Drawing::Curves(Curves { axis: axis.into(), series: series.collect(), shares, reference })
    };
    let title = |of: &str| match groups.len() {
        1 => of_tasks(&format!("{what}: {of}"), results),
        _ => format!("{what}: {of}, task by task"),
    };
    let loss = curves(&|summary| summary.nll, false, Some((results.uniform, "uniform, ln V".into())));
    let caption = format!(
        "The loss of the answers against the layers that are left; at the right end is the intact model. The dashed line is \
         what a model that knows nothing loses; a loss above it is worse than that. {}{}.",
        sizes(&results.all),
        if results.all.intact.examples > 1 { "; bands are 95\u{a0}% bootstraps over examples" } else { "" }
    );
    add(Plot { title: title("loss"), measure: "loss, nats per token".into(), drawing: loss }, caption);
    let right = curves(&|summary| Estimate { value: summary.correct, ..NONE }, true, None);
    let caption =
        "The share of examples all of whose answer tokens are the likeliest, so that greedy decoding gives the answer.";
    add(Plot { title: title("right answers"), measure: "examples answered, %".into(), drawing: right }, caption.into());
    if results.tasks.len() > CURVES {
        let columns: Vec<(String, usize)> = plans.iter().map(|(kept, plan)| (kept.to_string(), *plan)).collect();
        let row = |task: &Group| plans.iter().map(|(_, plan)| Some(task.plans[*plan].correct)).collect();
        let map = HeatMap {
            down: ("task".into(), results.tasks.iter().map(|task| task.name.clone()).collect()),
            across: (axis.into(), columns.iter().map(|(label, _)| label.clone()).collect()),
            cells: results.tasks.iter().map(row).collect(),
            sense: Sense::Share,
            hover: Vec::new(),
        };
        let plot = Plot {
            title: format!("{what}: right answers, task by task"),
            measure: "examples answered, %".into(),
            drawing: Drawing::Map(map),
        };
        add(plot, "The share of examples that greedy decoding answers, task by task.".into());
        add(by_task(results, what, axis, columns), format!("{DELTA}, task by task."));
    }
}
