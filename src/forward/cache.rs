//! Keys and values kept between the passes of one growing sequence.

use super::error::ForwardError;
use crate::model::Model;
use crate::plan::{Part, Plan};
use lesion_kernels::{HeadShape, KvStore};

/// Memory that one cache may take, bytes: thousands of executions would otherwise take all there is.
const MAX_BYTES: usize = 8 << 30;

/// The keys and values of every attention a plan executes, for one sequence.
///
/// They belong to the execution, not to the layer: a layer that runs twice sees two different streams, so it has two
/// stores. A cache is good for the model and the plan it was made for and for no others.
pub struct Cache {
    model: Model,
    plan: Plan,
    pub(super) stores: Vec<KvStore>,
    pub(super) tokens: usize,
    capacity: usize,
}

impl Cache {
    /// An empty cache for `capacity` tokens. It holds `2 · n_embd · capacity` f32 for each attention of the plan.
    ///
    /// # Errors
    /// [`ForwardError::CacheMemory`] where that is more than 8 GiB.
    pub fn new(model: &Model, plan: &Plan, capacity: usize) -> Result<Cache, ForwardError> {
        let config = model.config();
        let shape = HeadShape { heads: config.n_head, head_dim: config.head_dim() };
        let attentions = plan.executions().filter(|placed| placed.execution.part != Part::Mlp).count();
        let bytes =
            [2 * size_of::<f32>(), config.n_embd, capacity, attentions].into_iter().fold(1, usize::saturating_mul);
        if bytes > MAX_BYTES {
            return Err(ForwardError::CacheMemory { attentions, tokens: capacity, bytes, limit: MAX_BYTES });
        }
        let stores = (0..attentions).map(|_| KvStore::new(shape, capacity)).collect();
        Ok(Cache { model: model.clone(), plan: plan.clone(), stores, tokens: 0, capacity })
    }

    /// Tokens whose keys and values are stored.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn check(&self, model: &Model, plan: &Plan, tokens: usize) -> Result<(), ForwardError> {
        if !self.model.is_same(model) {
            let (made, now) = (self.model.name().to_owned(), model.name().to_owned());
            return Err(ForwardError::CacheMismatch { what: "model", made, now });
        }
        if self.plan != *plan {
            let (made, now) = (self.plan.to_string(), plan.to_string());
            return Err(ForwardError::CacheMismatch { what: "plan", made, now });
        }
        if tokens > self.capacity {
            return Err(ForwardError::CacheFull { capacity: self.capacity, tokens });
        }
        Ok(())
    }
}
