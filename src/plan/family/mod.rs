//! Families of plans: the corruptions that the literature sweeps over, each a name with a few arguments. A family is
//! counted before it is written out, so that one of 10¹² plans is refused and never built.
//!
//! ```text
//! family = name { argument }
//! argument = i..j | i..=j           the window of layers that vary; the others stay as they are [default: all]
//!          | x RANGE                how often something runs, in all: x2..8, x3
//!          | w RANGE                layers of an inner window: w2, w1..=4
//!          | seeds RANGE            random draws: seeds 0..30
//!          | k                      how many layers (delete)
//! RANGE  = n | n..m | n..=m         half-open, as everywhere
//! ```
//!
//! | name | plans | axes |
//! |---|---|---|
//! | `keep-first`, `drop-last`, `drop-first` | all L + 1 truncations | layers kept, or dropped |
//! | `skip-one` | without layer i | layer |
//! | `skip-pairs` | without i and j | first, second |
//! | `skip-window [wR]` | without i..j | from, to |
//! | `swap-adjacent` | i and i + 1 exchanged | layer |
//! | `swap-any` | i and j exchanged | first, second |
//! | `move` | layer i at position j | layer, position |
//! | `repeat-one xR` | layer i so many times in all | layer, times |
//! | `repeat-window [wR]` | `0..j, i..L`: the window twice | from, to |
//! | `reverse-window [wR]` | the window backwards | from, to |
//! | `shuffle-window seeds R` | the window shuffled (see [`crate::plan`]) | seed |
//! | `parallel [wR]` | the window side by side, updates averaged | from, to |
//! | `looped-parallel xR [wR]` | the same so many times in a row | from, to, times |
//! | `middle-repeat [wR]` | the window's middle layer in place of each of its layers | from, to |
//! | `delete k seeds R` | without k random layers | seed |
//! | `subsets` | every order-preserving subset of the window's layers | mask |
//! | `permutations i..j` | every order of the window's layers | rank |
//! | `zero-head` | head h of layer i zeroed | layer, head |
//! | `skip-attention`, `skip-mlp` | half of layer i skipped | layer |
//!
//! The windows of `skip-window` and `repeat-window` are of 1 layer or more, the others' of 2 or more, unless `w` says so.
//! `middle-repeat` repeats layer (i + j) / 2 (Sun et al. 2024). `mask` has bit n where the window's n-th layer is kept;
//! `rank` counts the orders lexicographically, the given one being 0. `delete k seeds S` deletes the first k of the
//! window's layers as `shuffle i..j seed S` orders them.

mod members;
#[cfg(test)]
mod tests;

use super::PlanShape;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use thiserror::Error;

/// Plans that a family has at most: what a sweep lists, prints and keeps results of.
pub const MAX_PLANS: u128 = 1 << 18;

/// Block executions that the plans of a family have together at most: a bound on memory.
pub const MAX_FAMILY_EXECUTIONS: u128 = 1 << 23;

/// A family of plans: not yet checked against a model. `Display` gives the text back as it was written.
///
/// ```
/// use lesion::plan::{Family, PlanShape};
///
/// let family: Family = "repeat-one x2..4".parse()?;
/// let shape = PlanShape::gpt2(12, 12);
/// assert_eq!(family.count(&shape)?, 24);
/// let members = family.members(&shape)?;
/// assert_eq!(members[1].plan.to_string(), "0*3,1..12");
/// assert_eq!((family.axes(), &members[1].at[..]), (&["layer", "times"][..], &[0, 3][..]));
///
/// let huge: Family = "permutations 0..12".parse()?;
/// assert_eq!(
///     huge.members(&shape).unwrap_err().to_string(),
///     "family `permutations 0..12`: 479001600 plans; 262144 are possible"
/// );
/// # Ok::<(), lesion::plan::FamilyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    text: String,
    kind: Kind,
    window: Option<Range<usize>>,
    times: Option<Range<usize>>,
    widths: Option<Range<usize>>,
    seeds: Option<Range<u64>>,
    deleted: Option<usize>,
}

/// A plan of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The plan.
    pub plan: super::Plan,
    /// Where it stands on the family's axes.
    pub at: Vec<u64>,
}

/// Why there is no such family.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("family `{}`: {problem}", text.escape_debug())]
pub struct FamilyError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub problem: FamilyProblem,
}

