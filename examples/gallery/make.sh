#!/usr/bin/env bash
# The pictures of the README: sweeps of the embedded model, reported. `examples/gallery/make.sh` writes them anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cargo build --release --quiet --manifest-path "$here/../../Cargo.toml"
lesion="$here/../../target/release/lesion"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
store="$work/store.db"

"$lesion" sweep --store "$store" --experiment orders --output "$work/orders.txt" \
    --family skip-one --family swap-any --family 'repeat-one x2..8' \
    --task 'indirect object' --task 'capital of a country' --task 'addition up to 20' --task antonyms
"$lesion" sweep --store "$store" --experiment lattice --output "$work/lattice.txt" \
    --family subsets --task 'indirect object' --limit 20
"$lesion" study truncation --store "$store" --experiment truncation --markdown --output "$work/truncation" >"$work/truncation.txt"
for experiment in orders lattice; do
    "$lesion" report --store "$store" --markdown --output "$work/$experiment" "$experiment"
done

"$lesion" lens --last 8 --force --output "$here/lens.png" 'When Tom and Jack went to the market, Tom gave a lamp to'
"$lesion" patch --no-store --force --output "$here/heads.png" 'When Tom and Jack went to the market, Tom gave a lamp to' \
    --corrupted 'When Tom and Jack went to the market, Jack gave a lamp to' --answer ' Jack' --other ' Tom'
cp "$work/orders/figures/fig-1-skip-one-85mm.png" "$here/skip-one.png"
cp "$work/orders/figures/fig-3-swap-any-85mm.png" "$here/swap-any.png"
cp "$work/orders/figures/"fig-*-repeat-one-85mm.png "$here/repeat-one.png"
cp "$work/lattice/figures/fig-1-subsets-85mm.png" "$here/subsets.png"
cp "$work/lattice/figures/fig-3-subsets-85mm.png" "$here/minimal-sets.png"
cp "$work/truncation/figures/fig-2-keep-first-85mm.png" "$here/truncation.png"
