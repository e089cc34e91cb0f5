//! What a sweep costs: block evaluations, which are known from the plans alone, and FLOP, which are known once a chunk's
//! examples are.

use super::jobs::Work;
use crate::forward::{Attention, Chunk, Passage, Rows};
use crate::model::Config;
use crate::plan::{Cost, Plan};
use std::fmt;
use std::iter::Sum;

/// Block evaluations, exact: a whole block is 1, its attention half 1/3, its MLP half 2/3, a bridge 1/12, and of an
/// attention half all up to the heads' outputs is 3/4. Prints as `12` or `7 2/3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct BlockEvaluations {
    pub(super) twelfths: u64,
}

impl BlockEvaluations {
    /// As a number.
    pub fn blocks(self) -> f64 {
        self.twelfths as f64 / 12.0
    }
}

impl fmt::Display for BlockEvaluations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Cost::of_twelfths(self.twelfths).fmt(f)
    }
}

/// What the plans of a sweep cost on each example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepCost {
    /// With everything shared that can be.
    pub shared: BlockEvaluations,
    /// Plan by plan.
    pub naive: BlockEvaluations,
}

impl SweepCost {
    /// Of a plan that shares nothing.
    pub(crate) fn alone(plan: &Plan) -> SweepCost {
        let cost = BlockEvaluations { twelfths: plan.cost().twelfths() };
        SweepCost { shared: cost, naive: cost }
    }

    /// On so many examples.
    pub(crate) fn times(self, examples: usize) -> SweepCost {
        let times = |cost: BlockEvaluations| BlockEvaluations { twelfths: cost.twelfths * examples as u64 };
        SweepCost { shared: times(self.shared), naive: times(self.naive) }
    }

    /// How many times fewer block evaluations there are; 1 where there are none.
    pub fn saving(&self) -> f64 {
        match self.shared.twelfths {
            0 => 1.0,
            shared => self.naive.twelfths as f64 / shared as f64,
        }
    }
}

impl Sum for SweepCost {
    fn sum<I: Iterator<Item = SweepCost>>(costs: I) -> SweepCost {
        costs.fold(SweepCost::alone(&Plan::none()), |sum, cost| SweepCost {
            shared: BlockEvaluations { twelfths: sum.shared.twelfths + cost.shared.twelfths },
            naive: BlockEvaluations { twelfths: sum.naive.twelfths + cost.naive.twelfths },
        })
    }
}

/// FLOP of a piece of work on a chunk, for the rows from a position on: the multiply-adds of its matrix products, two each
/// (see [`crate::bench`]). Keys and values of the rows before, which batches make again of another state, are not counted.
pub(super) fn job_flop(config: &Config, chunk: &Chunk, (work, start): (Work, usize)) -> u64 {
    let (d, inner) = (config.n_embd as u64, config.n_inner as u64);
    let Passage { attention, mlp, rows, .. } = match work {
        Work::Pass(passage) => passage,
        Work::Bridge(rows) => return 2 * d * d * chunk.rows_of(rows, start) as u64,
        Work::Mean(_) | Work::Change(_) => return 0,
    };
    let (all, out, pairs) = match rows {
        Rows::All => (chunk.rows_from(start) as u64, chunk.rows_from(start) as u64, chunk.pairs(start)),
        Rows::Scored => (chunk.rows() as u64, chunk.scored_rows() as u64, chunk.scored_pairs()),
    };
    let heads = 2 * d * (2 * d * all + d * out) + 4 * d * pairs;
    let projection = 2 * d * d * out;
    let attention = match attention {
        Attention::None => 0,
        Attention::Whole => heads + projection,
        Attention::ToHeads => heads,
        Attention::FromHeads => projection,
    };
    attention + if mlp { 4 * d * inner * out } else { 0 }
}

/// FLOP of scoring rows.
pub(super) fn scored_flop(config: &Config, rows: usize) -> u64 {
    2 * config.n_embd as u64 * config.vocab_size as u64 * rows as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelfths_are_reduced() {
        let printed = [0, 1, 3, 4, 8, 12, 15, 16, 20, 49_140].map(|twelfths| BlockEvaluations { twelfths }.to_string());
        assert_eq!(printed, ["0", "1/12", "1/4", "1/3", "2/3", "1", "1 1/4", "1 1/3", "1 2/3", "4095"]);
    }
}
