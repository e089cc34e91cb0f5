//! A server of chat completions on 127.0.0.1 that answers by a script, one answer a request, and misbehaves where it says so.

#![allow(dead_code)] // each test file uses its part

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

/// What a request gets.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A well-formed reply with this text and 10 + 5 tokens of usage.
    Content(String),
    /// This body with status 200.
    Body(String),
    /// A status with headers (each with its line's end) and a body.
    Status(u16, &'static str, String),
    /// Announces a body, sends half of it, closes.
    Truncated(String),
    /// Closes without a word.
    Close,
    /// Says nothing for so long, then closes.
    Hang(Duration),
    /// Sends a byte of a good reply now and then.
    Slow(Duration),
}

impl Answer {
    pub(crate) fn content(text: impl Into<String>) -> Answer {
        Answer::Content(text.into())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Value,
}

impl Request {
    /// The kind of `response_format`; none where it is not there.
    pub(crate) fn format(&self) -> Option<&str> {
        self.body["response_format"]["type"].as_str()
    }

    /// The texts of all messages.
    pub(crate) fn said(&self) -> String {
        let messages = self.body["messages"].as_array().unwrap();
        messages.iter().map(|message| message["content"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    requests: Vec<Request>,
}

pub(crate) struct ChatServer {
    pub(crate) base_url: String,
    state: Arc<Mutex<State>>,
    closing: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

/// The body of a well-formed reply.
pub(crate) fn reply(content: Value) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "scripted", "system_fingerprint": null,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    })
}

impl ChatServer {
    pub(crate) fn start(script: impl IntoIterator<Item = Answer>) -> ChatServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { script: script.into_iter().collect(), requests: Vec::new() }));
        let closing = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (state.clone(), closing.clone());
        let server = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = shared.clone();
                // A client that gave up closes: what fails then is its answer.
                thread::spawn(move || _ = serve(stream.unwrap(), &shared));
            }
        });
        ChatServer { base_url, state, closing, server: Some(server) }
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Answers that no request has had.
    pub(crate) fn left(&self) -> usize {
        self.state.lock().unwrap().script.len()
    }
}

impl Drop for ChatServer {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        let address = self.base_url.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
        // Wakes the server up.
        let _ = TcpStream::connect(address);
        self.server.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    if lines.is_empty() {
        return Ok(());
    }
    let length = lines.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let answer = {
        let mut state = state.lock().unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        state.requests.push(Request { line: lines[0].clone(), headers: lines[1..].to_vec(), body });
        state.script.pop_front()
    };
    let head = |status: u16, more: &str, length: usize| {
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n"
        )
    };
    let whole = |status: u16, more: &str, body: &str| head(status, more, body.len()) + body;
    match answer {
        None => stream.write_all(whole(418, "", "{\"error\": \"the script is over\"}").as_bytes()),
        Some(Answer::Content(text)) => stream.write_all(whole(200, "", &reply(text.into()).to_string()).as_bytes()),
        Some(Answer::Body(body)) => stream.write_all(whole(200, "", &body).as_bytes()),
        Some(Answer::Status(status, headers, body)) => stream.write_all(whole(status, headers, &body).as_bytes()),
        Some(Answer::Truncated(body)) => {
            stream.write_all((head(200, "", body.len()) + &body[..body.len() / 2]).as_bytes())
        }
        Some(Answer::Close) => Ok(()),
        Some(Answer::Hang(time)) => {
            thread::sleep(time);
            Ok(())
        }
        Some(Answer::Slow(pause)) => {
            for byte in whole(200, "", &reply("late".into()).to_string()).bytes() {
                stream.write_all(&[byte])?;
                thread::sleep(pause);
            }
            Ok(())
        }
    }
}
