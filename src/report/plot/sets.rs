//! Sets of layers as rows of dots: full where a layer runs.

use super::Sets;
use super::canvas::{Anchor, Canvas, Paint, TEXT, fitted, width};

/// The height of a row.
const ROW: f64 = 11.0;

/// Draws from `top` on; where it ends.
pub(super) fn draw(sets: &Sets, canvas: &mut Canvas, all: f64, top: f64) -> f64 {
    let longest = |texts: &mut dyn Iterator<Item = f64>, room: f64| texts.fold(0.0, f64::max).min(room);
    let left =
        longest(&mut sets.rows.iter().map(|row| width(&row.0, TEXT)).chain([width(&sets.axis, TEXT)]), all * 0.3) + 6.0;
    let beside =
        longest(&mut sets.rows.iter().map(|row| width(&row.2, TEXT)).chain([width(&sets.said, TEXT)]), all * 0.4);
    let step = ((all - left - beside - 8.0) / sets.n_layer.max(1) as f64).min(16.0);
    let radius = (step * 0.38).min(3.6);
    let x = |layer: usize| left + step * (layer as f64 + 0.5);
    let right = left + step * sets.n_layer as f64 + 6.0;
    let head = top + TEXT + 1.0;
    canvas.text((left - 6.0, head), TEXT, Anchor::End, Paint::Soft, &fitted(&sets.axis, TEXT, left));
    canvas.text((right, head), TEXT, Anchor::Start, Paint::Soft, &fitted(&sets.said, TEXT, beside));
    let every = (1..).find(|every| width("00", TEXT) < step * *every as f64 - 1.0).unwrap_or(1);
    for layer in (0..sets.n_layer).step_by(every) {
        canvas.text((x(layer), head), TEXT, Anchor::Middle, Paint::Ink, &layer.to_string());
    }
    let first = head + 4.0;
    for (i, (label, layers, said)) in sets.rows.iter().enumerate() {
        let middle = first + ROW * (i as f64 + 0.5);
        canvas.text((left - 6.0, middle + 2.4), TEXT, Anchor::End, Paint::Ink, &fitted(label, TEXT, left));
        canvas.text((right, middle + 2.4), TEXT, Anchor::Start, Paint::Ink, &fitted(said, TEXT, beside));
        for layer in 0..sets.n_layer {
            match layers.contains(&layer) {
                true => canvas.circle((x(layer), middle), radius, Paint::Series(0)),
                false => canvas.circle((x(layer), middle), radius * 0.4, Paint::Grid),
            }
        }
    }
    let bottom = first + ROW * sets.rows.len() as f64;
    super::bars::axis(canvas, left + step * sets.n_layer as f64 / 2.0, bottom + TEXT + 1.0, "layer")
}
