//! A text, token by token: the redder the worse, the bluer the better, with the difference below each.

use super::canvas::{Anchor, Canvas, Paint, SMALL, fitted, width};
use super::{Passage, Sense, legend, map};
use crate::report::number::{places, signed};

/// The size of the text, the height of its ground, and of a line with the numbers below.
const WORD: f64 = 8.0;
const GROUND: f64 = 12.0;
const LINE: f64 = 25.0;

/// Draws from `top` on; where it ends.
pub(super) fn draw(passage: &Passage, canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let values = || passage.tokens.iter().filter_map(|token| token.value);
    let limit = map::limit_of(values().map(f64::abs));
    let places = places(limit).min(2);
    let (mut x, mut y) = (1.0, top + 3.0);
    for token in &passage.tokens {
        let number = token.value.map_or_else(String::new, |value| signed(value, places));
        let wide = (width(&token.text, WORD) + 2.0).max(width(&number, SMALL) + 3.0).min(all - 2.0);
        if x + wide > all - 1.0 && x > 1.0 {
            (x, y) = (1.0, y + LINE);
        }
        canvas.open(&token.hover);
        let mut on = Paint::Ink;
        if let Some(value) = token.value {
            let ground = map::paint(&Sense::Loss, value, limit);
            canvas.rect(x, y, wide, GROUND, ground);
            if let Paint::Shade(hue, share) = ground {
                on = Paint::OnShade(hue, share);
            }
        }
        let middle = x + wide / 2.0;
        canvas.text((middle, y + 8.7), WORD, Anchor::Middle, on, &fitted(&token.text, WORD, wide));
        canvas.text((middle, y + GROUND + SMALL + 0.5), SMALL, Anchor::Middle, Paint::Soft, &number);
        canvas.close();
        x += wide + 1.0;
        // A line break is one here, too.
        if token.ends_line {
            (x, y) = (1.0, y + LINE);
        }
    }
    let bottom = if x > 1.0 { y + LINE } else { y };
    let [worse, even, better] = map::diverging(
        limit,
        values().any(|value| value > limit * 1.0001),
        values().any(|value| value < -limit * 1.0001),
    );
    let at = |share: f64| map::paint(&Sense::Loss, limit * (2.0 * share - 1.0), limit);
    legend::draw(canvas, (1.0, bottom + 3.0), all - 2.0, &at, &[better, even, worse])
}
