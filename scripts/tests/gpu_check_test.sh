#!/usr/bin/env bash
# Tries gpu_check.sh without a GPU: that it says so; its whole course, with a program in lnfree's place that says at once what it was asked; its verdicts;
# and that the real program loads the libtorch of CUDA's wheels, where Python has these. LNFREE names the real binary, PEER_PYTHON such a Python. With
# --all also a run of the real program on the CPU, which takes minutes.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

CHECK=$ROOT/scripts/gpu_check.sh
REAL=${LNFREE:-$ROOT/target/debug/lnfree}
PYTHON=${PEER_PYTHON:-python3}
SANDBOX=$(mktemp -d)
trap 'rm -rf "$SANDBOX"' EXIT
passed=0 output='' code=0

fail() {
    printf 'FAILED: %s\n  exit code %s, output:\n%s\n' "$*" "$code" "$output" >&2
    exit 1
}

# Runs a command; what it says and its exit code are kept.
try() {
    code=0
    output=$("$@" 2>&1) || code=$?
}

ends_with() { [ "$code" -eq "$1" ] || fail "exit code $1 expected"; }

says() { grep -qF -- "$1" <<<"$output" || fail "it should say: $1"; }

ok() { passed=$((passed + 1)) && printf 'ok: %s\n' "$*"; }

# A program that passes everything, or fails what STUB_FAILS names.
mkdir "$SANDBOX/stubs"
cat >"$SANDBOX/stubs/lnfree" <<'STUB'
#!/usr/bin/env bash
case "$*" in
--version) echo 'lnfree stub' && exit ;;
*--table*) echo '| a table |' && exit ;;
eval-all*) printf 'suite paper: 12 models × 3 data sets\n  a (A): about 1000 sequences\n  b (B): 500 sequences\n' && exit ;;
selftest*)
    echo 'ok       operation  gelu  float32  1e-7  2e-6'
    if [ "${STUB_FAILS:-}" = selftest ]; then
        echo 'FAILED   training   losses  float32  1e-1  2e-6'
        echo '1 of 2 comparisons FAILED on stub'
        exit 1
    fi
    echo 'all 2 comparisons passed on stub' && exit
    ;;
