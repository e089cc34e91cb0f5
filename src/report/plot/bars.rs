//! Bars: upright where labels are short, lying where they are long.

use super::Bars;
use super::canvas::{Anchor, Canvas, Paint, SMALL, TEXT, fitted, width};
use super::scale::Scale;
use crate::report::number::{places, plain, signed};
use crate::sweep::Estimate;

/// The height of upright bars.
const HEIGHT: f64 = 120.0;

/// The height of a lying bar's row.
const ROW: f64 = 11.0;

/// Labels that stand below upright bars are this long at most.
const SHORT: usize = 3;

/// Draws from `top` on; where it ends.
pub(super) fn draw(bars: &Bars, canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let short = bars.bars.iter().all(|(label, _)| label.chars().count() <= SHORT);
    if short && bars.bars.len() as f64 <= all / 5.0 {
        upright(bars, canvas, all, top)
    } else {
        lying(bars, canvas, all, top)
    }
}

fn scale(bars: &Bars, steps: usize) -> Scale {
    let ends = bars.bars.iter().flat_map(|(_, e)| [e.value, e.low, e.high]);
    Scale::new(ends.chain([0.0]).chain(bars.reference.as_ref().map(|(value, _)| *value)), steps)
}

fn paint(bars: &Bars, value: f64) -> Paint {
    match (bars.difference, value < 0.0) {
        (false, _) => Paint::Series(0),
        (true, true) => Paint::Better,
        (true, false) => Paint::Worse,
    }
}

/// A value's text; all of a plot to the same place.
fn value_text(bars: &Bars, value: f64) -> String {
    let largest = bars.bars.iter().map(|(_, e)| e.value.abs()).filter(|x| x.is_finite()).fold(0.0, f64::max);
    // Bars that are short beside others have their digits all the same.
    let places = places(largest).max(2).min(if largest >= 100.0 { 0 } else { 4 });
    if bars.difference { signed(value, places) } else { plain(value, places) }
}

fn upright(bars: &Bars, canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let scale = scale(bars, 5);
    let left = scale.ticks.iter().map(|tick| width(&scale.text(*tick), TEXT)).fold(0.0, f64::max) + 5.0;
    let right = all - 2.0;
    let (above, below) = (top + 9.0, top + 9.0 + HEIGHT);
    let y = |value: f64| below - scale.at(value) * HEIGHT;
    for tick in &scale.ticks {
        canvas.line((left, y(*tick)), (right, y(*tick)), 0.5, Paint::Grid);
        canvas.text((left - 3.0, y(*tick) + 2.4), TEXT, Anchor::End, Paint::Soft, &scale.text(*tick));
    }
    let slot = (right - left) / bars.bars.len().max(1) as f64;
    let numbers = bars.bars.iter().all(|(_, e)| width(&value_text(bars, e.value), SMALL) <= slot + 1.0);
    for (i, (label, estimate)) in bars.bars.iter().enumerate() {
        let Estimate { value, low, high } = *estimate;
        let (x, half) = (left + slot * (i as f64 + 0.5), slot * 0.36);
        let drawn = if value.is_nan() { 0.0 } else { value };
        let (from, to) = (y(drawn.max(0.0)), y(drawn.min(0.0)));
        canvas.rect(x - half, from, 2.0 * half, to - from, paint(bars, value));
        let interval = low.is_finite() && high.is_finite() && low < high;
        if interval {
            let cap = (half * 0.5).min(2.5);
            canvas.line((x, y(high)), (x, y(low)), 0.8, Paint::Ink);
            canvas.line((x - cap, y(high)), (x + cap, y(high)), 0.8, Paint::Ink);
            canvas.line((x - cap, y(low)), (x + cap, y(low)), 0.8, Paint::Ink);
        }
        if numbers || !value.is_finite() {
            let end = if interval { y(high.max(0.0)) } else { from };
            let at = (end - 2.0).max(above - 2.0);
            canvas.text((x, at), SMALL, Anchor::Middle, Paint::Ink, &value_text(bars, value));
        }
        if width(label, TEXT) <= slot || i % 2 == 0 {
            canvas.text((x, below + TEXT + 2.0), TEXT, Anchor::Middle, Paint::Ink, label);
        }
    }
    canvas.line((left, y(0.0)), (right, y(0.0)), 0.8, Paint::Ink);
    if let Some((value, name)) = &bars.reference {
        canvas.dashed((left, y(*value)), (right, y(*value)), 0.8, Paint::Soft);
        canvas.label((right, y(*value) - 2.5), SMALL, Anchor::End, Paint::Soft, name);
    }
    axis(canvas, (left + right) / 2.0, below + 2.0 * TEXT + 4.0, &bars.axis)
}

