//! Choosing the next token from logits.

use super::error::ForwardError;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// How a completion is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Tokens at most.
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the most likely token (the lowest id where two are equal).
    pub temperature: f64,
    /// Draws from the k most likely tokens only.
    pub top_k: Option<usize>,
    /// Draws from the fewest tokens whose probabilities reach p (nucleus sampling: Holtzman et al. 2020).
    pub top_p: Option<f64>,
    /// Seed of the generator (ChaCha8): the same seed draws the same tokens everywhere.
    pub seed: u64,
    /// Texts that end the completion; they are not part of it.
    pub stop: Vec<String>,
    /// Whether the end-of-text token ends the completion. Off by default: what a lesioned model says behind it is data.
    pub stop_at_end_of_text: bool,
    /// Whether keys and values are kept from token to token, instead of being computed anew.
    pub cache: bool,
}

impl Sampling {
    /// The most likely token, every time.
    pub fn greedy(max_tokens: usize) -> Sampling {
        Sampling {
            max_tokens,
            temperature: 0.0,
            top_k: None,
            top_p: None,
            seed: 0,
            stop: Vec::new(),
            stop_at_end_of_text: false,
            cache: true,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ForwardError::Setting`] names the one that is out of its range.
    pub fn check(&self) -> Result<(), ForwardError> {
        let setting = |setting, value: String, range| Err(ForwardError::Setting { setting, value, range });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return setting("temperature", self.temperature.to_string(), "a finite number from 0 on is needed");
        }
        if self.top_k == Some(0) {
            return setting("top-k", "0".to_owned(), "at least 1 is needed");
        }
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return setting("top-p", p.to_string(), "a number above 0, up to 1, is needed");
        }
        if self.stop.iter().any(String::is_empty) {
            return setting("stop", "''".to_owned(), "an empty text would stop at once");
        }
        Ok(())
    }
}

/// A [`Sampling`] with its generator.
pub(super) struct Sampler<'a> {
    sampling: &'a Sampling,
    random: ChaCha8Rng,
}

impl<'a> Sampler<'a> {
    pub(super) fn new(sampling: &'a Sampling) -> Self {
        Sampler { sampling, random: ChaCha8Rng::seed_from_u64(sampling.seed) }
    }

    /// The next token, or the number of NaN logits.
    pub(super) fn choose(&mut self, logits: &[f32]) -> Result<u32, usize> {
        let nan = logits.iter().filter(|l| l.is_nan()).count();
        if nan > 0 {
            return Err(nan);
        }
        if self.sampling.temperature == 0.0 {
            return Ok(most_likely(logits));
        }
        // Most likely first; equal logits by id, so that the order is one and the same everywhere.
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let logit = |id: u32| f64::from(logits[id as usize]);
        ids.sort_unstable_by(|&a, &b| logit(b).total_cmp(&logit(a)).then(a.cmp(&b)));
        ids.truncate(self.sampling.top_k.unwrap_or(usize::MAX));
        let greatest = logit(ids[0]);
        // Where the greatest is infinite, the infinite share everything.
        let weight = |id: u32| match logit(id) {
            l if l == greatest => 1.0,
            l => ((l - greatest) / self.sampling.temperature).exp(),
        };
        let mut weights: Vec<f64> = ids.iter().map(|&id| weight(id)).collect();
        if let Some(p) = self.sampling.top_p {
            let whole: f64 = weights.iter().sum();
            let mut reached = 0.0;
            let kept = weights.iter().position(|w| {
                reached += w;
                reached >= p * whole
            });
            weights.truncate(kept.map_or(weights.len(), |last| last + 1));
        }
        let whole: f64 = weights.iter().sum();
        // 53 random bits: a uniform f64 in [0, 1).
        let mut left = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * whole;
        let drawn = weights.iter().position(|w| {
            left -= w;
            left < 0.0
        });
        Ok(ids[drawn.unwrap_or(weights.len() - 1)])
    }
}

/// The lowest id of the greatest logit.
fn most_likely(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(sampling: &Sampling, logits: &[f32], times: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..times).map(|_| sampler.choose(logits).unwrap()).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_equals() {
        assert_eq!(draw(&Sampling::greedy(1), &[0.0, 2.0, 2.0, -1.0], 1), [1]);
        assert_eq!(draw(&Sampling::greedy(1), &[f32::NEG_INFINITY; 3], 1), [0]);
    }

    #[test]
    fn nan_is_counted_not_skipped() {
        assert_eq!(Sampler::new(&Sampling::greedy(1)).choose(&[0.0, f32::NAN, f32::NAN]), Err(2));
    }

    #[test]
    fn frequencies_follow_the_distribution_and_its_cuts() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let sampling = Sampling { temperature: 1.0, seed: 7, ..Sampling::greedy(1) };
        let share = |sampling: &Sampling, id| {
            draw(sampling, &logits, 20_000).iter().filter(|&&drawn| drawn == id).count() as f64 / 20_000.0
        };
        assert!((share(&sampling, 0) - 0.5).abs() < 0.02);
        assert!((share(&sampling, 2) - 0.2).abs() < 0.02);
        let top_k = Sampling { top_k: Some(2), ..sampling.clone() };
        assert!(share(&top_k, 2) == 0.0 && (share(&top_k, 0) - 0.625).abs() < 0.02);
        let top_p = Sampling { top_p: Some(0.4), ..sampling.clone() };
        assert_eq!(share(&top_p, 0), 1.0);
        let cold = Sampling { temperature: 0.5, ..sampling };
        assert!((share(&cold, 0) - 0.25 / 0.38).abs() < 0.02);
    }

    #[test]
    fn a_seed_draws_the_same_tokens_again() {
        let sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::greedy(1) };
        let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        assert_eq!(draw(&sampling, &logits, 50), draw(&sampling, &logits, 50));
        assert_ne!(draw(&sampling, &logits, 50), draw(&Sampling { seed: 4, ..sampling.clone() }, &logits, 50));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |sampling: Sampling| sampling.check().unwrap_err().to_string();
        let greedy = Sampling::greedy(1);
        assert_eq!(
            refused(Sampling { temperature: -1.0, ..greedy.clone() }),
            "temperature -1: a finite number from 0 on is needed"
        );
        assert!(refused(Sampling { temperature: f64::NAN, ..greedy.clone() }).starts_with("temperature NaN"));
        assert!(refused(Sampling { top_k: Some(0), ..greedy.clone() }).starts_with("top-k 0"));
        assert!(refused(Sampling { top_p: Some(1.5), ..greedy.clone() }).starts_with("top-p 1.5"));
        assert!(refused(Sampling { stop: vec![String::new()], ..greedy }).starts_with("stop ''"));
    }
}
