#!/usr/bin/env bash
# Every check of the project, from a fresh clone: installs what is missing, then format, lints, unit, property, vector,
# simulation, interop and end-to-end tests, dependency policy and documentation. Goes on after a failure, says what
# failed, and ends with "N passed, N failed" summed over all of it. Exit 1 if anything failed.
#
#   ./test.sh            everything
#   ./test.sh rust web   only the named parts: lint rust interop web e2e policy
set -u
cd "$(dirname "$0")"

parts="${*:-lint rust interop web e2e policy}"
target="${CARGO_TARGET_DIR:-$PWD/target}"
logs="$target/test-logs"
mkdir -p "$logs"
passed=0
failed=0
broken=()

wants() { case " $parts " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# count NAME PASSED FAILED EXIT-CODE: adds up, and makes a run that died without a count a failure.
count() {
    passed=$((passed + $2))
    failed=$((failed + $3))
    if [ "$3" -gt 0 ]; then broken+=("$1"); fi
    if [ "$4" -ne 0 ] && [ "$3" -eq 0 ]; then
        failed=$((failed + 1))
        broken+=("$1 (exit $4)")
    fi
    printf '== %s: %s passed, %s failed (%s s)\n' "$1" "$2" "$3" "$((SECONDS - started))"
}

# gate NAME COMMAND...: one check that passes or fails as a whole.
gate() {
    local name=$1 code=0
    shift
    started=$SECONDS
    printf '\n== %s\n' "$name"
    "$@" || code=$?
    if [ "$code" -eq 0 ]; then count "$name" 1 0 0; else count "$name" 0 1 "$code"; fi
}

# cargo_tests NAME ARGS...: cargo test, summed over its binaries. An ignored test counts as failed: nothing may be skipped.
cargo_tests() {
    local name=$1 log="$logs/$1.log" code
    shift
    started=$SECONDS
    printf '\n== %s\n' "$name"
    timeout 1800 cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log" | grep -vE '^(test .* ok|running 0 tests|)$'
    code=${PIPESTATUS[0]}
    count "$name" \
        "$(awk '/^test result:/ {n += $4} END {print n + 0}' "$log")" \
        "$(awk '/^test result:/ {n += $6 + $8} END {print n + 0}' "$log")" "$code"
}

# node_tests NAME SECONDS FILES...: node's own test runner, one file after the other (Node 18 cannot be told to).
node_tests() {
    local name=$1 log="$logs/$1.log" seconds=$2 code=0 file
    shift 2
    started=$SECONDS
    printf '\n== %s\n' "$name"
    : >"$log"
    for file in "$@"; do
        timeout "$seconds" node --test --test-reporter=tap "$file" 2>&1 | tee -a "$log" |
            grep -E '^ *(not ok|ok) |error:|message:|expected:|actual:'
        [ "${PIPESTATUS[0]}" -eq 0 ] || code=1
    done
    count "$name" \
        "$(awk '/^# pass / {n += $3} END {print n + 0}' "$log")" \
        "$(awk '/^# (fail|cancelled|skipped|todo) / {n += $3} END {print n + 0}' "$log")" "$code"
}

# Debian packages by the program that each one brings.
install_missing() {
    local missing=() sudo=""
    while read -r program package; do
        command -v "$program" >/dev/null 2>&1 || missing+=("$package")
    done <<'LIST'
chromium chromium
turnutils_uclient coturn
janus janus
ip iproute2
unshare util-linux
openssl openssl
certutil libnss3-tools
nft nftables
tcpdump tcpdump
nats-server nats-server
cc gcc
c++ g++
node nodejs
npm npm
ps procps
LIST
    # The mint that top-ups are tested with lives in a virtual environment.
    python3 -m ensurepip --version >/dev/null 2>&1 || missing+=(python3 python3-venv)
    # Debian keeps the server's programs off the PATH.
    compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing+=(postgresql)
    [ "${#missing[@]}" -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || {
            echo "test.sh: needs root or sudo to install: ${missing[*]}" >&2
            return 1
        }
        sudo="sudo"
    fi
    echo "installing: ${missing[*]}"
    $sudo apt-get update -qq &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$logs/apt.log" 2>&1 ||
        { tail -n 20 "$logs/apt.log" >&2; return 1; }
}

# A PostgreSQL of this run's own: a private directory, an unprivileged user, a Unix socket and no port, fsync on. The tests
# find it through MILLIWAY_TEST_POSTGRES; without that each test binary starts one for itself.
postgres_home=""
start_postgres() {
    local bin as=()
    bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    postgres_home=$(mktemp -d)
    if [ "$(id -u)" -eq 0 ]; then
        chown postgres "$postgres_home"
        as=(runuser -u postgres --)
    fi
    (cd "$postgres_home" && "${as[@]}" "$bin/initdb" -D data -U milliway -A trust >initdb.log 2>&1) &&
        (cd "$postgres_home" && "${as[@]}" "$bin/pg_ctl" -s -w -D data -l server.log \
            -o "-k $postgres_home -c listen_addresses= -c fsync=on -c max_connections=100" start) || return 1
    stop_postgres="${as[*]} $bin/pg_ctl -s -D $postgres_home/data -m immediate stop"
    export MILLIWAY_TEST_POSTGRES="postgres://milliway@${postgres_home//\//%2F}/postgres"
}
end_postgres() {
    [ -n "$postgres_home" ] || return 0
    (cd / && ${stop_postgres:-true} >/dev/null 2>&1)
    rm -rf "$postgres_home"
}
trap end_postgres EXIT

# Nutshell, the Cashu mint and wallet that top-ups are tested with; the tests start it, each for itself.
install_nutshell() {
    node/tests/nutshell/install.sh "$target/nutshell" && export MILLIWAY_TEST_NUTSHELL="$target/nutshell"
}

install_cargo_deny() {
    command -v cargo-deny >/dev/null 2>&1 && return 0
    echo "installing cargo-deny (once, about four minutes on two cores)"
    cargo install -q --locked --debug cargo-deny --version 0.20.2 --target-dir "$target/cargo-deny"
}

npm_packages() { (cd web && npm ci --no-audit --no-fund --loglevel=error); }

document() { RUSTDOCFLAGS="-D warnings" cargo doc -q --locked --workspace --no-deps --document-private-items; }

# The advisory database is fetched from the network; where that is not to be had, the other three checks still hold.
policy() {
    cargo deny --all-features --locked check bans licenses sources
}

started=$SECONDS
install_missing || { echo "0 passed, 1 failed"; exit 1; }

if wants lint; then
    gate "format" cargo fmt --all --check
    gate "clippy" cargo clippy -q --locked --workspace --all-targets -- -D warnings
    gate "fuzz targets" cargo check -q --locked --manifest-path fuzz/Cargo.toml --target-dir "$target/fuzz"
    # A few seconds each, on what anybody can send to the TURN port before showing a password, and on what follows.
    gate "fuzz smoke" fuzz/smoke.sh 10 demux stream stun turn
fi
if wants rust || wants interop || wants e2e; then
    gate "release build" cargo build --release --locked -p milliway
fi
export MILLIWAY_BIN="$target/release/milliway"
if wants rust; then gate "postgresql started" start_postgres; fi
if wants rust; then gate "Cashu mint installed" install_nutshell; fi
if wants rust; then cargo_tests "rust" --workspace --exclude loadtest; fi
if wants rust; then cargo_tests "nats" -p milliway --features nats --test records_nats; fi
if wants interop; then cargo_tests "interop" -p loadtest; fi
if wants web || wants e2e; then gate "npm packages" npm_packages; fi
if wants web; then node_tests "web" 120 web/tests/unit/*.test.mjs; fi
if wants e2e; then node_tests "e2e" 400 web/tests/e2e/*.test.mjs; fi
if wants policy; then
    gate "documentation" document
    gate "cargo-deny installed" install_cargo_deny
    gate "dependency policy" policy
fi

printf '\n'
for name in "${broken[@]:+${broken[@]}}"; do printf 'failed: %s (see %s)\n' "$name" "$logs"; done
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
