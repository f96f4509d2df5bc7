#!/usr/bin/env bash
# fuzz/smoke.sh SECONDS TARGET...: runs fuzz targets, from their committed seeds on, for so many seconds each. Needs no
# nightly toolchain and no cargo-fuzz: the same instrumentation without the address sanitizer, which safe code can do
# without. Finds go to a folder of their own, and the first one ends the run.
set -euo pipefail
seconds=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
out=${CARGO_TARGET_DIR:-$root/target}/fuzz-smoke
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing"
# --target keeps the flags from build scripts, which have no fuzzer to link with.
triple=$(rustc -vV | sed -n 's/^host: //p')
bins=()
for target in "$@"; do bins+=(--bin "$target"); done
RUSTFLAGS=$flags cargo build -q --release --locked --target "$triple" --manifest-path "$root/fuzz/Cargo.toml" \
    --target-dir "$out" "${bins[@]}"
for target in "$@"; do
    mkdir -p "$out/corpus/$target" "$out/finds/$target"
    "$out/$triple/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="$out/finds/$target/" \
        "$out/corpus/$target" "$root/fuzz/corpus-seeds/$target" 2>&1 | sed -n "s/^stat::number_of_executed_units:/$target: executions/p; /ERROR\|panicked\|SUMMARY\|Test unit/p"
done
