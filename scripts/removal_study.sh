#!/usr/bin/env bash
# Ways of removing LayerNorm, set against each other on the same text: every config of studies/removal with several seeds,
# evaluated beside the original, in and out of domain and on text that is hard for models without LN.
#
#   ./scripts/removal_study.sh                   into runs/removal: results.md, results.json; killed at any moment, it goes on
#     --seeds N                                  seeds 0 to N - 1 (default 3)
#     --methods paper,kl,kl_taper                only these configs
#     --out DIR                                  instead of runs/removal
#     --records DIR                              a small file of each finished run (default OUT/records): what has one of
#                                                its config is not run again; ours are in studies/removal/records
#     --until 90                                 begins no run after so many minutes
#     --tables                                   runs nothing: the tables of the records
#     -- ARGUMENTS                               for `lnfree train` when a run begins, such as --threads 8
#
# The configs are written before their runs: what is chosen is chosen by the validation text (nano-addresses).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

seeds=3 out=runs/removal methods='' records='' minutes=0 run=yes extra=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) sed -n '2,16s/^# \{0,1\}//p' "$ROOT/scripts/removal_study.sh" && exit ;;
    --seeds) seeds=${2:?--seeds needs a number} && shift ;;
    --methods) methods=${2:?--methods needs names} && shift ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    --records) records=${2:?--records needs a folder} && shift ;;
    --until) minutes=${2:?--until needs minutes} && shift ;;
    --tables) run= ;;
    --) shift && extra=("$@") && break ;;
    *) die "unknown argument $1; there are --seeds, --methods, --out, --records, --until, --tables, and -- before arguments for lnfree train" ;;
    esac
    shift
done
case $seeds in '' | *[!0-9]* | 0) die "--seeds $seeds: must be a number from 1" ;; esac
case $minutes in '' | *[!0-9]*) die "--until $minutes: must be a number of minutes" ;; esac
minutes=$((10#$minutes))
records=${records:-$out/records}
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
study() { cargo run --locked --quiet --example removal_study -- "$@"; }
mkdir -p "$out/eval" "$out/runs" "$records"
if [ -z "$run" ]; then
    study table "$records" "$out"
    exit
fi
exec 9>"$out/.lock"
take_lock 9 || die "another study runs in $out: wait for it, or name another folder with --out"
missing=$(study missing "$records" "$seeds" "${names[@]}")
if [ -n "$missing" ]; then
    step 'text that is hard without LayerNorm'
    study stress "$out/stress"
fi
data=(-d nano-addresses -d nano-moby-dick)
for kind in code one_token random rare repeated; do data+=(-d "$out/stress/$kind.arrow"); done

# Evaluates model $2 as $1, unless that has been done in this way since $3 was written.
evaluate() {
    local label=$1 model=$2 newer=$3 done=$out/eval/$1.done code=0 way
    shift 3
    set -- -m "$model" "${data[@]}" --batch-size 32 --n-sequences 1000 "$@"
    way=$*
    [ "$done" -nt "$newer" ] && [ "$(cat "$done")" = "$way" ] && return
    "$LNFREE" eval --label "$label" --out "$out/eval" "$@" || code=$?
    # 4: some losses are not finite. All is written, and the tables say so.
    case $code in 0 | 4) printf '%s\n' "$way" >"$done" ;; *) return "$code" ;; esac
}

# Trains method $1 with seed $2, or goes on with what is there, evaluates it and keeps what came of it.
run_one() {
    local run=$out/runs/$1-$2 config=studies/removal/$1.toml mode=without_ln
    [ "$1" != control ] || mode=with_ln
    # What is there of another config is begun again.
    if has_checkpoint "$run" && cmp -s "$config" "$run.toml"; then
        "$LNFREE" train --resume "$run"
    else
        rm -rf "$run"
        cp "$config" "$run.toml"
        "$LNFREE" train --mode "$mode" --config "$config" --set "train.seed=$2" --out "$run" \
            ${extra[@]+"${extra[@]}"}
    fi
    evaluate "$1-$2" "$run" "$run/checkpoints/latest/SHA256SUMS" --against nano
    study record "$out/eval" "$records" "$1-$2" "$run.toml" "$run"
}

if [ -n "$missing" ]; then
    step original
    evaluate original nano studies/removal/paper.toml
    study record "$out/eval" "$records" original
fi
failed=()
while read -r name seed; do
    [ -n "$name" ] || continue
    if [ "$minutes" -gt 0 ] && [ $SECONDS -ge $((60 * minutes)) ]; then
        say "$minutes minutes are over: the same command goes on with $name, seed $seed"
        break
    fi
    # Another machine may have done it meanwhile.
    study missing "$records" "$seeds" "$name" </dev/null | grep -qx "$name $seed" || continue
    step "$name, seed $seed"
    # As a condition it would lose its -e: what comes after a failure must not run.
    set +e
    (set -e && run_one "$name" "$seed" </dev/null)
    code=$?
    set -e
    case $code in
    0) ;;
    130 | 143) say "stopped; the same command goes on from there" && exit "$code" ;;
    *) failed+=("$name-$seed") && say "$name, seed $seed: failed with exit code $code, see above" ;;
    esac
done <<<"$missing"
step results
case $(echo "$records"/*-[0-9]*.json) in
*'*'*) say "no run has come to its end yet" ;;
*) study table "$records" "$out" ;;
esac
[ ${#failed[@]} -eq 0 ] || die "failed, and not in the tables: ${failed[*]}; the same command tries them again"
