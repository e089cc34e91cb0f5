//! Safetensors files, shards and checkpoints that are not what they should be: each is refused with a message that
//! names the file, the tensor and both values, and nothing panics.

mod common;

use std::fs;
use std::path::Path;

use common::{Random, RawTensor, TinyModel, mutate, safetensors, safetensors_raw, write_index};
use lesion::model::{Model, OpenOptions};
use lesion::weights::{Checkpoint, LockedFile, LockedModel, NonFinite, ReadMode, WeightData};
use serde_json::json;

/// Opens a directory whose `model.safetensors` is `file`, mapped and read; both must say the same.
fn open(file: &[u8]) -> Result<Checkpoint, String> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("model.safetensors"), file).unwrap();
    let open = |read| Checkpoint::open(directory.path(), read).map_err(|e| e.to_string());
    let (mapped, copied) = (open(ReadMode::Map), open(ReadMode::Copy));
    assert_eq!(mapped.as_ref().err(), copied.as_ref().err());
    mapped
}

/// What `open` says of a file with this header and `data` zero bytes.
fn refused(header: &str, data: usize) -> String {
    open(&safetensors_raw(header.as_bytes(), &vec![0; data])).expect_err(header)
}

#[track_caller]
fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} does not name {part:?}");
    }
}

fn open_model(model: &TinyModel) -> Result<Model, String> {
    let directory = tempfile::tempdir().unwrap();
    model.write(directory.path());
    Model::open_dir(directory.path(), &OpenOptions::default()).map_err(|e| e.to_string())
}

#[test]
fn files_too_short_for_a_header() {
    assert_names(&open(b"").unwrap_err(), &["model.safetensors", "0 bytes", "too short"]);
    assert_names(&open(b"\x02\0\0\0\0\0\0").unwrap_err(), &["7 bytes", "too short"]);
}

#[test]
fn header_lengths_out_of_range_are_refused_before_allocating() {
    let with_length = |length: u64| open(&[&length.to_le_bytes()[..], b"{}      "].concat()).unwrap_err();
    assert_names(&with_length(0), &["header length 0", "2 to 100000000"]);
    assert_names(&with_length(100_000_001), &["header length 100000001", "2 to 100000000"]);
    assert_names(&with_length(u64::MAX), &["header length 18446744073709551615"]);
    assert_names(&with_length(9), &["header length 9", "only 8 bytes"]);
    assert_names(&with_length(100_000_000), &["header length 100000000", "only 8 bytes"]);
}

#[test]
fn headers_that_are_not_json_objects() {
    assert_names(&open(&safetensors_raw(b"[] ", b"")).unwrap_err(), &["begins with byte 0x5b", "expected `{`"]);
    assert_names(&open(&safetensors_raw(b"{\"\xff\xfe\": 1}", b"")).unwrap_err(), &["not UTF-8 at byte 2"]);
    assert_names(&refused("{\"a\": ", 0), &["model.safetensors", "EOF"]);
    assert_names(&refused("{} {}", 0), &["trailing characters"]);
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    assert_names(&refused(&deep, 0), &["a: "]);
    let deep = format!(r#"{{"a":{{"x":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
    assert_names(&refused(&deep, 0), &["a: "]);
}

#[test]
fn duplicate_names() {
    let twice = |second: &str| {
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}},"a":{{{second}}}}}"#);
        refused(&header, 24)
    };
    assert_names(&twice(r#""dtype":"F32","shape":[2,3],"data_offsets":[0,24]"#), &["a is in it twice"]);
    assert_names(&twice(r#""dtype":"F32","shape":[3,2],"data_offsets":[0,24]"#), &["a is in it twice"]);
    assert_names(&twice(r#""dtype":"F32","shape":[1],"data_offsets":[24,28]"#), &["a is in it twice"]);
    assert_names(&refused(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), &["__metadata__ is in it twice"]);
    let field = r#"{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}"#;
    assert_names(&refused(field, 4), &["a: duplicate field `dtype`"]);
}

#[test]
fn data_that_overlaps_leaves_holes_or_trails() {
    let two = |start: usize, end: usize| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}},
                "b":{{"dtype":"F32","shape":[1],"data_offsets":[{start},{end}]}}}}"#
        )
    };
    assert_names(&refused(&two(4, 8), 8), &["b: data_offsets [4, 8] overlap", "ends at 8"]);
    assert_names(&refused(&two(12, 16), 16), &["b: data_offsets [12, 16] leave a hole", "ends at 8"]);
    assert_names(&refused(&two(8, 12), 13), &["tensors end at byte 12", "the file has 13"]);
    assert_names(&refused(&two(8, 12), 11), &["tensors end at byte 12", "the file has 11"]);
    assert_names(&refused("{}", 4), &["tensors end at byte 0", "the file has 4"]);
}