esac
value() { printf '%s\n' "$@" | sed -n "/^$name\$/{n;p;q;}"; }
task=$(name=--task value "$@") ln=$(name=--ln value "$@") dtype=$(name=--dtype value "$@")
gib=40
if [ "${STUB_FAILS:-}" = memory ]; then gib=46; fi
echo '{"task": "'"${task:-eval}"'", "ln": "'"${ln:-real}"'", "device": "stub", "dtype": "'"${dtype:-float32}"'", "batch_size": 1, "accumulation": 1, "seq": 2,
"checkpointing": false, "median_step_s": 1, "tokens_per_s": 1024, "flop_per_s": 3, "matrix_peak": 4, "peak_gib": '$gib', "planned_gib": 41}' | tr -d '\n'
STUB
# A peer half as fast.
cat >"$SANDBOX/stubs/python" <<'STUB'
#!/usr/bin/env bash
case "$*" in
*verdicts.py*) exec python3 "$@" ;;
-c*__path__*) echo /nowhere && exit ;;
-c*) exit 0 ;;
esac
"$(dirname "$0")/lnfree" "$@" | sed 's/"tokens_per_s": 1024/"tokens_per_s": '"${PEER_RATE:-512}"'/'
STUB
chmod +x "$SANDBOX"/stubs/*

wrong_arguments() {
    local case
    for case in '--minutes soon|--minutes is a whole number' '--device tpu|there are cuda, cuda:N and cpu' '--what|unknown argument --what'; do
        # shellcheck disable=SC2086  # an argument and its value
        try "$CHECK" ${case%%|*}
        ends_with 1
        says "${case#*|}"
    done
    ok 'wrong arguments are refused'
}

without_a_gpu() {
    if "$REAL" bench --device cuda --size 1,1,8,16 --seq 2 --steps 1 >/dev/null 2>&1; then
        ok 'there is a GPU: a missing one is not tried' && return
    fi
    LNFREE=$REAL try "$CHECK" --peer-python "$PYTHON" --out "$SANDBOX/none"
    ends_with 2
    says 'gpu_check: nothing to check: lnfree: device cuda: '
    [ "$(wc -l <<<"$output")" -eq 1 ] || fail 'more than one line'
    [ ! -e "$SANDBOX/none" ] || fail 'it wrote something'
    ok 'without a GPU it says so in a line'
}

# The stub as a GPU.
check_stub() { LNFREE=$SANDBOX/stubs/lnfree try "$CHECK" --peer-python "$SANDBOX/stubs/python" --out "$SANDBOX/out" "$@"; }

whole_course() {
    check_stub
    ends_with 0
    says 'ok       selftest      all 2 comparisons passed on stub'
    says 'gpt2-xl, train, LN fake, bfloat16: 1,024 tokens/s, 2.00 x PyTorch as in the paper, 2.00 x PyTorch, compiled blocks'
    says 'ok       xl memory     lnfree, 6 at a time, recomputing: 40.0 GiB of 44.7 GiB (48 GB)'
    # 12 models, 1500 sequences of 1024 tokens each, 1024 tokens a second.
    says 'ok       eval_all      18M tokens in tf32: 300 minutes'
    says 'ok       time'
    python3 -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1])]' "$SANDBOX/out/verdicts.jsonl" || fail 'verdicts are no JSON'
    [ -s "$SANDBOX/out/results.jsonl" ] || fail 'no results'
    [ "$(cat "$SANDBOX/out/table.md")" = '| a table |' ] || fail 'no table'
    ok 'a whole course, with a verdict a line'
}

bad_verdicts() {
    STUB_FAILS=selftest check_stub --quick
    ends_with 1
    says 'FAILED   training   losses'
    says 'FAILED   selftest      1 of 2 comparisons FAILED on stub'
    STUB_FAILS=memory check_stub
    ends_with 1
    says 'FAILED   xl memory     lnfree, 6 at a time: 46.0 GiB of 44.7 GiB'
    says 'FAILED   plan          gpt2, LN fake: 46.0 GiB held, 41.0 GiB planned'
    PEER_RATE=2048 check_stub --quick
    ends_with 1
    says '0.50 x PyTorch'
    ok 'what is wrong, too large or slower than a peer is a verdict, and the exit code'
}

# Everything up to the first call of a device.
real_wheels() {
    local lib
    lib=$("$PYTHON" -c 'import torch; print(torch.__path__[0])' 2>/dev/null)/lib || lib=
    if [ ! -f "$lib/libtorch_cuda.so" ] || [ "$(libtorch_version "${lib%/lib}")" != $LIBTORCH_VERSION ]; then
        say "$PYTHON has no torch $LIBTORCH_VERSION with CUDA: its wheels are not tried" && return
    fi
    export LD_LIBRARY_PATH=$lib
    try "$REAL" doctor
    says "$LIBTORCH_VERSION in $lib"
    if ! grep -qE 'CUDA +(cuda:0|not used)' <<<"$output"; then
        says "CUDA's part of libtorch is there and loads"
        try "$REAL" selftest --device cuda
        ends_with 1
        says 'lnfree: device cuda: '
        [ "$(wc -l <<<"$output")" -eq 1 ] || fail 'more than one line'
    fi
    try "$REAL" selftest --device cpu --quick
    ends_with 0
    says 'comparisons passed on'
    unset LD_LIBRARY_PATH
    ok "the program runs with the libtorch of CUDA's wheels, and loads their CUDA part"
}

real_run() {
    LNFREE=$REAL try "$CHECK" --device cpu --quick --minutes 5 --peer-python "$PYTHON" --out "$SANDBOX/real"
    says 'ok       selftest      all '
    says 'skipped  eval_all'
    grep -q '"program": "lnfree", "size": "nano"' "$SANDBOX/real/results.jsonl" || fail 'no record of ours'
    [ -s "$SANDBOX/real/table.md" ] || fail 'no table'
    ok 'the real program on the CPU'
}

wrong_arguments
without_a_gpu
whole_course
bad_verdicts
real_wheels
if [ "${1:-}" = --all ]; then real_run; fi
say "all $passed tests passed"
