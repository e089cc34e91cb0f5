//! A full-size checkpoint without a download: GPT-2 small's shapes, names and file layout with reproducible values.
//!
//! Every value is a pure function of the tensor's name and the element's index, so that any language can rebuild the
//! same file bit for bit. For parity tests and timings, where the values do not matter but shapes, names, dtype and
//! the `h.N.attn.bias` mask buffers do; the model it makes is untrained and says nothing.
//!
//! ```text
//! seed  = FNV-1a-64 of the name's UTF-8
//! z(i)  = splitmix64's finaliser of seed + (i + 1) · 0x9E3779B97F4A7C15, wrapping
//! u(i)  = (z(i) >> 40) / 2^24                       in [0, 1), exact in f32
//! value = (u - 0.5) · scale       computed in f64, rounded to f32, then to the file's type
//!         1 + (u - 0.5) · 0.2     ln_*.weight
//!         1 on and below the diagonal, 0 above      h.N.attn.bias, [1, 1, 1024, 1024]
//! scale = 0.12 for wte, 0.04 for wpe, 0.14 for other matrices, 0.1 for every bias
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use lesion_kernels::Dtype;
use rayon::prelude::*;

use crate::weights::WeightsError;

const D: usize = 768;
const CONTEXT: usize = 1024;
const VOCAB: usize = 50257;

/// Elements made and written at a time, and by one thread at a time.
const PIECE: usize = 1 << 20;
const SHARE: usize = 1 << 14;

/// Writes `config.json` and `model.safetensors` into `directory`, which is made where it is missing: 548 MB for 12
/// layers of f32. Files of these names are replaced once the new ones are complete.
///
/// # Errors
/// What the system says of a directory or file that cannot be made or written.
pub fn write_model(directory: &Path, n_layer: usize, dtype: Dtype) -> Result<(), WeightsError> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| WeightsError::Io { operation, path, source }
    };
    fs::create_dir_all(directory).map_err(io("create", directory))?;
    let part = directory.join("model.safetensors.part");
    let file = File::create(&part).map_err(io("create", &part))?;
    let mut out = BufWriter::new(file);
    write_weights(&mut out, n_layer, dtype).and_then(|()| out.flush()).map_err(io("write", &part))?;
    let whole = directory.join("model.safetensors");
    fs::rename(&part, &whole).map_err(io("create", &whole))?;
    let config = directory.join("config.json");
    fs::write(&config, config_json(n_layer)).map_err(io("write", &config))
}