#[test]
fn offsets_that_are_no_pair_of_positions() {
    let offsets =
        |offsets: &str| refused(&format!(r#"{{"w":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#), 8);
    assert_names(&offsets("[]"), &["w: ", "length 0"]);
    assert_names(&offsets("[1]"), &["w: ", "length 1"]);
    assert_names(&offsets("[0,8,8]"), &["w: "]);
    assert_names(&offsets("[8,4]"), &["w: data_offsets [8, 4] run backwards"]);
    assert_names(&offsets("[0,-8]"), &["w: ", "-8"]);
    assert_names(&offsets("[0,1e3]"), &["w: ", "1000"]);
    assert_names(&offsets("[0,18446744073709551616]"), &["w: "]);
    assert_names(&offsets("null"), &["w: "]);
    let backwards = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#;
    assert_names(&refused(backwards, 4), &["w: data_offsets [4, 0] run backwards"]);
}

#[test]
fn shapes_that_do_not_fit_the_bytes() {
    let shape = |shape: &str| refused(&format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}}}"#), 8);
    assert_names(&shape("[4294967296,4294967296]"), &["w: F32 [4294967296, 4294967296]", "more than 2^64", "give 8"]);
    assert_names(&shape("[3]"), &["w: F32 [3] needs 12 bytes", "give 8"]);
    assert_names(&shape("[1,1]"), &["needs 4 bytes", "give 8"]);
    assert_names(&shape("[-2]"), &["w: "]);
    assert_names(&shape("[2.0]"), &["w: "]);
}

