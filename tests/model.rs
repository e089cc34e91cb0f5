//! Opening models: the embedded one, every accepted layout of a directory, the full size; tokenizer parity.

mod common;

use common::{RawTensor, TinyModel};
use lesion::model::{Model, OpenOptions, Tokenizer};
use lesion::weights::{CheckMode, Dtype, ReadMode, Records, WeightsLock};
use proptest::prelude::*;
use serde_json::json;

fn open(tiny: &TinyModel) -> Model {
    let directory = tempfile::tempdir().unwrap();
    tiny.write(directory.path());
    // The map outlives the directory's entry.
    Model::open_dir(directory.path(), &OpenOptions::default()).unwrap()
}

/// Every parameter, in one order.
fn values(model: &Model) -> Vec<f32> {
    let p = model.parameters();
    let mut all = [p.wte.to_f32(), p.wpe.to_f32()].concat();
    let mut matrix = |m: lesion_kernels::WeightMatrix<'_>| {
        let mut values = vec![0.0; m.k * m.n];
        m.data.widen_into(0, &mut values);
        all.extend(values);
    };
    for block in &p.h {
        for linear in [&block.attn.c_attn, &block.attn.c_proj, &block.mlp.c_fc, &block.mlp.c_proj] {
            matrix(linear.matrix());
        }
    }
    matrix(p.unembedding());
    for block in &p.h {
        for norm in [&block.ln_1, &block.ln_2] {
            all.extend(norm.weight.iter().chain(&norm.bias));
        }
        for linear in [&block.attn.c_attn, &block.attn.c_proj, &block.mlp.c_fc, &block.mlp.c_proj] {
            all.extend(&linear.bias);
        }
    }
    all.extend(p.ln_f.weight.iter().chain(&p.ln_f.bias));
    all
}

#[test]
fn a_model_is_cheap_to_clone_and_shared_between_threads() {
    fn shareable<T: Clone + Send + Sync + 'static>() {}
    shareable::<Model>();
}

#[cfg(feature = "mini")]
#[test]
fn the_embedded_model_opens_in_place() {
    let model = Model::mini().unwrap();
    assert_eq!((model.name(), model.config().n_layer, model.config().vocab_size), ("mini", 12, 2048));
    assert_eq!(model.warnings(), [""; 0]);
    assert!(model.parameters().is_tied());
    assert_eq!(model.checkpoint().non_finite(|_| true), []);
    let tokenizer = model.tokenizer().unwrap();
    let ids = tokenizer.encode("The capital of Spain is").unwrap();
    assert_eq!(ids, [275, 325, 303, 1216, 292]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "The capital of Spain is");
}

#[cfg(feature = "mini")]
#[test]
fn the_embedded_model_is_the_one_on_disk() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/models/mini");
    for read in [ReadMode::Map, ReadMode::Copy] {
        let model = Model::open_dir(directory.as_ref(), &OpenOptions { read, name: None }).unwrap();
        assert_eq!(model.name(), "mini");
        assert_eq!(values(&model), values(&Model::mini().unwrap()));
    }
}

#[test]
fn every_layout_gives_the_same_parameters() {
    let tiny = TinyModel::default();
    let plain = values(&open(&tiny));

    let mut prefixed = tiny.clone();
    prefixed.tensors.iter_mut().for_each(|tensor| tensor.name.insert_str(0, "transformer."));
    assert_eq!(values(&open(&prefixed)), plain);

    let mask = RawTensor { name: "h.0.attn.bias".into(), dtype: "BOOL", shape: vec![1, 1, 2, 2], bytes: vec![1; 4] };
    let masked = tiny.clone().with(mask).with(RawTensor::f32("h.1.attn.masked_bias", &[], &[-1e9]));
    let masked = open(&masked);
    assert_eq!(values(&masked), plain);
    assert_eq!(masked.warnings(), [""; 0]);

    let directory = tempfile::tempdir().unwrap();
    tiny.write_sharded(directory.path(), 3);
    for read in [ReadMode::Map, ReadMode::Copy] {
        let sharded = Model::open_dir(directory.path(), &OpenOptions { read, name: Some("tiny".into()) }).unwrap();
        assert_eq!((sharded.name(), sharded.checkpoint().files().len()), ("tiny", 3));
        assert_eq!(values(&sharded), plain);
    }

    let extra = open(&tiny.with(RawTensor::f32("h.0.adapter.weight", &[2], &[0.0; 2])));
    assert_eq!(values(&extra), plain);
    assert_eq!(extra.warnings().len(), 1);
    assert!(extra.warnings()[0].contains("not used: h.0.adapter.weight"), "{:?}", extra.warnings());
}

#[test]
fn half_precision_is_widened_exactly() {
    let mut tiny = TinyModel::default();
    let expected: Vec<f32> = values(&open(&tiny)).iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
    for tensor in &mut tiny.tensors {
        let values = tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        tensor.bytes = values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect();
        tensor.dtype = "BF16";
    }
    let model = open(&tiny);
    assert_eq!(model.parameters().wte.dtype(), Dtype::Bf16);
    assert_eq!(values(&model), expected);
}

