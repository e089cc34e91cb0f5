//! Activations of one pass as numbers for another: what modifiers patch in, take the mean of, or steer along.
//!
//! [`Activations`] are what one sequence left at some sites of some layers, in f32: `[tokens, width]`, the width being
//! `n_embd` in the residual stream and for q, k, v and z, `n_inner` for neurons, 1 for the scales of LayerNorms, and
//! `n_head · tokens` for scores and patterns. [`References`] are the names under which a sequence's modifiers find them.

use super::batch::Batch;
use super::error::ForwardError;
use super::session::Session;
use super::taps::Tap;
use crate::model::Config;
use crate::plan::{Action, ExecutionName, Modifier, Plan, Site};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a sequence, or several, left at some sites.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activations {
    tokens: usize,
    sequences: usize,
    values: BTreeMap<(usize, Site), Vec<f32>>,
    /// What is no reference: it belongs to one of several executions of a layer, or to none.
    named: BTreeMap<Tap, Vec<f32>>,
}

/// Elements of a token at a site.
pub fn site_width(config: &Config, site: Site, tokens: usize) -> usize {
    match site {
        Site::Ln1 | Site::Ln2 => 1,
        Site::Scores | Site::Pattern => config.n_head * tokens,
        Site::Inner | Site::Neurons => config.n_inner,
        _ => config.n_embd,
    }
}

impl Activations {
    /// Those of a sequence of so many tokens, none yet.
    pub fn new(tokens: usize) -> Activations {
        Activations { tokens, sequences: 1, values: BTreeMap::new(), named: BTreeMap::new() }
    }

    /// Sets what stands at a site of a layer: `[tokens, width]`.
    ///
    /// # Panics
    /// If those are not whole rows.
    pub fn set(&mut self, layer: usize, site: Site, values: Vec<f32>) {
        assert!(
            values.len().is_multiple_of(self.tokens.max(1)),
            "{} elements for {} tokens",
            values.len(),
            self.tokens
        );
        self.values.insert((layer, site), values);
    }

    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How many sequences there are: of more than one, means can be taken, and nothing be patched.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// How many sequences the rows belong to.
    pub(super) fn set_sequences(&mut self, sequences: usize) {
        self.sequences = sequences;
    }

    /// Puts those of another sequence behind. Patterns of several sequences have no common width.
    ///
    /// # Panics
    /// If they are not of the same sites.
    pub fn append(&mut self, other: &Activations) {
        let same = self.values.keys().eq(other.values.keys()) && self.named.keys().eq(other.named.keys());
        assert!(same, "activations of the same sites");
        self.tokens += other.tokens;
        self.sequences += other.sequences;
        self.values.iter_mut().zip(other.values.values()).for_each(|((_, to), from)| to.extend_from_slice(from));
        self.named.iter_mut().zip(other.named.values()).for_each(|((_, to), from)| to.extend_from_slice(from));
    }

    /// What a tap left, `[tokens, width]`.
    pub fn at_tap(&self, tap: &Tap) -> Option<&[f32]> {
        match tap {
            Tap::At(ExecutionName::Layer(layer), site) => self.at(*layer, *site),
            other => self.named.get(other).map(Vec::as_slice),
        }
    }

    /// All taps that left something.
    pub(super) fn taps(&self) -> impl Iterator<Item = (Tap, &[f32])> {
        let tap = |(&(layer, site), values)| (Tap::At(ExecutionName::Layer(layer), site), Vec::as_slice(values));
        self.values.iter().map(tap).chain(self.named.iter().map(|(tap, values)| (tap.clone(), &values[..])))
    }

    /// Adds what a tap left of some more rows.
    pub(super) fn extend(&mut self, tap: &Tap, values: &[f32]) {
        let to = match tap {
            Tap::At(ExecutionName::Layer(layer), site) => self.values.entry((*layer, *site)).or_default(),
            other => self.named.entry(other.clone()).or_default(),
        };
        to.extend_from_slice(values);
    }

    /// What stands at a site, `[tokens, width]`.
    pub fn at(&self, layer: usize, site: Site) -> Option<&[f32]> {
        self.values.get(&(layer, site)).map(Vec::as_slice)
    }

    /// The sites, in order.
    pub fn sites(&self) -> impl Iterator<Item = (usize, Site)> {
        self.values.keys().copied()
    }

    /// The row of a token.
    pub(super) fn row(&self, layer: usize, site: Site, position: usize) -> Option<&[f32]> {
        let values = self.at(layer, site)?;
        let width = values.len() / self.tokens.max(1);
        values.get(position * width..(position + 1) * width)
    }

    /// The mean over all tokens.
    pub(super) fn mean(&self, layer: usize, site: Site) -> Option<Vec<f32>> {
        let values = self.at(layer, site)?;
        let mut sums = vec![0.0_f64; values.len() / self.tokens.max(1)];
        for row in values.chunks_exact(sums.len().max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        Some(sums.into_iter().map(|sum| (sum / self.tokens as f64) as f32).collect())
    }
}

/// Activations by the names that modifiers have for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct References {
    named: BTreeMap<String, Arc<Activations>>,
}

