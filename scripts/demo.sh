#!/usr/bin/env bash
# Installs TNet into the folder .venv if need be, then runs its demonstration.
# A fresh machine needs only git and Python 3.11 or newer.  Options:  bash scripts/demo.sh --help
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"
setup_venv core
bash "$tnet_root/scripts/assets.sh" || say "the demo goes on without the viewer"

say "tnet demo"
exec "$tnet_python" -P -m tnet.scripts.main demo "$@"