#[test]
fn unknown_and_integer_types() {
    let unknown = refused(r#"{"w":{"dtype":"F7","shape":[2],"data_offsets":[0,8]}}"#, 8);
    assert_names(&unknown, &["w: ", "F7"]);
    let mut model = TinyModel::default();
    model.tensor("h.1.mlp.c_fc.weight").dtype = "I32";
    let message = open_model(&model).unwrap_err();
    assert_names(&message, &["h.1.mlp.c_fc.weight", "expected F32, F16 or BF16", "file has I32", "model.safetensors"]);
}

#[test]
fn names_are_printed_escaped() {
    let message = refused("{\"h\\u0000\\u001b[31m\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8);
    assert_names(&message, &["h\\0\\u{1b}[31m"]);
    assert!(!message.contains(['\0', '\x1b']), "{message:?}");
    let twice = "{\"\\u001b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\"\\u001b\":1}";
    let message = refused(twice, 4);
    assert!(!message.contains('\x1b'), "{message:?}");
    let extra = RawTensor::f32("\x1b]0;title\x07", &[1], &[0.0]);
    let model = open_model(&TinyModel::default().with(extra)).unwrap();
    assert!(!model.warnings()[0].contains('\x1b'), "{:?}", model.warnings());
    assert_names(&model.warnings()[0], &["not used", "\\u{1b}]0;title\\u{7}"]);
}

#[test]
fn other_formats_are_recognised_by_content() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707\nsize 548105171\n";
    assert_names(&open(lfs).unwrap_err(), &["model.safetensors", "this is a Git LFS pointer"]);
    let pickle = b"\x80\x02}q\x00(X\x0a\x00\x00\x00wte.weightq\x01ctorch._utils\n_rebuild_tensor_v2\n";
    assert_names(&open(pickle).unwrap_err(), &["this is a Python pickle"]);
    assert_names(&open(b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl").unwrap_err(), &["this is a zip archive"]);
    assert_names(
        &open(b"\x08\x07\x12\x07pytorch\x1a\x052.0.0:\x80\x08\x0a\x10").unwrap_err(),
        &["this is an ONNX model"],
    );
    assert_names(&open(b"<!DOCTYPE html><html></html>").unwrap_err(), &["this is an HTML page"]);
    assert_names(&open(b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0").unwrap_err(), &["this is a GGUF file"]);
}

#[test]
fn odd_header_lengths_load() {
    let values: Vec<f32> = (0..6).map(|i| i as f32 - 2.5).collect();
    let halves = |bits: fn(f32) -> u16| values.iter().flat_map(|&x| bits(x).to_le_bytes()).collect::<Vec<u8>>();
    let of_type = |name: &str, dtype, bytes| RawTensor { name: name.to_owned(), dtype, shape: vec![2, 3], bytes };
    let tensors = [
        RawTensor::f32("a", &[2, 3], &values),
        of_type("b", "F16", halves(|x| half::f16::from_f32(x).to_bits())),
        of_type("c", "BF16", halves(|x| half::bf16::from_f32(x).to_bits())),
    ];
    for extra in 0..8 {
        let checkpoint = open(&safetensors(&tensors, 8, extra)).unwrap();
        for name in ["a", "b", "c"] {
            let tensor = checkpoint.tensor(name, &[2, 3]).unwrap();
            assert_eq!(tensor.to_f32(), values, "{name}, {extra} bytes of padding");
            let address = match tensor.data() {
                WeightData::F32(data) => data.as_ptr() as usize,
                WeightData::F16(data) => data.as_ptr() as usize,
                WeightData::Bf16(data) => data.as_ptr() as usize,
            };
            assert!(address.is_multiple_of(tensor.dtype().size()));
        }
    }
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let message = open_model(&TinyModel::default().without("h.1.ln_2.bias")).unwrap_err();
    assert_names(&message, &["h.1.ln_2.bias: missing", "model.safetensors"]);
    let message = open_model(&TinyModel::default().without("wte.weight")).unwrap_err();
    assert_names(&message, &["wte.weight: missing"]);

    let mut model = TinyModel::default();
    model.tensor("h.0.attn.c_attn.weight").shape = vec![24, 8];
    let message = open_model(&model).unwrap_err();
    assert_names(&message, &["h.0.attn.c_attn.weight: expected [8, 24], file has [24, 8]", "transposed"]);

    let mut model = TinyModel::default();
    *model.tensor("wpe.weight") = RawTensor::f32("wpe.weight", &[15, 8], &[0.0; 120]);
    let message = open_model(&model).unwrap_err();
    assert_names(&message, &["wpe.weight: expected [16, 8], file has [15, 8]"]);
    assert!(!message.contains("transposed"), "{message}");
}

#[test]
fn the_number_of_layers_must_agree() {
    let message = open_model(&TinyModel::default().with_config("n_layer", json!(3))).unwrap_err();
    assert_names(&message, &["n_layer 3", "holds 2 layers", "h.2.ln_1.weight is missing", "model.safetensors"]);
    let message = open_model(&TinyModel::default().with_config("n_layer", json!(1))).unwrap_err();
    assert_names(&message, &["n_layer 1", "holds 2 layers", "h.1.", "would not be used"]);
    let huge = RawTensor::f32("h.18446744073709551615.x", &[1], &[0.0]);
    assert_names(
        &open_model(&TinyModel::default().with(huge)).unwrap_err(),
        &["n_layer 2", "h.18446744073709551615.x"],
    );
    let absurd = TinyModel::default().with_config("n_layer", json!(2_000_000_000));
    assert_names(&open_model(&absurd).unwrap_err(), &["n_layer 2000000000", "holds 2 layers"]);
}

#[test]
fn non_finite_weights_load_and_are_counted() {
    let mut model = TinyModel::default();
    let bias = &mut model.tensor("h.0.attn.c_proj.bias").bytes;
    bias[0..4].copy_from_slice(&f32::NAN.to_le_bytes());
    bias[4..8].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
    bias[12..16].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let mask = RawTensor::f32("h.0.attn.masked_bias", &[1], &[f32::NEG_INFINITY]);
    let model = open_model(&model.with(mask)).unwrap();
    let expected = NonFinite { tensor: "h.0.attn.c_proj.bias".to_owned(), nan: 1, infinite: 2 };
    assert_eq!(model.checkpoint().non_finite(|name| !lesion::model::is_mask_buffer(name)), [expected]);
    assert_eq!(model.checkpoint().non_finite(|_| true).len(), 2);
}

fn open_shards(directory: &Path) -> Result<Model, String> {
    Model::open_dir(directory, &OpenOptions::default()).map_err(|e| e.to_string())
}

#[test]
fn shard_paths_that_leave_the_directory_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    let tiny = TinyModel::default();
    tiny.write(outside.path());
    let directory = tempfile::tempdir().unwrap();
    tiny.write_without_weights(directory.path());
    let refuse = |shard: &str| {
        write_index(directory.path(), &json!({"weight_map": {"wte.weight": shard}}));
        let message = open_shards(directory.path()).unwrap_err();
        assert_names(&message, &["model.safetensors.index.json", "inside the model's directory"]);
        message
    };
    assert_names(&refuse("../../etc/passwd"), &["../../etc/passwd"]);
    refuse("/etc/passwd");
    refuse("a/../../b");
    refuse("a/../model.safetensors");
    refuse("./../b");
    refuse("");
    refuse(outside.path().join("model.safetensors").to_str().unwrap());
    assert_names(&refuse("../\x1b[2J"), &["\\u{1b}"]);
}

#[cfg(unix)]
#[test]
fn shards_that_are_links_out_or_no_regular_files_are_refused_unopened() {
    use std::os::unix::fs::symlink;

    let outside = tempfile::tempdir().unwrap();
    let tiny = TinyModel::default();
    tiny.write(outside.path());
    let directory = tempfile::tempdir().unwrap();
    tiny.write_without_weights(directory.path());
    let shard = directory.path().join("shard.safetensors");
    write_index(directory.path(), &json!({"weight_map": {"wte.weight": "shard.safetensors"}}));

    symlink(outside.path().join("model.safetensors"), &shard).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["shard.safetensors: a link to", "outside"]);
    fs::remove_file(&shard).unwrap();
    symlink("/dev/zero", &shard).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["a link to /dev/zero"]);
    fs::remove_file(&shard).unwrap();

    // Opening a FIFO that nobody writes to would hang here.
    let made = std::process::Command::new("mkfifo").arg(&shard).status().unwrap();
    assert!(made.success());
    assert_names(&open_shards(directory.path()).unwrap_err(), &["shard.safetensors is a FIFO"]);
    fs::rename(&shard, directory.path().join("model.safetensors")).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["model.safetensors is a FIFO"]);
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    fs::create_dir(directory.path().join("model.safetensors")).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["is a directory"]);
    fs::remove_dir(directory.path().join("model.safetensors")).unwrap();
    symlink("/dev/zero", directory.path().join("model.safetensors")).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["model.safetensors is a device"]);
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    symlink("nowhere", directory.path().join("model.safetensors")).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["cannot open", "model.safetensors: "]);
}

