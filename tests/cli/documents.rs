//! The README and the help pages: every command in them runs, and prints what they say.

use std::path::Path;
use std::process::Command;

use crate::run::{isolate, ok};

/// Runs a line as a shell does, with `lesion` on its path, in a folder of its own.
fn shell(line: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("story.txt"), "One day, Anna walked to the park with her dog.").unwrap();
    let binary = Path::new(assert_cmd::cargo::cargo_bin!("lesion"));
    let path = std::env::join_paths(
        std::iter::once(binary.parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut command = Command::new("sh");
    isolate(&mut command);
    let output = command.current_dir(folder.path()).env("PATH", path.unwrap()).args(["-c", line]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Lines that need weights or a network that no test has.
fn needs_more(line: &str) -> bool {
    ["gpt2", "models lock", "tasks generate"].iter().any(|word| line.contains(word))
}

#[test]
fn the_examples_of_every_help_page_run() {
    let mut examples = 0;
    for command in [
        "",
        "complete",
        "loss",
        "attribute",
        "attention",
        "similarity",
        "bridge fit",
        "bridge tune",
        "chat",
        "patch",
        "trace",
        "plan",
        "bench",
        "doctor",
        "verify",
        "tasks ls",
        "tasks show",
        "tasks check",
        "tasks export",
        "tasks generate",
        "tasks measure",
        "models list",
        "models fetch",
        "models lock",
        "models verify",
        "models path",
        "models synthesize",
    ] {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let help = ok(&args);
        let lines: Vec<&str> = help
            .lines()
            .skip_while(|line| !line.starts_with("Examples:") && !line.starts_with("Start here:"))
            .skip(1)
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect();
        assert!(!lines.is_empty(), "{command}: no examples");
        for line in lines {
            assert!(line.starts_with("lesion ") || line.contains("| lesion "), "{command}: {line}");
            assert!(line.chars().count() <= 78, "{command}: wraps in a terminal of 80 columns: {line}");
            if needs_more(line) {
                continue;
            }
            let (code, stdout, stderr) = shell(line);
            assert_eq!(code, Some(0), "{line}\n{stderr}");
            assert!(!stdout.is_empty() || line.contains("--out"), "{line}");
            examples += 1;
        }
    }
    assert!(examples > 20, "{examples} examples ran");
}

/// Blocks of the README that open with ```console: `$ command`, then what it prints on stdout.
#[test]
fn the_readme_prints_what_it_says() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut ran = 0;
    for block in readme.split("```console\n").skip(1) {
        let block = format!("\n{}", block.split("```").next().unwrap());
        for entry in block.split("\n$ ").skip(1) {
            let (line, expected) = entry.split_once('\n').unwrap();
            if needs_more(line) {
                continue;
            }
            let line = line.replace("cargo run --release -- ", "lesion ");
            let (code, stdout, stderr) = shell(&line);
            assert_eq!(code, Some(0), "{line}\n{stderr}");
            assert_eq!(stdout.trim_end(), expected.trim_end(), "{line}");
            ran += 1;
        }
    }
    assert!(ran >= 6, "{ran} commands ran");
}
