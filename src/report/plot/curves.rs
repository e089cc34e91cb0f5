//! Curves and points with their intervals, and the legend above them.

use super::bars::axis;
use super::canvas::{Anchor, Canvas, Paint, SMALL, TEXT, fitted, width};
use super::scale::Scale;
use super::{Curves, Series};
use crate::report::number::percent;

/// The height of the plot, over its width.
const FLATNESS: f64 = 0.42;

/// Quantities that are whole numbers are all written where there are so few.
const FEW: usize = 14;

/// Draws from `top` on; where it ends.
pub(super) fn draw(curves: &Curves, canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let top = if curves.series.len() > 1 { legend(&curves.series, canvas, all, top + 2.0) } else { top };
    let ends = curves.series.iter().flat_map(|series| &series.points).flat_map(|(_, e)| [e.value, e.low, e.high]);
    let down = match curves.shares {
        true => Scale::shares(),
        false => Scale::new(ends.chain(curves.reference.as_ref().map(|(value, _)| *value)).chain([0.0]), 5),
    };
    let text = |tick: f64| if curves.shares { percent(tick) } else { down.text(tick) };
    let left = down.ticks.iter().map(|tick| width(&text(*tick), TEXT)).fold(0.0, f64::max) + 5.0;
    let right = all - 6.0;
    let height = (all * FLATNESS).clamp(110.0, 190.0);
    let below = top + 5.0 + height;
    let y = |value: f64| below - down.at(value) * height;
    for tick in &down.ticks {
        canvas.line((left, y(*tick)), (right, y(*tick)), 0.5, Paint::Grid);
        canvas.text((left - 3.0, y(*tick) + 2.4), TEXT, Anchor::End, Paint::Soft, &text(*tick));
    }
    let quantities = quantities(&curves.series);
    let (first, last) = (quantities.first().copied().unwrap_or(0.0), quantities.last().copied().unwrap_or(1.0));
    let x = |quantity: f64| match last > first {
        true => left + 5.0 + (quantity - first) / (last - first) * (right - left - 10.0),
        false => (left + right) / 2.0,
    };
    for (tick, text) in across(&quantities) {
        canvas.line((x(tick), below), (x(tick), below + 2.0), 0.6, Paint::Ink);
        canvas.text((x(tick), below + TEXT + 3.0), TEXT, Anchor::Middle, Paint::Ink, &text);
    }
    // Its name lies below the curves, and cuts no hole into them.
    if let Some((value, name)) = &curves.reference {
        canvas.dashed((left, y(*value)), (right, y(*value)), 0.8, Paint::Soft);
        canvas.label((right, y(*value) - 2.5), SMALL, Anchor::End, Paint::Soft, name);
    }
    canvas.line((left, y(0.0)), (right, y(0.0)), 0.8, Paint::Ink);
    for (i, series) in curves.series.iter().enumerate() {
        curve(canvas, i, series, &|quantity| x(quantity), &|value| y(value));
        for (quantity, _) in series.points.iter().filter(|(_, e)| e.value.is_nan()) {
            canvas.text((x(*quantity), y(down.high) + SMALL), SMALL, Anchor::Middle, Paint::Series(i), "NaN");
        }
    }
    axis(canvas, (left + right) / 2.0, below + 2.0 * TEXT + 5.0, &curves.axis)
}

/// A series: its interval, its line, its marks; what is infinite lies at the end of the axis, NaN breaks the line.
fn curve(canvas: &mut Canvas, i: usize, series: &Series, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) {
    let paint = Paint::Series(i);
    if series.line {
        for run in series.points.split(|(_, e)| !(e.low.is_finite() && e.high.is_finite())).filter(|run| run.len() > 1)
        {
            let there = run.iter().map(|(quantity, e)| (x(*quantity), y(e.high)));
            let back = run.iter().rev().map(|(quantity, e)| (x(*quantity), y(e.low)));
            canvas.band(&there.chain(back).collect::<Vec<_>>(), paint);
        }
        for run in series.points.split(|(_, e)| e.value.is_nan()).filter(|run| run.len() > 1) {
            canvas.polyline(&run.iter().map(|(q, e)| (x(*q), y(e.value))).collect::<Vec<_>>(), 1.2, paint);
        }
    } else {
        for (quantity, e) in series.points.iter().filter(|(_, e)| e.low < e.high) {
            canvas.line((x(*quantity), y(e.low)), (x(*quantity), y(e.high)), 0.6, paint);
        }
    }
    for (quantity, e) in series.points.iter().filter(|(_, e)| !e.value.is_nan()) {
        canvas.mark(i, (x(*quantity), y(e.value)), paint);
    }
}

/// All quantities, each once, ascending.
fn quantities(series: &[Series]) -> Vec<f64> {
    let mut all: Vec<f64> = series.iter().flat_map(|series| &series.points).map(|(quantity, _)| *quantity).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

/// Ticks of the horizontal axis and their texts, within the quantities.
fn across(quantities: &[f64]) -> Vec<(f64, String)> {
    if quantities.len() <= FEW && quantities.iter().all(|quantity| quantity.fract() == 0.0) {
        return quantities.iter().map(|quantity| (*quantity, format!("{quantity}"))).collect();
    }
    let (Some(&first), Some(&last)) = (quantities.first(), quantities.last()) else { return Vec::new() };
    let scale = Scale::new([first, last].into_iter(), 6);
    let inside = scale.ticks.iter().filter(|tick| (first..=last).contains(tick));
    inside.map(|tick| (*tick, scale.text(*tick))).collect()
}

/// Names with their marks, in as many rows as they need; where they end.
fn legend(series: &[Series], canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let (mut x, mut y) = (1.0, top + TEXT);
    for (i, series) in series.iter().enumerate() {
        let name = fitted(&series.name, TEXT, all - 14.0);
        let room = 12.0 + width(&name, TEXT);
        if x > 1.0 && x + room > all {
            (x, y) = (1.0, y + TEXT + 3.0);
        }
        if series.line {
            canvas.line((x, y - 2.4), (x + 9.0, y - 2.4), 1.2, Paint::Series(i));
        }
        canvas.mark(i, (x + 4.5, y - 2.4), Paint::Series(i));
        canvas.text((x + 11.5, y), TEXT, Anchor::Start, Paint::Ink, &name);
        x += room + 8.0;
    }
    y + 2.0
}
