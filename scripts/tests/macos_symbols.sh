#!/usr/bin/env bash
# Compiles native/ and torch-sys' C++ for Macs with Apple silicon, and links them with the libraries of PyTorch's wheel for these: what
# is there to be said of macOS without a Mac. A symbol that the wheel lacks is an error of the linker, and named by it.
#
#   ./scripts/tests/macos_symbols.sh             native/ alone, a minute
#   ./scripts/tests/macos_symbols.sh --torch-sys torch-sys' C++ too, some minutes more
#
# The compiler is zig's clang, which brings the headers of macOS and of its libc++. It, the wheel (81 MB) and what comes of them go into
# ${XDG_CACHE_HOME:-~/.cache}/lnfree. Nothing of it runs.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=scripts/wheels.sh
. "$ROOT/scripts/wheels.sh"
cd "$ROOT/lnfree"

SYSTEM="Darwin arm64"
CACHE=${XDG_CACHE_HOME:-${HOME:?is not set: set it, or XDG_CACHE_HOME}/.cache}/lnfree
TORCH=$CACHE/libtorch-$LIBTORCH_VERSION-macos-arm64
ZIG=$CACHE/zig-0.17.1
OUT=$ROOT/target/macos
export ZIG_GLOBAL_CACHE_DIR=$ZIG/cache ZIG_LOCAL_CACHE_DIR=$ZIG/cache

case ${1:-} in
'' | --torch-sys) ;;
*) die "unknown argument $1; there is only --torch-sys" ;;
esac

fetch() {
    mkdir -p "$CACHE" "$OUT"
    if [ ! -f "$TORCH/build-version" ]; then
        say "downloading libtorch $LIBTORCH_VERSION for macOS into $TORCH"
        rm -rf "$TORCH.partial" && mkdir -p "$TORCH.partial/root"
        download "$TORCH.partial" "$SYSTEM" cpu
        unpack "$TORCH.partial" "$SYSTEM" cpu
        echo "$LIBTORCH_VERSION" >"$TORCH.partial/root/build-version"
        mv "$TORCH.partial/root" "$TORCH" && rm -rf "$TORCH.partial"
    fi
    [ -x "$ZIG/ziglang/zig" ] ||
        python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$ZIG" ziglang==0.17.1
}

zig() { "$ZIG/ziglang/zig" c++ -target aarch64-macos.14.0 "$@"; }

# Compiles file $1 into object $2 with the flags after them.
compile() {
    local from=$1 to=$2
    shift 2
    # -fclang-abi-compat: as in build.rs.
    zig -O2 -std=c++17 -fclang-abi-compat=17 -isystem "$TORCH/include" -isystem "$TORCH/include/torch/csrc/api/include" "$@" -c "$from" -o "$to" ||
        die "$from cannot be compiled for macOS, see above"
}

# The folder of the sources of torch-sys.
torch_sys() {
    cargo metadata --locked --format-version 1 --filter-platform aarch64-apple-darwin | python3 -c 'import json, os, sys
[crate] = [p for p in json.load(sys.stdin)["packages"] if p["name"] == "torch-sys"]
print(os.path.dirname(crate["manifest_path"]))'
}

link() { zig -dynamiclib -o "$OUT/$1" "$OUT"/*.o -L"$TORCH/lib" "${@:2}"; }

fetch
rm -f "$OUT"/*.o
count=0
for file in native/*.cpp; do
    compile "$file" "$OUT/$(basename "$file" .cpp).o" -Wall -Wextra -Wno-psabi -Werror
    count=$((count + 1))
done
# Compiled for each instruction set; here there is one.
if [ -f native/loops/level.cpp ]; then
    compile native/loops/level.cpp "$OUT/level.o" -DLNFREE_LEVEL=baseline -Wall -Wextra -Wno-psabi -Werror
    count=$((count + 1))
fi
if [ "${1:-}" = --torch-sys ]; then
    folder=$(torch_sys)
    for file in torch_api torch_api_generated; do
        compile "$folder/libtch/$file.cpp" "$OUT/$file.o" -w
        count=$((count + 1))
    done
    # What its C++ calls of its Rust.
    grep -rhoE 'extern "C" fn tch_[a-z_]+' "$folder/src" | sed -E 's/.* (tch_[a-z_]+)/extern "C" void \1() {}/' >"$OUT/callbacks.cpp"
    [ -s "$OUT/callbacks.cpp" ] || die "torch-sys has no Rust that its C++ calls: has it changed?"
    compile "$OUT/callbacks.cpp" "$OUT/callbacks.o"
fi

link native.dylib -ltorch -ltorch_cpu -lc10 || die "the wheel's libraries lack symbols, see above"
# That the linker finds what is missing is tried too.
! link without.dylib -lc10 2>"$OUT/without.log" || die "the linker takes anything: what it said above is worth nothing"
grep -q 'undefined symbol' "$OUT/without.log" || die "the linker fails for another reason, see $OUT/without.log"
say "$count files compile for macOS arm64 and find all their symbols in libtorch $LIBTORCH_VERSION; nothing was run"
