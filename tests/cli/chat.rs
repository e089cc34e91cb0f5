//! `lesion chat`, with its lines from a pipe.

use crate::run::{ok, refused, with_stdin};

const SPAIN: &str = "The capital of Spain is";

fn chat(lines: &str, args: &[&str]) -> crate::run::Ended {
    let ended = with_stdin(&[&["chat"], args].concat(), lines.as_bytes());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

#[test]
fn a_line_is_a_prompt_and_the_plan_changes_between_them() {
    let said = chat(&format!("{SPAIN}\n:plan drop-last 4\n{SPAIN}\n:plan intact\n{SPAIN}"), &[]).stdout;
    let (intact, dropped) = (ok(&["complete", SPAIN]), ok(&["complete", "--plan", "0..8", SPAIN]));
    assert_eq!(said, format!("{intact}{dropped}{intact}"));
}

#[test]
fn diff_shows_both_side_by_side() {
    let ended = chat(&format!(":plan 0..8\n:diff {SPAIN}\n"), &[]);
    assert!(ended.stdout.contains("0..12 (intact)") && ended.stdout.contains("0..8"), "{}", ended.stdout);
    let line = ended.stdout.lines().find(|line| line.contains("Japan")).unwrap();
    assert!(line.contains("Hungary"), "both in one line: {line}");
    let ended = chat(&format!("{SPAIN}\n:plan none\n:diff\n"), &["--json", "-n", "2"]);
    let plans: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["plan"].clone())
        .collect();
    assert_eq!(plans, ["0..12", "0..12", "none"]);
}

#[test]
fn loss_shows_both() {
    let ended = chat(&format!(":plan 0..8\n:loss {SPAIN}\n"), &[]);
    for part in ["0..12 (intact)          1.3243", "0..8                    1.6997", "uniform                 7.6246"] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
}

#[test]
fn mistakes_end_no_conversation() {
    let ended = chat(
        &format!(":planet\n:diff\n:nonsense\n:temperature x\n:temperature -1\n:top-k 0\n:bos maybe\n\n{SPAIN}\n"),
        &["-n", "1"],
    );
    assert_eq!(ended.stdout, " Madrid\n");
    for part in
        ["`:planet`", "no prompt yet", "`:nonsense`", ":temperature x", "temperature -1", ":top-k 0", ":bos maybe"]
    {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert_eq!(ended.stderr.matches("error:").count(), 7, "{}", ended.stderr);
}

/// In a pipe: the lines behind it were meant for the plan that failed.
#[test]
fn a_plan_that_fails_ends_a_pipe() {
    for wrong in [":plan 0..13", ":plan  skip", ":plan\t12"] {
        let ended = with_stdin(&["chat", "-n", "1"], format!("{SPAIN}\n{wrong}\n{SPAIN}\n").as_bytes());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), " Madrid\n"), "{wrong}");
        assert!(ended.stderr.contains("error: plan, column"), "{wrong}: {}", ended.stderr);
    }
}

#[test]
fn settings_change_what_is_said() {
    let ended = chat(&format!(":max-tokens 2\n{SPAIN}\n:stop .\n{SPAIN}\n:stop off\n:bos off\n:seed\n{SPAIN}\n"), &[]);
    let bare = ok(&["complete", "--no-bos", "-n", "2", SPAIN]);
    assert_eq!(ended.stdout, format!(" Madrid.\n Madrid\n{bare}"));
    assert!(
        ended.stderr.contains("max-tokens 2 · temperature 0 · top-k off · top-p off · seed 0 · stop off · bos off")
    );
}

#[test]
fn help_and_quit() {
    let ended = chat(":help\n:quit\nThe capital of Spain is\n", &[]);
    for command in [":plan", ":diff", ":loss", ":temperature", ":quit"] {
        assert!(ended.stdout.contains(command));
    }
    assert!(!ended.stdout.contains("Madrid"), "nothing after :quit");
    assert_eq!(chat("", &[]).stdout, "");
    refused(2, &["chat", "--plan", "0..13"], &["13"]);
}

#[test]
fn json_is_all_there_is_on_stdout() {
    let ended = chat(&format!(":help\n{SPAIN}\n:plan 0..8\n:loss\n:seed 3\n"), &["--json", "-n", "1"]);
    let objects: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 3, "{}", ended.stdout);
    assert_eq!((&objects[1]["plan"], &objects[2]["plan"]), (&"0..12".into(), &"0..8".into()));
    assert_eq!(objects[1]["nll"], crate::run::object(&["loss", "--json", SPAIN])["nll"]);
    assert!(ended.stderr.contains(":diff"));
}
