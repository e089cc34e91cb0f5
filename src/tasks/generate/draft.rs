//! What a reply holds: examples, and the task around them, as far as they can be read.

use serde::Deserialize;
use serde_json::Value;

use super::super::Example;
use crate::llm::json_in;

/// The usable parts of a reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// The name of a task; trimmed.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Its questions for a judge.
    pub eval_questions: Vec<String>,
    /// Examples.
    pub examples: Vec<Example>,
    /// What could not be read: why not.
    pub refused: Vec<String>,
}

#[derive(Deserialize)]
struct DraftExample {
    prompt: String,
    answer: String,
    #[serde(default)]
    alternatives: Vec<String>,
}

impl Draft {
    /// Reads a reply's text: JSON of one of the schemas, with or without a fence and words around it. Where it is broken
    /// or cut off, the examples that are whole are taken from it.
    pub fn read(text: &str) -> Draft {
        let Some(value) = json_in(text) else {
            let examples = whole_examples(text);
            let refused = format!("not JSON; {} whole examples in it", examples.len());
            return Draft { examples, refused: vec![refused], ..Draft::default() };
        };
        // One of the tasks of a list, or the one there is.
        let value = value.get("task").or_else(|| value.get("tasks")?.get(0)).unwrap_or(&value);
        let text = |field: &str| {
            let text = value.get(field).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let questions = value.get("eval_questions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut draft = Draft {
            name: text("name"),
            description: text("description"),
            eval_questions: questions.iter().filter_map(|question| question.as_str().map(str::to_owned)).collect(),
            ..Draft::default()
        };
        let list = value.get("examples").unwrap_or(value);
        match list.as_array() {
            None => draft.refused.push("no list of examples".to_owned()),
            Some(list) => list.iter().enumerate().for_each(|(number, example)| match read(example) {
                Ok(example) => draft.examples.push(example),
                Err(why) => draft.refused.push(format!("example {number}: {why}")),
            }),
        }
        draft
    }
}

fn read(value: &Value) -> Result<Example, String> {
    let DraftExample { prompt, answer, alternatives } =
        DraftExample::deserialize(value).map_err(|error| error.to_string())?;
    Ok(Example { alternatives, ..Example::new(prompt, answer) })
}

/// The objects in a text that are examples.
fn whole_examples(text: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].find('{') {
        at += next;
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                examples.extend(read(&value).ok());
                at += values.byte_offset();
            }
            // An object around others, or none: what it holds may be whole.
            _ => at += 1,
        }
    }
    examples
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(draft: &Draft) -> Vec<&str> {
        draft.examples.iter().map(|example| example.prompt.as_str()).collect()
    }

    #[test]
    fn replies_of_the_schemas_are_read() {
        let draft = Draft::read(
            r#"{"name": " n ", "description": "d", "eval_questions": ["?"],
                "examples": [{"prompt": "p", "answer": "a"}, {"prompt": "q", "answer": "b", "alternatives": ["c"]}]}"#,
        );
        assert_eq!((draft.name.as_deref(), draft.description.as_deref()), (Some("n"), Some("d")));
        assert_eq!((prompts(&draft), draft.eval_questions.len(), draft.refused.len()), (vec!["p", "q"], 1, 0));
        for text in [
            r#"[{"prompt": "p", "answer": "a"}]"#,
            "```json\n{\"examples\": [{\"prompt\": \"p\", \"answer\": \"a\", \"more\": 1}]}\n```",
            r#"{"tasks": [{"name": "n", "examples": [{"prompt": "p", "answer": "a"}]}]}"#,
        ] {
            assert_eq!(prompts(&Draft::read(text)), ["p"], "{text}");
        }
    }

    #[test]
    fn what_is_whole_is_taken_from_what_is_broken() {
        let draft = Draft::read(r#"{"examples": [{"prompt": "p", "answer": "a"}, {"prompt": "q"}, 7]}"#);
        assert_eq!((prompts(&draft), draft.refused.len()), (vec!["p"], 2));
        assert!(draft.refused[0].contains("missing field `answer`"), "{:?}", draft.refused);
        let cut = r#"Here: {"examples": [{"prompt": "p{", "answer": "a"}, {"prompt": "q", "answer": "b"}, {"prompt": "r", "ans"#;
        let draft = Draft::read(cut);
        assert_eq!(prompts(&draft), ["p{", "q"]);
        assert_eq!(draft.refused, ["not JSON; 2 whole examples in it"]);
        for text in ["", "no", "{{{{", "{\"examples\": 7}"] {
            let draft = Draft::read(text);
            assert_eq!((draft.examples.len(), draft.refused.len()), (0, 1), "{text}");
        }
    }
}
