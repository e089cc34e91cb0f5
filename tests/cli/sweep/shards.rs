//! Parts of a sweep, and `lesion merge`, which puts them together.

use std::fs;

use serde_json::Value;

use super::{Place, refs, row_lines};
use crate::run::{ok, refused};

/// Writes the parts of a sweep; their files.
fn parts(place: &Place, count: usize, sweep: &[&str]) -> Vec<String> {
    (0..count)
        .map(|index| {
            let out = place.text(&format!("{index}.jsonl"));
            let shard = format!("{index}/{count}");
            ok(&[sweep, &["--json", "--no-store", "--force", "--output", &out, "--shard", &shard]].concat());
            out
        })
        .collect()
}

fn merge(files: &[String]) -> String {
    ok(&[&["merge"], &refs(files)[..]].concat())
}

fn summary(printed: &str) -> Value {
    serde_json::from_str::<Value>(printed.lines().last().unwrap()).unwrap()["summary"].take()
}

#[test]
fn parts_make_the_rows_of_the_whole() {
    let place = Place::new();
    let pairs = place.many("many.jsonl", 23);
    let text = place.write("t.txt", "One day, Tom went to the park with his dog. ".repeat(60).as_bytes());
    let own = place.text("pairs.jsonl");
    let sweeps: [&[&str]; 3] = [
        &["sweep", "--family", "skip-one", "--pairs", &pairs, "--pairs", &own],
        &["sweep", "--family", "keep-first", "--text", &text, "--window", "40", "--tokens"],
        &["sweep", "--plan", "0..4,(4|5),6..12", "--pairs", &own, "--no-kl", "--precision", "bf16"],
    ];
    for sweep in sweeps {
        let whole = ok(&[sweep, &["--json", "--no-store"]].concat());
        for count in [1, 3, 4] {
            let mut files = parts(&place, count, sweep);
            let merged = merge(&files);
            assert_eq!(row_lines(&merged), row_lines(&whole), "{count} parts");
            files.reverse();
            files.rotate_left(1);
            assert_eq!(merge(&files), merged, "in any order");
            let (found, expected) = (summary(&merged), summary(&whole));
            for field in [
                "key",
                "plans",
                "examples",
                "all_examples",
                "block_evaluations",
                "naive_block_evaluations",
                "scored_positions",
                "computed_rows",
                "numerics",
                "shard",
                "model",
            ] {
                assert_eq!(found[field], expected[field], "{field}");
            }
        }
    }
    // Each part has its own examples alone.
    let files = parts(&place, 3, sweeps[0]);
    for (index, file) in files.iter().enumerate() {
        let printed = fs::read_to_string(file).unwrap();
        let numbers = row_lines(&printed)
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap());
        assert!(numbers.eq((index as u64..29).step_by(3).flat_map(|number| [number; 12])));
        assert_eq!(summary(&printed)["shard"], format!("{index}/3"));
    }
}

