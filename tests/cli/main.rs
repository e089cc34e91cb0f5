//! The command line, as real processes: what they print, what they refuse, how they end.

#![cfg(feature = "cli")]

mod bridge;
mod chat;
mod complete;
mod documents;
mod engine;
mod files;
#[cfg(feature = "agent")]
mod generate;
mod inside;
mod look;
mod loss;
mod models;
mod plan;
mod report;
mod run;
mod signals;
mod store;
mod sweep;
mod tasks;
mod verify;

#[cfg(feature = "hub")]
#[path = "../mock_hub/mod.rs"]
mod mock_hub;

#[cfg(feature = "agent")]
#[path = "../chat_server/mod.rs"]
mod chat_server;
