//! Which plots fit the results: a family's axes and name say how it is drawn.

mod subsets;
#[cfg(test)]
mod tests;
mod truncation;

use std::collections::{BTreeMap, BTreeSet};

use super::data::{FamilyFacts, Group, Results};
use super::findings::{kendall_tau, layers};
use super::number::{counted, grouped, signed};
use super::plot::{Bars, Curves, Drawing, HeatMap, Plot, Sense, Series};
use crate::measure::nan_last;
use crate::sweep::{Estimate, Summary};

/// The measure of most plots.
const DELTA: &str = "Δ loss to intact, nats per token";

/// Tasks that have a curve each; more are rows of a map.
const CURVES: usize = 8;

/// Plans of no family that are drawn.
const PLANS: usize = 40;

/// A figure: a plot and what is said below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Names it in files and links: `fig-1-skip-one`.
    pub id: String,
    /// The plot.
    pub plot: Plot,
    /// What it shows: plain text.
    pub caption: String,
}

/// All figures that fit, in the order of families.
pub fn figures(results: &Results) -> Vec<Figure> {
    let mut drafts: Vec<(String, Plot, String)> = Vec::new();
    for family in results.families.iter().filter(|family| !family.members.is_empty()) {
        let axes: Vec<&str> = family.axes.iter().map(String::as_str).collect();
        let mut add = |plot: Plot, caption: String| drafts.push((family.name.clone(), plot, caption));
        match (family.name.as_str(), &axes[..]) {
            ("keep-first" | "drop-last" | "drop-first", _) => truncation::draw(results, family, &mut add),
            ("subsets", _) => subsets::draw(results, family, &mut add),
            ("shuffle-window" | "permutations", _) => orders(results, family, &mut add),
            ("delete", _) => draws(results, family, &mut add),
            (_, ["layer"]) => by_layer(results, family, &mut add),
            (_, ["layer", "times"]) if times(family) == 1 => by_layer(results, family, &mut add),
            (_, [_, _]) => pairs(results, family, &mut add),
            _ => {}
        }
    }
    drafts.extend(window_sizes(results).map(|(plot, caption)| ("window-size".to_owned(), plot, caption)));
    drafts.extend(alone(results).into_iter().map(|(plot, caption)| ("plans".to_owned(), plot, caption)));
    let numbered = drafts.into_iter().enumerate();
    numbered.map(|(i, (name, plot, caption))| Figure { id: format!("fig-{}-{name}", i + 1), plot, caption }).collect()
}

/// Takes a plot and its caption.
type Add<'a> = dyn FnMut(Plot, String) + 'a;

const NONE: Estimate = Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN };

fn delta(summary: &Summary) -> Estimate {
    summary.delta.unwrap_or(NONE)
}

/// What a figure is of: `50 examples, 71 scored tokens`.
fn sizes(group: &Group) -> String {
    let Summary { examples, tokens, .. } = group.intact;
    format!("{}, {}", counted(examples as u64, "example"), counted(tokens, "scored token"))
}

/// The same, and what the intervals of differences to the intact model are.
fn over(group: &Group) -> String {
    let sizes = sizes(group);
    match group.intact.examples {
        0 | 1 => format!("{sizes}."),
        _ => format!("{sizes}; intervals are 95\u{a0}% bootstraps over examples, paired with the intact model."),
    }
}

/// A title with the tasks that it is of.
fn of_tasks(what: &str, results: &Results) -> String {
    match results.tasks.len() {
        1 => format!("{what}: {}", results.tasks[0].name),
        several => format!("{what}: all {several} tasks"),
    }
}

fn times(family: &FamilyFacts) -> usize {
    family.members.iter().filter_map(|(_, at)| at.get(1)).collect::<BTreeSet<_>>().len()
}

/// What a family does, for titles; in its own notation, too, where there are several of the kind.
fn title(results: &Results, family: &FamilyFacts) -> String {
    let what = match family.name.as_str() {
        "skip-one" => "One layer skipped",
        "skip-attention" => "The attention half of one layer skipped",
        "skip-mlp" => "The MLP half of one layer skipped",
        "swap-adjacent" => "A layer swapped with the next",
        "repeat-one" => "One layer repeated",
        "skip-pairs" => "Two layers skipped",
        "swap-any" => "Two layers swapped",
        "move" => "One layer moved",
        "skip-window" => "A window of layers skipped",
        "repeat-window" => "A window of layers run twice",
        "reverse-window" => "A window of layers reversed",
        "parallel" => "A window of layers side by side",
        "middle-repeat" => "A window replaced by its middle layer, repeated",
        "looped-parallel" => "A window side by side, looped",
        "zero-head" => "One attention head zeroed",
        "shuffle-window" | "permutations" => "Layers in other orders",
        "delete" => "Random layers skipped",
        name => name,
    };
    match results.families.iter().filter(|other| other.name == family.name).count() {
        1 => what.to_owned(),
        _ => format!("{what} ({})", family.text),
    }
}

