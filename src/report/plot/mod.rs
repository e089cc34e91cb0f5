//! Plots as plain data, and what draws them: SVG at the width of a column or of a page's text, and text for terminals.
//!
//! Sizes are in points: a column is 85 mm wide, full text width 170 mm; labels are of 7 points, so that they are legible in
//! print. Red is worse and blue is better, everywhere, and the palest is no difference. Series differ in their marks, too. What
//! cells stand for is also text that browsers show where a pointer rests on them.

mod bars;
mod canvas;
mod curves;
mod legend;
mod map;
mod passage;
mod scale;
mod sets;
pub mod text;
mod words;

pub use canvas::Ink;

use crate::sweep::Estimate;
use canvas::{Anchor, Canvas, Paint, TEXT, TITLE, fitted};

/// How wide a plot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 85 mm.
    Column,
    /// 170 mm.
    Full,
}

impl Width {
    /// In points.
    pub fn points(self) -> f64 {
        match self {
            Width::Column => 85.0 / 25.4 * 72.0,
            Width::Full => 170.0 / 25.4 * 72.0,
        }
    }
}

/// A plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Its title.
    pub title: String,
    /// What values are, with their unit.
    pub measure: String,
    /// What is drawn.
    pub drawing: Drawing,
}

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Drawing {
    /// Values side by side.
    Bars(Bars),
    /// Values over a quantity.
    Curves(Curves),
    /// Values over two.
    Map(HeatMap),
    /// Sets of layers.
    Sets(Sets),
    /// Words over two quantities.
    Words(Words),
    /// A text, token by token.
    Passage(Passage),
}

/// Values side by side, each with its interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// What the labels are.
    pub axis: String,
    /// Labels and values; an interval that is NaN is not drawn.
    pub bars: Vec<(String, Estimate)>,
    /// Whether values are differences: red above 0, blue below.
    pub difference: bool,
    /// A value to compare with, and its name.
    pub reference: Option<(f64, String)>,
}

/// Values over a quantity, a curve each series.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    /// What is on the horizontal axis.
    pub axis: String,
    /// The curves.
    pub series: Vec<Series>,
    /// Whether values are shares, from 0 to 1.
    pub shares: bool,
    /// A value to compare with, and its name.
    pub reference: Option<(f64, String)>,
}

/// A curve, or points alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Ascending where there is a line; an interval that is NaN is not drawn.
    pub points: Vec<(f64, Estimate)>,
    /// Whether a line joins them.
    pub line: bool,
}

/// Values over two quantities.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// What the rows are, and each one.
    pub down: (String, Vec<String>),
    /// What the columns are, and each one.
    pub across: (String, Vec<String>),
    /// By row, by column; none where there is nothing.
    pub cells: Vec<Vec<Option<f64>>>,
    /// What values are.
    pub sense: Sense,
    /// More about each cell, by row, by column; empty where there is no more to say.
    pub hover: Vec<Vec<String>>,
}

/// What the values of a map are, and which are good.
#[derive(Clone, Debug, PartialEq)]
pub enum Sense {
    /// Differences to the intact model: the redder the further above 0, which is worse, the bluer the further below.
    Loss,
    /// Shares, from 0 to 1.
    Share,
    /// Amounts, the colour's full depth standing for this one.
    Amount {
        /// The largest there may be.
        full: f64,
        /// Their unit.
        unit: &'static str,
    },
    /// What comes back: the bluer the further above what is even, which is better, the redder the further below.
    Gain(Gain),
}

/// A scale of what comes back.
#[derive(Clone, Debug, PartialEq)]
pub struct Gain {
    /// What is neither better nor worse.
    pub even: f64,
    /// How far from there the colour is full; where none is given, as far as the furthest value.
    pub full: Option<f64>,
    /// What the scale's upper end, its middle and its lower end are.
    pub names: [String; 3],
}

/// Words over two quantities.
#[derive(Clone, Debug, PartialEq)]
pub struct Words {
    /// What the rows are, and each one, the first on top.
    pub down: (String, Vec<String>),
    /// What the columns are, and each one.
    pub across: (String, Vec<String>),
    /// By row, by column.
    pub cells: Vec<Vec<Word>>,
    /// How many of each column's cells, from the top, lie above a line, and what the line says.
    pub line: Option<(Vec<usize>, String)>,
}

