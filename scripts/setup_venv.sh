# Sourced by demo.sh and test.sh: makes .venv with TNet in it, or sees that it's there already.
# PYTHON=/path/to/python3 chooses the Python that makes it.

tnet_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tnet_python="$tnet_root/.venv/bin/python"

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Prints a Python of version 3.11 or newer, or ends with the way out.
find_python() {
    local candidate candidates=(python3 python3.13 python3.12 python3.11)
    local way_out="name another one: PYTHON=/path/to/python3 bash $0"
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        is_recent "$candidate" || continue
        "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
            die "$candidate lacks the module venv: install it (on Debian and Ubuntu: apt install python3-venv), or $way_out"
        echo "$candidate"
        return
    done
    die "TNet needs Python 3.11 or newer, and none was found (tried ${candidates[*]}): install one, or $way_out"
}

# Prints what a complete installation of the named extras leaves in its stamp.
stamp_of() {
    "$tnet_python" - "$tnet_root" "$1" <<'PYTHON_END'
import hashlib, pathlib, sys
root, extras = sys.argv[1:]
facts = pathlib.Path(root, "pyproject.toml").read_bytes() + root.encode()
print(hashlib.sha256(facts).hexdigest(), extras)
PYTHON_END
}

# setup_venv core | setup_venv test
setup_venv() {
    local extras=$1 stamp="$tnet_root/.venv/tnet-installed" python what="$tnet_root"
    if [ -x "$tnet_python" ] && [ -f "$stamp" ]; then
        case "$(cat "$stamp")" in
            "$(stamp_of test)" | "$(stamp_of "$extras")")
                say "TNet is installed in .venv, and pyproject.toml hasn't changed since"
                return
                ;;
        esac
    fi
    rm -f "$stamp"
    if [ -x "$tnet_python" ] && "$tnet_python" -m pip --version >/dev/null 2>&1; then
        is_recent "$tnet_python" ||
            die ".venv holds $("$tnet_python" --version), TNet needs Python 3.11 or newer: delete the folder .venv and run this again"
    else
        python=$(find_python)
        say "making .venv with $("$python" --version)"
        "$python" -m venv "$tnet_root/.venv"
    fi
    [ "$extras" = core ] || what="$tnet_root[$extras]"
    say "installing TNet and what it needs into .venv (with PyTorch; some minutes the first time)"
    "$tnet_python" -m pip install --disable-pip-version-check -e "$what"
    stamp_of "$extras" >"$stamp.new"
    mv "$stamp.new" "$stamp"
}
