//! A study as the templates want it: texts, in the order in which they are read. What page and Markdown share.

pub(super) mod figures;

use serde::Serialize;

use self::figures::SectionView;
use super::data::{Conversation, Group, InsideFacts, Process, Results, Study, Views};
use super::findings::{FirstRight, Truncations};
use super::number::{counted, grouped, percent, plain};
use crate::measure::nan_last;
use crate::sweep::{Estimate, Summary};
use std::collections::HashSet;

/// Rows of a table of plans at most.
const ROWS: usize = 40;

/// Completions of a prompt that are shown.
const COMPLETIONS: usize = 40;

/// Tables of single tasks that are open from the beginning.
const OPEN: usize = 4;

#[derive(Serialize)]
pub(super) struct View {
    pub(super) title: String,
    pub(super) about: String,
    pub(super) command: String,
    pub(super) report_command: String,
    /// What is not as it should be.
    pub(super) warnings: Vec<String>,
    /// Names and values.
    pub(super) facts: Vec<(String, String)>,
    pub(super) truncations: Option<TruncationView>,
    pub(super) sections: Vec<SectionView>,
    pub(super) conversations: Vec<ConversationView>,
    pub(super) tables: Vec<TableView>,
    pub(super) notes: Vec<NoteView>,
    pub(super) processes: Vec<ProcessView>,
}

#[derive(Serialize)]
pub(super) struct TruncationView {
    pub(super) rows: Vec<TruncationRow>,
    /// What it says in sentences, one a task.
    pub(super) sentences: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct TruncationRow {
    pub(super) task: String,
    pub(super) examples: String,
    pub(super) intact: String,
    /// With the prompt whose completions are shown.
    pub(super) prompt: String,
    pub(super) any: String,
    pub(super) half: String,
    pub(super) full: String,
    pub(super) steady: String,
}

#[derive(Serialize)]
pub(super) struct ConversationView {
    pub(super) task: String,
    pub(super) prompt: String,
    pub(super) answer: Option<String>,
    pub(super) found: Option<String>,
    pub(super) rows: Vec<SaidView>,
    /// Completions that are not shown, where there are some.
    pub(super) more: Option<String>,
}

#[derive(Serialize)]
pub(super) struct SaidView {
    /// `4 layers`, where the plan is a truncation; else the plan.
    pub(super) label: String,
    pub(super) plan: String,
    pub(super) text: String,
    pub(super) right: Option<bool>,
    /// Why it ended, where that is worth a word.
    pub(super) end: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct TableView {
    pub(super) name: String,
    pub(super) open: bool,
    pub(super) divergence: bool,
    pub(super) rows: Vec<RowView>,
    /// Plans that are not shown, where there are some.
    pub(super) more: Option<String>,
}

#[derive(Serialize)]
pub(super) struct RowView {
    pub(super) plan: String,
    pub(super) intact: bool,
    pub(super) blocks: String,
    pub(super) loss: String,
    pub(super) delta: String,
    pub(super) interval: String,
    pub(super) correct: String,
    pub(super) top1: String,
    pub(super) entropy: String,
    pub(super) divergence: String,
    pub(super) non_finite: u64,
}

#[derive(Serialize)]
pub(super) struct NoteView {
    pub(super) kind: String,
    pub(super) created: String,
    pub(super) text: String,
    pub(super) runs: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct ProcessView {
    pub(super) started: String,
    pub(super) took: String,
    pub(super) host: String,
    pub(super) version: String,
    pub(super) isa: String,
    pub(super) threads: usize,
    pub(super) command: String,
}

impl View {
    pub(super) fn new(study: &Study) -> View {
        let results = &study.results;
        let truncations = Truncations::of(results);
        let mut tables = vec![table(results, &results.all, true)];
        if results.tasks.len() > 1 {
            let open = results.tasks.len() <= OPEN;
            tables.extend(results.tasks.iter().map(|task| table(results, task, open)));
        }
        View {
            title: visible(&study.title),
            about: visible(&study.about),
            command: visible(&study.command),
            report_command: visible(&study.report_command),
            warnings: warnings(study),
            facts: facts(study),
            truncations: truncations.as_ref().map(|found| truncation_view(study, found)),
            sections: figures::of_study(study),
            conversations: study
                .conversations
                .iter()
                .map(|conversation| conversation_view(results, conversation, truncations.as_ref()))
                .collect(),
            tables,
            notes: study
                .notes
                .iter()
                .map(|note| NoteView {
                    kind: visible(&note.kind),
                    created: visible(&note.created),
                    text: note.text.clone(),
                    runs: note.runs.iter().map(|run| run.chars().take(16).collect()).collect(),
                })
                .collect(),
            processes: study.processes.iter().map(process_view).collect(),
        }
    }

