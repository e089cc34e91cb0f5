//! `--bridge NAME=FILE`: linear shortcuts under the names that bridges of plans have for them.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use lesion::forward::{Bridges, Shortcuts};
use lesion::model::Model;
use lesion::plan::Plan;

use super::failure::{Failure, Result};
use super::forward_failure;
use super::model::{self, shown_path};
use super::output::note;
use super::references::{NamedFile, saved_failure};

#[derive(Args, Debug, Default)]
pub(crate) struct BridgeArgs {
    /// What bridges of plans find by name (bridge(6:11,NAME)): a file of `lesion bridge`, or of your own in its form; may be
    /// given several times
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) bridge: Vec<NamedFile>,
}

impl BridgeArgs {
    /// Reads the files.
    pub(crate) fn read(&self, model: &Model) -> Result<Bridges> {
        let mut bridges = Bridges::NONE;
        for NamedFile { name, path } in &self.bridge {
            if bridges.get(name).is_some() {
                return Err(Failure::usage(format!("--bridge {name}: the name is given twice")));
            }
            bridges.insert(name, Arc::new(shortcuts(path, model)?));
        }
        Ok(bridges)
    }
}

/// The maps of a file. Says where they were fitted to other weights.
pub(crate) fn shortcuts(path: &Path, model: &Model) -> Result<Shortcuts> {
    let (shortcuts, fitted) = Shortcuts::read(path).map_err(|error| saved_failure(&error))?;
    if !fitted.weights.is_empty() && fitted.weights != model::identity(model)? {
        let (path, of) = (shown_path(path), fitted.model.escape_debug().to_string());
        note(format!("warning: {path} was fitted to other weights, those of {of}"));
    }
    Ok(shortcuts)
}

/// A plan with the content of its bridges, all of which are there.
pub(crate) fn bound(plan: &Plan, bridges: &Bridges) -> Result<Plan> {
    bridges.bind(plan).map_err(|error| forward_failure(&error))
}
