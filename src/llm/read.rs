//! Replies, read leniently: what servers leave out, add or write another way.

use serde_json::Value;

use super::{Reply, ToolCall, Usage};

/// The reply in a body.
///
/// # Errors
/// Where it is not JSON, or has no choice with a message: what is wrong with it.
pub(super) fn reply(body: &str) -> Result<Reply, String> {
    let body: Value = serde_json::from_str(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    // Some servers send errors with status 200.
    if let Some(message) = error_message(&body) {
        return Err(format!("the body is an error: {message}"));
    }
    let choice = body.get("choices").and_then(|choices| choices.get(0));
    let choice = choice.ok_or_else(|| "the body has no choices".to_owned())?;
    let message = choice.get("message").ok_or_else(|| "the choice has no message".to_owned())?;
    let calls = message.get("tool_calls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    Ok(Reply {
        content: content(message.get("content")),
        tool_calls: calls.iter().enumerate().filter_map(|(place, call)| tool_call(place, call)).collect(),
        finish: choice.get("finish_reason").and_then(Value::as_str).map(str::to_owned),
        usage: body.get("usage").and_then(usage),
    })
}

/// A text, or the texts of a list of parts; anything else, null above all, is none.
fn content(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| part.get("text").and_then(Value::as_str).map(str::to_owned);
            parts.iter().filter_map(text).collect()
        }
        _ => String::new(),
    }
}

fn tool_call(place: usize, call: &Value) -> Option<ToolCall> {
    let function = call.get("function")?;
    let arguments = match function.get("arguments") {
        // A function without arguments.
        None | Some(Value::Null) => Ok(Value::Object(serde_json::Map::new())),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(Value::Object(serde_json::Map::new())),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| text.clone()),
        Some(value) => Ok(value.clone()),
    };
    let id = call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
    let name = function.get("name").and_then(Value::as_str)?.to_owned();
    Some(ToolCall { id: id.map_or_else(|| format!("call_{place}"), str::to_owned), name, arguments })
}

/// Tokens, where both numbers are there.
fn usage(usage: &Value) -> Option<Usage> {
    let number = |names: [&str; 2]| names.iter().find_map(|name| usage.get(name)?.as_u64());
    Some(Usage {
        prompt_tokens: number(["prompt_tokens", "input_tokens"])?,
        completion_tokens: number(["completion_tokens", "output_tokens"])?,
    })
}

/// What a body says that went wrong: `{"error": {"message": …}}`, `{"error": …}`, `{"message": …}`, `{"detail": …}`.
pub(super) fn error_message(body: &Value) -> Option<String> {
    let error = body.get("error").filter(|error| !error.is_null());
    let found = match error {
        Some(error) => error.get("message").unwrap_or(error),
        None if body.get("choices").is_none() => body.get("message").or_else(|| body.get("detail"))?,
        None => return None,
    };
    Some(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Reply {
        reply(&body.to_string()).unwrap()
    }

    #[test]
    fn a_plain_reply_is_read_and_unknown_fields_are_passed_over() {
        let read = read(json!({
            "id": "x", "object": "chat.completion", "novel": {"deep": [1]}, "created": 1.5,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello", "refusal": null},
                         "logprobs": null, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "details": {}},
        }));
        assert_eq!(read.content, "hello");
        assert_eq!(read.finish.as_deref(), Some("stop"));
        assert_eq!(read.usage, Some(Usage { prompt_tokens: 7, completion_tokens: 2 }));
    }

    #[test]
    fn what_is_left_out_is_none() {
        for content in [json!(null), json!(""), json!([]), json!({"odd": 1})] {
            let read = read(json!({"choices": [{"message": {"content": content}}]}));
            assert_eq!((read.content.as_str(), read.finish, read.usage), ("", None, None));
        }
        let parts = json!([{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]);
        assert_eq!(read(json!({"choices": [{"message": {"content": parts}}]})).content, "ab");
        let partial = json!({"choices": [{"message": {}}], "usage": {"prompt_tokens": 3}});
        assert_eq!(read(partial).usage, None);
    }

    #[test]
    fn tool_calls_come_in_several_ways() {
        let calls = json!([
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
            {"function": {"name": "g", "arguments": {"x": 2}}},
            {"id": "", "function": {"name": "h"}},
            {"id": "d", "function": {"name": "i", "arguments": "{\"x\""}},
            {"id": "e"},
        ]);
        let read = read(json!({"choices": [{"message": {"content": null, "tool_calls": calls}}]}));
        let found: Vec<_> =
            read.tool_calls.iter().map(|call| (&*call.id, &*call.name, call.arguments.clone())).collect();
        assert_eq!(
            found,
            [
                ("a", "f", Ok(json!({"x": 1}))),
                ("call_1", "g", Ok(json!({"x": 2}))),
                ("call_2", "h", Ok(json!({}))),
                ("d", "i", Err("{\"x\"".to_owned())),
            ]
        );
    }

    #[test]
    fn bodies_that_are_no_reply_say_what_they_are() {
        for (body, word) in [
            ("", "not JSON"),
            ("<html>", "not JSON"),
            ("{\"choices\": [{\"mess", "not JSON"),
            ("{}", "no choices"),
            ("[]", "no choices"),
            ("{\"choices\": []}", "no choices"),
            ("{\"choices\": [{}]}", "no message"),
            ("{\"error\": {\"message\": \"overloaded\"}}", "an error: overloaded"),
            ("{\"error\": \"odd\"}", "an error: odd"),
            ("{\"detail\": [1]}", "an error: [1]"),
        ] {
            let error = reply(body).unwrap_err();
            assert!(error.contains(word), "{body}: {error}");
        }
    }
}
