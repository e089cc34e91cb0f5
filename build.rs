//! Tells the program which commit it is built from: results are kept with it. Nothing else is built here.

use std::process::Command;

fn main() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    // A published crate lies in no repository, or in somebody else's: it carries its commit in a file.
    let published = std::fs::read_to_string(".cargo_vcs_info.json").ok();
    let commit = match published {
        Some(info) => info.split('"').find(|part| part.len() == 40).map(str::to_owned),
        None => git(&["rev-parse", "HEAD"]).map(|commit| match git(&["status", "--porcelain", "src", "kernels"]) {
            Some(changed) if changed.is_empty() => commit,
            _ => format!("{commit}-changed"),
        }),
    };
    println!("cargo::rustc-env=LESION_COMMIT={}", commit.unwrap_or_default());
    for path in ["src", "kernels/src", "kernels/Cargo.toml", "Cargo.toml", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
