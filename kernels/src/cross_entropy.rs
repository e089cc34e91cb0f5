//! The cross-entropy of rows over a vocabulary, one pass, logits never stored.

/// What one row's distribution over the vocabulary says of its target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowScore {
    /// The target's logit.
    pub target_logit: f32,
    /// `ln Σ exp(logit)`, nats.
    pub log_sum_exp: f64,
    /// Entropy of the distribution, nats.
    pub entropy: f64,
    /// How many logits are strictly greater than the target's.
    pub rank: u32,
}

impl RowScore {
    /// `−ln p(target)`, nats.
    pub fn nll(&self) -> f64 {
        self.log_sum_exp - f64::from(self.target_logit)
    }
}
