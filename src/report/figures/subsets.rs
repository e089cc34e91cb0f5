//! All subsets of layers: how the loss spreads at each size, the best of each size, the minimal ones.

use std::collections::BTreeSet;

use super::{Add, of_tasks, sizes};
use crate::measure::nan_last;
use crate::report::data::{FamilyFacts, Group, Results};
use crate::report::findings::{Subset, minimal, subsets};
use crate::report::number::{grouped, percent, plain};
use crate::report::plot::{Curves, Drawing, Plot, Series, Sets};
use crate::sweep::{Estimate, Summary};

/// The share of the intact model's right answers that a minimal set keeps.
const KEPT: f64 = 0.9;

/// Minimal sets that are drawn for a task.
const MINIMAL: usize = 16;

/// Tasks whose minimal sets are drawn.
const TASKS: usize = 12;

pub(super) fn draw(results: &Results, family: &FamilyFacts, add: &mut Add<'_>) {
    let Some(subsets) = subsets(&results.plans, family) else { return };
    lattice(results, &subsets, add);
    best(results, &subsets, add);
    let tasks = if results.tasks.len() > TASKS { std::slice::from_ref(&results.all) } else { &results.tasks[..] };
    tasks.iter().for_each(|task| minimal_sets(results, task, &subsets, add));
}

/// Losses of the subsets of a size, ascending, NaN last.
fn losses(results: &Results, subsets: &[Subset], size: usize) -> Vec<f64> {
    let of_size = subsets.iter().filter(|subset| subset.layers.len() == size);
    let mut losses: Vec<f64> = of_size.map(|subset| results.all.plans[subset.plan].nll.value).collect();
    losses.sort_by(|a, b| nan_last(*a, *b));
    losses
}

fn sizes_of(subsets: &[Subset]) -> BTreeSet<usize> {
    subsets.iter().map(|subset| subset.layers.len()).collect()
}

fn lattice(results: &Results, subsets: &[Subset], add: &mut Add<'_>) {
    let spread: Vec<(f64, Vec<f64>)> =
        sizes_of(subsets).into_iter().map(|size| (size as f64, losses(results, subsets, size))).collect();
    let at = |losses: &[f64], share: f64| losses[((losses.len() - 1) as f64 * share).round() as usize];
    let series = |name: &str, share: f64, quartiles: bool| Series {
        name: name.into(),
        points: spread
            .iter()
            .map(|(size, losses)| {
                let [low, high] = if quartiles { [0.25, 0.75] } else { [share, share] };
                (*size, Estimate { value: at(losses, share), low: at(losses, low), high: at(losses, high) })
            })
            .collect(),
        line: true,
    };
    let plot = Plot {
        title: of_tasks(&format!("All {} subsets of layers", grouped(subsets.len() as u64)), results),
        measure: "loss, nats per token".into(),
        drawing: Drawing::Curves(Curves {
            axis: "layers kept, in their order".into(),
            series: vec![series("best", 0.0, false), series("median", 0.5, true), series("worst", 1.0, false)],
            shares: false,
            reference: Some((results.uniform, "uniform, ln V".into())),
        }),
    };
    let caption = format!(
        "Every subset of the layers in their order: the best, the median and the worst of each size; the band holds the middle \
         half. {}.",
        sizes(&results.all)
    );
    add(plot, caption);
}

fn said(summary: &Summary) -> String {
    format!("{} · {}", plain(summary.nll.value, 2), percent(summary.correct))
}

fn best(results: &Results, subsets: &[Subset], add: &mut Add<'_>) {
    let best = |size: usize| {
        let of_size = subsets.iter().filter(|subset| subset.layers.len() == size);
        of_size.min_by(|a, b| {
            let loss = |subset: &Subset| results.all.plans[subset.plan].nll.value;
            nan_last(loss(a), loss(b)).then(a.layers.cmp(&b.layers))
        })
    };
    let row = |subset: &Subset| {
        (subset.layers.len().to_string(), subset.layers.clone(), said(&results.all.plans[subset.plan]))
    };
    let plot = Plot {
        title: of_tasks("The best subset of each size", results),
        measure: String::new(),
        drawing: Drawing::Sets(Sets {
            n_layer: results.n_layer,
            axis: "size".into(),
            said: "nats/token · right".into(),
            rows: sizes_of(subsets).into_iter().filter_map(best).map(row).collect(),
        }),
    };
    let caption = "The subset of each size that loses least, with its loss and the share of examples that it answers; full dots \
                   are layers that run.";
    add(plot, caption.to_owned());
}

fn minimal_sets(results: &Results, task: &Group, subsets: &[Subset], add: &mut Add<'_>) {
    let wanted = KEPT * task.intact.correct;
    if task.intact.correct.is_nan() || task.intact.correct <= 0.0 {
        return;
    }
    let found = minimal(subsets, &task.plans, &|summary| summary.correct >= wanted);
    let shown = &found[..found.len().min(MINIMAL)];
    let rows = shown.iter().map(|set| (set.layers.len().to_string(), set.layers.clone(), said(&task.plans[set.plan])));
    let more = match found.len() - shown.len() {
        0 => String::new(),
        _ => format!("; the first {} of {}", shown.len(), grouped(found.len() as u64)),
    };
    let plot = Plot {
        title: format!("Minimal sets of layers: {}", task.name),
        measure: String::new(),
        drawing: Drawing::Sets(Sets {
            n_layer: results.n_layer,
            axis: "size".into(),
            said: "nats/token · right".into(),
            rows: rows.collect(),
        }),
    };
    let caption = format!(
        "Sets of layers that alone keep {} of the intact model's right answers ({}), while no set within them does{more}. Found \
         among all {} subsets. {}.",
        percent(KEPT),
        percent(task.intact.correct),
        grouped(subsets.len() as u64),
        sizes(task)
    );
    add(plot, caption);
}
