//! Several states at once through the halves of one layer: what a sweep over many plans is made of.
//!
//! A *state* is the residual stream of all sequences of a [`Chunk`] behind some steps of a plan: `[rows, n_embd]`, packed
//! as the chunk is; or, where nothing behind it looks at other rows, of the rows alone whose predictions are scored; or, where
//! another state has the same rows before some position, of those from there on ([`Held`]). A
//! [`Passage`] takes states that wait for the same layer, from any plans, through it as one batch. Each row's bits are
//! those that a pass over its plan alone would give it. Which states wait for what is left to the sweep.

use super::batch::Batch;
use super::error::ForwardError;
use super::modify::{Changes, View};
use super::pass::{NONE, Pass};
use super::references::{self, References};
use super::session::Session;
use crate::model::Model;
use crate::plan::{Modifier, Plan, Site};
use lesion_kernels::{Against, KvSpan, RowScore};
use std::ops::Range;

/// Of passes that no sequence belongs to.
static NO_BATCH: Batch = Batch { ids: Vec::new(), spans: Vec::new(), references: Vec::new() };

/// Sequences that are swept together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    batch: Batch,
    /// The positions of each sequence whose predictions are scored.
    scored: Vec<Range<usize>>,
    /// What they should have predicted, sequence after sequence.
    targets: Vec<u32>,
}

impl Chunk {
    /// Packs sequences, each with the range of its tokens that are to be predicted; tokens behind the last of them are left
    /// out, for nothing that is scored depends on them.
    ///
    /// # Panics
    /// If a range is empty, begins at the first token or ends behind the last.
    pub(crate) fn new<'a>(sequences: impl IntoIterator<Item = (&'a [u32], Range<usize>)>) -> Chunk {
        let (mut kept, mut scored, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (ids, predicted) in sequences {
            assert!(0 < predicted.start && predicted.start < predicted.end && predicted.end <= ids.len());
            targets.extend_from_slice(&ids[predicted.clone()]);
            kept.push(&ids[..predicted.end - 1]);
            scored.push(predicted.start - 1..predicted.end - 1);
        }
        Chunk { batch: Batch::new(kept), scored, targets }
    }

    /// Gives each sequence what modifiers of plans find by name.
    pub(crate) fn with_references(mut self, references: impl IntoIterator<Item = References>) -> Chunk {
        self.batch = self.batch.with_references(references);
        self
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

    /// The scored rows of each sequence, counted among all scored rows.
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
        let (mut pieces, mut first_own) = (Vec::new(), 0);
        for (span, scored) in self.batch.spans.iter().zip(&self.scored) {
            let own = state.start.min(span.rows);
            let wanted = if rows == Rows::All { start.min(span.rows)..span.rows } else { scored.clone() };
            let mut take = |of: &Range<usize>, rows: Range<usize>| {
                if !rows.is_empty() {
                    pieces.push(&slab[of.start + rows.start * width..of.start + rows.end * width]);
                }
            };
            if let Some(base) = &state.base {
                take(base, span.first_row + wanted.start..span.first_row + wanted.end.min(own));
            }
            take(&state.own, first_own + wanted.start.max(own) - own..first_own + wanted.end.max(own) - own);
            first_own += span.rows - own;
        }
        pieces
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

    /// The states' rows side by side, where each begins at its own position, and the rows before those.
    fn side_by_side(&self, states: &[State<'_>]) -> SideBySide {
        let mut side = SideBySide { batch: Batch::default(), before: Vec::new(), sources: Vec::new() };
        let mut first_row = 0;
        for (i, state) in states.iter().enumerate() {
            side.batch.spans.extend(self.spans_from(state.start, first_row, i * self.slots()));
            first_row += self.rows_from(state.start);
        }
        // Rows of one base serve all that have rows of it.
        let source = |state: &State<'_>| state.hidden.base.clone().unwrap_or_else(|| state.hidden.own.clone());
        for state in states.iter().filter(|state| state.start > 0) {
            let range = source(state);
            match side.sources.iter_mut().find(|(known, _, _)| *known == range) {
                Some((_, end, _)) => *end = state.start.max(*end),
                None => side.sources.push((range, state.start, 0)),
            }
        }
        for (_, end, first) in &mut side.sources {
            *first = first_row;
            first_row += self.batch.spans.iter().map(|span| span.rows.min(*end)).sum::<usize>();
        }
        for (i, state) in states.iter().enumerate().filter(|(_, state)| state.start > 0) {
            let range = source(state);
            let known = side.sources.iter().find(|(known, _, _)| *known == range);
            let Some(&(_, end, mut first_row)) = known else { continue };
            for span in &self.batch.spans {
                let (rows, slot) = (span.rows.min(state.start), i * self.slots() + span.slot);
                side.before.push(KvSpan { first_row, rows, past: 0, slot });
                first_row += span.rows.min(end);
            }
        }
        side
    }

    /// Modifiers of a state's rows, to which `spans` belong, those of whole sequences from a position on or of the scored
    /// rows.
    fn changes<'c>(&'c self, spans: &'c [KvSpan], layer: usize, changed: Changed<'c>) -> Changes<'c> {
        let Changed { modifiers, occurrence } = changed;
        // A chunk's sequences have their own.
        Changes { first_row: 0, spans, source: &self.batch, all: &NONE, layer, occurrence, modifiers }
    }

    /// For each state, the spans of its rows in a batch of all states' rows.
    fn spans_of(&self, rows: Rows, states: &[State<'_>]) -> Vec<Vec<KvSpan>> {
        let mut first_row = 0;
        let mut spans_of = |state: &State<'_>| {
            let mut spans = match rows {
                Rows::All => self.spans_from(state.start, 0, 0),
                Rows::Scored => self.asking(1),
            };
            spans.iter_mut().for_each(|span| span.first_row += first_row);
            first_row += self.rows_of(rows, state.start);
            spans
        };
        states.iter().map(&mut spans_of).collect()
    }

    /// The chunk `copies` times, side by side.
    fn whole(&self, copies: usize) -> Batch {
        let spans = (0..copies).flat_map(|i| self.spans_from(0, i * self.rows(), i * self.slots())).collect();
        Batch { spans, ..Batch::default() }
    }

    /// Rows of a state of whole sequences before a position.
    fn pieces_before<'s>(&self, slab: &'s [f32], state: &Range<usize>, end: usize, width: usize) -> Vec<&'s [f32]> {
        let rows = |span: &KvSpan| span.first_row..span.first_row + span.rows.min(end);
        let piece = |rows: Range<usize>| &slab[state.start + rows.start * width..state.start + rows.end * width];
        self.batch.spans.iter().map(rows).map(piece).collect()
    }

    /// The spans of the scored rows of as many states, their earlier tokens being stored.
    fn asking(&self, copies: usize) -> Vec<KvSpan> {
        let slots = self.slots();
        let mut spans = Vec::with_capacity(copies * self.scored.len());
        let mut first_row = 0;
        for i in 0..copies {
            for (span, scored) in self.batch.spans.iter().zip(&self.scored) {
                spans.push(KvSpan { first_row, rows: scored.len(), past: scored.start, slot: span.slot + i * slots });
                first_row += scored.len();
            }
        }
        spans
    }
}