/// Writes the safetensors file alone.
///
/// # Errors
/// What `out` says.
pub fn write_weights(out: &mut impl Write, n_layer: usize, dtype: Dtype) -> io::Result<()> {
    let tensors = tensors(n_layer);
    let header = header(&tensors, dtype);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;

    let mut bytes = Vec::new();
    for (name, shape) in &tensors {
        let value = values(name);
        let elements: usize = shape.iter().product();
        for start in (0..elements).step_by(PIECE) {
            bytes.resize(PIECE.min(elements - start) * dtype.size(), 0);
            bytes.par_chunks_mut(SHARE * dtype.size()).enumerate().for_each(|(share, bytes)| {
                fill(bytes, dtype, &value, start + share * SHARE);
            });
            out.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// Names and shapes, in the order of the file.
fn tensors(n_layer: usize) -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![("wte.weight".to_owned(), vec![VOCAB, D]), ("wpe.weight".to_owned(), vec![CONTEXT, D])];
    for layer in 0..n_layer {
        let block: [(&str, &[usize]); 13] = [
            ("ln_1.weight", &[D]),
            ("ln_1.bias", &[D]),
            ("attn.bias", &[1, 1, CONTEXT, CONTEXT]),
            ("attn.c_attn.weight", &[D, 3 * D]),
            ("attn.c_attn.bias", &[3 * D]),
            ("attn.c_proj.weight", &[D, D]),
            ("attn.c_proj.bias", &[D]),
            ("ln_2.weight", &[D]),
            ("ln_2.bias", &[D]),
            ("mlp.c_fc.weight", &[D, 4 * D]),
            ("mlp.c_fc.bias", &[4 * D]),
            ("mlp.c_proj.weight", &[4 * D, D]),
            ("mlp.c_proj.bias", &[D]),
        ];
        tensors.extend(block.map(|(name, shape)| (format!("h.{layer}.{name}"), shape.to_vec())));
    }
    tensors.extend(["ln_f.weight", "ln_f.bias"].map(|name| (name.to_owned(), vec![D])));
    tensors
}

fn header(tensors: &[(String, Vec<usize>)], dtype: Dtype) -> String {
    let mut header = r#"{"__metadata__":{"format":"pt"}"#.to_owned();
    let mut start = 0;
    for (name, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * dtype.size();
        let shape = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let dtype = dtype.name().to_uppercase();
        header += &format!(r#","{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{start},{end}]}}"#);
        start = end;
    }
    header.push('}');
    let padding = header.len().next_multiple_of(8) - header.len();
    header + &" ".repeat(padding)
}

fn config_json(n_layer: usize) -> String {
    format!(
        r#"{{
  "model_type": "gpt2",
  "architectures": [
    "GPT2LMHeadModel"
  ],
  "activation_function": "gelu_new",
  "n_layer": {n_layer},
  "n_head": 12,
  "n_embd": {D},
  "n_positions": {CONTEXT},
  "n_ctx": {CONTEXT},
  "vocab_size": {VOCAB},
  "layer_norm_epsilon": 1e-05,
  "bos_token_id": 50256,
  "eos_token_id": 50256
}}"#
    )
}

/// The elements of a tensor, by index.
fn values(name: &str) -> impl Fn(usize) -> f32 + Sync {
    let mask = name.ends_with(".attn.bias");
    let norm = name.contains(".ln_") || name.starts_with("ln_f");
    let (offset, scale) = match (name, norm) {
        (_, true) if name.ends_with("weight") => (1.0, 0.2),
        _ if name.ends_with(".bias") => (0.0, 0.1),
        ("wte.weight", _) => (0.0, 0.12),
        ("wpe.weight", _) => (0.0, 0.04),
        _ => (0.0, 0.14),
    };
    let seed = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    move |i| {
        if mask {
            return if i % CONTEXT <= i / CONTEXT { 1.0 } else { 0.0 };
        }
        let mut z = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let u = (z >> 40) as f64 / (1u64 << 24) as f64;
        (offset + (u - 0.5) * scale) as f32
    }
}

/// Fills `bytes` with the elements from `start` on.
fn fill(bytes: &mut [u8], dtype: Dtype, value: &impl Fn(usize) -> f32, start: usize) {
    for (i, element) in bytes.chunks_exact_mut(dtype.size()).enumerate() {
        let x = value(start + i);
        match dtype {
            Dtype::F32 => element.copy_from_slice(&x.to_le_bytes()),
            Dtype::F16 => element.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
            Dtype::Bf16 => element.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// Of the files that the reference implementation, in Python with numpy, writes for one layer.
    #[test]
    fn the_files_are_those_of_the_reference_bit_for_bit() {
        for (dtype, expected) in [
            (Dtype::F32, "4d25b610030997116692bf6f5e5edbf9df076d46116b2123a01acdbbce79fd63"),
            (Dtype::F16, "da1dc30ff8ee885c529303c31efc18348832791d7e84ceb8830419adfed6b1f1"),
            (Dtype::Bf16, "6f9faa01cfcde7a6758b06afa9a4821dfd7413533935bb4a36843a6150a2025b"),
        ] {
            let mut hash = Sha256::new();
            write_weights(&mut hash, 1, dtype).unwrap();
            assert_eq!(format!("{:x}", hash.finalize()), expected, "{}", dtype.name());
        }
        let config = format!("{:x}", Sha256::digest(config_json(1)));
        assert_eq!(config, "0e2ab2853c3bdf91560525e02f31eaadb2f815083d9539b394bb87994b4be230");
    }
}
