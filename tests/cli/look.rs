//! Token views and lenses: their numbers are those of losses, and what they refuse.

use crate::run::{fields, objects, ok, refused, run};

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
            "token_id"
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

    // Nothing that could be compared.
    let verified = run(&["store", "verify", "--store", &store]);
    let said = "2 results not compared: their plans take values of references";
    assert!(verified.code == Some(1) && format!("{verified:?}").contains(said), "{verified:?}");

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
