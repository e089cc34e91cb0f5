//! The execution order of a pass as plain data: which blocks run, in what order, side by side or not, with what changed
//! inside. Text ([`PlanExpr`]) resolves against a model's shape to explicit steps ([`Plan`]); the forward pass walks
//! the steps and knows nothing else. [`Family`] writes out the corruptions that are swept over. No tensors here.
//!
//! # The notation
//!
//! Layers count from 0, ranges are half-open, whitespace is free.
//!
//! ```text
//! expr   = plan | edit { ";" edit }
//! plan   = "none" | item { "," item }                  the empty text also parses, as none
//! item   = atom [ "*" count ]                          executed count times in a row, in all
//! atom   = core [ "[" mod { "," mod } "]" ]
//! core   = (layer | range) [ "a" | "m" ]               whole block, attention half, MLP half
//!        | "(" plan { "|" plan } ")"                   branches start from the same state; their updates are averaged
//!        | "par(" range ")"                            the same, a branch a layer
//!        | "bridge(" i ":" j "," name ")"             a fitted linear shortcut from the input of layer i to that of j
//! range  = i ".." j | i "..=" j                        11..=0 runs downward; 8..4 is an error
//! mod    = change [ "@" positions ]
//! change = "zero" site                                 zero h3 h5 · zero mlp
//!        | ("mean" | "patch") site "from" name         the reference's mean, or its value at the same position
//!        | "noise" σ [ "seed" S ] site                 noise 0.1 pre @2..5
//!        | "steer" times site "from" name              steer 4 post from joy: adds a direction
//!        | "knockout" { head } "keys" positions        knockout h3 keys 2..4 @9: query 9 no longer sees 2 and 3
//! site   = "pre" | "mid" | "post" | "attn" | "mlp" | "neurons" | ("q" | "k" | "v" | "z" | "pattern") { head }
//!        | "ln1" | "ln2" | head { head } | neuron { neuron }
//! head   = "h" i ;  neuron = "n" i ;  positions = i | i ".." j
//! edit   = keep-first n | drop-last n | drop-first n | skip i | skip i..j | swap i j | move i j
//!        | repeat i xN | reverse i..j | shuffle i..j seed S
//! ```
//!
//! `0..12` intact · `0..8` without the last four · `0..5,6..12` without layer 5 · `0..3,3*4,4..12` layer 3 four times
//! in all · `11..=0` reversed · `0..4,(4|5|6|7),8..12` the middle side by side · `0..4,par(4..8)*3,8..12` the same
//! looped · `(4..8)*2` a window twice · `7a`, `7m` halves · `7[zero h3 h5]` · `0..6,bridge(6:11,fit),11` layers 6 to 10
//! replaced by the linear map that is called fit.
//!
//! - A group of one branch is its steps, in sequence. An empty branch is written `none` and is the identity; a blank
//!   one is an error. `i..i` is empty; `*0` is nothing.
//! - Modifiers of a range or group apply to each execution in it, besides its own, and stand in the order of their
//!   sites. [`Site`] has their names in TransformerLens. Heads alone are at z; a LayerNorm's scale (`ln1`, `ln2`) and a pattern can
//!   only be taken from a reference: they are frozen.
//! - A bridge ends at a layer that it doesn't run, or at the number of layers: `0..6,bridge(6:12,fit)` is complete. It has no
//!   sites: nothing stands in brackets behind it.
//! - Edits start from the intact plan and run left to right; their numbers name *layers*, and naming one that is not
//!   there, or there twice, is an error. Their windows may be written `i..j` or `i..=j`, upward.
//!   `repeat i xN` runs layer i N times in all; `move i j` takes layer i out and puts it in so that it ends at position
//!   j; reverse and shuffle act on the positions that the window's layers hold, wherever those are.
//! - `shuffle i..j seed S` is part of the format, the same everywhere and in every later version: Fisher–Yates from the
//!   end. For k = n − 1 down to 1, the k-th of the window's n positions swaps with the one of index
//!   `(u · (k + 1)) >> 64` (in 128 bits), u being the next 64-bit output of ChaCha8 seeded by
//!   `SeedableRng::seed_from_u64(S)` (rand_core 0.9: PCG32 fills the 32-byte key; nonce and counter are 0; u's low word
//!   is drawn first).
//! - A plan holds at most [`MAX_EXECUTIONS`] executions and groups at most [`MAX_DEPTH`] deep; larger ones are refused
//!   before they are expanded.
//!
//! Keys hash the resolved steps as JSON (see [`Step`]), never text.

