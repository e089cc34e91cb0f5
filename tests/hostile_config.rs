//! Configurations that are not a supported GPT-2's: each is refused with a message that names the file, the field and
//! its value, and nothing panics.

mod common;

use common::{Random, TinyModel, mutate};
use lesion::model::{Config, Model, OpenOptions};
use serde_json::{Value, json};

/// What is said of the tiny configuration with one field changed.
fn refused(field: &str, value: Value) -> String {
    let config = TinyModel::default().with_config(field, value).config;
    Config::from_json(config.to_string().as_bytes(), "dir/config.json").expect_err(field).to_string()
}

fn accepted(field: &str, value: Value) -> Config {
    let config = TinyModel::default().with_config(field, value).config;
    Config::from_json(config.to_string().as_bytes(), "dir/config.json").unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn assert_names(message: &str, parts: &[&str]) {
    for part in parts.iter().chain(&["dir/config.json: "]) {
        assert!(message.contains(part), "{message:?} does not name {part:?}");
    }
}

#[test]
fn sizes_out_of_range() {
    assert_names(&refused("n_head", json!(0)), &["n_head 0: expected an integer from 1"]);
    assert_names(&refused("n_head", json!(3)), &["n_embd 8: expected a multiple of n_head 3"]);
    for field in ["n_layer", "n_head", "n_embd", "n_positions", "n_inner", "vocab_size"] {
        for value in [json!(0), json!(-1), json!(2.5), json!("12"), json!([1]), json!(u64::MAX), json!(1e30)] {
            assert_names(&refused(field, value.clone()), &[&format!("{field} {value}: expected an integer from 1")]);
        }
    }
    for field in ["n_layer", "n_head", "n_embd", "n_positions", "vocab_size"] {
        assert_names(&refused(field, Value::Null), &[&format!("{field} is missing")]);
    }
    let mut absurd = TinyModel::default().config;
    for field in ["n_embd", "n_head", "vocab_size", "n_inner"] {
        absurd[field] = json!(i32::MAX);
    }
    let message = Config::from_json(absurd.to_string().as_bytes(), "dir/config.json").unwrap_err().to_string();
    assert_names(&message, &["n_embd 2147483647", "no memory"]);
}

#[test]
fn options_that_change_the_maths() {
    for value in ["gelu", "relu", "swish", "gelu_fast"] {
        let message = refused("activation_function", json!(value));
        assert_names(&message, &["activation_function", value, "expected gelu_new or gelu_pytorch_tanh"]);
    }
    assert_names(&refused("activation_function", json!(3)), &["activation_function 3"]);
    assert_names(&refused("add_cross_attention", json!(true)), &["add_cross_attention true", "not supported"]);
    assert_names(&refused("pruned_heads", json!({"0": [1]})), &["pruned_heads {\"0\":[1]}"]);
    assert_names(&refused("model_type", json!("gptj")), &["model_type \"gptj\": expected gpt2"]);
    assert_names(&refused("model_type", Value::Null), &["model_type is missing"]);
    assert_names(&refused("scale_attn_weights", json!(1)), &["scale_attn_weights 1: expected true or false"]);
    assert_names(&refused("n_ctx", json!(17)), &["n_ctx 17: expected the same as n_positions 16"]);
    assert_names(&refused("bos_token_id", json!(32)), &["bos_token_id", "vocab_size 32"]);
    let without = |field: &str| {
        let mut config = TinyModel::default().config;
        config.as_object_mut().unwrap().remove(field);
        Config::from_json(config.to_string().as_bytes(), "dir/config.json").unwrap()
    };
    assert_eq!(without("bos_token_id").bos_token_id, None, "50256 is not in a vocabulary of 32");
    assert_eq!(without("eos_token_id").eos_token_id, None);
    assert_eq!(accepted("bos_token_id", Value::Null).bos_token_id, None);
    assert_eq!(accepted("eos_token_id", json!(31)).eos_token_id, Some(31));
    assert_names(&refused("eos_token_id", json!(-1)), &["eos_token_id -1: expected a token id"]);
    for value in [json!(-1e-5), json!(1e39), json!("1e-5"), json!(true)] {
        assert_names(&refused("layer_norm_epsilon", value), &["layer_norm_epsilon "]);
    }
}

#[test]
fn options_that_do_not_are_accepted() {
    assert_eq!(accepted("activation_function", json!("gelu_pytorch_tanh")), accepted("n_inner", Value::Null));
    accepted("reorder_and_upcast_attn", json!(true));
    accepted("add_cross_attention", json!(false));
    accepted("pruned_heads", json!({}));
    accepted("resid_pdrop", json!("anything"));
    accepted("a field of the future", json!({"deep": [[[]]]}));
    assert!(!accepted("scale_attn_weights", json!(false)).scale_attn_weights);
    assert!(accepted("scale_attn_by_inverse_layer_idx", json!(true)).scale_attn_by_inverse_layer_idx);
    assert_eq!(accepted("n_inner", json!(20)).n_inner, 20);
}

#[test]
fn files_that_are_no_json_object() {
    let refused = |text: &[u8]| Config::from_json(text, "dir/config.json").unwrap_err().to_string();
    for text in [&b""[..], b"[]", b"null", b"{", b"{} x", b"\xff\xfe{}", b"version https://git-lfs"] {
        assert_names(&refused(text), &[]);
    }
    assert_names(&refused(br#"{"n_layer":1,"n_layer":2}"#), &["n_layer is given twice"]);
    assert_names(&refused(format!(r#"{{"a":{}"#, "[".repeat(200)).as_bytes()), &["a: recursion limit"]);
    let escapes = refused("{\"\u{1b}\":".as_bytes());
    assert!(!escapes.contains('\x1b'), "{escapes:?}");
}

#[test]
fn a_config_too_large_or_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Model::open_dir(directory.path(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(open().contains("config.json"), "{}", open());
    std::fs::write(directory.path().join("config.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(open().contains("config.json has 1048577 bytes; the limit is 1048576"), "{}", open());
}

#[test]
fn ten_thousand_mutated_configs_never_panic() {
    let honest = TinyModel::default().with_config("n_inner", json!(32)).config.to_string();
    let tokens =
        ["0", "-1", "1e400", "2147483647", "9223372036854775807", "null", "true", "\"gelu\"", "[[", "\\ud800", "\""];
    let mut random = Random(11);
    let mut accepted = 0;
    for _ in 0..10_000 {
        let mut config = honest.clone().into_bytes();
        mutate(&mut config, &mut random, &tokens);
        if let Ok(config) = Config::from_json(&config, "config.json") {
            accepted += 1;
            assert!(config.head_dim() > 0 && config.attention_scale(0) > 0.0);
        }
    }
    assert!((10..9_000).contains(&accepted), "{accepted}");
}
