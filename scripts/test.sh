#!/usr/bin/env bash
# Checks everything: style, types, tests. Arguments go to pytest:  bash scripts/test.sh -k geometry
# A fresh machine needs only git and Python 3.11 or newer; the rest goes into the folder .venv.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"
setup_venv test
cd "$tnet_root"

say "style: ruff check"
"$tnet_python" -m ruff check .
say "style: ruff format"
"$tnet_python" -m ruff format --check .
say "types: mypy (about a minute the first time)"
"$tnet_python" -m mypy
say "tests: pytest"
exec "$tnet_python" -P -m pytest "$@"
