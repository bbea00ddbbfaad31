#!/usr/bin/env bash
# Everything that has to pass before a change goes in. Arguments go to cargo test: ./scripts/test.sh --test setup
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

step setup
./scripts/setup.sh
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || die "cargo $component is missing: rustup component add rustfmt clippy"
done

step the set-up script
./scripts/tests/setup_test.sh

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

# Last, so that its closing lines end the output.
step cargo test
cargo test --locked --workspace "$@"
