//! The `lesion` command.

#![deny(unsafe_code)]

fn main() {}
