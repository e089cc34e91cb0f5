//! The report as a folder: Markdown, and each figure as SVG and PNG at the width of a column and of a page's text. And what of
//! it says everything in a few lines, for a terminal.

use std::fmt::Write as _;
use std::ops::Range;

use super::plot::{Ink, Width};
use super::view::figures::FigureView;
use super::view::{ConversationView, TableView, TruncationView, View, visible};
use super::{ReportError, Study, Views, png};

/// The files of the folder, by their paths in it.
///
/// # Errors
/// Where a figure can't be drawn.
pub fn folder(study: &Study) -> Result<Vec<(String, Vec<u8>)>, ReportError> {
    files(&View::new(study))
}

/// The folder of what was found inside, alone.
///
/// # Errors
/// Where a figure can't be drawn.
pub fn folder_of_views(views: &Views) -> Result<Vec<(String, Vec<u8>)>, ReportError> {
    files(&View::of_views(views))
}

fn files(view: &View) -> Result<Vec<(String, Vec<u8>)>, ReportError> {
    let mut files = vec![("report.md".to_owned(), markdown(view).into_bytes())];
    for figure in view.sections.iter().flat_map(|section| &section.figures) {
        for (width, suffix) in [(Width::Column, "85mm"), (Width::Full, "170mm")] {
            let svg = figure.plot.svg(width, Ink::Paper);
            let picture = png(&svg).map_err(|source| ReportError::Png { figure: figure.id.clone(), source })?;
            files.push((format!("figures/{}-{suffix}.svg", figure.id), svg.into_bytes()));
            files.push((format!("figures/{}-{suffix}.png", figure.id), picture));
        }
    }
    Ok(files)
}

/// What a study found, for a terminal: from how many layers on answers are right, and what was said.
pub fn text(study: &Study) -> String {
    let view = View::new(study);
    let mut text = format!("{}\n{}\n", view.title, view.about);
    for warning in &view.warnings {
        push(&mut text, format_args!("{warning}\n"));
    }
    if let Some(truncations) = &view.truncations {
        push(&mut text, format_args!("\nFrom how many layers on the answers are right\n"));
        truncations.sentences.iter().for_each(|sentence| push(&mut text, format_args!("- {sentence}\n")));
    }
    for conversation in &view.conversations {
        let found = conversation.found.as_ref().map_or(String::new(), |found| format!(": {found}"));
        push(&mut text, format_args!("\n{}{found}\n{}\n", conversation.task, said(conversation)));
    }
    text
}

/// A String takes anything.
fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(more);
}

/// Below the tables of results.
const RESULTS: &str = "\nLosses and entropies are token-weighted means in nats per token; Δ is paired with the intact model, its \
                       interval a 95 % bootstrap over examples. Answered: all tokens of the answer are the likeliest.\n";

fn markdown(view: &View) -> String {
    let mut text = format!("# {}\n\n{}\n\n{}", plain(&view.title), plain(&view.about), fenced("sh", &view.command));
    for warning in &view.warnings {
        push(&mut text, format_args!("\n> {}\n", plain(warning)));
    }
    if let Some(truncations) = &view.truncations {
        text.push_str(&first_right(truncations, !view.conversations.is_empty()));
    }
    for section in &view.sections {
        push(&mut text, format_args!("\n## {}\n", section.title));
        section.figures.iter().for_each(|figure| text.push_str(&of_figure(figure)));
    }
    if !view.conversations.is_empty() {
        text.push_str("\n## What the model said\n");
        for conversation in &view.conversations {
            let found = conversation.found.as_ref().map_or(String::new(), |found| format!(", {found}"));
            push(&mut text, format_args!("\n### {}{found}\n\n", plain(&conversation.task)));
            text.push_str(&fenced("text", &said(conversation)));
        }
    }
    if !view.tables.is_empty() {
        text.push_str("\n## Results\n");
        view.tables.iter().for_each(|table| text.push_str(&of_table(table)));
        text.push_str(RESULTS);
    }
    if !view.notes.is_empty() {
        text.push_str("\n## Notes\n");
        for note in &view.notes {
            let runs: String = note.runs.iter().map(|run| format!(", run `{run}`")).collect();
            push(&mut text, format_args!("\n{}, {}{runs}\n\n", plain(&note.kind), plain(&note.created)));
            text.push_str(&quoted(&note.text));
        }
    }
    text.push_str("\n## Provenance\n\n");
    let facts = view.facts.iter().map(|(name, value)| vec![name.clone(), value.clone()]);
    text.push_str(&table(&["what", "value"], facts, 2..2));
    text.push('\n');
    if !view.processes.is_empty() {
        let processes = view.processes.iter().map(|process| {
            let threads = process.threads.to_string();
            let cells = [
                &process.started,
                &process.took,
                &process.host,
                &process.version,
                &process.isa,
                &threads,
                &process.command,
            ];
            cells.map(String::clone).to_vec()
        });
        text.push_str(&table(
            &["begun (UTC)", "took", "machine", "lesion", "instructions", "threads", "command"],
            processes,
            7..7,
        ));
    }
    text.push_str("\nThis report is made by\n\n");
    text.push_str(&fenced("sh", &view.report_command));
    text
}

