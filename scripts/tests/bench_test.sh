#!/usr/bin/env bash
# Tries bench.sh: the real program on the CPU, beside peers that fail in every way; and the order of a run on a GPU, for which a program stands in
# that says at once what it was asked. LNFREE names the real binary. With --all also that a minute is shared out, which takes that minute.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

BENCH=$ROOT/scripts/bench.sh
SANDBOX=$(mktemp -d)
trap 'rm -rf "$SANDBOX"' EXIT
export REAL=${LNFREE:-$ROOT/target/debug/lnfree}
passed=0 output='' code=0

fail() {
    printf 'FAILED: %s\n  exit code %s, output:\n%s\n' "$*" "$code" "$output" >&2
    exit 1
}

# Runs bench.sh with these arguments.
bench() {
    code=0
    output=$("$BENCH" --out "$SANDBOX/results.jsonl" "$@" 2>&1) || code=$?
}

ends_with() { [ "$code" -eq "$1" ] || fail "exit code $1 expected"; }

says() { grep -qF -- "$1" <<<"$output" || fail "it should say: $1"; }

ok() { passed=$((passed + 1)) && printf 'ok: %s\n' "$*"; }

# A Python that has everything, whose peer does what its arguments ask for; `stubs` come first in PATH.
mkdir "$SANDBOX/stubs"
cat >"$SANDBOX/stubs/python" <<'STUB'
#!/usr/bin/env bash
case "$*" in
-c*) exit 0 ;;
*float32*) echo 'Traceback' >&2 && echo 'RuntimeError: no such kernel' >&2 && echo 'a hint' >&2 && exit 1 ;;
*--compile*) sleep 60 ;;
*strong*) echo 'torch.OutOfMemoryError: CUDA out of memory.' >&2 && exit 1 ;;
*paper*) echo 'no JSON' ;;
*) kill -9 $$ ;;
esac
STUB
cat >"$SANDBOX/stubs/nvidia-smi" <<'STUB'
#!/usr/bin/env bash
echo 'GPU 0: NVIDIA H100 80GB HBM3'
STUB
# A program that has a GPU and measures nothing; every run is one line in the log.
cat >"$SANDBOX/stubs/lnfree" <<'STUB'
#!/usr/bin/env bash
case "$*" in
--version) echo 'lnfree stub' && exit ;;
*--table*) exec "$REAL" "$@" ;;
esac
echo "lnfree $*" >>"$STUB_LOG"
sleep "${STUB_SECONDS:-0}"
value() { printf '%s\n' "$@" | sed -n "/^$name\$/{n;p;q;}"; }
task=$(name=--task value "$@") ln=$(name=--ln value "$@")
echo '{"task": "'"${task:-eval}"'", "ln": "'"${ln:-real}"'", "device": "stub", "dtype": "bfloat16", "batch_size": 1, "accumulation": 1, "seq": 2, "checkpointing": false,
"median_step_s": 1, "tokens_per_s": 2, "flop_per_s": 3, "matrix_peak": 4, "peak_gib": 5}' | tr -d '\n'
STUB
chmod +x "$SANDBOX"/stubs/*
export STUB_LOG=$SANDBOX/log

wrong_arguments() {
    local case
    for case in '--sizes gpt3|unknown size gpt3' '--tasks fly|unknown task fly' '--dtypes int8|unknown dtype int8' \
        '--minutes soon|soon: --repeats, --minutes, --seconds and --limit are whole numbers' '--device tpu|there are auto, cpu and cuda' '--what|unknown argument --what'; do
        # shellcheck disable=SC2086  # an argument and its value
        bench ${case%%|*}
        ends_with 1
        says "${case#*|}"
    done
    ok 'wrong arguments are refused before anything is built'
}

failing_peers() {
    LNFREE=$REAL bench --device cpu --sizes nano --tasks eval --repeats 1 --peer-python "$SANDBOX/stubs/python"
    ends_with 0
    says 'nano, eval, LN real, float32, PyTorch eager: failed: RuntimeError: no such kernel'
    says 'nano, eval, LN real, bfloat16, PyTorch eager: out of memory'
    says 'nano, eval, LN real, bfloat16, PyTorch compiled: out of memory with 32 sequences, again with half of them'
    says '× with LN'
    grep -q '"program": "lnfree", "size": "nano", "record": {"task":"eval","ln":"folded"' "$SANDBOX/results.jsonl" || fail 'no record of ours'
    LNFREE=$SANDBOX/stubs/lnfree bench --device cpu --sizes gpt2-large --tasks train --dtypes bfloat16 --repeats 1 --limit 6 \
        --peer-python "$SANDBOX/stubs/python"
    ends_with 0
    says 'PyTorch, compiled blocks: too slow'
    says 'PyTorch as in the paper: no result'
    ok 'peers that fail, end early, find no memory or take too long are lines of the table'
}

unusable_gpu() {
    export PATH=$SANDBOX/stubs:$PATH
    if "$REAL" bench --device cuda --size 1,1,8,16 --seq 2 --steps 1 >/dev/null 2>&1; then
        ok 'there is a GPU: a missing one is not tried' && return
    fi
    LNFREE=$REAL bench --no-peer --sizes nano --tasks eval --dtypes float32 --repeats 1
    ends_with 0
    says 'there is a GPU that lnfree cannot use ('
    says 'the CPU is measured'
    LNFREE=$REAL bench --no-peer --device cuda --sizes nano
    ends_with 1
    says 'device cuda: '
    ok 'a GPU that cannot be used is said, and the CPU measured unless the GPU was asked for'
}

order_on_a_gpu() {
    : >"$STUB_LOG"
    LNFREE=$SANDBOX/stubs/lnfree bench --no-peer
    ends_with 0
    says 'on the cuda'
    local xl evaluation
    xl=$(grep -n -m 1 -- --checkpointing "$STUB_LOG" | cut -d : -f 1)
    evaluation=$(grep -n -m 1 -- '--task eval' "$STUB_LOG" | cut -d : -f 1)
    [ "$xl" -lt "$evaluation" ] || fail 'XL in 48 GB comes too late'
    ok 'on a GPU what matters comes first'
}

shares_of_a_minute() {
    # Every run takes three seconds of it: no section starves.
    : >"$STUB_LOG"
    local began=$SECONDS what
    STUB_SECONDS=3 LNFREE=$SANDBOX/stubs/lnfree bench --no-peer --minutes 1
    ends_with 0
    for what in '--task train --ln fake' '--accum 12' '--task eval' '--task generate'; do
        grep -q -- "$what" "$STUB_LOG" || fail "nothing of $what was measured within a minute"
    done
    says 'no time left'
    [ $((SECONDS - began)) -le 66 ] || fail 'it did not end in time'
    ok 'every section has its share of the time'
}

wrong_arguments
failing_peers
unusable_gpu
order_on_a_gpu
if [ "${1:-}" = --all ]; then shares_of_a_minute; fi
say "all $passed tests passed"
