//! Results as drawings: `--output` with a name that ends in `.svg` or `.png`.

use lesion::report::plot::{Ink, Plot, Width};
use lesion::report::png;

use crate::cli::args::OutputArgs;
use crate::cli::failure::{Exit, Failure, Result};
use crate::cli::output::Output;

/// What kind of drawing a file is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Picture {
    Svg,
    Png,
}

impl Picture {
    /// By the output file's name. A drawing shows one plan, and no JSON.
    pub(super) fn wanted(args: &OutputArgs, plans: usize) -> Result<Option<Picture>> {
        let ending = args.output.as_ref().and_then(|path| path.extension()).and_then(|ending| ending.to_str());
        let picture = match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("svg") => Picture::Svg,
            Some("png") => Picture::Png,
            _ => return Ok(None),
        };
        if args.json {
            return Err(Failure::usage("--json: the name of the output file asks for a drawing"));
        }
        if plans != 1 {
            return Err(Failure::usage(format!("{plans} plans: a drawing shows one"))
                .with_help("two plans or more are compared with the intact one: give one --plan, or none"));
        }
        Ok(Some(picture))
    }

    pub(super) fn draw(self, output: &mut Output, plot: &Plot) -> Result<()> {
        let svg = plot.svg(Width::Full, Ink::Paper);
        match self {
            Picture::Svg => output.text(&svg),
            Picture::Png => {
                let bytes = png(&svg).map_err(|error| Failure::new(Exit::Missing, error.to_string()))?;
                output.bytes(&bytes)
            }
        }
    }
}