/// A word in a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Its share, from 0 to 1.
    pub share: f64,
    /// More about it.
    pub hover: String,
}

/// A text, token by token.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// The tokens.
    pub tokens: Vec<Spoken>,
}

/// A token of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Spoken {
    /// Its text.
    pub text: String,
    /// What is lost on it, more than intact; none where nothing predicts it.
    pub value: Option<f64>,
    /// Whether the line ends with it.
    pub ends_line: bool,
    /// More about it.
    pub hover: String,
}

/// Sets of layers, one a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Sets {
    /// Layers that there are.
    pub n_layer: usize,
    /// What rows' labels are.
    pub axis: String,
    /// What stands beside them.
    pub said: String,
    /// A label, the layers, what stands beside them.
    pub rows: Vec<(String, Vec<usize>, String)>,
}

impl Plot {
    /// The plot as SVG.
    pub fn svg(&self, width: Width, ink: Ink) -> String {
        sheet(std::slice::from_ref(self), width, ink)
    }

    /// Whether it takes the width of a page's text to be legible.
    pub fn is_wide(&self) -> bool {
        match &self.drawing {
            // Few columns, as heads are or the positions of a short prompt, have their numbers in a column.
            Drawing::Map(HeatMap { sense: Sense::Gain(_) | Sense::Amount { .. }, across, .. }) => across.1.len() > 12,
            Drawing::Map(_) | Drawing::Words(_) | Drawing::Passage(_) => true,
            Drawing::Bars(bars) => {
                bars.bars.iter().any(|(label, _)| label.chars().count() > 16) || bars.bars.len() > 24
            }
            Drawing::Curves(curves) => curves.series.len() > 4,
            Drawing::Sets(sets) => sets.n_layer > 16,
        }
    }

    /// Draws it from `top` on; where it ends.
    fn draw(&self, canvas: &mut Canvas, width: Width, top: f64) -> f64 {
        let room = width.points() - 2.0;
        let mut top = top + TITLE + 1.0;
        for line in wrapped(&unbroken(&self.title), TITLE, room) {
            canvas.text((1.0, top), TITLE, Anchor::Start, Paint::Ink, &line);
            top += TITLE + 2.0;
        }
        if !self.measure.is_empty() {
            canvas.text((1.0, top), TEXT, Anchor::Start, Paint::Soft, &fitted(&self.measure, TEXT, room));
            top += TEXT + 2.0;
        }
        match &self.drawing {
            Drawing::Bars(bars) => bars::draw(bars, canvas, width.points(), top),
            Drawing::Curves(curves) => curves::draw(curves, canvas, width.points(), top),
            Drawing::Map(map) => map::draw(map, canvas, width.points(), top),
            Drawing::Sets(sets) => sets::draw(sets, canvas, width.points(), top),
            Drawing::Words(words) => words::draw(words, canvas, width.points(), top),
            Drawing::Passage(passage) => passage::draw(passage, canvas, width.points(), top),
        }
    }
}

/// Plots on one sheet, one below the other, as SVG.
pub fn sheet(plots: &[Plot], width: Width, ink: Ink) -> String {
    let mut canvas = Canvas::new(width.points(), ink);
    let mut bottom = 0.0;
    for (i, plot) in plots.iter().enumerate() {
        let top = if i == 0 { 0.0 } else { bottom + GAP };
        bottom = plot.draw(&mut canvas, width, top);
    }
    let titles: Vec<String> = plots.iter().map(|plot| format!("{}; {}", plot.title, plot.measure)).collect();
    canvas.finish(bottom + 2.0, &titles.join(". "))
}

/// Between plots of one sheet.
const GAP: f64 = 14.0;

/// Quoted text that begins with a space, as tokens do, stays together where lines break.
pub(super) fn unbroken(text: &str) -> String {
    let within = text.replace(" \" ", " \"\u{a0}");
    within.strip_prefix("\" ").map_or(within.clone(), |rest| format!("\"\u{a0}{rest}"))
}

