//! How to reach the hub and its cache: Hugging Face's environment variables, read in one place and passed on as values.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{HubCache, HubError, Records};

/// An access token; it is sent to the hub and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token; surrounding white space is no part of it. `None` if nothing is left, or if it holds what can't
    /// be sent in a header.
    pub fn new(text: &str) -> Option<Token> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Token(text.to_string()))
    }

    #[cfg(feature = "hub")]
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Where weights are looked for, where they come from, and how patiently.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Hugging Face's cache.
    pub cache: HubCache,
    /// What was verified before.
    pub records: Records,
    /// Address of the hub without a slash at the end; `None` is the public one.
    pub endpoint: Option<String>,
    /// Access token for private and gated repositories.
    pub token: Option<Token>,
    /// Use only what is in the cache.
    pub offline: bool,
    /// A transfer that brings no byte for this long is given up; what has arrived is kept and resumed next time.
    pub stall_timeout: Duration,
    /// How often a transfer that broke off, or met a server's passing trouble, is taken up again.
    pub retries: u32,
    /// Pause before the first retry; doubled for each one after it.
    pub retry_pause: Duration,
}

impl HubOptions {
    /// The defaults with everything under the two folders given: the public hub, online, without a token.
    pub fn new(cache: HubCache, records: Records) -> HubOptions {
        HubOptions {
            cache,
            records,
            endpoint: None,
            token: None,
            offline: false,
            stall_timeout: Duration::from_secs(30),
            retries: 4,
            retry_pause: Duration::from_millis(500),
        }
    }

    /// Reads the process's environment, as [`HubOptions::from_lookup`].
    ///
    /// # Errors
    /// As there.
    pub fn from_env() -> Result<HubOptions, HubError> {
        HubOptions::from_lookup(|name| std::env::var_os(name))
    }

    /// Reads `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`,
    /// `XDG_CACHE_HOME` and `HOME` (or `USERPROFILE`) through `lookup`, with the meaning they have for Hugging Face's own tools, and the
    /// token's file. A variable set to nothing counts as not set.
    ///
    /// # Errors
    /// When a value can't be understood, when no variable tells where the caches are, or when the token's file exists
    /// and can't be read.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<HubOptions, HubError> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let text = |name: &'static str| match set(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(HubError::Variable { name, found: None, expected: "UTF-8 text" }),
        };
        let home = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
        let path = |name: &str| set(name).map(|value| expand_home(PathBuf::from(value), home.as_deref()));
        let caches =
            path("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache"))).ok_or(HubError::NoHome);

        let hf_home = path("HF_HOME")
            .map_or_else(|| caches.as_ref().map(|caches| caches.join("huggingface")).map_err(|_| HubError::NoHome), Ok);
        let root = match (path("HF_HUB_CACHE"), &hf_home) {
            (Some(root), _) => root,
            (None, Ok(hf_home)) => hf_home.join("hub"),
            (None, Err(_)) => return Err(HubError::NoHome),
        };
        let records = caches.map_or_else(|_| Records::disabled(), |caches| Records::at(caches.join("lesion")));

        let mut options = HubOptions::new(HubCache::new(root), records);
        if let Some(endpoint) = text("HF_ENDPOINT")? {
            options.endpoint = Some(checked_endpoint(&endpoint)?);
        }
        if let Some(offline) = text("HF_HUB_OFFLINE")? {
            options.offline = switch("HF_HUB_OFFLINE", &offline)?;
        }
        options.token = match text("HF_TOKEN")? {
            // The value is left out of the error: it may be a mistyped secret.
            Some(token) => Some(Token::new(&token).ok_or(HubError::Variable {
                name: "HF_TOKEN",
                found: None,
                expected: "a token without spaces or control characters",
            })?),
            None => match path("HF_TOKEN_PATH").or_else(|| hf_home.ok().map(|hf_home| hf_home.join("token"))) {
                Some(file) => token_in(&file)?,
                None => None,
            },
        };
        Ok(options)
    }
}

fn expand_home(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

fn checked_endpoint(text: &str) -> Result<String, HubError> {
    let endpoint = text.trim_end_matches('/');
    let address = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let plain = |address: &str| {
        !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_graphic() && !b"@?#".contains(&byte))
    };
    if address.is_some_and(plain) {
        return Ok(endpoint.to_string());
    }
    Err(HubError::Variable {
        name: "HF_ENDPOINT",
        // An address with an @ may hold a password.
        found: (!text.contains('@')).then(|| text.to_string()),
        expected: "http:// or https:// and a host, without user name, query or fragment",
    })
}

fn switch(name: &'static str, value: &str) -> Result<bool, HubError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(HubError::Variable { name, found: Some(value.into()), expected: "1|true|yes|on or 0|false|no|off" }),
    }
}

fn token_in(file: &Path) -> Result<Option<Token>, HubError> {
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => Token::new(&text).map(Some).ok_or_else(|| HubError::TokenFile { path: file.into() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HubError::Io { operation: "read the token in", path: file.into(), source }),
    }
}