impl References {
    /// None.
    pub const NONE: References = References { named: BTreeMap::new() };

    /// Names activations; what had the name before goes.
    pub fn insert(&mut self, name: impl Into<String>, activations: Arc<Activations>) {
        self.named.insert(name.into(), activations);
    }

    /// Whether these are the very same, not copies.
    pub(super) fn are(&self, other: &References) -> bool {
        let names = self.named.keys().eq(other.named.keys());
        names && self.named.values().zip(other.named.values()).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Whether nothing has a name.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// What has this name.
    pub fn get(&self, name: &str) -> Option<&Activations> {
        self.named.get(name).map(Arc::as_ref)
    }

    /// SHA-256 of all that has a name; none where nothing has.
    pub fn digest(&self) -> Option<[u8; 32]> {
        if self.named.is_empty() {
            return None;
        }
        let mut hash = Sha256::new();
        for (name, activations) in &self.named {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((activations.tokens as u64).to_le_bytes());
            hash.update((activations.sequences as u64).to_le_bytes());
            for ((layer, site), values) in &activations.values {
                hash.update(format!("{layer}.{}", site.hook()));
                hash.update((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| hash.update(value.to_bits().to_le_bytes()));
            }
        }
        Some(hash.finalize().into())
    }

    /// Checks that a sequence of so many tokens finds all that a modifier of `layer` takes.
    fn check(&self, config: &Config, layer: usize, modifier: &Modifier, tokens: usize) -> Result<(), String> {
        let Some(name) = modifier.reference() else { return Ok(()) };
        let Some(found) = self.get(name) else { return Err(format!("there is no reference {name}")) };
        let Some(values) = found.at(layer, modifier.site) else {
            return Err(format!("reference {name} has no blocks.{layer}.{}", modifier.site.hook()));
        };
        let (has, width) = (found.tokens(), site_width(config, modifier.site, found.tokens()));
        if values.len() != has * width {
            return Err(format!("reference {name} has {} elements for {has} tokens of {width}", values.len()));
        }
        let last = modifier.positions.as_ref().map_or(tokens, |positions| positions.end.min(tokens));
        match modifier.action {
            Action::Patch { .. } if found.sequences != 1 => {
                Err(format!("reference {name} has {} sequences: only their mean can be taken", found.sequences))
            }
            Action::Patch { .. } if last > has => {
                Err(format!("reference {name} has {has} tokens, position {} is patched", last - 1))
            }
            Action::Steer { .. } if has != 1 => Err(format!("reference {name} has {has} rows: a direction has one")),
            Action::Mean { .. } if has == 0 => Err(format!("reference {name} has no tokens")),
            _ => Ok(()),
        }
    }
}

/// Checks that the modifiers of `plan` find what they take, in each sequence of `batch`.
/// `all`: what sequences find that have nothing of their own.
pub(super) fn check(config: &Config, plan: &Plan, batch: &Batch, all: &References) -> Result<(), ForwardError> {
    // Addresses take memory, and every pass asks.
    if !plan.any_modifier(|modifier| modifier.reference().is_some() || modifier.positions.is_some()) {
        return Ok(());
    }
    for placed in plan.executions().filter(|placed| !placed.execution.modifiers.is_empty()) {
        for modifier in &placed.execution.modifiers {
            for (sequence, span) in batch.spans.iter().enumerate() {
                let tokens = span.past + span.rows;
                let fault = |why: String| ForwardError::Modifier {
                    address: placed.address.clone(),
                    modifier: Box::new(modifier.clone()),
                    sequence,
                    why,
                };
                // A position that no token stands at is a mistake, but of a range only the part that is there changes.
                if modifier.first_position() >= tokens {
                    return Err(fault(format!("it has {tokens} tokens")));
                }
                let references = batch.references(sequence, all);
                references.check(config, placed.execution.layer, modifier, tokens).map_err(fault)?;
            }
        }
    }
    Ok(())
}

impl Session {
    /// Sets what modifiers find by name in sequences that have no references of their own.
    pub fn set_references(&mut self, references: References) {
        self.references = references;
    }

    /// What modifiers find by name in sequences that have no references of their own.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// What each sequence of `batch` leaves at sites of layers under `plan`: references for other passes.
    ///
    /// # Errors
    /// Where batch or plan do not fit the model, or a layer that is asked for does not run exactly once.
    pub fn activations(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        wanted: &[(usize, Site)],
    ) -> Result<Vec<Activations>, ForwardError> {
        let tap = |&(layer, site): &(usize, Site)| Tap::At(ExecutionName::Layer(layer), site);
        self.tapped(plan, batch, &wanted.iter().map(tap).collect::<Vec<_>>())
    }
}
