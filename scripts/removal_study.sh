#!/usr/bin/env bash
# Ways of removing LayerNorm, set against each other at equal tokens: every config of studies/removal with several seeds,
# evaluated beside the original, in and out of domain and on text that is hard for models without LN.
#
#   ./scripts/removal_study.sh                   into runs/removal: results.md, results.json; killed at any moment, it goes on
#     --seeds N                                  seeds 0 to N - 1 (default 3)
#     --methods paper,kl,kl_taper                only these configs
#     --out DIR                                  instead of runs/removal
#     -- ARGUMENTS                               for `lnfree train` when a run begins, such as --threads 8
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

# Trains method $1 with seed $2, or goes on with what is there, and evaluates it.
study() {
    local run=$out/runs/$1-$2 mode=without_ln
    [ "$1" != control ] || mode=with_ln
    if has_checkpoint "$run"; then
        "$LNFREE" train --resume "$run"
    else
        rm -rf "$run"
        "$LNFREE" train --mode "$mode" --config "studies/removal/$1.toml" --set "train.seed=$2" --out "$run" \
            ${extra[@]+"${extra[@]}"}
    fi
    evaluate "$1-$2" "$run" "$run/checkpoints/latest/SHA256SUMS" --against nano
}

step original
evaluate original nano studies/removal/paper.toml
failed=()
for ((seed = 0; seed < seeds; seed++)); do
    for name in "${names[@]}"; do
        step "$name, seed $seed"
        # As a condition it would lose its -e: what comes after a failure must not run.
        set +e
        (set -e && study "$name" "$seed")
        code=$?
        set -e
        case $code in
        0) ;;
        130 | 143) say "stopped; the same command goes on from there" && exit "$code" ;;
        *) failed+=("$name-$seed") && say "$name, seed $seed: failed with exit code $code, see above" ;;
        esac
    done
done
step results
table table "$out/eval" "$out"
[ ${#failed[@]} -eq 0 ] || die "failed, and not in the tables: ${failed[*]}; the same command tries them again"