/// What is wrong with a family.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FamilyProblem {
    /// No family has this name.
    #[error("no family is called `{}`: there are {}", name.escape_debug(), Kind::names())]
    Name {
        /// The name.
        name: String,
    },
    /// An argument is not written like one.
    #[error("argument `{}`: expected a window i..j, xR, wR or seeds R, where R is n, n..m or n..=m", argument.escape_debug())]
    Argument {
        /// The argument.
        argument: String,
    },
    /// An argument that this family does not take, or that it was given twice.
    #[error("`{}`: this family takes {takes}, each once", argument.escape_debug())]
    Unexpected {
        /// The argument.
        argument: String,
        /// What it takes.
        takes: &'static str,
    },
    /// An argument that this family needs.
    #[error("it needs {what}")]
    Needs {
        /// What.
        what: &'static str,
    },
    /// A range without members.
    #[error("`{argument}` is empty")]
    Empty {
        /// The range.
        argument: String,
    },
    /// A window that the model's layers do not fill.
    #[error("window {}..{}: the model has layers 0..={}", window.start, window.end, n_layer - 1)]
    Window {
        /// The window.
        window: Range<usize>,
        /// The model's layers.
        n_layer: usize,
    },
    /// More layers are to be deleted than the window has.
    #[error("{deleted} layers of {of} are to be deleted")]
    Deleted {
        /// How many.
        deleted: usize,
        /// Of how many.
        of: usize,
    },
    /// Too many plans.
    #[error("{}; {MAX_PLANS} are possible", counted(*count))]
    TooMany {
        /// How many; `u128::MAX` stands for at least as many.
        count: u128,
    },
    /// Plans too large together.
    #[error("its plans run more than {MAX_FAMILY_EXECUTIONS} blocks together")]
    TooLarge,
}

fn counted(count: u128) -> String {
    if count == u128::MAX { format!("at least {count} plans") } else { format!("{count} plans") }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    KeepFirst,
    DropLast,
    DropFirst,
    SkipOne,
    SkipPairs,
    SkipWindow,
    SwapAdjacent,
    SwapAny,
    Move,
    RepeatOne,
    RepeatWindow,
    ReverseWindow,
    ShuffleWindow,
    Parallel,
    LoopedParallel,
    MiddleRepeat,
    Delete,
    Subsets,
    Permutations,
    ZeroHead,
    SkipAttention,
    SkipMlp,
}

/// Which arguments a family takes.
#[derive(Clone, Copy)]
struct Takes {
    window: bool,
    times: bool,
    widths: bool,
    seeds: bool,
    deleted: bool,
    said: &'static str,
}

