//! Path patching (Wang et al. 2022; Goldowsky-Dill et al. 2023): what a head does to another head, or to the logits, on the way that
//! leads there directly.
//!
//! For each sender, a head, there are two passes over the receiving run. In the first the sender gives what it gives in the other
//! run while everything on other ways is held at what the receiving run has: all heads behind it, and the MLPs, unless paths go
//! through them. What then arrives at the receiver is kept. In the second everything runs free, but the receiver takes what was
//! kept. Where the receiver is the logits the first pass is all there is.

use super::{
    Direction, Grid, GridRow, InsideError, Limits, Measured, Metric, check_size, measure, measure_each, noise_floor,
};
use crate::forward::{Activations, Batch, References, Session};
use crate::plan::{Action, Execution, Modifier, Part, Placed, Plan, Site, Step};
use crate::sweep::SweepCost;
use std::sync::Arc;

/// The names that patches have for the receiving run, the other one, and what arrives along the path.
const OWN: &str = "own";
const OTHER: &str = "other";
const ARRIVING: &str = "path";

/// Where paths end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// At the logits.
    Logits,
    /// At what heads of a layer take in.
    Heads {
        /// The layer.
        layer: usize,
        /// Their queries, keys or values.
        site: Site,
        /// The heads.
        heads: Vec<usize>,
    },
}

/// What paths may go through, besides the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// Nothing: the direct effect.
    Nothing,
    /// The MLPs on the way.
    Mlps,
}

/// Paths from every head before a receiver to it.
#[derive(Clone, Debug)]
pub struct PathPatch {
    clean: Vec<u32>,
    corrupted: Vec<u32>,
    plan: Plan,
    receiver: Receiver,
    through: Through,
    direction: Direction,
}

impl PathPatch {
    /// Paths between two prompts of equally many tokens under a plan that runs no layer twice and has neither groups nor bridges.
    ///
    /// # Errors
    /// Where prompts or plan are others, the receiver's layer does not run, or there is nothing before it.
    pub fn new(
        clean: Vec<u32>,
        corrupted: Vec<u32>,
        plan: Plan,
        receiver: Receiver,
        through: Through,
        direction: Direction,
    ) -> Result<PathPatch, InsideError> {
        if clean.len() != corrupted.len() {
            return Err(InsideError::Lengths { clean: clean.len(), corrupted: corrupted.len() });
        }
        if clean.is_empty() {
            return Err(InsideError::NoTokens);
        }
        let is_path = plan.steps().iter().all(|step| matches!(step, Step::Block(_)))
            && plan.executions().all(|placed| placed.occurrence == 0);
        if !is_path {
            return Err(InsideError::NoPath { plan });
        }
        if let Receiver::Heads { site, heads, .. } = &receiver {
            if !matches!(site, Site::Q | Site::K | Site::V) {
                return Err(InsideError::NoReceiver { site: *site });
            }
            if heads.is_empty() {
                return Err(InsideError::None { what: "heads that receive" });
            }
        }
        let paths = PathPatch { clean, corrupted, plan, receiver, through, direction };
        if paths.senders()?.is_empty() {
            return Err(InsideError::NoSender { plan: paths.plan });
        }
        Ok(paths)
    }

    /// Runs it: both runs once, with what is held or sent, then all senders.
    ///
    /// # Errors
    /// Where prompts, plan, receiver or metric do not fit the model, or the caller broke off.
    pub fn run(&self, session: &mut Session, metric: &Metric, limits: Limits<'_>) -> Result<Grid, InsideError> {
        metric.check()?;
        let (from, to) = match self.direction {
            Direction::Denoise => (&self.clean, &self.corrupted),
            Direction::Noise => (&self.corrupted, &self.clean),
        };
        let shape = session.model().plan_shape();
        self.plan.validate(&shape)?;
        let receiving = self.receiving()?;
        receiving.as_ref().map_or(Ok(()), |plan| plan.validate(&shape))?;
        let rows = self.senders()?;
        check_size((rows.len() * shape.n_head + 1) as u128, self.plan.executions().count())?;
        let references = self.references(session, metric, from, to)?;
        let senders = rows.iter().flat_map(|row| (0..shape.n_head).map(|head| (row.index, head)));
        let plans = senders.map(|(index, head)| self.sending(index, head)).collect::<Result<Vec<Plan>, _>>()?;
        let own = measure(session, vec![self.plan.clone()], from, &References::NONE, metric, limits)?;
        let Measured { values, cost } = match receiving {
            None => {
                let plans = std::iter::once(self.plan.clone()).chain(plans).collect();
                measure(session, plans, to, &references, metric, limits)?
            }
            Some(receiving) => {
                let mut values =
                    measure(session, vec![self.plan.clone()], to, &References::NONE, metric, limits)?.values;
                let tokens = to.len() + metric.behind().len();
                let held = tokens * session.model().config().n_embd * size_of::<f32>();
                let first = plans.iter().map(|plan| self.until_receiver(plan)).collect::<Result<Vec<Plan>, _>>()?;
                let mut cost = first.iter().map(SweepCost::alone).sum();
                // What arrives from a group of senders takes half of the memory at most.
                for plans in first.chunks((limits.memory / 2 / held.max(1)).max(1)) {
                    let arriving = self.arriving(session, metric, to, plans, &references, limits)?;
                    let found = measure_each(session, receiving.clone(), to, &arriving, metric, limits)?;
                    values.extend(found.values);
                    cost = [cost, found.cost].into_iter().sum();
                }
                Measured { values, cost }
            }
        };
        let (clean, corrupted) = match self.direction {
            Direction::Denoise => (own.values[0], values[0]),
            Direction::Noise => (values[0], own.values[0]),
        };
        Ok(Grid {
            rows,
            columns: 0..shape.n_head,
            clean,
            corrupted,
            values: values[1..].chunks(shape.n_head).map(<[f64]>::to_vec).collect(),
            noise_floor: noise_floor(session.precision()),
            cost,
        })
    }

