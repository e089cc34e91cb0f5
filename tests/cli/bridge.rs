//! Bridges: fitted, tuned, shown, and crossed by every command that runs plans; what is refused.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::run::{ended, fields, floats, lesion, object, objects, ok, refused, run};

const PLAN: &str = "0..6,bridge(6:11,fit),11";
const PROMPT: &str = "The capital of Spain is";

/// A bundled task, and what is fitted to.
const TASK: &str = "antonyms";

#[test]
fn a_bridge_is_fitted_judged_and_crossed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fit.safetensors").to_str().unwrap().to_owned();
    let args = ["bridge", "fit", "--task", TASK, "--pairs", "6:11,6:12", "--json", "-o", &path];
    let reports = objects(&args);
    assert_eq!(reports.len(), 2);
    assert_eq!(
        fields(&reports[0]),
        ["bridge", "from", "identity", "intact_nll", "model", "rows", "schema_version", "to"]
    );
    for report in &reports {
        let of = |which: &str, field: &str| report[which][field].as_f64().unwrap();
        assert!(of("bridge", "r2") > of("identity", "r2") && of("bridge", "r2") > 0.5, "{report}");
        assert!(of("bridge", "kl") < of("identity", "kl"), "{report}");
        assert!(of("bridge", "precision_at_1") <= of("bridge", "precision_at_10"), "{report}");
    }
    refused(2, &args, &["exists", "--force"]);
    let before = fs::read(&path).unwrap();
    let again = [&args[..], &["--force", "--threads", "1"]].concat();
    assert_eq!(objects(&again), reports);
    assert!(fs::read(&path).unwrap() == before, "the same file on any number of threads");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file is left");

    // On the same text the table is that of the fit, but for what was fitted to.
    let judged = objects(&["bridge", "eval", &path, "--task", TASK, "--json"]);
    assert!(judged[0]["rows"].as_u64() > reports[0]["rows"].as_u64());
    let table = ok(&["bridge", "eval", &path, "--task", TASK]);
    assert!(table.lines().any(|line| line.starts_with("6:11 ")) && !table.contains('\u{1b}'), "{table}");

    let shown = objects(&["bridge", "show", &path, "--json"]);
    assert_eq!((&shown[0]["from"], &shown[1]["to"], &shown[0]["width"]), (&6.into(), &12.into(), &128.into()));
    assert_eq!((&shown[0]["method"], &shown[0]["model"]), (&"ridge".into(), &"mini".into()));
    let text = ok(&["bridge", "show", &path]);
    assert!(text.contains("ridge") && text.contains("6:11"), "{text}");

    let bridge = format!("fit={path}");
    let loss = object(&["loss", "--no-store", "--json", "--bridge", &bridge, "--plan", PLAN, PROMPT]);
    let plain = object(&["loss", "--no-store", "--json", "--plan", "0..6,11", PROMPT]);
    assert_eq!(loss["plan"], PLAN);
    assert_ne!(loss["nll"], plain["nll"]);
    let exact =
        object(&["loss", "--no-store", "--json", "--precision", "f64", "--bridge", &bridge, "--plan", PLAN, PROMPT]);
    assert!(floats(&loss["nll"]).iter().zip(floats(&exact["nll"])).all(|(a, b)| (a - b).abs() < 1e-4));
    for command in ["tokens", "lens", "similarity", "attention"] {
        let found = objects(&[command, "--json", "--bridge", &bridge, "--plan", PLAN, PROMPT]);
        assert!(found.iter().all(|found| found["plan"] == PLAN), "{command}");
    }
    let parts = object(&["attribute", "--json", "--bridge", &bridge, "--plan", PLAN, "--answer", " Madrid", PROMPT]);
    let number = |value: &Value| value.as_f64().unwrap();
    assert!((number(&parts["sum"]) - number(&parts["value"])).abs() < 1e-3, "{parts}");
    let own = parts["parts"].as_array().unwrap().iter().find(|part| part["source"] == "bridge").unwrap();
    assert_eq!(own["bridge"], "bridge(6:11,fit)");

    // With and without a cache, the model says the same.
    let said = |more: &[&str]| {
        let args = ["complete", "--no-store", "--json", "-n", "8", "--bridge", &bridge, "--plan", PLAN, PROMPT];
        object(&[&args[..], more].concat())["completion_ids"].clone()
    };
    assert_eq!(said(&[]), said(&["--no-cache"]));
}

#[test]
fn a_lens_is_tuned_and_read_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuned.safetensors").to_str().unwrap().to_owned();
    let reports = objects(&["bridge", "tune", "--task", TASK, "--steps", "30", "--rows", "300", "--json", "-o", &path]);
    assert_eq!(reports.len(), 12);
    for report in &reports {
        let of = |which: &str| report[which]["kl"].as_f64().unwrap();
        assert!(of("bridge") < of("identity"), "{report}");
    }
    let cells = objects(&["lens", "--json", "--tuned", &path, PROMPT]);
    let plain = objects(&["lens", "--json", PROMPT]);
    assert_eq!((&cells[0]["lens"], &plain[0]["lens"]), (&"tuned".into(), &"logit".into()));
    let last = cells.iter().zip(&plain).filter(|(cell, _)| cell["steps"] == 12);
    assert!(last.clone().count() > 0 && last.clone().all(|(a, b)| a["kl"] == 0.0 && a["entropy"] == b["entropy"]));
    let bridge = format!("tuned={path}");
    let loss =
        object(&["loss", "--no-store", "--json", "--bridge", &bridge, "--plan", "0..6,bridge(6:12,tuned)", PROMPT]);
    let row: Vec<&Value> = cells.iter().filter(|cell| cell["steps"] == 6).collect();
    for (cell, nll) in row.iter().zip(floats(&loss["nll"])) {
        assert!((cell["nll"].as_f64().unwrap() - nll).abs() < 1e-4, "{cell}");
    }
    assert!(ok(&["lens", "--tuned", &path, PROMPT]).contains("through the maps of "));
    refused(2, &["lens", "--tuned", &path, "--plan", "0..4,(4|5)", PROMPT], &["no map", "(4|5)"]);
}

