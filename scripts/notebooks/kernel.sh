#!/usr/bin/env bash
# Starts the Rust kernel: what kernel.json of scripts/notebook.sh runs. Not a command for people.
#
#   kernel.sh EVCXR_JUPYTER CONNECTION_FILE
#
# Each kernel needs a folder for its builds that no other kernel uses at the same time. The first free one of kernel-1, kernel-2, …
# in cells_folder is taken, and filled from warm, where all dependencies are compiled already.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
STATE=$ROOT/.evcxr
CELLS=$(cells_folder)
evcxr=$1 connection=$2

# Jupyter may have been started from a desktop, which knows nothing of rustup.
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
export EVCXR_CONFIG_DIR=$STATE/config

# A cell's library looks for Rust's standard library by a path from the folder that it was compiled in, one deeper than
# where it lies: below a home that has rustup's folder too, that path leads nowhere.
libraries=LD_LIBRARY_PATH
[ "$(uname -s)" != Darwin ] || libraries=DYLD_LIBRARY_PATH
export "$libraries=$(rustc --print target-libdir)${!libraries:+:${!libraries}}"

# evcxr asks rustup for cargo, or else the search path: both lead to cargo.sh.
LNFREE_CARGO=$(rustup which cargo 2>/dev/null || command -v cargo)
LNFREE_RUSTUP=$(command -v rustup || true)
export LNFREE_CARGO LNFREE_RUSTUP LNFREE_CARGO_LOCK=$ROOT/Cargo.lock
mkdir -p "$STATE/tools"
ln -sf "$ROOT/scripts/notebooks/cargo.sh" "$STATE/tools/cargo"
if [ -n "$LNFREE_RUSTUP" ]; then
    ln -sf "$ROOT/scripts/notebooks/cargo.sh" "$STATE/tools/rustup"
else
    rm -f "$STATE/tools/rustup"
fi
export PATH=$STATE/tools:$PATH

if [ -n "${LNFREE_WARM_UP:-}" ]; then
    export EVCXR_TMPDIR=$CELLS/warm
    mkdir -p "$EVCXR_TMPDIR"
    exec "$evcxr" --control_file "$connection"
fi

[ -e "$CELLS/warm/complete" ] || echo "lnfree: dependencies are not compiled yet, the first cell takes minutes; ./scripts/notebook.sh --setup does it beforehand" >&2
for ((slot = 1; ; slot++)); do
    EVCXR_TMPDIR=$CELLS/kernel-$slot
    mkdir -p "$EVCXR_TMPDIR"
    # The lock lives as long as the kernel and the process that runs the cells, which inherit it.
    exec 8>"$EVCXR_TMPDIR.lock"
    if take_lock 8; then break; fi
done
export EVCXR_TMPDIR
if [ -e "$CELLS/warm/complete" ] && ! cmp -s "$CELLS/warm/complete" "$EVCXR_TMPDIR/complete"; then
    rm -rf "$EVCXR_TMPDIR"
    copy=(cp -a)
    [ "$(uname -s)" != Linux ] || copy+=(--reflink=auto)
    "${copy[@]}" "$CELLS/warm" "$EVCXR_TMPDIR"
fi
# What cells of the last kernel left; a library of the same name would be taken for the new one.
rm -f "$EVCXR_TMPDIR"/target/*/debug/libcode_*

# Jupyter's interrupt is a SIGINT for the kernel and for the process that runs the cells. evcxr must outlive it, and does when it
# is ignored; lnfree's long functions install a handler of their own, stop at the next step, and say so.
trap '' INT
# What evcxr itself says is no output of a cell; Jupyter would put it into the terminal.
exec "$evcxr" --control_file "$connection" >"$EVCXR_TMPDIR.log" 2>&1
