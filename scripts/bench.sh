#!/usr/bin/env bash
# How fast training and evaluation are here, beside PyTorch and transformers doing the same work in the same run.
#
#   ./scripts/bench.sh                   on a GPU if there is one: GPT-2's four sizes, at most 9 minutes; else on the CPU: nano and GPT-2 small
#   ./scripts/bench.sh --quick           nano's shape alone, on whatever there is: about three minutes
#     --sizes LIST                       of nano, gpt2, gpt2-medium, gpt2-large, gpt2-xl, separated by commas
#     --dtypes LIST                      of float32, bfloat16, and on a GPU tf32
#     --tasks LIST                       of train, eval
#     --repeats N                        rounds; in each, every program runs in turn (2 on a CPU, 1 on a GPU)
#     --minutes N                        start nothing later than that, and end what runs then
#     --peer-python PATH                 a Python with torch and transformers (python3); without them only lnfree is timed
#     --no-peer                          time lnfree alone
#     --out FILE                         the results, one JSON object a line (runs/bench/DATE.jsonl)
#     --markdown                         the table as Markdown, for BENCHMARKS.md
#
# LNFREE=PATH takes a binary that is built already: where cargo is missing, together with the libtorch of Python's torch.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

PEER=$ROOT/scripts/bench/peer.py
LIMIT=240 # seconds that one run may take
python=python3
sizes= dtypes= tasks=train,eval repeats= minutes= out= markdown= quick= device=cpu

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) sed -n '2,17s/^# \{0,1\}//p' "$0" && exit ;;
        --quick) quick=yes ;;
        --sizes) sizes=${2:?--sizes needs a list} && shift ;;
        --dtypes) dtypes=${2:?--dtypes needs a list} && shift ;;
        --tasks) tasks=${2:?--tasks needs a list} && shift ;;
        --repeats) repeats=${2:?--repeats needs a number} && shift ;;
        --minutes) minutes=${2:?--minutes needs a number} && shift ;;
        --peer-python) python=${2:?--peer-python needs a path} && shift ;;
        --no-peer) python= ;;
        --out) out=${2:?--out needs a file} && shift ;;
        --markdown) markdown=--markdown ;;
        *) die "unknown argument $1; see --help" ;;
        esac
        shift
    done
}

# What is measured where nothing else was asked for.
defaults() {
    if have nvidia-smi && nvidia-smi -L 2>/dev/null | grep -q GPU; then device=cuda; fi
    if [ -n "$quick" ]; then
        : "${sizes:=nano}" "${dtypes:=float32,bfloat16}" "${repeats:=1}"
    elif [ $device = cuda ]; then
        : "${sizes:=gpt2,gpt2-medium,gpt2-large,gpt2-xl}" "${dtypes:=bfloat16}" "${repeats:=1}" "${minutes:=9}"
    else
        : "${sizes:=nano,gpt2}" "${dtypes:=float32,bfloat16}" "${repeats:=2}"
    fi
    [ -n "$out" ] || out=$ROOT/runs/bench/$(date +%Y-%m-%dT%H-%M).jsonl
    mkdir -p "$(dirname "$out")"
    : >"$out"
}

# The binary, and on a machine without cargo the libtorch that Python has.
find_programs() {
    build
    if ! "$LNFREE" --version >/dev/null 2>&1; then
        local torch
        torch=$("${python:-python3}" -c 'import torch; print(torch.__path__[0])') ||
            die "$LNFREE does not start, and ${python:-python3} has no torch whose libtorch it could take"
        export LD_LIBRARY_PATH=$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        "$LNFREE" --version >/dev/null || die "$LNFREE does not start with the libtorch in $torch/lib, see above"
    fi
    if [ -n "$python" ] && ! "$python" -c 'import torch, transformers' 2>/dev/null; then
        say "$python has no torch and transformers: lnfree alone is timed"
        python=
    fi
}

# Sets shape, batch, accum, seq and steps for size $1: on a GPU the micro-batches of the paper's runs, with so few of them
# in a step that AdamW still weighs little.
describe() {
    shape=$1 accum=4 seq=1024 steps=2
    case $1 in
    nano) shape=6,4,128,4096 batch=32 accum=1 seq=128 steps=20 ;;
    gpt2) batch=32 ;;
    gpt2-medium) batch=22 ;;
    gpt2-large) batch=28 ;;
    gpt2-xl) batch=18 ;;
    *) die "unknown size $1; there are nano, gpt2, gpt2-medium, gpt2-large and gpt2-xl" ;;
    esac
    if [ $device = cpu ] && [ "$1" != nano ]; then batch=1 accum=2 steps=3; fi
}

