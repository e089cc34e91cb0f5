//! The client of chat completions against servers that misbehave.

#![cfg(feature = "agent")]

mod chat_server;

use std::cell::Cell;
use std::time::Duration;

use chat_server::{Answer, ChatServer, reply};
use lesion::llm::{ApiKey, Client, ClientOptions, Format, LlmError, Message, Reply, Schema, Structured, Watch};
use serde_json::{Value, json};

const KEY: &str = "sk-secret-123";

fn client(server: &ChatServer) -> Client {
    Client::new(ClientOptions {
        timeout: Duration::from_millis(300),
        retries: 2,
        pause: Duration::from_millis(2),
        longest_pause: Duration::from_secs(2),
        ..ClientOptions::new(&server.base_url, "scripted", ApiKey::new(KEY))
    })
    .unwrap()
}

/// The reply, and the reasons why it was asked again.
fn send(server: &ChatServer) -> (Result<Reply, LlmError>, Vec<String>) {
    let mut reasons = Vec::new();
    let mut retry = |reason: &str, _: Duration| reasons.push(reason.to_owned());
    let mut watch = Watch { retry: &mut retry, cancelled: &|| false };
    let found = client(server).send(&[Message::user("hi")], None, &mut watch);
    (found, reasons)
}

fn good() -> Answer {
    Answer::content("hello")
}

fn status(status: u16, body: &str) -> Answer {
    Answer::Status(status, "", body.to_owned())
}

