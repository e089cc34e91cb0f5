//! What is changed inside an execution: at which [`Site`], to which heads, neurons and positions, and how ([`Action`]). Plain
//! data; the numbers that a reference names are bound when the plan runs.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::error::PlanProblem;
use super::{Part, PlanShape};

/// A change at one site of an execution.
///
/// As JSON: `{"verb":"zero","site":"z","units":[3,5]}`, `{"verb":"noise","amount":0.1,"seed":0,"site":"pre","positions":[2,5]}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Modifier {
    /// What is done.
    pub action: Action,
    /// Where.
    pub site: Site,
    /// Heads or neurons, ascending, each once; none stands for all of the site.
    pub units: Vec<usize>,
    /// Token positions, from 0, half-open; none stands for all.
    pub positions: Option<Range<usize>>,
}

/// What is done at a site.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Its values become zero.
    Zero,
    /// They become their mean over all tokens of a reference.
    Mean {
        /// The reference's name.
        from: String,
    },
    /// They become the reference's at the same position.
    Patch {
        /// The reference's name.
        from: String,
    },
    /// Gaussian noise is added, drawn for each element by seed, tokens so far, layer, occurrence and site.
    Noise {
        /// The standard deviation.
        sigma: Finite,
        /// Which draw.
        seed: u64,
    },
    /// A direction, the reference's one row, is added so many times.
    Steer {
        /// How many times.
        times: Finite,
        /// The reference's name.
        from: String,
    },
    /// Queries no longer see these keys: their scores are −∞ before the softmax.
    Knockout {
        /// Key positions, half-open.
        keys: Range<usize>,
    },
}

/// Where activations are read and, at all sites but four, changed: the name in notation and JSON, and TransformerLens's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// `hook_resid_pre`: the residual stream before the execution.
    Pre,
    /// `ln1.hook_scale`: what the first LayerNorm divides by.
    Ln1,
    /// `ln1.hook_normalized`: the first LayerNorm's output. Read alone.
    Normal1,
    /// `attn.hook_q`
    Q,
    /// `attn.hook_k`
    K,
    /// `attn.hook_v`
    V,
    /// `attn.hook_attn_scores`: what the softmax gets, −∞ where a query does not look. Read alone.
    Scores,
    /// `attn.hook_pattern`: the attention probabilities.
    Pattern,
    /// `attn.hook_z`: the heads' outputs, before `c_proj` mixes them.
    Z,
    /// `hook_attn_out`
    Attn,
    /// `hook_resid_mid`: between the halves of a whole block.
    Mid,
    /// `ln2.hook_scale`
    Ln2,
    /// `ln2.hook_normalized`: the second LayerNorm's output. Read alone.
    Normal2,
    /// `mlp.hook_pre`: the neurons, before the GELU. Read alone.
    Inner,
    /// `mlp.hook_post`: the neurons, behind the GELU.
    Neurons,
    /// `hook_mlp_out`
    Mlp,
    /// `hook_resid_post`: the residual stream behind the execution.
    Post,
}

impl Site {
    /// All of them, in the order in which an execution passes them.
    pub const ALL: [Site; 17] = [
        Site::Pre,
        Site::Ln1,
        Site::Normal1,
        Site::Q,
        Site::K,
        Site::V,
        Site::Scores,
        Site::Pattern,
        Site::Z,
        Site::Attn,
        Site::Mid,
        Site::Ln2,
        Site::Normal2,
        Site::Inner,
        Site::Neurons,
        Site::Mlp,
        Site::Post,
    ];

    /// Those that can be changed.
    pub const CHANGED: [Site; 13] = [
        Site::Pre,
        Site::Ln1,
        Site::Q,
        Site::K,
        Site::V,
        Site::Pattern,
        Site::Z,
        Site::Attn,
        Site::Mid,
        Site::Ln2,
        Site::Neurons,
        Site::Mlp,
        Site::Post,
    ];

