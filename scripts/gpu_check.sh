#!/usr/bin/env bash
# Everything that a GPU is asked when there is one for a while: whether lnfree computes right on it, how fast beside PyTorch, and what that comes to.
#
#   ./scripts/gpu_check.sh               at most 9 minutes; a verdict a line, and the numbers in runs/gpu/DATE/
#     --minutes N                        end by then
#     --device cuda[:N]|cpu              cpu: try the script itself, on one small model
#     --quick                            few training steps in the self-test, nano's shape alone in the benchmark
#     --peer-python PATH                 a Python with torch and transformers (python3)
#     --out DIR                          selftest.json, results.jsonl (lines of bench.sh), verdicts.jsonl, table.md
#
# A bare machine needs no cargo: LNFREE=PATH names a binary that was built elsewhere (cargo build --release, then strip it), which takes the libtorch of
# Python's torch 2.11.0. Exit code 0 if every verdict is good, 1 if one is not, 2 without a GPU.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/bench/pythons.sh
. "$(dirname "$0")/bench/pythons.sh"

NO_GPU=2
LATEST=20 # seconds kept for what comes after the benchmark
minutes=9 device=cuda quick='' python=python3 out=''

while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0" && exit ;;
    --minutes) minutes=${2:?--minutes needs a number} && shift ;;
    --device) device=${2:?--device needs cuda, cuda:N or cpu} && shift ;;
    --quick) quick=yes ;;
    --peer-python) python=${2:?--peer-python needs a path} && shift ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    *) die "unknown argument $1; see --help" ;;
    esac
    shift
done
case $minutes in *[!0-9]* | 0) die "$minutes: --minutes is a whole number from 1" ;; esac
case $device in cuda | cuda:[0-9]* | cpu) ;; *) die "device $device: there are cuda, cuda:N and cpu" ;; esac

# Writes a verdict down: the check $1, ok, FAILED or skipped, and what was found.
verdict() {
    printf '%-7s  %-12s  %s\n' "$2" "$1" "$3"
    printf '{"check": "%s", "verdict": "%s", "detail": "%s"}\n' "$1" "$2" "$(printf %s "$3" | tr '"\\\n' "'/ ")" >>"$out/verdicts.jsonl"
}

left() { echo $((minutes * 60 - SECONDS)); }

find_libtorch() {
    build
    # On a GPU, Python's libtorch comes first: one for CPUs alone would start too.
    if [ "$device" != cpu ] && take_pythons_libtorch "$python"; then return; fi
    starts "$LNFREE" || take_pythons_libtorch "$python" || die "$LNFREE does not start: $(first_error "$LNFREE" --version)"
}

# Ends here, in one line, where the device cannot be used.
check_device() {
    local smallest=(bench --device "$device" --size "1,1,8,16" --seq 2 --batch-size 1 --steps 1 --warmup 0)
    if "$LNFREE" "${smallest[@]}" >/dev/null 2>&1; then return; fi
    printf '%s: nothing to check: %s\n' "$NAME" "$(first_error "$LNFREE" "${smallest[@]}")" >&2
    exit $NO_GPU
}

self_test() {
    local arguments=() code=0 last
    if [ -n "$quick" ]; then arguments=(--quick); fi
    last=$(at_most "$(left)" "$LNFREE" selftest --device "$device" --json "$out/selftest.json" ${arguments[@]+"${arguments[@]}"} \
        2>"$out/selftest.err" | tee "$out/selftest.txt" | tail -n 1) || code=$?
    grep '^FAILED' "$out/selftest.txt" | cut -c 1-160 || true
    if [ $code -eq 0 ]; then verdict selftest ok "$last"; else verdict selftest FAILED "${last:-no comparison}; $(tail -n 1 "$out/selftest.err")"; fi
    rm -f "$out/selftest.err"
}

# bench.sh with these arguments; its lines go to the results.
bench() {
    "$ROOT/scripts/bench.sh" --device "${device%%:*}" --peer-python "$python" --out "$out/part.jsonl" "$@" >"$out/bench.txt" 2>&1 || {
        verdict bench FAILED "bench.sh $*: $(tail -n 1 "$out/bench.txt")"
    }
    sed -n '/tokens\/s$/p; /out of memory/p; /too slow/p; /failed/p; /no time left/p' "$out/bench.txt"
    cat "$out/part.jsonl" >>"$out/results.jsonl" 2>/dev/null || true
    rm -f "$out/part.jsonl" "$out/bench.txt"
}

# Evaluations as eval_all.sh makes them come first: they are short, and its projected time is made of them.
benchmark() {
    local rest
    if [ "$device" = cpu ]; then
        bench --sizes nano --tasks eval --dtypes float32 --repeats 1 --minutes 1
        bench --sizes nano --tasks train --dtypes float32 --repeats 1 --minutes 1
        return
    fi
    local sizes=()
    if [ -n "$quick" ]; then sizes=(--sizes nano); fi
    bench --tasks eval --dtypes tf32 --no-peer --seconds 50 ${sizes[@]+"${sizes[@]}"}
    rest=$(($(left) - LATEST))
    if [ $rest -ge 30 ]; then bench --seconds $rest ${sizes[@]+"${sizes[@]}"}; else verdict bench skipped 'no time left'; fi
}

judge() {
    local check word detail
    "$LNFREE" eval-all --dry-run --device cpu --out "$out/none" 2>/dev/null >"$out/plan.txt" || true
    "$python" "$ROOT/scripts/bench/verdicts.py" "$out/results.jsonl" "$out/plan.txt" >"$out/judged.txt" || verdict results FAILED 'they cannot be judged'
    while IFS=$'\t' read -r check word detail; do verdict "$check" "$word" "$detail"; done <"$out/judged.txt"
    "$LNFREE" bench --table "$out/results.jsonl" --markdown >"$out/table.md" 2>/dev/null || true
    rm -f "$out/plan.txt" "$out/judged.txt"
}

find_libtorch
check_device
[ -n "$out" ] || out=$ROOT/runs/gpu/$(date +%Y-%m-%dT%H-%M)
mkdir -p "$out"
: >"$out/verdicts.jsonl"
: >"$out/results.jsonl"
say "$("$LNFREE" --version), $(date +%Y-%m-%d), on $device, results in $out"
self_test
benchmark
judge
verdict time "$([ "$(left)" -ge 0 ] && echo ok || echo FAILED)" "$SECONDS of $((minutes * 60)) seconds"
if grep -q '"verdict": "FAILED"' "$out/verdicts.jsonl"; then exit 1; fi