#[test]
fn a_request_is_what_servers_expect() {
    let server = ChatServer::start([good()]);
    assert_eq!(send(&server).0.unwrap().content, "hello");
    let request = &server.requests()[0];
    assert_eq!(request.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(request.body, json!({"model": "scripted", "messages": [{"role": "user", "content": "hi"}]}));
    let header = |name: &str| {
        let line = request.headers.iter().find(|line| line.to_lowercase().starts_with(name));
        line.map(|line| line[name.len()..].trim().to_owned())
    };
    assert_eq!(header("authorization:").unwrap(), format!("Bearer {KEY}"));
    assert_eq!(header("content-type:").unwrap(), "application/json");
}

#[test]
fn passing_trouble_is_asked_again() {
    for (trouble, word) in [
        (status(408, ""), "HTTP 408"),
        (status(409, ""), "HTTP 409"),
        (
            Answer::Status(429, "retry-after: 0\r\n", "{\"error\": {\"message\": \"slow down\"}}".into()),
            "HTTP 429: slow down",
        ),
        (status(500, "oops"), "HTTP 500: oops"),
        (status(503, "<html>"), "HTTP 503"),
        (Answer::Close, ""),
        (Answer::Truncated(reply("hello".into()).to_string()), ""),
        (Answer::Hang(Duration::from_millis(800)), "timeout"),
        (Answer::Slow(Duration::from_millis(20)), "timeout"),
        (Answer::Body("{\"choices\": [{\"mess".into()), "not JSON"),
        (Answer::Body("".into()), "not JSON"),
        (Answer::Body("{}".into()), "no choices"),
        (Answer::Body("{\"error\": {\"message\": \"overloaded\"}}".into()), "overloaded"),
    ] {
        let server = ChatServer::start([trouble.clone(), good()]);
        let (found, reasons) = send(&server);
        assert_eq!(found.unwrap().content, "hello", "{trouble:?}");
        assert_eq!((reasons.len(), server.left()), (1, 0), "{trouble:?}: {reasons:?}");
        assert!(reasons[0].contains(word), "{trouble:?}: {reasons:?}");
    }
}

#[test]
fn trouble_that_does_not_pass_ends_in_an_error_that_names_it() {
    let server = ChatServer::start([status(500, ""), Answer::Close, status(502, "bad gateway"), good()]);
    let (found, reasons) = send(&server);
    let error = found.unwrap_err().to_string();
    assert!(error.contains("HTTP 502: bad gateway (3 attempts)") && error.contains("/v1/chat/completions"), "{error}");
    assert_eq!((reasons.len(), server.left()), (2, 1));
    for code in [301, 400, 401, 403, 404, 422] {
        let server = ChatServer::start([
            Answer::Status(code, "location: /elsewhere\r\n", "{\"message\": \"no\"}".into()),
            good(),
        ]);
        let (found, reasons) = send(&server);
        assert!(
            matches!(found, Err(LlmError::Status { status, ref message, .. }) if status == code && message == "no"),
            "{found:?}"
        );
        assert_eq!((reasons.len(), server.left()), (0, 1), "{code}");
    }
    let gone = ChatServer::start([]).base_url.clone();
    let client = Client::new(ClientOptions::new(&gone, "m", None)).unwrap();
    let mut watch = Watch { retry: &mut |reason, _| panic!("{reason}"), cancelled: &|| false };
    assert!(matches!(client.send(&[], None, &mut watch), Err(LlmError::Transport { attempts: 1, .. })));
}

#[test]
fn the_servers_patience_is_kept_up_to_a_limit() {
    let wait = Answer::Status(429, "Retry-After: 0.05\r\n", String::new());
    let server = ChatServer::start([wait, good()]);
    let mut pauses = Vec::new();
    let mut retry = |_: &str, pause: Duration| pauses.push(pause);
    let mut watch = Watch { retry: &mut retry, cancelled: &|| false };
    assert!(client(&server).send(&[Message::user("hi")], None, &mut watch).is_ok());
    assert_eq!(pauses, [Duration::from_millis(50)]);
    let server = ChatServer::start([Answer::Status(429, "Retry-After: 3600\r\n", String::new()), good()]);
    let error = send(&server).0.unwrap_err();
    assert!(matches!(error, LlmError::Patience { .. }) && error.to_string().contains("3600s"), "{error}");
    assert_eq!(server.left(), 1);
}

#[test]
fn a_caller_can_break_off_between_attempts() {
    let server = ChatServer::start([Answer::Status(429, "Retry-After: 1.5\r\n", String::new()), good()]);
    let stop = Cell::new(false);
    let mut watch = Watch { retry: &mut |_, _| stop.set(true), cancelled: &|| stop.get() };
    let found = client(&server).send(&[Message::user("hi")], None, &mut watch);
    assert_eq!((found, server.left()), (Err(LlmError::Cancelled), 1));
}

#[test]
fn odd_replies_are_replies() {
    let body = |change: &dyn Fn(&mut Value)| {
        let mut body = reply("hello".into());
        change(&mut body);
        Answer::Body(body.to_string())
    };
    let no_usage = ChatServer::start([body(&|body| body["usage"] = Value::Null)]);
    assert_eq!(send(&no_usage).0.unwrap().usage, None);
    let null = ChatServer::start([body(&|body| body["choices"][0]["message"]["content"] = Value::Null)]);
    assert_eq!(send(&null).0.unwrap().content, "");
    let novel = ChatServer::start([body(&|body| {
        body["novelty"] = json!([{"x": 1}]);
        body["choices"][0]["message"]["reasoning_content"] = json!("hm");
    })]);
    assert_eq!(send(&novel).0.unwrap().content, "hello");
}

#[test]
fn a_key_that_a_server_repeats_goes_no_further() {
    let server = ChatServer::start([status(401, &format!("{{\"error\": {{\"message\": \"bad key {KEY}\"}}}}"))]);
    let error = send(&server).0.unwrap_err();
    assert!(format!("{error} {error:?}").contains("bad key [key]") && !format!("{error:?}").contains(KEY), "{error}");
    let server = ChatServer::start([Answer::content(format!("your key is {KEY}"))]);
    assert_eq!(send(&server).0.unwrap().content, "your key is [key]");
    assert!(!format!("{:?}", client(&server)).contains(KEY));
}

#[test]
fn formats_that_a_server_refuses_are_not_asked_for_again() {
    let refusal = || status(400, "{\"error\": {\"message\": \"response_format is not supported\"}}");
    let schema = Schema { name: "answer", schema: json!({"type": "object", "properties": {"a": {"type": "string"}}}) };
    let messages = [Message::system("You are."), Message::user("hi")];
    for (refusals, format, kinds) in [
        (0, Format::JsonSchema, vec![Some("json_schema"); 2]),
        (1, Format::JsonObject, vec![Some("json_schema"), Some("json_object"), Some("json_object")]),
        (2, Format::Prompt, vec![Some("json_schema"), Some("json_object"), None, None]),
    ] {
        let server = ChatServer::start((0..refusals).map(|_| refusal()).chain([good(), good()]));
        let mut structured = Structured::new(client(&server));
        for _ in 0..2 {
            let mut watch = Watch { retry: &mut |_, _| (), cancelled: &|| false };
            assert_eq!(structured.ask(&messages, &schema, &mut watch).unwrap().content, "hello");
        }
        let requests = server.requests();
        assert_eq!(requests.iter().map(|request| request.format()).collect::<Vec<_>>(), kinds);
        assert_eq!(structured.format(), format);
        let last = requests.last().unwrap();
        assert_eq!(last.said().contains("JSON schema"), format != Format::JsonSchema);
    }
    // A refusal of everything is the request's own fault, and says nothing about formats.
    let server = ChatServer::start([refusal(), refusal(), refusal()]);
    let mut structured = Structured::new(client(&server));
    let mut watch = Watch { retry: &mut |_, _| (), cancelled: &|| false };
    assert!(matches!(structured.ask(&messages, &schema, &mut watch), Err(LlmError::Status { status: 400, .. })));
    assert_eq!((structured.format(), server.left()), (Format::JsonSchema, 0));
}
