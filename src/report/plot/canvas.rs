//! SVG: shapes and text on a canvas in points (1/72 inch), in colours that a page or a file gives.

use std::fmt::Write as _;

/// The size of axis labels and most text.
pub(super) const TEXT: f64 = 7.0;

/// The size of numbers in and at marks.
pub(super) const SMALL: f64 = 6.0;

/// The size of titles.
pub(super) const TITLE: f64 = 8.0;

/// Advance widths of Arimo (as Arial's and Helvetica's) from U+0020 on, in thousandths of the size.
const WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833,
    722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556,
    556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334,
    260, 334, 584,
];

/// Where colours come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// The style sheet of the page around it, light or dark.
    Page,
    /// Fixed, for paper and files.
    Paper,
}

/// What something is painted with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Paint {
    /// Text and axes.
    Ink,
    /// Text that matters less.
    Soft,
    /// Lines of a grid.
    Grid,
    /// More than intact.
    Worse,
    /// Less than intact.
    Better,
    /// One of eight series, told apart by those who are colour-blind too.
    Series(usize),
    /// Between nothing and the full colour.
    Shade(Hue, f64),
    /// Text on a shade.
    OnShade(Hue, f64),
}

/// The colour of a shade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hue {
    Worse,
    Better,
    /// A share.
    Amount,
}

/// How text stands to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Series beside each other that are told apart; more take turns.
pub(super) const SERIES: usize = 8;

/// Okabe & Ito's colours without black and yellow, and two more.
const SERIES_PAPER: [[u8; 3]; SERIES] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [110, 110, 110],
    [136, 34, 85],
];
const WORSE: [u8; 3] = [178, 24, 43];
const BETTER: [u8; 3] = [33, 102, 172];
const AMOUNT: [u8; 3] = [0, 104, 94];
const NOTHING: [u8; 3] = [247, 247, 247];

/// A drawing under way.
pub(super) struct Canvas {
    width: f64,
    ink: Ink,
    body: String,
}

impl Canvas {
    pub(super) fn new(width: f64, ink: Ink) -> Canvas {
        Canvas { width, ink, body: String::new() }
    }

