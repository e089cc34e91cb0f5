//! One request and its retries.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::{ClientOptions, LlmError, Message, Reply, read};

/// The longest body that is read: a chat completion of 100,000 tokens has less than a megabyte.
const MAX_BODY: u64 = 16 << 20;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);

/// How often a pause looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(50);

/// Characters of what a server says that are passed on.
const MAX_MESSAGE: usize = 500;

/// A server and a model.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
    options: ClientOptions,
}

/// Who looks on while a request is repeated.
pub struct Watch<'a> {
    /// Hears why a request is repeated, and after what pause.
    pub retry: &'a mut dyn FnMut(&str, Duration),
    /// Whether to break off; asked before each attempt and during pauses.
    pub cancelled: &'a dyn Fn() -> bool,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [Message],
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a Value>,
}

/// Why an attempt failed.
enum Failure {
    Final(LlmError),
    /// The next attempt may succeed, after the pause that the server asks for.
    Passing {
        reason: String,
        pause: Option<Duration>,
    },
}

impl Client {
    /// A client for this server; nothing is sent yet.
    ///
    /// # Errors
    /// Where the address is none, or would send the key in the clear to another machine.
    pub fn new(options: ClientOptions) -> Result<Client, LlmError> {
        let address = |problem| LlmError::Address { url: options.base_url.clone(), problem };
        let uri: ureq::http::Uri = options.base_url.parse().map_err(|_| address("not an address"))?;
        let host = uri.host().ok_or_else(|| address("it has no host"))?;
        let loopback = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if loopback || options.key.is_none() => {}
            Some("http") => return Err(address("the key would be sent in the clear: https is needed, or no key")),
            _ => return Err(address("http:// or https:// is needed")),
        }
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(address("queries and user names are not supported"));
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let config = config.timeout_connect(Some(CONNECT.min(options.timeout))).timeout_global(Some(options.timeout));
        let url = format!("{}/chat/completions", options.base_url.trim_end_matches('/'));
        Ok(Client { agent: config.build().into(), url, options })
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.options.model
    }

    /// What the model says to these messages; `format` is the request's `response_format`.
    ///
    /// Repeated on timeouts, broken connections, bodies that are no reply, and on HTTP 408, 409, 429 and 5xx.
    ///
    /// # Errors
    /// A refusal, or the trouble of the last attempt.
    pub fn send(&self, messages: &[Message], format: Option<&Value>, watch: &mut Watch<'_>) -> Result<Reply, LlmError> {
        let body = Body { model: &self.options.model, messages, response_format: format };
        let body = serde_json::to_vec(&body).expect("messages are texts");
        let mut pause = self.options.pause;
        for attempt in 1.. {
            if (watch.cancelled)() {
                return Err(LlmError::Cancelled);
            }
            let (reason, asked) = match self.attempt(&body) {
                Ok(reply) => return Ok(reply),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing { reason, pause }) => (reason, pause),
            };
            let url = self.url.clone();
            if attempt > self.options.retries {
                return Err(LlmError::Transport { url, reason, attempts: attempt });
            }
            let longest = self.options.longest_pause;
            if let Some(asked) = asked.filter(|asked| *asked > longest) {
                return Err(LlmError::Patience { url, reason, asked, longest });
            }
            let wait = asked.unwrap_or_else(|| jittered(pause.min(longest)));
            (watch.retry)(&reason, wait);
            sleep(wait, watch.cancelled)?;
            pause = pause.saturating_mul(2);
        }
        unreachable!("attempts are counted up to the last")
    }

    fn attempt(&self, body: &[u8]) -> Result<Reply, Failure> {
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.options.key {
            request = request.header("authorization", format!("Bearer {}", key.0));
        }
        let mut response = request.send(body).map_err(|error| self.failed(&error))?;
        let status = response.status().as_u16();
        let pause = response.headers().get("retry-after").and_then(|value| value.to_str().ok()).and_then(seconds);
        let text =
            response.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(|error| self.failed(&error))?;
        let text = String::from_utf8_lossy(&text);
        let text = self.options.key.as_ref().map_or_else(|| text.to_string(), |key| key.scrubbed(&text));
        match status {
            200..300 => read::reply(&text).map_err(|reason| Failure::Passing { reason, pause }),
            408 | 409 | 429 | 500.. => {
                let message = message(&text);
                let colon = if message.is_empty() { "" } else { ": " };
                Err(Failure::Passing { reason: format!("HTTP {status}{colon}{}", message.escape_debug()), pause })
            }
            _ => Err(Failure::Final(LlmError::Status { url: self.url.clone(), status, message: message(&text) })),
        }
    }

    /// A connection that broke or stalled is worth another attempt; one that never came about is not.
    fn failed(&self, error: &ureq::Error) -> Failure {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
        let passing = match error {
            ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
            ureq::Error::Io(error) => {
                matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof)
            }
            _ => false,
        };
        let reason = error.to_string();
        match passing {
            true => Failure::Passing { reason, pause: None },
            false => Failure::Final(LlmError::Transport { url: self.url.clone(), reason, attempts: 1 }),
        }
    }
}

