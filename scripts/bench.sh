#!/usr/bin/env bash
# How fast training, evaluation and generation are here, beside PyTorch and transformers doing the same work in the same run.
#
#   ./scripts/bench.sh                   on a GPU if there is one: GPT-2's four sizes, at most 9 minutes; else on the CPU: nano and GPT-2 small
#   ./scripts/bench.sh --quick           nano's shape alone, on whatever there is: a few minutes
#     --sizes LIST                       of nano, gpt2, gpt2-medium, gpt2-large, gpt2-xl, separated by commas
#     --dtypes LIST                      of float32, bfloat16, and on a GPU tf32
#     --tasks LIST                       of train, eval, generate
#     --repeats N                        rounds; in each, every program runs in turn (2 on a CPU, 1 on a GPU or with --minutes)
#     --minutes N | --seconds N          end by then; what is measured last gets its share of the time too
#     --limit N                          end a single run after so many seconds (600 on a CPU, 240 on a GPU)
#     --device auto|cpu|cuda             a GPU if it can be used (auto), or what is said
#     --peer-python PATH                 a Python with torch and transformers (python3); without them only lnfree is timed
#     --no-peer                          time lnfree alone
#     --out FILE                         the results, one JSON object a line (runs/bench/DATE.jsonl)
#     --markdown                         the table as Markdown, for docs/src/performance.md
#
# LNFREE=PATH takes a binary that is built already: where cargo is missing, together with the libtorch of Python's torch.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/bench/pythons.sh
. "$(dirname "$0")/bench/pythons.sh"

PEER=$ROOT/scripts/bench/peer.py
SHORTEST=5 # seconds: nothing is started that has fewer
SMALLEST=(bench --device cuda --size "1,1,8,16" --seq 2 --batch-size 1 --steps 1 --warmup 0)
python=python3
sizes='' dtypes='' tasks=train,eval,generate repeats='' minutes='' seconds='' limit='' out='' markdown=() quick='' device=auto

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) sed -n '2,19s/^# \{0,1\}//p' "$0" && exit ;;
        --quick) quick=yes ;;
        --sizes) sizes=${2:?--sizes needs a list} && shift ;;
        --dtypes) dtypes=${2:?--dtypes needs a list} && shift ;;
        --tasks) tasks=${2:?--tasks needs a list} && shift ;;
        --repeats) repeats=${2:?--repeats needs a number} && shift ;;
        --minutes) minutes=${2:?--minutes needs a number} && shift ;;
        --seconds) seconds=${2:?--seconds needs a number} && shift ;;
        --limit) limit=${2:?--limit needs a number of seconds} && shift ;;
        --device) device=${2:?--device needs auto, cpu or cuda} && shift ;;
        --peer-python) python=${2:?--peer-python needs a path} && shift ;;
        --no-peer) python= ;;
        --out) out=${2:?--out needs a file} && shift ;;
        --markdown) markdown=(--markdown) ;;
        *) die "unknown argument $1; see --help" ;;
        esac
        shift
    done
    check_arguments
}

# Refuses now what would go wrong minutes later.
check_arguments() {
    local word
    for word in "$repeats" "$minutes" "$seconds" "$limit"; do
        case $word in *[!0-9]* | 0) die "$word: --repeats, --minutes, --seconds and --limit are whole numbers from 1" ;; esac
    done
    [ -z "$minutes" ] || seconds=$((minutes * 60))
    case $device in auto | cpu | cuda) ;; *) die "device $device: there are auto, cpu and cuda" ;; esac
    for word in ${sizes//,/ }; do describe "$word"; done
    for word in ${tasks//,/ }; do
        case $word in train | eval | generate) ;; *) die "unknown task $word; there are train, eval and generate" ;; esac
    done
    for word in ${dtypes//,/ }; do
        case $word in float32 | bfloat16 | tf32) ;; *) die "unknown dtype $word; there are float32, bfloat16 and tf32" ;; esac
    done
}

# Finds the binary, the device and the peer.
find_programs() {
    local why
    build
    starts "$LNFREE" || take_pythons_libtorch "${python:-python3}" || die "$LNFREE does not start: $(first_error "$LNFREE" --version)"
    if [ "$device" = auto ] && ! sees_gpu; then device=cpu; fi
    if [ "$device" != cpu ] && ! uses_gpu; then
        why=$(first_error "$LNFREE" "${SMALLEST[@]}")
        if ! { take_pythons_libtorch "${python:-python3}" && uses_gpu; }; then
            [ "$device" = auto ] || die "$why"
            say "there is a GPU that lnfree cannot use ($why): the CPU is measured"
            device=cpu
        fi
    fi
    if [ "$device" = auto ]; then device=cuda; fi
    find_peer
}

sees_gpu() { case $(have nvidia-smi && nvidia-smi -L 2>/dev/null) in *GPU*) ;; *) return 1 ;; esac; }

uses_gpu() { "$LNFREE" "${SMALLEST[@]}" >/dev/null 2>&1; }