    pub(super) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, paint: Paint) {
        let fill = self.colour(paint);
        let (width, height) = (width.max(0.0), height.max(0.0));
        self.push(format_args!(
            r#"<rect x="{}" y="{}" width="{}" height="{}" fill="{fill}"/>"#,
            n(x),
            n(y),
            n(width),
            n(height)
        ));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, paint: Paint) {
        self.stroke(from, to, width, paint, "");
    }

    pub(super) fn dashed(&mut self, from: (f64, f64), to: (f64, f64), width: f64, paint: Paint) {
        self.stroke(from, to, width, paint, r#" stroke-dasharray="3 2""#);
    }

    fn stroke(&mut self, from: (f64, f64), to: (f64, f64), width: f64, paint: Paint, more: &str) {
        let stroke = self.colour(paint);
        self.push(format_args!(
            r#"<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="{stroke}" stroke-width="{width}"{more}/>"#,
            n(from.0),
            n(from.1),
            n(to.0),
            n(to.1)
        ));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], width: f64, paint: Paint) {
        let (stroke, points) = (self.colour(paint), joined(points));
        self.push(format_args!(
            r#"<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="{width}" stroke-linejoin="round"/>"#
        ));
    }

    /// A surface that lets what lies below it through.
    pub(super) fn band(&mut self, points: &[(f64, f64)], paint: Paint) {
        let (fill, points) = (self.colour(paint), joined(points));
        self.push(format_args!(r#"<polygon points="{points}" fill="{fill}" fill-opacity="0.16"/>"#));
    }

    /// The mark of a series: its shape tells it apart where colours can't.
    pub(super) fn mark(&mut self, series: usize, (x, y): (f64, f64), paint: Paint) {
        let fill = self.colour(paint);
        let corners: &[(f64, f64)] = match series % 4 {
            0 => &[],
            1 => &[(-1.7, -1.7), (1.7, -1.7), (1.7, 1.7), (-1.7, 1.7)],
            2 => &[(0.0, -2.3), (2.1, 1.6), (-2.1, 1.6)],
            _ => &[(0.0, -2.5), (2.5, 0.0), (0.0, 2.5), (-2.5, 0.0)],
        };
        if corners.is_empty() {
            return self.push(format_args!(r#"<circle cx="{}" cy="{}" r="1.9" fill="{fill}"/>"#, n(x), n(y)));
        }
        let corners: Vec<(f64, f64)> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        self.push(format_args!(r#"<polygon points="{}" fill="{fill}"/>"#, joined(&corners)));
    }

    pub(super) fn circle(&mut self, (x, y): (f64, f64), radius: f64, paint: Paint) {
        let fill = self.colour(paint);
        self.push(format_args!(r#"<circle cx="{}" cy="{}" r="{}" fill="{fill}"/>"#, n(x), n(y), n(radius)));
    }

    /// Text whose baseline is at `y`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), size: f64, anchor: Anchor, paint: Paint, text: &str) {
        let fill = self.colour(paint);
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        self.push(format_args!(
            r#"<text x="{}" y="{}" font-size="{size}" fill="{fill}"{anchor}>{}</text>"#,
            n(x),
            n(y),
            escaped(text)
        ));
    }

    /// Text from below upwards that ends at this point, which its baseline passes.
    pub(super) fn upright(&mut self, (x, y): (f64, f64), size: f64, paint: Paint, text: &str) {
        let fill = self.colour(paint);
        let (x, y) = (n(x), n(y));
        self.push(format_args!(
            r#"<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="end" transform="rotate(-90 {x} {y})">{}</text>"#,
            escaped(text)
        ));
    }

    /// What follows belongs together; browsers show the text where the pointer rests on it.
    pub(super) fn open(&mut self, said: &str) {
        if said.is_empty() {
            self.push(format_args!("<g>"));
        } else {
            self.push(format_args!("<g><title>{}</title>", escaped(said)));
        }
    }

    /// The end of what [`Canvas::open`] began.
    pub(super) fn close(&mut self) {
        self.push(format_args!("</g>"));
    }

    /// Text with the ground around it, where it stands on lines.
    pub(super) fn label(&mut self, at: (f64, f64), size: f64, anchor: Anchor, paint: Paint, text: &str) {
        let ground = match self.ink {
            Ink::Page => "var(--paper)",
            Ink::Paper => "#ffffff",
        };
        self.push(format_args!(
            r#"<g paint-order="stroke" stroke="{ground}" stroke-width="2.4" stroke-linejoin="round">"#
        ));
        self.text(at, size, anchor, paint, text);
        self.push(format_args!("</g>"));
    }

    /// The whole document, so high; `title` is what those who don't see it are told.
    pub(super) fn finish(self, height: f64, title: &str) -> String {
        let (width, height) = (n(self.width), n(height));
        let size = match self.ink {
            Ink::Page => String::new(),
            Ink::Paper => format!(r#" width="{width}pt" height="{height}pt""#),
        };
        let namespace = if self.ink == Ink::Paper { r#" xmlns="http://www.w3.org/2000/svg""# } else { "" };
        let ground = if self.ink == Ink::Paper {
            format!("<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n")
        } else {
            String::new()
        };
        format!(
            "<svg{namespace} viewBox=\"0 0 {width} {height}\"{size} role=\"img\" aria-label=\"{}\" font-family=\"Arimo, Arial, \
             Helvetica, 'Liberation Sans', sans-serif\">\n{ground}{}</svg>\n",
            escaped(title),
            self.body
        )
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // A String takes anything.
        let _ = writeln!(self.body, "{element}");
    }

    fn colour(&self, paint: Paint) -> String {
        match self.ink {
            Ink::Page => of_page(paint),
            Ink::Paper => {
                let [r, g, b] = on_paper(paint);
                format!("#{r:02x}{g:02x}{b:02x}")
            }
        }
    }
}

fn of_page(paint: Paint) -> String {
    match paint {
        Paint::Ink => "var(--ink)".to_owned(),
        Paint::Soft => "var(--soft)".to_owned(),
        Paint::Grid => "var(--grid)".to_owned(),
        Paint::Worse => "var(--worse)".to_owned(),
        Paint::Better => "var(--better)".to_owned(),
        Paint::Series(series) => format!("var(--series-{})", series % SERIES),
        Paint::Shade(hue, share) => {
            let hue = match hue {
                Hue::Worse => "worse",
                Hue::Better => "better",
                Hue::Amount => "amount",
            };
            format!("color-mix(in srgb, var(--{hue}) {:.0}%, var(--nothing))", 100.0 * share.clamp(0.0, 1.0))
        }
        Paint::OnShade(hue, share) => match share {
            share if share > strong(hue) => "var(--on-strong)",
            share if share > MIDDLE => "var(--on-middle)",
            _ => "var(--ink)",
        }
        .to_owned(),
    }
}

/// On shades above this, dark text reads better than light text in a dark page, too.
const MIDDLE: f64 = 0.58;

/// On shades above this, light text reads better than dark text on paper.
fn strong(hue: Hue) -> f64 {
    match hue {
        Hue::Worse => 0.7,
        Hue::Better => 0.81,
        Hue::Amount => 0.76,
    }
}

fn on_paper(paint: Paint) -> [u8; 3] {
    match paint {
        Paint::Ink => [26; 3],
        Paint::Soft => [89; 3],
        Paint::Grid => [222; 3],
        Paint::Worse => WORSE,
        Paint::Better => BETTER,
        Paint::Series(series) => SERIES_PAPER[series % SERIES],
        Paint::Shade(hue, share) => {
            let full = match hue {
                Hue::Worse => WORSE,
                Hue::Better => BETTER,
                Hue::Amount => AMOUNT,
            };
            let share = share.clamp(0.0, 1.0);
            std::array::from_fn(|i| {
                let (none, full) = (f64::from(NOTHING[i]), f64::from(full[i]));
                (none + share * (full - none)).round() as u8
            })
        }
        Paint::OnShade(hue, share) => {
            if share > strong(hue) {
                [255; 3]
            } else {
                [26; 3]
            }
        }
    }
}

/// How wide a text is.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let thousandths = |c: char| match (c as usize).checked_sub(0x20).and_then(|i| WIDTHS.get(i)) {
        Some(width) => f64::from(*width),
        None if c == '\u{a0}' => 278.0,
        None if c == '…' || c as u32 >= 0x2E80 => 1000.0,
        None => 600.0,
    };
    text.chars().map(thousandths).sum::<f64>() * size / 1000.0
}

/// As much of a text as has room, with an ellipsis where that is not all.
pub(super) fn fitted(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if width(&kept, size) + width("…", size) > room {
            kept.pop();
            break;
        }
    }
    kept + "…"
}

/// A coordinate, to a hundredth of a point.
fn n(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn joined(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", n(*x), n(*y))).collect();
    points.join(" ")
}

/// Text in XML; characters that XML can't hold are shown as U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(' '),
            c if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') => escaped.push('\u{FFFD}'),
            // They would turn the text around them, or hide in it.
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}' => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text() {
        let mut canvas = Canvas::new(100.0, Ink::Paper);
        canvas.text((0.0, 9.0), 7.0, Anchor::End, Paint::Ink, "<script>&\"\u{1b}");
        let svg = canvas.finish(10.0, "a < b");
        assert!(svg.contains("&lt;script&gt;&amp;&quot;\u{FFFD}</text>"), "{svg}");
        assert!(svg.contains("aria-label=\"a &lt; b\"") && !svg.contains("<script"), "{svg}");
    }

    #[test]
    fn texts_fit() {
        assert_eq!(width("0000", 10.0), 22.24);
        assert_eq!(fitted("abc", 10.0, 100.0), "abc");
        let short = fitted(&"long name ".repeat(9), 7.0, 60.0);
        assert!(short.ends_with('…') && width(&short, 7.0) <= 60.0, "{short}");
        assert_eq!(fitted("abc", 10.0, 0.0), "…");
    }

    /// WCAG's contrast of two colours.
    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let linear = |channel: u8| match f64::from(channel) / 255.0 {
            dark if dark <= 0.04045 => dark / 12.92,
            light => ((light + 0.055) / 1.055).powf(2.4),
        };
        let bright = |[r, g, b]: [u8; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
        let (a, b) = (bright(a) + 0.05, bright(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn numbers_are_legible_on_every_shade() {
        for hue in [Hue::Worse, Hue::Better, Hue::Amount] {
            for share in (0..=100).map(|percent| f64::from(percent) / 100.0) {
                let found = contrast(on_paper(Paint::Shade(hue, share)), on_paper(Paint::OnShade(hue, share)));
                assert!(found >= 4.0, "{hue:?} {share}: {found}");
            }
        }
    }

    #[test]
    fn shades_run_from_nothing_to_all() {
        assert_eq!(on_paper(Paint::Shade(Hue::Worse, 0.0)), NOTHING);
        assert_eq!(on_paper(Paint::Shade(Hue::Better, 2.0)), BETTER);
        assert_eq!(of_page(Paint::Shade(Hue::Worse, 0.256)), "color-mix(in srgb, var(--worse) 26%, var(--nothing))");
    }
}
