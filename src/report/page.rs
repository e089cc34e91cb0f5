//! The report as one page of HTML: nothing is loaded, nothing runs, and its own policy says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, context};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::plot::{Ink, Width};
use super::view::View;
use super::view::figures::{FigureView, SectionView};
use super::{ReportError, Study, Views, notes};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// A section whose figures are drawn.
#[derive(Serialize)]
struct Drawn<'a> {
    id: &'a str,
    title: &'a str,
    figures: Vec<DrawnFigure<'a>>,
}

#[derive(Serialize)]
struct DrawnFigure<'a> {
    #[serde(flatten)]
    figure: &'a FigureView,
    /// At the width of the page's text, where it is wide.
    full: String,
    column: String,
}

impl Drawn<'_> {
    fn new(section: &SectionView) -> Drawn<'_> {
        let SectionView { id, title, figures } = section;
        Drawn { id, title, figures: figures.iter().map(DrawnFigure::new).collect() }
    }
}

impl DrawnFigure<'_> {
    fn new(figure: &FigureView) -> DrawnFigure<'_> {
        let FigureView { plot, wide, .. } = figure;
        let full = if *wide { plot.svg(Width::Full, Ink::Page) } else { String::new() };
        DrawnFigure { figure, full, column: plot.svg(Width::Column, Ink::Page) }
    }
}

/// The page.
///
/// # Errors
/// Where the template does not fit the data.
pub fn html(study: &Study) -> Result<String, ReportError> {
    page(&View::new(study))
}

/// The page of what was found inside, alone.
///
/// # Errors
/// Where the template does not fit the data.
pub fn html_of_views(views: &Views) -> Result<String, ReportError> {
    page(&View::of_views(views))
}

fn page(view: &View) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let sections: Vec<Drawn<'_>> = view.sections.iter().map(Drawn::new).collect();
    let notes: Vec<String> = view.notes.iter().map(|note| notes::to_html(&note.text)).collect();
    // The policy allows this style sheet by its hash, and nothing else.
    let style = format!("\n{STYLE}");
    let hash = STANDARD.encode(Sha256::digest(style.as_bytes()));
    let version = env!("CARGO_PKG_VERSION");
    let context = context! { view => Serde(view), sections => Serde(&sections), notes, style, hash, version };
    Ok(environment.template_from_str(PAGE)?.render(context)?)
}
