//! Lesion studies for language models: GPT-2 with its layers skipped, repeated, re-ordered or averaged.
//!
//! The rooms, in the order data flows: [`weights`] → [`model`] → [`plan`] → [`forward`] → [`measure`].

#![deny(unsafe_code)]

pub mod bench;
#[cfg(feature = "fit")]
pub mod bridge;
pub mod forward;
mod hex;
pub mod inside;
#[cfg(feature = "agent")]
pub mod llm;
pub mod measure;
pub mod model;
pub mod plan;
#[cfg(feature = "report")]
pub mod report;
mod shortcuts;
#[cfg(feature = "store")]
pub mod store;
pub mod sweep;
pub mod tasks;
pub mod weights;

pub use shortcuts::Error;

/// The README's example, as a test.
#[cfg(all(doctest, feature = "mini"))]
#[doc = include_str!("../README.md")]
struct Readme;
