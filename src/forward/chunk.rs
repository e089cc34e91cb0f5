//! The sequences of a sweep, packed, and where the rows of their states lie.
//!
//! Examples that follow each other and differ in the tokens they score alone share a sequence: the answers to one prompt cost
//! one pass.

use super::batch::Batch;
use super::error::ForwardError;
use super::modify::Changes;
use super::pass::NONE;
use super::passage::{Changed, Held, Rows, State};
use super::references::{self, References};
use crate::model::Model;
use crate::plan::Plan;
use lesion_kernels::KvSpan;
use std::ops::Range;

/// Sequences that are swept together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    batch: Batch,
    /// The sequence of each example.
    sequence: Vec<usize>,
    /// The positions of each example whose predictions are scored.
    scored: Vec<Range<usize>>,
    /// What they should have predicted, example after example.
    targets: Vec<u32>,
    /// The examples' sequences, one for each, as modifiers of scored rows look at them.
    examples: Batch,
}

/// States in one batch.
pub(super) struct SideBySide {
    /// Their rows, each state's from a position of its own on.
    pub(super) batch: Batch,
    /// Spans of the rows before, for their keys and values: those rows come behind the batch's.
    pub(super) before: Vec<KvSpan>,
    /// Where they lie.
    pub(super) sources: Vec<Source>,
}

/// Rows that come before those of some states, once for all of them.
pub(super) struct Source {
    /// The state of whole sequences that has them.
    pub(super) state: Range<usize>,
    /// The position before which they are taken.
    pub(super) end: usize,
    /// The first of them in the batch.
    first_row: usize,
}

/// An example: its tokens, which of them are to be predicted, and what plans' modifiers find by name.
pub(crate) type Parts<'a> = (&'a [u32], Range<usize>, &'a References);

/// Sequences, as examples are packed one behind the other.
#[derive(Default)]
struct Packing<'a> {
    last: Option<Parts<'a>>,
    /// Rows of that sequence that are scored so far.
    scored: usize,
}

impl<'a> Packing<'a> {
    /// Whether the next example begins a sequence of its own. It shares the last one's if it runs the same tokens with the same
    /// references, and its scored rows have room: they move to the front where they lie, and none may reach one that is
    /// still to move.
    fn begins(&mut self, next: Parts<'a>) -> bool {
        let (ids, predicted, references) = &next;
        let shares = self.last.as_ref().is_some_and(|(last, other, same)| {
            run(last, other) == run(ids, predicted) && references.are(same) && self.scored < predicted.start
        });
        self.scored = if shares { self.scored } else { 0 } + predicted.len();
        self.last = Some(next);
        !shares
    }
}

/// The tokens that run: the last one that is predicted does not.
fn run<'a>(ids: &'a [u32], predicted: &Range<usize>) -> Option<&'a [u32]> {
    ids.get(..predicted.end.checked_sub(1)?)
}

/// Rows that examples take in a chunk.
pub(crate) fn packed_rows<'a>(examples: impl IntoIterator<Item = Parts<'a>>) -> usize {
    let mut packing = Packing::default();
    let rows = |parts: Parts<'a>| {
        let rows = run(parts.0, &parts.1).map_or(0, <[u32]>::len);
        if packing.begins(parts) { rows } else { 0 }
    };
    examples.into_iter().map(rows).sum()
}

/// Whether the next example takes no rows of its own behind these.
pub(crate) fn shares<'a>(examples: impl IntoIterator<Item = Parts<'a>>, next: Parts<'a>) -> bool {
    let mut packing = Packing::default();
    examples.into_iter().for_each(|parts| {
        packing.begins(parts);
    });
    !packing.begins(next)
}

