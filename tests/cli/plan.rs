//! `lesion plan`.

use serde_json::json;

use crate::run::{fields, object, objects, ok, refused};

#[test]
fn the_canonical_form_the_cost_and_the_picture() {
    let text = ok(&["plan", "skip 5; repeat 3 x4"]);
    assert!(text.starts_with("0..3,3*4,4,6..12\n14 block evaluations; the intact model's are 12\n"), "{text}");
    assert!(text.contains("3×4"), "{text}");
    assert!(ok(&["plan", "0..12,11a"]).contains("12 1/3 block evaluations"));
    assert!(ok(&["plan", "none"]).starts_with("none\n0 block evaluations"));
    let two = ok(&["plan", "0..8", "11..=0"]);
    assert_eq!(two.matches("block evaluations").count(), 2);
}

#[test]
fn json_has_the_agreed_fields() {
    let plan = object(&["plan", "--json", "0..7,7[zero h3 h5],8m"]);
    assert_eq!(fields(&plan), ["cost_blocks", "expression", "n_head", "n_layer", "plan", "schema_version", "steps"]);
    assert_eq!(plan["plan"], "0..7,7[zero h3 h5],8m");
    assert_eq!(plan["steps"][7], json!({"layer": 7, "modifiers": [{"verb": "zero", "site": "z", "units": [3, 5]}]}));
    assert_eq!(plan["steps"][8], json!({"layer": 8, "part": "mlp"}));
    assert!((plan["cost_blocks"].as_f64().unwrap() - (8.0 + 2.0 / 3.0)).abs() < 1e-12);
    assert_eq!(objects(&["plan", "--json", "0..8", "none"]).len(), 2);
}

#[test]
fn the_model_sets_the_range() {
    for (plan, parts) in [
        ("12", &["layer 12 of 12", "0..=11", "^^"][..]),
        ("0..13", &["13", "^"]),
        ("8..4", &["backwards", "8..=4"]),
        ("7[zero h8]", &["head 8 of 8", "h0..=h7"]),
        ("7[nois 0.1 pre]", &["noise", "^^^^"]),
        ("bridge(2:13,x)", &["bridge end 13 of 12"]),
        ("skip 12", &["12"]),
        ("0..8,", &["^"]),
        ("5*99999999999999999999", &["^"]),
        ("0..12*1000000", &["at most"]),
        ("0..8 \u{1f600}", &["^"]),
    ] {
        refused(2, &["plan", plan], &[&["column"], parts].concat());
    }
    assert!(ok(&["plan", "--layers", "48", "--heads", "25", "47[zero h24]"]).starts_with("47[zero h24]\n"));
    refused(2, &["plan", "--layers", "48", "--heads", "25", "48"], &["layer 48 of 48"]);
    refused(2, &["plan", "--layers", "48", "0"], &["--heads"]);
    refused(2, &["plan"], &["PLAN"]);
}

#[test]
fn a_plan_needs_a_configuration_and_no_weights() {
    let folder = tempfile::tempdir().unwrap();
    let model = crate::run::mini_in(folder.path());
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    assert!(ok(&["plan", "--model", model.to_str().unwrap(), "0..8"]).starts_with("0..8\n"));
    refused(4, &["plan", "--model", "gpt2", "0..8"], &["gpt2", "not in the cache", "--layers"]);
    refused(2, &["plan", "--model", "gpt2", "0.."], &["column"]);
}
