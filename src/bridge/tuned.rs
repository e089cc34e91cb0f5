//! The tuned lens (Belrose et al. 2023): for each layer the affine map of its input to the final state that minimises
//! `KL(final ‖ what is read behind the map)`, by Adam (Kingma and Ba 2015) from A = I, b = 0.
//!
//! A step takes the next samples in an order that the seed decides, runs the intact model once, and moves the maps of all layers
//! against the mean gradient of their rows. The rate falls linearly to 0. The same seed, samples and settings give the same
//! maps, bit for bit, on any number of threads.

use super::BridgeError;
use super::gradient::Head;
use super::products::{add_outer, product};
use super::samples::Sample;
use super::states::{states, widened};
use crate::forward::{ForwardError, LinearMap, Session, Shortcuts, plain_threads};
use crate::plan::Plan;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

/// Rows whose logits a thread holds at a time.
const ROWS: usize = 32;

/// Adam's constants.
const BETA: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// How a lens is tuned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TunedOptions {
    /// Steps in all.
    pub steps: u64,
    /// Rows of a step, at least.
    pub rows: usize,
    /// The rate of the first step.
    pub rate: f64,
    /// Of the order of samples.
    pub seed: u64,
}

impl Default for TunedOptions {
    fn default() -> TunedOptions {
        TunedOptions { steps: 300, rows: 512, rate: 2e-3, seed: 0 }
    }
}

/// A lens that is being tuned.
pub struct TunedLens {
    pool: rayon::ThreadPool,
    intact: Plan,
    head: Head<f32>,
    width: usize,
    options: TunedOptions,
    layers: Vec<Layer>,
    taken: u64,
    order: Order,
}

/// The map of a layer's input, and Adam's moments of its gradient: weights, and biases behind them.
struct Layer {
    map: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

/// Which samples come next.
struct Order {
    random: ChaCha8Rng,
    waiting: Vec<usize>,
}

impl Order {
    /// The next of so many, each once before any again.
    fn next(&mut self, count: usize) -> usize {
        if self.waiting.is_empty() {
            self.waiting = (0..count).collect();
            for last in (1..count).rev() {
                let chosen = (u128::from(self.random.next_u64()) * (last as u128 + 1)) >> 64;
                self.waiting.swap(last, chosen as usize);
            }
        }
        self.waiting.pop().unwrap_or(0)
    }
}

impl TunedLens {
    /// A lens for the session's model, at the identity.
    ///
    /// # Errors
    /// Where a setting makes no sense.
    pub fn new(session: &Session, options: TunedOptions) -> Result<TunedLens, BridgeError> {
        let TunedOptions { steps, rows, rate, seed } = options;
        let fault = |setting, value, range| Err(BridgeError::Setting { setting, value, range });
        if steps == 0 {
            return fault("steps", 0.0, "1 or more");
        }
        if rows == 0 {
            return fault("rows", 0.0, "1 or more");
        }
        if !(rate > 0.0 && rate.is_finite()) {
            return fault("rate", rate, "more than 0");
        }
        let (n_layer, width) = (session.model().config().n_layer, session.model().config().n_embd);
        let size = width * (width + 1);
        let layer = || {
            let mut map = vec![0.0; size];
            map[..width * width].iter_mut().step_by(width + 1).for_each(|diagonal| *diagonal = 1.0);
            Layer { map, first: vec![0.0; size], second: vec![0.0; size] }
        };
        Ok(TunedLens {
            pool: plain_threads(session.threads()).map_err(ForwardError::from)?,
            intact: Plan::intact(n_layer),
            head: Head::of(session.model()),
            width,
            options,
            layers: (0..n_layer).map(|_| layer()).collect(),
            taken: 0,
            order: Order { random: ChaCha8Rng::seed_from_u64(seed), waiting: Vec::new() },
        })
    }

    /// Bytes that a lens for a model of this shape takes, and a step of so many rows.
    pub fn bytes(config: &crate::model::Config, threads: usize, rows: usize) -> usize {
        let (d, v, layers) = (config.n_embd, config.vocab_size, config.n_layer);
        let maps = [layers, d, d + 1, 4 * size_of::<f64>()].into_iter().fold(1, usize::saturating_mul);
        let head = v.saturating_mul(d).saturating_mul(size_of::<f32>());
        let logits = [threads, ROWS, v, 32].into_iter().fold(1, usize::saturating_mul);
        let states = [layers + 1, rows + config.n_positions, d, 20].into_iter().fold(1, usize::saturating_mul);
        [maps, head, logits, states].into_iter().fold(0, usize::saturating_add)
    }