#[test]
fn more_parts_than_examples() {
    let place = Place::new();
    let own = place.text("pairs.jsonl");
    let sweep = ["sweep", "--plan", "0..3", "--pairs", &own];
    let files = parts(&place, 8, &sweep);
    let empty = fs::read_to_string(&files[7]).unwrap();
    assert_eq!((row_lines(&empty), &summary(&empty)["examples"]), ("", &Value::from(0)));
    assert_eq!(row_lines(&merge(&files)), row_lines(&ok(&[&sweep[..], &["--json", "--no-store"]].concat())));
    let table = ok(&[&sweep[..], &["--no-store", "--shard", "7/8"]].concat());
    assert!(table.starts_with("all tasks: 0 examples, 0 scored tokens\n"), "{table}");
    for bad in ["8/8", "1", "a/2", "0/0", "1/2/3"] {
        refused(2, &[&sweep[..], &["--shard", bad]].concat(), &["--shard", "I/N"]);
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let place = Place::new();
    let own = place.text("pairs.jsonl");
    let sweep = ["sweep", "--plan", "0..3", "--pairs", &own];
    let files = parts(&place, 3, &sweep);
    let with = |index: usize, more: &[&str]| {
        let out = place.text("other.jsonl");
        let shard = format!("{index}/3");
        ok(&[&["sweep", "--no-store", "--json", "--force", "--output", &out], more]
            .concat()
            .iter()
            .copied()
            .chain(if more.contains(&"--shard") { vec![] } else { vec!["--shard", &shard] })
            .collect::<Vec<_>>());
        out
    };
    let refuse = |code: i32, files: &[&String], parts: &[&str]| {
        let files: Vec<&str> = files.iter().map(|file| file.as_str()).collect();
        refused(code, &[&["merge"], &files[..]].concat(), parts);
    };
    refuse(2, &[&files[0], &files[2]], &["shard 1/3 is there 0 times"]);
    refuse(2, &[&files[0], &files[1], &files[2], &files[1]], &["shard 1/3 is there 2 times"]);
    refuse(2, &[&files[1]], &["shard 0/3 is there 0 times"]);
    let same = ["--plan", "0..3", "--pairs", &own];
    let numerics = summary(&fs::read_to_string(&files[0]).unwrap())["numerics"].as_str().unwrap().to_owned();
    // Another instruction set, another precision.
    let other = with(1, &[&same[..], &["--isa", "portable"]].concat());
    refuse(
        2,
        &[&files[0], &other, &files[2]],
        &["other.jsonl: numerics portable f32", &format!("but {numerics} in"), "0.jsonl"],
    );
    let other = with(1, &[&same[..], &["--precision", "bf16"]].concat());
    refuse(2, &[&files[0], &other, &files[2]], &["numerics", " bf16", &numerics]);
    // Other plans, other questions, another way to cut.
    let other = with(1, &["--plan", "0..4", "--pairs", &own]);
    refuse(2, &[&files[0], &other, &files[2]], &["other.jsonl: another sweep, key ", "0.jsonl"]);
    let six = place.many("six.jsonl", 6);
    let other = with(1, &["--plan", "0..3", "--pairs", &six]);
    refuse(2, &[&files[0], &other, &files[2]], &["another sweep, key "]);
    // The same questions by another name: rows would differ in what they call their task.
    fs::create_dir(place.path("elsewhere")).unwrap();
    let [here, there] =
        ["t.txt", "elsewhere/t.txt"].map(|name| place.write(name, "One day, Tom ran. ".repeat(40).as_bytes()));
    let text = |path: &str, out: &str, shard: &str| {
        let out = place.text(out);
        let args =
            ["sweep", "--plan", "0..3", "--window", "20", "--no-store", "--json", "--shard", shard, "--text", path];
        ok(&[&args[..], &["--force", "--output", &out]].concat());
        out
    };
    refuse(2, &[&text(&here, "here", "0/2"), &text(&there, "there", "1/2")], &["there: another sweep, key "]);
    merge(&[text(&here, "here", "0/2"), text(&here, "there", "1/2")]);
    let other = with(1, &[&same[..], &["--shard", "1/2"]].concat());
    refuse(2, &[&files[0], &other, &files[2]], &["other.jsonl: shard 1/2, but 0/3"]);
    // What is not what a sweep wrote, to its end.
    let printed = fs::read_to_string(&files[1]).unwrap();
    let edited = |name: &str, text: &str| place.write(name, text.as_bytes());
    let lines: Vec<&str> = printed.lines().collect();
    for (text, parts) in [
        (row_lines(&printed).to_owned(), &["other.jsonl: the last line is not the summary", "to its end"][..]),
        (printed[..printed.len() - 20].to_owned(), &["the last line is not the summary"]),
        (format!("{}\n{}\n", lines[0], lines[2]), &["other.jsonl: 1 rows, but 1 plans on 2 examples make 2"]),
        (
            format!("{}\n{}\n{}\n", lines[0], lines[0].replace("\"index\":1", "\"index\":2"), lines[2]),
            &["other.jsonl, line 2: a row of example 2, where shard 1/3 has one of example 4"],
        ),
        (
            format!("{}\n{}\n{}\n", lines[0], lines[0], lines[2]),
            &["other.jsonl, line 2: a row of example 1, where shard 1/3 has one of example 4"],
        ),
        (format!("{}\nnot a row\n{}\n", lines[0], lines[2]), &["not a row of a sweep"]),
        (String::new(), &["the last line"]),
    ] {
        let other = edited("other.jsonl", &text);
        let out = place.text("merged.jsonl");
        refused(3, &["merge", &files[0], &other, &files[2], "--output", &out], parts);
        assert!(!place.path("merged.jsonl").exists());
    }
    let csv = place.text("csv");
    ok(&[&sweep[..], &["--no-store", "--csv", "--output", &csv]].concat());
    refused(3, &["merge", &csv], &["the last line"]);
    refused(3, &["merge", "no-such-file"], &["no-such-file"]);
    refused(2, &["merge"], &["FILE"]);
    let out = place.text("merged.jsonl");
    ok(&["merge", &files[0], &files[1], &files[2], "-o", &out]);
    refused(2, &["merge", &files[0], &files[1], &files[2], "-o", &out], &["merged.jsonl exists", "--force"]);
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 7);
}
