//! Token views and lenses, attribution, attention and similarity: their numbers are those of losses and patterns, and what they
//! refuse.

use crate::run::{assert_refused, fields, floats, object, objects, ok, refused, run, with_stdin};

const TEXT: &str = "The capital of Spain is Madrid.";

#[test]
fn tokens_say_what_a_plan_changes() {
    let shifts = objects(&["tokens", "--json", "--plan", "skip 5", "--changes", "3", TEXT]);
    let losses = objects(&["loss", "--no-store", "--json", "--plan", "0..12", "--plan", "skip 5", TEXT]);
    let ids = losses[0]["token_ids"].as_array().unwrap();
    assert_eq!(shifts.len(), ids.len());
    for (position, shift) in shifts.iter().enumerate() {
        assert_eq!((&shift["position"], &shift["token_id"]), (&position.into(), &ids[position]));
        assert_eq!(shift["next_id"], ids.get(position + 1).cloned().unwrap_or_default());
        for (side, losses) in ["intact", "corrupted"].into_iter().zip(&losses) {
            match losses["nll"].get(position) {
                Some(nll) => {
                    let found = shift[side]["nll"].as_f64().unwrap();
                    assert!((found - nll.as_f64().unwrap()).abs() < 1e-5, "{shift}");
                }
                None => assert!(shift[side]["nll"].is_null() && shift[side]["rank"].is_null(), "{shift}"),
            }
        }
        let gained = shift["gained"].as_array().unwrap();
        let gains =
            |c: &serde_json::Value| c["probability"][1].as_f64().unwrap() - c["probability"][0].as_f64().unwrap();
        assert!(gained.len() <= 3 && gained.iter().all(|c| gains(c) > 0.0), "{shift}");
        assert!(gained.windows(2).all(|pair| gains(&pair[0]) >= gains(&pair[1])), "{shift}");
    }
    assert_eq!(
        fields(&shifts[0]),
        [
            "corrupted",
            "gained",
            "intact",
            "kl",
            "lost",
            "model",
            "next",
            "next_id",
            "plan",
            "position",
            "schema_version",
            "token",
            "token_id",
            "view"
        ]
    );
    let identity = objects(&["tokens", "--json", "--plan", "0..12", TEXT]);
    assert!(identity.iter().all(|shift| shift["kl"] == 0.0 && shift["gained"] == serde_json::json!([])));
    let text = ok(&["tokens", "--plan", "0..8", TEXT]);
    assert!(text.contains("\" Madrid\"  ") && text.contains("(the end)") && !text.contains('\u{1b}'), "{text}");
    let ids = ok(&["tokens", "--plan", "0..8", "--ids", "0,275,325"]);
    assert!(ids.lines().any(|line| line.starts_with("275 ")), "{ids}");
}

#[test]
fn a_lens_is_the_model_that_stops_there() {
    let cells = objects(&["lens", "--json", "--plan", "0..3,3*2,4..12", TEXT]);
    let intact: Vec<_> = cells.iter().filter(|cell| cell["plan"] == "0..12").collect();
    assert!(intact.is_empty(), "one plan is looked at alone");
    let tokens = cells.iter().filter(|cell| cell["steps"] == 0).count();
    assert_eq!(cells.len(), 14 * tokens);
    assert_eq!(
        (&cells[0]["step"], &cells[4 * tokens]["step"], &cells[5 * tokens]["step"]),
        (&"embed".into(), &"3".into(), &"3".into())
    );
    let stopped = objects(&["loss", "--no-store", "--json", "--plan", "0..3,3", TEXT]);
    for (position, nll) in stopped[0]["nll"].as_array().unwrap().iter().enumerate() {
        let cell = &cells[4 * tokens + position];
        assert!((cell["nll"].as_f64().unwrap() - nll.as_f64().unwrap()).abs() < 1e-5, "{cell}");
    }
    assert!(cells[13 * tokens..].iter().all(|cell| cell["kl"] == 0.0));
    let text = ok(&["lens", "--last", "2", "The capital of Spain is"]);
    let top: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(top[..2], ["11", "·is"], "{text}");
    assert!(top[3..].starts_with(&["·Madrid"]) && text.lines().count() == 16, "{text}");
}

