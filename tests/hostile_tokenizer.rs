//! Tokenizers that do not fit the model or are not GPT-2's kind, and texts made to take long: each is refused with a
//! message that names the file, the token and both values; nothing panics, nothing is silently lost.

mod common;

use std::time::{Duration, Instant};

use common::{Random, mutate, tiny_tokenizer};
use lesion::model::{Model, Tokenizer};
use serde_json::{Value, json};

const MERGES: [(&str, &str); 3] = [("a", "b"), ("ab", "c"), ("Ġ", "a")];

/// A tokenizer of 10 tokens: `<|endoftext|>`, `abcĠĊé`, and three merges.
fn honest() -> Value {
    tiny_tokenizer("abcĠĊé", &MERGES)
}

fn build(tokenizer: &Value, vocab_size: usize) -> Result<Tokenizer, String> {
    Tokenizer::from_bytes(tokenizer.to_string().as_bytes(), vocab_size, "dir/tokenizer.json").map_err(|e| e.to_string())
}

/// What is said of the honest tokenizer after a change.
fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut tokenizer = honest();
    change(&mut tokenizer);
    build(&tokenizer, 10).expect_err("a refusal")
}

#[track_caller]
fn assert_names(message: &str, parts: &[&str]) {
    for part in parts.iter().chain(&["dir/tokenizer.json: "]) {
        assert!(message.contains(part), "{message:?} does not name {part:?}");
    }
}

#[test]
fn the_tiny_tokenizer_is_honest() {
    let tokenizer = build(&honest(), 10).unwrap();
    assert_eq!(tokenizer.encode("abc a ab\na").unwrap(), [8, 9, 4, 7, 5, 1]);
    assert_eq!(tokenizer.encode("a<|endoftext|>b").unwrap(), [1, 0, 2]);
    assert_eq!(tokenizer.encode("").unwrap(), [0u32; 0]);
    assert_eq!(tokenizer.decode(&[8, 9, 2, 0]).unwrap(), "abc ab<|endoftext|>");
    assert_eq!(tokenizer.token_bytes(6), Some(&b"\xe9"[..]));
    assert_eq!((tokenizer.token_bytes(10), tokenizer.token_bytes(u32::MAX)), (None, None));
}

#[test]
fn ids_outside_the_model_or_shared() {
    let message = build(&honest(), 9).map(drop).unwrap_err();
    assert_names(&message, &["\"Ġa\" has id 9", "vocab_size 9 allows 0..9"]);
    assert_names(&refused(|t| t["model"]["vocab"]["b"] = json!(4_294_967_297u64)), &["\"b\" has id 4294967297"]);
    assert_names(&refused(|t| t["model"]["vocab"]["b"] = json!(1)), &["tokens \"a\" and \"b\" both have id 1"]);
    assert_names(&refused(|t| t["added_tokens"][0]["id"] = json!(10)), &["\"<|endoftext|>\" has id 10"]);
    assert_names(&refused(|t| t["added_tokens"][0]["id"] = json!(4)), &["\"<|endoftext|>\" has id 0 and id 4"]);
    let added = |t: &mut Value, id: u64, content: &str| {
        t["added_tokens"].as_array_mut().unwrap().push(json!({"id": id, "content": content}));
    };
    assert_names(&refused(|t| added(t, 3, "<pad>")), &["\"<pad>\" and \"c\" both have id 3"]);
    assert_names(&refused(|t| added(t, 0, "<|endoftext|>")), &["\"<|endoftext|>\" has id 0 and id 0"]);
    assert_names(&refused(|t| added(t, 0, "")), &["the token with id 0 is empty"]);
    assert_names(&refused(|t| t["model"]["vocab"]["\u{1b}[2J"] = json!(77)), &["\\u{1b}[2J", "77"]);

    let text = honest().to_string().replacen(r#""b":2"#, r#""b":2,"b":2"#, 1);
    let message = Tokenizer::from_bytes(text.as_bytes(), 10, "dir/tokenizer.json").unwrap_err().to_string();
    assert_names(&message, &["b is given twice"]);
}

#[test]
fn merges_outside_the_vocabulary() {
    let merge = |merge: Value| refused(|t| t["model"]["merges"][1] = merge);
    assert_names(&merge(json!(["ab", "x"])), &["merge 1, \"ab\" with \"x\": \"x\" is not in the vocabulary"]);
    assert_names(&merge(json!("ab x")), &["\"x\" is not in the vocabulary"]);
    assert_names(&merge(json!(["ab", "ab"])), &["\"abab\" is not in the vocabulary"]);
    assert_names(&merge(json!("ab")), &["\"\" is not in the vocabulary"]);
    assert_names(&merge(json!("ab c c")), &["\"c c\" is not in the vocabulary"]);
    assert_names(&merge(json!(["a", "b"])), &["merge 1", "given twice"]);
    assert_names(&merge(json!(["a"])), &["expected a merge"]);
    assert_names(&merge(json!(["\u{7}", "b"])), &["\\u{7}"]);
}

#[test]
fn kinds_that_are_not_gpt2s() {
    assert_names(
        &refused(|t| t["model"] = json!({"type": "WordPiece", "vocab": {}})),
        &["model.type WordPiece", "BPE"],
    );
    assert_names(&refused(|t| t["normalizer"] = json!({"type": "NFC"})), &["normalizer NFC: expected null"]);
    // A pattern of the file's own could take exponential time: it is not even compiled.
    let regex = json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": false});
    assert_names(&refused(|t| t["pre_tokenizer"] = regex), &["pre_tokenizer Split: expected ByteLevel"]);
    assert_names(&refused(|t| t["pre_tokenizer"] = Value::Null), &["pre_tokenizer null"]);
    assert_names(&refused(|t| t["decoder"] = json!({"type": "Fuse"})), &["decoder Fuse"]);
    assert_names(&refused(|t| t["model"]["dropout"] = json!(0.1)), &["model.dropout 0.1"]);
    assert_names(&refused(|t| t["model"]["end_of_word_suffix"] = json!("</w>")), &["model.end_of_word_suffix </w>"]);
    assert_names(&refused(|t| drop(t.as_object_mut().unwrap().remove("model"))), &["missing field `model`"]);
    for text in [&b""[..], b"[1]", b"{", b"\xff", b"version https://git-lfs.github.com/spec/v1"] {
        let message = Tokenizer::from_bytes(text, 10, "dir/tokenizer.json").unwrap_err().to_string();
        assert_names(&message, &[]);
    }
}

#[test]
fn truncation_padding_and_templates_are_ignored() {
    let mut tokenizer = honest();
    tokenizer["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    tokenizer["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}});
    assert_eq!(build(&tokenizer, 10).unwrap().encode("a\na\na").unwrap(), [1, 5, 1, 5, 1]);
}