    /// The number of the execution that receives, past the last one for the logits.
    fn end(&self) -> Result<usize, InsideError> {
        match &self.receiver {
            Receiver::Logits => Ok(self.plan.executions().count()),
            Receiver::Heads { layer, .. } => {
                let is_there =
                    |placed: &Placed<'_>| placed.execution.layer == *layer && placed.execution.part != Part::Mlp;
                let found = self.plan.executions().find(is_there).map(|placed| placed.index);
                found.ok_or_else(|| InsideError::NoReceiving { plan: self.plan.clone(), layer: *layer })
            }
        }
    }

    /// Executions whose heads send.
    fn senders(&self) -> Result<Vec<GridRow>, InsideError> {
        let end = self.end()?;
        let sends = |placed: &Placed<'_>| placed.index < end && placed.execution.part != Part::Mlp;
        Ok(self.plan.executions().filter(sends).map(|placed| GridRow::new(&placed)).collect())
    }

    /// What is held at what it is in the receiving run, and what the other one sends.
    fn references(
        &self,
        session: &mut Session,
        metric: &Metric,
        from: &[u32],
        to: &[u32],
    ) -> Result<References, InsideError> {
        let (mut heads, mut held) = (Vec::new(), Vec::new());
        for placed in self.plan.executions() {
            let Execution { layer, part, .. } = placed.execution;
            if *part != Part::Mlp {
                heads.push((*layer, Site::Z));
            }
            if *part != Part::Attention && self.through == Through::Nothing {
                held.push((*layer, Site::Mlp));
            }
        }
        held.extend(&heads);
        let mut references = References::default();
        for (name, ids, wanted) in [(OWN, to, held), (OTHER, from, heads)] {
            let ids = [ids, metric.behind()].concat();
            let found = session.activations(&self.plan, &Batch::new([&ids[..]]), &wanted)?.remove(0);
            references.insert(name, Arc::new(found));
        }
        Ok(references)
    }

    /// The plan of a sender's first pass: a head of an execution gives what it gives in the run `other`, the rest is held at
    /// what it is in `own`.
    ///
    /// # Errors
    /// Where there is no such head.
    pub fn sending(&self, sender: usize, head: usize) -> Result<Plan, InsideError> {
        let mut patches = vec![(sender, patch(OTHER, Site::Z, vec![head]))];
        let end = self.end()?;
        for placed in self.plan.executions().filter(|placed| (sender..end).contains(&placed.index)) {
            let Execution { part, .. } = placed.execution;
            if *part != Part::Mlp && placed.index > sender {
                patches.push((placed.index, patch(OWN, Site::Z, Vec::new())));
            }
            if *part != Part::Attention && self.through == Through::Nothing {
                patches.push((placed.index, patch(OWN, Site::Mlp, Vec::new())));
            }
        }
        Ok(self.plan.with_modifiers(&patches)?)
    }

    /// The plan of the second pass; none where the first is all.
    fn receiving(&self) -> Result<Option<Plan>, InsideError> {
        let Receiver::Heads { site, heads, .. } = &self.receiver else { return Ok(None) };
        Ok(Some(self.plan.with_modifiers(&[(self.end()?, patch(ARRIVING, *site, heads.clone()))])?))
    }

    /// A sender's first pass as far as the receiver's attention: nothing behind it is looked at.
    fn until_receiver(&self, sending: &Plan) -> Result<Plan, InsideError> {
        let (before, behind) = sending.steps().split_at(self.end()?);
        let receiver = behind.first().and_then(|step| match step {
            Step::Block(Execution { layer, modifiers, .. }) => {
                let modifiers = modifiers.iter().filter(|modifier| modifier.site.is_in(Part::Attention)).cloned();
                Some(Step::Block(Execution { layer: *layer, part: Part::Attention, modifiers: modifiers.collect() }))
            }
            Step::Group(_) | Step::Bridge(_) => None,
        });
        Ok(Plan::new(before.iter().cloned().chain(receiver).collect())?)
    }

    /// What arrives at the receiver by each of these first passes.
    fn arriving(
        &self,
        session: &mut Session,
        metric: &Metric,
        to: &[u32],
        plans: &[Plan],
        references: &References,
        limits: Limits<'_>,
    ) -> Result<Vec<References>, InsideError> {
        let Receiver::Heads { layer, site, .. } = self.receiver else { return Ok(Vec::new()) };
        let ids = [to, metric.behind()].concat();
        let batch = Batch::new([&ids[..]]).with_references([references.clone()]);
        let mut arriving = Vec::with_capacity(plans.len());
        for plan in plans {
            if (limits.stop)() {
                return Err(InsideError::Cancelled);
            }
            let found: Activations = session.activations(plan, &batch, &[(layer, site)])?.remove(0);
            let mut named = References::default();
            named.insert(ARRIVING, Arc::new(found));
            arriving.push(named);
        }
        Ok(arriving)
    }
}

fn patch(from: &str, site: Site, units: Vec<usize>) -> Modifier {
    Modifier { action: Action::Patch { from: from.to_owned() }, site, units, positions: None }
}
