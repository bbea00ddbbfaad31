#!/usr/bin/env bash
# Starts the Rust kernel: what kernel.json of scripts/notebook.sh runs. Not a command for people.
#
#   kernel.sh EVCXR_JUPYTER CONNECTION_FILE
#
# Each kernel needs a folder for its builds that no other kernel uses at the same time. The first free one of .evcxr/kernel-1,
# kernel-2, … is taken, and filled from .evcxr/warm, where all dependencies are compiled already.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
STATE=$ROOT/.evcxr
evcxr=$1 connection=$2

# Jupyter may have been started from a desktop, which knows nothing of rustup.
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
export EVCXR_CONFIG_DIR=$STATE/config

if [ -n "${LNFREE_WARM_UP:-}" ]; then
    export EVCXR_TMPDIR=$STATE/warm
    mkdir -p "$EVCXR_TMPDIR"
    exec "$evcxr" --control_file "$connection"
fi

[ -e "$STATE/warm/complete" ] || echo "lnfree: dependencies are not compiled yet, the first cell takes minutes; ./scripts/notebook.sh --setup does it beforehand" >&2
for ((slot = 1; ; slot++)); do
    EVCXR_TMPDIR=$STATE/kernel-$slot
    mkdir -p "$EVCXR_TMPDIR"
    # The lock lives as long as the kernel and the process that runs the cells, which inherit it.
    exec 8>"$EVCXR_TMPDIR.lock"
    if take_lock 8; then break; fi
done
export EVCXR_TMPDIR
if [ -e "$STATE/warm/complete" ] && ! cmp -s "$STATE/warm/complete" "$EVCXR_TMPDIR/complete"; then
    rm -rf "$EVCXR_TMPDIR"
    copy=(cp -a)
    [ "$(uname -s)" != Linux ] || copy+=(--reflink=auto)
    "${copy[@]}" "$STATE/warm" "$EVCXR_TMPDIR"
fi
# What cells of the last kernel left; a library of the same name would be taken for the new one.
rm -f "$EVCXR_TMPDIR"/target/*/debug/libcode_*

# Jupyter's interrupt is a SIGINT for the kernel and for the process that runs the cells. evcxr must outlive it, and does when it
# is ignored; lnfree's long functions install a handler of their own, stop at the next step, and say so.
trap '' INT
# What evcxr itself says is no output of a cell; Jupyter would put it into the terminal.
exec "$evcxr" --control_file "$connection" >"$EVCXR_TMPDIR.log" 2>&1