impl Kind {
    const ALL: [(Kind, &'static str); 22] = [
        (Kind::KeepFirst, "keep-first"),
        (Kind::DropLast, "drop-last"),
        (Kind::DropFirst, "drop-first"),
        (Kind::SkipOne, "skip-one"),
        (Kind::SkipPairs, "skip-pairs"),
        (Kind::SkipWindow, "skip-window"),
        (Kind::SwapAdjacent, "swap-adjacent"),
        (Kind::SwapAny, "swap-any"),
        (Kind::Move, "move"),
        (Kind::RepeatOne, "repeat-one"),
        (Kind::RepeatWindow, "repeat-window"),
        (Kind::ReverseWindow, "reverse-window"),
        (Kind::ShuffleWindow, "shuffle-window"),
        (Kind::Parallel, "parallel"),
        (Kind::LoopedParallel, "looped-parallel"),
        (Kind::MiddleRepeat, "middle-repeat"),
        (Kind::Delete, "delete"),
        (Kind::Subsets, "subsets"),
        (Kind::Permutations, "permutations"),
        (Kind::ZeroHead, "zero-head"),
        (Kind::SkipAttention, "skip-attention"),
        (Kind::SkipMlp, "skip-mlp"),
    ];

    fn names() -> String {
        Kind::ALL.map(|(_, name)| name).join(", ")
    }

    fn takes(self) -> Takes {
        let none = Takes { window: false, times: false, widths: false, seeds: false, deleted: false, said: "nothing" };
        let window = Takes { window: true, said: "a window i..j", ..none };
        match self {
            Kind::KeepFirst | Kind::DropLast | Kind::DropFirst => none,
            Kind::SkipOne
            | Kind::SkipPairs
            | Kind::SwapAdjacent
            | Kind::SwapAny
            | Kind::Move
            | Kind::Subsets
            | Kind::Permutations
            | Kind::ZeroHead
            | Kind::SkipAttention
            | Kind::SkipMlp => window,
            Kind::SkipWindow | Kind::RepeatWindow | Kind::ReverseWindow | Kind::Parallel | Kind::MiddleRepeat => {
                Takes { widths: true, said: "a window i..j and wR", ..window }
            }
            Kind::RepeatOne => Takes { times: true, said: "a window i..j and xR", ..window },
            Kind::LoopedParallel => Takes { times: true, widths: true, said: "a window i..j, xR and wR", ..window },
            Kind::ShuffleWindow => Takes { seeds: true, said: "a window i..j and seeds R", ..window },
            Kind::Delete => Takes { seeds: true, deleted: true, said: "k, a window i..j and seeds R", ..window },
        }
    }

    fn axes(self) -> &'static [&'static str] {
        match self {
            Kind::KeepFirst => &["kept"],
            Kind::DropLast | Kind::DropFirst => &["dropped"],
            Kind::SkipOne | Kind::SwapAdjacent | Kind::SkipAttention | Kind::SkipMlp => &["layer"],
            Kind::SkipPairs | Kind::SwapAny => &["first", "second"],
            Kind::SkipWindow | Kind::RepeatWindow | Kind::ReverseWindow | Kind::Parallel | Kind::MiddleRepeat => {
                &["from", "to"]
            }
            Kind::LoopedParallel => &["from", "to", "times"],
            Kind::Move => &["layer", "position"],
            Kind::RepeatOne => &["layer", "times"],
            Kind::ShuffleWindow | Kind::Delete => &["seed"],
            Kind::Subsets => &["mask"],
            Kind::Permutations => &["rank"],
            Kind::ZeroHead => &["layer", "head"],
        }
    }
}

impl Family {
    /// The family's name, without arguments.
    pub fn name(&self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, name)| name)
    }

    /// What its plans differ in.
    pub fn axes(&self) -> &'static [&'static str] {
        self.kind.axes()
    }

    /// How many plans it has for a model of this shape; `u128::MAX` stands for at least as many.
    ///
    /// # Errors
    /// Where the model lacks layers that it names.
    pub fn count(&self, shape: &PlanShape) -> Result<u128, FamilyError> {
        let window = self.window(shape)?;
        let n = window.len() as u128;
        let times = self.times.as_ref().map_or(1, |times| times.len() as u128);
        let seeds = self.seeds.as_ref().map_or(1, |seeds| u128::from(seeds.end - seeds.start));
        Ok(match self.kind {
            Kind::KeepFirst | Kind::DropLast | Kind::DropFirst => n + 1,
            Kind::SkipOne | Kind::SkipAttention | Kind::SkipMlp => n,
            Kind::SwapAdjacent => n.saturating_sub(1),
            Kind::SkipPairs | Kind::SwapAny => n * n.saturating_sub(1) / 2,
            Kind::Move => n * n.saturating_sub(1),
            Kind::RepeatOne => n * times,
            Kind::SkipWindow
            | Kind::RepeatWindow
            | Kind::ReverseWindow
            | Kind::Parallel
            | Kind::MiddleRepeat
            | Kind::LoopedParallel => self.windows(shape)?.count() as u128 * times,
            Kind::ShuffleWindow | Kind::Delete => seeds,
            Kind::Subsets => u32::try_from(n).ok().and_then(|n| 1_u128.checked_shl(n)).unwrap_or(u128::MAX),
            Kind::Permutations => (1..=n).fold(1, u128::saturating_mul),
            Kind::ZeroHead => n * shape.n_head as u128,
        })
    }

    /// Its plans, in the order of their axes. Some may be equal (moving a layer up by one is moving its neighbour down).
    ///
    /// # Errors
    /// Where the model lacks layers that it names, or there are more than [`MAX_PLANS`].
    pub fn members(&self, shape: &PlanShape) -> Result<Vec<Member>, FamilyError> {
        let count = self.count(shape)?;
        if count > MAX_PLANS {
            return Err(self.error(FamilyProblem::TooMany { count }));
        }
        self.written_out(shape)
    }

    fn window(&self, shape: &PlanShape) -> Result<Range<usize>, FamilyError> {
        let window = self.window.clone().unwrap_or(0..shape.n_layer);
        if window.end > shape.n_layer {
            return Err(self.error(FamilyProblem::Window { window, n_layer: shape.n_layer }));
        }
        if let Some(deleted) = self.deleted.filter(|&deleted| deleted > window.len()) {
            return Err(self.error(FamilyProblem::Deleted { deleted, of: window.len() }));
        }
        Ok(window)
    }

    /// The inner windows, by where they start.
    fn windows(&self, shape: &PlanShape) -> Result<impl Iterator<Item = Range<usize>>, FamilyError> {
        let outer = self.window(shape)?;
        let least = if matches!(self.kind, Kind::SkipWindow | Kind::RepeatWindow) { 1 } else { 2 };
        let widths = self.widths.clone().unwrap_or(least..outer.len() + 1);
        Ok(outer.clone().flat_map(move |from| {
            let (widths, end) = (widths.clone(), outer.end);
            (from + 1..=end).filter(move |to| widths.contains(&(to - from))).map(move |to| from..to)
        }))
    }

    fn error(&self, problem: FamilyProblem) -> FamilyError {
        FamilyError { text: self.text.clone(), problem }
    }
}