#[test]
fn results_are_kept_by_what_a_bridge_holds() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.db").to_str().unwrap().to_owned();
    let (one, two) = (folder.path().join("1.safetensors"), folder.path().join("2.safetensors"));
    for (path, ridge) in [(&one, "0.001"), (&two, "0.1")] {
        let path = path.to_str().unwrap();
        ok(&["bridge", "fit", "--task", TASK, "--pairs", "6:11", "--ridge", ridge, "--held-out", "0", "-o", path]);
    }
    let sweep = |path: &Path, name: &str| {
        let bridge = format!("fit={}", path.display());
        let args = ["sweep", "--task", TASK, "--limit", "5", "--plan", PLAN, "--plan", "0..6,11", "--json"];
        let ended = run(&[&args[..], &["--bridge", &bridge, "--store", &store, "--experiment", name]].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    };
    let first = sweep(&one, "one");
    assert!(first.stdout.contains(PLAN));
    // The same numbers under another path: all is there. Others: what crosses them is computed.
    let copy = folder.path().join("copy.safetensors");
    fs::copy(&one, &copy).unwrap();
    let rows =
        |text: &str| text.lines().filter(|line| line.contains("\"plan\"")).map(str::to_owned).collect::<Vec<_>>();
    let again = sweep(&copy, "one");
    assert_eq!(rows(&again.stdout), rows(&first.stdout));
    assert!(summary(&again.stdout)["computed_rows"] == 0, "{}", again.stdout);
    let other = sweep(&two, "two");
    assert_eq!(summary(&other.stdout)["computed_rows"], 5, "the plan without a bridge was there: {}", other.stdout);
    assert_ne!(rows(&other.stdout), rows(&first.stdout));
    // One name can't stand for both.
    let bridge = format!("fit={}", two.display());
    let args = ["sweep", "--task", TASK, "--limit", "5", "--plan", PLAN, "--plan", "0..6,11", "--bridge", &bridge];
    refused(2, &[&args[..], &["--store", &store, "--experiment", "one"]].concat(), &["another one"]);
    let verified = run(&["store", "verify", "--store", &store]);
    let said = "10 results not compared: their plans take values of references or bridges";
    assert!(verified.stderr.contains(said), "{}", verified.stderr);
    let losses = |path: &Path| {
        let bridge = format!("fit={}", path.display());
        object(&["loss", "--json", "--store", &store, "--bridge", &bridge, "--plan", PLAN, PROMPT])["nll"].clone()
    };
    assert_ne!(losses(&one), losses(&two));
    assert_eq!(losses(&one), losses(&copy));
}

fn summary(stdout: &str) -> Value {
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    last["summary"].clone()
}

#[test]
fn what_can_not_be_bridged_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (none, bad, story) = (at("none"), at("bad"), at("story.txt"));
    fs::write(&bad, b"not safetensors").unwrap();
    fs::write(&story, "One day, Anna walked to the park with her dog.").unwrap();
    let named = |path: &str| format!("fit={path}");
    refused(2, &["loss", "--no-store", "--plan", PLAN, PROMPT], &["there is no bridge fit", "--bridge NAME=FILE"]);
    refused(3, &["loss", "--no-store", "--bridge", &named(&none), "--plan", PLAN, PROMPT], &["cannot read"]);
    refused(3, &["loss", "--no-store", "--bridge", &named(&bad), "--plan", PLAN, PROMPT], &["bad"]);
    refused(2, &["loss", "--no-store", "--bridge", "fit", "--plan", PLAN, PROMPT], &["expected a name"]);
    refused(3, &["lens", "--tuned", &bad, PROMPT], &["bad"]);
    refused(3, &["bridge", "show", &none], &["cannot read"]);
    let fit = |more: &[&str]| {
        let path = at("new.safetensors");
        let args = ["bridge", "fit", "--text", &story, "-o", &path];
        let ended = ended(lesion().args([&args[..], more].concat()).output().unwrap());
        assert!(!Path::new(&path).exists(), "{more:?} left a file");
        ended
    };
    for (more, wanted) in [
        (&["--pairs", "11:6"][..], "expected layers I:J"),
        (&["--pairs", "6:13"], "12 at most"),
        (&[], "--pairs"),
        (&["--pairs", "6:11"], "--held-out 0.2 of 1 windows or examples is none of them"),
        (&["--pairs", "6:11", "--held-out", "1"], "less than 1"),
        (&["--pairs", "6:11", "--held-out", "0", "--ridge", "-1"], "ridge -1"),
        (&["--pairs", "6:11", "--held-out", "0", "--ridge", "0"], "do not determine the map"),
        (&["--pairs", "6:11", "--held-out", "0", "--window", "300"], "--window 300"),
    ] {
        let ended = fit(more);
        assert_eq!(ended.code, Some(2), "{more:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(wanted), "{wanted}: {}", ended.stderr);
    }
    let ended = fit(&["--pairs", "6:11", "--memory", "100kB"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--memory 100.0 kB"), "{}", ended.stderr);
}
