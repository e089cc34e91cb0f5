//! JSON lines: pairs of our own, and documents in the style of lm-evaluation-harness.
//!
//! A line with `prompt` or with `answer` and no text field of the table is a pair: the fields of a task file's example, and
//! `task`. Any other line is a document. Of each row of the table a document has one field, of the last two at most one:
//!
//! | fields | meaning |
//! |---|---|
//! | `query`, `question`, `context`, `ctx`, `input`, `text`, `doc_to_text` | the prompt, as it is: templates are not applied |
//! | `gold`, `answer`, `label`, `answerKey`, `target`, `doc_to_target` | the answer |
//! | `choices`, `endings`, `doc_to_choice` | answer and alternatives: texts, or `{"text": […], "label": […]}` as ARC has it |
//! | `target_delimiter` | the join: a space unless it is given, as there |
//!
//! Where there are choices, the answer is the number of one (from 0), its label (else A, B, C, …), or its text; without
//! choices it is the text. `task` names the task; `id`, `idx`, `ind`, `doc_id`, `subject`, `category`, `source`, `source_id`,
//! `split`, `split_type`, `activity_label`, `ctx_a` and `ctx_b` are passed over. Anything else is refused by its name: what
//! a field means decides what is scored.

use serde::Deserialize;
use serde_json::Value;

use super::read::fault;
use super::{Example, JOIN, Place, Task, TaskError, TaskProblem};
use crate::weights::UniqueMap;

const TEXTS: [&str; 7] = ["query", "question", "context", "ctx", "input", "text", "doc_to_text"];
const ANSWERS: [&str; 6] = ["gold", "answer", "label", "answerKey", "target", "doc_to_target"];
const CHOICES: [&str; 3] = ["choices", "endings", "doc_to_choice"];
const JOINS: [&str; 1] = ["target_delimiter"];
const TASKS: [&str; 1] = ["task"];
const PASSED_OVER: [&str; 13] = [
    "id",
    "idx",
    "ind",
    "doc_id",
    "subject",
    "category",
    "source",
    "source_id",
    "split",
    "split_type",
    "activity_label",
    "ctx_a",
    "ctx_b",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    prompt: String,
    answer: String,
    join: Option<String>,
    #[serde(default)]
    alternatives: Vec<String>,
    corrupted_prompt: Option<String>,
    task: Option<String>,
}

/// The tasks of a file of pairs or documents, one JSON object a line, blank lines aside; those without a task are of the
/// one called `unnamed`.
///
/// # Errors
/// A line that is neither, or can't be scored, with its number.
pub fn read_pairs(bytes: &[u8], source: &str, unnamed: &str) -> Result<Vec<Task>, TaskError> {
    let error = |place, problem| TaskError { source_name: source.to_owned(), place, problem };
    let text = std::str::from_utf8(bytes).map_err(|bad| error(None, TaskProblem::Utf8(bad.valid_up_to())))?;
    let mut tasks: Vec<Task> = Vec::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let line = line + 1;
        let at = |problem| error(Some(Place::Line { line, column: None }), problem);
        let (task, example) = read_line(text).map_err(|problem| match problem {
            // A line is a text of its own to the parser, whose error ends with its place there.
            TaskProblem::Json(json) => {
                let (message, column) = (json.to_string(), json.column());
                let message = message.split(&format!(" at line {} column ", json.line())).next().unwrap_or_default();
                error(Some(Place::Line { line, column: Some(column) }), TaskProblem::Document(message.to_owned()))
            }
            problem => at(problem),
        })?;
        let name = task.unwrap_or_else(|| unnamed.to_owned());
        let known = tasks.iter().position(|task| task.name == name);
        let index = known.unwrap_or_else(|| {
            let (description, join) = (String::new(), JOIN.to_owned());
            tasks.push(Task {
                name: name.clone(),
                description,
                join,
                examples: Vec::new(),
                eval_questions: Vec::new(),
            });
            tasks.len() - 1
        });
        let examples = &mut tasks[index].examples;
        if let Some((_, problem)) = fault(&name, examples.len(), &example) {
            return Err(at(problem));
        }
        examples.push(example);
    }
    if tasks.is_empty() {
        return Err(error(None, TaskProblem::Nothing("pairs")));
    }
    Ok(tasks)
}

