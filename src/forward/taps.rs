//! Activations by their names, TransformerLens's under addresses of executions: what a pass is asked to leave.
//!
//! | name | what |
//! |---|---|
//! | `blocks.5.attn.hook_z` | of the layer that runs once: what references are |
//! | `blocks.5@1.attn.hook_z`, `steps.6.attn.hook_z` | of an execution, whatever else the layer does |
//! | `hook_embed`, `hook_pos_embed` | `wte[token]` and `wpe[position]`, which add up to the first state |
//! | `ln_final.hook_scale`, `ln_final.hook_normalized` | of the LayerNorm before the unembedding |

use super::batch::Batch;
use super::error::ForwardError;
use super::inside::scale_of;
use super::modify::scaled;
use super::pass::{Pass, Residual};
use super::references::Activations;
use super::session::{Engine, Session, Taps, Wanted};
use super::watch::{Seen, Watch};
use crate::model::Config;
use crate::plan::{AddressError, ExecutionName, Part, Plan, Site};
use lesion_kernels::Floats;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// What may be left of a pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tap {
    /// A site of an execution.
    At(ExecutionName, Site),
    /// What belongs to no execution.
    End(End),
}

/// Before the first step and behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// `hook_embed`
    Embed,
    /// `hook_pos_embed`
    PosEmbed,
    /// `ln_final.hook_scale`
    FinalScale,
    /// `ln_final.hook_normalized`
    FinalNormalized,
}

/// A name that stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TapError {
    /// No such hook.
    #[error("{}: no such site", .0.escape_debug())]
    Hook(String),
    /// No address before it.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl End {
    /// All of them, in the order in which a pass comes by.
    pub const ALL: [End; 4] = [End::Embed, End::PosEmbed, End::FinalScale, End::FinalNormalized];

    /// Its name.
    pub fn hook(self) -> &'static str {
        match self {
            End::Embed => "hook_embed",
            End::PosEmbed => "hook_pos_embed",
            End::FinalScale => "ln_final.hook_scale",
            End::FinalNormalized => "ln_final.hook_normalized",
        }
    }

    /// Elements of a token.
    pub fn width(self, config: &Config) -> usize {
        if self == End::FinalScale { 1 } else { config.n_embd }
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tap::At(name, site) => write!(f, "{name}.{}", site.hook()),
            Tap::End(end) => f.write_str(end.hook()),
        }
    }
}

impl FromStr for Tap {
    type Err = TapError;

    fn from_str(name: &str) -> Result<Tap, TapError> {
        if let Some(end) = End::ALL.into_iter().find(|end| end.hook() == name) {
            return Ok(Tap::End(end));
        }
        let hook = |site: &Site| name.strip_suffix(site.hook()).and_then(|rest| rest.strip_suffix('.'));
        let found = Site::ALL.iter().find_map(|site| Some((hook(site)?, *site)));
        let (execution, site) = found.ok_or_else(|| TapError::Hook(name.to_owned()))?;
        Ok(Tap::At(execution.parse()?, site))
    }
}

