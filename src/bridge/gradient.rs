//! What the final LayerNorm and the unembedding read in a state, its divergence from another reading, and the gradient of that:
//! by hand, back through softmax, unembedding and LayerNorm.
//!
//! ```text
//! x̂ = (y − mean y) / s,  s = √(var y + ε)      z = (x̂ ∘ w + c) · Wᵀ      q = softmax z
//! KL(p ‖ q) = Σ p (ln p − ln q)
//! dz = q − p      dx̂ = (dz · W) ∘ w      dy = (dx̂ − mean dx̂ − x̂ · mean(dx̂ ∘ x̂)) / s
//! ```

use super::products::{Real, product, product_transposed};
use crate::model::Model;

/// The final LayerNorm and the unembedding.
pub(super) struct Head<T> {
    /// W, `[vocab_size, width]`.
    pub(super) unembedding: Vec<T>,
    /// w
    pub(super) weight: Vec<f64>,
    /// c
    pub(super) bias: Vec<f64>,
    pub(super) epsilon: f64,
}

/// States through the LayerNorm.
struct Normal {
    /// x̂, `[rows, width]`
    centred: Vec<f64>,
    /// s, `[rows]`
    scale: Vec<f64>,
}

impl<T: Real> Head<T> {
    pub(super) fn of(model: &Model) -> Head<T> {
        let (matrix, ln_f) = (model.parameters().unembedding(), &model.parameters().ln_f);
        let mut unembedding = Vec::with_capacity(matrix.k * matrix.n);
        let mut row = vec![0.0_f32; matrix.k];
        for id in 0..matrix.n {
            matrix.data.widen_into(id * matrix.stride, &mut row);
            unembedding.extend(row.iter().map(|&x| T::of(f64::from(x))));
        }
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect();
        let (weight, bias) = (wide(&ln_f.weight), wide(&ln_f.bias));
        Head { unembedding, weight, bias, epsilon: model.config().layer_norm_epsilon }
    }

    fn width(&self) -> usize {
        self.weight.len()
    }

    /// `ln q` of states `[rows, width]`: `[rows, vocab_size]`.
    pub(super) fn read(&self, states: &[f64]) -> Vec<f64> {
        self.log_softmax(&self.normal(states))
    }

    /// The divergence of each row's reading from `log_p`, and its gradient by the row: `[rows]` and `[rows, width]`.
    pub(super) fn gradient(&self, states: &[f64], log_p: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (width, vocab_size) = (self.width(), self.unembedding.len() / self.width());
        let normal = self.normal(states);
        let log_q = self.log_softmax(&normal);
        let mut divergence = Vec::with_capacity(normal.scale.len());
        let mut by_logits: Vec<T> = Vec::with_capacity(log_q.len());
        for (log_p, log_q) in log_p.chunks_exact(vocab_size).zip(log_q.chunks_exact(vocab_size)) {
            let mut sum = 0.0;
            for (&log_p, &log_q) in log_p.iter().zip(log_q) {
                let p = log_p.exp();
                // Where p has vanished, so has its share.
                sum += if p > 0.0 { p * (log_p - log_q) } else { 0.0 };
                by_logits.push(T::of(log_q.exp() - p));
            }
            divergence.push(sum);
        }
        let by_normal = product(&by_logits, &self.unembedding, width);
        let mut gradient = Vec::with_capacity(states.len());
        let rows = by_normal.chunks_exact(width).zip(normal.centred.chunks_exact(width)).zip(&normal.scale);
        for ((by_normal, centred), scale) in rows {
            let by_centred: Vec<f64> = by_normal.iter().zip(&self.weight).map(|(d, w)| d.wide() * w).collect();
            let mean = by_centred.iter().sum::<f64>() / width as f64;
            let along = by_centred.iter().zip(centred).map(|(d, x)| d * x).sum::<f64>() / width as f64;
            gradient.extend(by_centred.iter().zip(centred).map(|(d, x)| (d - mean - x * along) / scale));
        }
        (divergence, gradient)
    }

    fn normal(&self, states: &[f64]) -> Normal {
        let n = self.width() as f64;
        let mut normal = Normal { centred: Vec::with_capacity(states.len()), scale: Vec::new() };
        for row in states.chunks_exact(self.width()) {
            let mean = row.iter().sum::<f64>() / n;
            let scale = (row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + self.epsilon).sqrt();
            normal.centred.extend(row.iter().map(|x| (x - mean) / scale));
            normal.scale.push(scale);
        }
        normal
    }

    fn log_softmax(&self, normal: &Normal) -> Vec<f64> {
        let width = self.width();
        let scaled = normal
            .centred
            .chunks_exact(width)
            .flat_map(|row| row.iter().zip(&self.weight).zip(&self.bias).map(|((x, w), b)| T::of(x * w + b)));
        let logits = product_transposed(&scaled.collect::<Vec<T>>(), &self.unembedding, width);
        let mut log = Vec::with_capacity(logits.len());
        for row in logits.chunks_exact(self.unembedding.len() / width) {
            let max = row.iter().map(|x| x.wide()).fold(f64::NEG_INFINITY, f64::max);
            let log_sum = row.iter().map(|x| (x.wide() - max).exp()).sum::<f64>().ln() + max;
            log.extend(row.iter().map(|x| x.wide() - log_sum));
        }
        log
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    /// Numbers that are neither alike nor random.
    fn numbers(count: usize, seed: usize, size: f64) -> Vec<f64> {
        (0..count).map(|i| size * (((i * 31 + seed * 17) % 23) as f64 - 11.0) / 11.0).collect()
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (width, vocab_size, rows) = (6, 19, 4);
        let head = Head::<f64> {
            unembedding: numbers(vocab_size * width, 1, 0.9),
            weight: numbers(width, 2, 1.3),
            bias: numbers(width, 3, 0.4),
            epsilon: 1e-5,
        };
        let log_p = head.read(&numbers(rows * width, 5, 2.0));
        let states = numbers(rows * width, 7, 1.5);
        let (divergence, gradient) = head.gradient(&states, &log_p);
        assert!(divergence.iter().all(|d| *d > 0.0), "{divergence:?}");
        let step = 1e-6;
        for i in 0..states.len() {
            let at = |by: f64| {
                let mut moved = states.clone();
                moved[i] += by;
                head.gradient(&moved, &log_p).0[i / width]
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            assert!((slope - gradient[i]).abs() < 1e-8 * (1.0 + slope.abs()), "{i}: {slope} {}", gradient[i]);
        }
        // A reading is no distance from itself, and there is nowhere to go.
        let (zero, none) = head.gradient(&states, &head.read(&states));
        assert!(zero.iter().chain(&none).all(|x| x.abs() < 1e-12));
    }
}
