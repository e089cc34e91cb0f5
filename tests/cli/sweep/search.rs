//! `lesion search`, against all subsets as `lesion sweep` measures them.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{Place, refs, swept};
use crate::run::{fields, object, ok, refused, run};

/// What of a sweep over all subsets counts here: nats per token and accuracy, by layers.
struct Measured {
    by_layers: HashMap<Vec<u64>, (f64, f64)>,
    intact: (f64, f64),
}

static MEASURED: LazyLock<(Place, Measured)> = LazyLock::new(|| {
    let place = Place::new();
    let (rows, _) = place.swept(&["--family", "subsets", "--no-kl"]);
    assert_eq!(rows.len(), 6 * 4096);
    let mut by_layers = HashMap::new();
    for mask in 0..4096_usize {
        // The subsets come in the order of their masks.
        let rows: Vec<&Value> = (0..6).map(|example| &rows[example * 4096 + mask]).collect();
        assert!(rows.iter().all(|row| row["plan"] == rows[0]["plan"]));
        let sum = |field: &str| rows.iter().map(|row| row[field].as_f64().unwrap()).sum::<f64>();
        let correct = rows.iter().filter(|row| row["correct"] == true).count();
        let layers = (0..12).filter(|layer| mask >> layer & 1 == 1).collect();
        by_layers.insert(layers, (sum("answer_nll") / sum("answer_tokens"), correct as f64 / 6.0));
    }
    let intact = by_layers[&(0..12).collect::<Vec<u64>>()];
    (place, Measured { by_layers, intact })
});

impl Measured {
    /// The sets that qualify, as the goal understands them.
    fn qualifying(&self, breaking: bool, met: &dyn Fn((f64, f64)) -> bool) -> Vec<Vec<u64>> {
        let sets = self.by_layers.iter().filter(|(_, measured)| met(**measured) != breaking);
        sets.map(|(layers, _)| if breaking { without(layers) } else { layers.clone() }).collect()
    }
}

fn without(set: &[u64]) -> Vec<u64> {
    (0..12).filter(|layer| !set.contains(layer)).collect()
}

/// The layers of a list of sets, in no particular order.
fn sets(list: &Value) -> Vec<Vec<u64>> {
    let layers = |set: &Value| set["layers"].as_array().unwrap().iter().map(|layer| layer.as_u64().unwrap()).collect();
    let mut sets: Vec<Vec<u64>> = list.as_array().unwrap().iter().map(layers).collect();
    sets.sort();
    sets
}

fn search(args: &[&str]) -> Vec<String> {
    let pairs = MEASURED.0.text("pairs.jsonl");
    ["search", "--pairs", &pairs, "--no-store"].iter().chain(args).map(|arg| (*arg).to_owned()).collect()
}

/// A threshold as the command line says it, and what meets it.
type Threshold = (&'static [&'static str], fn((f64, f64), (f64, f64)) -> bool);

const THRESHOLDS: [Threshold; 4] = [
    (&["--keep", "0.9"], |found, intact| found.1 >= 0.9 * intact.1),
    (&["--keep", "0.5"], |found, intact| found.1 >= 0.5 * intact.1),
    (&["--within", "0.2"], |found, intact| found.0 <= intact.0 + 0.2),
    (&["--within", "3"], |found, intact| found.0 <= intact.0 + 3.0),
];

