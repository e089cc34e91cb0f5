//! `--reference NAME=FILE`: activations under the names that modifiers of plans have for them.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use lesion::forward::{Activations, References, SavedError};

use super::failure::{Exit, Failure, Result};

#[derive(Args, Debug, Default)]
pub(crate) struct ReferenceArgs {
    /// What modifiers of plans find by name (patch z from NAME): a file of `lesion cache`, or of your own in its form; may be
    /// given several times
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) reference: Vec<NamedFile>,
}

/// A file and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl FromStr for NamedFile {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<NamedFile, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(NamedFile { name: name.to_owned(), path: PathBuf::from(path) })
            }
            _ => Err("expected a name, `=` and a file, as in clean=clean.safetensors".to_owned()),
        }
    }
}

impl ReferenceArgs {
    /// Reads the files.
    pub(crate) fn read(&self) -> Result<References> {
        let mut references = References::NONE;
        for NamedFile { name, path } in &self.reference {
            if references.get(name).is_some() {
                return Err(Failure::usage(format!("--reference {name}: the name is given twice")));
            }
            let (activations, _) = Activations::read(path).map_err(|error| saved_failure(&error))?;
            references.insert(name, Arc::new(activations));
        }
        Ok(references)
    }
}

/// An error of a file of activations or of bridges.
pub(crate) fn saved_failure(error: &SavedError) -> Failure {
    let exit = match error {
        SavedError::Io { what: "write", .. } => Exit::Missing,
        _ => Exit::BadFile,
    };
    Failure::new(exit, error.to_string())
}
