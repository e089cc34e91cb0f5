//! Looking inside: what is predicted where, token by token (`tokens`) and step by step (`lens`); what a prediction is made of
//! (`attribute`), where heads look (`attention`), and how much each step turns the residual stream (`similarity`); activations
//! as files (`cache`).

pub(crate) mod args;
pub(crate) mod attention;
pub(crate) mod attribute;
pub(crate) mod cache;
mod grid;
pub(crate) mod lens;
pub(crate) mod similarity;
pub(crate) mod tokens;

use std::collections::BTreeMap;

use lesion::model::Model;
use lesion::plan::{Execution, Placed, Plan};

use super::failure::{Failure, Result};
use super::resolve::Input;

/// Tokens by name: their text in quotes, or their ids where there is no tokenizer.
pub(super) struct Names<'m> {
    model: &'m Model,
    ids_only: bool,
}

impl<'m> Names<'m> {
    /// Ids in, ids out.
    pub(super) fn new(model: &'m Model, input: &Input) -> Names<'m> {
        Names { model, ids_only: input.text.is_none() }
    }

    pub(super) fn text(&self, id: u32) -> Option<String> {
        let tokenizer = if self.ids_only { None } else { self.model.tokenizer().ok() };
        tokenizer.and_then(|tokenizer| tokenizer.decode(&[id]).ok())
    }

    pub(super) fn quoted(&self, id: u32) -> String {
        self.text(id).map_or_else(|| id.to_string(), |text| format!("{text:?}"))
    }

    /// The one token that an answer is; `help` is what can be done where it is several.
    pub(super) fn one(&self, answer: &[u32], flag: &str, text: &str, help: &str) -> Result<u32> {
        match answer {
            [id] => Ok(*id),
            several => {
                let tokens: Vec<String> = several.iter().map(|id| self.quoted(*id)).collect();
                let message = format!("{flag} {text:?} is {} tokens: {}", several.len(), tokens.join(" "));
                Err(Failure::usage(message).with_help(help))
            }
        }
    }

    /// As wide as a cell: a middle dot for a space in front, what does not fit cut off.
    pub(super) fn cell(&self, id: u32, width: usize) -> String {
        let text = self.text(id).unwrap_or_else(|| id.to_string());
        let mut shown = String::new();
        for (i, c) in text.chars().enumerate() {
            match c {
                ' ' if i == 0 => shown.push('·'),
                c if c.is_control() => shown.extend(c.escape_default()),
                c => shown.push(c),
            }
        }
        if shown.chars().count() > width {
            shown = shown.chars().take(width - 1).chain(['…']).collect();
        }
        format!("{shown:<width$}")
    }
}

/// An execution, by its names.
struct Ran {
    /// For people: `5`, `5a`; `5@1` where the layer runs more than once.
    label: String,
    address: String,
    layer: usize,
    occurrence: usize,
}

impl Ran {
    /// All of a plan, by their numbers.
    fn all(plan: &Plan) -> Vec<Ran> {
        let placed: Vec<_> = plan.executions().collect();
        let mut times = BTreeMap::<usize, usize>::new();
        placed.iter().for_each(|placed| *times.entry(placed.execution.layer).or_default() += 1);
        let ran = |placed: &Placed<'_>| {
            let Execution { layer, part, .. } = *placed.execution;
            let plain = Execution::of(layer, part);
            let label = if times[&layer] > 1 { format!("{plain}@{}", placed.occurrence) } else { plain.to_string() };
            Ran { label, address: placed.address.to_string(), layer, occurrence: placed.occurrence }
        };
        placed.iter().map(ran).collect()
    }
}

/// A token that these views can begin with.
fn not_empty(input: &Input) -> Result<()> {
    match input.ids.is_empty() {
        true => Err(Failure::usage("an empty prompt with --no-bos has no token to look at")),
        false => Ok(()),
    }
}
