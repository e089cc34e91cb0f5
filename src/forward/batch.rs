//! Sequences packed one behind the other, without padding: row = token, and a row's position comes from its sequence.

use super::error::ForwardError;
use super::references::References;
use crate::model::Config;
use lesion_kernels::{KvSpan, TILE};

/// Packed sequences.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(super) ids: Vec<u32>,
    pub(super) spans: Vec<KvSpan>,
    /// What each sequence's modifiers find by name; none for all of them where it is empty.
    pub(super) references: Vec<References>,
}

impl Batch {
    /// Packs `sequences` in their order.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Batch {
        let mut batch = Batch::default();
        let mut slot = 0;
        for ids in sequences {
            batch.spans.push(KvSpan { first_row: batch.ids.len(), rows: ids.len(), past: 0, slot });
            batch.ids.extend_from_slice(ids);
            slot += ids.len().next_multiple_of(TILE);
        }
        batch
    }

    /// Gives each sequence, in their order, what modifiers of plans find by name.
    ///
    /// # Panics
    /// If those are not as many as there are sequences.
    pub fn with_references(mut self, references: impl IntoIterator<Item = References>) -> Batch {
        self.references = references.into_iter().collect();
        assert_eq!(self.references.len(), self.spans.len(), "references for each sequence");
        self
    }

    /// What a sequence's modifiers find by name: its own, or the session's, `all`.
    pub(super) fn references<'a>(&'a self, sequence: usize, all: &'a References) -> &'a References {
        self.references.get(sequence).filter(|own| !own.is_empty()).unwrap_or(all)
    }

    /// Becomes one sequence that goes on behind `past` cached tokens, in the memory that is there.
    pub(super) fn become_continuation(&mut self, ids: &[u32], past: usize) {
        self.ids.clear();
        self.ids.extend_from_slice(ids);
        self.references.clear();
        self.spans.clear();
        self.spans.push(KvSpan { first_row: 0, rows: ids.len(), past, slot: 0 });
    }

    /// Number of rows (tokens).
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.spans.len()
    }

    /// The row of token `position` of `sequence`.
    ///
    /// # Panics
    /// If the batch has no such sequence.
    pub fn row(&self, sequence: usize, position: usize) -> usize {
        self.spans[sequence].first_row + position - self.spans[sequence].past
    }

    /// Token slots that keys and values of the batch take.
    pub(super) fn slots(&self) -> usize {
        self.spans.last().map_or(0, |span| span.slot + (span.past + span.rows).next_multiple_of(TILE))
    }

    pub(super) fn check(&self, config: &Config) -> Result<(), ForwardError> {
        if self.spans.is_empty() {
            return Err(ForwardError::NoSequences);
        }
        for (sequence, span) in self.spans.iter().enumerate() {
            let tokens = span.past + span.rows;
            if span.rows == 0 {
                return Err(ForwardError::Empty { sequence });
            }
            if tokens > config.n_positions {
                return Err(ForwardError::TooLong { sequence, tokens, n_positions: config.n_positions });
            }
            let ids = &self.ids[span.first_row..][..span.rows];
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= config.vocab_size) {
                return Err(ForwardError::Token { sequence, id, vocab_size: config.vocab_size });
            }
        }
        Ok(())
    }
}
