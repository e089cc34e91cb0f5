//! Why a server gave no reply.

use std::time::Duration;

use thiserror::Error;

/// Why there is no reply. No message holds the key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LlmError {
    /// Not an address of a server.
    #[error("base URL `{}`: {problem}", url.escape_debug())]
    Address {
        /// The address.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The server refused, and would again.
    #[error("{url}: HTTP {status}{}", said(message))]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// No reply came about: no connection, or passing trouble in every attempt.
    #[error("{url}: {reason}{}", after(*attempts))]
    Transport {
        /// What was asked.
        url: String,
        /// The last attempt's trouble.
        reason: String,
        /// How many attempts there were.
        attempts: u32,
    },
    /// The server asks for more patience than there is.
    #[error("{url}: {reason}; the server asks to wait {asked:?}, at most {longest:?} are waited")]
    Patience {
        /// What was asked.
        url: String,
        /// Its trouble.
        reason: String,
        /// How long it asks to wait.
        asked: Duration,
        /// How long is waited at most.
        longest: Duration,
    },
    /// The caller broke off.
    #[error("interrupted")]
    Cancelled,
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {}", message.escape_debug()) }
}

fn after(attempts: u32) -> String {
    if attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() }
}