/// What a refusal says, if it says it as servers do; else its beginning.
fn message(text: &str) -> String {
    let said = serde_json::from_str(text).ok().and_then(|body: Value| read::error_message(&body));
    said.unwrap_or_else(|| text.trim().to_owned()).chars().take(MAX_MESSAGE).collect()
}

/// `Retry-After` in seconds; as a date it is passed over, and the client's own pause is waited.
fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// From a half to all of a pause, so that clients that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    pause / 2 + (pause / 2).mul_f64(random as f64 / u64::MAX as f64)
}

fn sleep(pause: Duration, cancelled: &dyn Fn() -> bool) -> Result<(), LlmError> {
    let start = Instant::now();
    while let Some(left) = pause.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        if cancelled() {
            return Err(LlmError::Cancelled);
        }
        thread::sleep(left.min(TICK));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ApiKey;
    use super::*;

    fn refused(url: &str, key: Option<&str>) -> Option<String> {
        let options = ClientOptions::new(url, "m", key.and_then(ApiKey::new));
        Client::new(options).err().map(|error| error.to_string())
    }

    #[test]
    fn keys_go_to_https_or_this_machine_only() {
        for url in ["https://example.org/v1", "http://localhost:8000/v1", "http://127.0.0.1:1", "http://[::1]:8080/v1/"]
        {
            assert_eq!(refused(url, Some("secret")), None, "{url}");
        }
        assert_eq!(refused("http://10.0.0.5/v1", None), None);
        let error = refused("http://10.0.0.5/v1", Some("secret")).unwrap();
        assert!(error.contains("in the clear") && !error.contains("secret"), "{error}");
        for url in ["", "example.org/v1", "ftp://example.org", "https://", "https://a@b.org/v1", "https://b.org/v1?x=1"]
        {
            assert!(refused(url, None).is_some(), "{url}");
        }
    }

    #[test]
    fn keys_are_never_shown() {
        let key = ApiKey::new(" sk-123\n").unwrap();
        assert_eq!(format!("{key:?}"), "ApiKey(hidden)");
        assert_eq!(key.scrubbed("no such key: sk-123."), "no such key: [key].");
        assert_eq!((ApiKey::new(" "), ApiKey::new("a b"), ApiKey::new("é")), (None, None, None));
    }

    #[test]
    fn pauses_are_read_and_jittered() {
        assert_eq!(seconds(" 2 "), Some(Duration::from_secs(2)));
        assert_eq!(seconds("0.5"), Some(Duration::from_millis(500)));
        assert_eq!([seconds("-1"), seconds("NaN"), seconds("Wed, 21 Oct 2026 07:28:00 GMT")], [None; 3]);
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(2));
            assert!((1.0..=2.0).contains(&pause.as_secs_f64()), "{pause:?}");
        }
    }
}