    /// The word of the notation.
    pub fn word(self) -> &'static str {
        match self {
            Site::Pre => "pre",
            Site::Ln1 => "ln1",
            Site::Normal1 => "normal1",
            Site::Q => "q",
            Site::K => "k",
            Site::V => "v",
            Site::Scores => "scores",
            Site::Pattern => "pattern",
            Site::Z => "z",
            Site::Attn => "attn",
            Site::Mid => "mid",
            Site::Ln2 => "ln2",
            Site::Normal2 => "normal2",
            Site::Inner => "inner",
            Site::Neurons => "neurons",
            Site::Mlp => "mlp",
            Site::Post => "post",
        }
    }

    /// TransformerLens's name, behind `blocks.{l}.`.
    pub fn hook(self) -> &'static str {
        match self {
            Site::Pre => "hook_resid_pre",
            Site::Ln1 => "ln1.hook_scale",
            Site::Normal1 => "ln1.hook_normalized",
            Site::Q => "attn.hook_q",
            Site::K => "attn.hook_k",
            Site::V => "attn.hook_v",
            Site::Scores => "attn.hook_attn_scores",
            Site::Pattern => "attn.hook_pattern",
            Site::Z => "attn.hook_z",
            Site::Attn => "hook_attn_out",
            Site::Mid => "hook_resid_mid",
            Site::Ln2 => "ln2.hook_scale",
            Site::Normal2 => "ln2.hook_normalized",
            Site::Inner => "mlp.hook_pre",
            Site::Neurons => "mlp.hook_post",
            Site::Mlp => "hook_mlp_out",
            Site::Post => "hook_resid_post",
        }
    }

    /// The letter of its units.
    pub(super) fn letter(self) -> Option<char> {
        match self {
            Site::Q | Site::K | Site::V | Site::Pattern | Site::Z => Some('h'),
            Site::Neurons => Some('n'),
            _ => None,
        }
    }

    /// Whether what runs of a block passes it.
    pub fn is_in(self, part: Part) -> bool {
        match self {
            Site::Pre | Site::Post => true,
            Site::Mid => part == Part::Block,
            Site::Ln2 | Site::Normal2 | Site::Inner | Site::Neurons | Site::Mlp => part != Part::Attention,
            _ => part != Part::Mlp,
        }
    }

    /// Whether it is the residual stream itself, between halves.
    pub fn is_residual(self) -> bool {
        matches!(self, Site::Pre | Site::Mid | Site::Post)
    }
}

/// A finite number that can be compared and hashed: by its bits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Finite(f64);

