#!/usr/bin/env bash
# The crate on ARM under Linux, on a machine that is none: compiled by a cross compiler, linked with the libtorch of PyTorch's aarch64
# wheel, run by qemu. Run it by hand: it takes the compilation of all dependencies and a multiple of the tests' usual time.
#
#   ./scripts/tests/aarch64.sh              the tests of kernels and the conformance tests
#   ./scripts/tests/aarch64.sh ARGUMENTS    what cargo test is to run instead: --test model, or --lib native
#
# On Debian and Ubuntu: apt-get install g++-12-aarch64-linux-gnu qemu-user-static, and rustup target add aarch64-unknown-linux-gnu. The
# wheel (420 MB) goes into ${XDG_CACHE_HOME:-~/.cache}/lnfree, what is compiled into target/.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=scripts/wheels.sh
. "$ROOT/scripts/wheels.sh"
cd "$ROOT"

SYSTEM="Linux aarch64"
TARGET=aarch64-unknown-linux-gnu
CACHE=${XDG_CACHE_HOME:-${HOME:?is not set: set it, or XDG_CACHE_HOME}/.cache}/lnfree
TORCH=$CACHE/libtorch-$LIBTORCH_VERSION-linux-aarch64

# The newest of the cross compiler's names that is here, without what tells gcc from g++.
cross_suffix() {
    local suffix
    for suffix in '' -14 -13 -12 -11; do
        if have "aarch64-linux-gnu-g++$suffix" && have "aarch64-linux-gnu-gcc$suffix"; then
            printf '%s\n' "$suffix"
            return
        fi
    done
    die "there is no cross compiler: apt-get install g++-12-aarch64-linux-gnu"
}

fetch() {
    [ ! -f "$TORCH/build-version" ] || return 0
    say "downloading libtorch $LIBTORCH_VERSION for Linux aarch64 into $TORCH"
    mkdir -p "$CACHE"
    rm -rf "$TORCH.partial" && mkdir -p "$TORCH.partial/root"
    download "$TORCH.partial" "$SYSTEM" cpu
    unpack "$TORCH.partial" "$SYSTEM" cpu
    "$CXX_aarch64_unknown_linux_gnu" -shared -Wl,-soname,libtorch.so -o "$TORCH.partial/root/lib/libtorch.so" -x c++ /dev/null
    echo "$LIBTORCH_VERSION" >"$TORCH.partial/root/build-version"
    mv "$TORCH.partial/root" "$TORCH" && rm -rf "$TORCH.partial"
}

suffix=$(cross_suffix)
emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || die "qemu is missing: apt-get install qemu-user-static"
rustup target list --installed 2>/dev/null | grep -qx "$TARGET" || die "Rust's library for ARM is missing: rustup target add $TARGET"

export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc$suffix
export CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++$suffix
export AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc$suffix
# The cross compiler's own C library serves.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator -L /usr/aarch64-linux-gnu"
fetch
# A folder of its own: another LIBTORCH would have everything of this machine's compiled anew, too.
export LIBTORCH=$TORCH CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target/aarch64} CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0
say "compiling for $TARGET with $CXX_aarch64_unknown_linux_gnu"
[ $# -gt 0 ] || set -- --lib --test fast_paths --test conformance_forward --test conformance_training --test conformance_formats -- native conformance fast
cargo test --locked --target "$TARGET" "$@"
say "passed under $("$emulator" --version | head -n 1)"
