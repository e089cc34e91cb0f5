//! Keys and values kept between the passes of one growing sequence.

use super::error::ForwardError;
use crate::model::Config;
use crate::plan::{Part, Plan};
use lesion_kernels::{HeadShape, KvStore};

/// The keys and values of every attention a plan executes, for one sequence.
///
/// They belong to the execution, not to the layer: a layer that runs twice sees two different streams, so it has two
/// stores. A cache is good for the plan it was made for and for no other.
#[derive(Debug)]
pub struct Cache {
    pub(super) stores: Vec<KvStore>,
    pub(super) tokens: usize,
    capacity: usize,
}

/// Executions of a plan that attend.
fn attentions(plan: &Plan) -> usize {
    plan.executions().filter(|placed| placed.execution.part != Part::Mlp).count()
}

impl Cache {
    /// An empty cache for `capacity` tokens. It holds `capacity · 2 · n_embd` f32 for each attention of the plan.
    pub fn new(config: &Config, plan: &Plan, capacity: usize) -> Cache {
        let shape = HeadShape { heads: config.n_head, head_dim: config.head_dim() };
        let stores = (0..attentions(plan)).map(|_| KvStore::new(shape, capacity)).collect();
        Cache { stores, tokens: 0, capacity }
    }

    /// Tokens whose keys and values are stored.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn check(&self, plan: &Plan, tokens: usize) -> Result<(), ForwardError> {
        let now = attentions(plan);
        if self.stores.len() != now {
            return Err(ForwardError::Cache { what: "attentions", made: self.stores.len(), now });
        }
        if tokens > self.capacity {
            return Err(ForwardError::Cache { what: "tokens", made: self.capacity, now: tokens });
        }
        Ok(())
    }
}