find_peer() {
    [ -n "$python" ] || return 0
    if ! "$python" -c 'import torch, transformers' 2>/dev/null; then
        say "$python has no torch and transformers: lnfree alone is timed"
        python=
    elif [ "$device" = cuda ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        say "the torch of $python has no CUDA: lnfree alone is timed"
        python=
    fi
}

# What is measured where nothing else was asked for.
defaults() {
    if [ -n "$quick" ]; then
        : "${sizes:=nano}" "${dtypes:=float32,bfloat16}" "${repeats:=1}"
    fi
    if [ -n "$seconds" ]; then : "${repeats:=1}"; fi
    if [ "$device" = cuda ]; then
        : "${sizes:=gpt2,gpt2-medium,gpt2-large,gpt2-xl}" "${dtypes:=bfloat16}" "${repeats:=1}" "${seconds:=540}" "${limit:=240}"
    else
        : "${sizes:=nano,gpt2}" "${dtypes:=float32,bfloat16}" "${repeats:=2}" "${limit:=600}"
    fi
    [ -n "$out" ] || out=$ROOT/runs/bench/$(date +%Y-%m-%dT%H-%M).jsonl
    mkdir -p "$(dirname "$out")"
    : >"$out"
}

# Sets shape, batch, accum, seq and steps for size $1: on a GPU the micro-batches of the paper's runs, with so few of them
# in a step that AdamW still weighs little.
describe() {
    shape=$1 accum=4 seq=1024 steps=2 rounds=2
    case $1 in
    nano) shape=6,4,128,4096 batch=32 accum=1 seq=128 steps=20 rounds=5 ;;
    gpt2) batch=32 ;;
    gpt2-medium) batch=22 ;;
    gpt2-large) batch=28 ;;
    gpt2-xl) batch=18 ;;
    *) die "unknown size $1; there are nano, gpt2, gpt2-medium, gpt2-large and gpt2-xl" ;;
    esac
    if [ "$device" = cpu ] && [ "$1" != nano ]; then batch=1 accum=2 steps=3; fi
}

# Sections share the time that is left: the one that begins has $1 of the $2 parts that it and all later ones have.
section() { if [ -n "$seconds" ]; then until=$((SECONDS + (seconds - SECONDS) * $1 / $2)); fi; }

# Seconds that a run which starts now may take.
seconds_left() {
    local left=$limit
    if [ -n "$seconds" ] && [ $((until - SECONDS)) -lt "$left" ]; then left=$((until - SECONDS)); fi
    echo "$left"
}

# Runs a program, $1 in the table, on size $2: the command after these, with arguments for task, ln, dtype, batch and what else
# `describe` set. Writes a line; where memory does not suffice, it runs again with half the batch and twice as many.
measure() {
    local program=$1 size=$2 micro=$batch count=$accum line='' why='' errors left began code
    local what="$size, $task, LN $ln, $dtype, $program"
    shift 2
    errors=$(mktemp)
    while :; do
        left=$(seconds_left)
        if [ "$left" -lt $SHORTEST ]; then why='no time left' && break; fi
        began=$SECONDS
        code=0
        line=$(at_most "$left" "$@" --task "$task" --ln "$ln" --size "$shape" --dtype "$dtype" --batch-size "$micro" \
            --accum "$count" --seq "$seq" --steps "$steps" --warmup 1 --device "$device" 2>"$errors" | tail -n 1) || code=$?
        if [ $code -eq 0 ]; then
            case $line in '{'*'}') ;; *) why='no result' && break ;; esac
            printf '{"program": "%s", "size": "%s", "record": %s}\n' "$program" "$size" "$line" >>"$out"
            say "$what: $(printf %s "$line" | sed 's/.*"tokens_per_s": *\([0-9]*\).*/\1/') tokens/s"
            rm -f "$errors"
            return
        fi
        why=$(reason $code "$errors" $((SECONDS - began)) "$left")
        if [ "$why" != 'out of memory' ] || [ "$task" = generate ] || [ $((micro % 2)) -ne 0 ]; then break; fi
        say "$what: out of memory with $micro sequences, again with half of them"
        micro=$((micro / 2)) count=$((count * 2))
    done
    printf '{"program": "%s", "size": "%s", "error": {"task": "%s", "ln": "%s", "dtype": "%s", "batch_size": %s, "why": "%s"}}\n' \
        "$program" "$size" "$task" "$ln" "$dtype" "$batch" "$why" >>"$out"
    say "$what: $why$(last_words "$errors" | sed 's/^/: /' | cut -c 1-200)"
    rm -f "$errors"
}

# The line of file $1 that says what went wrong: the last that names an error, or the last.
last_words() { { grep -E '[A-Za-z](Error|Exception)\b' "$1" || grep -v '^ *$' "$1" || true; } | tail -n 1; }

# Why a program ended with code $1 after $3 of the $4 seconds that it had; what it said is in file $2. With less than the limit, it is
# no fault of its own.
reason() {
    if [ "$1" -eq 124 ] || [ "$3" -ge "$4" ]; then
        if [ "$4" -lt "$limit" ]; then echo 'no time left'; else echo 'too slow'; fi
    elif grep -qiE 'out of memory|not enough memory|allocate memory|alloc(ation)?_failed' "$2"; then
        echo 'out of memory'
    elif [ "$1" -eq 137 ]; then
        # The system ends what takes too much.
        echo 'out of memory'
    else
        echo 'failed'
    fi
}

