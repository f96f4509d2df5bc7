#!/usr/bin/env bash
# Instructions of the packet path, counted by valgrind, beside the committed ones: the same on a busy machine as on a
# quiet one. Installs valgrind (Debian) and gungraun-runner (crates.io, the version in Cargo.lock) where they are missing.
#
#   benches/instructions.sh          prints the table; exit 1 where something needs over 10 % more than was committed
#   benches/instructions.sh --save   writes benches/instructions.txt
#
# Counts depend on the compiler and on what valgrind knows of the processor (AES yes, AVX-512 no), not on its speed. Key
# material and hash seeds differ from run to run, hence the margin. The figures are for `rustc` in rust-toolchain or, for
# lack of that, the one that the head of instructions.txt names.
set -euo pipefail
cd "$(dirname "$0")/.."

committed=benches/instructions.txt
margin=10
target=${CARGO_TARGET_DIR:-$PWD/target}
root=$target/gungraun
version=$(awk '/^name = "gungraun"$/ {getline; gsub(/[^0-9.]/, ""); print}' Cargo.lock)

command -v valgrind >/dev/null 2>&1 || {
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends valgrind libc6-dbg >&2
}
if ! grep -qsF "\"gungraun-runner $version " "$root/.crates.toml"; then
    cargo install -q --locked --debug gungraun-runner --version "$version" --root "$root" --target-dir "$target/gungraun-build" >&2
fi

out=$(mktemp)
trap 'rm -f "$out" "$out.now"' EXIT
# callgrind wants to know where functions are; nothing else is needed of debug information.
GUNGRAUN_RUNNER=$root/bin/gungraun-runner CARGO_PROFILE_BENCH_DEBUG=line-tables-only \
    cargo bench -q --locked -p benches --bench instructions -- --nosummary --color=never >"$out" || {
    cat "$out" >&2
    exit 1
}
# "instructions::path::protect gcm128_100:..." and, below it, "  Instructions:    1234|N/A ...".
awk '
    /^instructions::/ { split($1, path, "::"); split($2, id, ":"); name = path[3] " " id[1] }
    /^ *Instructions:/ { split($2, value, "|"); print name, value[1] }
' "$out" >"$out.now"
[ -s "$out.now" ] || {
    echo "instructions.sh: no counts in what gungraun printed:" >&2
    cat "$out" >&2
    exit 1
}

if [ "${1:-}" = --save ]; then
    {
        echo "# Instructions of one call each, by benches/instructions.sh --save"
        echo "# $(rustc --version), $(valgrind --version), commit $(git rev-parse --short HEAD)"
        cat "$out.now"
    } >"$committed"
    cat "$committed"
    exit 0
fi

awk -v margin="$margin" '
    /^#/ { next }
    FNR == NR { before[$1 " " $2] = $3; next }
    {
        name = $1 " " $2
        if (!(name in before)) { printf "%-28s %10d  new\n", name, $3; next }
        change = 100 * ($3 / before[name] - 1)
        printf "%-28s %10d  %10d  %+6.1f %%\n", name, before[name], $3, change
        if (change > margin) { worse = worse "\n  " name }
        delete before[name]
    }
    END {
        for (name in before) { gone = gone "\n  " name }
        if (gone) { print "\nno longer counted:" gone }
        if (worse) { print "\nover " margin " % more than was committed:" worse }
        exit (worse || gone) ? 1 : 0
    }
' "$committed" "$out.now"
