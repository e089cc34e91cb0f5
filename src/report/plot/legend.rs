//! What colours mean, as a bar that lies below a drawing.

use super::canvas::{Anchor, Canvas, Paint, SMALL, fitted, width};

/// Steps that a bar is drawn in.
pub(super) const STEPS: usize = 40;

/// The bar's height, and its length at most.
const BAR: f64 = 6.0;
const LONG: f64 = 190.0;

/// Draws a bar of colours from `left` on, with what stands for its beginning, its middle and its end; where it ends.
pub(super) fn draw(
    canvas: &mut Canvas,
    (left, y): (f64, f64),
    room: f64,
    paint: &dyn Fn(f64) -> Paint,
    [low, even, high]: &[String; 3],
) -> f64 {
    // Texts beside each other need a place each; in narrow columns they are cut.
    let texts = width(low, SMALL) + width(even, SMALL) + width(high, SMALL) + 16.0;
    let length = texts.max(LONG).min(room);
    let step = length / STEPS as f64;
    for i in 0..STEPS {
        canvas.rect(left + step * i as f64, y, step + 0.2, BAR, paint((i as f64 + 0.5) / STEPS as f64));
    }
    let below = y + BAR + SMALL + 0.5;
    let third = length / 3.0 - 2.0;
    let ends = if texts > room { third } else { length };
    let places = [
        ((left, below), Anchor::Start, low),
        ((left + length / 2.0, below), Anchor::Middle, even),
        ((left + length, below), Anchor::End, high),
    ];
    for (at, anchor, text) in places {
        canvas.text(at, SMALL, anchor, Paint::Soft, &fitted(text, SMALL, ends));
    }
    below + 1.5
}
