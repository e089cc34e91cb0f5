//! [`Model`]'s convenience methods: one call from text to result.
//!
//! Each starts a [`Session`] of its own, with every core: fine for a question, wasteful in a loop, where one session
//! serves thousands of plans.

use crate::forward::{Completion, ForwardError, Sampling, Session, SessionOptions, complete};
use crate::measure::{LossSummary, MeasureError, token_losses};
use crate::model::{Model, ModelError};
use crate::plan::{Plan, PlanError, PlanExpr, PlanShape};
use std::ops::ControlFlow;
use thiserror::Error;

/// Any of the library's errors, for those who ask everything of one function.
#[derive(Debug, Error)]
pub enum Error {
    /// A model that can't be opened or lacks its tokenizer.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A plan that can't be read or does not fit the model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A forward pass that was refused.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A measurement that was refused.
    #[error(transparent)]
    Measure(#[from] MeasureError),
}

impl Model {
    /// What plans need to know of this model.
    pub fn plan_shape(&self) -> PlanShape {
        PlanShape { n_layer: self.config().n_layer, n_head: self.config().n_head, n_inner: self.config().n_inner }
    }

    /// Parses a plan and resolves it for this model.
    ///
    /// # Errors
    /// Points at the character.
    pub fn plan(&self, text: &str) -> Result<Plan, PlanError> {
        text.parse::<PlanExpr>()?.resolve(&self.plan_shape())
    }

    /// The tokens of `text`, BOS in front.
    ///
    /// # Errors
    /// The model has no BOS token or no tokenizer, or the text cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let mut ids = vec![self.bos()?];
        ids.extend(self.tokenizer()?.encode(text)?);
        Ok(ids)
    }

    /// The loss of all tokens but the first under `plan`, nats.
    ///
    /// # Errors
    /// Where ids or plan do not fit the model.
    pub fn loss(&self, ids: &[u32], plan: &Plan) -> Result<LossSummary, Error> {
        let mut session = Session::new(self, SessionOptions::default())?;
        Ok(token_losses(&mut session, plan, &[ids])?.iter().flatten().collect())
    }

    /// What the model says behind `ids` under `plan`; ids alone where it has no tokenizer.
    ///
    /// # Errors
    /// Where ids, plan or sampling do not fit the model.
    pub fn complete(&self, ids: &[u32], plan: &Plan, sampling: &Sampling) -> Result<Completion, Error> {
        let mut session = Session::new(self, SessionOptions::default())?;
        let tokenizer = match self.tokenizer() {
            Ok(tokenizer) => Some(tokenizer),
            Err(ModelError::NoTokenizer { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(complete(&mut session, plan, ids, sampling, tokenizer, &mut |_, _| ControlFlow::Continue(()))?)
    }
}
