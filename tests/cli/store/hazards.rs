//! What may happen to a store: processes that die, disks that are full, files that are something else.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Place, refs, swept};
use crate::run::{ended, isolate, lesion, mini_in, objects, ok, refused, run};

/// A number of repetitions: small, unless the environment asks for more.
fn repetitions(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn count(place: &Place, table: &str) -> u64 {
    let sql = format!("SELECT count(*) AS n FROM {table}");
    objects(&refs(&place.store(&["sql", "--json", &sql])))[0]["n"].as_u64().unwrap()
}

fn is_whole(place: &Place) {
    let sql = "SELECT integrity_check FROM pragma_integrity_check";
    assert_eq!(objects(&refs(&place.store(&["sql", "--json", sql])))[0]["integrity_check"], "ok");
}

/// Eight processes with a thousand trials each, into one store that is not there yet.
#[test]
fn eight_processes_share_a_store() {
    let place = Place::new();
    let mut children = Vec::new();
    for process in 0..8 {
        // Nine plans and the intact one, on a hundred questions of its own.
        let pairs = place.text(&format!("pairs-{process}.jsonl"));
        let line = |i: usize| {
            format!(r#"{{"prompt": "Process {process}: {i} + {i} =", "answer": "{}", "task": "{process}"}}"#, 2 * i)
        };
        fs::write(&pairs, (0..100).map(line).collect::<Vec<_>>().join("\n")).unwrap();
        let mut command = lesion();
        command.args(["sweep", "--family", "skip-one 0..9", "--pairs", &pairs, "--json", "--threads", "1", "--store"]);
        command.arg(place.path("store.db")).stdout(Stdio::piped()).stderr(Stdio::piped());
        children.push(command.spawn().unwrap());
    }
    for child in children {
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.stdout.lines().count(), 901);
        assert!(!ended.stderr.contains("busy") && !ended.stderr.contains("locked"), "{}", ended.stderr);
    }
    assert_eq!((count(&place, "results"), count(&place, "experiments")), (8_000, 8));
    is_whole(&place);
}

/// The rows of a sweep that the store holds.
fn kept(place: &Place) -> Vec<(String, u64)> {
    let sql = "SELECT p.text AS plan, e.position FROM results r JOIN plans p ON p.id = r.plan
        JOIN questions q ON q.example = r.example JOIN experiment_examples e ON e.question = q.id";
    let rows = objects(&refs(&place.store(&["sql", "--json", sql])));
    let row = |row: &Value| (row["plan"].as_str().unwrap().to_owned(), row["position"].as_u64().unwrap());
    rows.iter().map(row).collect()
}

/// Killed at any moment: what was printed had been kept; nothing is there twice; the same command goes on.
#[test]
fn a_killed_sweep_loses_nothing_that_it_acknowledged() {
    let place = Place::new();
    place.questions("pairs.jsonl", 1_500);
    let args = place.sweep(&["--family", "keep-first", "--threads", "1"]);
    let (whole, _) = swept(&[&args[..3], &["--no-store".to_owned()], &args[5..]].concat());
    let wanted = repetitions("LESION_TEST_KILLS", 8);
    let (mut kills, mut finished, mut rows) = (0, 0, 0);
    let mut acknowledged: HashSet<(String, u64)> = HashSet::new();
    let mut seed = 7_u64;
    while kills < wanted {
        let mut child = lesion().args(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let reader = BufReader::new(child.stdout.take().unwrap());
        let (came, first) = std::sync::mpsc::channel();
        let lines = std::thread::spawn(move || {
            let tell = |_: &String| came.send(()).unwrap_or(());
            reader.lines().map_while(Result::ok).inspect(tell).collect::<Vec<_>>()
        });
        // Anywhere from its start to its end, about; every second one from its first row on, however slow the machine is.
        if kills % 2 == 1 {
            let _ = first.recv();
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((seed >> 33) % 400_000));
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        for line in lines.join().unwrap() {
            // The last line may be half.
            let Ok(row) = serde_json::from_str::<Value>(&line) else { continue };
            if let (Some(plan), Some(index)) = (row["plan"].as_str(), row["index"].as_u64()) {
                acknowledged.insert((plan.to_owned(), index));
            }
        }
        let there = run(&refs(&place.store(&["ls"])));
        if there.code == Some(4) {
            assert!(acknowledged.is_empty(), "{}", there.stderr);
            kills += 1;
            continue;
        }
        is_whole(&place);
        let kept = kept(&place);
        let once: HashSet<(String, u64)> = kept.iter().cloned().collect();
        assert_eq!(once.len(), kept.len(), "nothing is there twice");
        let lost = acknowledged.difference(&once).count();
        assert_eq!(lost, 0, "{lost} of {} acknowledged rows are lost", acknowledged.len());
        if done {
            // It was faster: from the beginning again.
            finished += 1;
            rows += acknowledged.len();
            acknowledged.clear();
            for file in ["store.db", "store.db-wal", "store.db-shm"] {
                let _ = fs::remove_file(place.path(file));
            }
        } else {
            kills += 1;
        }
    }
    rows += acknowledged.len();
    assert!(kills < 2 || rows > 0, "no sweep came so far that it acknowledged anything");
    assert_eq!(swept(&args).0, whole, "as if it had never been killed");
    is_whole(&place);
    eprintln!("{kills} kills; {finished} sweeps ended before theirs; {rows} rows acknowledged");
}

/// The same sweep twice at once: both print all of it, and it is kept once.
#[test]
fn the_same_sweep_twice_at_once() {
    let place = Place::new();
    place.questions("pairs.jsonl", 40);
    let args = place.sweep(&["--family", "skip-one"]);
    let children: Vec<_> =
        (0..2).map(|_| lesion().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()).collect();
    let rows = |text: &str| {
        let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
        rows.pop();
        rows
    };
    let outputs: Vec<_> = children.into_iter().map(|child| ended(child.wait_with_output().unwrap())).collect();
    assert!(outputs.iter().all(|ended| ended.code == Some(0)), "{outputs:?}");
    assert_eq!(rows(&outputs[0].stdout), rows(&outputs[1].stdout));
    // Twelve plans and the intact one.
    assert_eq!((count(&place, "results"), count(&place, "experiments")), (13 * 40, 1));
    is_whole(&place);
}

#[test]
fn a_newer_store_is_refused_without_a_write() {
    let place = Place::new();
    swept(&place.sweep(&["--plan", "0..3"]));
    let path = place.path("store.db");
    let mut bytes = fs::read(&path).unwrap();
    // `user_version` in SQLite's header: big-endian, at byte 60.
    bytes[60..64].copy_from_slice(&1_000_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    for args in [place.sweep(&["--plan", "0..3"]), place.store(&["ls"]), place.store(&["gc"])] {
        refused(3, &refs(&args), &["store of version 1000, this version of lesion knows"]);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let place = Place::new();
    let path = place.path("store.db");
    let text = "not a database at all, whatever its name says\n".repeat(99);
    for bytes in [text.as_bytes(), &text.as_bytes()[..7]] {
        fs::write(&path, bytes).unwrap();
        for args in [place.sweep(&["--plan", "0..3"]), place.store(&["ls"]), place.store(&["verify"])] {
            refused(3, &refs(&args), &["store.db"]);
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }
    fs::remove_file(&path).unwrap();
    swept(&place.sweep(&["--plan", "0..3"]));
    let whole = fs::read(&path).unwrap();
    // Cut in the midst, and pages of the middle overwritten.
    let mut holed = whole.clone();
    holed[4096..12 * 4096].fill(0x5a);
    for damaged in [whole[..5 * 4096].to_vec(), holed] {
        fs::write(&path, &damaged).unwrap();
        let verified = run(&refs(&place.store(&["verify"])));
        assert_eq!(verified.code, Some(3), "{}", verified.stderr);
        let swept = run(&refs(&place.sweep(&["--plan", "0..3"])));
        assert_eq!(swept.code, Some(3), "{}", swept.stderr);
        assert_eq!(fs::read(&path).unwrap(), damaged, "nothing is made anew");
    }
    refused(
        4,
        &refs(&place.store(&["ls"])).iter().map(|arg| arg.trim_end_matches(".db")).collect::<Vec<_>>(),
        &["no store at"],
    );
}

/// Runs as somebody who may not write to `folder`.
fn may_not_write(folder: &Path, args: &[String]) -> crate::run::Ended {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lesion"));
    isolate(&mut command);
    command.args(args).stdin(Stdio::null());
    let of = |path: &Path| fs::metadata(path).unwrap().permissions();
    fs::set_permissions(folder, PermissionsExt::from_mode(0o555)).unwrap();
    // Permissions do not hold for root.
    if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        command.uid(65_534).gid(65_534).env("HOME", folder).env("XDG_DATA_HOME", folder);
    }
    let ended = ended(command.output().unwrap());
    let mut writable = of(folder);
    writable.set_mode(0o755);
    fs::set_permissions(folder, writable).unwrap();
    ended
}

#[test]
fn a_folder_that_can_not_be_written_to() {
    let place = Place::new();
    let sweep = place.sweep(&["--plan", "0..3"]);
    swept(&sweep);
    let program = assert_cmd::cargo::cargo_bin!("lesion");
    let reachable = program.ancestors().skip(1).all(|folder| {
        fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o5 == 0o5 || folder.as_os_str().is_empty())
    });
    if !reachable {
        eprintln!("not checked: another user may not run {}", program.display());
        return;
    }
    let folder = place.folder.path();
    let before = fs::read(place.path("store.db")).unwrap();
    for args in [
        place.store(&["ls", "--json"]),
        place.store(&["query", "--json"]),
        place.store(&["sql", "SELECT count(*) FROM rows"]),
        place.store(&["notes"]),
    ] {
        let ended = may_not_write(folder, &args);
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
    }
    for args in [sweep, place.store(&["note", "x"]), place.store(&["gc"])] {
        let ended = may_not_write(folder, &args);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), ""), "{args:?}: {}", ended.stderr);
    }
    // A new one can't be made there.
    let elsewhere = [place.sweep(&["--plan", "0..3"]), vec!["--store".to_owned(), place.text("new.db")]].concat();
    let elsewhere: Vec<String> = elsewhere.into_iter().filter(|arg| !arg.ends_with("store.db")).collect();
    let at = elsewhere.iter().position(|arg| arg == "--store").unwrap();
    let ended = may_not_write(folder, &[&elsewhere[..at], &elsewhere[at + 1..]].concat());
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    // What is printed needs no store: the user's own one is missed, and that is said.
    let complete = ["complete", "-n", "2", "The capital of Spain is"].map(str::to_owned);
    let ended = may_not_write(folder, &complete);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("warning: nothing is kept: ") || !is_root(), "{}", ended.stderr);
    assert_eq!(fs::read(place.path("store.db")).unwrap(), before);
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// NaN is a result: kept, given back, found, and not hidden in a mean.
#[test]
fn what_is_not_a_number_stays_so() {
    let place = Place::new();
    let model = mini_in(place.folder.path());
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    // The first values behind the header are those of some tensor: one becomes NaN, in f32 as in f16.
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = json["transformer.h.6.mlp.c_fc.bias"]["data_offsets"][0]
        .as_u64()
        .or_else(|| json["h.6.mlp.c_fc.bias"]["data_offsets"][0].as_u64())
        .unwrap() as usize;
    bytes[8 + header + at..8 + header + at + 4].fill(0xff);
    fs::write(&weights, bytes).unwrap();
    let args = place.sweep(&["--family", "keep-first", "--model", model.to_str().unwrap()]);
    let (first, _) = swept(&args);
    let (again, summary) = swept(&args);
    assert_eq!((&first, &summary["computed_rows"]), (&again, &Value::from(0)));
    let row = |plan: &str| first.iter().find(|row| row["plan"] == plan).unwrap();
    assert_eq!(
        (&row("0..7")["answer_nll"], &row("0..7")["non_finite"]),
        (&"NaN".into(), &row("0..7")["answer_tokens"])
    );
    assert!(row("0..6")["answer_nll"].is_number());
    let query = |args: &[&str]| objects(&refs(&place.store(&[&["query", "--json", "--limit", "0"], args].concat())));
    // Seven to twelve layers.
    assert_eq!(query(&["--where", "loss=NaN"]).len(), 6 * 6);
    let means = query(&["--group-by", "plan", "--select", "loss,kl"]);
    let mean = |plan: &str| means.iter().find(|row| row["plan"] == plan).unwrap();
    assert_eq!((&mean("0..7")["loss"], &mean("0..12")["kl"]), (&"NaN".into(), &"NaN".into()));
    assert!(mean("0..6")["loss"].is_number());
    let verified = objects(&refs(&place.store(&["verify", "--json"])));
    assert_eq!(verified[0]["identical"], 78);
}

