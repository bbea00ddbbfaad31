#!/usr/bin/env bash
# Gets what the crate needs to build, and points .libtorch at it. Run it as often as you like.
#
#   ./scripts/setup.sh            libtorch for the CPU: 543 MB to download, 0.5 GB on disk (on a Mac 81 and 310 MB)
#   ./scripts/setup.sh --cuda     libtorch for NVIDIA GPUs: some 2.5 GB to download, twice that on disk
#   ./scripts/setup.sh --check    only say what is there and what is missing; exit code 1 if anything is
#
# Taken in this order: the folder in LIBTORCH; what .libtorch points at; an installed PyTorch of the right version;
# an earlier download; PyTorch's own wheels from the Python package index, into ${XDG_CACHE_HOME:-~/.cache}/lnfree.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/wheels.sh
. "$ROOT/scripts/wheels.sh"

SYSTEM=$(uname -sm)
LINK=$ROOT/.libtorch
CACHE=${XDG_CACHE_HOME:-${HOME:?is not set: set it, or XDG_CACHE_HOME}/.cache}/lnfree
OWN_HINT="install PyTorch $LIBTORCH_VERSION with pip, or set LIBTORCH to the folder of a libtorch $LIBTORCH_VERSION"
kind=cpu
check=
partial= # what a download is made in; not local, for it is removed when the script ends

# The compilers, before anything is downloaded for them.
check_tools() {
    local needed found
    have cargo || die "cargo is missing: install Rust with rustup (https://rustup.rs) and open a new shell"
    needed=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    found=$(cargo --version | sed 's/^cargo \([0-9.]*\).*/\1/')
    at_least "$found" "$needed" || die "cargo is $found, $needed or newer is needed: rustup update stable"
    have "${CXX:-c++}" ||
        die "the C++ compiler ${CXX:-c++} is missing: apt-get install g++ (on a Mac xcode-select --install, else your system's C++ compiler)"
}

# Dies unless folder $1, which $2 names, can be used.
insist() {
    local version lacks
    [ -d "$1" ] || die "$2 is no folder: unset it, or point it to a libtorch $LIBTORCH_VERSION"
    version=$(libtorch_version "$1")
    [ "$version" = "$LIBTORCH_VERSION" ] ||
        die "$2 is libtorch ${version:-of an unknown version}, $LIBTORCH_VERSION is needed: unset it, or point it to that version"
    lacks=$(libtorch_lacks "$1")
    [ -z "$lacks" ] || die "$2 lacks $lacks: unset it, or point it to a whole libtorch $LIBTORCH_VERSION"
    [ "$kind" = cpu ] || libtorch_has_cuda "$1" || die "$2 is a libtorch without CUDA: unset it, or point it to one with CUDA"
}

serves() { libtorch_usable "$1" && { [ "$kind" = cpu ] || libtorch_has_cuda "$1"; }; }

# Prints the folder of an installed PyTorch. It is found without importing it, which would take seconds.
installed_pytorch() {
    have python3 || return 0
    python3 -c 'import importlib.util as u, os
s = u.find_spec("torch")
if s and s.origin: print(os.path.dirname(os.path.realpath(s.origin)))' 2>/dev/null || true
}

# Prints where a download of this kind keeps its libtorch.
downloaded() {
    local folder=$CACHE/libtorch-$LIBTORCH_VERSION-$kind
    [ "$kind" = cpu ] || folder+=/torch
    printf '%s\n' "$folder"
}

can_download() {
    local libc
    case $SYSTEM in
    "Linux x86_64" | "Linux aarch64") ;;
    "Darwin arm64") [ "$kind" = cpu ] || die "a Mac has no NVIDIA GPU: ./scripts/setup.sh without --cuda gets libtorch for its CPU" ;;
    *) die "libtorch is downloaded for Linux (x86-64 and ARM) and for Macs with Apple silicon only, this is $SYSTEM: $OWN_HINT" ;;
    esac
    if [ "$kind" = cuda ] && [ "$SYSTEM" != "Linux x86_64" ]; then
        die "libtorch with CUDA is downloaded for x86-64 Linux only, this is $SYSTEM: $OWN_HINT"
    fi
    if [ "${SYSTEM%% *}" = Linux ]; then
        libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || echo "glibc 0")
        at_least "${libc#glibc }" 2.28 || die "the libtorch to download needs glibc 2.28 or newer, which is not here: $OWN_HINT"
    fi
    have python3 || die "python3 is missing, and libtorch comes through it: apt-get install python3 python3-pip (on a Mac xcode-select --install)"
    python3 -m pip --version >/dev/null 2>&1 || die "pip is missing: apt-get install python3-pip (or python3 -m ensurepip)"
}

