#!/usr/bin/env bash
# Everything that has to pass before a change goes in, the quickest first; each step says how long the one before it took.
#
#   ./scripts/test.sh [--all-notebooks | --no-notebooks] [ARGUMENTS]
#
# Arguments go to cargo test: ./scripts/test.sh --test setup. Of the notebooks, 00_quickstart and scaling are executed;
# --all-notebooks executes the others too, --no-notebooks none, for which nothing of Jupyter is installed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

notebooks="00_quickstart scaling"
case ${1:-} in
--all-notebooks) notebooks=all && shift ;;
--no-notebooks) notebooks=none && shift ;;
esac

# Ends the step before, and begins one called $1.
current='' began=0
begin() {
    [ -z "$current" ] || printf -- '-- %s: %s s\n' "$current" $((SECONDS - began))
    current=$1 began=$SECONDS
    step "$1"
}

begin setup
./scripts/setup.sh
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || die "cargo $component is missing: rustup component add rustfmt clippy"
done

begin 'cargo fmt'
cargo fmt --all --check
! have python3 || ./scripts/tch_functions.py --check

begin 'the set-up script'
./scripts/tests/setup_test.sh
./scripts/tests/portable_test.sh

begin 'kernels for GPUs, on the CPU'
./scripts/tests/gpu_kernels_test.sh

begin 'cargo clippy'
cargo clippy --locked --workspace --all-targets -- --deny warnings
cargo clippy --locked --package lnfree --lib --no-default-features -- --deny warnings

begin 'cargo doc'
RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps

# A test of the crate reads it.
begin "GPT-2's tokenizer"
./scripts/tests/gpt2_tokenizer.sh

begin 'cargo test'
if [ $# -gt 0 ]; then
    cargo test --locked --workspace "$@"
else
    cargo test --locked --workspace --lib --bins --tests --examples
    begin 'without features'
    cargo test --locked --package lnfree --no-default-features --test conformance_forward --test conformance_training --test model --test without_features
fi

if have mdbook; then
    begin 'the book'
    mdbook build docs
fi

begin 'the benchmark script'
cargo build --locked --quiet
LNFREE=$ROOT/target/debug/lnfree ./scripts/tests/bench_test.sh

begin 'the script for a GPU'
LNFREE=$ROOT/target/debug/lnfree ./scripts/tests/gpu_check_test.sh

# Python needs a torch of its own, 5 GB, which continuous integration gets and others have or have not.
peers=${XDG_CACHE_HOME:-$HOME/.cache}/lnfree/python
if [ -n "${CI-}" ] || [ -d "$peers/envs/torch" ]; then
    begin 'the Python package in transformers'
    LNFREE=$ROOT/target/debug/lnfree ./scripts/tests/python_peers.sh "$peers" transformers5
    begin 'exports in transformers'
    OMP_NUM_THREADS=1 "$peers/envs/transformers5/bin/python" \
        scripts/tests/hf_test.py target/debug/lnfree lnfree/tests/vectors/checkpoint/step60
else
    say "the Python package is not tested: ./scripts/tests/python_peers.sh $peers transformers5 gets torch and does it"
fi

begin 'the whole study of the embedded models'
study=$(mktemp -d)
trap 'rm -rf "$study"' EXIT
./scripts/eval_all.sh --suite nano --out "$study"
[ "$(grep -c '| as recorded |$' "$study/results.md")" -eq 6 ] || die "the study of the embedded models came out differently, see above"

if [ "$notebooks" != none ]; then
    begin 'notebooks'
    ./scripts/notebook.sh --setup
    "${XDG_CACHE_HOME:-$HOME/.cache}/lnfree/jupyter/bin/python" scripts/tests/notebooks_test.py
    # On runs of its own: those of the user stay as they are.
    [ "$notebooks" != all ] || notebooks=
    # shellcheck disable=SC2086  # a list of names, none of them with a blank
    ./scripts/notebook.sh --check $notebooks
fi

# Last, so that the closing lines of cargo test end the output.
begin 'the examples in the documentation'
say "everything before this took $SECONDS s"
cargo test --locked --workspace --doc