    /// Takes a step on some of `samples`, the same ones each time: the mean divergence of each layer's reading before it, nats.
    /// Steps behind the last change nothing.
    ///
    /// # Errors
    /// Where there is no sample with rows, or one does not fit the model.
    pub fn step(&mut self, session: &mut Session, samples: &[Sample]) -> Result<Vec<f64>, BridgeError> {
        if samples.iter().all(|sample| sample.rows.is_empty()) {
            return Err(BridgeError::Nothing { what: "rows of text" });
        }
        let mut chosen: Vec<Sample> = Vec::new();
        while chosen.iter().map(|sample| sample.rows.len()).sum::<usize>() < self.options.rows {
            chosen.push(samples[self.order.next(samples.len())].clone());
        }
        let (divergences, gradients) = self.gradients_of(session, &chosen)?;
        self.taken += 1;
        let left = self.options.steps.saturating_sub(self.taken - 1) as f64;
        let rate = self.options.rate * left / self.options.steps as f64;
        let TunedLens { pool, layers, taken, .. } = self;
        let taken = i32::try_from(*taken).unwrap_or(i32::MAX);
        pool.install(|| {
            layers.par_iter_mut().zip(&gradients).for_each(|(layer, gradient)| layer.move_by(gradient, rate, taken));
        });
        Ok(divergences)
    }

    /// Of these samples' rows, for each layer the mean divergence and its gradient by the map.
    pub(super) fn gradients_of(
        &self,
        session: &mut Session,
        samples: &[Sample],
    ) -> Result<(Vec<f64>, Vec<Vec<f64>>), BridgeError> {
        let layers: Vec<usize> = (0..=self.layers.len()).collect();
        let found = states(session, &self.intact, samples, &layers)?;
        let inputs: Vec<Vec<f64>> = (0..self.layers.len()).map(|layer| widened(&found[&layer])).collect();
        Ok(self.gradients(&inputs, &widened(&found[&self.layers.len()])))
    }

    /// The same of states.
    fn gradients(&self, inputs: &[Vec<f64>], finals: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
        let (width, head) = (self.width, &self.head);
        let rows = finals.len() / width;
        // A piece of rows through the readings of all layers, which share what the final state says.
        let piece = |number: usize| -> Vec<(Vec<f64>, Vec<f64>)> {
            let at = number * ROWS * width..((number + 1) * ROWS * width).min(finals.len());
            let log_p = head.read(&finals[at.clone()]);
            let read = |(layer, input): (&Layer, &Vec<f64>)| {
                head.gradient(&crossed(&input[at.clone()], &layer.map, width), &log_p)
            };
            self.layers.iter().zip(inputs).map(read).collect()
        };
        self.pool.install(|| {
            let pieces: Vec<_> = (0..rows.div_ceil(ROWS)).into_par_iter().map(piece).collect();
            let (mut divergences, mut gradients) = (Vec::new(), Vec::new());
            for (layer, input) in inputs.iter().enumerate() {
                let of_rows = pieces.iter().flat_map(|piece| &piece[layer].0);
                divergences.push(of_rows.sum::<f64>() / rows as f64);
                let by_states: Vec<f64> =
                    pieces.iter().flat_map(|piece| &piece[layer].1).map(|x| x / rows as f64).collect();
                gradients.push(by_map(input, &by_states, width));
            }
            (divergences, gradients)
        })
    }

    /// Puts a map in a layer's place: weights, and biases behind them.
    #[cfg(all(test, feature = "mini"))]
    pub(super) fn set_map(&mut self, layer: usize, map: Vec<f64>) {
        self.layers[layer].map = map;
    }

