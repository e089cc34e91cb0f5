//! Where results go: stdout or a file, as text, tables or JSON lines. Data only; notes for people go through [`note`]
//! to stderr. Colour is for headings and only where the terminal and NO_COLOR / CLICOLOR_FORCE allow it.

mod file;
mod picture;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anstream::ColorChoice;
use anstyle::{Ansi256Color, AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};
use lesion::measure::Number;
use lesion::report::inside::Shown;
use lesion::report::plot::Plot;
use lesion::report::plot::text::{self, Tone};
use serde::Serialize;

use self::file::OutputFile;
use self::picture::Picture;
pub(crate) use self::picture::{figures_of, view_failure};
use super::args::OutputArgs;
use super::failure::{Failure, Result};
use super::resolve::NamedPlan;

/// The version of every JSON object that is printed. Fields are added within it, never renamed.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// The sink of a command's results.
pub(crate) struct Output {
    sink: Sink,
    /// Results are JSON lines.
    pub(crate) json: bool,
    /// They are drawn.
    picture: Option<Picture>,
    bold: Style,
    colour: bool,
    /// A person is watching: control characters in a model's text are escaped.
    terminal: bool,
}

enum Sink {
    Stdout,
    File(OutputFile),
}

impl Output {
    /// Refuses an output file that exists, before any work is done.
    pub(crate) fn open(args: &OutputArgs) -> Result<Output> {
        Ok(match &args.output {
            None => Output::stdout(args.json),
            Some(path) => {
                let sink = Sink::File(OutputFile::new(path, args.force)?);
                Output { sink, json: args.json, picture: None, bold: Style::new(), colour: false, terminal: false }
            }
        })
    }

    /// The same of a command whose objects can be drawn: into a file whose name ends in `.svg` or `.png`.
    pub(crate) fn open_drawn(args: &OutputArgs) -> Result<Output> {
        Ok(Output { picture: Picture::wanted(args)?, ..Output::open(args)? })
    }

    /// Whether results are objects: JSON lines, or what a drawing is made of.
    pub(crate) fn takes_objects(&self) -> bool {
        self.json || self.picture.is_some()
    }

    /// Refuses what a drawing can't show, where one is asked for: several plans, or too many cells.
    pub(crate) fn check_drawn(
        &mut self,
        plans: &[NamedPlan],
        cells: &dyn Fn(&NamedPlan) -> usize,
        shown: Shown,
    ) -> Result<()> {
        self.picture.as_mut().map_or(Ok(()), |picture| picture.check(plans, cells, shown))
    }

    /// Results on stdout.
    pub(crate) fn stdout(json: bool) -> Output {
        let stdout = io::stdout();
        let colour = anstream::AutoStream::choice(&stdout) != ColorChoice::Never;
        let bold = if colour { Style::new().bold() } else { Style::new() };
        Output { sink: Sink::Stdout, json, picture: None, bold, colour, terminal: stdout.is_terminal() }
    }