/// The name of its task, if it has one, and the example.
fn read_line(text: &str) -> Result<(Option<String>, Example), TaskProblem> {
    let fields: UniqueMap<Value> = serde_json::from_str(text).map_err(TaskProblem::Json)?;
    let has = |names: &[&str]| names.iter().any(|name| fields.0.contains_key(*name));
    if has(&["prompt"]) || has(&["answer"]) && !has(&TEXTS) || !has(&TEXTS) && !has(&ANSWERS) && !has(&CHOICES) {
        let Pair { prompt, answer, join, alternatives, corrupted_prompt, task } =
            serde_json::from_str(text).map_err(TaskProblem::Json)?;
        return Ok((task, Example { prompt, answer, join, alternatives, corrupted_prompt }));
    }
    document(&fields).map_err(TaskProblem::Document)
}

fn document(fields: &UniqueMap<Value>) -> Result<(Option<String>, Example), String> {
    let known = |name: &str| {
        [&TEXTS[..], &ANSWERS, &CHOICES, &JOINS, &TASKS, &PASSED_OVER].iter().any(|names| names.contains(&name))
    };
    if let Some(name) = fields.0.keys().find(|name| !known(name)) {
        return Err(format!(
            "field `{}` of a document is not known: what it means would be a guess",
            name.escape_debug()
        ));
    }
    let text = |names: &[&'static str]| match one_of(fields, names)? {
        None => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text.clone())),
        Some((name, other)) => Err(format!("field `{name}`: expected a text, found {}", kind(other))),
    };
    let prompt = text(&TEXTS)?.ok_or_else(|| format!("no text: one of {} is needed", TEXTS.join(", ")))?;
    let gold =
        one_of(fields, &ANSWERS)?.ok_or_else(|| format!("no answer: one of {} is needed", ANSWERS.join(", ")))?;
    let choices = one_of(fields, &CHOICES)?.map(|(name, value)| choices(name, value)).transpose()?;
    let (answer, alternatives) = match choices {
        None => match gold {
            (_, Value::String(answer)) => (answer.clone(), Vec::new()),
            (name, other) => {
                return Err(format!("field `{name}`: expected a text without choices, found {}", kind(other)));
            }
        },
        Some(choices) => {
            let chosen = chosen(gold, &choices)?;
            let mut texts: Vec<String> = choices.into_iter().map(|choice| choice.text).collect();
            (texts.remove(chosen), texts)
        }
    };
    let join = text(&JOINS)?;
    Ok((text(&TASKS)?, Example { prompt, answer, join, alternatives, corrupted_prompt: None }))
}

/// The one field of these that is there.
fn one_of<'f>(
    fields: &'f UniqueMap<Value>,
    names: &[&'static str],
) -> Result<Option<(&'static str, &'f Value)>, String> {
    let there: Vec<_> = names.iter().filter_map(|name| Some((*name, fields.0.get(*name)?))).collect();
    match there[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        [(first, _), (second, _), ..] => Err(format!("fields `{first}` and `{second}`: one of them is to be there")),
    }
}

struct Choice {
    text: String,
    label: String,
}

