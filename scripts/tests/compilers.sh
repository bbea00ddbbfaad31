#!/usr/bin/env bash
# The tests of kernels and the conformance tests with native/ compiled by other compilers, one after the other. Run it by hand.
#
#   ./scripts/tests/compilers.sh [COMPILER…]    these, or what there is of g++ 11 to 15 and clang++ 15 to 22
#
# Only native/ is compiled anew: a folder with another c++ comes first in the path, which cargo takes no notice of.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
cd "$ROOT"

if [ $# -eq 0 ]; then
    for name in g++-{11,12,13,14,15} clang++-{15,16,17,18,19,20,21,22}; do
        ! have "$name" || set -- "$@" "$name"
    done
fi
[ $# -gt 0 ] || die "there is none of the compilers: apt-get install g++-11 clang-15"
./scripts/setup.sh
unset CXX CXXFLAGS
folder=$(mktemp -d)
# What was compiled in the end is compiled by the usual compiler again when it is next needed.
trap 'rm -rf "$folder"; touch lnfree/build.rs' EXIT

for compiler in "$@"; do
    have "$compiler" || die "$compiler is missing"
    step "$("$compiler" --version | head -n 1)"
    printf '#!/bin/sh\necho "$@" >>"%s"\nexec "%s" "$@"\n' "$folder/log" "$(command -v "$compiler")" >"$folder/c++"
    chmod +x "$folder/c++"
    : >"$folder/log"
    touch lnfree/build.rs
    PATH=$folder:$PATH cargo test --locked --lib --test fast_paths --test conformance_forward --test conformance_training \
        --test conformance_formats --test conformance_plans
    grep -q native "$folder/log" || die "$compiler was not used: is another one set in the environment or in cargo's configuration?"
done
say "passed with $*"
