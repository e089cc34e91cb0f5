//! What can be wrong with a plan, and where: [`PlanProblem`] says what, [`PlanError`] points into the text of an
//! expression (byte spans, caret lines), [`StepError`] at a step of a plan that was built or read as steps.

use std::fmt;
use std::ops::Range;

use thiserror::Error;

use super::{Address, MAX_DEPTH, MAX_EXECUTIONS, Site};

/// What is wrong, with the value at fault and the values that would do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanProblem {
    /// The text does not follow the grammar.
    #[error("{0}")]
    Syntax(String),
    /// A number that does not fit 64 bits.
    #[error("{0} is too large: numbers go up to {max}", max = u64::MAX)]
    Number(String),
    /// A layer that the model does not have.
    #[error("layer {layer} of {n_layer}: {}", layers(*n_layer))]
    Layer {
        /// The layer named.
        layer: u64,
        /// Layers of the model.
        n_layer: usize,
    },
    /// The end of a half-open range that is past the model's last layer.
    #[error("range end {end} of {n_layer} layers: a range i..j ends at {n_layer} at most, {}", layers(*n_layer))]
    RangeEnd {
        /// The (exclusive) end named.
        end: u64,
        /// Layers of the model.
        n_layer: usize,
    },
    /// A range `i..j` with i > j.
    #[error("{start}..{end} runs backwards: write {end}..{start} to run upward, {start}..={end} to run downward")]
    Backwards {
        /// The first number.
        start: u64,
        /// The second number.
        end: u64,
    },
    /// A downward range where an edit names a window of layers.
    #[error("{start}..={end} runs downward: an edit names its layers upward, {end}..={start}")]
    DownwardWindow {
        /// The first number.
        start: u64,
        /// The second number.
        end: u64,
    },
    /// `par` over no layers: the mean of no branches is undefined.
    #[error("par({start}..{end}) has no branches: name at least one layer")]
    NoBranches {
        /// The first number.
        start: u64,
        /// The second number.
        end: u64,
    },
    /// A head that the model does not have.
    #[error("head {head} of {n_head}: {}", heads(*n_head))]
    Head {
        /// The head named.
        head: u64,
        /// Heads of each layer.
        n_head: usize,
    },
    /// A neuron that the model does not have.
    #[error("neuron {neuron} of {n_inner}: {}", neurons(*n_inner))]
    Neuron {
        /// The neuron named.
        neuron: u64,
        /// Neurons of each layer.
        n_inner: usize,
    },
    /// A modifier of what does not run.
    #[error("{} is not in {layer}{half}: {}", site.word(), sites(half))]
    SiteOfHalf {
        /// The site.
        site: Site,
        /// The layer.
        layer: usize,
        /// What runs of it: `a`, `m`, or nothing for all.
        half: &'static str,
    },
    /// A modifier that makes no sense.
    #[error("`{text}`: {problem}")]
    Modifier {
        /// The modifier.
        text: String,
        /// Why.
        problem: &'static str,
    },
    /// More executions than a plan may hold.
    #[error("{executions} block executions: a plan holds at most {max}", max = MAX_EXECUTIONS)]
    TooLarge {
        /// Executions asked for, an empty branch counted as one.
        executions: u128,
    },
    /// Groups nested too deeply.
    #[error("groups nested more than {max} deep", max = MAX_DEPTH)]
    TooDeep,
    /// An edit names a layer that is no longer there.
    #[error("layer {layer} is not in the plan at this point: an earlier edit took it out")]
    Absent {
        /// The layer named.
        layer: usize,
    },
    /// An edit names a layer that is there more than once.
    #[error(
        "layer {layer} is in the plan {times} times at this point: an edit can only name a layer that is there once"
    )]
    Repeated {
        /// The layer named.
        layer: usize,
        /// How often it is there.
        times: usize,
    },
    /// An edit keeps or drops more steps than there are.
    #[error("{count} of {len} steps: {} at this point", counts(*len))]
    Count {
        /// Steps to keep or drop.
        count: u64,
        /// Steps of the plan at this point.
        len: usize,
    },
    /// A layer is moved past the end.
    #[error("position {position} of {len}: positions at this point are 0..={}", len.saturating_sub(1))]
    Position {
        /// The position named.
        position: u64,
        /// Steps of the plan at this point.
        len: usize,
    },
    /// A group of fewer than two branches among the steps. (In text, a group of one branch is a plain sequence.)
    #[error("a group of {branches} branches: a group has two or more")]
    FewBranches {
        /// Branches given.
        branches: usize,
    },
    /// A bridge that ends past the model's last layer.
    #[error("bridge end {to} of {n_layer} layers: a bridge i:j ends at {n_layer} at most, which is the final state")]
    BridgeEnd {
        /// The end named.
        to: u64,
        /// Layers of the model.
        n_layer: usize,
    },
    /// A bridge `i:j` with i > j.
    #[error("bridge {from}:{to} runs backwards: a bridge i:j leads from layer i to a later one, i ≤ j")]
    BridgeBackwards {
        /// The first number.
        from: u64,
        /// The second number.
        to: u64,
    },
    /// A bridge's name that is none.
    #[error("bridge {name:?}: names are letters, digits, `-`, `_` and `.`, 64 at most")]
    BridgeName {
        /// What was given.
        name: String,
    },
    /// Modifiers of a bridge.
    #[error("a bridge has no sites to change: modifiers are of layers")]
    BridgeChanged,
    /// Modifiers that are not in their canonical order.
    #[error(
        "the modifiers of layer {layer} are not in the order of their sites, neighbouring zeros of one site as one"
    )]
    ModifierOrder {
        /// The layer.
        layer: usize,
    },
}