fn choices(name: &str, value: &Value) -> Result<Vec<Choice>, String> {
    let texts = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let refused = || format!("field `{name}`: expected texts, or an object of lists `text` and `label`");
    let (texts, labels) = match value {
        Value::Array(_) => (texts(value).ok_or_else(refused)?, None),
        Value::Object(object) if object.len() == 2 => {
            let list = |key: &str| object.get(key).and_then(texts).ok_or_else(refused);
            (list("text")?, Some(list("label")?))
        }
        _ => return Err(refused()),
    };
    let labels = labels.unwrap_or_else(|| ('A'..='Z').map(String::from).take(texts.len()).collect());
    if labels.len() != texts.len() || texts.len() < 2 {
        return Err(format!("field `{name}`: {} texts and {} labels", texts.len(), labels.len()));
    }
    Ok(texts.into_iter().zip(labels).map(|(text, label)| Choice { text, label }).collect())
}

/// The number of the choice that is meant.
fn chosen((name, gold): (&str, &Value), choices: &[Choice]) -> Result<usize, String> {
    let count = choices.len();
    match gold {
        Value::Number(number) => {
            let index = number.as_u64().filter(|index| *index < count as u64);
            index.map(|index| index as usize).ok_or_else(|| format!("field `{name}`: {number} of {count} choices"))
        }
        Value::String(text) => {
            let mut meant: Vec<usize> = (0..count)
                .filter(|&i| choices[i].label == *text || choices[i].text == *text || i.to_string() == *text)
                .collect();
            // A label of the document's own stands above a number: ARC has labels 1 to 4.
            if meant.len() > 1 && choices.iter().any(|choice| choice.label == *text && text.parse::<usize>().is_ok()) {
                meant.retain(|&i| choices[i].label == *text || choices[i].text == *text);
            }
            match meant[..] {
                [one] => Ok(one),
                [] => {
                    Err(format!("field `{name}`: {text:?} is neither the number, the label nor the text of a choice"))
                }
                _ => Err(format!("field `{name}`: {text:?} can mean several of the choices")),
            }
        }
        other => Err(format!("field `{name}`: expected a number or a text, found {}", kind(other))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(lines: &str) -> String {
        read_pairs(lines.as_bytes(), "p.jsonl", "pairs").unwrap_err().to_string()
    }

    fn example(line: &str) -> Example {
        read_pairs(line.as_bytes(), "p.jsonl", "pairs").unwrap().remove(0).examples.remove(0)
    }

    #[test]
    fn pairs_come_one_a_line() {
        let lines = "{\"prompt\": \"p\", \"answer\": \"q\"}\n\n{\"prompt\": \"r\", \"answer\": \"s\", \"task\": \"t\", \"join\": \"\"}\n{\"prompt\": \"u\", \"answer\": \"v\", \"alternatives\": [\"w\"], \"corrupted_prompt\": \"x\"}";
        let read = read_pairs(lines.as_bytes(), "p.jsonl", "pairs").unwrap();
        assert_eq!(
            read.iter().map(|task| (task.name.as_str(), task.examples.len())).collect::<Vec<_>>(),
            [("pairs", 2), ("t", 1)]
        );
        assert_eq!(read[1].question(0).unwrap().answer, "s");
        assert_eq!(read[0].examples[1].alternatives, ["w"]);
        assert_eq!(refused("\n"), "p.jsonl: it has no pairs");
        assert_eq!(read_pairs(b"\xff", "p.jsonl", "pairs").unwrap_err().to_string(), "p.jsonl: not UTF-8 at byte 0");
        let broken = refused("{\"prompt\": \"p\", \"answer\": \"q\"}\n{\"prompt\"");
        assert_eq!(broken, "p.jsonl, line 2 column 9: prompt: EOF while parsing an object");
        assert_eq!(
            refused("{\"prompt\": \"p\", \"answer\": \"\"}"),
            "p.jsonl, line 1: task `pairs`, example 0: the answer is empty"
        );
        for (line, word) in [
            ("{\"prompt\": \"p\"}", "missing field `answer`"),
            ("{\"answer\": \"p\"}", "missing field `prompt`"),
            ("{}", "missing field `prompt`"),
            ("{\"prompt\": \"p\", \"answer\": \"q\", \"answer\": \"r\"}", "answer is given twice"),
            ("{\"prompt\": \"p\", \"answer\": \"q\", \"gold\": 1}", "unknown field `gold`"),
        ] {
            assert!(refused(line).contains(word), "{}", refused(line));
        }
    }

    #[test]
    fn documents_of_the_common_forms_are_read() {
        let four = |answer: &str| {
            example(&format!(
                r#"{{"question": "Q", "choices": ["a", "b", "c", "d"], "answer": {answer}, "subject": "s"}}"#
            ))
        };
        for (gold, answer) in [("2", "c"), ("\"2\"", "c"), ("\"B\"", "b"), ("\"d\"", "d")] {
            let read = four(gold);
            assert_eq!(
                (read.prompt.as_str(), read.answer.as_str(), read.alternatives.len()),
                ("Q", answer, 3),
                "{gold}"
            );
            assert!(!read.alternatives.contains(&read.answer));
        }
        // HellaSwag as its task writes it, and as it is; ARC; LAMBADA-like; BIG-bench-like.
        let read = example(r#"{"query": "A man", "choices": ["sits", "runs"], "gold": 1}"#);
        assert_eq!((read.answer.as_str(), read.alternatives), ("runs", vec!["sits".to_owned()]));
        let read = example(
            r#"{"ind": 4, "ctx": "A man", "ctx_a": "A", "ctx_b": "man", "endings": ["sits", "runs"], "label": "0"}"#,
        );
        assert_eq!(read.answer, "sits");
        let read = example(
            r#"{"id": "x", "question": "Q", "choices": {"text": ["e", "f", "g"], "label": ["1", "2", "3"]}, "answerKey": "2"}"#,
        );
        assert_eq!(read.answer, "f");
        let read = example(r#"{"context": "I went", "target": "home"}"#);
        assert_eq!((read.answer.as_str(), read.alternatives.len()), ("home", 0));
        let read = example(r#"{"doc_to_text": "2 +", "doc_to_target": "2", "target_delimiter": ""}"#);
        assert_eq!(read.join.as_deref(), Some(""));
    }

    #[test]
    fn what_would_be_a_guess_is_refused() {
        for (line, word) in [
            (r#"{"question": "q", "context": "c", "answer": "a"}"#, "`question` and `context`"),
            (r#"{"question": "q", "answer": "a", "label": 1}"#, "`answer` and `label`"),
            (r#"{"question": "q", "answer": "a", "passage": "p"}"#, "field `passage`"),
            (r#"{"question": "q"}"#, "no answer"),
            (r#"{"label": 1, "choices": ["a", "b"]}"#, "no text"),
            (r#"{"question": "q", "label": 1}"#, "without choices, found a number"),
            (r#"{"question": "q", "choices": ["a", "b"], "label": 2}"#, "2 of 2 choices"),
            (r#"{"question": "q", "choices": ["a", "b"], "label": -1}"#, "-1 of 2 choices"),
            (r#"{"question": "q", "choices": ["1", "0"], "label": "1"}"#, "several of the choices"),
            (r#"{"question": "q", "choices": ["a", "b"], "label": "e"}"#, "neither the number"),
            (r#"{"question": "q", "choices": ["a", "b"], "label": [0]}"#, "found a list"),
            (r#"{"question": "q", "choices": ["a", 7], "label": 0}"#, "expected texts"),
            (
                r#"{"question": "q", "choices": {"text": ["a", "b"], "label": ["A"]}, "label": 0}"#,
                "2 texts and 1 labels",
            ),
            (r#"{"question": 7, "answer": "a"}"#, "expected a text, found a number"),
            (r#"{"question": "q", "choices": ["a", "a"], "label": 0}"#, "is the answer"),
            (r#"{"question": "q", "answer": ""}"#, "the answer is empty"),
            ("[1]", "invalid type"),
        ] {
            let error = refused(line);
            assert!(error.starts_with("p.jsonl, line 1") && error.contains(word), "{line}: {error}");
        }
    }
}