# Makes the download: beside its place and then renamed, so that it is there whole or not at all; one setup at a time.
fetch() {
    local folder=$CACHE/libtorch-$LIBTORCH_VERSION-$kind need_gb=2 free_kb torch
    [ "$kind" = cpu ] || need_gb=9
    can_download
    mkdir -p "$CACHE" 2>/dev/null || die "$CACHE cannot be made: set XDG_CACHE_HOME to a folder that you can write to"
    exec 9>"$CACHE/.lock"
    take_lock 9 || { say "another setup is at work: waiting for it" && take_lock 9 wait; }
    ! serves "$(downloaded)" || return 0
    # What an interrupted setup left behind; no other one is running, for the lock is ours.
    partial=$folder.partial
    rm -rf "$partial"
    free_kb=$(df -Pk "$CACHE" | awk 'NR == 2 { print $4 }')
    [ "$free_kb" -ge $((need_gb << 20)) ] ||
        die "$CACHE has $((free_kb >> 10)) MB free and $need_gb GB are needed: free some, or set XDG_CACHE_HOME to another disk"
    trap 'rm -rf "$partial"' EXIT
    mkdir -p "$partial/root"
    say "downloading libtorch $LIBTORCH_VERSION ($kind) into $folder"
    download "$partial" "$SYSTEM" "$kind"
    unpack "$partial" "$SYSTEM" "$kind" || die "the downloaded wheels cannot be unpacked into $partial (disk full?): free some space and run again"
    torch=$partial/root
    if [ "$kind" = cuda ]; then
        torch+=/torch
    elif [ "${SYSTEM%% *}" = Linux ]; then
        # The real one pulls in CUDA; the linker only wants a library of this name.
        "${CXX:-c++}" -shared -Wl,-soname,libtorch.so -o "$torch/lib/libtorch.so" -x c++ /dev/null
    fi
    echo "$LIBTORCH_VERSION" >"$torch/build-version"
    serves "$torch" || die "the wheels hold no whole libtorch ($kind): $(libtorch_lacks "$torch") is missing"
    # All of it on the disk before it gets its name.
    sync -f "$partial" 2>/dev/null || sync
    rm -rf "$folder"
    mv "$partial/root" "$folder"
}

# Prints a libtorch that is there already and can be used; nothing if there is none.
find_libtorch() {
    local folder
    for folder in "$(installed_pytorch)" "$(downloaded)"; do
        if [ -n "$folder" ] && serves "$folder"; then
            printf '%s\n' "$folder"
            return
        fi
    done
}

link_to() {
    local folder
    folder=$(cd "$1" && pwd -P)
    [ ! "$folder" -ef "$LINK" ] || return 0
    [ -L "$LINK" ] || [ ! -e "$LINK" ] || die "$LINK is in the way: it is no link and no libtorch $LIBTORCH_VERSION; move it away"
    ln -sfn "$folder" "$LINK"
}

main() {
    local argument found='' flags=''
    for argument in "$@"; do
        case $argument in
        --cuda) kind=cuda flags=' --cuda' ;;
        --check) check=yes ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit ;;
        *) die "unknown argument $argument; there are --cuda, --check and --help" ;;
        esac
    done
    check_tools
    # LIBTORCH may name our own link: then it says nothing.
    if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$LINK" ]; then
        case $LIBTORCH in /*) ;; *) die "LIBTORCH=$LIBTORCH is a relative path, which cargo would look for elsewhere: make it absolute" ;; esac
        insist "$LIBTORCH" "LIBTORCH=$LIBTORCH"
        found=$LIBTORCH
    elif serves "$LINK"; then
        found=$LINK
    else
        found=$(find_libtorch)
    fi
    if [ -z "$found" ]; then
        [ -z "$check" ] || die "no libtorch $LIBTORCH_VERSION ($kind) is here: ./scripts/setup.sh${flags} gets it"
        fetch
        found=$(downloaded)
    fi
    if [ -z "$check" ]; then
        link_to "$found"
    elif [ ! "$found" -ef "$LINK" ]; then
        die "libtorch $LIBTORCH_VERSION is in $found, and $LINK does not point at it yet: ./scripts/setup.sh${flags} makes it"
    fi
    report "$found"
}

report() {
    local folder what=CPU
    folder=$(cd "$1" && pwd -P)
    ! libtorch_has_cuda "$folder" || what="CPU and CUDA"
    say "libtorch $LIBTORCH_VERSION ($what) in $folder"
    if [ "$what" = CPU ] && [ -e /proc/driver/nvidia/version ]; then
        say "this machine has an NVIDIA GPU that this libtorch cannot use: ./scripts/setup.sh --cuda gets one that can"
    fi
}

main "$@"
