//! Several states at once through the halves of one layer: what a sweep over many plans is made of.
//!
//! A *state* is the residual stream of all sequences of a [`Chunk`] behind some steps of a plan: `[rows, n_embd]`, packed
//! as the chunk is; or, where nothing behind it looks at other rows, of the rows alone whose predictions are scored. A
//! [`Passage`] takes states that wait for the same layer, from any plans, through it as one batch. Each row's bits are
//! those that a pass over its plan alone would give it. Which states wait for what is left to the sweep.

use super::batch::Batch;
use super::error::ForwardError;
use super::modify::{Changes, View};
use super::pass::{NONE, Pass};
use super::references::{self, References};
use super::session::Session;
use crate::model::Model;
use crate::plan::{Bridge, Modifier, Plan, Site};
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

    /// Pairs of a row and a row that it sees.
    pub(crate) fn pairs(&self) -> u64 {
        self.batch.spans.iter().map(|span| (span.rows * (span.rows + 1) / 2) as u64).sum()
    }

    /// Pairs of a scored row and a row that it sees.
    pub(crate) fn scored_pairs(&self) -> u64 {
        self.scored.iter().flat_map(|scored| scored.clone().map(|position| position as u64 + 1)).sum()
    }

    /// The rows of a whole state that are scored, ranges of rows in their order.
    pub(crate) fn scored_ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let spans = self.batch.spans.iter().zip(&self.scored);
        spans.map(|(span, scored)| span.first_row + scored.start..span.first_row + scored.end)
    }

    /// The rows of a state that are wanted: all that it has, or the scored ones among them.
    fn pieces<'s>(&self, state: &'s [f32], rows: usize, width: usize) -> Vec<&'s [f32]> {
        if state.len() == rows * width {
            return vec![state];
        }
        self.scored_ranges().map(|rows| &state[rows.start * width..rows.end * width]).collect()
    }

    /// The chunk `copies` times, side by side: the batch of as many states.
    fn repeated(&self, copies: usize) -> Batch {
        let (rows, slots) = (self.rows(), self.slots());
        let copy = |i: usize| {
            self.batch.spans.iter().map(move |span| KvSpan {
                first_row: span.first_row + i * rows,
                slot: span.slot + i * slots,
                ..*span
            })
        };
        Batch {
            ids: self.batch.ids.repeat(copies),
            spans: (0..copies).flat_map(copy).collect(),
            references: Vec::new(),
        }
    }

    /// The modifiers of a state's rows, which begin at `first_row` of a batch. `scored`: the spans of scored rows alone, where
    /// those are the state's rows.
    fn changes<'c>(
        &'c self,
        first_row: usize,
        scored: Option<&'c [KvSpan]>,
        layer: usize,
        changed: Changed<'c>,
    ) -> Changes<'c> {
        let Changed { modifiers, occurrence } = changed;
        let spans = scored.unwrap_or(&self.batch.spans);
        // A chunk's sequences have their own.
        Changes { first_row, spans, source: &self.batch, all: &NONE, layer, occurrence, modifiers }
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

/// A state that goes in: where it lies.
#[derive(Clone, Debug)]
pub(crate) struct State<'a> {
    /// The residual stream.
    pub(crate) hidden: Range<usize>,
    /// The heads' outputs, where the passage begins with them.
    pub(crate) heads: Option<Range<usize>>,
    /// What changes inside.
    pub(crate) changed: Changed<'a>,
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
        let out_rows = match rows {
            Rows::All => chunk.rows(),
            Rows::Scored => chunk.scored_rows(),
        };
        let attends = matches!(attention, Attention::Whole | Attention::ToHeads);
        let in_rows = if attends { chunk.rows() } else { out_rows };
        // Only keys and values ask how rows belong together.
        let batch = if attends { chunk.repeated(states.len()) } else { Batch::default() };
        let len = out_rows * width;
        let scored = chunk.asking(1);
        let scored = (rows == Rows::Scored).then_some(&scored[..]);
        let changes: Vec<Changes<'_>> =
            states.iter().enumerate().map(|(i, s)| chunk.changes(i * out_rows, scored, layer, s.changed)).collect();
        let (mut copies, mut ends) = (Vec::new(), Vec::new());
        for (i, place) in places.iter().enumerate() {
            let from = i * len..(i + 1) * len;
            match place {
                Some(place) => copies.push((from, place.clone())),
                None => ends.push((from, ends.len() * len..(ends.len() + 1) * len)),
            }
        }
        team.enter(|kernels| {
            let mut pass = Pass::new(kernels, model, &batch, None, work);
            let of = |range: Range<usize>| chunk.pieces(&slab[range], in_rows, width);
            let hidden: Vec<&[f32]> = states.iter().flat_map(|state| of(state.hidden.clone())).collect();
            pass.take(&hidden, in_rows * states.len());
            match (attention, rows) {
                (Attention::None, _) => {}
                (Attention::FromHeads, _) => {
                    let heads: Vec<&[f32]> = states.iter().filter_map(|s| s.heads.clone()).flat_map(of).collect();
                    pass.take_heads(&heads);
                }
                (_, Rows::All) => pass.heads(layer, &changes),
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

    /// Changes a state of a chunk at a residual site of a layer: the rows of whole sequences, or the scored ones.
    pub(crate) fn change_state(
        &self,
        chunk: &Chunk,
        rows: Rows,
        layer: usize,
        site: Site,
        changed: Changed<'_>,
        state: &mut [f32],
    ) {
        let scored = chunk.asking(1);
        let scored = (rows == Rows::Scored).then_some(&scored[..]);
        let width = self.model().config().n_embd;
        chunk.changes(0, scored, layer, changed).apply(site, &mut View::rows(state, width, 1));
    }

    /// Takes a state's rows over a bridge, which was checked.
    ///
    /// # Errors
    /// If those are no whole rows.
    pub(crate) fn cross_bridge(&mut self, bridge: &Bridge, state: &mut [f32]) -> Result<(), ForwardError> {
        let map = self.bridges.find(bridge).cloned().expect("bridges are checked");
        self.cross(&map, state)
    }

    /// Checks that the bridges of a plan are there, and fit the model.
    ///
    /// # Errors
    /// Where they don't.
    pub(crate) fn check_bridges(&self, plan: &Plan) -> Result<(), ForwardError> {
        self.bridges.check(plan, self.model().config().n_embd)
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
