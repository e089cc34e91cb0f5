//! Heat maps: the first row on top, the colour's scale beside or below them, numbers in cells that have room.

use super::canvas::{Anchor, Canvas, Hue, Paint, SMALL, TEXT, fitted, width};
use super::{Gain, HeatMap, Sense, legend};
use crate::report::number::{percent, places, plain, signed};

/// The height of a cell at most.
const CELL: f64 = 17.0;

/// The width of the scale's bar.
const BAR: f64 = 7.0;

/// Labels that stand upright below columns are this long at most.
const UPRIGHT: f64 = 62.0;

/// Columns that are as wide hold what is left of a name.
const READABLE: f64 = 20.0;

/// Beyond so many times the third quartile of the differences, the scale ends there: a few cells do not bleach the others.
const OUTLIER: f64 = 3.0;

/// Draws from `top` on; where it ends.
pub(super) fn draw(map: &HeatMap, canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let limit = limit(map);
    let texts = bar_texts(map, limit);
    let lies = matches!(map.sense, Sense::Gain(_));
    let beside = match lies {
        true => 1.0,
        false => texts.iter().map(|text| width(text, SMALL)).fold(0.0, f64::max) + BAR + 8.0,
    };
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
            let said = map.hover.get(r).and_then(|row| row.get(c));
            said.into_iter().for_each(|said| canvas.open(said));
            let ground = paint(&map.sense, *value, limit);
            canvas.rect(x(c) + 0.25, y(r) + 0.25, cell.0 - 0.5, cell.1 - 0.5, ground);
            let text = match numbers {
                Some(places) => Some(written(map, *value, places)),
                None => value.is_nan().then(|| "?".to_owned()),
            };
            if let Some(text) = text {
                let on = if let Paint::Shade(hue, share) = ground { Paint::OnShade(hue, share) } else { Paint::Ink };
                canvas.text((x(c) + cell.0 / 2.0, y(r) + cell.1 / 2.0 + 2.1), SMALL, Anchor::Middle, on, &text);
            }
            said.into_iter().for_each(|_| canvas.close());
        }
    }
    let below = y(map.cells.len());
    let labelled = column_labels(map, canvas, left, below, cell.0);
    let middle = (left + cell.0 * columns / 2.0).max(width(&map.across.0, TEXT) / 2.0);
    if lies {
        let bottom = super::bars::axis(canvas, middle, labelled + TEXT + 2.0, &map.across.0);
        let at = |share: f64| {
            let even = even(&map.sense);
            paint(&map.sense, even + limit * (2.0 * share - 1.0), limit)
        };
        let [above, even, under] = texts;
        return legend::draw(canvas, (left, bottom + 5.0), all - left - 2.0, &at, &[under, even, above]);
    }
    bar(map, canvas, (left + cell.0 * columns + 5.0, y(0)), (below - y(0)).clamp(24.0, 110.0), limit, &texts);
    let below = labelled.max(y(0) + 24.0 + 2.0 + TEXT + 1.0);
    super::bars::axis(canvas, middle, below + TEXT + 2.0, &map.across.0)
}

/// Columns' names below them: side by side where they fit, numbers else now and then, and other names upright; the last
/// baseline, or where the longest ends.
fn column_labels(map: &HeatMap, canvas: &mut Canvas, left: f64, below: f64, cell: f64) -> f64 {
    let labels = &map.across.1;
    let middle = |c: usize| left + cell * (c as f64 + 0.5);
    let wide =
        |label: &&String, every: usize| label.split('\n').any(|line| width(line, TEXT) >= cell * every as f64 - 1.0);
    let fits = |every: usize| !labels.iter().any(|label| wide(&label, every));
    let are_numbers = labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    // One or two that are long, as the name of BOS is, are cut.
    let cut = !are_numbers && cell >= READABLE && labels.iter().filter(|label| wide(label, 1)).count() <= 2;
    if !fits(1) && !are_numbers && !cut {
        let texts = labels.iter().map(|label| fitted(&label.replace('\n', " "), TEXT, UPRIGHT));
        let texts: Vec<String> = texts.collect();
        let every = ((TEXT + 0.5) / cell).ceil().max(1.0) as usize;
        for (c, text) in texts.iter().enumerate().step_by(every) {
            canvas.upright((middle(c) + 2.4, below + 2.5), TEXT, Paint::Ink, text);
        }
        return below + 2.5 + texts.iter().map(|text| width(text, TEXT)).fold(0.0, f64::max);
    }
    let every = (1..=labels.len().max(1)).find(|every| cut || fits(*every)).unwrap_or(labels.len().max(1));
    let room = if cut { cell - 1.0 } else { f64::INFINITY };
    let mut lines = 1;
    for (c, label) in labels.iter().enumerate().step_by(every) {
        for (i, line) in label.split('\n').enumerate() {
            let paint = if i == 0 { Paint::Ink } else { Paint::Soft };
            canvas.text(
                (middle(c), below + (TEXT + 1.0) * (i + 1) as f64),
                TEXT,
                Anchor::Middle,
                paint,
                &fitted(line, TEXT, room),
            );
            lines = lines.max(i + 1);
        }
    }
    below + (TEXT + 1.0) * lines as f64
}

fn values(map: &HeatMap) -> impl Iterator<Item = f64> {
    map.cells.iter().flatten().flatten().copied()
}

fn written(map: &HeatMap, value: f64, places: usize) -> String {
    match &map.sense {
        Sense::Share => plain(100.0 * value, places),
        Sense::Amount { .. } => plain(value, places),
        Sense::Gain(Gain { even, .. }) if *even != 0.0 => plain(value, places),
        Sense::Gain(_) | Sense::Loss => signed(value, places),
    }
}