impl Session {
    /// What each sequence of `batch` leaves at these taps under `plan`. In f32 (f64 is rounded). What is computed does not change
    /// by a bit.
    ///
    /// # Errors
    /// Where batch or plan do not fit the model, or a tap names no one execution of the plan, or a site that it does not pass.
    pub fn tapped(&mut self, plan: &Plan, batch: &Batch, taps: &[Tap]) -> Result<Vec<Activations>, ForwardError> {
        // One that is named twice is left once.
        let taps: BTreeSet<&Tap> = taps.iter().collect();
        let mut executions: BTreeMap<(usize, Site), Vec<&Tap>> = BTreeMap::new();
        for &tap in &taps {
            if let Tap::At(name, site) = tap {
                let placed = plan.find(name)?;
                if !site.is_in(placed.execution.part) {
                    let half = if placed.execution.part == Part::Mlp { "the MLP half" } else { "the attention half" };
                    return Err(ForwardError::NoSite { tap: tap.clone(), half });
                }
                executions.entry((placed.index, *site)).or_default().push(tap);
            }
        }
        let spans = batch.spans.clone();
        let mut found: Vec<Activations> = spans.iter().map(|span| Activations::new(span.rows)).collect();
        let wants = |execution, site| executions.contains_key(&(execution, site));
        let mut see = |seen: Seen<'_>| {
            for (span, found) in spans.iter().zip(&mut found) {
                let rows = seen.rows.start.max(span.first_row)..seen.rows.end.min(span.first_row + span.rows);
                if rows.is_empty() {
                    continue;
                }
                let first = rows.start - seen.rows.start;
                let values = &seen.values[first * seen.width..(first + rows.len()) * seen.width];
                for tap in executions.get(&(seen.execution, seen.site)).into_iter().flatten() {
                    found.extend(tap, values);
                }
            }
        };
        let mut last = Vec::new();
        let is_final = |tap: &Tap| matches!(tap, Tap::End(End::FinalScale | End::FinalNormalized));
        let wants_final = taps.iter().any(|tap| is_final(tap));
        let steps = plan.steps().len();
        let mut residual = |residual: Residual<'_>| {
            if wants_final && residual.steps == steps {
                last.extend_from_slice(residual.hidden);
            }
        };
        let watch = Some(Watch { wants: &wants, see: &mut see, copy: Floats::default() });
        self.pass(plan, batch, None, Taps { residual: Some(&mut residual), watch }, Wanted::Nothing)?;
        for tap in taps {
            let Tap::End(end) = tap else { continue };
            let values = self.at_end(*end, batch, &last);
            let width = end.width(self.model().config());
            for (span, found) in spans.iter().zip(&mut found) {
                found.extend(tap, &values[span.first_row * width..(span.first_row + span.rows) * width]);
            }
        }
        Ok(found)
    }

    /// What stands at an end, of all rows; `last`: the final states.
    fn at_end(&mut self, end: End, batch: &Batch, last: &[f32]) -> Vec<f32> {
        let Session { model, engine, work, .. } = self;
        let (config, parameters) = (model.config(), model.parameters());
        let (width, epsilon) = (config.n_embd, config.layer_norm_epsilon);
        let mut values = vec![0.0; batch.rows() * end.width(config)];
        match end {
            End::Embed => {
                for (id, row) in batch.ids.iter().zip(values.chunks_exact_mut(width)) {
                    parameters.wte.data().widen_into(*id as usize * width, row);
                }
            }
            End::PosEmbed => {
                let positions = batch.spans.iter().flat_map(|span| span.past..span.past + span.rows);
                for (position, row) in positions.zip(values.chunks_exact_mut(width)) {
                    parameters.wpe.data().widen_into(position * width, row);
                }
            }
            End::FinalScale => {
                let scales = last.chunks_exact(width).map(|row| scale_of(row, epsilon) as f32);
                values.iter_mut().zip(scales).for_each(|(to, scale)| *to = scale);
            }
            End::FinalNormalized => match engine {
                Engine::Kernels(team) => team.enter(|kernels| {
                    values.copy_from_slice(Pass::new(kernels, model, batch, None, work).normalize(last));
                }),
                Engine::Exact(_) => {
                    let norm = &parameters.ln_f;
                    for (row, to) in last.chunks_exact(width).zip(values.chunks_exact_mut(width)) {
                        scaled(row, &norm.weight, &norm.bias, scale_of(row, epsilon), to);
                    }
                }
            },
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for name in [
            "blocks.5.attn.hook_z",
            "blocks.5@1.ln1.hook_scale",
            "steps.4.2.mlp.hook_pre",
            "steps.0.hook_resid_post",
            "hook_embed",
            "ln_final.hook_normalized",
        ] {
            assert_eq!(name.parse::<Tap>().unwrap().to_string(), name);
        }
        for (name, wanted) in [
            ("hook_z", "no such site"),
            ("blocks.5.hook_z", "no such site"),
            ("attn.hook_z", "no such site"),
            ("blocks.x.attn.hook_z", "blocks.x"),
            ("steps.attn.hook_z", "steps"),
            ("ln_final.hook_q", "no such site"),
        ] {
            let error = name.parse::<Tap>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{name}: {error}");
        }
    }
}