#[test]
fn an_exact_search_finds_what_all_subsets_show() {
    let measured = &MEASURED.1;
    for breaking in [false, true] {
        for (args, met) in THRESHOLDS {
            let goal: &[&str] = if breaking { &["--break"] } else { &[] };
            let found = object(&refs(&search(&[args, goal, &["--json", "--top", "0"]].concat())));
            assert_eq!((&found["exact"], &found["method"]), (&json!(true), &json!("exact")));
            let qualifying = measured.qualifying(breaking, &|found| met(found, measured.intact));
            let fewest = qualifying.iter().map(Vec::len).min().unwrap();
            let mut smallest: Vec<Vec<u64>> = qualifying.iter().filter(|set| set.len() == fewest).cloned().collect();
            smallest.sort();
            assert_eq!(sets(&found["smallest"]), smallest, "{args:?} {goal:?}");
            let within = |a: &[u64], b: &[u64]| a.len() < b.len() && a.iter().all(|layer| b.contains(layer));
            let mut minimal: Vec<Vec<u64>> = qualifying.clone();
            minimal.retain(|set| !qualifying.iter().any(|other| within(other, set)));
            minimal.sort();
            let listed = minimal.len().min(1_000);
            assert_eq!(found["minimal_count"], minimal.len(), "{args:?} {goal:?}");
            if listed == minimal.len() {
                assert_eq!(sets(&found["minimal"]), minimal, "{args:?} {goal:?}");
            }
            for set in found["smallest"].as_array().unwrap().iter().chain(found["minimal"].as_array().unwrap()) {
                let layers: Vec<u64> = set["layers"].as_array().unwrap().iter().map(|l| l.as_u64().unwrap()).collect();
                let (nll, accuracy) = measured.by_layers[&if breaking { without(&layers) } else { layers }];
                assert_eq!((set["nll_per_token"].as_f64(), set["accuracy"].as_f64()), (Some(nll), Some(accuracy)));
            }
            let intact = &found["intact"];
            assert_eq!(
                (intact["nll_per_token"].as_f64().unwrap(), intact["accuracy"].as_f64().unwrap()),
                measured.intact
            );
        }
    }
}

#[test]
fn inexact_searches_give_sets_that_qualify_and_are_called_upper_bounds() {
    let measured = &MEASURED.1;
    for breaking in [false, true] {
        for (args, met) in THRESHOLDS {
            let goal: &[&str] = if breaking { &["--break"] } else { &[] };
            let exact = measured.qualifying(breaking, &|found| met(found, measured.intact));
            let fewest = exact.iter().map(Vec::len).min().unwrap();
            for method in [&["--method", "greedy"][..], &["--method", "beam", "--beam", "4"], &["--method", "bisect"]] {
                let args = search(&[args, goal, method].concat());
                let found = object(&[&refs(&args)[..], &["--json", "--top", "0"]].concat());
                let at = format!("{args:?}: {found}");
                assert_eq!(
                    (&found["exact"], &found["method"], &found["minimal"]),
                    (&json!(false), &json!(method[1]), &json!([]))
                );
                let sets = sets(&found["smallest"]);
                let size = sets[0].len();
                assert!(!sets.is_empty() && size >= fewest && sets.iter().all(|set| set.len() == size), "{at}");
                assert!(sets.iter().all(|set| exact.contains(set)), "{at}");
                assert_eq!(found["smallest_count"], sets.len());
                // Far fewer models than all.
                assert!(found["models_measured"].as_u64().unwrap() < 400, "{at}");
            }
        }
    }
    let text = ok(&refs(&search(&["--keep", "0.9", "--method", "bisect"])));
    assert!(text.contains("upper bound, the smallest sets found (bisect): 1 with "), "{text}");
}

/// One of the sets, measured again by other commands.
#[test]
fn what_is_found_is_what_losses_say() {
    let (place, _) = &*MEASURED;
    let found = object(&refs(&search(&["--within", "0.2", "--method", "greedy", "--json"])));
    let layers: Vec<String> = found["smallest"][0]["layers"].as_array().unwrap().iter().map(Value::to_string).collect();
    let plan = layers.join(",");
    let (mut nll, mut tokens) = (0.0, 0);
    for (_, prompt, answer) in super::QUESTIONS {
        let loss =
            object(&["loss", "--json", "--no-store", "--plan", &plan, "--answer", &format!(" {answer}"), prompt]);
        let losses = crate::run::floats(&loss["answer_nll"]);
        nll += losses.iter().sum::<f64>();
        tokens += losses.len();
    }
    let [own, intact] = [&found["smallest"][0], &found["intact"]].map(|found| found["nll_per_token"].as_f64().unwrap());
    assert!((own - nll / tokens as f64).abs() < 1e-12 && own <= intact + 0.2);
    let (rows, _) = place.swept(&["--plan", &plan]);
    let correct = rows.iter().filter(|row| row["correct"] == true).count();
    assert_eq!(found["smallest"][0]["accuracy"].as_f64(), Some(correct as f64 / 6.0));
}

