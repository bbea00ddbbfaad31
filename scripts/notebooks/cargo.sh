#!/usr/bin/env bash
# What evcxr runs as cargo, and asks as rustup where that is: kernel.sh puts links of both names in front of the search path. Not a
# command for people.
#
# Offline, cargo would take the newest versions that any Rust work has left on this machine, and it forgets a lock file's versions while
# a crate has no dependencies, as evcxr's has at first. So our Cargo.lock goes beside evcxr's crate once that needs lnfree.
set -euo pipefail
if [ "${0##*/}" = rustup ]; then
    if [ "$*" = 'which cargo' ]; then
        echo "${0%/*}/cargo"
        exit
    fi
    exec "$LNFREE_RUSTUP" "$@"
fi
# In evcxr's crate alone: a cell may run cargo elsewhere.
if [ . -ef "${EVCXR_TMPDIR:-}" ] && grep -qs '^ *lnfree *=' Cargo.toml && ! grep -qs '^name = "lnfree"' Cargo.lock; then
    cp "$LNFREE_CARGO_LOCK" Cargo.lock
fi
exec "$LNFREE_CARGO" "$@"