/// What of an attention half a passage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Attention {
    /// None of it.
    None,
    /// All of it.
    Whole,
    /// Up to the heads' outputs z, which are what the passage gives.
    ToHeads,
    /// From the heads' outputs on, which come with the states.
    FromHeads,
}

/// Which rows a passage gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Rows {
    /// All of them.
    All,
    /// Those whose predictions are scored. A whole attention half still takes states of all rows, for their keys and values.
    Scored,
}

/// The way of states through one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Passage {
    /// The layer.
    pub(crate) layer: usize,
    /// What of its attention half is run.
    pub(crate) attention: Attention,
    /// Whether its MLP half is, behind that.
    pub(crate) mlp: bool,
    /// Which rows come out.
    pub(crate) rows: Rows,
}

/// Where a state lies.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// Its own rows.
    pub(crate) own: Range<usize>,
    /// Which those are: the scored ones, or those of whole sequences,
    pub(crate) rows: Rows,
    /// from this position on.
    pub(crate) start: usize,
    /// A state of whole sequences that is the same before it, where that is looked at.
    pub(crate) base: Option<Range<usize>>,
}

/// A state that goes in.
#[derive(Clone, Debug)]
pub(crate) struct State<'a> {
    /// The residual stream.
    pub(crate) hidden: Held,
    /// The heads' outputs, where the passage begins with them.
    pub(crate) heads: Option<Held>,
    /// The first position whose rows come out; of scored rows all do.
    pub(crate) start: usize,
    /// What changes inside.
    pub(crate) changed: Changed<'a>,
}

/// States in one batch.
struct SideBySide {
    /// Their rows.
    batch: Batch,
    /// For their keys and values: spans of the rows before them, which come behind the batch's.
    before: Vec<KvSpan>,
    /// Where those lie, up to which position they are taken, and the first of them.
    sources: Vec<(Range<usize>, usize, usize)>,
}

/// Modifiers of an execution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Changed<'a> {
    /// In the order of their sites.
    pub(crate) modifiers: &'a [Modifier],
    /// Executions of the layer before it.
    pub(crate) occurrence: usize,
}

impl Session {
    /// The embeddings of a chunk: the state before any step.
    pub(crate) fn embed(&mut self, chunk: &Chunk, out: &mut [f32]) {
        let (team, model, work, _) = self.parts();
        team.enter(|kernels| {
            let mut pass = Pass::new(kernels, model, &chunk.batch, None, work);
            pass.embed();
            out.copy_from_slice(&pass.work.hidden);
        });
    }

