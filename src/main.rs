//! The `lesion` command: everything is in [`cli`].

#![deny(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
