#!/bin/sh
# Builds the kernel tests for aarch64 and runs them under qemu, with a Cortex-A53: NEON and nothing newer.
#
# Needs the Rust target, a cross linker and qemu-user. As root with apt-get it installs what is missing; where it can't,
# it says what it skips and exits 0. It exits 1 if something that ran failed. Arguments go to the test harness, as a
# filter. LESION_TEST_THIN (11 here) is how much thinner than on a processor the sweeps are.
set -u
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
linker=aarch64-linux-gnu-gcc
library=/usr/aarch64-linux-gnu

have() { command -v "$1" >/dev/null 2>&1; }
skip() {
    echo "skipped: kernel tests on NEON ($1)"
    exit 0
}

if [ "$(rustc -vV | sed -n 's/^host: //p')" = "$target" ]; then
    skip "this machine has it: its ordinary test run covers it"
fi
if ! { have "$linker" && have qemu-aarch64 && [ -e "$library/lib/libc.so.6" ]; }; then
    have apt-get && [ "$(id -u)" = 0 ] || skip "no $linker or qemu-aarch64, and not root with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install -y gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; } \
        >/dev/null 2>&1 || skip "apt-get can't install gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user"
fi
have rustup && { rustup target list --installed | grep -qx "$target" || rustup -q target add "$target"; } >/dev/null 2>&1
[ -d "$(rustc --print target-libdir --target "$target")" ] || skip "no standard library for $target"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$linker"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu cortex-a53 -L $library"
export LESION_TEST_THIN="${LESION_TEST_THIN:-11}"
# A test of the guard pages dies on purpose, and tests of panics panic.
export RUST_BACKTRACE=0
ulimit -c 0

echo "== NEON under $(qemu-aarch64 --version | head -n 1), every ${LESION_TEST_THIN}th case of the sweeps"
exec cargo test --target "$target" --no-fail-fast --lib --tests -- "$@"
