//! A build without the hub feature says that it has none, and still uses the cache.

#![cfg(not(feature = "hub"))]

mod mock_hub;

use lesion::weights::{ErrorKind, lock_repository};

#[test]
fn everything_that_needs_the_hub_says_so() {
    let hub = mock_hub::MockHub::start();
    let (_folder, options) = mock_hub::options(&hub);
    for error in [
        mock_hub::fetch(&options).unwrap_err(),
        lock_repository(mock_hub::REPOSITORY, "main", &options, &mut |_| {}).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Missing);
        let message = error.to_string();
        assert!(message.contains("built without the hub feature"), "{message}");
        assert!(message.contains(mock_hub::REPOSITORY), "{message}");
    }
    assert!(hub.requests().is_empty());
}
