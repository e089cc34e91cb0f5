//! Processes that lose their weights or are interrupted.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::run::{ended, lesion, mini_in};

/// A conversation that waits for its next line.
fn conversation(args: &[&str]) -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let mut child = lesion()
        .args([&["chat"], args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdin, stdout)
}

fn say(stdin: &mut ChildStdin, stdout: &mut BufReader<ChildStdout>) -> String {
    writeln!(stdin, "The capital of Spain is").unwrap();
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    line
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_mapped_file_that_shrinks_ends_with_its_name_and_3() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let weights = model.join("model.safetensors");
    let (child, mut stdin, mut stdout) = conversation(&["--model", model.to_str().unwrap()]);
    assert!(say(&mut stdin, &mut stdout).starts_with(" Madrid"));
    std::fs::File::options().write(true).open(&weights).unwrap().set_len(4096).unwrap();
    assert_eq!(say(&mut stdin, &mut stdout), "");
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    // A page that is gone is met first, or, if the first answer was just being concluded, the file's new size.
    let truncated = ended.stderr.contains("truncated") && ended.stderr.contains("--no-mmap");
    let changed = ended.stderr.contains("changed while in use");
    assert!(ended.stderr.contains(weights.to_str().unwrap()) && (truncated || changed), "{}", ended.stderr);
}

#[test]
fn a_file_that_was_read_may_shrink() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let (child, mut stdin, mut stdout) = conversation(&["--no-mmap", "--model", model.to_str().unwrap()]);
    let before = say(&mut stdin, &mut stdout);
    std::fs::File::options().write(true).open(model.join("model.safetensors")).unwrap().set_len(0).unwrap();
    assert_eq!(say(&mut stdin, &mut stdout), before);
    drop(stdin);
    assert_eq!(ended(child.wait_with_output().unwrap()).code, Some(0));
}

#[test]
fn control_c_ends_a_wait_for_input_with_130() {
    let (child, mut stdin, mut stdout) = conversation(&[]);
    assert!(say(&mut stdin, &mut stdout).starts_with(" Madrid"));
    interrupt(&child);
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"));
}

#[test]
fn control_c_ends_a_completion_after_the_token_in_flight() {
    let mut child = lesion()
        .args(["complete", "-n", "240", "--no-cache", "--threads", "1", "The capital of Spain is"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    interrupt(&child);
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stdout.ends_with('\n'), "the line is finished: {:?}", ended.stdout);
}

#[test]
fn weights_written_to_during_a_conversation_end_it_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let model = mini_in(folder.path());
    let weights = model.join("model.safetensors");
    let (child, mut stdin, mut stdout) = conversation(&["--json", "--model", model.to_str().unwrap()]);
    assert!(say(&mut stdin, &mut stdout).contains(" Madrid"));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    std::fs::File::options().write(true).open(&weights).unwrap().set_modified(later).unwrap();
    assert_eq!(say(&mut stdin, &mut stdout), "", "no object of unknown weights");
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("model.safetensors"), "{}", ended.stderr);
}

#[test]
fn control_c_ends_the_reading_of_a_prompt() {
    let mut child = lesion()
        .args(["complete", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"The").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    interrupt(&child);
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{}", ended.stderr);
}
