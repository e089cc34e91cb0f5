//! JSON of a schema from servers that understand schemas, JSON, or neither: a ladder that is climbed down once.

use serde_json::{Value, json};

use super::{Client, LlmError, Message, Reply, Watch};

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Its name: letters, digits and underscores.
    pub name: &'static str,
    /// A strict JSON schema: every property required, no others allowed, no `format`.
    pub schema: Value,
}

/// How a server is made to answer with JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `response_format` with the schema.
    JsonSchema,
    /// `response_format` of any JSON object; the schema stands in the prompt.
    JsonObject,
    /// The prompt alone.
    Prompt,
}

impl Format {
    /// The next lower rung.
    fn below(self) -> Option<Format> {
        match self {
            Format::JsonSchema => Some(Format::JsonObject),
            Format::JsonObject => Some(Format::Prompt),
            Format::Prompt => None,
        }
    }
}

/// A client that asks for JSON. It remembers which formats the server refused.
#[derive(Debug)]
pub struct Structured {
    client: Client,
    format: Format,
}

impl Structured {
    /// Begins with the strictest format.
    pub fn new(client: Client) -> Structured {
        Structured { client, format: Format::JsonSchema }
    }

    /// How the server is asked now.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The reply to these messages, asked for in the strictest format that the server takes: where it refuses one (HTTP
    /// 400, 415, 422 or 501), the next lower is tried, and kept for later requests. What the reply holds is not checked:
    /// a server may take a format and pass it over.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn ask(&mut self, messages: &[Message], schema: &Schema, watch: &mut Watch<'_>) -> Result<Reply, LlmError> {
        let mut format = self.format;
        loop {
            let asked = described(messages, schema, format);
            match self.client.send(&asked, response_format(schema, format).as_ref(), watch) {
                Err(LlmError::Status { status: 400 | 415 | 422 | 501, .. }) if format.below().is_some() => {
                    format = format.below().expect("it was just there");
                }
                Ok(reply) => {
                    // Only a format that was seen to work is kept: the refusal may have been about something else.
                    self.format = format;
                    return Ok(reply);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn response_format(schema: &Schema, format: Format) -> Option<Value> {
    match format {
        Format::JsonSchema => Some(json!({
            "type": "json_schema",
            "json_schema": {"name": schema.name, "strict": true, "schema": schema.schema},
        })),
        Format::JsonObject => Some(json!({"type": "json_object"})),
        Format::Prompt => None,
    }
}

/// The messages, the schema said in words where the server does not take it otherwise.
fn described(messages: &[Message], schema: &Schema, format: Format) -> Vec<Message> {
    let mut messages = messages.to_vec();
    if format != Format::JsonSchema {
        let asked = format!("Answer with one JSON object of this JSON schema, and nothing else:\n{}", schema.schema);
        // In the first message: many servers take one system message, and that first.
        match messages.first_mut().filter(|first| first.role == "system") {
            Some(first) => first.content = format!("{}\n\n{asked}", first.content),
            None => messages.insert(0, Message::system(asked)),
        }
    }
    messages
}

/// The JSON in a reply's text: all of it, what a code fence holds, or what lies between the first and the last brace.
pub fn json_in(text: &str) -> Option<Value> {
    let text = text.trim();
    let fenced = text.split("```").nth(1).map(|block| block.trim_start_matches(char::is_alphanumeric));
    let braced = text.find('{').zip(text.rfind('}')).filter(|(from, to)| from < to).map(|(from, to)| &text[from..=to]);
    [Some(text), fenced, braced].into_iter().flatten().find_map(|part| serde_json::from_str(part).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_in_what_surrounds_it() {
        let expected = Some(json!({"a": 1}));
        for text in [
            "{\"a\": 1}",
            " \n{\"a\": 1}\n",
            "```json\n{\"a\": 1}\n```",
            "```\n{\"a\": 1}\n```\nHope this helps!",
            "Here you are:\n```JSON\n{\"a\": 1}\n```",
            "Sure: {\"a\": 1}. Anything else?",
            "<think>{hm}</think>\n```json\n{\"a\": 1}```",
        ] {
            assert_eq!(json_in(text), expected, "{text}");
        }
        for text in ["", "{", "}{", "no", "```json\n{\"a\": \n```", "{\"a\": 1"] {
            assert_eq!(json_in(text), None, "{text}");
        }
    }

    #[test]
    fn lower_rungs_say_the_schema_in_the_prompt() {
        let schema = Schema { name: "s", schema: json!({"type": "object"}) };
        let messages = [Message::system("You are."), Message::user("Do.")];
        assert_eq!(described(&messages, &schema, Format::JsonSchema), messages);
        for format in [Format::JsonObject, Format::Prompt] {
            let said = described(&messages, &schema, format);
            assert_eq!((said.len(), &said[1]), (2, &messages[1]));
            assert!(said[0].content.starts_with("You are.") && said[0].content.contains("{\"type\":\"object\"}"));
            assert_eq!(described(&messages[1..], &schema, format)[0].role, "system");
        }
        assert_eq!(response_format(&schema, Format::Prompt), None);
    }
}