/// An axis' name below it; where it ends.
pub(super) fn axis(canvas: &mut Canvas, x: f64, y: f64, name: &str) -> f64 {
    canvas.text((x, y), TEXT, Anchor::Middle, Paint::Soft, name);
    y + 2.0
}

fn lying(bars: &Bars, canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let scale = scale(bars, 4);
    let longest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(0.0, f64::max);
    let labels = longest(&mut bars.bars.iter().map(|(label, _)| width(label, TEXT))).min(all * 0.45);
    let numbers = longest(&mut bars.bars.iter().map(|(_, e)| width(&value_text(bars, e.value), SMALL)));
    let (left, right) = (labels + 6.0, all - numbers - 6.0);
    let above = top + 1.0;
    let below = above + ROW * bars.bars.len().max(1) as f64;
    let x = |value: f64| left + scale.at(value) * (right - left);
    for tick in &scale.ticks {
        canvas.line((x(*tick), above), (x(*tick), below), 0.5, Paint::Grid);
        let text = scale.text(*tick);
        let half = width(&text, TEXT) / 2.0;
        let at = x(*tick).clamp(half, all - half);
        canvas.text((at, below + TEXT + 1.0), TEXT, Anchor::Middle, Paint::Soft, &text);
    }
    for (i, (label, estimate)) in bars.bars.iter().enumerate() {
        let Estimate { value, low, high } = *estimate;
        let middle = above + ROW * (i as f64 + 0.5);
        let drawn = if value.is_nan() { 0.0 } else { value };
        let (from, to) = (x(drawn.min(0.0)), x(drawn.max(0.0)));
        canvas.rect(from, middle - 3.6, to - from, 7.2, paint(bars, value));
        if low.is_finite() && high.is_finite() && low < high {
            canvas.line((x(low), middle), (x(high), middle), 0.8, Paint::Ink);
            canvas.line((x(low), middle - 1.8), (x(low), middle + 1.8), 0.8, Paint::Ink);
            canvas.line((x(high), middle - 1.8), (x(high), middle + 1.8), 0.8, Paint::Ink);
        }
        canvas.text((left - 4.0, middle + 2.4), TEXT, Anchor::End, Paint::Ink, &fitted(label, TEXT, labels));
        canvas.text((all - 2.0, middle + 2.1), SMALL, Anchor::End, Paint::Ink, &value_text(bars, value));
    }
    canvas.line((x(0.0), above), (x(0.0), below), 0.8, Paint::Ink);
    let mut bottom = below + TEXT + 3.0;
    if let Some((value, name)) = &bars.reference {
        canvas.dashed((x(*value), above), (x(*value), below), 0.8, Paint::Soft);
        bottom += SMALL + 2.0;
        let half = width(name, SMALL) / 2.0;
        canvas.text((x(*value).clamp(half, all - half), bottom), SMALL, Anchor::Middle, Paint::Soft, name);
    }
    if bars.axis.is_empty() {
        bottom
    } else {
        axis(canvas, left.max(width(&bars.axis, TEXT) / 2.0), bottom + TEXT, &bars.axis)
    }
}