# lnfree at size $1.
ours() { measure lnfree "$1" "$LNFREE" bench; }

# PyTorch without compilation at size $1, where it has something to set against ours.
eager() {
    [ -n "$python" ] || return 0
    case $task$ln in
    trainfake) measure 'PyTorch as in the paper' "$1" "$python" "$PEER" --baseline paper ;;
    *real) measure 'PyTorch eager' "$1" "$python" "$PEER" --baseline eager ;;
    esac
}

# torch.compile, likewise; of the larger models it compiles one block, which takes seconds instead of minutes.
compiled() {
    [ -n "$python" ] || return 0
    case $task$ln$1 in
    generate* | *half* | *folded* | evalfake*) ;;
    *gpt2-large | *gpt2-xl) measure 'PyTorch, compiled blocks' "$1" "$python" "$PEER" --baseline strong --compile-blocks ;;
    *) measure 'PyTorch compiled' "$1" "$python" "$PEER" --baseline strong ;;
    esac
}

# Training and evaluation on a CPU: everybody in turn, since what else runs there changes; compiled once, which starts slowly.
in_turn() {
    local size round lns='real folded'
    if [ "$task" = train ]; then lns='real half fake'; fi
    for size in ${sizes//,/ }; do
        for dtype in ${dtypes//,/ }; do
            for ((round = 0; round < repeats; round++)); do
                for ln in $lns; do
                    describe "$size"
                    ours "$size"
                    eager "$size"
                    if [ $round -eq 0 ]; then compiled "$size"; fi
                done
            done
        done
    done
}

# Programs $3 at LNs $1 of sizes $2: on a GPU, what is asked about most comes first.
in_order() {
    local round size program
    for ((round = 0; round < repeats; round++)); do
        for ln in $1; do
            for size in ${2//,/ }; do
                for dtype in ${dtypes//,/ }; do
                    describe "$size"
                    for program in $3; do $program "$size"; done
                done
            done
        done
    done
}

# Texts written with keys and values kept: one and eight together.
generation() {
    local size round texts
    for size in ${sizes//,/ }; do
        for dtype in ${dtypes//,/ }; do
            for ((round = 0; round < repeats; round++)); do
                for texts in 1 8; do
                    for ln in real folded; do
                        describe "$size"
                        batch=$texts accum=1 steps=$rounds
                        ours "$size"
                        eager "$size"
                    done
                done
            done
        done
    done
}

# XL where 48 GB are all there is: six sequences at a time, and fewer still kept when blocks are computed again.
within_48_gb() {
    task=train ln=fake dtype=bfloat16
    describe gpt2-xl
    batch=6 accum=12 steps=1
    measure 'lnfree, 6 at a time' gpt2-xl "$LNFREE" bench --aux-weight 0.01
    measure 'lnfree, 6 at a time, recomputing' gpt2-xl "$LNFREE" bench --aux-weight 0.01 --checkpointing
}

# Training of nano's shape while other programs keep one core busy, then all of them.
crowded() {
    local cores busy i others
    cores=$(getconf _NPROCESSORS_ONLN)
    for busy in 1 "$cores"; do
        others=''
        for ((i = 0; i < busy; i++)); do
            (while :; do :; done) &
            others="$others $!"
        done
        describe nano
        ours "nano, $busy of $cores cores busy"
        eager "nano, $busy of $cores cores busy"
        # shellcheck disable=SC2086  # a list of numbers
        kill $others && wait $others 2>/dev/null || true
        [ "$cores" -gt 1 ] || break
    done
}

asked() { case ,$tasks, in *,$1,*) ;; *) return 1 ;; esac; }

has_size() { case ,$sizes, in *,$1,*) ;; *) return 1 ;; esac; }

on_a_cpu() {
    if asked train; then
        task=train
        section 6 10 && in_turn
        if has_size nano; then ln=fake dtype=${dtypes%%,*} && section 1 6 && crowded; fi
    fi
    if asked eval; then task='eval' && section 2 4 && in_turn; fi
    if asked generate; then task=generate && section 1 1 && generation; fi
}

on_a_gpu() {
    if asked train; then
        task=train
        section 9 20 && in_order 'fake real' "$sizes" 'ours eager'
        if has_size gpt2-xl; then section 2 11 && within_48_gb; fi
        section 4 9 && in_order 'fake real' "$sizes" compiled
        section 1 5 && in_order half "${sizes%%,*}" ours
    fi
    if asked eval; then task='eval' && section 2 4 && in_order 'real folded' "$sizes" 'ours eager'; fi
    if asked generate; then task=generate && section 1 1 && generation; fi
}

read_arguments "$@"
find_programs
defaults
say "$("$LNFREE" --version), $(date +%Y-%m-%d), on the $device, results in $out"
if [ "$device" = cuda ]; then on_a_gpu; else on_a_cpu; fi
step "$(date +%Y-%m-%d)"
"$LNFREE" bench --table "$out" ${markdown[@]+"${markdown[@]}"}