seconds_left() {
    if [ -z "$minutes" ]; then echo $LIMIT; else echo $((minutes * 60 - SECONDS - 5)); fi
}

# Runs program $1 (called $2 in the table) on size $3 with the arguments after it, and writes a line; where memory does not
# suffice, once more with half the batch and twice as many. Uses task, ln, dtype, and what `describe` set.
measure() {
    local command=$1 program=$2 size=$3 micro=$batch count=$accum line code why errors left
    shift 3
    errors=$(mktemp)
    while :; do
        left=$(seconds_left)
        [ "$left" -ge 15 ] || break
        code=0
        # $command is a program and perhaps its script: it has to fall apart.
        # shellcheck disable=SC2086
        line=$(timeout $((left < LIMIT ? left : LIMIT)) $command --task "$task" --ln "$ln" --size "$shape" --dtype "$dtype" \
            --batch-size "$micro" --accum "$count" --seq "$seq" --steps "$steps" --warmup 1 --device $device "$@" 2>"$errors") || code=$?
        if [ $code -eq 0 ]; then
            printf '{"program": "%s", "size": "%s", "record": %s}\n' "$program" "$size" "$line" >>"$out"
            say "$size, $task, LN $ln, $dtype, $program: $(printf %s "$line" | sed 's/.*"tokens_per_s": *\([0-9]*\).*/\1/') tokens/s"
            rm -f "$errors"
            return
        fi
        if grep -qiE 'out of memory|not enough memory' "$errors" && [ $((micro % 2)) -eq 0 ]; then
            say "$size, $task, LN $ln, $dtype, $program: out of memory with $micro sequences, again with half of them"
            micro=$((micro / 2)) count=$((count * 2))
            continue
        fi
        break
    done
    why='failed'
    if [ "$left" -lt 15 ]; then why='no time left'; fi
    if [ "${code:-0}" -eq 124 ]; then why='too slow'; fi
    if grep -qiE 'out of memory|not enough memory' "$errors"; then why='out of memory'; fi
    printf '{"program": "%s", "size": "%s", "error": {"task": "%s", "ln": "%s", "dtype": "%s", "why": "%s"}}\n' \
        "$program" "$size" "$task" "$ln" "$dtype" "$why" >>"$out"
    say "$size, $task, LN $ln, $dtype, $program: $why$(sed -n '$s/^/: /p' "$errors" | cut -c 1-160)"
    rm -f "$errors"
}

# Everybody in turn at one task; $1 is the size, $2 which of the peers: eager, compiled or all.
compare() {
    local round
    describe "$1"
    for ((round = 0; round < repeats; round++)); do
        [ "$2" = compiled ] || measure "$LNFREE bench" lnfree "$1"
        [ -n "$python" ] && [ "$ln" != folded ] || continue
        if [ "$2" != compiled ]; then
            case $task$ln in
            trainfake) measure "$python $PEER" "PyTorch as in the paper" "$1" --baseline paper ;;
            *) measure "$python $PEER" "PyTorch eager" "$1" --baseline eager ;;
            esac
        fi
        if [ "$2" != eager ] && [ "$task" = train ]; then
            case $1 in
            gpt2-large | gpt2-xl) measure "$python $PEER" "PyTorch, compiled blocks" "$1" --baseline strong --compile-blocks ;;
            *) measure "$python $PEER" "PyTorch compiled" "$1" --baseline strong ;;
            esac
        fi
    done
}

# On a GPU time is short: first what is asked about most, the compiled peer, which starts slowly, after that.
all() {
    local size parts=all part
    if [ $device = cuda ]; then parts='eager compiled'; fi
    for task in ${tasks//,/ }; do
        for part in $parts; do
            if [ "$task$part" = evalcompiled ]; then continue; fi
            for size in ${sizes//,/ }; do
                for dtype in ${dtypes//,/ }; do
                    for ln in fake real folded; do
                        if [ "$task$ln" = trainfolded ] || [ "$task$ln" = evalfake ]; then continue; fi
                        compare "$size" "$part"
                    done
                done
            done
        done
    done
}

# XL in little memory.
within_48_gib() {
    case ,$sizes, in *,gpt2-xl,*) ;; *) return 0 ;; esac
    [ $device = cuda ] || return 0
    task=train ln=fake dtype=bfloat16
    describe gpt2-xl
    measure "$LNFREE bench" "lnfree, recomputing" gpt2-xl --checkpointing --aux-weight 0.01
}

read_arguments "$@"
defaults
find_programs
say "$("$LNFREE" --version), $(date +%Y-%m-%d), results in $out"
all
within_48_gib
step "$(date +%Y-%m-%d)"
"$LNFREE" bench --table "$out" $markdown