/// A bar a layer, and a map of tasks and layers.
fn by_layer(results: &Results, family: &FamilyFacts, add: &mut Add<'_>) {
    let title = title(results, family);
    let bars: Vec<(String, Estimate)> =
        family.members.iter().map(|(plan, at)| (at[0].to_string(), delta(&results.all.plans[*plan]))).collect();
    let unresolved = bars.iter().filter(|(_, e)| e.low <= 0.0 && e.high >= 0.0).count();
    let largest = bars.iter().max_by(|a, b| nan_last(a.1.value, b.1.value));
    let largest = largest.map_or(String::new(), |(layer, e)| {
        format!(" The most is lost at layer {layer}: {} nats per token.", signed(e.value, 2))
    });
    let unresolved = match (unresolved, results.all.intact.examples > 1) {
        (0, _) | (_, false) => String::new(),
        (n, true) => format!(" {n} of {} intervals hold 0: no effect is resolved there.", bars.len()),
    };
    let caption = format!("{title}.{largest}{unresolved} {}", over(&results.all));
    let drawing = Drawing::Bars(Bars { axis: "layer".into(), bars, difference: true, reference: None });
    add(Plot { title: of_tasks(&title, results), measure: DELTA.into(), drawing }, caption);
    if results.tasks.len() > 1 {
        let columns = family.members.iter().map(|(plan, at)| (at[0].to_string(), *plan)).collect();
        add(by_task(results, &title, "layer", columns), format!("{title}, task by task."));
    }
}

/// A map with a row a task.
fn by_task(results: &Results, what: &str, axis: &str, columns: Vec<(String, usize)>) -> Plot {
    let row = |task: &Group| columns.iter().map(|(_, plan)| Some(delta(&task.plans[*plan]).value)).collect();
    Plot {
        title: format!("{what}: task by task"),
        measure: DELTA.into(),
        drawing: Drawing::Map(HeatMap {
            down: ("task".into(), results.tasks.iter().map(|task| task.name.clone()).collect()),
            cells: results.tasks.iter().map(row).collect(),
            across: (axis.into(), columns.into_iter().map(|(label, _)| label).collect()),
            sense: Sense::Loss,
            hover: Vec::new(),
        }),
    }
}

/// A map of a family's two axes.
fn pairs(results: &Results, family: &FamilyFacts, add: &mut Add<'_>) {
    let title = title(results, family);
    let value = |plan: usize| delta(&results.all.plans[plan]).value;
    let worst = family.members.iter().max_by(|a, b| nan_last(value(a.0), value(b.0)));
    let better = family.members.iter().filter(|(plan, _)| delta(&results.all.plans[*plan]).high < 0.0).count();
    let mut caption = format!("{title}; red is worse than intact, blue is better.");
    if let Some((plan, at)) = worst {
        let [first, second] = [&family.axes[0], &family.axes[1]];
        let (lost, at) = (signed(value(*plan), 2), (at[0], at[1]));
        caption.push_str(&format!(" The worst ({first} {}, {second} {}): {lost} nats per token.", at.0, at.1));
    }
    if results.all.intact.examples > 1 {
        let said = format!(" In {better} of {} cells the whole interval is better.", family.members.len());
        caption.push_str(&said);
    }
    caption.push_str(&format!(" {}", over(&results.all)));
    let map = heat_map(family, &value);
    let plot = Plot {
        title: of_tasks(&title, results),
        measure: DELTA.into(),
        drawing: Drawing::Map(HeatMap {
            down: (axis(&map.down.0).to_owned(), map.down.1),
            across: (axis(&map.across.0).to_owned(), map.across.1),
            ..map
        }),
    };
    add(plot, caption);
}

/// An axis' name, as figures say it.
fn axis(name: &str) -> &str {
    match name {
        "first" => "first layer",
        "second" => "second layer",
        "from" => "window from",
        "to" => "window up to, not with",
        "position" => "its new place",
        "times" => "times in all",
        other => other,
    }
}

/// A family's two axes as a map.
pub fn heat_map(family: &FamilyFacts, value: &dyn Fn(usize) -> f64) -> HeatMap {
    let places = |axis: usize| -> Vec<u64> {
        family.members.iter().map(|(_, at)| at[axis]).collect::<BTreeSet<u64>>().into_iter().collect()
    };
    let (rows, columns) = (places(0), places(1));
    let mut cells = vec![vec![None; columns.len()]; rows.len()];
    for (plan, at) in &family.members {
        let place = (rows.binary_search(&at[0]), columns.binary_search(&at[1]));
        if let (Ok(row), Ok(column)) = place {
            cells[row][column] = Some(value(*plan));
        }
    }
    let texts = |places: Vec<u64>| places.iter().map(u64::to_string).collect();
    HeatMap {
        down: (family.axes[0].clone(), texts(rows)),
        across: (family.axes[1].clone(), texts(columns)),
        cells,
        sense: Sense::Loss,
        hover: Vec::new(),
    }
}

