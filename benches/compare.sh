#!/usr/bin/env bash
# Floor, Milliway and its rival under the same load, one after the other: what a forwarded packet costs in CPU time, as a
# number, as a multiple of what nothing can go below, and as a part of what the rival takes. Prints tables; leaves every
# report as JSON, the tables and what they were measured on in benches/runs/DATE-MACHINE/. On a machine that does other
# work the folder is under target/ instead, for such figures are not committed.
#
#   benches/compare.sh                  as `sfu` (about 8 minutes after the build)
#   benches/compare.sh sfu [N...]       broadcast to N (100) and a conference of 8, frames in bursts and paced; Janus
#   benches/compare.sh scale            broadcast to 50 and to 1,000 on one shard; one shard and two
#   benches/compare.sh sweep            the most subscribers that one shard holds; Janus
#   benches/compare.sh loss             a broadcast to 500 with 1 % lost on subscribers' links, then on the publisher's
#   benches/compare.sh turn             bursts, sparse, TLS, allocations; coturn
#
# RUN_SECONDS  for how long each is measured (15; 5 is enough to try)
# RIVAL        "none" leaves Janus and coturn out
# MACHINE      what the folder calls this machine (its processor's family and number of cores)
# OUT          the folder, whatever the machine does
# BUILT        a folder with floor, compare, loadtest and milliway in it, in place of a release build
#
# The relay has the cores but the last, with one shard unless said otherwise, and the load generator the last; a floor
# likewise. Installs Debian's janus and coturn where they are missing. Needs root, or sudo for that.
set -euo pipefail
cd "$(dirname "$0")/.."

what=sfu
case "${1:-}" in
    sfu | scale | sweep | loss | turn)
        what=$1
        shift
        ;;
    "" | [0-9]*) ;;
    *)
        sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
        exit 2
        ;;
esac
subscribers=("${@:-100}")
participants=8
seconds=${RUN_SECONDS:-15}
# Floors of a steady stream say the same every second.
steady_seconds=$((seconds < 6 ? seconds : 6))
target=${CARGO_TARGET_DIR:-$PWD/target}
programs=${BUILT:-$target/release}
rival=${RIVAL:-yes}

# A delta frame of loadtest's publisher is about 6 packets of 1,006 bytes.
video=(--bytes 1006 --rate 180)

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