#[test]
fn what_can_not_be_looked_at_is_refused() {
    refused(2, &["tokens", TEXT], &["--plan"]);
    refused(2, &["tokens", "--plan", "0..13", TEXT], &["range end 13 of 12 layers"]);
    refused(2, &["lens", "--no-bos", ""], &["--no-bos"]);
    refused(2, &["lens", &"word ".repeat(2_000)], &["256"]);
    refused(2, &["tokens", "--plan", "0..8", "--by", "luck", TEXT], &["luck"]);
}

const NAMES: &str = "When Tom and Jack went to the market, Tom gave a lamp to";

#[test]
fn parts_of_a_logit_add_up_to_it() {
    let found = object(&["attribute", "--json", "--answer", " Jack", "--other", " Tom", NAMES]);
    assert_eq!((&found["answer_id"], &found["other_id"], &found["position"]), (&826.into(), &817.into(), &14.into()));
    let parts = found["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 1 + 12 * 10);
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let sum = parts.iter().map(|part| number(&part["value"])).sum::<f64>() + number(&found["constant"]);
    assert!((sum - number(&found["value"])).abs() < 1e-4 && (sum - number(&found["sum"])).abs() < 1e-9, "{found}");
    // The difference of logits is that of the losses.
    let loss = |answer: &str| {
        let loss = object(&["loss", "--no-store", "--json", "--answer", answer, NAMES]);
        loss["nll"].as_array().unwrap().last().unwrap().as_f64().unwrap()
    };
    assert!((loss(" Tom") - loss(" Jack") - number(&found["value"])).abs() < 1e-4);
    let first = (&parts[0]["source"], &parts[0]["address"], &parts[2]["head"]);
    assert_eq!(first, (&"embedding".into(), &serde_json::Value::Null, &1.into()));

    let plan = "0..3,3*2,(5[zero h1]|6a),7[noise 1 post]";
    let args = ["attribute", "--json", "--plan", plan, "--ids", "0,275,325", "--answer", "7", "--position", "1"];
    let changed = object(&args);
    assert!((number(&changed["sum"]) - number(&changed["value"])).abs() < 1e-4, "{changed}");
    let parts = changed["parts"].as_array().unwrap();
    let at = |address: &str| parts.iter().filter(|part| part["address"] == address).collect::<Vec<_>>();
    assert_eq!((at("steps.4")[0]["layer"].as_u64(), at("steps.4")[0]["occurrence"].as_u64()), (Some(3), Some(1)));
    assert_eq!((at("steps.5.0").len(), at("steps.5.1").len(), at("steps.6").len()), (10, 9, 11));
    assert_eq!(at("steps.5.0")[1]["value"], 0.0);
    assert_eq!((&at("steps.6")[10]["source"], &at("steps.6")[10]["site"]), (&"change".into(), &"post".into()));

    let text = ok(&["attribute", "--answer", " Jack", "--other", " Tom", "--top", "3", NAMES]);
    let label = |line: &str| line.trim_start().split("  ").next().unwrap().to_owned();
    let labels: Vec<String> = text.lines().skip(2).take(4).map(label).collect();
    assert_eq!(labels, ["10 h1", "11 mlp", "10 mlp", "119 others"], "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80) && text.contains("+7.65"), "{text}");

    // A reference is found by its name; its own values change nothing.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clean.safetensors").to_str().unwrap().to_owned();
    ok(&["cache", "--site", "blocks.5.attn.hook_z", "-o", &file, NAMES]);
    let (plan, reference) = ("0..5,5[patch z from clean],6..12", format!("clean={file}"));
    let args =
        ["attribute", "--json", "--answer", " Jack", "--other", " Tom", "--plan", plan, "--reference", &reference];
    assert_eq!(object(&[&args[..], &[NAMES]].concat())["parts"], found["parts"]);
}

#[test]
fn attention_is_shown_by_head() {
    let found = object(&["attention", "--json", "--layer", "10", "--head", "1", NAMES]);
    let rows = found["pattern"].as_array().unwrap();
    assert_eq!((rows.len(), &found["address"]), (15, &"steps.10".into()));
    for (query, row) in rows.iter().enumerate() {
        let row = floats(row);
        assert!(row.len() == query + 1 && (row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
    }
    let heads = objects(&["attention", "--json", NAMES]);
    assert_eq!(heads.len(), 96);
    let head = heads.iter().find(|head| head["layer"] == 10 && head["head"] == 1).unwrap();
    let first = rows.iter().skip(2).map(|row| row[0].as_f64().unwrap()).sum::<f64>() / 13.0;
    assert!((head["first"].as_f64().unwrap() - first).abs() < 1e-9, "{head}");
    assert!(head["induction"].as_f64().is_some());
    let plan = "0..5,5[zero h1 @3],5[zero h2 @3]";
    let of_text = objects(&["attention", "--json", "--plan", plan, "--layer", "5@1", NAMES]);
    assert_eq!(of_text.len(), 8);
    assert!(of_text.iter().all(|head| head["address"] == "steps.6" && head["induction"].is_null()), "{of_text:?}");

    let narrow = |text: &str| text.lines().all(|line| line.chars().count() <= 80);
    let text = ok(&["attention", "--layer", "10", "--head", "1", NAMES]);
    let last = text.lines().nth(16).unwrap();
    assert!(last.starts_with("14 ·to        ░░") && last.contains("██") && narrow(&text), "{text}");
    let text = ok(&["attention", "--layer", "10", "--head", "1", &format!("{NAMES}. {NAMES}. {NAMES}.")]);
    assert!(narrow(&text), "{text}");
    let text = ok(&["attention", NAMES]);
    assert!(narrow(&text) && text.lines().count() == 1 + 4 * 14 + 1, "{text}");
}

#[test]
fn similarity_weighs_every_token_alike() {
    let texts = [TEXT, "One day, Anna walked to the park."];
    let plan = ["similarity", "--json", "--plan", "0..3,5*2"];
    let alone = texts.map(|text| object(&[&plan[..], &[text]].concat()));
    let both = with_stdin(&[&plan[..], &["--lines", "-"]].concat(), texts.join("\n\n").as_bytes());
    let both: serde_json::Value = serde_json::from_str(&both.stdout).unwrap();
    assert_eq!((&both["texts"], &both["states"]), (&2.into(), &serde_json::json!(["embed", "0", "1", "2", "5", "5"])));
    for first in [true, false] {
        let view = |record: &serde_json::Value| if first { record.clone() } else { record["without_first"].clone() };
        let views = [&alone[0], &alone[1], &both].map(view);
        let [n, m, of_both] = [0, 1, 2].map(|i| views[i]["tokens"].as_f64().unwrap());
        assert_eq!(n + m, of_both);
        let influence = [0, 1, 2].map(|i| floats(&views[i]["block_influence"]));
        for step in 0..5 {
            let mean = (n * influence[0][step] + m * influence[1][step]) / (n + m);
            assert!((mean - influence[2][step]).abs() < 1e-12, "{step}");
            let cosine = views[2]["cosines"][step][step + 1].as_f64().unwrap();
            assert!((1.0 - cosine - influence[2][step]).abs() < 1e-12);
            assert_eq!(views[2]["cosines"][step + 1][step], views[2]["cosines"][step][step + 1]);
        }
    }
    let text = ok(&["similarity", TEXT]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(text.lines().count(), 1 + 14 + 1 + 14, "{text}");
    assert_ne!(ok(&["similarity", "--with-first", TEXT]), text);
}

#[test]
fn views_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, args) in [
        ("attribute.svg", &["attribute", "--answer", " Jack", NAMES][..]),
        ("heads.svg", &["attention", NAMES]),
        ("lens.svg", &["lens", NAMES]),
        ("lens.png", &["lens", "--last", "5", "--plan", "0..3,3*2,(4|5),7a", NAMES]),
        ("attention.svg", &["attention", "--layer", "10", "--head", "1", NAMES]),
        ("similarity.png", &["similarity", NAMES]),
    ] {
        let path = file(name);
        let (new, other) = (file("new.svg"), file("new.PNG"));
        assert_eq!(ok(&[args, &["--output", &path]].concat()), "");
        let bytes = std::fs::read(&path).unwrap();
        let start: &[u8] = if name.ends_with(".png") { b"\x89PNG" } else { b"<svg " };
        assert!(bytes.starts_with(start), "{name}");
        refused(2, &[args, &["--output", &path]].concat(), &["exists", "--force"]);
        refused(2, &[args, &["--json", "--output", &new]].concat(), &["--json"]);
        let several = ["--plan", "0..3", "--plan", "0..4", "--output", &other];
        refused(2, &[args, &several].concat(), &[" plans: a drawing shows one"]);
    }
    ok(&["tokens", "--plan", "0..8", TEXT, "--output", &file("tokens.svg")]);
    // Each says what it shows, and what its colours mean.
    let drawn = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    for (name, parts) in [
        (
            "attribute.svg",
            &[">10 h1</text>", ">0..12 (intact): what each head adds</text>", "towards &quot; Jack&quot;"][..],
        ),
        ("attention.svg", &["10 h1, where each token looks", ">·Tom 10</text>", ">100\u{a0}%</text>"]),
        ("heads.svg", &["to position 0", "entropy", "nats</text>"]),
        (
            "lens.svg",
            &[
                ">·Jack</text>",
                ">embed</text>",
                "above it: what is said in the end",
                "<title>10, behind &quot; to&quot;",
            ],
        ),
        ("tokens.svg", &[">·Madrid</text>", "worse</text>", "more likely: "]),
    ] {
        let svg = drawn(name);
        parts.iter().for_each(|part| assert!(svg.contains(part), "{name}: {part}\n{svg}"));
    }
    // What can't be seen is refused before anything runs.
    refused(2, &["lens", "--last", "0", TEXT, "--output", &file("none.svg")], &["nothing to draw"]);
    let long = ["similarity", "--plan", "3*300", TEXT, "--output", &file("large.svg")];
    refused(2, &long, &["90601 cells", "40000"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 7, "what is refused leaves no file");
}

#[test]
fn what_can_not_be_taken_apart_is_refused() {
    refused(2, &["attribute", NAMES], &["--answer"]);
    refused(2, &["attribute", "--answer", " Madridian", NAMES], &["is 3 tokens", r#"" Madrid" "i" "an""#]);
    refused(2, &["attribute", "--answer", "", NAMES], &["has no tokens"]);
    refused(2, &["attribute", "--answer", " Jack", "--other", " Jack", NAMES], &["are one token, id 826"]);
    refused(2, &["attribute", "--answer", " Jack", "--position", "15", NAMES], &["15 of 15 tokens", "0..=14"]);
    refused(2, &["attribute", "--ids", "0,5", "--answer", " Jack"], &["an id", "0..=2047"]);
    refused(2, &["attribute", "--ids", "0,5", "--answer", "2048"], &["0..=2047"]);
    let plan = "0..5,5[patch z from clean]";
    refused(2, &["attribute", "--answer", " Jack", "--plan", plan, NAMES], &["no reference clean"]);
    refused(2, &["attention", "--head", "3", NAMES], &["--layer"]);
    refused(2, &["attention", "--layer", "12", "--head", "0", NAMES], &["blocks.12"]);
    refused(2, &["attention", "--layer", "5", "--head", "8", NAMES], &["head 8 of 8"]);
    refused(2, &["attention", "--layer", "5", "--plan", "5*2", "--head", "0", NAMES], &["blocks.5@0..=blocks.5@1"]);
    refused(2, &["attention", "--layer", "5", "--plan", "5m", "--head", "0", NAMES], &["MLP half of layer 5"]);
    refused(2, &["similarity"], &["no prompt"]);
    refused(2, &["similarity", ""], &["--with-first"]);
    refused(2, &["similarity", "--plan", "3*1024", NAMES], &["1025", "1024"]);
    refused(3, &["similarity", "--lines", "nowhere.txt"], &["nowhere.txt"]);
    let lines = |bytes: &[u8]| with_stdin(&["similarity", "--lines", "-"], bytes);
    assert_refused(lines(b"\n\n"), 3, &["stdin", "no line"]);
    assert_refused(lines(b"a\xff"), 3, &["not UTF-8 at byte 1"]);
    assert_refused(lines(format!("a\n{}\n", "word ".repeat(300)).as_bytes()), 2, &["stdin, line 2", "256"]);
}

/// A reference's own values change nothing, another prompt's do; the store keys what a reference holds, not its name.
#[test]
fn activations_are_written_and_found_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (own, other, means) = (file("own.safetensors"), file("other.safetensors"), file("means.safetensors"));
    let prompt = "The capital of Spain is";
    ok(&["cache", "--site", "blocks.*.attn.hook_z", "--site", "blocks.5.hook_mlp_out", "-o", &own, prompt]);
    ok(&["cache", "--site", "blocks.5.attn.hook_z", "-o", &other, "The capital of Hungary is"]);
    let lines = file("lines.txt");
    std::fs::write(&lines, "One day, Anna walked to the park.\n\nThe capital of Peru is Lima.\n").unwrap();
    ok(&["cache", "--site", "blocks.5.attn.hook_z", "--lines", &lines, "-o", &means]);

    let named = |file: &str| format!("ref={file}");
    let shifts =
        |plan: &str, file: &str| objects(&["tokens", "--json", "--plan", plan, "--reference", &named(file), prompt]);
    let patch = "0..5,5[patch z from ref],6..12";
    assert!(shifts(patch, &own).iter().all(|shift| shift["kl"] == 0.0));
    assert!(shifts(patch, &other).last().unwrap()["kl"].as_f64().unwrap() > 0.0);
    assert!(shifts("0..5,5[mean h1 from ref],6..12", &means).last().unwrap()["kl"].as_f64().unwrap() > 0.0);
    let lens = objects(&["lens", "--json", "--plan", patch, "--reference", &named(&own), prompt]);
    assert_eq!(lens.len() % 13, 0);

    let pairs = file("pairs.jsonl");
    std::fs::write(&pairs, "{\"prompt\": \"The capital of Spain is\", \"answer\": \"Madrid\"}\n").unwrap();
    let store = file("store.db");
    let computed = |file: &str| {
        let reference = named(file);
        let args =
            ["sweep", "--json", "--plan", patch, "--pairs", &pairs, "--store", &store, "--reference", &reference];
        objects(&args).pop().unwrap()["summary"]["computed_rows"].clone()
    };
    assert_eq!([computed(&own), computed(&own), computed(&other)], [1, 0, 1]);

    // The intact model took nothing of them; the others can't be compared.
    let verified = run(&["store", "verify", "--store", &store]);
    let said = "2 results not compared: their plans take values of references";
    assert!(verified.code == Some(0) && verified.stdout.starts_with("2 results compared: 2 identical"), "{verified:?}");
    assert!(format!("{verified:?}").contains(said), "{verified:?}");

    // A file is replaced only when that is asked for.
    refused(2, &["cache", "--site", "*", "-o", &own, prompt], &["own.safetensors exists", "--force"]);
    ok(&["cache", "--site", "*", "--force", "-o", &own, prompt]);
    assert!(shifts("0..5,5[patch pattern from ref,patch ln2 from ref],6..12", &own).iter().all(|s| s["kl"] == 0.0));
    refused(2, &["tokens", "--plan", patch, "--reference", &named(&means), prompt], &["has 2 sequences"]);
    refused(2, &["tokens", "--plan", patch, prompt], &["there is no reference ref"]);
    refused(2, &["tokens", "--plan", patch, "--reference", "ref", prompt], &["a name, `=` and a file"]);
    refused(3, &["tokens", "--plan", patch, "--reference", "ref=nowhere", prompt], &["cannot read nowhere"]);
    let new = file("new.safetensors");
    for (site, wanted) in
        [("blocks.12.hook_mlp_out", "layer 12 of 12"), ("blocks.5.hook_zz", "attn.hook_z"), ("z", "blocks.5.HOOK")]
    {
        refused(2, &["cache", "--site", site, "-o", &new, prompt], &[wanted]);
    }
    refused(2, &["cache", "--site", "*", "--lines", &lines, "-o", &new], &["no common width"]);
    refused(2, &["cache", "--site", "blocks.5.hook_mlp_out", "--plan", "5,5", "-o", &new, prompt], &["runs 2 times"]);
    assert!(!std::path::Path::new(&new).exists());
}