    /// Takes states, which lie in `slab`, through a layer. Each comes out as a state behind it (the heads' outputs, where the
    /// passage ends there), at its place in `slab`, or, where it has none, behind the others of that kind in `direct`. All
    /// states are read before any is written: a place may be that of a state that went in.
    ///
    /// # Panics
    /// If the layer is not the model's, the lengths don't fit together or places overlap.
    pub(crate) fn pass_states(
        &mut self,
        passage: Passage,
        chunk: &Chunk,
        slab: &mut [f32],
        states: &[State<'_>],
        places: &[Option<Range<usize>>],
        direct: &mut [f32],
    ) {
        let Passage { layer, attention, mlp, rows } = passage;
        let (team, model, work, _) = self.parts();
        let width = model.config().n_embd;
        let attends = matches!(attention, Attention::Whole | Attention::ToHeads);
        // For the keys and values of scored rows, all rows go in.
        let entering = if attends { Rows::All } else { rows };
        let first_entering = |state: &State<'_>| if rows == Rows::All { state.start } else { 0 };
        // Only keys and values ask how rows belong together.
        let side = match (attends, rows) {
            (true, Rows::All) => chunk.side_by_side(states),
            _ => SideBySide { batch: Batch::default(), before: Vec::new(), sources: Vec::new() },
        };
        let spans = chunk.spans_of(rows, states);
        let changes: Vec<Changes<'_>> =
            states.iter().zip(&spans).map(|(state, spans)| chunk.changes(spans, layer, state.changed)).collect();
        let (mut copies, mut ends) = (Vec::new(), Vec::new());
        let (mut end, mut direct_end) = (0, 0);
        for (state, place) in states.iter().zip(places) {
            let len = chunk.rows_of(rows, state.start) * width;
            let from = end..end + len;
            end += len;
            match place {
                Some(place) => copies.push((from, place.clone())),
                None => {
                    ends.push((from, direct_end..direct_end + len));
                    direct_end += len;
                }
            }
        }
        let whole;
        let batch = match (attends, rows) {
            (true, Rows::Scored) => {
                whole = chunk.whole(states.len());
                &whole
            }
            _ => &side.batch,
        };
        team.enter(|kernels| {
            let mut pass = Pass::new(kernels, model, batch, None, work);
            let mut hidden: Vec<&[f32]> = Vec::new();
            for state in states {
                hidden.extend(chunk.pieces(slab, &state.hidden, entering, first_entering(state), width));
            }
            for (source, end, _) in &side.sources {
                hidden.extend(chunk.pieces_before(slab, source, *end, width));
            }
            pass.take(&hidden);
            match (attention, rows) {
                (Attention::None, _) => {}
                (Attention::FromHeads, _) => {
                    let mut heads: Vec<&[f32]> = Vec::new();
                    for state in states {
                        let z = state.heads.as_ref().map(|z| chunk.pieces(slab, z, rows, state.start, width));
                        heads.extend(z.into_iter().flatten());
                    }
                    pass.take_heads(&heads);
                }
                (_, Rows::All) => pass.heads(layer, &changes, &side.before),
                (_, Rows::Scored) => {
                    let chosen: Vec<Range<usize>> =
                        std::iter::repeat_n(&chunk.scored, states.len()).flatten().cloned().collect();
                    pass.heads_of(layer, &chosen, &chunk.asking(states.len()));
                }
            }
            if !matches!(attention, Attention::None | Attention::ToHeads) {
                if (attention, rows) != (Attention::Whole, Rows::All) {
                    pass.outputs_of_attention(layer, &changes);
                }
                pass.project(layer, &changes);
            }
            if mlp {
                pass.mlp(layer, &changes);
            }
            let out = if attention == Attention::ToHeads { &pass.work.normal } else { &pass.work.hidden };
            pass.kernels.scatter(out, slab, &copies);
            pass.kernels.scatter(out, direct, &ends);
        });
    }

    /// Changes a state of a chunk at the residual sites of a layer: the rows of whole sequences from position `start` on, or the
    /// scored ones.
    pub(crate) fn change_state(
        &self,
        chunk: &Chunk,
        (rows, start): (Rows, usize),
        layer: usize,
        changed: Changed<'_>,
        state: &mut [f32],
    ) {
        let spans = match rows {
            Rows::All => chunk.spans_from(start, 0, 0),
            Rows::Scored => chunk.asking(1),
        };
        let (width, changes) = (self.model().config().n_embd, chunk.changes(&spans, layer, changed));
        for site in Site::ALL.into_iter().filter(|site| site.is_residual()) {
            changes.apply(site, &mut View::rows(state, width, 1));
        }
    }

    /// Scores final states' rows, `[rows, n_embd]`, against their targets; with `against`, the first rows are references
    /// and the others' divergences from them come beside.
    pub(crate) fn score_rows(
        &mut self,
        rows: &[f32],
        targets: &[u32],
        against: Option<Against<'_>>,
    ) -> (&[RowScore], &[f64]) {
        let against = against.unwrap_or(Against { log_sum_exp: &[], of: &[] });
        let (team, model, work, found) = self.parts();
        team.enter(|kernels| {
            let mut pass = Pass::new(kernels, model, &NO_BATCH, None, work);
            pass.score_rows(rows, targets, against, &mut found.scores, &mut found.divergence);
        });
        (&found.scores, &found.divergence)
    }
}
