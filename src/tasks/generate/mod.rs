//! More tasks and examples from a model that chats: what it is asked, and what its replies are worth. No network here.
//!
//! [`more_examples`] and [`another_task`] are requests; [`Draft::read`] takes from a reply whatever can be used, also where
//! it is broken; a [`Pool`] takes from drafts what is new. White space between prompt and answer is no part of either where
//! their join begins with white space: models add it at will, so it is taken off.

mod draft;
mod pool;

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Example, Task, write_task};
use crate::llm::{Message, Schema};

pub use draft::Draft;
pub use pool::{Added, Pool};

/// Examples of a task that a request shows.
const SHOWN: usize = 8;

/// Prompts that a request says not to repeat.
const NAMED: usize = 60;

/// Tasks that a request for another one shows.
const SHOWN_TASKS: usize = 2;

const ROLE: &str = "You write tasks for small language models that only continue text and were never taught to chat. \
A prompt is the beginning of a text whose continuation is certain, such as `The capital of France is`; a question such as \
`What is the capital of France?` is a bad prompt. The answer is what comes next, exactly as it would stand there: short, \
correct, and the only one possible.";

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// What is said.
    pub messages: Vec<Message>,
    /// What the reply is to be.
    pub schema: Schema,
}

/// Asks for so many more examples of a task.
pub fn more_examples(task: &Task, count: usize) -> Ask {
    let with_alternatives = task.examples.iter().any(|example| !example.alternatives.is_empty());
    let mut said = format!("Here is a task with some of its examples:\n{}\n\n", shown(task));
    let _ =
        write!(said, "Write {count} more examples of it, different from these and from each other. {}", joined(task));
    if with_alternatives {
        said.push_str(" Give one to three alternatives each: wrong answers that could be mistaken for the right one.");
    }
    let prompts = task.examples.iter().rev().take(NAMED);
    said.push_str(" These prompts are taken:\n");
    prompts.for_each(|example| _ = writeln!(said, "- {:?}", example.prompt));
    let schema = object(json!({"examples": examples_schema(with_alternatives)}));
    Ask { messages: vec![Message::system(ROLE), Message::user(said)], schema: Schema { name: "examples", schema } }
}

/// Asks for a task of another kind than these, with so many examples.
pub fn another_task(tasks: &[Task], count: usize) -> Ask {
    let mut said = String::from("These tasks are there already:\n");
    tasks.iter().for_each(|task| _ = writeln!(said, "- {}: {}", task.name, task.description));
    said.push_str("\nHere are some of them:\n");
    tasks.iter().rev().take(SHOWN_TASKS).for_each(|task| _ = writeln!(said, "{}", shown(task)));
    let _ = write!(
        said,
        "\nWrite one more task, of another kind, with {count} examples that differ from each other. The answer follows the \
         prompt after a space, which is part of neither. eval_questions are one or two questions that judge a completion."
    );
    let schema = object(json!({
        "name": {"type": "string", "description": "a short name, unlike the others"},
        "description": {"type": "string", "description": "what the task asks for, in one sentence"},
        "examples": examples_schema(false),
        "eval_questions": {"type": "array", "items": {"type": "string"}},
    }));
    Ask { messages: vec![Message::system(ROLE), Message::user(said)], schema: Schema { name: "task", schema } }
}

/// The task with the first of its examples.
fn shown(task: &Task) -> String {
    let examples: Vec<Example> = task.examples.iter().take(SHOWN).cloned().collect();
    write_task(&Task { examples, ..task.clone() })
}

fn joined(task: &Task) -> String {
    match &*task.join {
        "" => "The answer follows the prompt immediately, with nothing between them.".to_owned(),
        " " => "The answer follows the prompt after a space, which is part of neither.".to_owned(),
        join => format!("Between prompt and answer stands {join:?}, which is part of neither."),
    }
}

fn examples_schema(with_alternatives: bool) -> Value {
    let mut fields = json!({
        "prompt": {"type": "string", "description": "the beginning of a text"},
        "answer": {"type": "string", "description": "what comes next"},
    });
    if with_alternatives {
        fields["alternatives"] = json!({"type": "array", "items": {"type": "string"}});
    }
    json!({"type": "array", "items": object(fields)})
}

/// An object of exactly these properties, as strict schemas want it.
fn object(properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(|fields| fields.keys()).collect();
    json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::bundled;

    /// Every object of the schema requires all that it has, and nothing else is allowed.
    fn assert_strict(schema: &Value) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let mut names: Vec<&str> = properties.keys().map(String::as_str).collect();
            let mut required: Vec<&str> =
                schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            names.sort_unstable();
            required.sort_unstable();
            assert_eq!((names, &schema["additionalProperties"]), (required, &json!(false)));
            properties.values().for_each(assert_strict);
        }
        assert!(schema.get("format").is_none());
        schema.get("items").into_iter().for_each(assert_strict);
    }

    #[test]
    fn requests_say_what_is_there_and_schemas_are_strict() {
        let task = bundled::task("indirect object", 0, 20).unwrap();
        let ask = more_examples(&task, 7);
        let said = &ask.messages[1].content;
        assert!(said.contains("Write 7 more") && said.contains("alternatives each") && said.contains("after a space"));
        assert!(task.examples.iter().all(|example| said.contains(&format!("{:?}", example.prompt))), "{said}");
        assert_strict(&ask.schema.schema);
        let json = bundled::task("JSON to close", 0, 5).unwrap();
        let glued = more_examples(&json, 1);
        assert!(glued.messages[1].content.contains("immediately"));
        assert!(glued.schema.schema["properties"]["examples"]["items"]["properties"].get("alternatives").is_none());
        let other = another_task(&[task, json], 4);
        assert!(other.messages[1].content.contains("- JSON to close: "));
        assert_strict(&other.schema.schema);
    }
}