impl Finite {
    /// None for NaN and infinity. −0 becomes 0: equal numbers have equal bits.
    pub fn new(value: f64) -> Option<Finite> {
        value.is_finite().then_some(Finite(value + 0.0))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Finite {
    fn eq(&self, other: &Finite) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Finite {}

impl Hash for Finite {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl TryFrom<f64> for Finite {
    type Error = String;

    fn try_from(value: f64) -> Result<Finite, String> {
        Finite::new(value).ok_or_else(|| format!("{value} is not finite"))
    }
}

impl From<Finite> for f64 {
    fn from(value: Finite) -> f64 {
        value.0
    }
}

impl fmt::Display for Finite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size == 0.0 || (1e-5..1e16).contains(&size) { write!(f, "{}", self.0) } else { write!(f, "{:e}", self.0) }
    }
}

impl Modifier {
    /// Heads' outputs become zero.
    pub fn zero_heads(heads: impl IntoIterator<Item = usize>) -> Modifier {
        let mut units: Vec<usize> = heads.into_iter().collect();
        units.sort_unstable();
        units.dedup();
        Modifier { action: Action::Zero, site: Site::Z, units, positions: None }
    }

    /// The reference that it takes values of.
    pub fn reference(&self) -> Option<&str> {
        match &self.action {
            Action::Mean { from } | Action::Patch { from } | Action::Steer { from, .. } => Some(from),
            Action::Zero | Action::Noise { .. } | Action::Knockout { .. } => None,
        }
    }

    /// Whether it can be done behind cached tokens: noise is drawn by the tokens so far, patterns need all keys.
    pub fn is_cacheable(&self) -> bool {
        !matches!(self.action, Action::Noise { .. }) && self.site != Site::Pattern
    }

    /// The first position that it changes.
    pub fn first_position(&self) -> usize {
        self.positions.as_ref().map_or(0, |positions| positions.start)
    }

    /// What is wrong with it in an execution of this part of `layer`.
    pub(super) fn check(&self, layer: usize, part: Part) -> Result<(), PlanProblem> {
        let text = || self.to_string();
        if !self.site.is_in(part) {
            return Err(PlanProblem::SiteOfHalf { site: self.site, layer, half: part.letter() });
        }
        let fits = match (&self.action, self.site) {
            (Action::Knockout { .. }, Site::Pattern) => true,
            (Action::Knockout { .. }, _) => false,
            (_, site) if !Site::CHANGED.contains(&site) => false,
            // A pattern, and a LayerNorm's scale, can be taken from elsewhere and nothing else.
            (Action::Patch { .. }, Site::Pattern | Site::Ln1 | Site::Ln2) => true,
            (_, Site::Pattern | Site::Ln1 | Site::Ln2) => false,
            (Action::Steer { .. }, site) => site.letter().is_none(),
            _ => true,
        };
        if !fits {
            return Err(PlanProblem::Modifier { text: text(), problem: "this can't be done at this site" });
        }
        if !self.units.is_empty() && self.site.letter().is_none() {
            return Err(PlanProblem::Modifier { text: text(), problem: "the site has neither heads nor neurons" });
        }
        if !self.units.is_sorted_by(|a, b| a < b) {
            return Err(PlanProblem::Modifier { text: text(), problem: "units are ascending, each once" });
        }
        let keys = match &self.action {
            Action::Knockout { keys } => Some(keys),
            _ => None,
        };
        if self.positions.iter().chain(keys).any(|range| range.is_empty()) {
            return Err(PlanProblem::Modifier { text: text(), problem: "there are no such positions" });
        }
        if matches!(&self.action, Action::Noise { sigma, .. } if sigma.get() < 0.0) {
            return Err(PlanProblem::Modifier { text: text(), problem: "a standard deviation is not negative" });
        }
        if self.reference().is_some_and(|name| !is_name(name)) {
            let problem = "names are letters, digits, `-`, `_` and `.`";
            return Err(PlanProblem::Modifier { text: text(), problem });
        }
        Ok(())
    }

    /// Whether the model has its units.
    pub(super) fn fits(&self, shape: &PlanShape) -> Result<(), PlanProblem> {
        // Ascending: the last is the largest.
        self.units.last().map_or(Ok(()), |&unit| shape.check_unit(self.site, unit as u64).map(drop))
    }
}

/// The one form of modifiers that do the same: in the order of their sites, neighbours that zero parts of one site together.
pub(super) fn canonical(mut modifiers: Vec<Modifier>) -> Vec<Modifier> {
    modifiers.sort_by_key(|modifier| modifier.site);
    let mut merged: Vec<Modifier> = Vec::with_capacity(modifiers.len());
    for mut modifier in modifiers {
        modifier.units.sort_unstable();
        modifier.units.dedup();
        match merged.last_mut() {
            Some(last) if is_with(last, &modifier) => {
                if !last.units.is_empty() {
                    let all = modifier.units.is_empty();
                    last.units = if all { Vec::new() } else { union(&last.units, &modifier.units) };
                }
            }
            _ => merged.push(modifier),
        }
    }
    merged
}

fn is_with(a: &Modifier, b: &Modifier) -> bool {
    a.action == Action::Zero && b.action == Action::Zero && a.site == b.site && a.positions == b.positions
}

fn union(a: &[usize], b: &[usize]) -> Vec<usize> {
    let mut all = [a, b].concat();
    all.sort_unstable();
    all.dedup();
    all
}

/// What names of references are made of.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_name_byte)
}

pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Zero => f.write_str("zero")?,
            Action::Mean { .. } => f.write_str("mean")?,
            Action::Patch { .. } => f.write_str("patch")?,
            Action::Noise { sigma, seed: 0 } => write!(f, "noise {sigma}")?,
            Action::Noise { sigma, seed } => write!(f, "noise {sigma} seed {seed}")?,
            Action::Steer { times, .. } => write!(f, "steer {times}")?,
            Action::Knockout { .. } => f.write_str("knockout")?,
        }
        let knocks_out = matches!(self.action, Action::Knockout { .. });
        if !(knocks_out || matches!(self.site, Site::Z | Site::Neurons) && !self.units.is_empty()) {
            write!(f, " {}", self.site.word())?;
        }
        let letter = self.site.letter().unwrap_or('?');
        self.units.iter().try_for_each(|unit| write!(f, " {letter}{unit}"))?;
        if let Action::Knockout { keys } = &self.action {
            write!(f, " keys {}", Positions(keys))?;
        }
        if let Some(name) = self.reference() {
            write!(f, " from {name}")?;
        }
        self.positions.iter().try_for_each(|positions| write!(f, " @{}", Positions(positions)))
    }
}

