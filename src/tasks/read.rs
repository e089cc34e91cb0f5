//! Files of tasks: one JSON text.

use serde::Deserialize;

use super::lines::read_pairs;
use super::{Example, FORMAT_VERSION, JOIN, Place, Task, TaskError, TaskProblem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileObject {
    #[serde(rename = "version")]
    _version: Option<u64>,
    tasks: Vec<FileTask>,
}

/// What is looked at first: fields of a later version would be unknown ones otherwise.
#[derive(Deserialize)]
struct FileVersion {
    version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTask {
    name: String,
    #[serde(default)]
    description: String,
    join: Option<String>,
    examples: Vec<FileExample>,
    #[serde(default)]
    eval_questions: Vec<String>,
}

/// An example as task files and lines of pairs write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileExample {
    prompt: String,
    answer: String,
    join: Option<String>,
    #[serde(default)]
    alternatives: Vec<String>,
    corrupted_prompt: Option<String>,
}

/// The tasks of a file; `source` names it in errors.
///
/// # Errors
/// Where it is not as the module's page says: with line and column where the JSON is to blame, with the JSON path where
/// what it says is.
pub fn read_tasks(bytes: &[u8], source: &str) -> Result<Vec<Task>, TaskError> {
    let error = |place, problem| TaskError { source_name: source.to_owned(), place, problem };
    let json = |problem: serde_json::Error| error(None, TaskProblem::Json(problem));
    // Which of the two it is shows in the first character: a list is no object with its fields in order.
    let is_list = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let list: Vec<FileTask> = if is_list {
        serde_json::from_slice(bytes).map_err(json)?
    } else {
        if let Ok(FileVersion { version: Some(found) }) = serde_json::from_slice(bytes)
            && found != u64::from(FORMAT_VERSION)
        {
            return Err(error(Some(Place::Path("version".to_owned())), TaskProblem::Version { found }));
        }
        serde_json::from_slice::<FileObject>(bytes).map_err(json)?.tasks
    };
    if list.is_empty() {
        return Err(error(None, TaskProblem::Nothing("tasks")));
    }
    let tasks: Vec<Task> = list.into_iter().map(task).collect();
    for (number, task) in tasks.iter().enumerate() {
        let path = format!("{}[{number}]", if is_list { "" } else { "tasks" });
        let at = |rest: &str, problem| error(Some(Place::Path(format!("{path}{rest}"))), problem);
        if task.name.is_empty() {
            return Err(at(".name", TaskProblem::NoName));
        }
        if tasks[..number].iter().any(|other| other.name == task.name) {
            return Err(at(".name", TaskProblem::Twice { task: task.name.clone() }));
        }
        if task.examples.is_empty() {
            return Err(at(".examples", TaskProblem::NoExamples { task: task.name.clone() }));
        }
        for (index, example) in task.examples.iter().enumerate() {
            fault(&task.name, index, example)
                .map_or(Ok(()), |(field, problem)| Err(at(&format!(".examples[{index}].{field}"), problem)))?;
        }
    }
    Ok(tasks)
}

fn task(file: FileTask) -> Task {
    let examples = file.examples.into_iter().map(|example| Example {
        prompt: example.prompt,
        answer: example.answer,
        join: example.join,
        alternatives: example.alternatives,
        corrupted_prompt: example.corrupted_prompt,
    });
    Task {
        name: file.name,
        description: file.description,
        join: file.join.unwrap_or_else(|| JOIN.to_owned()),
        examples: examples.collect(),
        eval_questions: file.eval_questions,
    }
}

/// What makes an example one that can't be scored, and the field that it is in.
pub(super) fn fault(task: &str, number: usize, example: &Example) -> Option<(String, TaskProblem)> {
    if example.answer.is_empty() {
        return Some(("answer".to_owned(), TaskProblem::EmptyAnswer { task: task.to_owned(), example: number }));
    }
    for (index, alternative) in example.alternatives.iter().enumerate() {
        let fault = if alternative.is_empty() {
            "is empty"
        } else if *alternative == example.answer {
            "is the answer"
        } else if example.alternatives[..index].contains(alternative) {
            "is there twice"
        } else {
            continue;
        };
        let alternative = alternative.clone();
        return Some((format!("alternatives[{index}]"), TaskProblem::Alternative { alternative, fault }));
    }
    let same = example.corrupted_prompt.as_ref().filter(|corrupted| **corrupted == example.prompt);
    same.map(|prompt| ("corrupted_prompt".to_owned(), TaskProblem::SamePrompt { prompt: prompt.clone() }))
}

/// The tasks of a file of either kind: JSON lines ([`read_pairs`]) where the first line with anything on it is an object
/// of its own that holds no tasks, else a task file ([`read_tasks`]).
///
/// # Errors
/// As those.
pub fn read_any(bytes: &[u8], source: &str, unnamed: &str) -> Result<Vec<Task>, TaskError> {
    let first = bytes.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let object: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(first).ok();
    match object {
        Some(object) if !object.contains_key("tasks") => read_pairs(bytes, source, unnamed),
        _ => read_tasks(bytes, source),
    }
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
        assert_eq!(read[0].eval_questions, ["?"]);
        assert_eq!(read[0].question(0).unwrap().answer, " 2");
        let answers: Vec<String> = (0..2).map(|i| read[1].question(i).unwrap().answer).collect();
        assert_eq!(answers, ["1}", "\nq"]);
        assert_eq!(tasks(&format!("{{\"tasks\": {json}}}")).unwrap(), read);
        assert_eq!(tasks(&format!("{{\"version\": 1, \"tasks\": {json}}}")).unwrap(), read);
    }

    #[test]
    fn alternatives_and_corrupted_prompts_are_read() {
        let json = r#"[{"name": "a", "examples": [
            {"prompt": "p", "answer": "x", "alternatives": ["y", "z"], "corrupted_prompt": "q"}]}]"#;
        let example = &tasks(json).unwrap()[0].examples[0];
        assert_eq!(example.alternatives, ["y", "z"]);
        assert_eq!(example.corrupted_prompt.as_deref(), Some("q"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let refused = |json: &str| tasks(json).unwrap_err();
        assert_eq!(refused("[]"), "t.json: it has no tasks");
        assert_eq!(refused(r#"[{"name": "a", "examples": []}]"#), "t.json, [0].examples: task `a` has no examples");
        let twice = r#"[{"name": "a", "examples": [{"prompt": "p", "answer": "q"}]}, {"name": "a", "examples": []}]"#;
        assert_eq!(refused(twice), "t.json, [1].name: task `a` is there twice");
        assert_eq!(
            refused("[{\"name\": \"a\",\n\"examples\": [{\"prompt\": \"p\", \"answr\": \"q\"}]}]"),
            "t.json: unknown field `answr`, expected one of `prompt`, `answer`, `join`, `alternatives`, \
             `corrupted_prompt` at line 2 column 36"
        );
        assert!(refused("[{\"name\": \"a\", \"name\": \"b\"}]").contains("duplicate field `name`"));
        let example =
            |fields: &str| refused(&format!("{{\"tasks\": [{{\"name\": \"a\", \"examples\": [{fields}]}}]}}"));
        assert_eq!(
            example(r#"{"prompt": "p", "answer": ""}"#),
            "t.json, tasks[0].examples[0].answer: task `a`, example 0: the answer is empty"
        );
        for (alternatives, fault) in [
            (r#"["r", ""]"#, "[1]: alternative \"\" is empty"),
            (r#"["q"]"#, "[0]: alternative \"q\" is the answer"),
            (r#"["r", "s", "r"]"#, "[2]: alternative \"r\" is there twice"),
        ] {
            assert_eq!(
                example(&format!(r#"{{"prompt": "p", "answer": "q", "alternatives": {alternatives}}}"#)),
                format!("t.json, tasks[0].examples[0].alternatives{fault}")
            );
        }
        assert_eq!(
            example(r#"{"prompt": "p", "answer": "q", "corrupted_prompt": "p"}"#),
            "t.json, tasks[0].examples[0].corrupted_prompt: the corrupted prompt is the prompt itself, \"p\""
        );
        assert_eq!(refused(r#"[{"name": "", "examples": []}]"#), "t.json, [0].name: the name is empty");
        for bad in ["", "7", "{}", "[7]", "[{\"name\": 7, \"examples\": []}]", "{\"tasks\": [], \"more\": 1}"] {
            assert!(tasks(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_later_version_is_refused_as_that() {
        let json = r#"{"version": 2, "tasks": [], "novelty": true}"#;
        assert_eq!(tasks(json).unwrap_err(), "t.json, version: version 2; this build reads version 1");
    }

    #[test]
    fn either_kind_is_told_by_its_first_line() {
        let names = |text: &str| -> Vec<String> {
            read_any(text.as_bytes(), "f", "lines").unwrap().into_iter().map(|task| task.name).collect()
        };
        let task = r#"{"name": "a", "examples": [{"prompt": "p", "answer": "q"}]}"#;
        assert_eq!(names(&format!("[{task}]")), ["a"]);
        assert_eq!(names(&format!("{{\"tasks\": [{task}]}}")), ["a"]);
        assert_eq!(names(&format!("{{\n\"version\": 1,\n\"tasks\": [{task}]}}")), ["a"]);
        assert_eq!(names("\n{\"prompt\": \"p\", \"answer\": \"q\"}\n"), ["lines"]);
        assert!(read_any(b"", "f", "lines").is_err());
    }
}
