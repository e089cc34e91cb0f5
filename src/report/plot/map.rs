//! Heat maps: the first row on top, the colour's scale beside them, numbers in cells that have room.

use super::HeatMap;
use super::canvas::{Anchor, Canvas, Hue, Paint, SMALL, TEXT, fitted, width};
use super::scale::{percent, places, plain, signed};

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
    let largest = map.cells.iter().flatten().flatten().map(|v| v.abs()).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let places = places(largest).min(2);
    let written = |value: f64| if map.shares { percent(value) } else { signed(value, places) };
    let numbers = map.cells.iter().flatten().flatten().all(|value| width(&written(*value), SMALL) <= cell.0 - 1.5);
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
            canvas.rect(x(c) + 0.25, y(r) + 0.25, cell.0 - 0.5, cell.1 - 0.5, paint(map, *value, share));
            if (numbers && cell.1 > SMALL) || value.is_nan() {
                let at = (x(c) + cell.0 / 2.0, y(r) + cell.1 / 2.0 + 2.1);
                let text = if numbers { written(*value) } else { "?".to_owned() };
                canvas.text(at, SMALL, Anchor::Middle, Paint::OnShade(share), &text);
            }
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

/// Where the colour is full.
fn limit(map: &HeatMap) -> f64 {
    if map.shares {
        return 1.0;
    }
    let mut sizes: Vec<f64> = map.cells.iter().flatten().flatten().map(|v| v.abs()).filter(|v| v.is_finite()).collect();
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
        return ["100 %", "50 %", "0 %"].map(str::to_owned);
    }
    let beyond = map.cells.iter().flatten().flatten().any(|value| value.abs() > limit * 1.0001);
    let (size, and) = (plain(limit, places(limit)), if beyond { "≥ " } else { "" });
    let below = if beyond { "≤ " } else { "" };
    [format!("{and}+{size} worse"), "0 as intact".to_owned(), format!("{below}−{size} better")]
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
