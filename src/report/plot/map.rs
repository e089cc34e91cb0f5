//! Heat maps: the first row on top, the colour's scale beside them, numbers in cells that have room.

use super::HeatMap;
use super::canvas::{Anchor, Canvas, Hue, Paint, SMALL, TEXT, fitted, width};
use crate::report::number::{percent, places, plain, signed};

/// The height of a cell at most.
const CELL: f64 = 17.0;

/// The width of the scale's bar.
const BAR: f64 = 7.0;

/// Steps that the scale's bar is drawn in.
const STEPS: usize = 40;

/// Beyond so many times the third quartile of the differences, the scale ends there: a few cells do not bleach the others.
const OUTLIER: f64 = 3.0;

/// Draws from `top` on; where it ends.
pub(super) fn draw(map: &HeatMap, canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let limit = limit(map);
    let texts = bar_texts(map, limit);
    let beside = texts.iter().map(|text| width(text, SMALL)).fold(0.0, f64::max) + BAR + 8.0;
    let labels = map.down.1.iter().map(|label| width(label, TEXT)).fold(0.0, f64::max).min(all * 0.3);
    let left = labels.max(width(&map.down.0, TEXT).min(all * 0.3)) + 4.0;
    let columns = map.across.1.len().max(1) as f64;
    let cell = (((all - left - beside) / columns).min(2.2 * CELL), 0.0);
    let cell = (cell.0, cell.0.min(CELL));
    let (x, y) = (|c: usize| left + cell.0 * c as f64, |r: usize| top + TEXT + 4.0 + cell.1 * r as f64);
    canvas.text((left - 3.0, top + TEXT), TEXT, Anchor::End, Paint::Soft, &fitted(&map.down.0, TEXT, left));
    let numbers = numbers(map, limit, cell.0 - 1.5).filter(|_| cell.1 > SMALL);
    for (r, row) in map.cells.iter().enumerate() {
        canvas.text(
            (left - 3.0, y(r) + cell.1 / 2.0 + 2.4),
            TEXT,
            Anchor::End,
            Paint::Ink,
            &fitted(&map.down.1[r], TEXT, labels),
        );
        for (c, value) in row.iter().enumerate() {
            let Some(value) = value else { continue };
            let share = strength(map, *value, limit);
            let ground = paint(map, *value, share);
            canvas.rect(x(c) + 0.25, y(r) + 0.25, cell.0 - 0.5, cell.1 - 0.5, ground);
            let text = match numbers {
                Some(places) => written(map, *value, places),
                None if value.is_nan() => "?".to_owned(),
                None => continue,
            };
            let on = if let Paint::Shade(hue, share) = ground { Paint::OnShade(hue, share) } else { Paint::Ink };
            canvas.text((x(c) + cell.0 / 2.0, y(r) + cell.1 / 2.0 + 2.1), SMALL, Anchor::Middle, on, &text);
        }
    }
    let below = y(map.cells.len());
    let every = (1..).find(|every| map.across.1.iter().all(|label| width(label, TEXT) < cell.0 * *every as f64 - 1.0));
    for (c, label) in map.across.1.iter().enumerate().step_by(every.unwrap_or(1)) {
        canvas.text((x(c) + cell.0 / 2.0, below + TEXT + 1.0), TEXT, Anchor::Middle, Paint::Ink, label);
    }
    bar(map, canvas, (left + cell.0 * columns + 5.0, y(0)), (below - y(0)).clamp(24.0, 110.0), limit, &texts);
    let middle = (left + cell.0 * columns / 2.0).max(width(&map.across.0, TEXT) / 2.0);
    let below = below.max(y(0) + 24.0 + 2.0);
    super::bars::axis(canvas, middle, below + 2.0 * TEXT + 3.0, &map.across.0)
}

fn values(map: &HeatMap) -> impl Iterator<Item = f64> {
    map.cells.iter().flatten().flatten().copied()
}

fn written(map: &HeatMap, value: f64, places: usize) -> String {
    if map.shares { plain(100.0 * value, places) } else { signed(value, places) }
}

/// The decimal places of numbers in cells, where there is room for them: as many as the colours tell apart, or those of the
/// largest at least.
fn numbers(map: &HeatMap, limit: f64, room: f64) -> Option<usize> {
    let largest = values(map).map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max);
    let range = if map.shares { 0..=0 } else { places(largest).min(2)..=places(limit).min(3) };
    range.rev().find(|places| values(map).all(|value| width(&written(map, value, *places), SMALL) <= room))
}

/// Where the colour is full.
fn limit(map: &HeatMap) -> f64 {
    if map.shares {
        return 1.0;
    }
    let mut sizes: Vec<f64> = values(map).map(f64::abs).filter(|value| value.is_finite()).collect();
    sizes.sort_by(f64::total_cmp);
    let Some(&largest) = sizes.last() else { return 1.0 };
    let usual = sizes[(sizes.len() - 1) * 3 / 4];
    let limit = if usual > 0.0 && largest > OUTLIER * usual { OUTLIER * usual } else { largest };
    if limit > 0.0 { limit } else { 1.0 }
}

fn strength(map: &HeatMap, value: f64, limit: f64) -> f64 {
    let size = if map.shares { value } else { value.abs() };
    if value.is_nan() { 0.0 } else { (size / limit).clamp(0.0, 1.0) }
}

fn paint(map: &HeatMap, value: f64, share: f64) -> Paint {
    match (map.shares, value < 0.0) {
        _ if value.is_nan() => Paint::Grid,
        (true, _) => Paint::Shade(Hue::Amount, share),
        (false, true) => Paint::Shade(Hue::Better, share),
        (false, false) => Paint::Shade(Hue::Worse, share),
    }
}

/// What stands at the scale's top, middle and bottom.
fn bar_texts(map: &HeatMap, limit: f64) -> [String; 3] {
    if map.shares {
        return [1.0, 0.5, 0.0].map(percent);
    }
    let size = plain(limit, places(limit));
    let end = limit * 1.0001;
    let above = if values(map).any(|value| value > end) { "≥ " } else { "" };
    let below = if values(map).any(|value| value < -end) { "≤ " } else { "" };
    [format!("{above}+{size} worse"), "0 as intact".to_owned(), format!("{below}−{size} better")]
}

/// The scale of colours.
fn bar(map: &HeatMap, canvas: &mut Canvas, (x, y): (f64, f64), height: f64, limit: f64, texts: &[String; 3]) {
    let step = height / STEPS as f64;
    for i in 0..STEPS {
        let share = 1.0 - (i as f64 + 0.5) / STEPS as f64;
        let value = if map.shares { share } else { limit * (2.0 * share - 1.0) };
        canvas.rect(x, y + step * i as f64, BAR, step + 0.2, paint(map, value, strength(map, value, limit)));
    }
    for (i, text) in texts.iter().enumerate() {
        let at = y + height * i as f64 / 2.0 + [SMALL * 0.75, 2.1, 0.0][i];
        canvas.text((x + BAR + 2.5, at), SMALL, Anchor::Start, Paint::Soft, text);
    }
}