#[test]
fn threshold_method_and_cost_are_told() {
    let found = object(&refs(&search(&["--keep", "0.9", "--json"])));
    let agreed = [
        "block_evaluations",
        "exact",
        "examples",
        "goal",
        "intact",
        "method",
        "minimal",
        "minimal_count",
        "model",
        "models_measured",
        "naive_block_evaluations",
        "numerics",
        "schema_version",
        "seconds",
        "smallest",
        "smallest_count",
        "threshold",
    ];
    assert_eq!(fields(&found), agreed);
    assert_eq!(fields(&found["smallest"][0]), ["accuracy", "layers", "nll_per_token"]);
    // The intact model alone first, then all subsets.
    assert_eq!(
        (&found["models_measured"], &found["block_evaluations"], &found["naive_block_evaluations"]),
        (&json!(4097), &json!(4107.0), &json!(24588.0))
    );
    assert_eq!((&found["threshold"], &found["goal"]), (&json!({"keep_accuracy": 0.9}), &json!("keep")));
    let other = object(&refs(&search(&["--within", "0.5", "--break", "--method", "greedy", "--json"])));
    assert_eq!((&other["threshold"], &other["goal"]), (&json!({"within_nats": 0.5}), &json!("break")));

    let run = run(&refs(&search(&["--keep", "0.9", "--top", "1"])));
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let percent = format!("{:.1} %", 100.0 * MEASURED.1.intact.1);
    let asked = format!("{:.1} %", 90.0 * MEASURED.1.intact.1);
    for part in [
        format!("intact: {percent} correct, "),
        format!("layers that suffice, the model alone: at least {asked} correct (90.0 % of intact)"),
        "the smallest sets (exact): ".to_owned(),
        "all sets that are minimal under inclusion: ".to_owned(),
        " more: --top 0 shows all".to_owned(),
    ] {
        assert!(run.stdout.contains(&part), "{part}: {}", run.stdout);
    }
    assert!(
        run.stderr.contains("4,097 models on 6 examples: 4,107 block evaluations each instead of 24,588, "),
        "{}",
        run.stderr
    );
    let text = ok(&refs(&search(&["--within", "0.5", "--break", "--method", "greedy"])));
    assert!(
        text.contains("layers without which it breaks, the model without them no longer at most ")
            && text.contains(" nats per token (0.5000 more than intact)"),
        "{text}"
    );
}

#[test]
fn what_can_not_be_meant_is_refused() {
    let place = Place::new();
    let pairs = place.text("pairs.jsonl");
    let search = ["search", "--pairs", &pairs, "--no-store"];
    for (args, parts) in [
        (&[][..], &["--keep"][..]),
        (&["--keep", "0.9", "--within", "1"], &["--keep", "--within"]),
        (&["--keep", "1.1"], &["--keep", "share"]),
        (&["--keep", "NaN"], &["--keep"]),
        (&["--within", "-1"], &["--within"]),
        (&["--within", "1e400"], &["--within"]),
        (&["--keep", "0.9", "--method", "magic"], &["--method", "bisect"]),
        (&["--keep", "0.9", "--beam", "0"], &["--beam"]),
        // A search draws nothing.
        (&["--keep", "0.9", "--seed", "1"], &["--seed"]),
        (&["--keep", "0.9", "--memory", "1MB"], &["--memory 1.0 MB"]),
        (&["--keep", "0.9", "--memory", "12"], &["--memory", "512MB"]),
    ] {
        refused(2, &[&search[..], args].concat(), parts);
    }
    // Nothing can be kept of what the intact model can't do.
    let wrong = place.write("w.jsonl", b"{\"prompt\": \"The capital of Spain is\", \"answer\": \"zebra\"}");
    let search = ["search", "--pairs", &wrong, "--no-store"];
    for goal in [&[][..], &["--break"]] {
        refused(2, &[&search[..], &["--keep", "0.9"], goal].concat(), &["0 of 1 examples right", "--within"]);
    }
    let found = object(&[&search[..], &["--within", "0.5", "--method", "greedy", "--json"]].concat());
    assert_eq!(found["intact"]["accuracy"], 0.0);
    let (rows, _) = swept(&["sweep", "--plan", "0..12", "--pairs", &wrong, "--json", "--no-store"]);
    assert_eq!((&rows[0]["answer_nll"], &rows[0]["correct"]), (&rows[0]["intact_nll"], &json!(false)));
}
