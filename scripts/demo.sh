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
    '') ;;
    --fresh) rm -rf "$OUT" ;;
    *) die "unknown argument $1; there is only --fresh" ;;
esac

./scripts/setup.sh
say 'building lnfree (the first time takes some minutes)'
cargo build --locked --quiet
LNFREE=target/debug/lnfree
started=$SECONDS
mkdir -p "$OUT/eval"

step() { printf '\n== %s\n' "$*"; }

# Trains into $OUT/$1 with the arguments after it, or goes on with what is there.
train() {
    local run=$OUT/$1
    shift
    if [ -e "$run/checkpoints/latest" ]; then
        "$LNFREE" train --resume "$run"
    else
        rm -rf "$run"
        "$LNFREE" train --config nano --out "$run" "$@"
    fi
}

# Evaluates model $2, called $1, in format $3 on both texts.
evaluate() {
    local data
    for data in nano-owt nano-pile; do
        "$LNFREE" eval --label "$1" --model "$2" --format "$3" --data "$data" --batch-size 32 --n-sequences 1000 \
            --json "$OUT/eval/$1-$data.json" | sed -n '1,3p'
    done
}

step 'standard deviations of the residual stream'
"$LNFREE" std --model nano --data nano-train --out "$OUT/stds.json"

step 'vanilla: the same fine-tuning with LayerNorm kept'
train vanilla --mode with_ln

step 'LN-free: every LayerNorm removed, one after the other'
train ln_free --mode without_ln

step 'export'
for format in folded scaled; do
    "$LNFREE" export "$OUT/ln_free" --format "$format" --out "$OUT/nano-$format"
done

step 'evaluation'
evaluate original nano transformers
evaluate vanilla "$OUT/vanilla/checkpoints/latest" transformers
evaluate LN-free "$OUT/nano-folded" folded

step 'the same prompt to the original and to the LN-free model'
for model in nano "$OUT/nano-folded"; do
    "$LNFREE" generate --model "$model" --prompt 'The people of the United States' --max-new-tokens 50
done

step 'report'
"$LNFREE" report "$OUT/vanilla" "$OUT/ln_free" --eval "$OUT"/eval/*.json --out "$OUT/report.html"
say "done in $((SECONDS - started)) s after the build; the LN-free model is in $OUT/nano-folded"
