//! What the command line takes and refuses before any command runs.

use clap::CommandFactory;

use super::*;

fn parse(line: &[&str]) -> Result<CommandLine, clap::Error> {
    CommandLine::try_parse_from(std::iter::once("lesion").chain(line.iter().copied()))
}

fn complete(line: &[&str]) -> Complete {
    match parse(&[&["complete"], line].concat()).unwrap().command {
        Command::Complete(complete) => complete,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definitions_hold_together() {
    CommandLine::command().debug_assert();
}

#[test]
fn the_last_of_bos_and_no_bos_counts() {
    assert!(complete(&["x"]).prompt.bos.wanted());
    assert!(!complete(&["--no-bos", "x"]).prompt.bos.wanted());
    assert!(complete(&["--no-bos", "--bos", "x"]).prompt.bos.wanted());
    assert!(!complete(&["--bos", "--no-bos", "x"]).prompt.bos.wanted());
}

#[test]
fn ids_are_a_list_and_stand_alone() {
    assert_eq!(complete(&["--ids", "50256,464,3139"]).prompt.text.ids, Some(vec![50256, 464, 3139]));
    for refused in [&["--ids", "1,x"][..], &["--ids", ""], &["--ids", "1", "text"], &["--ids", "1", "--no-bos"]] {
        assert!(parse(&[&["complete"], refused].concat()).is_err(), "{refused:?}");
    }
}

#[test]
fn numbers_are_bounded() {
    for refused in ["--threads=0", "--threads=100000", "--threads=-1", "--max-tokens=0", "--top-k=0", "--seed=-1"] {
        assert!(parse(&["complete", "x", refused]).is_err(), "{refused}");
    }
    assert_eq!(complete(&["x", "--threads", "1024"]).run.engine.threads, Some(1024));
}

#[test]
fn plans_keep_their_order() {
    assert_eq!(complete(&["x", "--plan", "0..8", "--plan", "11..=0"]).plan.plan, ["0..8", "11..=0"]);
}
