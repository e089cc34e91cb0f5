//! Several states at once through the halves of one layer: what a sweep over many plans is made of.
//!
//! A *state* is the residual stream of all sequences of a [`Chunk`] behind some steps of a plan: `[rows, n_embd]`, packed
//! as the chunk is; or, where nothing behind it looks at other rows, of the rows alone whose predictions are scored; or, where
//! another state has the same rows before some position, of those from there on ([`Held`]). A
//! [`Passage`] takes states that wait for the same layer, from any plans, through it as one batch. Each row's bits are
//! those that a pass over its plan alone would give it. Which states wait for what is left to the sweep.

use super::batch::Batch;
use super::chunk::{Chunk, Source};
use super::error::ForwardError;
use super::modify::{Changes, View};
use super::pass::Pass;
use super::session::Session;
use crate::plan::{Bridge, Modifier, Plan, Site};
use lesion_kernels::{Against, RowScore};
use std::ops::Range;

/// Of passes that no sequence belongs to.
static NO_BATCH: Batch = Batch { ids: Vec::new(), spans: Vec::new(), references: Vec::new() };

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
    /// Which those are.
    pub(crate) rows: Rows,
    /// Of whole sequences, the first position that they have; 0 of the scored ones.
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
            let mut pass = Pass::new(kernels, model, chunk.batch(), None, work);
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
        let start = |state: &State<'_>| if rows == Rows::All { state.start } else { 0 };
        // Only keys and values ask how rows belong together.
        let side = chunk.side_by_side(if attends { states } else { &[] }, start);
        let spans = chunk.spans_of(rows, states);
        let changes: Vec<Changes<'_>> =
            states.iter().zip(&spans).map(|(s, spans)| chunk.changes(rows, spans, layer, s.changed)).collect();
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
        team.enter(|kernels| {
            let mut pass = Pass::new(kernels, model, &side.batch, None, work);
            let mut hidden: Vec<&[f32]> = Vec::new();
            for state in states {
                hidden.extend(chunk.pieces(slab, &state.hidden, entering, start(state), width));
            }
            for Source { state, end, .. } in &side.sources {
                hidden.extend(chunk.pieces_before(slab, state, *end, width));
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
                    pass.heads_of(layer, &chunk.scored_rows_of(states.len()), &spans.concat());
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
        let spans = chunk.spans(rows, start, 0, 0);
        let (width, changes) = (self.model().config().n_embd, chunk.changes(rows, &spans, layer, changed));
        for site in Site::ALL.into_iter().filter(|site| site.is_residual()) {
            changes.apply(site, &mut View::rows(state, width, 1));
        }
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