    /// Text as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.sink {
            Sink::Stdout => io::stdout().lock().write_all(bytes).map_err(|error| Failure::stdout(&error)),
            Sink::File(file) => file.write(bytes),
        }
    }

    /// A line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<()> {
        self.text(line.as_ref())?;
        self.text("\n")
    }

    /// A line that opens a block.
    pub(crate) fn heading(&mut self, line: &str) -> Result<()> {
        let bold = self.bold;
        self.line(format!("{bold}{line}{bold:#}"))
    }

    /// A table with its bars in colour: red is worse, blue, behind a minus, is better.
    pub(crate) fn painted(&self, table: &str) -> String {
        if !self.colour {
            return table.to_owned();
        }
        let paint = |line: &str| match line.find(['−', '█', '▏', '▎', '▍', '▌', '▋', '▊', '▉']) {
            Some(at) => {
                let colour = if line[at..].starts_with('−') { AnsiColor::Blue } else { AnsiColor::Red };
                let style = Style::new().fg_color(Some(colour.into()));
                format!("{}{style}{}{style:#}\n", &line[..at], &line[at..])
            }
            None => format!("{line}\n"),
        };
        table.lines().map(paint).collect()
    }

    /// A cell of a heat map: the redder the worse, the bluer the better, the palest at 0. Without colour a narrow cell,
    /// which holds no number, is a shade.
    pub(crate) fn shaded(&self, text: &str, value: f64, extreme: f64) -> String {
        const RED: [u8; 6] = [231, 224, 217, 210, 203, 196];
        const BLUE: [u8; 6] = [231, 195, 153, 111, 69, 27];
        let strength = if extreme > 0.0 { (value.abs() / extreme).min(1.0) } else { 0.0 };
        let level = if value.is_nan() { 0 } else { (strength * 5.0).round() as usize };
        let full = text.starts_with('█');
        if !self.colour {
            let shade =
                if value < 0.0 { [' ', '-', '-', '=', '=', '='] } else { [' ', '░', '░', '▒', '▓', '█'] }[level];
            return if full { shade.to_string().repeat(2) } else { text.to_owned() };
        }
        let colour = Ansi256Color(if value < 0.0 { BLUE[level] } else { RED[level] });
        let style = match full {
            true => Style::new().fg_color(Some(colour.into())),
            false => Style::new().bg_color(Some(colour.into())).fg_color(Some(Ansi256Color(16).into())),
        };
        format!("{style}{text}{style:#}")
    }

    /// A share, neither worse nor better, two columns wide; `·` stands where there is next to none.
    pub(crate) fn amount(&self, share: f64) -> String {
        let glyph = match share {
            share if share.is_nan() => return "? ".to_owned(),
            _ if self.colour => return self.shaded("██", -share, 1.0),
            share if share < 0.05 => return "· ".to_owned(),
            share if share < 0.25 => '░',
            share if share < 0.5 => '▒',
            share if share < 0.75 => '▓',
            _ => '█',
        };
        glyph.to_string().repeat(2)
    }

    /// A plot as text.
    pub(crate) fn plot(&mut self, plot: &Plot) -> Result<()> {
        let text = text::draw(plot, &|tone, text| self.dyed(tone, text));
        self.text(&text)
    }

    fn dyed(&self, tone: Tone, text: &str) -> String {
        const SERIES: [AnsiColor; 6] =
            [AnsiColor::Blue, AnsiColor::Yellow, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::Cyan, AnsiColor::Red];
        let colour = match tone {
            Tone::Cell(value, extreme) => return self.shaded(text, value, extreme),
            Tone::Title => return format!("{}{text}{:#}", self.bold, self.bold),
            _ if !self.colour => return text.to_owned(),
            Tone::Worse => AnsiColor::Red,
            Tone::Better => AnsiColor::Blue,
            Tone::Amount => AnsiColor::Cyan,
            Tone::Series(series) => SERIES[series % SERIES.len()],
        };
        let style = Style::new().fg_color(Some(colour.into()));
        format!("{style}{text}{style:#}")
    }

    /// Text that a model made: exact in a pipe, its control characters escaped on a terminal.
    pub(crate) fn model_text(&mut self, text: &str) -> Result<()> {
        if self.terminal { self.text(&escape_controls(text)) } else { self.text(text) }
    }

    /// One object on one line, or in the drawing.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<()> {
        if let Some(picture) = &mut self.picture {
            picture.push(object);
            return Ok(());
        }
        let line = serde_json::to_string(object).expect("records have string keys and no failing serializer");
        self.line(line)
    }

    /// What has been written is on its way.
    pub(crate) fn flush(&mut self) -> Result<()> {
        match self.sink {
            Sink::Stdout => io::stdout().lock().flush().map_err(|error| Failure::stdout(&error)),
            Sink::File(_) => Ok(()),
        }
    }

    /// Gives the output file its name, if there is one.
    pub(crate) fn finish(mut self) -> Result<()> {
        if let Some(picture) = self.picture.take() {
            self.bytes(&picture.draw()?)?;
        }
        self.flush()?;
        match self.sink {
            Sink::Stdout => Ok(()),
            Sink::File(file) => file.finish(),
        }
    }
}

/// A line on stderr.
pub(crate) fn note(line: impl AsRef<str>) {
    // Whoever can't be told (a full disk, a closed pipe) loses a remark, not the results.
    let _ = writeln!(anstream::stderr(), "{}", line.as_ref());
}

/// Numbers in JSON.
pub(crate) fn numbers(values: &[f64]) -> Vec<Number> {
    values.iter().copied().map(Number).collect()
}

/// Rows under a header: columns from `right_from` on hold numbers and go to the right, the others to the left.
pub(crate) fn table(header: &[String], rows: &[Vec<String>], right_from: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let escaped = |row: &[String]| row.iter().map(|cell| escape_controls(cell)).collect::<Vec<_>>();
    if !header.is_empty() {
        table.set_header(escaped(header));
    }
    rows.iter().for_each(|row| {
        table.add_row(escaped(row));
    });
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= right_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    trimmed(&table)
}

/// A table's lines without the spaces that fill its last column.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Rows whose cells hold prose: every column to the left, wrapped to `width` characters.
pub(crate) fn prose_table(header: &[String], rows: &[Vec<String>], width: u16) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(comfy_table::ContentArrangement::DynamicFullWidth);
    table.set_width(width).set_header(header);
    rows.iter().for_each(|row| {
        table.add_row(row.iter().map(|cell| escape_controls(cell)));
    });
    trimmed(&table)
}

/// `text` with control characters other than line breaks and tabs written as escapes.
pub(crate) fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            let _ = write!(escaped, "{}", c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A loss or another measured number, for people.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 1e-3 => format!("{value:.2e}"),
        large if large >= 1e6 => format!("{value:.3e}"),
        _ if value.is_finite() => format!("{value:.4}"),
        _ => value.to_string(),
    }
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_numbers_are_strings() {
        let json = serde_json::to_string(&numbers(&[1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0])).unwrap();
        assert_eq!(json, r#"[1.5,"NaN","inf","-inf",-0.0]"#);
    }

    #[test]
    fn terminal_escapes_do_not_reach_a_terminal() {
        assert_eq!(escape_controls("a\x1b[2J\x07\nb\tc\u{9b}"), "a\\u{1b}[2J\\u{7}\nb\tc\\u{9b}");
    }

    #[test]
    fn tables_have_no_trailing_space() {
        let text = table(&["".into(), "0..12".into()], &[vec!["nats".into(), "1.5".into()]], 1);
        assert_eq!(text, "      0..12\nnats    1.5\n");
    }
}
