#!/usr/bin/env bash
# Makes an embedded model from the packages that carry its texts: four runs, one after the other.
#
#   ./scripts/nano_model.sh                 into runs/nano, the model into runs/nano/nano: hours; stopped or killed, it goes on
#     --out DIR                             instead of runs/nano
#     --shortened STEPS                     only so many steps of each run: to see that text and first losses are the same
#     -- ARGUMENTS                          for `lnfree pretrain` and `lnfree train` when a run begins, such as --threads 8
#
# data/README.md tells what is in the texts and what became of the runs. The tokenizer is that of data/nano.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

out=$ROOT/runs/nano steps='' extra=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    --shortened) steps=${2:?--shortened needs a number of steps} && shift ;;
    --) shift && extra=("$@") && break ;;
    *) die "unknown argument $1; there are --out, --shortened, and -- before arguments for lnfree" ;;
    esac
    shift
done
case $steps in *[!0-9]* | 0) die "--shortened $steps: must be a number from 1" ;; esac
mkdir -p "$out"
out=$(cd "$out" && pwd -P)
cd "$ROOT"

build
# The last of the texts to be written.
[ -s "$out/texts/moby-dick.parquet" ] || "$ROOT/scripts/nano_texts.sh" "$out/texts"
step 'tokens'
for name in sotu-train copying settling annealing; do
    [ -s "$out/$name.arrow" ] || "$LNFREE" data prepare "$out/texts/$name.parquet" --tokenizer "$ROOT/data/nano" \
        --block-size 128 --out "$out/$name.arrow"
done

# Trains $1 to step $2 by the command after them, or goes on with what is there.
train() {
    local run=$out/$1 until=(--stop-after "${steps:-$2}")
    step "$1"
    shift 2
    if has_checkpoint "$run"; then
        # A run that is past that step has nothing to do.
        [ -d "$run/checkpoints/step-${until[1]}" ] || "$LNFREE" train --resume "$run" "${until[@]}"
    else
        rm -rf "$run"
        "$LNFREE" "$@" --out "$run" "${until[@]}" ${extra[@]+"${extra[@]}"}
    fi
}
tokens() { printf 'data.train="%s/%s.arrow"' "$out" "$1"; }
train addresses 4000 pretrain --config nano_pretrain --set "$(tokens sotu-train)"
train copying 1500 train --mode with_ln --config studies/nano/copying.toml -m "$out/addresses" --set "$(tokens copying)"
train settling 1500 train --mode with_ln --config studies/nano/settling.toml -m "$out/copying" --set "$(tokens settling)"
train annealing 4000 train --mode with_ln --config studies/nano/annealing.toml -m "$out/settling" --set "$(tokens annealing)"

step 'the model, in float16'
cargo run --locked --quiet --example nano_half -- "$out/annealing/checkpoints/latest" "$out/nano"
for file in merges.txt special_tokens_map.json tokenizer.json tokenizer_config.json vocab.json; do
    cp "$ROOT/data/nano/$file" "$out/nano/"
done
say "$out/nano"