# needs PROGRAM PACKAGE...: from Debian, where it is missing.
needs() {
    local program=$1 sudo=""
    shift
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null 2>&1 && return
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    echo "compare.sh: installing $*" >&2
    # A package that starts itself as a service would be load that nobody asked for.
    { $sudo apt-get update -qq &&
        $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@"; } >&2 ||
        die "cannot install $*"
    [ ! -d /run/systemd/system ] || $sudo systemctl disable --now --quiet janus coturn 2>/dev/null || true
}

# run NAME COMMAND...: one report. A relay that fails leaves a hole in the table and a line in it, not an end.
run() {
    local name=$1
    shift
    printf '== %s\n' "$name" >&2
    # As somebody else would type it, whatever folder the program came from.
    printf '%s %s\n' "$(basename "$1")" "${*:2}" >>"$out/commands.txt"
    if ! "$@" >"$out/$name.json"; then
        rm -f "$out/$name.json"
        echo "$name failed" | tee -a "$out/failures.txt" >&2
    fi
}

floor() {
    local name=$1
    shift
    run "floor-$name" "$programs/floor" "$@"
}

# load NAME TARGET ARGUMENTS...: loadtest against a server that it starts.
load() {
    local name=$1 server=$2
    shift 2
    MILLIWAY_BIN=$programs/milliway run "$server-$name" "$programs/loadtest" "$@" --target "$server" --seconds "$seconds"
}

steady_floors() {
    local n=$1 packets
    local stream=(--subscribers "$n" --seconds "$steady_seconds")
    floor "$n-seal" seal "${stream[@]}" --bytes 1006
    floor "$n-seal-audio" seal "${stream[@]}" --bytes 100
    floor "$n-single" single "${stream[@]}" "${video[@]}"
    for packets in 1 2 4 6 10 20; do
        floor "$n-batch-$packets" batch --packets "$packets" "${stream[@]}" "${video[@]}"
    done
    floor "$n-audio" batch --packets 1 "${stream[@]}" --bytes 100 --rate 50
}

# one_load SCENARIO SIZE ARRIVAL: its floors, Milliway, Janus.
one_load() {
    local scenario=$1 size=$2 arrival=$3 option=--subscribers tick
    [ "$scenario" = broadcast ] || option=--participants
    for tick in 0 5; do
        floor "$scenario-$size-$arrival-tick-$tick" load "$scenario" --subscribers "$size" --arrival "$arrival" \
            --tick "$tick" --seconds "$seconds"
    done
    load "$scenario-$size-$arrival" milliway sfu "$scenario" "$option" "$size" --arrival "$arrival" --shards 1
    [ "$rival" = none ] ||
        load "$scenario-$size-$arrival" janus sfu "$scenario" "$option" "$size" --arrival "$arrival" --shards 2
}

compare_sfu() {
    local n arrival
    for n in "${subscribers[@]}"; do
        steady_floors "$n"
        for arrival in burst paced; do one_load broadcast "$n" "$arrival"; done
    done
    for arrival in burst paced; do one_load conference "$participants" "$arrival"; done
}

compare_scale() {
    local n
    for n in 50 1000; do
        floor "broadcast-$n-burst-tick-0" load broadcast --subscribers "$n" --tick 0 --seconds "$seconds"
        load "broadcast-$n-burst" milliway sfu broadcast --subscribers "$n" --shards 1
    done
    # Two shards share the generator's core: what counts is the CPU time of a packet and both shares, not the latency.
    for n in 1 2; do
        load "broadcast-400-burst+$n-shards" milliway sfu broadcast --subscribers 400 --shards "$n"
    done
}

compare_sweep() {
    local arrival
    for arrival in burst paced; do
        load "sweep-$arrival" milliway sfu sweep --from 200 --arrival "$arrival" --shards 1
    done
    [ "$rival" = none ] || load sweep-burst janus sfu sweep --from 50 --arrival burst --shards 2
}

compare_loss() {
    local whose
    load broadcast-500-burst milliway sfu broadcast --subscribers 500 --shards 1
    for whose in subscribers publisher; do
        load "broadcast-500-burst-loss-$whose" milliway sfu broadcast --subscribers 500 --shards 1 \
            --loss-percent 1 --loss-on "$whose"
    done
}

compare_turn() {
    local server n
    # A hundred streams of video leave the relay asleep most of the time, so that waking up is what they cost; at four
    # hundred, 580 Mbit/s, it is relaying.
    for n in 100 400; do
        floor "turn-bursts-$n" turn --batch --allocations "$n" --burst 6 --bytes 1000 --rate 180 --seconds "$seconds"
    done
    floor turn-sparse turn --allocations 2000 --bytes 160 --rate 50 --seconds "$seconds"
    for server in milliway coturn; do
        [ "$server $rival" != "coturn none" ] || continue
        for n in 100 400; do load "turn-bursts-$n" "$server" turn bursts --allocations "$n" --shards 1; done
        load turn-sparse "$server" turn sparse --shards 1
        load turn-tcp "$server" turn tcp --shards 1
        load turn-tls "$server" turn tcp --transport tls --shards 1
        for n in 2000 10000; do
            load "turn-allocations-$n" "$server" turn allocations --allocations "$n" --shards 1
        done
    done
}

versions() {
    [ "$rival" = none ] || dpkg-query -W -f '${Package} ${Version}\n' janus coturn 2>/dev/null | paste -sd, | sed 's/,/, /g'
}

readme() {
    cat <<END
# $date, $machine: compare.sh $what

| | |
|---|---|
| machine | $(awk -F': *' '/^model name/ {print $2; exit}' /proc/cpuinfo), $(nproc) cores, $(awk '/^MemTotal/ {printf "%.0f", $2 / 1048576}' /proc/meminfo) GiB |
| kernel | $(uname -sr) |
| compiler | $(rustc --version), release profile |
| commit | $(git rev-parse --short HEAD)$(git diff --quiet HEAD -- || echo ", with changes") |
| rivals | $(versions) |
| before it began | $busy % of all cores busy |
| each measured for | $seconds s |

END
    cat "$out/tables.md"
    if [ -s "$out/failures.txt" ]; then
        printf '\nThese runs failed and are missing above:\n\n'
        sed 's/^/- /' "$out/failures.txt"
    fi
    cat <<END

A floor counts the thread that forwards; a relay all threads of its process, to a hundredth of a second. What the floors
do, and which one a relay is measured against: [benches/README.md](../../README.md).

Commands, in order:

\`\`\`
$(cat "$out/commands.txt")
\`\`\`
END
}

if [ -z "${BUILT:-}" ]; then
    cargo build --release --locked -p milliway -p loadtest -p benches
fi
for program in floor compare loadtest milliway; do
    [ -x "$programs/$program" ] || die "no $programs/$program"
done
if [ "$rival" != none ]; then
    case $what in
        sfu | sweep)
            needs janus janus
            needs ip iproute2
            needs unshare util-linux
            ;;
        turn) needs turnserver coturn ;;
    esac
fi

date=$(date +%F)
machine=${MACHINE:-$(machine_name)}
busy=$(percent_busy)
name=$date-$machine
[ "$what" = sfu ] || name=$name-$what
out=${OUT:-benches/runs/$name}
if [ -z "${OUT:-}" ] && [ "$busy" -gt 5 ]; then
    out=$target/compare/$name
    echo "compare.sh: $busy % of all cores are busy: these figures are not to be committed" >&2
fi
# A run never writes over another one.
base=$out
for ((number = 2; ; number++)); do
    [ -e "$out" ] || break
    out=$base-$number
done
mkdir -p "$out"

"compare_$what"
"$programs/compare" "$out" >"$out/tables.md"
readme >"$out/README.md"
cat "$out/tables.md"
failures=$(cat "$out/failures.txt" 2>/dev/null || true)
rm -f "$out/commands.txt" "$out/tables.md" "$out/failures.txt"
echo "compare.sh: reports in $out" >&2
[ -z "$failures" ] || die "some runs failed: $failures"
