//! Weights as files: where they come from (pinned models, Hugging Face's cache and hub, what was verified before), and
//! what is in them (memory-mapped safetensors, checked tensor views).
//!
//! A [`Checkpoint`] is every tensor of a model, by name; a [`Tensor`] is one of them, in the type it is stored in
//! and never copied unless the file misaligns it. What the names mean is left to [`crate::model`].

mod cache;
mod checkpoint;
mod error;
mod error_kind;
mod files;
mod header;
#[cfg_attr(feature = "hub", path = "hub/enabled.rs")]
#[cfg_attr(not(feature = "hub"), path = "hub/disabled.rs")]
mod hub;
mod index;
mod json;
mod lock;
mod mapping;
mod options;
mod printable;
mod records;
mod resolve;
mod tensor;

pub use cache::{CachedSnapshot, HubCache, Located};
pub use checkpoint::{Checkpoint, NonFinite};
pub use error::{HeaderError, WeightsError};
pub use error_kind::ErrorKind;
pub use files::ReadMode;
pub use hub::lock_repository;
pub use lesion_kernels::{Dtype, WeightData};
pub use lock::{LockError, LockProblem, LockedFile, LockedModel, WeightsLock};
pub use options::{HubOptions, Token};
pub use printable::printable;
pub use records::{CheckError, CheckMode, Checked, Records};
pub use resolve::{Event, HubError, resolve};
pub use tensor::Tensor;

pub(crate) use files::read_limited;
pub(crate) use json::UniqueMap;
pub(crate) use printable::printable_path;