fn first_right(truncations: &TruncationView, prompts: bool) -> String {
    let mut text = "\n## From how many layers on the answers are right\n\n".to_owned();
    truncations.sentences.iter().for_each(|sentence| push(&mut text, format_args!("- {}\n", plain(sentence))));
    let mut header = vec!["task", "examples", "intact model"];
    header.extend(prompts.then_some("the prompt below"));
    header.extend(["first example", "half of them", "as many as intact", "and so with more layers"]);
    let rows = truncations.rows.iter().map(|row| {
        let mut cells = vec![row.task.clone(), row.examples.clone(), row.intact.clone()];
        cells.extend(prompts.then(|| row.prompt.clone()));
        cells.extend([&row.any, &row.half, &row.full, &row.steady].map(String::clone));
        cells
    });
    text.push('\n');
    text + &table(&header, rows, 1..header.len())
}

fn of_figure(figure: &FigureView) -> String {
    let FigureView { number, id, caption, alt, commands, .. } = figure;
    let numbers = figure.table.as_ref().map_or_else(String::new, |of| {
        let header: Vec<&str> = of.header.iter().map(String::as_str).collect();
        format!("\n{}", table(&header, of.rows.iter().cloned(), of.numbers.0..of.numbers.1))
    });
    let width = if figure.wide { "170mm" } else { "85mm" };
    format!(
        "\n![{}](figures/{id}-{width}.svg)\n\n**Figure {number}.** {} ([PNG](figures/{id}-{width}.png))\n\n{}{numbers}",
        plain(alt),
        plain(caption),
        fenced("sh", &commands.join("\n"))
    )
}

/// What was said, line by line: line breaks in it are `⏎`.
fn said(conversation: &ConversationView) -> String {
    let one_line = |text: &str| text.replace('\n', "⏎").replace('\t', "⇥");
    let wide = conversation.rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0);
    let answer =
        conversation.answer.as_ref().map_or(String::new(), |answer| format!(" → {}", one_line(answer).trim_start()));
    let mut text = format!("{}{answer}", one_line(&conversation.prompt));
    for row in &conversation.rows {
        let mark = match row.right {
            Some(true) => "✓",
            Some(false) => "·",
            None => " ",
        };
        let end = row.end.map_or(String::new(), |end| format!(" ({end})"));
        push(&mut text, format_args!("\n{:>wide$} {mark} {}{end}", row.label, one_line(&row.text)));
    }
    text
}

fn of_table(of: &TableView) -> String {
    let mut header = vec!["plan", "blocks", "nats per token", "Δ to intact", "95 %", "answered", "top-1", "entropy"];
    header.extend(of.divergence.then_some("KL to intact"));
    let rows = of.rows.iter().map(|row| {
        let loss = match row.non_finite {
            0 => row.loss.clone(),
            some => format!("{} ({some} not finite)", row.loss),
        };
        let mut cells = vec![row.plan.clone(), row.blocks.clone(), loss];
        cells.extend([&row.delta, &row.interval, &row.correct, &row.top1, &row.entropy].map(String::clone));
        cells.extend(of.divergence.then(|| row.divergence.clone()));
        cells
    });
    let more = of.more.as_ref().map_or(String::new(), |more| {
        format!("\nThe best {}; {more} plans more are in the store.\n", of.rows.len() - 1)
    });
    format!("\n### {}\n\n{}{more}", plain(&of.name), table(&header, rows, 1..header.len()))
}

/// A table; these columns go to the right.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>, right: Range<usize>) -> String {
    let mut text = format!("| {} |\n|", header.join(" | "));
    (0..header.len()).for_each(|column| text.push_str(if right.contains(&column) { "---:|" } else { "---|" }));
    text.push('\n');
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| plain(cell)).collect();
        push(&mut text, format_args!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// A note as it was written, in a quotation, line by line: in here what it says in Markdown is text.
fn quoted(note: &str) -> String {
    let visible = visible(note);
    let mut lines = visible.lines().map(str::trim).peekable();
    let mut text = String::new();
    while let Some(line) = lines.next() {
        let goes_on = !line.is_empty() && lines.peek().is_some_and(|next| !next.is_empty());
        push(&mut text, format_args!("> {}{}\n", plain(line), if goes_on { "\\" } else { "" }));
    }
    text
}

/// Text that stays as it is in Markdown, on one line.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    // At the beginning of a line these make items of lists, lines across, and headings of what is above.
    let marks = |at: usize| text[at + 1..].starts_with([' ', '\t', '-', '=']) || at + 1 == text.len();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    for (at, c) in text.char_indices() {
        match c {
            '\n' | '\t' => plain.push(' '),
            '-' | '+' | '=' if at == 0 && marks(at) => plain.extend(['\\', c]),
            '.' | ')' if at > 0 && at == digits && marks(at) => plain.extend(['\\', c]),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '&' => plain.extend(['\\', c]),
            c => plain.push(c),
        }
    }
    plain
}

/// Text between fences that are longer than any in it.
fn fenced(language: &str, text: &str) -> String {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(3.max(longest + 1));
    format!("{fence}{language}\n{text}\n{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(plain("a|b\n[x](y) <b> `c`"), "a\\|b \\[x\\](y) \\<b\\> \\`c\\`");
        assert_eq!(
            ["- a", "+", "=-=", "---", "12. a", "1) a", "1.5 a", "+0.5", "a - 1."].map(plain),
            ["\\- a", "\\+", "\\=-=", "\\---", "12\\. a", "1\\) a", "1.5 a", "+0.5", "a - 1."]
        );
        assert_eq!(fenced("text", "a ``` b"), "````text\na ``` b\n````\n");
        assert_eq!(quoted("# a\nb\n\n    - *c*\u{1b}"), "> \\# a\\\n> b\n> \n> \\- \\*c\\*\\\\u{1b}\n");
        let rows = [vec!["a|b".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["x", "n"], rows.into_iter(), 1..2), "| x | n |\n|---|---:|\n| a\\|b | 1 |\n");
    }
}
