//! Rules of the source tree that no compiler checks: what every file says of itself, how long it may be,
//! what may not be written down anywhere, and that the documents still name what exists.

use std::fs;
use std::path::{Path, PathBuf};

/// Where `unsafe` may be written, outside the kernels.
const UNSAFE_FILES: [&str; 2] = ["src/weights/mapping.rs", "src/cli/signals.rs"];

const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the tree that people wrote: path from the root with `/`, and its text.
fn written_files() -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !matches!(name, "target" | ".git" | "data" | "node_modules") {
                    walk(&path, files);
                }
            } else if name != ".git" && !matches!(name, "Cargo.lock" | "weights.lock") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(root(), &mut files);
    files.sort();
    let written: Vec<_> = files
        .iter()
        .filter_map(|path| {
            let text = String::from_utf8(fs::read(path).unwrap()).ok()?;
            Some((path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"), text))
        })
        .collect();
    assert!(written.len() > 20, "the walk found {} files", written.len());
    written
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    written_files().into_iter().filter(|(path, _)| path.ends_with(".rs"))
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_module_says_what_lives_in_it() {
    report(
        rust_files()
            .filter(|(_, text)| !text.starts_with("//!"))
            .map(|(path, _)| format!("{path}: does not open with `//!`"))
            .collect(),
    );
}

#[test]
fn no_file_is_long() {
    report(
        rust_files()
            .map(|(path, text)| (path, text.lines().count()))
            .filter(|(_, lines)| *lines > MAX_LINES)
            .map(|(path, lines)| format!("{path}: {lines} lines, at most {MAX_LINES}"))
            .collect(),
    );
}

#[test]
fn no_line_carries_trailing_space_or_a_debt_without_a_word() {
    let mut faults = Vec::new();
    for (path, text) in rust_files().filter(|(path, _)| path != "tests/tidy.rs") {
        for (number, line) in text.lines().enumerate() {
            if line.ends_with([' ', '\t']) || ["TODO", "FIXME", "XXX"].iter().any(|word| line.contains(word)) {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report(faults);
}

#[test]
fn no_path_of_a_machine_and_no_registry_host() {
    // Put together here, so that this file does not match itself.
    let paths = ["work", "root", "Users"].map(|folder| format!("/{folder}/"));
    let hosts = [("crates", "io"), ("pypi", "org"), ("npmjs", "org"), ("npmjs", "com"), ("debian", "org")]
        .map(|(name, domain)| format!("{name}.{domain}"));
    let mut faults = Vec::new();
    for (path, text) in written_files() {
        for (number, line) in text.lines().enumerate() {
            for word in paths.iter().chain(&hosts) {
                if line.contains(word.as_str()) {
                    faults.push(format!("{path}:{}: names {word}", number + 1));
                }
            }
        }
    }
    report(faults);
}

#[test]
fn unsafe_code_is_where_it_was_agreed() {
    let mut faults = Vec::new();
    let allowance = format!("{}(unsafe_code)", "allow");
    for (path, text) in rust_files() {
        let agreed = path.starts_with("kernels/") || UNSAFE_FILES.contains(&path.as_str());
        if text.contains(&allowance) && !agreed {
            faults.push(format!("{path}: allows unsafe code"));
        }
    }
    for crate_root in ["src/lib.rs", "src/main.rs"] {
        if !fs::read_to_string(root().join(crate_root)).unwrap().contains("#![deny(unsafe_code)]") {
            faults.push(format!("{crate_root}: does not deny unsafe code"));
        }
    }
    report(faults);
}

#[test]
fn the_architecture_names_every_room() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut faults = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let room = format!("src/{}/", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() && !architecture.contains(&room) {
            faults.push(format!("ARCHITECTURE.md does not mention {room}"));
        }
    }
    for place in ["kernels/", "tests/", "models/mini/", "benches/", "weights.lock"] {
        let present = root().join(place).exists();
        if present != architecture.contains(place) {
            faults.push(format!("{place}: in the tree {present}, in ARCHITECTURE.md {}", !present));
        }
    }
    report(faults);
}

#[test]
fn the_documents_link_to_what_exists() {
    let mut faults = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if !target.contains("://") && !file.is_empty() && !root().join(file).exists() {
                faults.push(format!("{document}: links to {target}, which is not there"));
            }
        }
    }
    report(faults);
}
