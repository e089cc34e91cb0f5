//! `lesion tasks generate` in a build without the feature `agent`.

use super::args::Generate;
use crate::cli::failure::{Exit, Failure, Result};

pub(super) fn run(_: &Generate) -> Result<Exit> {
    Err(Failure::usage("this build has no client for chat completions: the feature `agent` is off"))
}
