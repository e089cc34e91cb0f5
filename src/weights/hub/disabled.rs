//! The twin of the hub's client in a build without the `hub` feature: everything says so.

use super::{Event, HubError, HubOptions, LockedModel};

const REASON: &str = "this build has no downloads (built without the hub feature)";

pub(super) fn unavailable(_options: &HubOptions) -> Option<&'static str> {
    Some(REASON)
}

pub(super) fn fetch(
    model: &LockedModel,
    _options: &HubOptions,
    _observe: &mut dyn FnMut(Event<'_>),
) -> Result<(), HubError> {
    Err(HubError::NoHub { repository: model.repository().into(), reason: REASON.into() })
}

/// Needs the `hub` feature.
///
/// # Errors
/// Always.
pub fn lock_repository(
    repository: &str,
    _revision: &str,
    _options: &HubOptions,
    _observe: &mut dyn FnMut(Event<'_>),
) -> Result<LockedModel, HubError> {
    Err(HubError::NoHub { repository: repository.into(), reason: REASON.into() })
}
