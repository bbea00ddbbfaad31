#!/usr/bin/env bash
# Everything that has to pass before a change goes in.
#
#   ./scripts/test.sh [--all-notebooks | --no-notebooks] [ARGUMENTS]
#
# Arguments go to cargo test: ./scripts/test.sh --test setup. Of the notebooks, 00_quickstart and scaling are executed;
# --all-notebooks executes the others too, --no-notebooks none, for which nothing of Jupyter is installed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

notebooks=(00_quickstart scaling)
case ${1:-} in
--all-notebooks) notebooks=() && shift ;;
--no-notebooks) notebooks=(none) && shift ;;
esac

step setup
./scripts/setup.sh
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || die "cargo $component is missing: rustup component add rustfmt clippy"
done

step the set-up script
./scripts/tests/setup_test.sh

step 'the benchmark script'
cargo build --locked --quiet
LNFREE=$ROOT/target/debug/lnfree ./scripts/tests/bench_test.sh

step 'the script for a GPU'
LNFREE=$ROOT/target/debug/lnfree ./scripts/tests/gpu_check_test.sh

step cargo fmt
cargo fmt --all --check

step cargo clippy
cargo clippy --locked --workspace --all-targets -- --deny warnings

step cargo doc
RUSTDOCFLAGS='--deny warnings' cargo doc --locked --workspace --no-deps

if python3 -c 'import torch, transformers' 2>/dev/null; then
    step 'exports in Hugging Face transformers'
    cargo build --locked --quiet
    python3 scripts/tests/hf_test.py target/debug/lnfree lnfree/tests/vectors/checkpoint/step60
fi

step 'the whole study of the embedded models'
study=$(mktemp -d)
trap 'rm -rf "$study"' EXIT
./scripts/eval_all.sh --suite nano --out "$study"
[ "$(grep -c '| reproduced |$' "$study/results.md")" -eq 6 ] || die "the study of the embedded models came out differently, see above"

step "GPT-2's tokenizer"
./scripts/tests/gpt2_tokenizer.sh

if [ "${notebooks[*]}" != none ]; then
    step 'notebooks'
    ./scripts/notebook.sh --setup
    "${XDG_CACHE_HOME:-$HOME/.cache}/lnfree/jupyter/bin/python" scripts/tests/notebooks_test.py
    # On runs of its own: those of the user stay as they are.
    ./scripts/notebook.sh --check "${notebooks[@]}"
fi

# Last, so that its closing lines end the output.
step cargo test
cargo test --locked --workspace "$@"
