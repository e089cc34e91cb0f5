//! The report as one page of HTML: nothing is loaded, nothing runs, and its own policy says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, context};
use sha2::{Digest, Sha256};

use super::plot::{Ink, Width};
use super::view::View;
use super::{ReportError, Study, notes};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// The page.
///
/// # Errors
/// Where the template does not fit the data.
pub fn html(study: &Study) -> Result<String, ReportError> {
    let view = View::new(study);
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let plots: Vec<(String, String)> = view
        .figures
        .iter()
        .map(|figure| {
            let wide = if figure.wide { figure.plot.svg(Width::Full, Ink::Page) } else { String::new() };
            (wide, figure.plot.svg(Width::Column, Ink::Page))
        })
        .collect();
    let notes: Vec<String> = view.notes.iter().map(|note| notes::to_html(&note.text)).collect();
    // The policy allows this style sheet by its hash, and nothing else.
    let style = format!("\n{STYLE}");
    let hash = STANDARD.encode(Sha256::digest(style.as_bytes()));
    let context = context! { view => Serde(&view), plots, notes, style, hash, version => env!("CARGO_PKG_VERSION") };
    Ok(environment.template_from_str(PAGE)?.render(context)?)
}