/// Points over Kendall's τ.
fn orders(results: &Results, family: &FamilyFacts, add: &mut Add<'_>) {
    let point = |plan: usize| {
        let tau = kendall_tau(&layers(&results.plans[plan])?)?;
        Some((tau, delta(&results.all.plans[plan])))
    };
    let mut points: Vec<(f64, Estimate)> = family.members.iter().filter_map(|(plan, _)| point(*plan)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    if points.is_empty() {
        return;
    }
    let caption = format!(
        "{} ({}): what is lost against how much of the order is left (Kendall's τ; 1 is the intact order). {}",
        counted(points.len() as u64, "order"),
        family.text,
        over(&results.all)
    );
    let series = vec![Series { name: family.text.clone(), points, line: false }];
    let axis = "Kendall's τ to the intact order".to_owned();
    let drawing = Drawing::Curves(Curves { axis, series, shares: false, reference: None });
    add(Plot { title: of_tasks(&title(results, family), results), measure: DELTA.into(), drawing }, caption);
}

/// Random draws, the best first.
fn draws(results: &Results, family: &FamilyFacts, add: &mut Add<'_>) {
    let mut values: Vec<Estimate> = family.members.iter().map(|(plan, _)| delta(&results.all.plans[*plan])).collect();
    values.sort_by(|a, b| nan_last(a.value, b.value));
    let caption =
        format!("{} ({}), the best first. {}", counted(values.len() as u64, "draw"), family.text, over(&results.all));
    let points = values.into_iter().enumerate().map(|(i, value)| ((i + 1) as f64, value)).collect();
    let series = vec![Series { name: family.text.clone(), points, line: false }];
    let axis = "draw, the best first".to_owned();
    let drawing = Drawing::Curves(Curves { axis, series, shares: false, reference: None });
    add(Plot { title: of_tasks(&title(results, family), results), measure: DELTA.into(), drawing }, caption);
}

/// What is lost against the size of windows, a curve each family of windows (and number of loops).
fn window_sizes(results: &Results) -> Option<(Plot, String)> {
    let of_windows = |family: &&FamilyFacts| family.axes.starts_with(&["from".into(), "to".into()]);
    let series: Vec<Series> = results
        .families
        .iter()
        .filter(of_windows)
        .flat_map(|family| {
            let loops: BTreeSet<Option<u64>> = family.members.iter().map(|(_, at)| at.get(2).copied()).collect();
            loops.into_iter().map(|looped| by_window_size(results, family, looped))
        })
        .collect();
    // A map shows windows of one size as well; looped ones have none.
    let looped = results.families.iter().filter(of_windows).any(|family| family.axes.len() > 2);
    if !looped && series.iter().all(|series| series.points.len() < 2) {
        return None;
    }
    let axis = "layers in the window".to_owned();
    let plot = Plot {
        title: of_tasks("Loss against the size of the window", results),
        measure: DELTA.into(),
        drawing: Drawing::Curves(Curves { axis, series, shares: false, reference: None }),
    };
    let caption = format!(
        "Means over all windows of a size; bands run from the window that loses least to the one that loses most. {}.",
        sizes(&results.all)
    );
    Some((plot, caption))
}

/// The mean over a family's windows of each size, looped so often, between the least and the most; all NaN where one is.
fn by_window_size(results: &Results, family: &FamilyFacts, looped: Option<u64>) -> Series {
    let mut by_size: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (plan, at) in family.members.iter().filter(|(_, at)| at.get(2).copied() == looped) {
        by_size.entry(at[1] - at[0]).or_default().push(delta(&results.all.plans[*plan]).value);
    }
    let point = |(size, mut losses): (u64, Vec<f64>)| {
        losses.sort_by(|a, b| nan_last(*a, *b));
        let (low, high) = (losses[0], losses[losses.len() - 1]);
        let value = losses.iter().sum::<f64>() / losses.len() as f64;
        (size as f64, if high.is_nan() { NONE } else { Estimate { value, low, high } })
    };
    let name = looped.map_or_else(|| family.name.clone(), |times| format!("{} ×{times}", family.name));
    Series { name, points: by_size.into_iter().map(point).collect(), line: true }
}

/// Plans of no family.
fn alone(results: &Results) -> Vec<(Plot, String)> {
    let mut in_family = vec![false; results.plans.len()];
    results.families.iter().flat_map(|family| &family.members).for_each(|(plan, _)| in_family[*plan] = true);
    let plans: Vec<usize> = (0..results.plans.len()).filter(|plan| !in_family[*plan]).collect();
    if plans.is_empty() {
        return Vec::new();
    }
    let shown = &plans[..plans.len().min(PLANS)];
    let columns: Vec<(String, usize)> = shown.iter().map(|plan| (results.plans[*plan].text.clone(), *plan)).collect();
    let bars = columns.iter().map(|(text, plan)| (text.clone(), delta(&results.all.plans[*plan]))).collect();
    let more = match plans.len() - shown.len() {
        0 => String::new(),
        more => format!(" {} more are in the store.", grouped(more as u64)),
    };
    let drawing = Drawing::Bars(Bars { axis: String::new(), bars, difference: true, reference: None });
    let plot = Plot { title: of_tasks("Plans", results), measure: DELTA.into(), drawing };
    vec![(plot, format!("Plan by plan.{more} {}", over(&results.all)))]
}
