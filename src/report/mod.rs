//! Reports: what was measured, for people to look at. Pure functions of plain data.
//!
//! - [`Study`] and what is in it: the input (`data`).
//! - [`inside`]: what was found inside a model, read from what the commands print, and drawn.
//! - `findings`: what follows from it, such as the layer count from which on answers are right.
//! - [`figures()`]: which plots fit; [`plot`]: plots as data, drawn as SVG or as text; [`png`]: as pictures.
//! - [`html`]: one page, without network or scripts, in light and dark; [`folder`]: the same as Markdown with pictures;
//!   [`text`]: the findings and what was said, for a terminal.
//! - `notes`: Markdown of anybody's making as harmless HTML; `number`: how numbers are written.
//! - `stored`: an experiment of the store as a study.
//!
//! Nothing here runs a model or reads a clock: equal studies give equal bytes.

mod data;
mod figures;
mod findings;
pub mod inside;
mod markdown;
mod notes;
mod number;
mod page;
pub mod plot;
mod png;
#[cfg(feature = "store")]
mod stored;
#[cfg(test)]
mod tests;
mod view;

pub use data::{
    Conversation, FamilyFacts, Group, InsideFacts, ModelFacts, NoteFacts, PlanFacts, Process, Results, Said, Study,
    Views,
};
pub use figures::{Figure, figures, heat_map};
pub use findings::{FirstRight, Truncations};
pub use markdown::{folder, folder_of_views, text};
pub use number::{counted, grouped};
pub use page::{html, html_of_views};
pub use png::{PngError, png};
#[cfg(feature = "store")]
pub use stored::{command_line, of_store};

use thiserror::Error;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A template and its data do not fit.
    #[error("report: {0}")]
    Template(#[from] minijinja::Error),
    /// A plot could not be drawn as a picture.
    #[error("report, {figure}: {source}")]
    Png {
        /// The figure.
        figure: String,
        /// Why.
        source: PngError,
    },
}
