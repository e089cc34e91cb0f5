//! Chat completions of any OpenAI-compatible server: requests out, replies in, retries and structured output between.
//!
//! `POST {base_url}/chat/completions`, one at a time, without streaming. Servers differ, so replies are read leniently
//! (`read`): unknown fields, null content, content in parts, missing usage, missing ids of tool calls, arguments as an object
//! or as a text are all taken as they come. What a reply says is never trusted: whoever asks validates it.
//!
//! [`Client`] sends and retries; [`Structured`] asks for JSON of a schema, by whichever means the server understands. The key
//! is sent to the server and appears nowhere else: where an answer repeats it, it is replaced. Nothing here knows what is asked.

mod client;
mod error;
mod read;
mod structured;

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use client::{Client, Watch};
pub use error::LlmError;
pub use structured::{Format, Schema, Structured, json_in};

/// An API key: sent to the server, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes a key; surrounding white space is no part of it. `None` if nothing is left, or if it holds what can't be sent
    /// in a header.
    pub fn new(text: &str) -> Option<ApiKey> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| ApiKey(text.to_owned()))
    }

    /// `text` without the key.
    fn scrubbed(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

/// Which server, which model, and how patiently.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The server's address up to and without `/chat/completions`.
    pub base_url: String,
    /// The model's name there.
    pub model: String,
    /// The key, where the server wants one.
    pub key: Option<ApiKey>,
    /// A request that is not answered in full after this long is given up, and retried.
    pub timeout: Duration,
    /// How often a request is repeated that met a passing trouble.
    pub retries: u32,
    /// The pause before the first retry, doubled for each after it; of each, a random share from a half to all is waited.
    pub pause: Duration,
    /// The longest pause; where a server asks for a longer one, the request fails.
    pub longest_pause: Duration,
}

impl ClientOptions {
    /// The defaults: 2 minutes for an answer, 4 retries after 1, 2, 4 and 8 seconds, at most a minute of pause.
    pub fn new(base_url: &str, model: &str, key: Option<ApiKey>) -> ClientOptions {
        ClientOptions {
            base_url: base_url.to_owned(),
            model: model.to_owned(),
            key,
            timeout: Duration::from_secs(120),
            retries: 4,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: String,
}

impl Message {
    /// What the model is.
    pub fn system(content: impl Into<String>) -> Message {
        Message { role: "system", content: content.into() }
    }

    /// What it is asked.
    pub fn user(content: impl Into<String>) -> Message {
        Message { role: "user", content: content.into() }
    }

    /// What it said.
    pub fn assistant(content: impl Into<String>) -> Message {
        Message { role: "assistant", content: content.into() }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The text; empty where there was none.
    pub content: String,
    /// The functions that the model wants called.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended: `stop`, `length`, `tool_calls`, …, where the server says.
    pub finish: Option<String>,
    /// What it cost, where the server says.
    pub usage: Option<Usage>,
}

/// A function that a model wants called.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Its id; made up from its place where the server gives none.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments; or the text that is not JSON.
    pub arguments: Result<Value, String>,
}

/// Tokens of requests and their replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens sent.
    pub prompt_tokens: u64,
    /// Tokens that came back.
    pub completion_tokens: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
    }
}
