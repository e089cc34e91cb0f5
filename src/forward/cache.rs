//! Keys and values kept between the passes of one growing sequence.

use super::error::ForwardError;
use super::exact::KeysValues;
use super::precision::Precision;
use super::session::Session;
use crate::model::Model;
use crate::plan::{Part, Plan};
use lesion_kernels::{HeadShape, KvStore};

/// Memory that one cache may take, bytes: thousands of executions would otherwise take all there is.
const MAX_BYTES: usize = 8 << 30;

/// The keys and values of every attention a plan executes, for one sequence.
///
/// They belong to the execution, not to the layer: a layer that runs twice sees two different streams, so it has two
/// stores. A cache is good for the model, the precision and the plan it was made for and for no others.
pub struct Cache {
    model: Model,
    precision: Precision,
    plan: Plan,
    /// What the kernels keep, unless the precision is f64.
    pub(super) stores: Vec<KvStore>,
    /// What f64 keeps.
    pub(super) exact: Vec<KeysValues>,
    pub(super) tokens: usize,
    capacity: usize,
}

impl Cache {
    /// An empty cache of `capacity` tokens for passes of `session`. It holds `2 · n_embd · capacity` f32 (f64 in that
    /// precision) for each attention of the plan.
    ///
    /// # Errors
    /// [`ForwardError::CacheMemory`] where that is more than 8 GiB, [`ForwardError::Uncacheable`] where a modifier needs the
    /// whole sequence.
    pub fn new(session: &Session, plan: &Plan, capacity: usize) -> Result<Cache, ForwardError> {
        let (model, precision) = (session.model().clone(), session.precision());
        for placed in plan.executions() {
            if let Some(modifier) = placed.execution.modifiers.iter().find(|modifier| !modifier.is_cacheable()) {
                let (address, modifier) = (placed.address, Box::new(modifier.clone()));
                return Err(ForwardError::Uncacheable { address, modifier });
            }
        }
        let config = model.config();
        let shape = HeadShape { heads: config.n_head, head_dim: config.head_dim() };
        let attentions = plan.executions().filter(|placed| placed.execution.part != Part::Mlp).count();
        let exact = precision == Precision::F64;
        let element = if exact { size_of::<f64>() } else { size_of::<f32>() };
        let bytes = [2 * element, config.n_embd, capacity, attentions].into_iter().fold(1, usize::saturating_mul);
        if bytes > MAX_BYTES {
            return Err(ForwardError::CacheMemory { attentions, tokens: capacity, bytes, limit: MAX_BYTES });
        }
        let (stores, exact) = if exact {
            (Vec::new(), vec![KeysValues::default(); attentions])
        } else {
            ((0..attentions).map(|_| KvStore::new(shape, capacity)).collect(), Vec::new())
        };
        Ok(Cache { model, precision, plan: plan.clone(), stores, exact, tokens: 0, capacity })
    }

    /// Tokens whose keys and values are stored.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn check(
        &self,
        model: &Model,
        precision: Precision,
        plan: &Plan,
        tokens: usize,
    ) -> Result<(), ForwardError> {
        if !self.model.is_same(model) {
            let (made, now) = (self.model.name().to_owned(), model.name().to_owned());
            return Err(ForwardError::CacheMismatch { what: "model", made, now });
        }
        if self.precision != precision {
            let (made, now) = (self.precision.to_string(), precision.to_string());
            return Err(ForwardError::CacheMismatch { what: "precision", made, now });
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
