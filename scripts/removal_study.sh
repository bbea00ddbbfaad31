#!/usr/bin/env bash
# Ways of removing LayerNorm, set against each other at equal tokens: every config of studies/removal with several seeds,
# evaluated beside the original, in and out of domain and on text that is hard for models without LN.
#
#   ./scripts/removal_study.sh                   into runs/removal: results.md, results.json; killed at any moment, it goes on
#     --seeds N                                  seeds 0 to N - 1 (default 3)
#     --methods paper,kl,kl_taper                only these configs
#     --out DIR                                  instead of runs/removal
#     -- ARGUMENTS                               for `lnfree train`, such as --threads 8
#
# The configs are written before their runs: what is chosen is chosen by the validation text (nano-addresses).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

seeds=3 out=runs/removal methods='' extra=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit ;;
    --seeds) seeds=${2:?--seeds needs a number} && shift ;;
    --methods) methods=${2:?--methods needs names} && shift ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    --) shift && extra=("$@") && break ;;
    *) die "unknown argument $1; there are --seeds, --methods, --out, and -- before arguments for lnfree train" ;;
    esac
    shift
done
case $seeds in '' | *[!0-9]* | 0) die "--seeds $seeds: must be a number from 1" ;; esac
names=()
if [ -n "$methods" ]; then
    IFS=, read -ra names <<<"$methods"
else
    for file in studies/removal/*.toml; do names+=("$(basename "$file" .toml)"); done
fi
[ ${#names[@]} -gt 0 ] || die "--methods names none"
for name in "${names[@]}"; do
    [ -f "studies/removal/$name.toml" ] || die "--methods $name: there is no studies/removal/$name.toml"
done

build
table() { cargo run --locked --quiet --example removal_study -- "$@"; }
mkdir -p "$out/eval"
step 'text that is hard without LayerNorm'
table stress "$out/stress"
data=(-d nano-addresses -d nano-moby-dick)
for file in "$out"/stress/*.arrow; do data+=(-d "$file"); done

# Evaluates model $2 as $1, unless that has been done since it was written.
evaluate() {
    local label=$1 model=$2 newer=$3
    shift 3
    [ "$out/eval/$label.done" -nt "$newer" ] && return
    "$LNFREE" eval -m "$model" --label "$label" "${data[@]}" --batch-size 32 --out "$out/eval" "$@"
    touch "$out/eval/$label.done"
}

step original
evaluate original nano studies/removal/paper.toml
for ((seed = 0; seed < seeds; seed++)); do
    for name in "${names[@]}"; do
        run=$out/runs/$name-$seed mode=without_ln
        [ "$name" != control ] || mode=with_ln
        step "$name, seed $seed"
        # Killed right after its first checkpoint, a run has that and no link to it yet.
        if [ -n "$(find "$run/checkpoints" -maxdepth 1 -name 'step-*' 2>/dev/null)" ]; then
            "$LNFREE" train --resume "$run"
        else
            rm -rf "$run"
            "$LNFREE" train --mode "$mode" --config "studies/removal/$name.toml" --set "train.seed=$seed" --out "$run" \
                ${extra[@]+"${extra[@]}"}
        fi
        evaluate "$name-$seed" "$run" "$run/checkpoints/latest/SHA256SUMS" --against nano
    done
done
step results
table table "$out/eval" "$out"
