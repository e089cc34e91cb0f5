//! Small grids of shaded numbers, narrow enough for twelve heads in a terminal of 80 columns.

use crate::cli::failure::Result;
use crate::cli::output::Output;

/// Rows' labels are this long at most.
const LABEL: usize = 14;

/// The narrowest cell.
const NARROW: usize = 4;

/// A cell: what is written, and what its shade stands for: red above 0, blue below.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) value: f64,
}

/// Cells by row and column.
pub(super) struct Grid {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<(String, Vec<Option<Cell>>)>,
    /// The value of the deepest shade.
    pub(super) extreme: f64,
}

impl Grid {
    pub(super) fn show(&self, output: &mut Output) -> Result<()> {
        let Grid { columns, rows, extreme } = self;
        let labels: Vec<String> = rows.iter().map(|(label, _)| shortened(label)).collect();
        let label = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        let texts = rows.iter().flat_map(|(_, cells)| cells).flatten().map(|cell| &cell.text).chain(columns);
        let width = texts.map(|text| text.chars().count() + 1).max().unwrap_or(0).max(NARROW);
        let head: String = columns.iter().map(|column| format!("{column:>width$}")).collect();
        output.line(format!("{:label$} {head}", ""))?;
        for (name, (_, cells)) in labels.iter().zip(rows) {
            let mut line = format!("{name:>label$} ");
            for cell in cells {
                line.push_str(&match cell {
                    Some(Cell { text, value }) => output.shaded(&format!("{text:>width$}"), *value, *extreme),
                    None => " ".repeat(width),
                });
            }
            output.line(line.trim_end())?;
        }
        Ok(())
    }
}

fn shortened(label: &str) -> String {
    match label.chars().count() {
        0..=LABEL => label.to_owned(),
        _ => label.chars().take(LABEL - 1).chain(['…']).collect(),
    }
}