#[test]
fn a_byte_without_a_token_is_an_error_and_not_dropped() {
    let message = build(&honest(), 10).unwrap().encode("abx").unwrap_err().to_string();
    assert_names(&message, &["the text holds byte 0x78"]);
    let message = build(&honest(), 10).unwrap().decode(&[1, 77]).unwrap_err().to_string();
    assert_names(&message, &["no token has id 77"]);
}

/// The official tokenizer and the embedded model's.
fn real_tokenizers() -> [Tokenizer; 2] {
    let file = |path: &str, vocab_size| {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        Tokenizer::from_bytes(&std::fs::read(&path).unwrap(), vocab_size, &path).unwrap()
    };
    [file("tests/data/gpt2-tokenizer/tokenizer.json", 50257), file("models/mini/tokenizer.json", 2048)]
}

#[test]
fn a_megabyte_of_one_character_encodes_in_two_seconds() {
    for tokenizer in real_tokenizers() {
        for c in ["a", " ", "\n", "é", "!", "0", "\u{3000}", "\0", "'s", "<|endoftext|>"] {
            let text = c.repeat((1 << 20) / c.len());
            let start = Instant::now();
            let ids = tokenizer.encode(&text).unwrap();
            let took = start.elapsed();
            assert!(took < Duration::from_secs(2), "{c:?}: {took:?}");
            assert!(tokenizer.decode(&ids).unwrap() == text, "{c:?}");
        }
    }
}

/// The `tokenizers` crate stops splitting here, without an error: its pattern's look-ahead overflows a stack.
#[test]
fn a_million_spaces_before_a_word_leave_it_one() {
    let [gpt2, _] = real_tokenizers();
    let (few, many) = (gpt2.encode(&(" ".repeat(100) + "word two")).unwrap(), " ".repeat(2_000_000) + "word two");
    let many = gpt2.encode(&many).unwrap();
    assert_eq!(many[many.len() - 2..], few[few.len() - 2..]);
}

#[test]
fn ten_thousand_mutated_tokenizers_never_panic() {
    let honest = honest().to_string();
    let tokens = [
        "\"ab\"",
        "4294967295",
        "-1",
        "null",
        "[]",
        "{}",
        "\"Ġ\"",
        "\\u0000",
        "[[\"a\",\"b\"]]",
        "\"a b\"",
        "\"",
        "\"ignore_merges\":true",
        "\"use_regex\":false",
        "\"add_prefix_space\":true",
        "\"lstrip\":true",
        "{\"type\":",
    ];
    let mut random = Random(13);
    let mut accepted = 0;
    for _ in 0..10_000 {
        let mut bytes = honest.clone().into_bytes();
        mutate(&mut bytes, &mut random, &tokens);
        if let Ok(tokenizer) = Tokenizer::from_bytes(&bytes, 10, "tokenizer.json") {
            accepted += 1;
            for text in ["", "abc  ab\n\n a", " <|endoftext|> ", "é\u{0}x", "aaaa    "] {
                if let Ok(ids) = tokenizer.encode(text) {
                    assert!(ids.iter().all(|&id| id < 10));
                    tokenizer.decode(&ids).unwrap();
                }
            }
        }
    }
    assert!((10..9_000).contains(&accepted), "{accepted}");
}

#[test]
fn a_model_without_a_tokenizer_works_on_ids() {
    let directory = tempfile::tempdir().unwrap();
    let tiny = common::TinyModel::default();
    tiny.write(directory.path());
    let model = Model::open_dir(directory.path(), &Default::default()).unwrap();
    let message = model.tokenizer().unwrap_err().to_string();
    assert!(message.contains("has no tokenizer.json: this model takes token ids only"), "{message}");

    // A tokenizer that is wrong is only looked at when it is asked for.
    std::fs::write(directory.path().join("tokenizer.json"), "{").unwrap();
    let model = Model::open_dir(directory.path(), &Default::default()).unwrap();
    assert!(model.tokenizer().unwrap_err().to_string().contains("tokenizer.json: EOF"));
}