/// A limit on the size of files stands for a disk that is full.
#[test]
fn a_full_disk_ends_a_sweep_that_goes_on_later() {
    let place = Place::new();
    place.questions("pairs.jsonl", 200);
    let args = place.sweep(&["--family", "skip-pairs"]);
    let mut command = Command::new("sh");
    isolate(&mut command);
    // Blocks of 512 bytes; without the signal the write fails.
    let script = "trap '' XFSZ; ulimit -f 1500; exec \"$0\" \"$@\"";
    let full =
        ended(command.args(["-c", script]).arg(assert_cmd::cargo::cargo_bin!("lesion")).args(&args).output().unwrap());
    assert_eq!(full.code, Some(4), "{}", full.stderr);
    assert!(full.stderr.contains("store.db"), "{}", full.stderr);
    let printed: Vec<Value> = full.stdout.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
    is_whole(&place);
    let (rows, summary) = swept(&args);
    assert_eq!(rows.len(), 66 * 200);
    assert_eq!(printed[..], rows[..printed.len()], "what was printed had been kept");
    let there = 66 * 200 - summary["computed_rows"].as_u64().unwrap();
    assert!(there >= printed.len() as u64, "{there} of {}", printed.len());
    is_whole(&place);
}

/// The first Ctrl-C ends with what has been computed kept; the experiment is listed as unfinished.
#[test]
fn an_interrupted_sweep_is_unfinished() {
    let place = Place::new();
    place.questions("pairs.jsonl", 1_200);
    let args = place.sweep(&["--family", "skip-one", "--threads", "1"]);
    let mut child = lesion().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).unwrap();
    let ended = ended(child.wait_with_output().unwrap());
    if ended.code == Some(0) {
        eprintln!("not checked: it was done before the signal came");
        return;
    }
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("the same command goes on from there"), "{}", ended.stderr);
    let listed = objects(&refs(&place.store(&["ls", "--json"])));
    assert_eq!((&listed[0]["expected_examples"], &listed[0]["complete"]), (&Value::Null, &false.into()));
    assert!(ok(&refs(&place.store(&["ls"]))).contains("unfinished"));
    let (_, summary) = swept(&args);
    assert!(summary["computed_rows"].as_u64().unwrap() < 12 * 1_200, "{summary}");
    let shown = ok(&refs(&place.store(&["ls"])));
    assert!(!shown.contains("unfinished"), "{shown}");
}