#[cfg(unix)]
#[test]
fn snapshots_of_the_hugging_face_cache_load_through_their_links() {
    use std::os::unix::fs::symlink;

    let cache = tempfile::tempdir().unwrap();
    let model = cache.path().join("models--owner--name");
    let snapshot = model.join("snapshots/0123456789abcdef0123456789abcdef01234567");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(model.join("blobs")).unwrap();
    for (i, file) in TinyModel::default().write_sharded(&snapshot, 3).iter().enumerate() {
        let blob = format!("blob{i}");
        fs::rename(file, model.join("blobs").join(&blob)).unwrap();
        symlink(Path::new("../../blobs").join(&blob), file).unwrap();
    }
    assert_eq!(open_shards(&snapshot).unwrap().checkpoint().files().len(), 3);

    // The blobs of another model are outside.
    let other = cache.path().join("models--owner--other/blobs");
    fs::create_dir_all(&other).unwrap();
    fs::rename(model.join("blobs/blob1"), other.join("blob1")).unwrap();
    symlink(other.join("blob1"), model.join("blobs/blob1")).unwrap();
    assert_names(&open_shards(&snapshot).unwrap_err(), &["model-00002-of-00003.safetensors: a link to", "outside"]);
}

#[test]
fn shards_must_hold_what_the_index_says() {
    let tiny = TinyModel::default();
    let directory = tempfile::tempdir().unwrap();
    let files = tiny.write_sharded(directory.path(), 2);
    let index = directory.path().join("model.safetensors.index.json");
    let honest = fs::read_to_string(&index).unwrap();
    open_shards(directory.path()).unwrap();

    fs::write(&index, honest.replace(r#""wte.weight":"model-00001"#, r#""wte.weight":"model-00002"#)).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["wte.weight: missing", "model-00002-of-00002"]);

    let twice = r#""weight_map":{"wte.weight":"model-00001-of-00002.safetensors","wte.weight":"model-00002"}"#;
    fs::write(&index, format!("{{{twice}}}")).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["index.json", "wte.weight is given twice"]);

    fs::write(&index, honest.replace(r#""weight_map""#, r#""weights""#)).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["index.json", "weight_map"]);
    fs::write(&index, r#"{"weight_map":{}}"#).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["weight_map is empty"]);

    fs::write(&index, &honest).unwrap();
    fs::write(&files[1], safetensors(&tiny.tensors, 8, 0)).unwrap();
    let message = open_shards(directory.path()).unwrap_err();
    assert_names(&message, &["is in two shards", "model-00001-of-00002", "model-00002-of-00002"]);

    fs::remove_file(&files[1]).unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["cannot open", "model-00002-of-00002.safetensors"]);
}

#[test]
fn a_directory_without_weights_says_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    TinyModel::default().write_without_weights(directory.path());
    assert_names(&open_shards(directory.path()).unwrap_err(), &["no model.safetensors and no model.safetensors.index"]);
    fs::write(directory.path().join("pytorch_model.bin"), b"PK").unwrap();
    assert_names(&open_shards(directory.path()).unwrap_err(), &["pytorch_model.bin is a pickle"]);
}

#[test]
fn a_file_that_changes_while_in_use_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let tiny = TinyModel::default();
    tiny.write(directory.path());
    for read in [ReadMode::Map, ReadMode::Copy] {
        let model = Model::open_dir(directory.path(), &OpenOptions { read, name: None }).unwrap();
        model.checkpoint().check_unchanged().unwrap();
        // Longer, not shorter: a truncated map would end this process.
        let mut bytes = fs::read(directory.path().join("model.safetensors")).unwrap();
        let before = bytes.len();
        bytes.push(0);
        fs::write(directory.path().join("model.safetensors"), &bytes).unwrap();
        let message = model.checkpoint().check_unchanged().unwrap_err().to_string();
        assert_names(&message, &["changed while in use", &format!("{before} bytes"), &format!("{} bytes", before + 1)]);
        tiny.write(directory.path());
    }
}

#[test]
fn ten_thousand_mutated_headers_never_panic() {
    let model = TinyModel::new(1, 1, 2, 2, 4);
    let honest = safetensors(&model.tensors[..6], 8, 0);
    let header_bytes = 8 + u64::from_le_bytes(honest[..8].try_into().unwrap()) as usize;
    let tokens = [
        "\"dtype\":\"F16\"",
        "\"BOOL\"",
        "[]",
        "[0,",
        "18446744073709551615",
        "-1",
        "1e3",
        "\"",
        "{",
        "}",
        "\\u0000",
        "null",
        "\"wte.weight\":",
        "\"__metadata__\":",
        "[[[[",
    ];
    let mut random = Random(7);
    let mut opened = 0;
    for _ in 0..10_000 {
        let mut header = honest[if random.below(8) == 0 { 0 } else { 8 }..header_bytes].to_vec();
        let with_length = header.len() == header_bytes;
        mutate(&mut header, &mut random, &tokens);
        let data = &honest[header_bytes..];
        let bytes = if with_length { [&header[..], data].concat() } else { safetensors_raw(&header, data) };
        if let Ok(checkpoint) = Checkpoint::from_static("mutated", bytes.leak()) {
            opened += 1;
            checkpoint.non_finite(|_| true);
            for tensor in &model.tensors[..6] {
                let _ = checkpoint.tensor(&tensor.name, &tensor.shape);
            }
        }
    }
    // Some mutations are harmless, most are not: the mutator does its work.
    assert!((10..5_000).contains(&opened), "{opened}");
}

/// A file that `set_len` makes long costs no disk and no memory until something reads it.
#[test]
fn a_file_larger_than_memory_is_refused_without_an_abort() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let write = |elements: u64, bytes: u64| {
        let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{elements}],"data_offsets":[0,{elements}]}}}}"#);
        fs::write(&path, safetensors_raw(header.as_bytes(), b"")).unwrap();
        let start = 8 + header.len() as u64;
        fs::File::options().write(true).open(&path).unwrap().set_len(start + bytes)
    };
    let copied = || Checkpoint::open(directory.path(), ReadMode::Copy).unwrap_err().to_string();
    // The header contradicts the size: nothing else is read.
    write(8, 1 << 40).unwrap();
    assert_names(&copied(), &["tensors end at byte 8", "the file has 1099511627776"]);
    match write(1 << 50, 1 << 50) {
        Ok(()) => assert_names(&copied(), &["cannot read", "model.safetensors", "no memory for 1125899906842"]),
        Err(error) => eprintln!("skipped: this file system has no such files ({error})"),
    }
}

