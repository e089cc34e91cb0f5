#!/bin/sh
# Runs the kernel tests under Miri (the portable path: undefined behaviour, data races) and under AddressSanitizer (every
# instruction set of this machine: memory beside a buffer, the kernels' own scratch included).
#
# Needs a nightly toolchain: rustup toolchain install nightly --component miri,rust-src
# Says what it skips; exits 1 if something that ran failed. Arguments go to the test harness, as a filter.
set -u
cd "$(dirname "$0")/.."

failed=0
target=$(rustc -vV | sed -n 's/^host: //p')

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "skipped: Miri and AddressSanitizer (no nightly toolchain)"
    exit 0
fi

if cargo +nightly miri --version >/dev/null 2>&1; then
    echo "== Miri, portable path (rayon's worker threads outlive main: leaks are not looked for)"
    # crossbeam, inside rayon, casts integers to pointers and keeps to Tree Borrows only. Miri's isolation stays on: it
    # also keeps RUST_BACKTRACE out, and a backtrace takes Miri minutes. A logarithm of the same number is the same number:
    # on a processor it is, and promises of equal bits rest on it; Miri would add an error at random.
    MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-ignore-leaks -Zmiri-permissive-provenance -Zmiri-deterministic-floats" \
        cargo +nightly miri test --no-fail-fast --target-dir ../target/miri -- "$@" || failed=1
else
    echo "skipped: Miri (rustup component add miri rust-src --toolchain nightly)"
fi

case $target in
*-linux-gnu | *-apple-darwin)
    echo "== AddressSanitizer, $target"
    # With a target given, build scripts and macros are built without the sanitizer.
    RUSTFLAGS="-Zsanitizer=address" \
        cargo +nightly test --target "$target" --no-fail-fast --target-dir ../target/asan -- "$@" || failed=1
    ;;
*) echo "skipped: AddressSanitizer (not on $target)" ;;
esac

exit $failed
