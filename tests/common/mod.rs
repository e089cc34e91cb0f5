//! Tiny models built file by file, so that a test can make them wrong in one place.
//!
//! Each integration test compiles this module for itself and uses its part of it.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// One tensor of a safetensors file: name, dtype as in the header, shape, bytes.
#[derive(Clone, Debug)]
pub struct RawTensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl RawTensor {
    /// Little-endian f32, with the values given.
    pub fn f32(name: &str, shape: &[usize], values: &[f32]) -> RawTensor {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        RawTensor { name: name.to_owned(), dtype: "F32", shape: shape.to_vec(), bytes }
    }
}

/// The bytes of a safetensors file: its header's JSON as it is, then the data.
pub fn safetensors_raw(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

/// A well-formed safetensors file, its header padded to `header_multiple` bytes, then by `extra` more.
pub fn safetensors(tensors: &[RawTensor], header_multiple: usize, extra: usize) -> Vec<u8> {
    let mut data = Vec::new();
    let mut entries = vec![r#""__metadata__":{"format":"pt"}"#.to_owned()];
    for tensor in tensors {
        let start = data.len();
        data.extend_from_slice(&tensor.bytes);
        let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]});
        entries.push(format!("{}:{entry}", json!(tensor.name)));
    }
    let mut header = format!("{{{}}}", entries.join(","));
    let padding = header.len().next_multiple_of(header_multiple) - header.len() + extra;
    header += &" ".repeat(padding);
    safetensors_raw(header.as_bytes(), &data)
}

/// A model small enough to be written by hand: 2 layers, 2 heads, width 8, context 16, vocabulary 32 by default.
#[derive(Clone, Debug)]
pub struct TinyModel {
    pub config: Value,
    pub tensors: Vec<RawTensor>,
    pub tokenizer: Option<Value>,
}

impl Default for TinyModel {
    fn default() -> TinyModel {
        TinyModel::new(2, 2, 8, 16, 32)
    }
}

impl TinyModel {
    /// A model of these sizes, with small reproducible values and without a tokenizer.
    pub fn new(n_layer: usize, n_head: usize, n_embd: usize, n_positions: usize, vocab_size: usize) -> TinyModel {
        let d = n_embd;
        let mut random = Random(1);
        let mut tensors = Vec::new();
        let mut add = |name: String, shape: &[usize]| {
            let centre = if name.contains("ln_") && name.ends_with("weight") { 1.0 } else { 0.0 };
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| centre + random.unit() * 0.4 - 0.2).collect();
            tensors.push(RawTensor::f32(&name, shape, &values));
        };
        add("wte.weight".to_owned(), &[vocab_size, d]);
        add("wpe.weight".to_owned(), &[n_positions, d]);
        for layer in 0..n_layer {
            for (part, shape) in [
                ("ln_1.weight", vec![d]),
                ("ln_1.bias", vec![d]),
                ("attn.c_attn.weight", vec![d, 3 * d]),
                ("attn.c_attn.bias", vec![3 * d]),
                ("attn.c_proj.weight", vec![d, d]),
                ("attn.c_proj.bias", vec![d]),
                ("ln_2.weight", vec![d]),
                ("ln_2.bias", vec![d]),
                ("mlp.c_fc.weight", vec![d, 4 * d]),
                ("mlp.c_fc.bias", vec![4 * d]),
                ("mlp.c_proj.weight", vec![4 * d, d]),
                ("mlp.c_proj.bias", vec![d]),
            ] {
                add(format!("h.{layer}.{part}"), &shape);
            }
        }
        add("ln_f.weight".to_owned(), &[d]);
        add("ln_f.bias".to_owned(), &[d]);
        let config = json!({
            "model_type": "gpt2", "activation_function": "gelu_new", "n_layer": n_layer, "n_head": n_head,
            "n_embd": n_embd, "n_positions": n_positions, "n_ctx": n_positions, "vocab_size": vocab_size,
            "layer_norm_epsilon": 1e-5, "bos_token_id": 0, "eos_token_id": 0,
        });
        TinyModel { config, tensors, tokenizer: None }
    }

    /// The tensor of this name.
    pub fn tensor(&mut self, name: &str) -> &mut RawTensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// Drops the tensor of this name.
    pub fn without(mut self, name: &str) -> TinyModel {
        self.tensor(name);
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// Adds a tensor.
    pub fn with(mut self, tensor: RawTensor) -> TinyModel {
        self.tensors.push(tensor);
        self
    }

    /// Sets a field of `config.json`.
    pub fn with_config(mut self, field: &str, value: Value) -> TinyModel {
        self.config[field] = value;
        self
    }

    /// Writes `config.json`, `model.safetensors` and, if there is one, `tokenizer.json`.
    pub fn write(&self, directory: &Path) {
        self.write_without_weights(directory);
        fs::write(directory.join("model.safetensors"), safetensors(&self.tensors, 8, 0)).unwrap();
    }

    /// Writes all but the weights.
    pub fn write_without_weights(&self, directory: &Path) {
        fs::write(directory.join("config.json"), self.config.to_string()).unwrap();
        if let Some(tokenizer) = &self.tokenizer {
            fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        }
    }

    /// Writes the weights as `shards` shards and an index.
    pub fn write_sharded(&self, directory: &Path, shards: usize) -> Vec<PathBuf> {
        self.write_without_weights(directory);
        let mut map = serde_json::Map::new();
        let mut files = Vec::new();
        for (i, part) in self.tensors.chunks(self.tensors.len().div_ceil(shards)).enumerate() {
            let name = format!("model-{:05}-of-{shards:05}.safetensors", i + 1);
            part.iter().for_each(|tensor| drop(map.insert(tensor.name.clone(), json!(name))));
            files.push(directory.join(&name));
            fs::write(files.last().unwrap(), safetensors(part, 8, 0)).unwrap();
        }
        write_index(directory, &json!({ "metadata": {"total_size": 0}, "weight_map": map }));
        files
    }
}

/// Writes `model.safetensors.index.json`.
pub fn write_index(directory: &Path, index: &Value) {
    fs::write(directory.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// A byte-level BPE over `alphabet` (characters of the byte-level alphabet), `<|endoftext|>` as id 0, then the
/// alphabet, then one token for each merge.
pub fn tiny_tokenizer(alphabet: &str, merges: &[(&str, &str)]) -> Value {
    let mut vocab = serde_json::Map::new();
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let tokens = ["<|endoftext|>".to_owned()].into_iter().chain(alphabet.chars().map(String::from)).chain(merged);
    for (id, token) in tokens.enumerate() {
        vocab.insert(token, json!(id));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    })
}

/// A small reproducible generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Changes `bytes` in one to four places: flips, overwrites, deletes, doubles, truncates, or puts in a `tokens` entry.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random, tokens: &[&str]) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        let length = (1 + random.below(8)).min(bytes.len() - at);
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let copy = bytes[at..at + length].to_vec();
                bytes.splice(at..at, copy);
            }
            4 if random.below(4) == 0 => bytes.truncate(at),
            4 | 5 => {
                let digit = b'0' + random.below(10) as u8;
                if let Some(i) = bytes[at..].iter().position(u8::is_ascii_digit) {
                    bytes[at + i] = digit;
                }
            }
            _ => {
                let token = tokens[random.below(tokens.len())].as_bytes();
                let end = (at + random.below(token.len() + 1)).min(bytes.len());
                bytes.splice(at..end, token.iter().copied());
            }
        }
    }
}
