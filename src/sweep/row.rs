//! What one plan makes of one example.

use lesion_kernels::RowScore;

/// The measures of a plan on an example. Sums are over its scored tokens, in nats.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The number of the plan.
    pub plan: usize,
    /// The number of the example.
    pub example: u64,
    /// Scored tokens.
    pub tokens: u32,
    /// `−ln p` of the tokens, summed.
    pub nll: f64,
    /// Tokens that are the likeliest in their place.
    pub top1: u32,
    /// How many tokens are likelier than the first scored one, in its place.
    pub first_rank: u32,
    /// Entropy of the predictions, summed.
    pub entropy: f64,
    /// `KL(intact ‖ plan)` of the predictions, summed, where it was asked for.
    pub divergence: Option<f64>,
    /// Tokens whose loss is NaN or infinite.
    pub non_finite: u32,
    /// `−ln p` of each token, where it was asked for.
    pub token_nll: Vec<f64>,
}

impl Row {
    /// Adds up the scores of an example's tokens, in their order.
    pub fn new(plan: usize, example: u64, scores: &[RowScore], divergence: Option<&[f64]>, token_losses: bool) -> Row {
        let sum = |of: &dyn Fn(&RowScore) -> f64| scores.iter().map(of).fold(0.0, |sum, x| sum + x);
        let finite = |score: &&RowScore| score.nll().is_finite();
        Row {
            plan,
            example,
            tokens: scores.len() as u32,
            nll: sum(&RowScore::nll),
            top1: scores.iter().filter(finite).filter(|score| score.rank == 0).count() as u32,
            first_rank: scores.first().map_or(0, |score| score.rank),
            entropy: sum(&|score| score.entropy),
            divergence: divergence.map(|all| all.iter().fold(0.0, |sum, x| sum + x)),
            non_finite: scores.iter().filter(|score| !score.nll().is_finite()).count() as u32,
            token_nll: if token_losses { scores.iter().map(RowScore::nll).collect() } else { Vec::new() },
        }
    }

    /// Whether every token is the likeliest: the greedy model would give the answer.
    pub fn is_correct(&self) -> bool {
        self.top1 == self.tokens
    }
}