/// Words in lines; one that is too long alone is cut.
fn wrapped(text: &str, size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split([' ', '\n', '\t']).filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if canvas::width(line, size) + canvas::width(" ", size) + canvas::width(word, size) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(fitted(word, size, room)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(value: f64) -> Estimate {
        Estimate { value, low: value - 0.1, high: value + 0.2 }
    }

    fn all() -> Vec<Plot> {
        let bars = |labels: &[&str], difference| {
            let values = [0.5, -0.25, f64::NAN, f64::INFINITY, 4.0];
            let bars =
                labels.iter().zip(values.iter().cycle()).map(|(label, value)| (label.to_string(), estimate(*value)));
            Drawing::Bars(Bars {
                axis: "layer".into(),
                bars: bars.collect(),
                difference,
                reference: Some((7.6, "uniform".into())),
            })
        };
        let series = |name: &str, n: usize, line| Series {
            name: name.into(),
            points: (0..n).map(|x| (x as f64, estimate(if x == 3 { f64::NAN } else { x as f64 * 0.3 }))).collect(),
            line,
        };
        let curves = |shares| {
            let names = ["addition of several digits, few shots", "b", "c", "d", "e", "f", "g", "h", "i"];
            Drawing::Curves(Curves {
                axis: "layers kept".into(),
                series: names.iter().map(|name| series(name, 13, true)).chain([series("none", 0, false)]).collect(),
                shares,
                reference: None,
            })
        };
        let map = |rows: usize, columns: usize, sense| {
            let cell = |r: usize, c: usize| match (r, c) {
                (0, 0) => Some(f64::NAN),
                (0, 1) => Some(f64::INFINITY),
                _ if r > c => None,
                _ => Some((r as f64 - c as f64) / 10.0),
            };
            Drawing::Map(HeatMap {
                down: ("first".into(), (0..rows).map(|r| r.to_string()).collect()),
                across: ("second".into(), (0..columns).map(|c| c.to_string()).collect()),
                cells: (0..rows).map(|r| (0..columns).map(|c| cell(r, c)).collect()).collect(),
                sense,
                hover: vec![vec!["more <said>".into()]],
            })
        };
        let gain = |even, full| {
            Sense::Gain(Gain { even, full, names: ["the clean run".into(), "the corrupted run".into(), String::new()] })
        };
        // Columns whose names are no numbers, and too long to stand side by side.
        let named = |drawing| match drawing {
            Drawing::Map(mut map) => {
                map.across.1.iter_mut().for_each(|label| *label = format!("{label}\n·a very long token\n·another"));
                Drawing::Map(map)
            }
            other => other,
        };
        let words = |rows: usize, columns: usize| {
            let word = |r: usize, c: usize| Word {
                text: ["·a", "·Switzerland and", "", "\\n"][(r + c) % 4].into(),
                share: if r == c { f64::NAN } else { r as f64 / 10.0 },
                hover: String::new(),
            };
            Drawing::Words(Words {
                down: ("step".into(), (0..rows).map(|r| r.to_string()).collect()),
                across: ("the text".into(), (0..columns).map(|c| format!("·token {c}")).collect()),
                cells: (0..rows).map(|r| (0..columns).map(|c| word(r, c)).collect()).collect(),
                line: Some(((0..columns).map(|c| c % (rows + 1)).collect(), "above: what it says in the end".into())),
            })
        };
        let passage = |tokens: usize| {
            let spoken = |i: usize| Spoken {
                text: ["·a", &"long".repeat(60), "\\n", ""][i % 4].into(),
                value: [None, Some(0.3), Some(-9.0), Some(f64::NAN), Some(f64::INFINITY)][i % 5],
                ends_line: i % 4 == 2,
                hover: "x".into(),
            };
            Drawing::Passage(Passage { tokens: (0..tokens).map(spoken).collect() })
        };
        let sets = Drawing::Sets(Sets {
            n_layer: 12,
            axis: "layers".into(),
            said: "nats per token".into(),
            rows: vec![("0".into(), vec![], "7.62".into()), ("2".into(), vec![0, 11], "1.00".into())],
        });
        let many: Vec<String> = (0..60).map(|i| format!("0..{i},{}..99", i + 1)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let drawings = vec![
            bars(&["0", "1", "2", "3", "4"], true),
            bars(&["0..3,3*4,4..12", "a very long name of something that is nowhere else", "c", "d"], false),
            bars(&many, true),
            bars(&[], true),
            curves(false),
            curves(true),
            map(12, 12, Sense::Loss),
            map(2, 48, Sense::Share),
            map(0, 0, Sense::Loss),
            map(3, 5, Sense::Amount { full: 0.0, unit: "nats" }),
            map(12, 8, gain(0.0, Some(1.0))),
            map(4, 60, gain(1.0, None)),
            named(map(4, 20, gain(0.0, None))),
            sets,
            words(20, 30),
            words(0, 0),
            passage(40),
            passage(0),
        ];
        let plot = |drawing| Plot {
            title: "A & <title> of several words".into(),
            measure: "Δ loss, nats per token".into(),
            drawing,
        };
        drawings.into_iter().map(plot).collect()
    }

    /// The numbers of attributes that place shapes.
    fn coordinates(svg: &str) -> Vec<(String, f64)> {
        let mut found = Vec::new();
        for name in ["x", "y", "x1", "x2", "y1", "y2", "cx", "cy"] {
            for part in svg.split(&format!(" {name}=\"")).skip(1) {
                found.push((name.to_owned(), part.split('"').next().unwrap().parse().unwrap()));
            }
        }
        for part in svg.split(" points=\"").skip(1) {
            for (i, number) in part.split('"').next().unwrap().split([' ', ',']).filter(|n| !n.is_empty()).enumerate() {
                found.push((if i % 2 == 0 { "x" } else { "y" }.to_owned(), number.parse().unwrap()));
            }
        }
        found
    }

    #[test]
    fn everything_lies_on_the_canvas() {
        for plot in all() {
            for width in [Width::Column, Width::Full] {
                let svg = plot.svg(width, Ink::Paper);
                let height: f64 = svg.split("height=\"").nth(1).unwrap().split("pt").next().unwrap().parse().unwrap();
                for (name, value) in coordinates(&svg) {
                    let end = if name.contains('x') { width.points() } else { height };
                    assert!((-0.01..=end + 0.01).contains(&value), "{name} {value} of {end}\n{svg}");
                }
            }
        }
    }

    #[test]
    fn drawings_are_the_same_every_time_and_take_their_colours_from_the_page() {
        for plot in all() {
            assert_eq!(plot.svg(Width::Full, Ink::Page), plot.svg(Width::Full, Ink::Page));
            let page = plot.svg(Width::Full, Ink::Page);
            assert!(!page.contains("=\"#"), "{page}");
            assert!(page.contains("A &amp; &lt;title&gt; of"), "{page}");
        }
    }

    #[test]
    fn bars_begin_at_zero_and_are_as_long_as_their_values() {
        let bar = |value: f64| (format!("{value}"), Estimate { value, low: f64::NAN, high: f64::NAN });
        let plot = Plot {
            title: String::new(),
            measure: String::new(),
            drawing: Drawing::Bars(Bars {
                axis: String::new(),
                bars: [1.0, 2.0, -1.0].map(bar).to_vec(),
                difference: true,
                reference: None,
            }),
        };
        let svg = plot.svg(Width::Column, Ink::Paper);
        let rects: Vec<&str> = svg.lines().filter(|line| line.starts_with("<rect x=")).collect();
        let of = |rect: &str, name: &str| -> f64 {
            rect.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        let [one, two, minus] = rects[..] else { panic!("{svg}") };
        assert!((of(two, "height") - 2.0 * of(one, "height")).abs() < 0.05);
        assert!((of(minus, "height") - of(one, "height")).abs() < 0.05);
        assert!((of(one, "y") + of(one, "height") - of(minus, "y")).abs() < 0.05, "both begin at zero");
        assert!(one.contains("#b2182b") && minus.contains("#2166ac"));
    }

    #[test]
    fn titles_wrap() {
        let lines = wrapped("one two three four", 10.0, 60.0);
        assert_eq!(lines, ["one two", "three four"]);
        assert_eq!(wrapped(&unbroken("logit \" a\""), 10.0, 30.0), ["logit", "\"\u{a0}a\""]);
    }
}
