#!/usr/bin/env bash
# The floor and Milliway under the same load, one after the other: what a forwarded packet costs in CPU time, as a
# number and as a multiple of what nothing can go below. Prints a table; leaves every report as JSON, the table and what
# it was measured on in benches/runs/DATE-MACHINE/. On a machine that does other work the folder is under target/
# instead, for such figures are not committed.
#
#   benches/compare.sh             broadcast to 100
#   benches/compare.sh 1 10 100    broadcast to each of these
#
# RUN_SECONDS  for how long each is measured (20)
# MACHINE      what the folder calls this machine (its processor's family and number of cores)
# OUT          the folder, whatever the machine does
# BUILT        a folder with floor, compare, loadtest and milliway in it, in place of a release build
set -euo pipefail
cd "$(dirname "$0")/.."

subscribers=("${@:-100}")
seconds=${RUN_SECONDS:-20}
target=${CARGO_TARGET_DIR:-$PWD/target}
programs=${BUILT:-$target/release}

# A delta frame of loadtest's publisher is 6 packets of 1,006 bytes, its audio 50 packets a second of 100 bytes.
video=(--bytes 1006 --rate 180)
audio=(--bytes 100 --rate 50)

die() {
    echo "compare.sh: $*" >&2
    exit 1
}

# What all cores together did in the next 5 seconds, in hundredths of what they could have.
percent_busy() {
    local before after
    read -ra before < <(grep '^cpu ' /proc/stat)
    sleep 5
    read -ra after < <(grep '^cpu ' /proc/stat)
    awk -v before="${before[*]}" -v after="${after[*]}" 'BEGIN {
        split(before, b, " "); n = split(after, a, " ")
        for (i = 2; i <= n && i <= 9; i++) { all += a[i] - b[i] }
        idle = a[5] - b[5] + a[6] - b[6]
        printf "%d\n", (all > 0) ? 100 * (all - idle) / all + 0.5 : 0
    }'
}

machine_name() {
    local model family
    model=$(awk -F': *' '/^model name/ {print tolower($2); exit}' /proc/cpuinfo)
    family=$(grep -oE 'xeon|epyc|core|ryzen|atom|neoverse|graviton' <<<"$model" | head -n 1 || true)
    echo "${family:-$(uname -m)}-$(nproc)core"
}

# run NAME COMMAND...: one report.
run() {
    local name=$1
    shift
    printf '== %s\n' "$name" >&2
    "$@" >"$out/$name.json" || die "$name failed"
    # As somebody else would type it, whatever folder the program came from.
    printf '%s %s\n' "$(basename "$1")" "${*:2}" >>"$out/commands.txt"
}

floors() {
    local n=$1 packets
    local load=(--subscribers "$n" --seconds "$seconds")
    run "floor-$n-seal" "$programs/floor" seal "${load[@]}" --bytes 1006
    run "floor-$n-single" "$programs/floor" single "${load[@]}" "${video[@]}"
    for packets in 1 2 4 6 10 20; do
        run "floor-$n-batch-$packets" "$programs/floor" batch --packets "$packets" "${load[@]}" "${video[@]}"
    done
    run "floor-$n-audio" "$programs/floor" batch --packets 1 "${load[@]}" "${audio[@]}"
}

milliway() {
    MILLIWAY_BIN=$programs/milliway run "milliway-broadcast-$1" \
        "$programs/loadtest" sfu broadcast --subscribers "$1" --seconds "$seconds"
}

# Debian's janus has its place here: once loadtest speaks to its videoroom, this installs it (apt-get install janus),
# starts it on an address that is not loopback, which Janus skips, and leaves loadtest's report in
# janus-broadcast-$1.json. The table takes every such file in, under the name before the first hyphen.
janus() {
    echo "== janus-broadcast-$1: not measured, loadtest does not speak to Janus yet" >&2
}

readme() {
    cat <<EOF
# $date, $machine: floor and relay side by side

| | |
|---|---|
| machine | $(awk -F': *' '/^model name/ {print $2; exit}' /proc/cpuinfo), $(nproc) cores, $(awk '/^MemTotal/ {printf "%.0f", $2 / 1048576}' /proc/meminfo) GiB |
| kernel | $(uname -sr) |
| compiler | $(rustc --version), release profile |
| commit | $(git rev-parse --short HEAD)$(git diff --quiet HEAD -- || echo ", with changes") |
| before it began | $busy % of all cores busy |

EOF
    cat "$out/table.md"
    cat <<EOF

A floor counts the thread that forwards; a relay all threads of its process, to a hundredth of a second. How the floor of
the load is made of the others: [benches/README.md](../../README.md).

Figures that are committed come from real runs only: a whole run of benches/compare.sh on a machine that did nothing else.

Commands, in order:

\`\`\`
$(cat "$out/commands.txt")
\`\`\`
EOF
}

if [ -z "${BUILT:-}" ]; then
    cargo build --release --locked -p milliway -p loadtest -p benches
fi
for program in floor compare loadtest milliway; do
    [ -x "$programs/$program" ] || die "no $programs/$program"
done

date=$(date +%F)
machine=${MACHINE:-$(machine_name)}
busy=$(percent_busy)
out=${OUT:-benches/runs/$date-$machine}
if [ -z "${OUT:-}" ] && [ "$busy" -gt 5 ]; then
    out=$target/compare/$date-$machine
    echo "compare.sh: $busy % of all cores are busy: these figures are not to be committed" >&2
fi
# A run never writes over another one.
base=$out
for ((number = 2; ; number++)); do
    [ -e "$out" ] || break
    out=$base-$number
done
mkdir -p "$out"

for n in "${subscribers[@]}"; do
    floors "$n"
    milliway "$n"
    janus "$n"
done
"$programs/compare" "$out" >"$out/table.md"
readme >"$out/README.md"
rm "$out/commands.txt" "$out/table.md"
"$programs/compare" "$out"
echo "compare.sh: reports in $out" >&2
