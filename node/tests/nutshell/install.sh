#!/usr/bin/env bash
# Installs Nutshell, the Cashu mint and wallet in Python that the top-up tests talk to, into a virtual environment at $1,
# with every version pinned. A second call finds it done; calls at the same time wait for each other.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock 9
cmp -s "$here/requirements.txt" "$folder/installed.txt" && exit 0
rm -rf "$folder"
python3 -m venv "$folder"
"$folder/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
cp "$here/requirements.txt" "$folder/installed.txt"
