#!/usr/bin/env bash
# Puts OpenSeadragon, which draws the images of `tnet view`, into scripts/viewer/vendor/, from where
# it gets into the wheel. Needs npm; scripts/viewer/package-lock.json says which version and content.
# A complete copy is left as it is.  bash scripts/assets.sh
set -euo pipefail

viewer=$(cd "$(dirname "${BASH_SOURCE[0]}")/viewer" && pwd)
vendor="$viewer/vendor"

say() { printf '==> %s\n' "$*" >&2; }

if cmp -s "$viewer/package-lock.json" "$vendor/package-lock.json"; then
    say "the viewer's OpenSeadragon is in place"
    exit 0
fi
if ! command -v npm >/dev/null; then
    say "NO VIEWER: npm is missing, so \`tnet view\` cannot be built; install it (on Debian and Ubuntu: apt install npm) and run bash scripts/assets.sh"
    exit 3
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$viewer/package.json" "$viewer/package-lock.json" "$viewer/.npmrc" "$work"
say "fetching OpenSeadragon"
(cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --silent) || {
    say "NO VIEWER: npm could not fetch OpenSeadragon; check the network and run bash scripts/assets.sh again"
    exit 3
}
mkdir -p "$vendor"
# The lock file last: it says that the rest is there.
cp "$work/node_modules/openseadragon/build/openseadragon/openseadragon.min.js" "$vendor/openseadragon.min.js"
cp "$work/node_modules/openseadragon/LICENSE.txt" "$vendor/openseadragon.LICENSE.txt"
cp "$work/package-lock.json" "$vendor/package-lock.json"
