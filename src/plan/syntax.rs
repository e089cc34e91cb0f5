//! The syntax tree of a plan expression. Numbers keep their bytes in the text, so that whatever is found wrong later
//! (against a model's shape) can still be pointed at. Nothing here is expanded or checked against a model.

use std::ops::Range;

use super::{Action, Part, Site};

/// A whole expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    Plan(Sequence),
    Edits(Vec<Edit>),
}

/// Items in order; empty for `none`.
pub(super) type Sequence = Vec<Item>;

/// `core[mods]*count`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) core: Core,
    pub(super) changes: Vec<Change>,
    pub(super) count: Option<Number>,
    pub(super) span: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Core {
    Layer(Number, Part),
    Range(LayerRange, Part),
    /// One branch or more; one branch is a plain group.
    Group(Vec<Sequence>),
    Parallel(LayerRange),
    Bridge {
        from: Number,
        to: Number,
        name: String,
    },
}

/// `zero h3 h5 @2..5`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) action: Action,
    pub(super) site: Site,
    pub(super) units: Vec<Number>,
    pub(super) positions: Option<Range<usize>>,
    pub(super) span: Range<usize>,
}

/// `i..j` (never backwards: the parser refuses it) or `i..=j` (downward when i > j).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerRange {
    pub(super) start: Number,
    pub(super) end: Number,
    pub(super) inclusive: bool,
}

impl LayerRange {
    pub(super) fn span(&self) -> Range<usize> {
        self.start.span.start..self.end.span.end
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) value: u64,
    pub(super) span: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edit {
    KeepFirst(Number),
    DropLast(Number),
    DropFirst(Number),
    SkipOne(Number),
    SkipRange(LayerRange),
    Swap(Number, Number),
    Move { layer: Number, position: Number },
    Repeat { layer: Number, count: Number },
    Reverse(LayerRange),
    Shuffle { window: LayerRange, seed: Number },
}