fn layers(n_layer: usize) -> String {
    match n_layer {
        0 => "the model has no layers".to_owned(),
        1 => "the only layer is 0".to_owned(),
        n => format!("layers are 0..={}", n - 1),
    }
}

fn heads(n_head: usize) -> String {
    match n_head {
        0 => "the model has no heads".to_owned(),
        1 => "the only head is h0".to_owned(),
        n => format!("heads are h0..=h{}", n - 1),
    }
}

fn neurons(n_inner: usize) -> String {
    match n_inner {
        0 => "the model has no neurons".to_owned(),
        n => format!("neurons are n0..=n{}", n - 1),
    }
}

fn sites(half: &str) -> &'static str {
    match half {
        "a" => "an attention half has pre, ln1, q, k, v, pattern, heads (z), attn and post",
        "m" => "an MLP half has pre, ln2, neurons, mlp and post",
        _ => "a block has all sites",
    }
}

fn counts(len: usize) -> String {
    match len {
        0 => "only 0 is possible".to_owned(),
        n => format!("0..={n} are possible"),
    }
}

/// Characters of the text that an error message or caret line shows at most.
const SHOWN: usize = 72;

/// A problem in the text of a plan expression.
///
/// `Display` is one line; [`PlanError::caret`] gives the two lines that point at the fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct PlanError {
    text: String,
    span: Range<usize>,
    problem: PlanProblem,
}

impl PlanError {
    /// `span`: bytes of `text`, on character boundaries.
    pub(super) fn new(text: &str, fault: Fault) -> PlanError {
        PlanError { text: text.to_owned(), span: fault.span, problem: fault.problem }
    }

    /// The whole text of the expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The bytes of [`text`](PlanError::text) at fault: on character boundaries, empty at the end of the text.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// What is wrong.
    pub fn problem(&self) -> &PlanProblem {
        &self.problem
    }

    /// The column at fault, in characters from 0.
    pub fn column(&self) -> usize {
        self.text[..self.span.start].chars().count()
    }

    /// The text on one line and, on the next, carets under the characters at fault (one at least).
    ///
    /// Columns are characters, not bytes. Line breaks and tabs show as spaces, other control characters as U+FFFD;
    /// of a long text only the stretch around the fault is shown.
    pub fn caret(&self) -> String {
        let excerpt = self.excerpt();
        format!("{}\n{}{}", excerpt.shown, " ".repeat(excerpt.column), "^".repeat(excerpt.width))
    }

    fn excerpt(&self) -> Excerpt {
        let column = self.column();
        let total = self.text.chars().count();
        let width = self.text[self.span.clone()].chars().count().max(1);
        let first = if total <= SHOWN { 0 } else { column.saturating_sub(SHOWN / 2).min(total - SHOWN) };
        let mut shown = String::new();
        if first > 0 {
            shown.push('…');
        }
        shown.extend(self.text.chars().skip(first).take(SHOWN).map(printable));
        if first + SHOWN < total {
            shown.push('…');
        }
        let column = column - first;
        // A fault at the very end of the text has its caret just past it.
        let width = width.min((SHOWN - column).max(1));
        Excerpt { shown, column: column + usize::from(first > 0), width }
    }
}

struct Excerpt {
    shown: String,
    column: usize,
    width: usize,
}

fn printable(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan `{}`, column {}: {}", self.excerpt().shown, self.column() + 1, self.problem)
    }
}

/// A problem in the steps of a plan: one built from steps, read from JSON, or checked against a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{address}: {problem}")]
pub struct StepError {
    /// The step at fault (a group's own address is that of its step).
    pub address: Address,
    /// What is wrong.
    pub problem: PlanProblem,
}

/// A problem and its bytes, before the text is attached.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) span: Range<usize>,
    pub(super) problem: PlanProblem,
}

impl Fault {
    pub(super) fn new(span: Range<usize>, problem: PlanProblem) -> Fault {
        Fault { span, problem }
    }

    pub(super) fn syntax(span: Range<usize>, message: impl Into<String>) -> Fault {
        Fault { span, problem: PlanProblem::Syntax(message.into()) }
    }
}