/// The decimal places of numbers in cells, where there is room for them: as many as the colours tell apart, or those of the
/// largest at least.
fn numbers(map: &HeatMap, limit: f64, room: f64) -> Option<usize> {
    let largest = values(map).map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max);
    let range = match map.sense {
        Sense::Share => 0..=0,
        Sense::Amount { full, .. } => 0..=usize::from(full < 20.0),
        // Hundredths of what a run is from another, or of a logit: finer is noise.
        Sense::Gain(_) => places(largest).min(1)..=places(limit).min(2),
        Sense::Loss => places(largest).min(2)..=places(limit).min(3),
    };
    range.rev().find(|places| values(map).all(|value| width(&written(map, value, *places), SMALL) <= room))
}

/// What is neither better nor worse.
fn even(sense: &Sense) -> f64 {
    if let Sense::Gain(gain) = sense { gain.even } else { 0.0 }
}

/// How far from that the colour is full.
fn limit(map: &HeatMap) -> f64 {
    let away = || values(map).map(|value| (value - even(&map.sense)).abs());
    match &map.sense {
        Sense::Share => 1.0,
        Sense::Amount { full, .. } => positive(*full),
        Sense::Gain(gain) => {
            positive(gain.full.unwrap_or_else(|| away().filter(|away| away.is_finite()).fold(0.0, f64::max)))
        }
        Sense::Loss => limit_of(away()),
    }
}

fn positive(limit: f64) -> f64 {
    if limit > 0.0 && limit.is_finite() { limit } else { 1.0 }
}

/// Where the colour of differences is full, by their sizes.
pub(super) fn limit_of(sizes: impl Iterator<Item = f64>) -> f64 {
    let mut sizes: Vec<f64> = sizes.filter(|size| size.is_finite()).collect();
    sizes.sort_by(f64::total_cmp);
    let Some(&largest) = sizes.last() else { return 1.0 };
    let usual = sizes[(sizes.len() - 1) * 3 / 4];
    positive(if usual > 0.0 && largest > OUTLIER * usual { OUTLIER * usual } else { largest })
}

/// The colour of a value.
pub(super) fn paint(sense: &Sense, value: f64, limit: f64) -> Paint {
    let away = value - even(sense);
    let share = (away.abs() / limit).clamp(0.0, 1.0);
    match (sense, away < 0.0) {
        _ if value.is_nan() => Paint::Grid,
        (Sense::Share | Sense::Amount { .. }, _) => Paint::Shade(Hue::Amount, (away / limit).clamp(0.0, 1.0)),
        (Sense::Loss, true) | (Sense::Gain(_), false) => Paint::Shade(Hue::Better, share),
        (Sense::Loss, false) | (Sense::Gain(_), true) => Paint::Shade(Hue::Worse, share),
    }
}

/// What stands at the scale's top, middle and bottom.
fn bar_texts(map: &HeatMap, limit: f64) -> [String; 3] {
    let even = even(&map.sense);
    let end = limit * 1.005;
    let beyond_top = values(map).any(|value| value - even > end);
    let beyond_bottom = values(map).any(|value| even - value > end);
    match &map.sense {
        Sense::Share => [1.0, 0.5, 0.0].map(percent),
        Sense::Amount { unit, .. } => {
            let places = usize::from(limit < 20.0);
            [limit, limit / 2.0, 0.0].map(|value| format!("{}\u{a0}{unit}", plain(value, places)))
        }
        Sense::Loss => diverging(limit, beyond_top, beyond_bottom),
        Sense::Gain(Gain { even, names: [above, same, below], .. }) => {
            let places = if limit.fract() == 0.0 && even.fract() == 0.0 { 0 } else { places(limit) };
            let text = |value: f64| if *even == 0.0 { signed(value, places) } else { plain(value, places) };
            let named =
                |beyond: &str, value: f64, name: &str| format!("{beyond}{} {name}", text(value)).trim().to_owned();
            [
                named(if beyond_top { "≥ " } else { "" }, even + limit, above),
                named("", *even, same),
                named(if beyond_bottom { "≤ " } else { "" }, even - limit, below),
            ]
        }
    }
}

/// The ends and the middle of a scale of differences to the intact model.
pub(super) fn diverging(limit: f64, beyond_top: bool, beyond_bottom: bool) -> [String; 3] {
    let size = plain(limit, places(limit));
    let above = if beyond_top { "≥ " } else { "" };
    let below = if beyond_bottom { "≤ " } else { "" };
    [format!("{above}+{size} worse"), "0 as intact".to_owned(), format!("{below}−{size} better")]
}

/// The scale of colours.
fn bar(map: &HeatMap, canvas: &mut Canvas, (x, y): (f64, f64), height: f64, limit: f64, texts: &[String; 3]) {
    let step = height / legend::STEPS as f64;
    for i in 0..legend::STEPS {
        let share = 1.0 - (i as f64 + 0.5) / legend::STEPS as f64;
        let value = if map.sense == Sense::Loss { limit * (2.0 * share - 1.0) } else { limit * share };
        canvas.rect(x, y + step * i as f64, BAR, step + 0.2, paint(&map.sense, value, limit));
    }
    for (i, text) in texts.iter().enumerate() {
        let at = y + height * i as f64 / 2.0 + [SMALL * 0.75, 2.1, 0.0][i];
        canvas.text((x + BAR + 2.5, at), SMALL, Anchor::Start, Paint::Soft, text);
    }
}
