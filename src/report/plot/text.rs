//! Plots as text: bars whose intervals are shades, curves of marks, maps of numbers. Colours are the caller's: everything can
//! be told without them.

use super::scale::Scale;
use super::{Bars, Curves, Drawing, Gain, HeatMap, Passage, Plot, Sense, Sets, Words};
use crate::report::number::{percent, places, plain, signed};
use crate::sweep::Estimate;

/// What a piece of text is, for those who colour it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tone {
    /// The title.
    Title,
    /// A bar, or a part of it, above 0.
    Worse,
    /// The same below 0.
    Better,
    /// A value that is no difference.
    Amount,
    /// The mark of a series.
    Series(usize),
    /// A cell of a map: its value, and the largest there is. One without a number is two full blocks.
    Cell(f64, f64),
}

/// Colours a piece of text.
pub type Dye<'a> = dyn Fn(Tone, &str) -> String + 'a;

/// Columns of a bar, or of curves.
const COLUMNS: usize = 48;

/// Rows of curves.
const ROWS: usize = 14;

/// Columns of a map at most; wider ones show shades alone.
const MAP_WIDTH: usize = 150;

/// Labels are this long at most.
const LABEL: usize = 40;

/// The plot, line by line; each ends with a line break.
pub fn draw(plot: &Plot, dye: &Dye<'_>) -> String {
    let measure = if plot.measure.is_empty() { String::new() } else { format!(": {}", plot.measure) };
    let mut lines = vec![dye(Tone::Title, &format!("{}{measure}", plot.title))];
    match &plot.drawing {
        Drawing::Bars(bars) => draw_bars(bars, dye, &mut lines),
        Drawing::Curves(curves) => draw_curves(curves, dye, &mut lines),
        Drawing::Map(map) => draw_map(map, dye, &mut lines),
        Drawing::Sets(sets) => draw_sets(sets, dye, &mut lines),
        Drawing::Words(words) => draw_words(words, dye, &mut lines),
        Drawing::Passage(passage) => draw_passage(passage, dye, &mut lines),
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn finite(values: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
    values.filter(|value| value.is_finite())
}

fn shortened(label: &str) -> String {
    let count = label.chars().count();
    if count <= LABEL { label.to_owned() } else { label.chars().take(LABEL - 1).chain(['…']).collect() }
}

fn draw_bars(bars: &Bars, dye: &Dye<'_>, lines: &mut Vec<String>) {
    let values = || bars.bars.iter().map(|(_, estimate)| estimate);
    let ends = finite(values().flat_map(|e| [e.value, e.low, e.high]));
    let (low, high) = ends
        .chain(bars.reference.as_ref().map(|(value, _)| *value).filter(|value| value.is_finite()))
        .fold((0.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let span = if high > low { high - low } else { 1.0 };
    let at = |value: f64| (((value - low) / span).clamp(0.0, 1.0) * COLUMNS as f64).round() as usize;
    let largest = finite(values().map(|e| e.value.abs())).fold(0.0, f64::max);
    let places = places(largest).max(2);
    let text = |value: f64| if bars.difference { signed(value, places) } else { plain(value, places) };
    let labels: Vec<String> = bars.bars.iter().map(|(label, _)| shortened(label)).collect();
    let wide = labels.iter().chain([&bars.axis]).map(|label| label.chars().count()).max().unwrap_or(0);
    let numbers = values().map(|e| text(e.value).chars().count()).max().unwrap_or(0);
    let mut head = format!("{:>wide$}", bars.axis);
    if let Some((value, name)) = &bars.reference {
        head.push_str(&format!("  {}┆ {name}, {}", " ".repeat(numbers + 2 + at(*value)), plain(*value, places)));
    }
    lines.push(head);
    for (label, (_, estimate)) in labels.iter().zip(&bars.bars) {
        let bar = bar(estimate, bars, dye, &at);
        let interval = match estimate.low.is_finite() && estimate.high.is_finite() && estimate.low < estimate.high {
            true => format!("  {} … {}", text(estimate.low), text(estimate.high)),
            false => String::new(),
        };
        lines.push(format!("{label:>wide$}  {:>numbers$}  {bar}{interval}", text(estimate.value)));
    }
    if values().any(|e| e.low < e.high) {
        lines.push(format!("{}  ▓ and ░: the 95 % interval", " ".repeat(wide + numbers + 2)));
    }
}

/// `█` up to the interval, `▓` in it up to the value, `░` in it beyond; `│` at 0 where bars go both ways.
fn bar(estimate: &Estimate, bars: &Bars, dye: &Dye<'_>, at: &dyn Fn(f64) -> usize) -> String {
    let Estimate { value, low, high } = *estimate;
    if value.is_nan() {
        return format!("{:<1$}", "NaN", COLUMNS + 1);
    }
    let (from, to) = (at(value.min(0.0)), at(value.max(0.0)));
    let interval = if low.is_finite() && high.is_finite() && low < high { at(low)..at(high) } else { 0..0 };
    let zero = at(0.0);
    let reference = bars.reference.as_ref().map(|(value, _)| at(*value));
    let glyph = |column: usize| match ((from..to).contains(&column), interval.contains(&column)) {
        (true, true) => '▓',
        (true, false) => '█',
        (false, true) => '░',
        (false, false) if column == zero && zero > 0 => '│',
        (false, false) if Some(column) == reference => '┆',
        (false, false) => ' ',
    };
    let tone = match (bars.difference, value < 0.0) {
        (false, _) => Tone::Amount,
        (true, true) => Tone::Better,
        (true, false) => Tone::Worse,
    };
    dye(tone, &(0..=COLUMNS).map(glyph).collect::<String>())
}

/// Marks of series: told apart without colours.
const MARKS: [char; 8] = ['●', '■', '▲', '◆', '○', '□', '△', '◇'];

fn draw_curves(curves: &Curves, dye: &Dye<'_>, lines: &mut Vec<String>) {
    let points = || curves.series.iter().flat_map(|series| &series.points);
    let ends = points().map(|(_, e)| e.value).chain(curves.reference.as_ref().map(|(value, _)| *value)).chain([0.0]);
    let down = if curves.shares { Scale::shares() } else { Scale::new(ends, 5) };
    let quantities = finite(points().map(|(quantity, _)| *quantity));
    let (first, last) = quantities.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), q| (a.min(q), b.max(q)));
    if first > last {
        return lines.push("nothing to draw".to_owned());
    }
    let span = if last > first { last - first } else { 1.0 };
    let column = |quantity: f64| ((quantity - first) / span * (COLUMNS - 1) as f64).round() as usize;
    let row = |value: f64| ROWS - 1 - (down.at(value) * (ROWS - 1) as f64).round() as usize;
    let mut grid: Vec<Vec<(char, Option<usize>)>> = vec![vec![(' ', None); COLUMNS]; ROWS];
    if let Some((value, _)) = &curves.reference {
        grid[row(*value)].iter_mut().for_each(|cell| *cell = ('┄', None));
    }
    for (i, series) in curves.series.iter().enumerate().filter(|(_, series)| series.line) {
        for pair in series.points.windows(2).filter(|pair| pair.iter().all(|(_, e)| !e.value.is_nan())) {
            let [from, to] = [pair[0], pair[1]].map(|(quantity, e)| (column(quantity), row(e.value)));
            join(&mut grid, i, from, to);
        }
    }
    for (i, series) in curves.series.iter().enumerate() {
        for (quantity, e) in &series.points {
            let (row, mark) = if e.value.is_nan() { (0, '?') } else { (row(e.value), MARKS[i % MARKS.len()]) };
            grid[row][column(*quantity)] = (mark, Some(i));
        }
    }
    let text = |tick: f64| if curves.shares { percent(tick) } else { down.text(tick) };
    let wide = down.ticks.iter().map(|tick| text(*tick).chars().count()).max().unwrap_or(0);
    for (r, cells) in grid.iter().enumerate() {
        let tick = down.ticks.iter().find(|tick| row(**tick) == r).map_or(String::new(), |tick| text(*tick));
        let cells: String = cells
            .iter()
            .map(|(c, series)| series.map_or_else(|| c.to_string(), |series| dye(Tone::Series(series), &c.to_string())))
            .collect();
        lines.push(format!("{tick:>wide$} ┤{cells}"));
    }
    let (from, to) = (format!("{first}"), format!("{last}"));
    let gap = COLUMNS.saturating_sub(from.len() + to.len() + curves.axis.chars().count());
    lines.push(format!("{} └{}", " ".repeat(wide), "─".repeat(COLUMNS)));
    lines.push(format!(
        "{}  {from}{}{}{}{to}",
        " ".repeat(wide),
        " ".repeat(gap / 2),
        curves.axis,
        " ".repeat(gap - gap / 2)
    ));
    if points().any(|(_, e)| e.value.is_nan()) {
        lines.push(format!("{}  ? NaN", " ".repeat(wide)));
    }
    if curves.series.len() > 1 || curves.reference.is_some() {
        for (i, series) in curves.series.iter().enumerate() {
            let mark = dye(Tone::Series(i), &MARKS[i % MARKS.len()].to_string());
            lines.push(format!("{}  {mark} {}", " ".repeat(wide), series.name));
        }
        lines.extend(curves.reference.iter().map(|(_, name)| format!("{}  ┄ {name}", " ".repeat(wide))));
    }
}

/// Dots between two points, one a column.
fn join(grid: &mut [Vec<(char, Option<usize>)>], series: usize, from: (usize, usize), to: (usize, usize)) {
    let steps = to.0.saturating_sub(from.0).max(1) as f64;
    let row = |column: usize| {
        let share = (column - from.0) as f64 / steps;
        (from.1 as f64 + share * (to.1 as f64 - from.1 as f64)).round() as usize
    };
    (from.0..to.0).for_each(|column| grid[row(column)][column] = ('·', Some(series)));
}

fn draw_map(map: &HeatMap, dye: &Dye<'_>, lines: &mut Vec<String>) {
    let ((down, rows), (across, columns)) = (&map.down, &map.across);
    let narrow =
        columns.len() * 7 + 8 > MAP_WIDTH || columns.iter().any(|column| first_line(column).chars().count() > 6);
    let width = if narrow { 2 } else { 7 };
    let even = if let Sense::Gain(Gain { even, .. }) = map.sense { even } else { 0.0 };
    let sizes = map.cells.iter().flatten().flatten().map(|value| (value - even).abs());
    let extreme = match &map.sense {
        Sense::Share => 1.0,
        Sense::Amount { full, .. } => *full,
        Sense::Gain(Gain { full: Some(full), .. }) => *full,
        Sense::Loss | Sense::Gain(_) => finite(sizes).fold(0.0, f64::max),
    };
    // Of gains what is above is better.
    let tone = |value: f64| match map.sense {
        Sense::Gain(_) => Tone::Cell(even - value, extreme),
        _ => Tone::Cell(value, extreme),
    };
    let label = rows.iter().map(|row| shortened(row).chars().count() + 1).max().unwrap_or(0).max(8);
    let label = label.max(down.chars().count() + 3);
    let mut head = format!("{:<label$}", format!("{down} ↓"));
    if !narrow {
        columns.iter().for_each(|column| head.push_str(&format!("{:>width$}", first_line(column))));
    }
    let ends = match (&columns[..], narrow) {
        ([first, .., last], true) => format!(" {} … {}", first_line(first), first_line(last)),
        _ => String::new(),
    };
    lines.push(format!("{head}  → {across}{ends}"));
    for (row, values) in rows.iter().zip(&map.cells) {
        let mut line = format!("{:<label$}", shortened(row));
        for value in values {
            line.push_str(&match value {
                None => " ".repeat(width),
                Some(value) => dye(tone(*value), &cell(*value, width, &map.sense)),
            });
        }
        lines.push(line);
    }
}

/// A value as wide as a cell; in narrow ones a shade.
fn cell(value: f64, width: usize, sense: &Sense) -> String {
    if width < 7 {
        return if value.is_nan() { "? ".to_owned() } else { "██".to_owned() };
    }
    let text = match value.abs() {
        _ if *sense == Sense::Share => percent(value),
        _ if matches!(sense, Sense::Amount { .. }) => plain(value, 1),
        small if small < 0.005 => "0".to_owned(),
        large if large < 100.0 => format!("{value:+.2}"),
        large if large < 10_000.0 => format!("{value:+.0}"),
        large if large.is_finite() => format!("{value:+.0e}"),
        _ => value.to_string(),
    };
    format!("{text:>width$}")
}

/// A column's name without what stands below it.
fn first_line(label: &str) -> &str {
    label.split('\n').next().unwrap_or_default()
}

/// A line a row: words and their shares, in percent.
fn draw_words(words: &Words, dye: &Dye<'_>, lines: &mut Vec<String>) {
    let ((down, rows), (across, columns)) = (&words.down, &words.across);
    let label = rows.iter().chain([down]).map(|row| row.chars().count()).max().unwrap_or(0);
    let texts = words.cells.iter().flatten().map(|word| &word.text).chain(columns);
    let wide = texts.map(|text| text.chars().count()).max().unwrap_or(0);
    for (row, cells) in rows.iter().zip(&words.cells) {
        let mut line = format!("{row:>label$}");
        for word in cells {
            let share = if word.share.is_nan() { "NaN".to_owned() } else { format!("{:.0}", 100.0 * word.share) };
            line.push(' ');
            line.push_str(&dye(Tone::Cell(-word.share, 1.0), &format!("{:<wide$} {share:>3}", word.text)));
        }
        lines.push(line);
    }
    let names: String = columns.iter().map(|column| format!(" {column:<0$}", wide + 4)).collect();
    lines.push(format!("{down:>label$}{names}"));
    lines.push(format!("{:>label$} {across}", ""));
}

/// The text, on one line.
fn draw_passage(passage: &Passage, dye: &Dye<'_>, lines: &mut Vec<String>) {
    let sizes = passage.tokens.iter().filter_map(|token| token.value).map(f64::abs);
    let extreme = finite(sizes).fold(0.0, f64::max);
    let token = |token: &super::Spoken| match token.value {
        Some(value) => dye(Tone::Cell(value, extreme), &token.text),
        None => token.text.clone(),
    };
    lines.push(passage.tokens.iter().map(token).collect());
}

fn draw_sets(sets: &Sets, dye: &Dye<'_>, lines: &mut Vec<String>) {
    let wide = sets.rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0).max(sets.axis.chars().count());
    let layers: String = (0..sets.n_layer).map(|layer| format!("{layer:>3}")).collect();
    lines.push(format!("{:>wide$} {layers}  {}", sets.axis, sets.said));
    for (label, kept, said) in &sets.rows {
        let dots: String = (0..sets.n_layer)
            .map(|layer| if kept.contains(&layer) { dye(Tone::Series(0), "  ●") } else { "  ·".to_owned() })
            .collect();
        lines.push(format!("{label:>wide$} {dots}  {said}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Series;
    use super::*;

    fn plain_text(drawing: Drawing) -> String {
        let plot = Plot { title: "t".into(), measure: "nats".into(), drawing };
        draw(&plot, &|_, text| text.to_owned())
    }

    fn at(value: f64, low: f64, high: f64) -> Estimate {
        Estimate { value, low, high }
    }

    #[test]
    fn bars_show_their_intervals() {
        let text = plain_text(Drawing::Bars(Bars {
            axis: "layer".into(),
            bars: vec![
                ("0".into(), at(2.0, 1.5, 2.4)),
                ("1".into(), at(1.0, 1.0, 1.0)),
                ("2".into(), at(f64::NAN, f64::NAN, f64::NAN)),
            ],
            difference: true,
            reference: None,
        }));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "t: nats");
        assert_eq!(
            lines[2],
            format!("    0  +2.00  {}{}{}   +1.50 … +2.40", "█".repeat(30), "▓".repeat(10), "░".repeat(8))
        );
        assert_eq!(lines[3], format!("    1  +1.00  {}", "█".repeat(20)));
        assert_eq!(lines[4].trim_end(), "    2    NaN  NaN");
    }

    #[test]
    fn bars_go_both_ways_from_zero() {
        let bars = vec![("a".into(), at(-1.0, f64::NAN, f64::NAN)), ("b".into(), at(1.0, f64::NAN, f64::NAN))];
        let text = plain_text(Drawing::Bars(Bars { axis: String::new(), bars, difference: true, reference: None }));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], format!("a  −1.00  {}│", "█".repeat(24)));
        assert_eq!(lines[3], format!("b  +1.00  {}{}", " ".repeat(24), "█".repeat(24)));
    }

    #[test]
    fn curves_hold_every_point() {
        let points = |f: &dyn Fn(f64) -> f64| (0..=12).map(|x| (f64::from(x), at(f(f64::from(x)), 0.0, 0.0))).collect();
        let series = vec![
            Series { name: "falls".into(), points: points(&|x| 12.0 - x), line: true },
            Series { name: "rises".into(), points: points(&|x| x), line: false },
        ];
        let text =
            plain_text(Drawing::Curves(Curves { axis: "layers".into(), series, shares: false, reference: None }));
        assert_eq!(text.matches('●').count(), 13 + 1 - 1, "{text}");
        assert_eq!(text.matches('■').count(), 13 + 1, "one where both cross is the later one's: {text}");
        assert!(text.contains(" ┤●") && text.contains("0                   layers                    12"), "{text}");
        let empty = Curves { axis: "x".into(), series: vec![], shares: false, reference: None };
        assert!(plain_text(Drawing::Curves(empty)).contains("nothing to draw"));
    }

    #[test]
    fn maps_have_numbers_where_there_is_room() {
        let map = |columns: usize| HeatMap {
            down: ("first".into(), vec!["0".into(), "1".into()]),
            across: ("second".into(), (0..columns).map(|c| c.to_string()).collect()),
            cells: vec![vec![Some(0.5); columns], vec![None; columns]],
            sense: Sense::Loss,
            hover: vec![],
        };
        let text = plain_text(Drawing::Map(map(2)));
        assert_eq!(text, "t: nats\nfirst ↓       0      1  → second\n0         +0.50  +0.50\n1\n");
        let wide = plain_text(Drawing::Map(map(40)));
        assert!(wide.contains("first ↓   → second 0 … 39\n") && wide.contains(&"██".repeat(40)), "{wide}");
    }

    #[test]
    fn cells_keep_their_width() {
        for value in [0.0, -0.001, 0.1234, -3.5, 99.99, -1234.0, 1e9, f64::NAN, f64::INFINITY] {
            assert_eq!(cell(value, 7, &Sense::Loss).chars().count(), 7, "{value}");
        }
        assert_eq!(cell(0.5, 7, &Sense::Share), "   50\u{a0}%");
    }

    #[test]
    fn sets_are_rows_of_dots() {
        let rows = vec![("2".into(), vec![0, 2], "0.5".into())];
        let sets = Sets { n_layer: 3, axis: "size".into(), said: "nats".into(), rows };
        assert_eq!(plain_text(Drawing::Sets(sets)), "t: nats\nsize   0  1  2  nats\n   2   ●  ·  ●  0.5\n");
    }
}
