//! Maps in a terminal of 80 columns: rows are layers, columns positions or heads, as many side by side as a line holds. The bluer
//! the more the answer comes back, the redder the more it goes.

use crate::cli::failure::Result;
use crate::cli::output::Output;

/// Characters of a cell, and cells of a line.
pub(super) const CELL: usize = 5;
const COLUMNS: usize = 12;

/// Values by row and column.
pub(crate) struct Map {
    pub(crate) rows: Vec<String>,
    /// Lines above the columns: what they are, and each column's, of [`CELL`] characters at most.
    pub(crate) heads: Vec<(String, Vec<String>)>,
    pub(crate) cells: Vec<Vec<f64>>,
    /// What is neither better nor worse.
    pub(crate) even: f64,
    /// How far from that the colour is full.
    pub(crate) extreme: f64,
}

pub(crate) fn show(output: &mut Output, map: &Map) -> Result<()> {
    let names = map.rows.iter().chain(map.heads.iter().map(|(name, _)| name));
    let label = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let columns = map.cells.first().map_or(0, Vec::len);
    for first in (0..columns).step_by(COLUMNS) {
        let block = first..columns.min(first + COLUMNS);
        if first > 0 {
            output.line("")?;
        }
        for (name, texts) in &map.heads {
            let texts: String = texts[block.clone()].iter().map(|text| format!(" {text:>CELL$}")).collect();
            output.line(format!("{name:>label$}{texts}").trim_end())?;
        }
        for (name, values) in map.rows.iter().zip(&map.cells) {
            let mut line = format!("{name:>label$}");
            for value in &values[block.clone()] {
                line.push(' ');
                line.push_str(&output.shaded(&cell(*value), map.even - value, map.extreme));
            }
            output.line(line)?;
        }
    }
    Ok(())
}

/// The cells that are furthest from even, as text: `10 h1 +1.00`.
pub(super) fn furthest(map: &Map, count: usize, column: &dyn Fn(usize) -> String) -> String {
    let mut all: Vec<(usize, usize, f64)> = Vec::new();
    for (r, row) in map.cells.iter().enumerate() {
        all.extend(row.iter().enumerate().map(|(c, value)| (r, c, *value)));
    }
    let away = |value: f64| (value - map.even).abs();
    all.retain(|&(_, _, value)| value.is_finite() && away(value) >= 0.005);
    // Stable: of equals the first.
    all.sort_by(|a, b| away(b.2).total_cmp(&away(a.2)));
    let named =
        all.iter().take(count).map(|&(r, c, value)| format!("{} {} {}", map.rows[r], column(c), cell(value).trim()));
    match named.collect::<Vec<_>>().join(" · ") {
        none if none.is_empty() => "none, by 0.005 or more".to_owned(),
        named => named,
    }
}

/// A value as wide as a cell.
fn cell(value: f64) -> String {
    let text = match value.abs() {
        small if small < 0.005 => "0".to_owned(),
        usual if usual < 9.995 => format!("{value:+.2}"),
        large if large < 99.95 => format!("{value:+.1}"),
        huge if huge < 9_999.5 => format!("{value:+.0}"),
        vast if vast.is_finite() => format!("{value:+.0e}"),
        _ => value.to_string(),
    };
    format!("{text:>CELL$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_their_width() {
        for value in
            [0.0, -0.001, 0.004_999, 1.0, -1.0, 9.999, -12.3, 99.99, -9_999.4, 1e7, f64::NAN, f64::NEG_INFINITY]
        {
            assert_eq!(cell(value).chars().count(), CELL, "{value}");
        }
        assert_eq!([cell(0.995), cell(-0.03), cell(0.0)], ["+0.99", "-0.03", "    0"]);
    }

    #[test]
    fn the_furthest_are_named() {
        let map = Map {
            rows: vec!["0".into(), "1".into()],
            heads: vec![],
            cells: vec![vec![0.5, f64::NAN], vec![-2.0, 0.1]],
            even: 0.0,
            extreme: 1.0,
        };
        assert_eq!(furthest(&map, 2, &|c| format!("h{c}")), "1 h0 -2.00 · 0 h0 +0.50");
        assert_eq!(furthest(&Map { even: 1.0, ..map }, 2, &|c| format!("h{c}")), "1 h0 -2.00 · 1 h1 +0.10");
    }
}
