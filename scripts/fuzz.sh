#!/usr/bin/env bash
# Searches for input on which a reader of lnfree fails: libFuzzer, guided by coverage.
#
#   ./scripts/fuzz.sh                  the names of all targets
#   ./scripts/fuzz.sh TARGET|all [N]   N inputs for each (1,000,000)
#
# What is found lies in target/fuzz/found; what reached something new is kept in target/fuzz/corpus and is where the next
# search begins. An input that fails becomes a seed (lnfree/fuzz/seeds/TARGET), which `cargo test -p lnfree-fuzz` replays.
# FUZZ_FLAGS has more flags for libFuzzer: FUZZ_FLAGS='-max_total_time=60 -max_len=65536' ./scripts/fuzz.sh torch
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

# Only lnfree itself is built for coverage: no nightly, and dependencies are those that are built already.
if [ "${1:-}" = --rustc ]; then
    shift
    case " $* " in
    *' --crate-name lnfree '*' --crate-type '*)
        exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
            -Cllvm-args=-sanitizer-coverage-trace-compares
        ;;
    esac
    exec "$@"
fi

wrapper=$root/target/fuzz/rustc
mkdir -p target/fuzz/found
printf '#!/usr/bin/env bash\nexec "%s" --rustc "$@"\n' "$root/scripts/fuzz.sh" >"$wrapper.new"
chmod +x "$wrapper.new" && mv "$wrapper.new" "$wrapper"
RUSTC_WORKSPACE_WRAPPER=$wrapper cargo build --locked --quiet -p lnfree-fuzz --features engine
fuzz=$root/target/debug/fuzz

if [ $# = 0 ]; then
    exec "$fuzz"
fi
targets=$1
[ "$targets" != all ] || targets=$("$fuzz")
failed=
for target in $targets; do
    corpus=$root/target/fuzz/corpus/$target
    mkdir -p "$corpus"
    echo "== $target: ${2:-1000000} inputs"
    # shellcheck disable=SC2086 # flags are words
    "$fuzz" "$target" "$corpus" -runs="${2:-1000000}" -artifact_prefix="$root/target/fuzz/found/$target-" \
        ${FUZZ_FLAGS:-} 2>"target/fuzz/$target.log" || failed="$failed $target"
    grep -E '^stat::|^[a-z_]+: |^==.*ERROR|Test unit written' "target/fuzz/$target.log" || true
done
[ -z "$failed" ] || { echo "failed:$failed (target/fuzz/TARGET.log)" >&2 && exit 1; }
