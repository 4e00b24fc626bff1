#!/usr/bin/env bash
# Checks everything: style, types, tests. Arguments go to pytest:  bash scripts/test.sh -k geometry
# A fresh machine needs only git and Python 3.11 or newer; the rest goes into the folder .venv.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"
setup_venv test
cd "$tnet_root"

# Installs a command that the viewer's tests need, where that can be done without asking.
need() {
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "NOT TESTED IN A BROWSER: $1 is missing and cannot be installed here (apt-get as root could)"
        return
    fi
    say "installing $1 for the viewer's tests"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"; } >/dev/null ||
        say "NOT TESTED IN A BROWSER: apt-get could not install $1"
}
need npm
need chromium
bash scripts/assets.sh || say "the viewer's browser test is skipped"

say "style: ruff check"
"$tnet_python" -m ruff check .
say "style: ruff format"
"$tnet_python" -m ruff format --check .
say "types: mypy (about a minute the first time)"
"$tnet_python" -m mypy
say "tests: pytest"
# A file of tests a process at a time: what a file sets up is set up once. Each process takes a GB.
exec "$tnet_python" -P -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