    /// Of what was found inside alone.
    pub(super) fn of_views(views: &Views) -> View {
        let Views { title, about, report_command, inside } = views;
        let distinct = |of: &dyn Fn(&InsideFacts) -> String| {
            let mut names: Vec<String> = inside.iter().map(of).collect();
            let mut seen = HashSet::new();
            names.retain(|name| seen.insert(name.clone()));
            visible(&names.join(", "))
        };
        View {
            title: visible(title),
            about: visible(about),
            command: visible(report_command),
            report_command: visible(report_command),
            warnings: Vec::new(),
            facts: vec![
                ("Model".to_owned(), distinct(&|facts| facts.view.model().to_owned())),
                ("Read from".to_owned(), distinct(&|facts| facts.file.clone())),
            ],
            truncations: None,
            sections: vec![figures::of_views(inside, report_command, 1)],
            conversations: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
            processes: Vec::new(),
        }
    }
}

fn warnings(study: &Study) -> Vec<String> {
    let (all, there) = (&study.results.all, study.results.all.intact.examples as u64);
    let mut warnings = Vec::new();
    match study.expected_examples {
        Some(expected) if expected > there => {
            warnings.push(format!(
                "{} of {} have the results of every plan; the others are left out.",
                grouped(there),
                counted(expected, "example")
            ));
        }
        None => warnings.push("The experiment has not ended: examples may be missing.".to_owned()),
        Some(_) => {}
    }
    let broken: u64 = all.plans.iter().map(|plan| plan.non_finite).sum();
    if broken > 0 {
        warnings.push(format!(
            "{} of single tokens are NaN or infinite: they are in the table, and never left out.",
            if broken == 1 { "1 loss".to_owned() } else { format!("{} losses", grouped(broken)) }
        ));
    }
    warnings
}

fn facts(study: &Study) -> Vec<(String, String)> {
    let results = &study.results;
    let Summary { examples, tokens, .. } = results.all.intact;
    let plans = counted(results.plans.len() as u64, "plan");
    let families: Vec<&str> = results.families.iter().map(|family| family.text.as_str()).collect();
    let families = if families.is_empty() { String::new() } else { format!(" ({})", families.join(", ")) };
    let tasks: Vec<&str> = results.tasks.iter().map(|task| task.name.as_str()).take(12).collect();
    let more = results.tasks.len().saturating_sub(tasks.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let mut facts = vec![
        ("Model", format!("{}, {} layers", study.model.name, results.n_layer)),
        ("Plans", format!("{plans}{families}")),
        ("Tasks", format!("{}{more}", tasks.join(", "))),
        ("Examples", format!("{}, {}", grouped(examples as u64), counted(tokens, "scored token"))),
        (
            "Intact model",
            format!(
                "{} nats per token, {} answered",
                nats(results.all.intact.nll.value),
                percent(results.all.intact.correct)
            ),
        ),
        ("Knowing nothing", format!("ln V = {} nats per token", nats(results.uniform))),
        ("Numerics", study.numerics.clone()),
        ("Weights", format!("SHA-256 {}", study.model.weights)),
    ];
    facts.extend(study.model.tokenizer.as_ref().map(|hash| ("Tokenizer", format!("SHA-256 {hash}"))));
    facts.into_iter().map(|(name, value)| (name.to_owned(), visible(&value))).collect()
}

fn truncation_view(study: &Study, truncations: &Truncations) -> TruncationView {
    let results = &study.results;
    let found: Vec<FirstRight> = results.tasks.iter().map(|task| truncations.first_right(task)).collect();
    let rows = results.tasks.iter().zip(&found).map(|(task, found)| {
        let conversation = study.conversations.iter().find(|conversation| conversation.task == task.name);
        let prompt = conversation.map_or_else(String::new, |conversation| {
            if conversation.answer.is_none() { "–".to_owned() } else { count(first_said(conversation, truncations)) }
        });
        TruncationRow {
            task: visible(&found.task),
            examples: found.examples.to_string(),
            intact: percent(found.intact),
            prompt,
            any: count(found.any),
            half: count(found.half),
            full: count(found.full),
            steady: count(found.steady),
        }
    });
    TruncationView {
        rows: rows.collect(),
        sentences: found.iter().map(|found| visible(&sentence(found, results.n_layer))).collect(),
    }
}

/// The fewest layers with which a prompt is answered.
fn first_said(conversation: &Conversation, truncations: &Truncations) -> Option<usize> {
    let right = |plan: usize| {
        conversation.said.iter().any(|said| said.plan == Some(plan) && conversation.is_right(said) == Some(true))
    };
    truncations.kept.iter().find(|(_, plan)| right(*plan)).map(|(kept, _)| *kept)
}

fn sentence(found: &FirstRight, n_layer: usize) -> String {
    let FirstRight { task, examples, intact, any, half, full, .. } = found;
    let layers = |n: usize| counted(n as u64, "layer");
    match (any, half, full) {
        (None, _, _) => format!("{task}: no answer is right, with however many of the {n_layer} layers."),
        (Some(n), _, _) if *examples == 1 => format!("{task}: right first with {}.", layers(*n)),
        (Some(n), half, full) => {
            let half =
                half.map_or("half of them never are".to_owned(), |n| format!("half of them are with {}", layers(n)));
            let full = full.map_or(String::new(), |n| {
                format!(", as many as the intact model answers ({}) with {}", percent(*intact), layers(n))
            });
            let examples = grouped(*examples as u64);
            format!("{task}: the first of {examples} answers is right with {}; {half}{full}.", layers(*n))
        }
    }
}

fn conversation_view(
    results: &Results,
    conversation: &Conversation,
    truncations: Option<&Truncations>,
) -> ConversationView {
    let kept = |plan: usize| truncations?.kept.iter().find(|(_, other)| *other == plan).map(|(kept, _)| *kept);
    let mut said: Vec<(Option<usize>, SaidView)> = conversation
        .said
        .iter()
        .map(|said| {
            let plan = said.plan.map_or_else(|| "intact".to_owned(), |plan| results.plans[plan].text.clone());
            let kept = said.plan.and_then(kept);
            let label = kept.map_or_else(|| plan.clone(), |layers| counted(layers as u64, "layer"));
            let end = match said.finish.as_str() {
                "not-a-number" => Some("ended by NaN"),
                "context" => Some("the context is full"),
                _ => None,
            };
            let right = conversation.is_right(said);
            (kept, SaidView { label: visible(&label), plan: visible(&plan), text: visible(&said.text), right, end })
        })
        .collect();
    // Truncations from none to all layers; others as they come.
    said.sort_by_key(|(kept, _)| kept.unwrap_or(usize::MAX));
    let found = truncations.filter(|_| conversation.answer.is_some()).map(|truncations| {
        first_said(conversation, truncations).map_or_else(
            || "never right".to_owned(),
            |layers| format!("right first with {}", counted(layers as u64, "layer")),
        )
    });
    ConversationView {
        task: visible(&conversation.task),
        prompt: visible(&conversation.prompt),
        answer: conversation.answer.as_deref().map(visible),
        found,
        more: not_shown(said.len(), COMPLETIONS),
        rows: said.into_iter().map(|(_, said)| said).take(COMPLETIONS).collect(),
    }
}

/// How many of all are beyond those that are shown.
fn not_shown(all: usize, shown: usize) -> Option<String> {
    (all > shown).then(|| grouped((all - shown) as u64))
}

fn table(results: &Results, group: &Group, open: bool) -> TableView {
    let mut order: Vec<usize> = (0..results.plans.len()).collect();
    if order.len() > ROWS {
        let loss = |plan: usize| group.plans[plan].nll.value;
        order.sort_by(|a, b| nan_last(loss(*a), loss(*b)));
    }
    let more = not_shown(order.len(), ROWS);
    order.truncate(ROWS);
    let row = |plan: String, blocks: String, intact: bool, summary: &Summary| {
        let delta = summary.delta.unwrap_or(Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN });
        RowView {
            plan: visible(&plan),
            intact,
            blocks,
            loss: nats(summary.nll.value),
            delta: signed(delta.value),
            interval: if delta.low < delta.high {
                format!("{} … {}", signed(delta.low), signed(delta.high))
            } else {
                String::new()
            },
            correct: percent(summary.correct),
            top1: percent(summary.top1),
            entropy: nats(summary.entropy),
            divergence: nats(summary.divergence),
            non_finite: summary.non_finite,
        }
    };
    let own = row("intact".into(), results.n_layer.to_string(), true, &group.intact);
    let rows = order.iter().map(|plan| {
        let facts = &results.plans[*plan];
        row(facts.text.clone(), facts.plan.cost().to_string(), false, &group.plans[*plan])
    });
    TableView {
        name: visible(&group.name),
        open,
        divergence: !group.intact.divergence.is_nan(),
        rows: std::iter::once(own).chain(rows).collect(),
        more,
    }
}

fn process_view(process: &Process) -> ProcessView {
    let commit = process.commit.as_ref().map_or(String::new(), |commit| {
        let (hash, rest) = commit.split_at_checked(12).unwrap_or((commit, ""));
        format!(" ({hash}{})", if rest.ends_with("-changed") { ", changed" } else { "" })
    });
    ProcessView {
        started: visible(&process.started),
        took: process.seconds.map_or_else(|| "not ended".to_owned(), |seconds| format!("{seconds:.1} s")),
        host: visible(&process.host),
        version: visible(&format!("{}{commit}", process.version)),
        isa: visible(&process.isa),
        threads: process.threads,
        command: visible(&process.command),
    }
}

fn count(layers: Option<usize>) -> String {
    layers.map_or_else(|| "never".to_owned(), |layers| layers.to_string())
}

/// Nats in tables.
fn nats(value: f64) -> String {
    plain(value, 4)
}

/// A difference of nats in tables: its sign is said however small it is.
fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", nats(value)) } else { nats(value) }
}

/// Control characters as escapes: a page can't hold them, and nobody could see them. Line breaks and tabs stay.
pub(super) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => visible.push(c),
            c if c.is_control() => visible.extend(c.escape_unicode()),
            // They would turn the text around them, or hide in it.
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}' => {
                visible.extend(c.escape_unicode())
            }
            c => visible.push(c),
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_seen_is_shown() {
        assert_eq!(visible("a\u{1b}[2J\n\u{202e}b"), "a\\u{1b}[2J\n\\u{202e}b");
    }

    #[test]
    fn sentences_say_from_where_on_answers_are_right() {
        let found = |examples, any, half, full| FirstRight {
            task: "sums".into(),
            examples,
            intact: 0.98,
            any,
            half,
            full,
            steady: full,
        };
        assert_eq!(sentence(&found(1, Some(9), Some(9), Some(9)), 12), "sums: right first with 9 layers.");
        assert_eq!(
            sentence(&found(50, Some(8), Some(10), Some(12)), 12),
            "sums: the first of 50 answers is right with 8 layers; half of them are with 10 layers, as many as the intact model \
             answers (98\u{a0}%) with 12 layers."
        );
        assert_eq!(
            sentence(&found(50, None, None, None), 12),
            "sums: no answer is right, with however many of the 12 layers."
        );
    }
}