    /// The maps from each layer's input to the final state.
    ///
    /// # Errors
    /// Where one is no longer finite.
    pub fn shortcuts(&self) -> Result<Shortcuts, BridgeError> {
        let to = self.layers.len();
        let mut shortcuts = Shortcuts::default();
        for (from, Layer { map, .. }) in self.layers.iter().enumerate() {
            let narrow = |x: &[f64]| x.iter().map(|&x| x as f32).collect();
            let (weight, bias) = map.split_at(self.width * self.width);
            let map = LinearMap::new(narrow(weight), narrow(bias));
            shortcuts.insert(from, to, map.map_err(|source| BridgeError::Map { from, to, source })?);
        }
        Ok(shortcuts)
    }
}

/// `x · A + b`, map being both.
fn crossed(x: &[f64], map: &[f64], width: usize) -> Vec<f64> {
    let (weight, bias) = map.split_at(width * width);
    let mut y = product(x, weight, width);
    y.chunks_exact_mut(width).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
    y
}

/// The gradient by the map, of that by the states behind it: `Σ xᵀ dy` and `Σ dy`.
fn by_map(x: &[f64], by_states: &[f64], width: usize) -> Vec<f64> {
    let mut gradient = vec![0.0; width * (width + 1)];
    let (weight, bias) = gradient.split_at_mut(width * width);
    add_outer(x, width, by_states, width, weight);
    by_states.chunks_exact(width).for_each(|row| bias.iter_mut().zip(row).for_each(|(b, d)| *b += d));
    gradient
}

impl Layer {
    /// Adam's step number `taken`, from 1.
    fn move_by(&mut self, gradient: &[f64], rate: f64, taken: i32) {
        let Layer { map, first, second } = self;
        let unbiased = BETA.map(|beta| 1.0 - beta.powi(taken));
        for (((x, m), v), g) in map.iter_mut().zip(first).zip(second).zip(gradient) {
            *m = BETA[0] * *m + (1.0 - BETA[0]) * g;
            *v = BETA[1] * *v + (1.0 - BETA[1]) * g * g;
            *x -= rate * (*m / unbiased[0]) / ((*v / unbiased[1]).sqrt() + EPSILON);
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    /// The whole chain, from a map's numbers to the mean divergence, against finite differences.
    #[test]
    fn the_gradient_by_the_map_is_that_of_finite_differences() {
        let numbers = |count: usize, seed: usize| -> Vec<f64> {
            (0..count).map(|i| (((i * 29 + seed * 13) % 19) as f64 - 9.0) / 9.0).collect()
        };
        let (width, rows) = (5, 7);
        let head = Head::<f64> {
            unembedding: numbers(11 * width, 1),
            weight: numbers(width, 2),
            bias: numbers(width, 3),
            epsilon: 1e-5,
        };
        let (x, map) = (numbers(rows * width, 4), numbers(width * (width + 1), 5));
        let log_p = head.read(&numbers(rows * width, 6));
        let (_, by_states) = head.gradient(&crossed(&x, &map, width), &log_p);
        let gradient = by_map(&x, &by_states, width);
        let step = 1e-6;
        for i in 0..map.len() {
            let at = |by: f64| -> f64 {
                let mut moved = map.clone();
                moved[i] += by;
                head.gradient(&crossed(&x, &moved, width), &log_p).0.iter().sum()
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            assert!((slope - gradient[i]).abs() < 1e-7 * (1.0 + slope.abs()), "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn adam_walks_down_a_bowl() {
        let mut layer = Layer { map: vec![3.0, -2.0], first: vec![0.0; 2], second: vec![0.0; 2] };
        layer.move_by(&[6.0, -4e-3], 0.1, 1);
        // The first step is the rate, whatever the slope.
        assert!((layer.map[0] - 2.9).abs() < 1e-6 && (layer.map[1] + 1.9).abs() < 1e-5, "{:?}", layer.map);
        for taken in 2..400 {
            let gradient: Vec<f64> = layer.map.iter().map(|x| 2.0 * x).collect();
            layer.move_by(&gradient, 0.1, taken);
        }
        assert!(layer.map.iter().all(|x| x.abs() < 1e-2), "{:?}", layer.map);
    }

    #[test]
    fn every_sample_comes_once_before_any_again() {
        let mut order = Order { random: ChaCha8Rng::seed_from_u64(1), waiting: Vec::new() };
        let mut first: Vec<usize> = (0..9).map(|_| order.next(9)).collect();
        let second: Vec<usize> = (0..9).map(|_| order.next(9)).collect();
        assert_ne!(first, second);
        first.sort_unstable();
        assert_eq!(first, (0..9).collect::<Vec<_>>());
    }
}