impl FromStr for Family {
    type Err = FamilyError;

    fn from_str(text: &str) -> Result<Family, FamilyError> {
        parse(text).map_err(|problem| FamilyError { text: text.to_owned(), problem })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse(text: &str) -> Result<Family, FamilyProblem> {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|(_, known)| *known == name);
    let (kind, _) = kind.ok_or_else(|| FamilyProblem::Name { name: name.to_owned() })?;
    let takes = kind.takes();
    let mut family =
        Family { text: text.to_owned(), kind, window: None, times: None, widths: None, seeds: None, deleted: None };
    while let Some(word) = words.next() {
        let malformed = || FamilyProblem::Argument { argument: word.to_owned() };
        let range =
            |text: &str| range(text).ok_or_else(malformed)?.ok_or(FamilyProblem::Empty { argument: word.to_owned() });
        let narrow = |range: Range<u64>| -> Result<Range<usize>, FamilyProblem> {
            let bound = |value| usize::try_from(value).map_err(|_| malformed());
            Ok(bound(range.start)?..bound(range.end)?)
        };
        let fresh = if word == "seeds" {
            let seeds = words.next().ok_or_else(malformed)?;
            takes.seeds && family.seeds.replace(range(seeds)?).is_none()
        } else if let Some(times) = word.strip_prefix('x') {
            takes.times && family.times.replace(narrow(range(times)?)?).is_none()
        } else if let Some(widths) = word.strip_prefix('w') {
            takes.widths && family.widths.replace(narrow(range(widths)?)?).is_none()
        } else if word.contains("..") {
            takes.window && family.window.replace(narrow(range(word)?)?).is_none()
        } else {
            let deleted = number(word).and_then(|n| usize::try_from(n).ok()).ok_or_else(malformed)?;
            takes.deleted && family.deleted.replace(deleted).is_none()
        };
        if !fresh {
            return Err(FamilyProblem::Unexpected { argument: word.to_owned(), takes: takes.said });
        }
    }
    let needs = [
        (takes.times && family.times.is_none(), "how often: x2..8"),
        (takes.seeds && family.seeds.is_none(), "seeds: seeds 0..10"),
        (takes.deleted && family.deleted.is_none(), "how many layers: delete 3 seeds 0..10"),
        (kind == Kind::Permutations && family.window.is_none(), "a window: permutations 3..8"),
    ];
    match needs.into_iter().find(|(missing, _)| *missing) {
        Some((_, what)) => Err(FamilyProblem::Needs { what }),
        None => Ok(family),
    }
}

/// Digits only: `u64::from_str` would take a sign.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// `n`, `n..m` or `n..=m`; none inside where it has no members.
fn range(text: &str) -> Option<Option<Range<u64>>> {
    let range = match text.split_once("..") {
        None => {
            let only = number(text)?;
            only..only.checked_add(1)?
        }
        Some((from, to)) => match to.strip_prefix('=') {
            Some(to) => number(from)?..number(to)?.checked_add(1)?,
            None => number(from)?..number(to)?,
        },
    };
    Some((!range.is_empty()).then_some(range))
}
