//! Pictures of plots, for those who can't take SVG: 300 dots per inch, in a font that comes along.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use std::sync::{Arc, OnceLock};
use thiserror::Error;

/// Arimo, reduced to the characters that labels need (SIL Open Font License, beside it).
const FONT: &[u8] = include_bytes!("font/Arimo-Regular-subset.ttf");

/// Dots per point.
const SCALE: f32 = 300.0 / 72.0;

/// Why there is no picture.
#[derive(Debug, Error)]
pub enum PngError {
    /// What was drawn is no SVG.
    #[error("drawing: {0}")]
    Svg(#[from] resvg::usvg::Error),
    /// It is empty, or larger than memory.
    #[error("drawing: a picture of {0} by {1} dots can't be made")]
    Size(u32, u32),
    /// It can't be encoded.
    #[error("drawing: {0}")]
    Encoding(String),
}

fn fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut database = fontdb::Database::new();
        database.load_font_data(FONT.to_vec());
        database.set_sans_serif_family("Arimo");
        Arc::new(database)
    };
    Arc::clone(FONTS.get_or_init(load))
}

/// An SVG, drawn.
///
/// # Errors
/// Where it is no SVG, or has no size.
pub fn png(svg: &str) -> Result<Vec<u8>, PngError> {
    let options = Options { font_family: "Arimo".to_owned(), fontdb: fonts(), ..Options::default() };
    let tree = Tree::from_str(svg, &options)?;
    // usvg gives sizes in CSS pixels, 96 of them an inch.
    let scale = SCALE * 72.0 / 96.0;
    let (width, height) = ((tree.size().width() * scale).ceil() as u32, (tree.size().height() * scale).ceil() as u32);
    let mut pixmap = Pixmap::new(width, height).ok_or(PngError::Size(width, height))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| PngError::Encoding(error.to_string()))
}
