# shellcheck shell=bash
# How a binary that was built elsewhere finds libtorch on a machine that has it in Python's torch alone. Source it after scripts/lib.sh.

starts() { "$1" --version >/dev/null 2>&1; }

# What a command that fails says for itself.
first_error() { { "$@" 2>&1 >/dev/null || true; } | sed -n '/[^ ]/{p;q;}' | cut -c 1-300; }

# Lets $LNFREE load the libtorch that Python $1 has.
take_pythons_libtorch() {
    local torch
    torch=$("$1" -c 'import torch; print(torch.__path__[0])' 2>/dev/null) || return 1
    LD_LIBRARY_PATH=$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} starts "$LNFREE" || return 1
    export LD_LIBRARY_PATH=$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}