/// One position, or a range of them.
struct Positions<'a>(&'a Range<usize>);

impl fmt::Display for Positions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.0;
        if start.checked_add(1) == Some(*end) { write!(f, "{start}") } else { write!(f, "{start}..{end}") }
    }
}

/// A modifier as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename = "Modifier")]
struct Fields {
    verb: Verb,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Finite>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    site: Site,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    units: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<[usize; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    positions: Option<[usize; 2]>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Zero,
    Mean,
    Patch,
    Noise,
    Steer,
    Knockout,
}

impl From<Modifier> for Fields {
    fn from(modifier: Modifier) -> Fields {
        let Modifier { action, site, units, positions } = modifier;
        let positions = positions.map(|Range { start, end }| [start, end]);
        let plain =
            Fields { verb: Verb::Zero, amount: None, seed: None, site, units, keys: None, from: None, positions };
        match action {
            Action::Zero => plain,
            Action::Mean { from } => Fields { verb: Verb::Mean, from: Some(from), ..plain },
            Action::Patch { from } => Fields { verb: Verb::Patch, from: Some(from), ..plain },
            Action::Noise { sigma, seed } => {
                Fields { verb: Verb::Noise, amount: Some(sigma), seed: Some(seed), ..plain }
            }
            Action::Steer { times, from } => {
                Fields { verb: Verb::Steer, amount: Some(times), from: Some(from), ..plain }
            }
            Action::Knockout { keys } => Fields { verb: Verb::Knockout, keys: Some([keys.start, keys.end]), ..plain },
        }
    }
}

impl TryFrom<Fields> for Modifier {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Modifier, String> {
        let Fields { verb, amount, seed, site, units, keys, from, positions } = fields;
        let action = match (verb, amount, seed, keys, from) {
            (Verb::Zero, None, None, None, None) => Action::Zero,
            (Verb::Mean, None, None, None, Some(from)) => Action::Mean { from },
            (Verb::Patch, None, None, None, Some(from)) => Action::Patch { from },
            (Verb::Noise, Some(sigma), Some(seed), None, None) => Action::Noise { sigma, seed },
            (Verb::Steer, Some(times), None, None, Some(from)) => Action::Steer { times, from },
            (Verb::Knockout, None, None, Some([start, end]), None) => Action::Knockout { keys: start..end },
            _ => {
                return Err(format!(
                    "{verb:?}: zero has neither amount, seed, keys nor from; mean and patch have from; noise has amount and \
                     seed; steer has amount and from; knockout has keys"
                ));
            }
        };
        Ok(Modifier { action, site, units, positions: positions.map(|[start, end]| start..end) })
    }
}
