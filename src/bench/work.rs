//! The work of a pass, counted from its shape.
//!
//! Counted are the multiply-adds of the matrix products, two FLOP each; LayerNorm, GELU, softmax and biases add less
//! than 1 % and are left out. With d = `n_embd`, i = `n_inner`, V = `vocab_size`, for a row at position p:
//!
//! ```text
//! attention half   2·d·3d + 2·d·d       c_attn, c_proj
//!                + 2·2·d·(p + 1)        scores and weighted values over the p + 1 keys it may see
//! MLP half         2·2·d·i              c_fc, c_proj
//! bridge           2·d·d                its map, in f32
//! scored row       2·d·V                unembedding, for the rows that need logits or a loss
//! ```
//!
//! GPT-2 small, 1 × 1024 tokens, all rows scored: 173.9 + 19.3 + 79.0 = 272.3 GFLOP.
//!
//! Bytes are those that a step must bring from memory when nothing stays in the caches: every execution's matrices in
//! the type they are stored in, biases and norms in f32, keys and values of the tokens before, and the unembedding if a
//! row is scored. A layer that a plan runs twice counts twice.

use std::ops::AddAssign;

use serde::Serialize;

use crate::model::{Config, Linear, Model};
use crate::plan::{Part, Plan};

/// What a pass must do at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Floating-point operations; a multiply-add is two.
    pub flop: u64,
    /// Bytes of weights, keys and values.
    pub bytes: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.flop += other.flop;
        self.bytes += other.bytes;
    }
}

impl Work {
    /// One pass of `plan` over `sequences` sequences of `rows` new tokens each, behind `past` cached ones, with `scored`
    /// rows in all going through the unembedding.
    pub fn of(model: &Model, plan: &Plan, sequences: usize, past: usize, rows: usize, scored: usize) -> Work {
        let (config, parameters) = (model.config(), model.parameters());
        let all = (sequences * rows) as u64;
        let mut work = Work::default();
        for placed in plan.executions() {
            let block = &parameters.h[placed.execution.layer];
            if placed.execution.part != Part::Mlp {
                work += matrix(&block.attn.c_attn, all);
                work += matrix(&block.attn.c_proj, all);
                work += attention(config, sequences, past, rows);
                work.bytes += norm(config);
            }
            if placed.execution.part != Part::Attention {
                work += matrix(&block.mlp.c_fc, all);
                work += matrix(&block.mlp.c_proj, all);
                work.bytes += norm(config);
            }
        }
        let d = config.n_embd as u64;
        let bridge = Work { flop: 2 * d * d * all, bytes: (d * d + d) * size_of::<f32>() as u64 };
        plan.bridges().for_each(|_| work += bridge);
        if scored > 0 {
            let unembedding = parameters.unembedding();
            let elements = (unembedding.k * unembedding.n) as u64;
            work.flop += 2 * elements * scored as u64;
            work.bytes += elements * unembedding.data.dtype().size() as u64 + norm(config);
        }
        work
    }
}

fn matrix(linear: &Linear, rows: u64) -> Work {
    let matrix = linear.matrix();
    let elements = (matrix.k * matrix.n) as u64;
    let biases = (linear.bias.len() * size_of::<f32>()) as u64;
    Work { flop: 2 * elements * rows, bytes: elements * matrix.data.dtype().size() as u64 + biases }
}

/// Scores and weighted values, and the keys and values they read.
fn attention(config: &Config, sequences: usize, past: usize, rows: usize) -> Work {
    let (d, sequences, past, rows) = (config.n_embd as u64, sequences as u64, past as u64, rows as u64);
    let pairs = rows * past + rows * (rows + 1) / 2;
    Work { flop: 4 * d * pairs * sequences, bytes: 2 * d * past * sequences * size_of::<f32>() as u64 }
}

/// Bytes of a LayerNorm's weight and bias.
fn norm(config: &Config) -> u64 {
    (2 * config.n_embd * size_of::<f32>()) as u64
}

#[cfg(all(test, feature = "mini"))]
mod tests {
    use super::*;

    fn work(plan: &str, sequences: usize, past: usize, rows: usize, scored: usize) -> Work {
        let model = Model::mini().unwrap();
        let config = model.config();
        let shape = crate::plan::PlanShape::gpt2(config.n_layer, config.n_head);
        let plan = plan.parse::<crate::plan::PlanExpr>().unwrap().resolve(&shape).unwrap();
        Work::of(&model, &plan, sequences, past, rows, scored)
    }

    /// The embedded model: d = 128, i = 512, V = 2048, matrices in f16.
    #[test]
    fn one_block_by_hand() {
        let (d, i, v) = (128, 512, 2048);
        let attention = Work {
            flop: 5 * (2 * d * 3 * d + 2 * d * d) + 4 * d * (3 + 4 + 5 + 6 + 7),
            bytes: 2 * (3 * d * d + d * d) + 4 * (3 * d + d) + 4 * 2 * d + 4 * 2 * d * 2,
        };
        assert_eq!(work("3a", 1, 2, 5, 0), attention);
        let mlp = Work { flop: 5 * 4 * d * i, bytes: 2 * 2 * d * i + 4 * (i + d) + 4 * 2 * d };
        assert_eq!(work("3m", 1, 2, 5, 0), mlp);
        let whole = work("3", 1, 2, 5, 0);
        assert_eq!((whole.flop, whole.bytes), (attention.flop + mlp.flop, attention.bytes + mlp.bytes));
        assert_eq!(work("none", 1, 0, 5, 3), Work { flop: 3 * 2 * d * v, bytes: 2 * d * v + 4 * 2 * d });
        assert_eq!(work("none", 1, 0, 5, 0), Work::default());
    }

    #[test]
    fn k_blocks_are_k_times_one() {
        let one = work("7", 2, 0, 9, 0);
        for (plan, blocks) in [("0..12", 12), ("0..8", 8), ("3*4", 4), ("0..4,(4|5|none),8", 7)] {
            assert_eq!(work(plan, 2, 0, 9, 0), Work { flop: blocks * one.flop, bytes: blocks * one.bytes }, "{plan}");
        }
    }

    #[test]
    fn a_prompt_is_its_steps_one_by_one() {
        let steps: u64 = (0..10).map(|past| work("0..12", 1, past, 1, 1).flop).sum();
        assert_eq!(work("0..12", 1, 0, 10, 10).flop, steps);
    }
}
