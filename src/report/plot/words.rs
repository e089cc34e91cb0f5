//! Grids of words: what is likeliest in each cell, the deeper its colour the likelier; as many columns side by side as there is
//! room for, the others below.

use super::canvas::{Anchor, Canvas, Hue, Paint, SMALL, TEXT, fitted, width};
use super::{Word, Words, legend};
use crate::report::number::percent;

/// A cell's height, and its width at least and at most.
const HEIGHT: f64 = 17.0;
const NARROW: f64 = 30.0;
const WIDE: f64 = 54.0;

/// The size of words, and of shares below them.
const WORD: f64 = 6.6;
const SHARE: f64 = 4.6;

/// How thick the line through columns is.
const LINE: f64 = 1.6;

/// Draws from `top` on; where it ends.
pub(super) fn draw(words: &Words, canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let ((down, rows), (across, columns)) = (&words.down, &words.across);
    let labels = rows.iter().map(|label| width(label, TEXT)).fold(0.0, f64::max).min(all * 0.25);
    let left = labels.max(width(down, TEXT).min(all * 0.25)) + 4.0;
    let room = all - left - 2.0;
    let texts = words.cells.iter().flatten().map(|word| &word.text).chain(columns);
    let widest = texts.map(|text| width(text, WORD) + 4.0).fold(0.0, f64::max).clamp(NARROW, WIDE);
    let side_by_side = ((room / widest) as usize).max(1);
    // Lines of grids that are alike, so that the last is not a stump.
    let lines = columns.len().div_ceil(side_by_side).max(1);
    let side_by_side = columns.len().div_ceil(lines).max(1);
    let cell = (room / side_by_side as f64).min(WIDE);
    let mut y = top + TEXT + 4.0;
    canvas.text((left - 3.0, top + TEXT), TEXT, Anchor::End, Paint::Soft, &fitted(down, TEXT, left));
    for first in (0..columns.len()).step_by(side_by_side) {
        let above = y;
        let block = first..columns.len().min(first + side_by_side);
        for (label, row) in rows.iter().zip(&words.cells) {
            let baseline = y + HEIGHT / 2.0 + 2.4;
            canvas.text((left - 3.0, baseline), TEXT, Anchor::End, Paint::Ink, &fitted(label, TEXT, labels));
            for (c, word) in row[block.clone()].iter().enumerate() {
                draw_word(word, canvas, (left + cell * c as f64, y), cell);
            }
            y += HEIGHT;
        }
        if let Some((counts, _)) = &words.line {
            for (c, count) in counts[block.clone()].iter().enumerate() {
                let (x, y) = (left + cell * c as f64, above + HEIGHT * *count as f64);
                canvas.line((x + 0.4, y), (x + cell - 0.4, y), LINE, Paint::Ink);
            }
        }
        for (c, label) in columns[block.clone()].iter().enumerate() {
            let middle = left + cell * (c as f64 + 0.5);
            let label = fitted(label, TEXT, cell - 1.0);
            canvas.text((middle, y + TEXT + 1.5), TEXT, Anchor::Middle, Paint::Ink, &label);
        }
        y += TEXT + 10.0;
    }
    let middle = left + cell * side_by_side.min(columns.len()) as f64 / 2.0;
    let bottom = super::bars::axis(canvas, middle.max(width(across, TEXT) / 2.0), y + 2.0, across);
    let shade = |share: f64| Paint::Shade(Hue::Amount, share);
    let ends = [0.0, 0.5, 1.0].map(percent);
    let bottom = legend::draw(canvas, (left, bottom + 5.0), room.min(110.0), &shade, &ends);
    let Some((_, said)) = &words.line else { return bottom };
    // Beside the bar where there is room, else below it.
    let (x, y) = if room > 145.0 + width(said, SMALL) { (left + 126.0, bottom - 11.0) } else { (left, bottom + 5.0) };
    canvas.line((x, y), (x + 14.0, y), LINE, Paint::Ink);
    canvas.text((x + 17.0, y + 2.1), SMALL, Anchor::Start, Paint::Soft, &fitted(said, SMALL, all - x - 19.0));
    bottom.max(y + 5.0)
}

fn draw_word(word: &Word, canvas: &mut Canvas, (x, y): (f64, f64), cell: f64) {
    let Word { text, share, hover } = word;
    let (ground, on) = match share.is_nan() {
        true => (Paint::Grid, Paint::Ink),
        false => (Paint::Shade(Hue::Amount, share.clamp(0.0, 1.0)), Paint::OnShade(Hue::Amount, share.clamp(0.0, 1.0))),
    };
    canvas.open(hover);
    canvas.rect(x + 0.4, y + 0.4, cell - 0.8, HEIGHT - 0.8, ground);
    let middle = x + cell / 2.0;
    canvas.text((middle, y + 8.3), WORD, Anchor::Middle, on, &fitted(text, WORD, cell - 3.0));
    let share = if share.is_nan() { "NaN".to_owned() } else { format!("{:.0}", 100.0 * share) };
    canvas.text((middle, y + 14.2), SHARE, Anchor::Middle, on, &share);
    canvas.close();
}
