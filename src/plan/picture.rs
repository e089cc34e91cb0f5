//! A plan as a picture for a terminal: the intact order above, the plan's below, aligned so that what changed stands
//! out, and a legend. A pure function of the plan to plain text; whoever prints it adds colour, if any.
//!
//! ```text
//! intact   0  1  2  3    4  5  6  7  8  9 10 11
//! plan     0  1  2  3×4  4  ·  6  7  8  9 10 11
//!                   +       ×
//!
//! ×   skipped         5
//! +   repeated        3×4
//! ```
//!
//! The two orders are aligned by the fewest insertions, removals and substitutions of a cell. A cell is an execution,
//! or an equal run of them (`3×4`); a group's cells are in parentheses, its branches apart by `|`.

mod legend;

use std::collections::BTreeMap;

use self::legend::Tally;
use super::print::equal_run;
use super::{Bridge, Execution, Part, Plan, Step};

/// How a picture is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureStyle {
    /// ASCII only: `.` for `·`, `x` for `×`.
    pub ascii: bool,
    /// Columns of the terminal; longer orders go on below. (One cell is drawn whatever the width.)
    pub width: usize,
}

/// Orders of more cells than this are described in the legend, not drawn.
const MAX_CELLS: usize = 1024;

/// The picture, in lines that end with a line break, for a model of `n_layer` layers.
pub fn picture(plan: &Plan, n_layer: usize, style: PictureStyle) -> String {
    let mut cells = Vec::new();
    add_cells(plan.steps(), style, &mut cells);
    let mut tally = Tally::new(plan, n_layer);
    let mut lines = Vec::new();
    if cells.len().max(n_layer) <= MAX_CELLS {
        let grouped = cells.iter().any(|cell| cell.grouped);
        let columns = columns(cells, n_layer, style, &mut tally.moved);
        draw(&columns, style, &mut lines);
        lines.push(String::new());
        tally.legend(grouped, style, &mut lines);
    } else {
        lines.push(format!("{} executions: too many to draw", plan.executions().count()));
        tally.legend(false, style, &mut lines);
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// An execution, or an equal run of them: `(7a×3` is prefix `(`, layer 7, suffix `a×3`. A bridge has no layer, and its ends
/// as a suffix: `6:11`.
#[derive(Debug, Default)]
struct Cell {
    prefix: String,
    /// None: an empty branch, or a bridge.
    execution: Option<Execution>,
    suffix: String,
    bridge: bool,
    /// Executions in a row.
    times: usize,
    grouped: bool,
}

fn add_cells(steps: &[Step], style: PictureStyle, cells: &mut Vec<Cell>) {
    let mut at = 0;
    while at < steps.len() {
        let (start, run) = (cells.len(), equal_run(&steps[at..]));
        match &steps[at] {
            Step::Block(execution) => {
                let changed = if execution.modifiers.is_empty() { "" } else { "!" };
                let suffix = format!("{}{changed}", execution.part.letter());
                cells.push(Cell { execution: Some(execution.clone()), suffix, ..Cell::default() });
            }
            Step::Group(branches) => {
                for (index, branch) in branches.iter().enumerate() {
                    let first = cells.len();
                    add_cells(branch, style, cells);
                    if branch.is_empty() {
                        cells.push(Cell { suffix: "none".to_owned(), times: 1, ..Cell::default() });
                    }
                    cells[first].prefix.insert(0, if index == 0 { '(' } else { '|' });
                }
                cells[start..].iter_mut().for_each(|cell| cell.grouped = true);
                if let Some(last) = cells.last_mut() {
                    last.suffix.push(')');
                }
            }
            Step::Bridge(Bridge { from, to, .. }) => {
                cells.push(Cell { suffix: format!("{from}:{to}"), bridge: true, ..Cell::default() });
            }
        }
        if let Some(last) = cells.last_mut()
            && run > 1
        {
            last.suffix.push_str(&format!("{}{run}", style.times()));
        }
        cells[start..].iter_mut().for_each(|cell| cell.times = cell.times.max(1) * run);
        at += run;
    }
}

#[derive(Debug, Default)]
struct Column {
    intact: Option<usize>,
    cell: Option<Cell>,
    mark: String,
}

/// Aligns the cells with layers 0..n_layer and marks them; sets `moved` for layers that run, but not in their place.
fn columns(cells: Vec<Cell>, n_layer: usize, style: PictureStyle, moved: &mut [bool]) -> Vec<Column> {
    let mut columns = align(cells, n_layer);
    // By layer, the halves (attention, MLP) that run in place, and those that ran so far.
    let mut in_place: BTreeMap<usize, [bool; 2]> = BTreeMap::new();
    for column in &columns {
        if let (Some(Execution { layer, part, .. }), true) = (column.execution(), column.matches()) {
            in_place.insert(*layer, part.halves());
        }
    }
    let mut seen: BTreeMap<usize, [bool; 2]> = BTreeMap::new();
    let mut before = None;
    for column in &mut columns {
        let matches = column.matches();
        let Some(cell) = &column.cell else { continue };
        if cell.bridge {
            column.mark.push(style.bridged());
        }
        let Some(Execution { layer, part, .. }) = cell.execution else {
            before = None;
            continue;
        };
        let halves = part.halves();
        let shares = |others: Option<&[bool; 2]>| others.is_some_and(|others| (0..2).any(|i| others[i] && halves[i]));
        let again = !matches && (shares(seen.get(&layer)) || shares(in_place.get(&layer)));
        // The other half of the block just before is no move.
        if !matches && !again && before != Some(layer) {
            column.mark.push('~');
            if let Some(moved) = moved.get_mut(layer) {
                *moved = true;
            }
        }
        if again || cell.times > 1 {
            column.mark.push('+');
        }
        let seen = seen.entry(layer).or_default();
        (0..2).for_each(|half| seen[half] |= halves[half]);
        before = Some(layer);
    }
    for column in &mut columns {
        if let (None, Some(layer)) = (&column.cell, column.intact)
            && !seen.contains_key(&layer)
        {
            column.mark.push(style.skipped());
        }
    }
    columns
}

impl Column {
    fn execution(&self) -> Option<&Execution> {
        self.cell.as_ref().and_then(|cell| cell.execution.as_ref())
    }

    fn matches(&self) -> bool {
        self.execution().is_some_and(|execution| Some(execution.layer) == self.intact)
    }
}

impl Cell {
    fn layer(&self) -> Option<usize> {
        self.execution.as_ref().map(|execution| execution.layer)
    }
}

impl Part {
    /// Whether attention and MLP run.
    fn halves(self) -> [bool; 2] {
        [self != Part::Mlp, self != Part::Attention]
    }
}

/// Levenshtein alignment. Among the shortest it takes a match as early as it can, then a substitution, so that the
/// first of a layer's executions is the one in place and a swap takes two columns.
fn align(cells: Vec<Cell>, n_layer: usize) -> Vec<Column> {
    let width = n_layer + 1;
    // cost[i * width + j]: of cells i.. against layers j..
    let mut cost = vec![0_usize; (cells.len() + 1) * width];
    for i in (0..=cells.len()).rev() {
        for j in (0..=n_layer).rev() {
            cost[i * width + j] = match (i == cells.len(), j == n_layer) {
                (true, _) => n_layer - j,
                (_, true) => cells.len() - i,
                _ => {
                    let substitution = cost[(i + 1) * width + j + 1] + usize::from(cells[i].layer() != Some(j));
                    substitution.min(cost[(i + 1) * width + j] + 1).min(cost[i * width + j + 1] + 1)
                }
            };
        }
    }
    let (count, mut i, mut j) = (cells.len(), 0, 0);
    let mut cells = cells.into_iter().peekable();
    let mut columns = Vec::new();
    while i < count || j < n_layer {
        let here = cost[i * width + j];
        let matches = cells.peek().is_some_and(|cell| cell.layer() == Some(j));
        let both = i < count && j < n_layer && cost[(i + 1) * width + j + 1] + usize::from(!matches) == here;
        let removal = !both && j < n_layer && cost[i * width + j + 1] + 1 == here;
        let intact = (both || removal).then_some(j);
        let cell = if removal { None } else { cells.next() };
        i += usize::from(cell.is_some());
        j += usize::from(intact.is_some());
        columns.push(Column { intact, cell, mark: String::new() });
    }
    columns
}

/// The lines of the two orders and of the marks, in stretches that fit the width.
fn draw(columns: &[Column], style: PictureStyle, lines: &mut Vec<String>) {
    let digits = |layer: usize| layer.to_string().len();
    let layers = columns.iter().flat_map(|column| [column.intact, column.cell.as_ref().and_then(Cell::layer)]);
    // Two at least, so that two marks fit.
    let number = layers.flatten().map(digits).max().unwrap_or(1).max(2);
    let count = |text: &str| text.chars().count();

    // A space before a cell; none where there is a `|`, and before a `(` only where the number fills its width.
    let shape = |column: &Column| {
        let (prefix, suffix) = column.cell.as_ref().map_or((0, 0), |cell| (count(&cell.prefix), count(&cell.suffix)));
        let opens = column.cell.as_ref().is_some_and(|cell| {
            cell.prefix.starts_with('(') && cell.layer().is_none_or(|layer| digits(layer) == number)
        });
        // An empty branch that stands against no layer has no number.
        let blank = column.intact.is_none() && column.cell.as_ref().is_some_and(|cell| cell.layer().is_none());
        ((prefix + usize::from(opens)).max(1) + if blank { 0 } else { number }, suffix)
    };
    let widths: Vec<usize> = columns.iter().map(shape).map(|(before, after)| before + after).collect();

    let mut rows = ROWS.map(String::from);
    let label = count(ROWS[0]);
    let limit = label + stretch(&widths, style.width.saturating_sub(label));
    let mut used = label;
    for (column, width) in columns.iter().zip(widths) {
        if used > label && used + width > limit {
            flush(&mut rows, lines);
            used = label;
        }
        used += width;
        let (before, after) = shape(column);
        let (prefix, suffix) = column.cell.as_ref().map_or(("", ""), |cell| (&cell.prefix, &cell.suffix));
        let layer = |layer: Option<usize>| layer.map_or_else(String::new, |layer| layer.to_string());
        let intact = layer(column.intact);
        let plan = column.cell.as_ref().map_or_else(|| style.hole().to_string(), |cell| layer(cell.layer()));
        let plan = format!("{prefix}{plan}");
        rows[0].push_str(&format!("{intact:>before$}{:after$}", ""));
        rows[1].push_str(&format!("{plan:>before$}{suffix}"));
        rows[2].push_str(&format!("{:>before$}{:after$}", column.mark, ""));
    }
    flush(&mut rows, lines);
}

/// The least width of a line that needs no more lines than `available` does: the cells are shared out evenly.
fn stretch(widths: &[usize], available: usize) -> usize {
    let lines = |limit: usize| {
        let (mut lines, mut used) = (1, 0);
        for &width in widths {
            if used > 0 && used + width > limit {
                lines += 1;
                used = 0;
            }
            used += width;
        }
        lines
    };
    let fewest = lines(available);
    (0..available).find(|&limit| lines(limit) == fewest).unwrap_or(available)
}

/// The labels of the three rows.
const ROWS: [&str; 3] = ["intact ", "plan   ", "       "];

/// Ends the stretch: its rows become lines, without the marks where there are none.
fn flush(rows: &mut [String; 3], lines: &mut Vec<String>) {
    if lines.last().is_some_and(|line| !line.is_empty()) {
        lines.push(String::new());
    }
    let [intact, plan, marks] = std::mem::replace(rows, ROWS.map(String::from));
    lines.extend([intact, plan]);
    if !marks.trim().is_empty() {
        lines.push(marks);
    }
}

impl PictureStyle {
    fn times(self) -> char {
        if self.ascii { 'x' } else { '×' }
    }

    fn skipped(self) -> char {
        if self.ascii { 'x' } else { '×' }
    }

    fn bridged(self) -> char {
        if self.ascii { '=' } else { '≈' }
    }

    fn hole(self) -> char {
        if self.ascii { '.' } else { '·' }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PlanExpr, PlanShape};
    use super::*;

    fn drawn(text: &str, n_layer: usize, ascii: bool) -> String {
        let plan = text.parse::<PlanExpr>().unwrap().resolve(&PlanShape::gpt2(n_layer, 12)).unwrap();
        picture(&plan, n_layer, PictureStyle { ascii, width: 80 })
    }

    #[test]
    fn one_of_each() {
        for (text, wanted) in [
            (
                "repeat 3 x4; skip 5",
                "
intact   0  1  2  3    4  5  6  7  8  9 10 11
plan     0  1  2  3×4  4  ·  6  7  8  9 10 11
                  +       ×

×   skipped         5
+   repeated        3×4
",
            ),
            (
                "swap 4 7",
                "
intact   0  1  2  3  4  5  6  7  8  9 10 11
plan     0  1  2  3  7  5  6  4  8  9 10 11
                     ~        ~

~   moved           4, 7
",
            ),
            (
                "0..4,par(4..8)*3,8..12,11",
                "
intact   0  1  2  3  4  5  6  7     8  9 10 11
plan     0  1  2  3 (4 |5 |6 |7)×3  8  9 10 11×2
                     +  +  +  +              +

+   repeated        11×2, 4..8×3
(|) side by side, their updates averaged
",
            ),
            (
                "0..7,7a[zero h3 h5],7m,8..11,(11m|none)",
                "
intact   0  1  2  3  4  5  6  7        8  9 10  11
plan     0  1  2  3  4  5  6  7a!  7m  8  9 10 (11m|none)

m   MLP only        11
!   changed         zero h3 h5 in 7
(|) side by side, their updates averaged
",
            ),
            (
                "move 3 8",
                "
intact   0  1  2  3  4  5  6  7  8     9 10 11
plan     0  1  2  ·  4  5  6  7  8  3  9 10 11
                                    ~

~   moved           3
",
            ),
            (
                "0..6,bridge(6:11,fit),11",
                "
intact   0  1  2  3  4  5  6      7  8  9 10 11
plan     0  1  2  3  4  5   6:11  ·  ·  ·  · 11
                           ≈      ×  ×  ×  ×

×   skipped         6..11
≈   bridged         6:11 by fit
",
            ),
            (
                "drop-last 2",
                "
intact   0  1  2  3  4  5  6  7  8  9 10 11
plan     0  1  2  3  4  5  6  7  8  9  ·  ·
                                       ×  ×

×   skipped         10..12
",
            ),
            (
                "5,5m,0..12",
                "
intact          0  1  2  3  4  5  6  7  8  9 10 11
plan     5  5m  0  1  2  3  4  5  6  7  8  9 10 11
         +  +

+   repeated        5×3
",
            ),
            (
                "0..12",
                "
intact   0  1  2  3  4  5  6  7  8  9 10 11
plan     0  1  2  3  4  5  6  7  8  9 10 11

the intact order
",
            ),
        ] {
            let drawn = drawn(text, 12, false);
            assert!(format!("\n{drawn}").starts_with(wanted), "{text}\n{drawn}");
        }
    }

    #[test]
    fn forty_eight_layers_share_lines_evenly() {
        let wanted = "
intact   0  1  2  3  4  5    6  7  8  9 10 11 12 13 14 15
plan     0  1  2  3  4  5x3  6  7  8  9 40 11 12 13 14 15
                        +                ~

intact  16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
plan     .  . 18 19 20 21 22 23 24 25 26 27 28 29 30 31
         x  x

intact  32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47
plan    32 33 34 35 36 37 38 39 10 41 42 43 44 45 46 47
                                 ~

x   skipped         16..18
+   repeated        5x3
~   moved           10, 40
";
        let drawn = drawn("repeat 5 x3; swap 10 40; skip 16..18", 48, true);
        assert_eq!(format!("\n{drawn}"), wanted, "{drawn}");
    }

    #[test]
    fn odd_plans() {
        assert_eq!(drawn("none", 0, true), "intact\nplan\n\n");
        // Too long to draw; for another model; on a narrow terminal.
        let long = drawn("(0..12,11..=0)*2000", 12, false);
        assert_eq!(long, "48000 executions: too many to draw\n+   repeated        0..12×4000\n");
        let style = PictureStyle { ascii: true, width: 0 };
        let other = picture(&Plan::from_layers([0, 7, 7, 9]).unwrap(), 2, style);
        assert!(other.contains("plan     7x2") && other.contains("x   skipped         1"), "{other}");
    }
}