impl Chunk {
    /// Packs examples: their tokens, the range of those that are to be predicted, and what plans' modifiers find by name. Tokens
    /// behind the last that is predicted are left out, for nothing that is scored depends on them.
    ///
    /// # Panics
    /// If a range is empty, begins at the first token or ends behind the last.
    pub(crate) fn new<'a>(examples: impl IntoIterator<Item = Parts<'a>>) -> Chunk {
        let mut chunk = Chunk::default();
        let (mut kept, mut whole): (Vec<(&[u32], &References)>, Vec<_>) = (Vec::new(), Vec::new());
        let mut packing = Packing::default();
        for (ids, predicted, references) in examples {
            assert!(0 < predicted.start && predicted.start < predicted.end && predicted.end <= ids.len());
            let run = (&ids[..predicted.end - 1], references);
            chunk.targets.extend_from_slice(&ids[predicted.clone()]);
            chunk.scored.push(predicted.start - 1..predicted.end - 1);
            if packing.begins((ids, predicted, references)) {
                kept.push(run);
            }
            chunk.sequence.push(kept.len() - 1);
            whole.push(run);
        }
        let batch = |packed: &[(&[u32], &References)]| {
            let references = packed.iter().map(|(_, references)| (*references).clone());
            Batch::new(packed.iter().map(|(run, _)| *run)).with_references(references)
        };
        (chunk.batch, chunk.examples) = (batch(&kept), batch(&whole));
        chunk
    }

    /// The first example whose tokens are those of a sequence.
    pub(crate) fn example_of(&self, sequence: usize) -> usize {
        self.sequence.iter().position(|own| *own == sequence).unwrap_or(0)
    }

    /// Checks that the modifiers of a plan find what they take.
    ///
    /// # Errors
    /// Where one doesn't.
    pub(crate) fn check_plan(&self, model: &Model, plan: &Plan) -> Result<(), ForwardError> {
        references::check(model.config(), plan, &self.batch, &NONE)
    }

    /// Checks the sequences against the model.
    ///
    /// # Errors
    /// Where one is too long, or an id is not in the vocabulary.
    pub(crate) fn check(&self, model: &Model) -> Result<(), ForwardError> {
        self.batch.check(model.config())?;
        let vocab_size = model.config().vocab_size;
        match self.targets.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(ForwardError::Token { sequence: 0, id, vocab_size }),
            None => Ok(()),
        }
    }

    /// The sequences.
    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Rows of a whole state.
    pub(crate) fn rows(&self) -> usize {
        self.batch.rows()
    }

    /// Rows of a state of scored rows alone.
    pub(crate) fn scored_rows(&self) -> usize {
        self.targets.len()
    }

    /// What the scored rows should have predicted.
    pub(crate) fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// The scored rows of each example, counted among all scored rows.
    pub(crate) fn scored(&self) -> impl Iterator<Item = Range<usize>> {
        let mut end = 0;
        self.scored.iter().map(move |scored| {
            end += scored.len();
            end - scored.len()..end
        })
    }

    /// Token slots that keys and values of one state take.
    pub(crate) fn slots(&self) -> usize {
        self.batch.slots()
    }

    /// Pairs of a row, from position `start` on, and a row that it sees.
    pub(crate) fn pairs(&self, start: usize) -> u64 {
        let before = |rows: usize| (rows * (rows + 1) / 2) as u64;
        self.batch.spans.iter().map(|span| before(span.rows) - before(span.rows.min(start))).sum()
    }

    /// Pairs of a scored row and a row that it sees.
    pub(crate) fn scored_pairs(&self) -> u64 {
        self.scored.iter().flat_map(|scored| scored.clone().map(|position| position as u64 + 1)).sum()
    }

    /// Rows of a state from position `start` of each sequence on.
    pub(crate) fn rows_from(&self, start: usize) -> usize {
        self.batch.spans.iter().map(|span| span.rows.saturating_sub(start)).sum()
    }

    /// Rows that a state gives: from position `start` on, or the scored ones.
    pub(crate) fn rows_of(&self, rows: Rows, start: usize) -> usize {
        match rows {
            Rows::All => self.rows_from(start),
            Rows::Scored => self.scored_rows(),
        }
    }

    /// Those rows of a state, as they lie in `slab`.
    pub(crate) fn pieces<'s>(
        &self,
        slab: &'s [f32],
        state: &Held,
        rows: Rows,
        start: usize,
        width: usize,
    ) -> Vec<&'s [f32]> {
        if state.rows == rows && (rows == Rows::Scored || state.start == start) {
            return vec![&slab[state.own.clone()]];
        }
        let mut pieces = Vec::new();
        let own = self.spans_from(state.start, 0, 0);
        let mut take = |of: &Range<usize>, rows: Range<usize>| {
            if !rows.is_empty() {
                pieces.push(&slab[of.start + rows.start * width..of.start + rows.end * width]);
            }
        };
        for (sequence, wanted) in self.wanted(rows, start) {
            let (span, KvSpan { first_row, past, .. }) = (&self.batch.spans[sequence], own[sequence]);
            if let Some(base) = &state.base {
                take(base, span.first_row + wanted.start..span.first_row + wanted.end.min(past));
            }
            take(&state.own, first_row + wanted.start.max(past) - past..first_row + wanted.end.max(past) - past);
        }
        pieces
    }

    /// Rows of a state of whole sequences before a position.
    pub(super) fn pieces_before<'s>(
        &self,
        slab: &'s [f32],
        state: &Range<usize>,
        end: usize,
        width: usize,
    ) -> Vec<&'s [f32]> {
        let rows = |span: &KvSpan| span.first_row..span.first_row + span.rows.min(end);
        let piece = |rows: Range<usize>| &slab[state.start + rows.start * width..state.start + rows.end * width];
        self.batch.spans.iter().map(rows).map(piece).collect()
    }

    /// Positions, sequence by sequence or example by example: from `start` on, or the scored ones.
    fn wanted(&self, rows: Rows, start: usize) -> Vec<(usize, Range<usize>)> {
        let all = self.batch.spans.iter().map(|span| start.min(span.rows)..span.rows).enumerate();
        match rows {
            Rows::All => all.collect(),
            Rows::Scored => self.sequence.iter().copied().zip(self.scored.iter().cloned()).collect(),
        }
    }

    /// The spans of a state's rows from position `start` on, the first of which is `first_row` of a batch and the first of
    /// whose slots is `slot`.
    fn spans_from(&self, start: usize, mut first_row: usize, slot: usize) -> Vec<KvSpan> {
        let mut spans = Vec::with_capacity(self.batch.spans.len());
        for span in &self.batch.spans {
            let past = start.min(span.rows);
            spans.push(KvSpan { first_row, rows: span.rows - past, past, slot: slot + span.slot });
            first_row += span.rows - past;
        }
        spans
    }

    /// The spans of the scored rows of a state, an example each, their earlier tokens being stored: as in [`Chunk::spans_from`].
    fn scored_spans(&self, mut first_row: usize, slot: usize) -> Vec<KvSpan> {
        let mut spans = Vec::with_capacity(self.scored.len());
        for (sequence, scored) in self.sequence.iter().zip(&self.scored) {
            let slot = slot + self.batch.spans[*sequence].slot;
            spans.push(KvSpan { first_row, rows: scored.len(), past: scored.start, slot });
            first_row += scored.len();
        }
        spans
    }

    /// The spans of a state's rows, from position `start` on or the scored ones.
    pub(super) fn spans(&self, rows: Rows, start: usize, first_row: usize, slot: usize) -> Vec<KvSpan> {
        match rows {
            Rows::All => self.spans_from(start, first_row, slot),
            Rows::Scored => self.scored_spans(first_row, slot),
        }
    }

    /// For each state, the spans of its rows in a batch of all states' rows.
    pub(super) fn spans_of(&self, rows: Rows, states: &[State<'_>]) -> Vec<Vec<KvSpan>> {
        let mut first_row = 0;
        let mut spans_of = |(i, state): (usize, &State<'_>)| {
            let spans = self.spans(rows, state.start, first_row, i * self.slots());
            first_row += self.rows_of(rows, state.start);
            spans
        };
        states.iter().enumerate().map(&mut spans_of).collect()
    }

    /// The rows of as many states of whole sequences that are scored, in a batch of them.
    pub(super) fn scored_rows_of(&self, copies: usize) -> Vec<Range<usize>> {
        let rows = |(sequence, scored): (&usize, &Range<usize>)| {
            let first_row = self.batch.spans[*sequence].first_row;
            first_row + scored.start..first_row + scored.end
        };
        let one: Vec<Range<usize>> = self.sequence.iter().zip(&self.scored).map(rows).collect();
        let of = |i: usize| one.iter().map(move |rows| i * self.rows() + rows.start..i * self.rows() + rows.end);
        (0..copies).flat_map(of).collect()
    }

    /// The states' rows side by side, each state's from `start` of it on, and the rows before those.
    pub(super) fn side_by_side(&self, states: &[State<'_>], start: impl Fn(&State<'_>) -> usize) -> SideBySide {
        let mut side = SideBySide { batch: Batch::default(), before: Vec::new(), sources: Vec::new() };
        let mut first_row = 0;
        for (i, state) in states.iter().enumerate() {
            side.batch.spans.extend(self.spans_from(start(state), first_row, i * self.slots()));
            first_row += self.rows_from(start(state));
        }
        // Rows of one base serve all that have rows of it.
        let source = |state: &State<'_>| state.hidden.base.clone().unwrap_or_else(|| state.hidden.own.clone());
        for state in states.iter().filter(|state| start(state) > 0) {
            let range = source(state);
            match side.sources.iter_mut().find(|source| source.state == range) {
                Some(source) => source.end = start(state).max(source.end),
                None => side.sources.push(Source { state: range, end: start(state), first_row: 0 }),
            }
        }
        for Source { end, first_row: first, .. } in &mut side.sources {
            *first = first_row;
            first_row += self.batch.spans.iter().map(|span| span.rows.min(*end)).sum::<usize>();
        }
        for (i, state) in states.iter().enumerate().filter(|(_, state)| start(state) > 0) {
            let range = source(state);
            let known = side.sources.iter().find(|source| source.state == range);
            let Some(&Source { end, mut first_row, .. }) = known else { continue };
            for span in &self.batch.spans {
                let (rows, slot) = (span.rows.min(start(state)), i * self.slots() + span.slot);
                side.before.push(KvSpan { first_row, rows, past: 0, slot });
                first_row += span.rows.min(end);
            }
        }
        side
    }

    /// Modifiers of a state's rows, to which `spans` belong.
    pub(super) fn changes<'c>(
        &'c self,
        rows: Rows,
        spans: &'c [KvSpan],
        layer: usize,
        changed: Changed<'c>,
    ) -> Changes<'c> {
        let Changed { modifiers, occurrence } = changed;
        let source = if rows == Rows::All { &self.batch } else { &self.examples };
        // A chunk's sequences have their own.
        Changes { first_row: 0, spans, source, all: &NONE, layer, occurrence, modifiers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(examples: &[(&[u32], Range<usize>)]) -> Chunk {
        Chunk::new(examples.iter().map(|(ids, scored)| (*ids, scored.clone(), &NONE)))
    }

    #[test]
    fn answers_to_a_prompt_share_its_rows() {
        let shared = chunk(&[(&[1, 2, 3, 4], 3..4), (&[1, 2, 3, 5], 3..4), (&[1, 2, 6, 5], 3..4)]);
        assert_eq!((shared.rows(), shared.scored_rows(), &shared.targets[..]), (6, 3, &[4, 5, 5][..]));
        assert_eq!(shared.scored_rows_of(2), [2..3, 2..3, 5..6, 8..9, 8..9, 11..12]);
        assert_eq!([0, 1].map(|sequence| shared.example_of(sequence)), [0, 2]);
    }

    #[test]
    fn scored_rows_can_always_move_to_the_front() {
        let all: (&[u32], Range<usize>) = (&[1, 2, 3, 4], 1..4);
        for count in 1..6 {
            let last: (&[u32], Range<usize>) = (&[7, 8, 9], 2..3);
            let chunk = chunk(&[vec![all.clone(); count], vec![last; count]].concat());
            let mut to = 0;
            for rows in chunk.scored_rows_of(3) {
                assert!(to <= rows.start, "{count}: {rows:?} to {to}");
                to += rows.len();
            }
            assert!(chunk.scored_rows() <= chunk.rows());
        }
    }
}
