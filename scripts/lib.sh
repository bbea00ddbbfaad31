# shellcheck shell=bash
# What the scripts of this folder share. Source it; it is no command of its own.

# The libtorch that tch in Cargo.toml is made for: raise both together.
LIBTORCH_VERSION=2.11.0

# shellcheck disable=SC2034  # for whoever sources this
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
NAME=$(basename "$0" .sh)

say() { printf '%s: %s\n' "$NAME" "$*"; }

# One clear line, and out.
die() {
    printf '%s: %s\n' "$NAME" "$*" >&2
    exit 1
}

# Where evcxr builds the cells of notebooks: .evcxr here, but for a space in the path, which evcxr takes for its end.
cells_folder() {
    local cells=$ROOT/.evcxr
    case $cells in
    *[[:space:]]*) cells=${XDG_CACHE_HOME:-$HOME/.cache}/lnfree/cells-$(printf '%s' "$ROOT" | cksum | cut -d ' ' -f 1) ;;
    esac
    case $cells in
    *[[:space:]]*) die "$cells: notebooks cannot be built in a folder with a space in its name; set XDG_CACHE_HOME to another" ;;
    esac
    printf '%s\n' "$cells"
}

# A heading above what follows.
step() { printf '\n== %s\n' "$*"; }

# Sets up what is missing, builds the binary, and lets LNFREE name it, unless that names one already. The dev profile:
# libtorch does the work, and what is hot in Rust is optimised there too.
build() {
    [ -z "${LNFREE:-}" ] || return 0
    "$ROOT/scripts/setup.sh"
    say 'building lnfree (the first time takes some minutes)'
    cargo build --locked --quiet --manifest-path "$ROOT/Cargo.toml"
    export LNFREE=$ROOT/target/debug/lnfree
}

# Is there a checkpoint in run $1? Killed right after its first one, a run has that and no link to it yet.
has_checkpoint() { [ -n "$(find "$1/checkpoints" -maxdepth 1 -name 'step-*' 2>/dev/null)" ]; }

have() { command -v "$1" >/dev/null 2>&1; }

# Is version $1 at least version $2?
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Takes the lock on the file that descriptor $1 is open on, and keeps it while any process has that open. Fails where another one
# has it, or with a second argument waits. Macs have no flock command; Python's serves as well, for a lock is the open file's.
take_lock() {
    if have flock; then
        if [ $# -gt 1 ]; then flock "$1"; else flock -n "$1"; fi
        return
    fi
    python3 -c 'import fcntl, sys
try:
    fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX | (0 if len(sys.argv) > 2 else fcntl.LOCK_NB))
except BlockingIOError:
    sys.exit(1)' "$@"
}

# Runs the command after $1 for at most $1 seconds, and fails with 124 if that was not enough. Macs have no timeout command, but Perl.
at_most() {
    local seconds=$1 code=0
    shift
    if have timeout; then
        timeout -k 5 "$seconds" "$@"
        return
    fi
    perl -e 'alarm shift; exec @ARGV or exit 127' "$seconds" "$@" || code=$?
    # Ended by that alarm.
    if [ "$code" -eq 142 ]; then code=124; fi
    return "$code"
}

# How shared libraries end here: so, or dylib on macOS.
so_suffix() { case $(uname -s) in Darwin) echo dylib ;; *) echo so ;; esac; }

# The version of the libtorch in folder $1 without its +cpu or +cu130; nothing where none can be read.
# libtorch archives have a build-version file, PyTorch packages a version.py.
libtorch_version() {
    local version=
    if [ -f "$1/build-version" ]; then
        version=$(head -n 1 "$1/build-version")
    elif [ -f "$1/version.py" ]; then
        version=$(sed -n "s/^__version__ *= *['\"]\([^'\"]*\)['\"].*/\1/p" "$1/version.py" | head -n 1)
    fi
    printf '%s\n' "${version%%+*}"
}

# Prints the first thing that folder $1 lacks of what the crate is compiled and linked against; nothing if all is there.
libtorch_lacks() {
    local file suffix
    suffix=$(so_suffix)
    for file in "lib/libtorch_cpu.$suffix" "lib/libtorch.$suffix" "lib/libc10.$suffix" \
        include/torch/csrc/api/include/torch/torch.h; do
        if [ ! -s "$1/$file" ]; then
            printf '%s\n' "$file"
            return
        fi
    done
}

# Is folder $1 a whole libtorch of the right version?
libtorch_usable() { [ "$(libtorch_version "$1")" = "$LIBTORCH_VERSION" ] && [ -z "$(libtorch_lacks "$1")" ]; }

libtorch_has_cuda() { [ -s "$1/lib/libtorch_cuda.$(so_suffix)" ]; }
