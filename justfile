# Shortcuts; none is needed to build or test.

# The README's test command.
test:
    cargo test --release --workspace

# What CI runs.
ci:
    .ci/run

# Formatting and lints, as CI judges them.
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings

# The documentation, in a browser.
doc:
    cargo doc --workspace --no-deps --open
