//! Weights as files: memory-mapped safetensors, checked tensor views, synthetic checkpoints.
//!
//! A [`Checkpoint`] is every tensor of a model, by name; a [`Tensor`] is one of them, in the type it is stored in
//! and never copied unless the file misaligns it. What the names mean is left to [`crate::model`].

mod checkpoint;
mod error;
mod files;
mod header;
mod index;
mod json;
mod mapping;
mod printable;
mod tensor;

pub use checkpoint::{Checkpoint, NonFinite};
pub use error::{HeaderError, WeightsError};
pub use files::ReadMode;
pub use lesion_kernels::{Dtype, WeightData};
pub use printable::printable;
pub use tensor::Tensor;

pub(crate) use files::read_limited;
pub(crate) use json::UniqueMap;
pub(crate) use printable::printable_path;
