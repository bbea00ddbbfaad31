#!/usr/bin/env bash
# The whole study of one model size, or of all: standard deviations, the vanilla control, LayerNorm removed, both exports,
# evaluation of all three models, a report. Stopped or killed at any moment, it goes on where it was.
#
#   ./scripts/train_all.sh nano            into runs/train/nano: minutes on two CPU cores
#   ./scripts/train_all.sh gpt2            or gpt2-medium, gpt2-large, gpt2-xl: on a GPU
#   ./scripts/train_all.sh all             nano and the four sizes; one that fails does not stop the others
#     --method distilled                   learn from the original instead of the data's next tokens; into runs/train/SIZE-distilled
#     --fresh                              throw earlier results away first
#     --out DIR                            instead of that folder, for one size
#     -- ARGUMENTS                         for `lnfree train`, such as --set train.batch_size=8 --device cuda:1
#
# What is exported and evaluated is the last step and those that the config keeps (train.keep_steps). Held against
# the published figures is the step that was published: 600 of gpt2-large's 1200, 800 of gpt2-xl's.
#
# Arguments after -- take effect when a run begins; one that goes on keeps its config (--device and --threads count always).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

SIZES=(nano gpt2 gpt2-medium gpt2-large gpt2-xl)
chosen=()
method=paper
fresh=
out=
extra=()   # for lnfree train
machine=() # what of it every command takes

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) sed -n '2,16s/^# \{0,1\}//p' "$ROOT/scripts/train_all.sh" && exit ;;
        --method) method=${2:?--method needs paper or distilled} && shift ;;
        --fresh) fresh=yes ;;
        --out) out=${2:?--out needs a folder} && shift ;;
        --) shift && extra=("$@") && break ;;
        all) chosen=("${SIZES[@]}") ;;
        nano | gpt2 | gpt2-medium | gpt2-large | gpt2-xl) chosen+=("$1") ;;
        *) die "unknown argument $1; there are ${SIZES[*]}, all, --method, --fresh, --out DIR, and -- before arguments for lnfree train" ;;
        esac
        shift
    done
    [ ${#chosen[@]} -gt 0 ] || die "which size? There are ${SIZES[*]}, and all"
    [ -z "$out" ] || [ ${#chosen[@]} -eq 1 ] || die "--out is for one size alone"
    case $method in paper | distilled) ;; *) die "--method $method: there are paper and distilled" ;; esac
    local i
    for ((i = 0; i < ${#extra[@]}; i++)); do
        case ${extra[i]} in --device | --threads) machine+=("${extra[i]}" "${extra[i + 1]:?needs a value}") ;; esac
    done
}

# Sets config, data, suite, labels and the step that was published for size $1.
describe() {
    case $1 in
    nano) config=nano data=nano-train suite=nano family='' published=200 ;;
    gpt2) config=gpt2_aux family='Small ' published=300 ;;
    gpt2-medium) config=gpt2-medium_fasttune_aux family='Medium ' published=500 ;;
    gpt2-large) config=gpt2-large_aux family='Large ' published=600 ;;
    gpt2-xl) config=gpt2-xl_aux family='XL ' published=800 ;;
    esac
    [ "$1" = nano ] || data=openwebtext suite=paper
}

# Trains into folder $1 with the arguments after it, or goes on with what is there.
train() {
    local run=$1
    shift
    if has_checkpoint "$run"; then
        "$LNFREE" train --resume "$run" ${machine[@]+"${machine[@]}"}
    else
        rm -rf "$run"
        "$LNFREE" train --config "$config" --out "$run" "$@" ${extra[@]+"${extra[@]}"}
    fi
}

# The steps of run $1 that are looked at: those that its config keeps, and the last.
steps_of() {
    local kept last
    kept=$(sed -n 's/^keep_steps = \[\(.*\)\]$/\1/p' "$1/config.toml" | tr ',' '\n' | tr -d ' ')
    last=$(readlink "$1/checkpoints/latest")
    printf '%s\n' "$kept" "${last##*step-}" | sort -nu | while read -r n; do
        [ ! -d "$1/checkpoints/step-$n" ] || printf '%s\n' "$n"
    done
}

