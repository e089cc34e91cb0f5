//! Patch grids and causal tracing: their numbers are those of losses, and what they refuse.

use serde_json::Value;

use crate::run::{fields, floats, object, objects, ok, refused};

const CLEAN: &str = "When Tom and Jack went to the market, Tom gave a lamp to";
const CORRUPTED: &str = "When Tom and Jack went to the market, Jack gave a lamp to";
const NAMES: [&str; 4] = ["--answer", " Jack", "--other", " Tom"];

/// Cells and the summary behind them.
fn patch(more: &[&str]) -> (Vec<Value>, Value) {
    let mut found = objects(&[&["patch", "--json", CLEAN], more].concat());
    let summary = found.pop().unwrap();
    (found, summary)
}

/// The loss of an answer, summed.
fn loss(prompt: &str, answer: &str, plan: &str) -> f64 {
    let found = object(&["loss", "--no-store", "--json", "--plan", plan, "--answer", answer, prompt]);
    floats(&found["answer_nll"]).iter().sum()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn a_grid_of_heads_finds_the_one_that_moves_the_name() {
    let (cells, summary) = patch(&[&["--corrupted", CORRUPTED], &NAMES[..]].concat());
    assert_eq!(cells.len(), 12 * 8);
    let best = cells.iter().max_by(|a, b| number(&a["score"]).total_cmp(&number(&b["score"]))).unwrap();
    assert_eq!((&best["layer"], &best["head"]), (&10.into(), &1.into()));
    assert!((number(&best["score"]) - 1.0).abs() < 0.01);
    assert_eq!(best["plan"], "0..10,10[patch h1 from clean],11");
    let baseline = |prompt| loss(prompt, " Tom", "0..12") - loss(prompt, " Jack", "0..12");
    let value = |side: &str| number(&summary[side]["value"]);
    assert!((value("clean") - baseline(CLEAN)).abs() < 1e-9 && (value("corrupted") - baseline(CORRUPTED)).abs() < 1e-9);
    let score = (number(&best["value"]) - value("corrupted")) / (value("clean") - value("corrupted"));
    assert_eq!(score, number(&best["score"]));
    assert_eq!((&summary["cells"], &summary["resolved"]), (&96.into(), &true.into()));
    assert!(number(&summary["block_evaluations"]) < 0.6 * number(&summary["naive_block_evaluations"]));
    assert_eq!(
        fields(best),
        [
            "address",
            "head",
            "label",
            "layer",
            "model",
            "occurrence",
            "plan",
            "position",
            "schema_version",
            "score",
            "site",
            "token",
            "token_id",
            "value",
            "view"
        ]
    );
    let text = ok(&[&["patch", CLEAN, "--corrupted", CORRUPTED], &NAMES[..]].concat());
    assert!(text.contains("0 is the corrupted run; furthest: 10 h1 +1.00 · ") && !text.contains('\u{1b}'), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_path_leads_to_its_receiver_alone() {
    let to = |more: &[&str]| patch(&[&["--corrupted", CORRUPTED], &NAMES[..], more].concat());
    let (cells, summary) = to(&["--to", "logits"]);
    let score = |cells: &[Value], layer: u64, head: u64| {
        let cell = cells.iter().find(|cell| cell["layer"] == layer && cell["head"] == head).unwrap();
        number(&cell["score"])
    };
    assert_eq!(
        (cells.len(), &summary["to"], &summary["through"]),
        (96, &"logits".into(), &"the residual stream".into())
    );
    // Half of it goes through the MLPs.
    assert!((score(&cells, 10, 1) - 0.51).abs() < 0.01, "{}", score(&cells, 10, 1));
    assert!(score(&to(&["--to", "logits", "--through-mlps"]).0, 10, 1) > 0.95);
    let (cells, summary) = to(&["--to", "10.1", "--input", "v"]);
    assert_eq!((cells.len(), &summary["to"]), (80, &"values of 10.1".into()));
    let sending = "0..6,6[patch h2 from other,patch mlp from own],7..10[patch z from own,patch mlp from own],10..12";
    let cell = cells.iter().find(|cell| cell["layer"] == 6 && cell["head"] == 2).unwrap();
    assert_eq!(cell["plan"], sending);
    // Ten senders' layers of 8 heads: a first pass each up to layer 10's attention, then a second one.
    let blocks = number(&summary["block_evaluations"]);
    assert!(blocks > 80.0 * 20.0 && blocks < 80.0 * 24.0, "{blocks}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("path.svg");
    let pair = [&["patch", CLEAN, "--corrupted", CORRUPTED], &NAMES[..]].concat();
    ok(&[&pair[..], &["--to", "10.1", "--output", path.to_str().unwrap()]].concat());
    let drawn = std::fs::read_to_string(path).unwrap();
    assert!(drawn.contains("on the way to the queries of 10.1"), "{drawn}");
    let refuses = |more: &[&str], part: &str| refused(2, &[&pair[..], more].concat(), &[part]);
    refuses(&["--to", "10.1,9.0"], "one layer");
    refuses(&["--to", "10"], "expected logits, or heads of one layer");
    refuses(&["--to", "logits", "--site", "mlp"], "cannot be used with");
    refuses(&["--through-mlps"], "--to");
    refuses(&["--to", "0.1"], "no head runs before the receiver");
    refuses(&["--to", "10.99"], "head 99");
}

#[test]
fn positions_begin_where_the_prompts_differ() {
    let (cells, summary) = patch(&["--corrupted", CORRUPTED, "--site", "pre", "--answer", " Jack"]);
    assert_eq!(cells.len(), 12 * 5);
    assert_eq!(
        (&cells[0]["position"], &cells[0]["token"], &cells[0]["score"]),
        (&10.into(), &" Jack".into(), &1.0.into())
    );
    assert_eq!((&summary["metric"], &summary["positions"]), (&"nll".into(), &serde_json::json!([10, 15])));
    assert!((number(&summary["clean"]["value"]) - loss(CLEAN, " Jack", "0..12")).abs() < 1e-9);
    let (all, _) = patch(&["--corrupted", CORRUPTED, "--site", "pre", "--answer", " Jack", "--positions", "0..15"]);
    assert_eq!(all.len(), 12 * 15);
    assert!(all[..10].iter().all(|cell| cell["score"] == 0.0));
    assert_eq!(
        all[10..15].iter().map(|c| &c["value"]).collect::<Vec<_>>(),
        cells[..5].iter().map(|c| &c["value"]).collect::<Vec<_>>()
    );
    let (reversed, _) = patch(&["--corrupted", CORRUPTED, "--site", "pre", "--answer", " Jack", "--reverse"]);
    assert_eq!((&reversed[0]["score"], &reversed[0]["token"]), (&0.0.into(), &" Tom".into()));
    let text = ok(&[&["patch", CLEAN, "--corrupted", CORRUPTED, "--reverse"], &NAMES[..]].concat());
    assert!(text.contains("1 is the clean run; furthest: 10 h1 0 · "), "{text}");
    let (heads, summary) =
        patch(&[&["--corrupted", CORRUPTED, "--positions", "14", "--site", "q"], &NAMES[..]].concat());
    assert_eq!((heads.len(), &summary["positions"]), (96, &serde_json::json!([14, 15])));
    assert_eq!(heads[0]["plan"], "0[patch q h0 from clean @14],1..12");
}

#[test]
fn plans_corrupt_as_prompts_do() {
    let (cells, summary) = patch(&["--corrupted-plan", "0..10,10[zero h1],11", "--answer", " Jack"]);
    let restored = cells.iter().find(|cell| cell["layer"] == 10 && cell["head"] == 1).unwrap();
    assert_eq!(
        (&restored["score"], &restored["plan"]),
        (&1.0.into(), &"0..10,10[zero h1,patch h1 from clean],11".into())
    );
    assert_eq!(summary["corrupted"]["plan"], "0..10,10[zero h1],11");
    assert!((number(&summary["corrupted"]["value"]) - loss(CLEAN, " Jack", "0..10,10[zero h1],11")).abs() < 1e-9);
    // An answer of several tokens.
    let (_, summary) = patch(&["--corrupted-plan", "skip 5", "--answer", " Jack and Tom.", "--site", "mlp"]);
    assert!(summary["answer"]["ids"].as_array().unwrap().len() > 1);
    assert!((number(&summary["clean"]["value"]) - loss(CLEAN, " Jack and Tom.", "0..12")).abs() < 1e-9);
    // Nothing to tell apart.
    let same = ok(&["patch", CLEAN, "--corrupted", CLEAN, "--positions", "3", "--answer", " Jack"]);
    assert!(same.contains("unresolved: the runs differ by less than 0.002"), "{same}");
}

#[test]
fn traces_say_what_carries_a_fact() {
    let spain = ["The capital of Spain is", "--answer", " Madrid"];
    let trace = |more: &[&str]| -> (Vec<Value>, Value) {
        let mut found = objects(&[&["trace", "--json"], &spain[..], more].concat());
        let summary = found.pop().unwrap();
        (found, summary)
    };
    let (cells, summary) = trace(&["--subject", "Spain", "--seeds", "4"]);
    let tokens = 6 - number(&summary["subject"][0]) as usize;
    assert_eq!(cells.len(), 12 * tokens);
    assert!((number(&summary["clean"]) - (-loss(spain[0], " Madrid", "0..12")).exp()).abs() < 1e-9);
    let last = cells.last().unwrap();
    assert_eq!((&last["restored"], &last["effect"]), (&summary["clean"], &summary["total_effect"]));
    let interval = |of: &Value| [number(&of["low"]), number(&of["mean"]), number(&of["high"])];
    assert!(interval(&summary["total_effect"]).is_sorted() && number(&summary["total_effect"]["mean"]) > 0.1);
    let subject = format!("{}..{}", summary["subject"][0], summary["subject"][1]);
    assert_eq!(trace(&["--subject-tokens", &subject, "--seeds", "4"]).0, cells);
    let (silent, summary) = trace(&["--subject", "Spain", "--sigma", "0", "--seeds", "2"]);
    assert!(silent.iter().all(|cell| cell["effect"]["mean"] == 0.0) && summary["total_effect"]["high"] == 0.0);
    let text = ok(&["trace", spain[0], "--answer", " Madrid", "--subject", "Spain", "--window", "3", "--site", "mlp"]);
    assert!(text.contains("10 seeds · 3 layers in a row") && text.contains("·Spa"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn grids_and_traces_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let draw = |name: &str, args: &[&str]| {
        assert_eq!(ok(&[args, &["--output", &file(name)]].concat()), "");
        std::fs::read(file(name)).unwrap()
    };
    let svg = |name: &str, args: &[&str]| String::from_utf8(draw(name, args)).unwrap();
    let pair = ["patch", CLEAN, "--corrupted", CORRUPTED];
    let heads = svg("heads.svg", &[&pair[..], &NAMES[..]].concat());
    for part in [
        ">attn.hook_z of the clean run, patched into the corrupted one</text>",
        ">+1 the clean run</text>",
        ">0 the corrupted run</text>",
        ">+1.00</text>",
        "<title>10 h1: score 0.9953, value 14.2087; 0..10,10[patch h1 from clean],11</title>",
    ] {
        assert!(heads.contains(part), "{part}\n{heads}");
    }
    // Both tokens where they differ, and 1 in the middle where the clean run is the one that is patched.
    let positions = svg("positions.svg", &[&pair[..], &NAMES[..], &["--site", "pre", "--reverse"]].concat());
    for part in [">10</text>", ">·Tom</text>", ">·Jack</text>", ">1 the clean run</text>", "0 the corrupted run</text>"]
    {
        assert!(positions.contains(part), "{part}\n{positions}");
    }
    let spain = ["trace", "The capital of Spain is", "--answer", " Madrid", "--subject", "Spain", "--seeds", "3"];
    let trace = svg("trace.SVG", &spain);
    assert!(trace.contains(">4*</text>") && trace.contains(">0 as noised</text>"), "{trace}");
    assert!(trace.contains("<title>steps.0 @4 &quot; Spain&quot;: +0."), "intervals: {trace}");
    assert!(draw("trace.png", &spain).starts_with(b"\x89PNG"));
    // Runs that are the same have no scores.
    let same = svg("same.svg", &["patch", CLEAN, "--corrupted", CLEAN, "--positions", "3", "--answer", " Jack"]);
    assert!(same.contains(">NaN</text>"), "{same}");
    refused(2, &[&spain[..], &["--output", &file("trace.png")]].concat(), &["exists", "--force"]);
    refused(2, &[&spain[..], &["--json", "--output", &file("new.png")]].concat(), &["--json"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5, "what is refused leaves no file");
}

/// The rows of a grid are a sweep's: computed once, and kept under what decides them.
#[test]
fn grids_and_traces_are_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.db").to_str().unwrap().to_owned();
    let kept = |args: &[&str]| {
        let ended = crate::run::run(&[args, &["--json", "--store", &store]].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        (ended.stdout, ended.stderr)
    };
    let pair = ["patch", CLEAN, "--corrupted", CORRUPTED, "--site", "pre"];
    let (first, told) = kept(&[&pair[..], &NAMES[..]].concat());
    assert_eq!(told, "");
    let (again, told) = kept(&[&pair[..], &NAMES[..]].concat());
    assert_eq!(again, first);
    // 60 cells, the corrupted run and the clean one, two answers each.
    assert!(told.contains("all 124 results were there, nothing was computed"), "{told}");
    let (more, told) = kept(&[&pair[..], &NAMES[..], &["--positions", "9..15"]].concat());
    assert!(more.contains("\"position\":9") && told.contains("24 of 148 results computed"), "{told}");
    // The other direction is another run, of which the two baselines are known.
    let (_, told) = kept(&[&pair[..], &NAMES[..], &["--reverse"]].concat());
    assert!(!told.contains("nothing was computed"), "{told}");
    let spain = ["trace", "The capital of Spain is", "--answer", " Madrid", "--subject", "Spain"];
    let (first, _) = kept(&[&spain[..], &["--seeds", "2"]].concat());
    let (again, told) = kept(&[&spain[..], &["--seeds", "2"]].concat());
    assert!(again == first && told.contains("all 51 results were there"), "{told}");
    let (_, told) = kept(&[&spain[..], &["--seeds", "3"]].concat());
    assert!(told.contains("25 of 76 results computed"), "{told}");
    // What was kept is what it says.
    let verified = crate::run::run(&["store", "verify", "--sample", "0", "--store", &store]);
    assert!(verified.code == Some(0) && verified.stdout.contains(" 0 mismatches"), "{verified:?}");
    assert!(format!("{verified:?}").contains("not compared: their plans take values of references"), "{verified:?}");
    let ended = crate::run::run(&[&spain[..], &["--seeds", "2", "--no-store"]].concat());
    assert_eq!((ended.code, ended.stderr), (Some(0), String::new()));
    refused(4, &[&spain[..], &["--store", "/nowhere/store.db"]].concat(), &["/nowhere/store.db"]);
}

/// Plans of both runs may patch in what a file holds, under any name but those that are patched in here.
#[test]
fn references_are_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.safetensors").to_str().unwrap().to_owned();
    let hungary = "The capital of Hungary is";
    ok(&["cache", "--site", "blocks.5.hook_mlp_out", "-o", &file, hungary]);
    let spain = "The capital of Spain is";
    let plan = "0..5,5[patch mlp from other @5],6..12";
    let named = format!("other={file}");
    fn with<'a>(args: &[&'a str], named: &'a str) -> Vec<&'a str> {
        [args, &["--reference", named]].concat()
    }
    let plain = loss(spain, " Madrid", "0..12");
    let losses = |more: &[&str]| {
        let found =
            object(&with(&[&["loss", "--json", "--plan", plan, "--answer", " Madrid", spain], more].concat(), &named));
        floats(&found["answer_nll"]).iter().sum::<f64>()
    };
    let patched = losses(&["--no-store"]);
    assert!(patched != plain);
    let store = folder.path().join("store.db").to_str().unwrap().to_owned();
    assert_eq!([losses(&["--store", &store]), losses(&["--store", &store])], [patched; 2]);
    let told = crate::run::run(&with(&["complete", "--plan", plan, "-n", "2", spain, "--store", &store], &named));
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let args = ["patch", "--json", "--corrupted-plan", plan, "--answer", " Madrid", "--site", "mlp", spain];
    let mut cells = objects(&with(&args, &named));
    let summary = cells.pop().unwrap();
    assert!((number(&summary["corrupted"]["value"]) - patched).abs() < 1e-9, "{summary}");
    let args = ["trace", "--json", "--plan", plan, "--answer", " Madrid", "--subject", "Spain", "--seeds", "1", spain];
    let summary = objects(&with(&args, &named)).pop().unwrap();
    assert!((number(&summary["clean"]) - (-patched).exp()).abs() < 1e-9, "{summary}");
    refused(2, &["loss", "--plan", plan, spain], &["no reference other"]);
    refused(2, &["complete", "--plan", plan, spain], &["no reference other"]);
    let clean = format!("clean={file}");
    let args = ["trace", "--answer", " Madrid", "--subject", "Spain", "--reference", &clean, spain];
    refused(2, &args, &["a reference named clean"]);
}

#[test]
fn what_can_not_be_patched_or_traced_is_refused() {
    let refuses = |more: &[&str], parts: &[&str]| refused(2, &[&["patch", CLEAN], more].concat(), parts);
    refuses(&["--answer", " Jack"], &["--corrupted"]);
    let longer = format!("{CORRUPTED} the");
    refuses(
        &["--corrupted", &longer, "--answer", " Jack"],
        &["15 tokens, the corrupted one 16", "\" Jack\" \" gave\""],
    );
    refuses(&["--corrupted", CLEAN, "--answer", " Jack"], &["nothing is corrupted"]);
    refuses(
        &["--corrupted", CORRUPTED, "--answer", " Jack and Tom", "--other", " Tom"],
        &["--answer \" Jack and Tom\" is 3 tokens: \" Jack\" \" and\" \" Tom\""],
    );
    refuses(&["--corrupted", CORRUPTED, "--answer", ""], &["no tokens"]);
    refuses(&["--corrupted", CORRUPTED, "--answer", " Jack", "--site", "luck"], &["luck"]);
    refuses(&["--corrupted", CORRUPTED, "--answer", " Jack", "--positions", "9..16"], &["positions 9..16 of 15"]);
    refuses(&["--corrupted", CORRUPTED, "--answer", " Jack", "--positions", "5..3"], &["i < j"]);
    refuses(&["--corrupted-plan", "0..13", "--answer", " Jack"], &["range end 13 of 12 layers"]);
    refuses(&["--corrupted-plan", "0..12m", "--answer", " Jack"], &["nothing passes z"]);
    refuses(&["--corrupted", CORRUPTED, "--answer", &" Jack".repeat(250)], &["256"]);
    let refuses = |more: &[&str], parts: &[&str]| {
        refused(2, &[&["trace", CLEAN, "--answer", " Jack"], more].concat(), parts);
    };
    refuses(&[], &["--subject"]);
    refuses(&["--subject", "Tom"], &["2 times", "--subject-tokens"]);
    refuses(&["--subject", "Anna"], &["0 times"]);
    refuses(&["--subject", ""], &["0 times"]);
    refuses(&["--subject-tokens", "14..16"], &["positions 14..16 of 15 tokens"]);
    refuses(&["--subject", "Jack", "--sigma", "NaN"], &["NaN"]);
    refuses(&["--subject", "Jack", "--sigma", "-1"], &["-1"]);
    refuses(&["--subject", "Jack", "--seeds", "0"], &["0"]);
    refuses(&["--subject", "Jack", "--seeds", "4000000000"], &["plans of 12 blocks"]);
    refuses(&["--subject", "Jack", "--plan", "(0|1),2..12"], &["begins with a group"]);
    refuses(&["--subject", "Jack", "--plan", "repeat 3 x2"], &["layer 3 runs 2 times"]);
}
