//! What the benches share: threads, timing, a full-size model and memory to multiply with.
//!
//! Each bench compiles this module for itself and uses its part of it.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::Criterion;
use half::{bf16, f16};
use lesion::forward::SessionOptions;
use lesion::model::synthetic;
use lesion::model::{Model, OpenOptions};
use lesion_kernels::{Dtype, Isa, Team, WeightData};

/// Short, for there are many: medians of 10 samples.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// A team of as many threads as a session takes.
pub fn team(isa: Isa) -> Team {
    Team::new(isa, SessionOptions::default().threads).expect("available")
}

/// The instruction sets with intrinsics, and the portable one where a bench is small enough for it.
pub fn isas(small: bool) -> impl Iterator<Item = Isa> {
    Isa::available().filter(move |&isa| small || isa != Isa::Portable)
}

/// A directory with GPT-2 small in made-up weights, written once: 548 MB in f32.
pub fn model_directory(dtype: Dtype) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gpt2-{}", dtype.name()));
    // The configuration is written last.
    if !directory.join("config.json").exists() {
        eprintln!("writing {}", directory.display());
        synthetic::write_model(&directory, 12, dtype).expect("room on the disk");
    }
    directory
}

/// The model in [`model_directory`].
pub fn model(dtype: Dtype) -> Model {
    Model::open_dir(&model_directory(dtype), &OpenOptions::default()).expect("just written")
}

/// Ids spread over GPT-2's vocabulary.
pub fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) % 50_257).collect()
}

/// Weights of one type, more than the caches hold.
pub enum Weights {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Weights {
    /// 64 Mi elements: 256 MB in f32.
    pub fn new(dtype: Dtype) -> Weights {
        let values = (0..1_u32 << 26).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 26) as f32 - 0.125);
        match dtype {
            Dtype::F32 => Weights::F32(values.collect()),
            Dtype::F16 => Weights::F16(values.map(f16::from_f32).collect()),
            Dtype::Bf16 => Weights::Bf16(values.map(bf16::from_f32).collect()),
        }
    }

    /// How many matrices of `len` elements there are.
    pub fn matrices(&self, len: usize) -> usize {
        self.window(0, 1 << 26).len() / len
    }

    /// Matrix `i` of `len` elements.
    pub fn window(&self, i: usize, len: usize) -> WeightData<'_> {
        let range = i * len..(i + 1) * len;
        match self {
            Weights::F32(data) => WeightData::F32(&data[range]),
            Weights::F16(data) => WeightData::F16(&data[range]),
            Weights::Bf16(data) => WeightData::Bf16(&data[range]),
        }
    }
}

/// Activations.
pub fn activations(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}