mod address;
mod cost;
mod edits;
mod error;
mod family;
mod json;
mod lex;
mod modifier;
mod parse;
mod parse_modifier;
pub mod picture;
mod print;
#[cfg(test)]
mod properties;
mod resolve;
mod steps;
mod syntax;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::str::FromStr;

pub use address::{Address, AddressError, ExecutionName, Placed};
pub use cost::Cost;
pub use error::{PlanError, PlanProblem, StepError};
pub use family::{Family, FamilyError, FamilyProblem, MAX_FAMILY_EXECUTIONS, MAX_PLANS, Member};
pub use modifier::{Action, Finite, Modifier, Site};
pub use steps::{Bridge, Execution, MAX_DEPTH, MAX_EXECUTIONS, Part, Plan, Step};

/// What a plan needs to know of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanShape {
    /// Layers.
    pub n_layer: usize,
    /// Attention heads of each layer.
    pub n_head: usize,
    /// Neurons of each layer's MLP.
    pub n_inner: usize,
}

impl PlanShape {
    /// The shape of a GPT-2, of any size: its heads are 64 wide, its MLPs four times as wide as the residual stream.
    pub const fn gpt2(n_layer: usize, n_head: usize) -> PlanShape {
        PlanShape { n_layer, n_head, n_inner: 4 * 64 * n_head }
    }

    fn check_layer(&self, layer: u64) -> Result<usize, PlanProblem> {
        below(layer, self.n_layer).ok_or(PlanProblem::Layer { layer, n_layer: self.n_layer })
    }

    /// A head or neuron of a site.
    fn check_unit(&self, site: Site, unit: u64) -> Result<usize, PlanProblem> {
        match site {
            Site::Neurons => {
                below(unit, self.n_inner).ok_or(PlanProblem::Neuron { neuron: unit, n_inner: self.n_inner })
            }
            _ => below(unit, self.n_head).ok_or(PlanProblem::Head { head: unit, n_head: self.n_head }),
        }
    }
}

fn below(value: u64, bound: usize) -> Option<usize> {
    usize::try_from(value).ok().filter(|value| *value < bound)
}

/// An expression whose syntax is right: not yet checked against a model. `Display` gives the text back as it was
/// written.
///
/// ```
/// use lesion::plan::{PlanExpr, PlanShape};
///
/// let expr: PlanExpr = "skip 5; repeat 3 x4".parse()?;
/// let plan = expr.resolve(&PlanShape::gpt2(12, 12))?;
/// assert_eq!(plan.to_string(), "0..3,3*4,4,6..12");
/// assert_eq!(plan.cost().to_string(), "14");
///
/// let error = "0..5,12".parse::<PlanExpr>()?.resolve(&PlanShape::gpt2(12, 12)).unwrap_err();
/// assert_eq!(error.to_string(), "plan `0..5,12`, column 6: layer 12 of 12: layers are 0..=11");
/// assert_eq!(error.caret(), "0..5,12\n     ^^");
/// # Ok::<(), lesion::plan::PlanError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanExpr {
    text: String,
    expr: syntax::Expr,
}

impl PlanExpr {
    /// The explicit steps for a model of this shape.
    ///
    /// # Errors
    /// A layer or head that the model does not have, an edit that names a layer that is absent or repeated, or a plan
    /// over the bounds, pointing at the characters.
    pub fn resolve(&self, shape: &PlanShape) -> Result<Plan, PlanError> {
        match resolve::resolve(&self.expr, shape) {
            Ok(steps) => Ok(Plan::from_canonical(steps)),
            Err(fault) => Err(PlanError::new(&self.text, fault)),
        }
    }
}

impl FromStr for PlanExpr {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<PlanExpr, PlanError> {
        match parse::parse(text) {
            Ok(expr) => Ok(PlanExpr { text: text.to_owned(), expr }),
            Err(fault) => Err(PlanError::new(text, fault)),
        }
    }
}

impl fmt::Display for PlanExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