# The steps of run $1 in which no LayerNorm is left, which can be exported.
steps_without_ln() {
    local removed n
    removed=$("$LNFREE" schedule "$1/config.toml" --json | grep -o '"step": *[0-9]*' | grep -o '[0-9]*' | sort -n | tail -n 1)
    for n in $(steps_of "$1"); do
        if [ "$n" -gt "${removed:-0}" ]; then
            printf '%s\n' "$n"
        else
            say "step $n comes before the last removal, at step $removed: nothing to export" >&2
        fi
    done
}

# Exports checkpoint $1 in format $2 into folder $3, unless that has been done since it was written.
export_model() {
    [ "$3/model.safetensors" -nt "$1/model.safetensors" ] ||
        "$LNFREE" export "$1" --format "$2" --out "$3" ${machine[@]+"${machine[@]}"}
}

# All of size $1 into folder $2.
study() {
    local size=$1 folder=$2 config data suite family published format without_ln n name label ln_free=LN-free
    local added=() taught=()
    if [ "$method" = distilled ]; then
        taught=(--set "distill.teacher=\"$size\"") added=(--distances)
        # Another label than that of the published figures, which are of the paper's way.
        ln_free='LN-free distilled'
    fi
    describe "$size"
    mkdir -p "$folder"
    step "$size: standard deviations of the residual stream"
    [ -s "$folder/stds.json" ] ||
        "$LNFREE" std --model "$size" --data "$data" --out "$folder/stds.json" ${machine[@]+"${machine[@]}"}
    step "$size: vanilla, the same fine-tuning with LayerNorm kept"
    train "$folder/vanilla" --mode with_ln
    step "$size: LN-free, every LayerNorm removed, one after the other"
    train "$folder/ln_free" --mode without_ln ${taught[@]+"${taught[@]}"}
    step "$size: export"
    without_ln=$(steps_without_ln "$folder/ln_free")
    for n in $without_ln; do
        name=$(export_name "$size" "$n")
        for format in identity scaled; do
            export_model "$folder/ln_free/checkpoints/step-$n" "$format" "$folder/$name-$format"
        done
    done
    step "$size: evaluation"
    for n in $(steps_of "$folder/vanilla"); do
        label=$(label_of vanilla "$n")
        added+=(--add "$label=$folder/vanilla/checkpoints/step-$n")
    done
    for n in $without_ln; do
        label=$(label_of "$ln_free" "$n") name=$(export_name "$size" "$n")
        added+=(--add "$label=$folder/$name-identity")
    done
    [ "$method" != paper ] || [ -d "$folder/ln_free/checkpoints/step-$published" ] ||
        say "$size: no checkpoint of step $published, of which the figures are: nothing is held against them"
    "$LNFREE" eval-all --suite "$suite" --models "$size" --out "$folder/eval" ${machine[@]+"${machine[@]}"} ${added[@]+"${added[@]}"}
    step "$size: report"
    # The table has just been printed.
    "$LNFREE" report "$folder/vanilla" "$folder/ln_free" --eval "$folder"/eval/*--*.json --out "$folder/report.html" |
        sed -n '/^report:/p'
}

# What the tables call model $1 at step $2: the published step stands under the label of the published figures.
label_of() { [ "$2" = "$published" ] && echo "$family$1" || echo "$family$1 step $2"; }

# The name of the exports of size $1 at step $2.
export_name() { [ "$2" = "$published" ] && echo "$1" || echo "$1-step$2"; }

read_arguments "$@"
build
failed=()
for size in "${chosen[@]}"; do
    folder=${out:-runs/train/$size}
    [ -n "$out" ] || [ "$method" = paper ] || folder=$folder-$method
    [ -z "$fresh" ] || rm -rf "$folder"
    # As a condition it would lose its -e: what comes after a failure must not run.
    set +e
    (set -e && study "$size" "$folder")
    code=$?
    set -e
    case $code in
    0) say "$size: done, see $folder/report.html" ;;
    130 | 143) say "stopped; the same command goes on from there" && exit "$code" ;;
    *) failed+=("$size") && say "$size: failed with exit code $code, see above" ;;
    esac
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}; the same command without --fresh goes on from there"
