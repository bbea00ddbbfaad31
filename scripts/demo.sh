#!/usr/bin/env bash
# The whole study on the embedded nano model: standard deviations, a vanilla control, LayerNorm removed, both exports,
# evaluation of all three models on in-domain and out-of-domain text, a results table and an HTML report.
#
#   ./scripts/demo.sh            into runs/demo; stopped in the middle, it goes on where it was
#   ./scripts/demo.sh --fresh    throw an earlier demo away first
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

OUT=runs/demo
case ${1:-} in
    '' | --fresh) ;;
    *) die "unknown argument $1; there is only --fresh" ;;
esac

build
started=$SECONDS
./scripts/train_all.sh nano --out "$OUT" "$@"

step 'the same prompt to the original and to the LN-free model'
for model in nano "$OUT/nano-identity"; do
    "$LNFREE" generate --model "$model" --prompt 'The people of the United States' --max-new-tokens 50
done
say "done in $((SECONDS - started)) s after the build; the report is $OUT/report.html, the LN-free model $OUT/nano-identity"
