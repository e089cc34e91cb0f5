//! Looking inside: what is predicted where, token by token (`tokens`) and step by step (`lens`); activations as files (`cache`).

pub(crate) mod args;
pub(crate) mod cache;
pub(crate) mod lens;
pub(crate) mod tokens;

use lesion::model::Model;

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

/// A token that these views can begin with.
fn not_empty(input: &Input) -> Result<()> {
    match input.ids.is_empty() {
        true => Err(Failure::usage("an empty prompt with --no-bos has no token to look at")),
        false => Ok(()),
    }
}
