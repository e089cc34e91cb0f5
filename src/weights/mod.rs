//! Where weights come from: pinned models, Hugging Face's cache and hub, and what was verified before.

mod cache;
mod error_kind;
#[cfg_attr(feature = "hub", path = "hub/enabled.rs")]
#[cfg_attr(not(feature = "hub"), path = "hub/disabled.rs")]
mod hub;
mod lock;
mod options;
mod records;
mod resolve;

pub use cache::{CachedSnapshot, HubCache};
pub use error_kind::ErrorKind;
pub use hub::lock_repository;
pub use lock::{LockError, LockProblem, LockedFile, LockedModel, WeightsLock};
pub use options::{HubOptions, Token};
pub use records::{CheckError, CheckMode, Checked, Records};
pub use resolve::{Event, HubError, resolve};