#[test]
fn an_unembedding_in_the_file_is_used() {
    let head = RawTensor::f32("lm_head.weight", &[32, 8], &[0.25; 256]);
    let untied = TinyModel::default().with(head.clone()).with_config("tie_word_embeddings", json!(false));
    let untied = open(&untied);
    assert!(!untied.parameters().is_tied() && untied.warnings().is_empty());
    let mut logits_weights = vec![0.0; 256];
    untied.parameters().unembedding().data.widen_into(0, &mut logits_weights);
    assert_eq!(logits_weights, [0.25; 256]);

    let contradicting = open(&TinyModel::default().with(head));
    assert!(!contradicting.parameters().is_tied());
    assert!(contradicting.warnings()[0].contains("lm_head.weight is there and is used"));

    let directory = tempfile::tempdir().unwrap();
    TinyModel::default().with_config("tie_word_embeddings", json!(false)).write(directory.path());
    let message = Model::open_dir(directory.path(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(message.contains("lm_head.weight: missing"), "{message}");
}

#[test]
fn two_models_in_one_file_are_ambiguous() {
    let mut tiny = TinyModel::default();
    let mut second = tiny.tensor("wte.weight").clone();
    second.name = "transformer.wte.weight".to_owned();
    let directory = tempfile::tempdir().unwrap();
    tiny.with(second).write(directory.path());
    let message = Model::open_dir(directory.path(), &OpenOptions::default()).unwrap_err().to_string();
    assert!(message.contains("both wte.weight and transformer.wte.weight"), "{message}");
}

#[cfg(feature = "mini")]
#[test]
fn open_takes_a_name_or_a_directory() {
    assert_eq!(Model::open("mini").unwrap().name(), "mini");
    let directory = tempfile::tempdir().unwrap();
    TinyModel::default().write(directory.path());
    assert_eq!(Model::open(directory.path().to_str().unwrap()).unwrap().config().n_layer, 2);
    let message = Model::open("nonsense").unwrap_err().to_string();
    for part in ["\"nonsense\"", "mini", "gpt2"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn the_bundled_lock_pins_the_official_files() {
    let lock = WeightsLock::bundled();
    let gpt2 = lock.model("gpt2").unwrap();
    let official: serde_json::Value = serde_json::from_str(include_str!("data/gpt2_files.json")).unwrap();
    assert_eq!(
        (gpt2.repository(), gpt2.revision()),
        (official["repo"].as_str().unwrap(), official["revision"].as_str().unwrap())
    );
    for file in gpt2.files() {
        let listed =
            official["files"].as_array().unwrap().iter().find(|listed| listed["path"] == json!(file.path)).unwrap();
        assert_eq!(
            (json!(file.size), json!(file.sha256)),
            (listed["size"].clone(), listed["sha256"].clone()),
            "{}",
            file.path
        );
    }
    for name in ["config.json", "tokenizer.json"] {
        let path = format!("{}/tests/data/gpt2-tokenizer/{name}", env!("CARGO_MANIFEST_DIR"));
        Records::disabled().check(path.as_ref(), gpt2.file(name), CheckMode::Always, &mut |_| ()).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_tokenizer_that_is_a_link_to_nothing_is_no_absent_one() {
    let directory = tempfile::tempdir().unwrap();
    TinyModel::default().write(directory.path());
    let message = || {
        let model = Model::open_dir(directory.path(), &OpenOptions::default()).unwrap();
        model.tokenizer().unwrap_err().to_string()
    };
    assert!(message().contains("has no tokenizer.json"), "{}", message());
    std::os::unix::fs::symlink("nowhere", directory.path().join("tokenizer.json")).unwrap();
    assert!(message().contains("cannot open"), "{}", message());
}

/// The crate's own reading of the same file, where its pattern does not overflow.
fn reference() -> (Tokenizer, tokenizers::Tokenizer) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/gpt2-tokenizer/tokenizer.json");
    let bytes = std::fs::read(path).unwrap();
    (Tokenizer::from_bytes(&bytes, 50257, path).unwrap(), tokenizers::Tokenizer::from_bytes(&bytes).unwrap())
}

#[track_caller]
fn assert_parity((ours, theirs): &(Tokenizer, tokenizers::Tokenizer), text: &str) {
    let expected = theirs.encode(text, false).unwrap().get_ids().to_vec();
    assert_eq!(ours.encode(text).unwrap(), expected, "{text:?}");
    assert_eq!(ours.decode(&expected).unwrap(), text);
    for cut in 0..expected.len().min(8) {
        let (head, tail) = expected.split_at(cut);
        for ids in [head, tail] {
            assert_eq!(ours.decode(ids).unwrap(), theirs.decode(ids, false).unwrap(), "{ids:?}");
        }
    }
}

#[test]
fn ids_are_those_of_the_tokenizers_crate() {
    let both = reference();
    assert_eq!(both.0.encode("Hello world!").unwrap(), [15496, 995, 0]);
    for text in [
        "",
        " ",
        "  ",
        "   a",
        "a   ",
        "a \n\n\tb",
        "\n",
        "\r\n\r\n x",
        "it's we'll I'd they're 's",
        " 's",
        "don't  can't",
        "1,234.56 + 7",
        "naïve café – “quoted”…",
        "日本語のテキスト",
        "👩‍👩‍👧‍👦 🇪🇸",
        "\u{a0}\u{3000}x\u{85}y",
        "a<|endoftext|>b <|endoftext|>",
        "Ⅻ ½ ٣",
        "fn main() {\n    println!(\"hi\");\n}\n",
        "\0\x01\x7f",
        "e\u{301} ﬁ",
    ] {
        assert_parity(&both, text);
    }
    assert_parity(&both, &(" ".repeat(3000) + "x" + &"\n ".repeat(500) + "'ll"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn ids_are_those_of_the_tokenizers_crate_on_any_text(
        texts in prop::collection::vec(prop_oneof!["[ \n\t'a-e0-2!<|>\u{a0}é\u{3000}]{0,40}", "\\PC{0,20}"], 20)
    ) {
        thread_local!(static BOTH: (Tokenizer, tokenizers::Tokenizer) = reference());
        BOTH.with(|both| texts.iter().for_each(|text| assert_parity(both, text)));
    }
}