/// What lies in /proc is regular files of 0 bytes that hold some.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_holds_more_than_its_size_says_is_too_short() {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    // Its arguments, each followed by a zero byte, begin as a header of 2 bytes does. It waits for its stdin.
    let mut child = Command::new("cat")
        .arg0("\x02")
        .args(["", "", "", "", "", "", "{}", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("model.safetensors");
    let arguments = format!("/proc/{}/cmdline", child.id());
    // A process that has just begun has no arguments yet.
    while fs::read(&arguments).unwrap().is_empty() {
        std::thread::yield_now();
    }
    std::os::unix::fs::symlink(arguments, link).unwrap();
    let opened = [ReadMode::Map, ReadMode::Copy].map(|read| Checkpoint::open(directory.path(), read));
    child.kill().unwrap();
    child.wait().unwrap();
    for refused in opened {
        assert_names(&refused.unwrap_err().to_string(), &["model.safetensors", "0 bytes: too short"]);
    }
}

#[test]
fn the_first_tensor_of_a_prefixed_checkpoint_is_missed_by_its_prefixed_name() {
    let mut tiny = TinyModel::default().without("wte.weight");
    tiny.tensors.iter_mut().for_each(|tensor| tensor.name.insert_str(0, "transformer."));
    assert_names(&open_model(&tiny).unwrap_err(), &["transformer.wte.weight: missing"]);
}

#[test]
fn weights_that_the_lock_does_not_list_are_never_opened() {
    let lock = |paths: &[&str]| {
        let file = |path: &&str| LockedFile { path: path.to_string(), size: 1, sha256: "0".repeat(64) };
        let files = ["config.json", "tokenizer.json"].iter().chain(paths).map(file).collect();
        LockedModel::new("tiny", "someone/tiny", &"0".repeat(40), files).unwrap()
    };
    let tiny = TinyModel::default();
    let directory = tempfile::tempdir().unwrap();
    let shards = tiny.write_sharded(directory.path(), 2);
    let open = |model: &LockedModel| {
        Model::open_locked(directory.path(), model, ReadMode::Map).map_err(|error| error.to_string())
    };
    let (index, first, second) =
        ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let complete = lock(&[index, first, second]);
    assert_eq!(open(&complete).unwrap().name(), "tiny");

    // The refusal comes first: this shard isn't even safetensors.
    let content = fs::read(&shards[1]).unwrap();
    fs::write(&shards[1], b"junk").unwrap();
    assert_names(&open(&lock(&[index, first])).unwrap_err(), &[second, "\"tiny\"", "never verified"]);
    fs::write(&shards[1], content).unwrap();

    // A single file beside the shards is what would be loaded instead of them.
    fs::write(directory.path().join("model.safetensors"), b"junk").unwrap();
    assert_names(&open(&complete).unwrap_err(), &["model.safetensors: ", "\"tiny\"", "never verified"]);
}
