//! Files of tasks: one JSON text, or pairs one a line.

use super::{JOIN, Question, Task, TaskError, TaskProblem};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileObject {
    tasks: Vec<FileTask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTask {
    name: String,
    #[serde(default)]
    description: String,
    examples: Vec<FileExample>,
    join: Option<String>,
    /// Questions for a judge, which nothing here asks.
    #[serde(default, rename = "eval_questions")]
    _eval_questions: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileExample {
    prompt: String,
    answer: String,
    join: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePair {
    prompt: String,
    answer: String,
    join: Option<String>,
    task: Option<String>,
}

/// The tasks of a file; `source` names it in errors.
///
/// # Errors
/// Where it is not as the module's page says, with the line.
pub fn read_tasks(bytes: &[u8], source: &str) -> Result<Vec<Task>, TaskError> {
    let error = |line, problem| TaskError { source_name: source.to_owned(), line, problem };
    let json = |problem: serde_json::Error| error(None, TaskProblem::Json(problem));
    // Which of the two it is shows in the first character: a list is no object with its fields in order.
    let list: Vec<FileTask> = if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') {
        serde_json::from_slice(bytes).map_err(json)?
    } else {
        serde_json::from_slice::<FileObject>(bytes).map_err(json)?.tasks
    };
    if list.is_empty() {
        return Err(error(None, TaskProblem::Nothing("tasks")));
    }
    let mut tasks: Vec<Task> = Vec::with_capacity(list.len());
    for FileTask { name, description, examples, join, .. } in list {
        if tasks.iter().any(|task| task.name == name) {
            return Err(error(None, TaskProblem::Twice { task: name }));
        }
        if examples.is_empty() {
            return Err(error(None, TaskProblem::NoExamples { task: name }));
        }
        let mut questions = Vec::with_capacity(examples.len());
        for (example, FileExample { prompt, answer, join: own }) in examples.into_iter().enumerate() {
            if answer.is_empty() {
                return Err(error(None, TaskProblem::EmptyAnswer { task: name, example }));
            }
            questions.push(question(prompt, &answer, own.as_deref().or(join.as_deref())));
        }
        tasks.push(Task { name, description, questions });
    }
    Ok(tasks)
}

/// The tasks of a file of pairs, one JSON object a line, blank lines aside; pairs without a task are of the one called
/// `unnamed`.
///
/// # Errors
/// As [`read_tasks`].
pub fn read_pairs(bytes: &[u8], source: &str, unnamed: &str) -> Result<Vec<Task>, TaskError> {
    let error = |line, problem| TaskError { source_name: source.to_owned(), line, problem };
    let text = std::str::from_utf8(bytes).map_err(|bad| error(None, TaskProblem::Utf8(bad.valid_up_to())))?;
    let mut tasks: Vec<Task> = Vec::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let at = |problem| error(Some(line + 1), problem);
        let FilePair { prompt, answer, join, task } =
            serde_json::from_str(text).map_err(|problem| at(TaskProblem::Json(problem)))?;
        let name = task.unwrap_or_else(|| unnamed.to_owned());
        let known = tasks.iter().position(|task| task.name == name);
        let index = known.unwrap_or_else(|| {
            tasks.push(Task { name: name.clone(), description: String::new(), questions: Vec::new() });
            tasks.len() - 1
        });
        let questions = &mut tasks[index].questions;
        if answer.is_empty() {
            return Err(at(TaskProblem::EmptyAnswer { task: name, example: questions.len() }));
        }
        questions.push(question(prompt, &answer, join.as_deref()));
    }
    if tasks.is_empty() {
        return Err(error(None, TaskProblem::Nothing("pairs")));
    }
    Ok(tasks)
}

fn question(prompt: String, answer: &str, join: Option<&str>) -> Question {
    Question { prompt, answer: format!("{}{answer}", join.unwrap_or(JOIN)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(json: &str) -> Result<Vec<Task>, String> {
        read_tasks(json.as_bytes(), "t.json").map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_or_an_object_of_tasks() {
        let json = r#"[{"name": "a", "description": "d", "examples": [{"prompt": "1 + 1 =", "answer": "2"}], "eval_questions": ["?"]},
            {"name": "b", "join": "", "examples": [{"prompt": "{\"x\": ", "answer": "1}"}, {"prompt": "p", "answer": "q", "join": "\n"}]}]"#;
        let read = tasks(json).unwrap();
        assert_eq!((read[0].name.as_str(), read[0].description.as_str()), ("a", "d"));
        assert_eq!(read[0].questions, [Question { prompt: "1 + 1 =".into(), answer: " 2".into() }]);
        let answers: Vec<&str> = read[1].questions.iter().map(|question| question.answer.as_str()).collect();
        assert_eq!(answers, ["1}", "\nq"]);
        assert_eq!(tasks(&format!("{{\"tasks\": {json}}}")).unwrap(), read);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let refused = |json: &str| tasks(json).unwrap_err();
        assert_eq!(refused("[]"), "t.json: it has no tasks");
        assert_eq!(refused(r#"[{"name": "a", "examples": []}]"#), "t.json: task `a` has no examples");
        let twice = r#"[{"name": "a", "examples": [{"prompt": "p", "answer": "q"}]}, {"name": "a", "examples": []}]"#;
        assert_eq!(refused(twice), "t.json: task `a` is there twice");
        assert_eq!(
            refused("[{\"name\": \"a\",\n\"examples\": [{\"prompt\": \"p\", \"answr\": \"q\"}]}]"),
            "t.json: unknown field `answr`, expected one of `prompt`, `answer`, `join` at line 2 column 36"
        );
        assert!(refused("[{\"name\": \"a\", \"name\": \"b\"}]").contains("duplicate field `name`"));
        assert_eq!(
            refused(r#"[{"name": "a", "examples": [{"prompt": "p", "answer": ""}]}]"#),
            "t.json: task `a`, example 0: the answer is empty"
        );
        for bad in ["", "7", "{}", "[7]", "[{\"name\": 7, \"examples\": []}]", "{\"tasks\": [], \"more\": 1}"] {
            assert!(tasks(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_come_one_a_line() {
        let lines = "{\"prompt\": \"p\", \"answer\": \"q\"}\n\n{\"prompt\": \"r\", \"answer\": \"s\", \"task\": \"t\", \"join\": \"\"}\n{\"prompt\": \"u\", \"answer\": \"v\"}";
        let read = read_pairs(lines.as_bytes(), "p.jsonl", "pairs").unwrap();
        assert_eq!(
            read.iter().map(|task| (task.name.as_str(), task.questions.len())).collect::<Vec<_>>(),
            [("pairs", 2), ("t", 1)]
        );
        assert_eq!(read[1].questions[0].answer, "s");
        let refused = |lines: &[u8]| read_pairs(lines, "p.jsonl", "pairs").unwrap_err().to_string();
        assert_eq!(refused(b"\n"), "p.jsonl: it has no pairs");
        assert_eq!(refused(b"\xff"), "p.jsonl: not UTF-8 at byte 0");
        assert!(
            refused(b"{\"prompt\": \"p\", \"answer\": \"q\"}\n{\"prompt\"").starts_with("p.jsonl, line 2: EOF"),
            "{}",
            refused(b"{")
        );
        assert_eq!(
            refused(b"{\"prompt\": \"p\", \"answer\": \"\"}"),
            "p.jsonl, line 1: task `pairs`, example 0: the answer is empty"
        );
    }
}
