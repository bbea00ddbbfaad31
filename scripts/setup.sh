#!/usr/bin/env bash
# Gets what the crate needs to build, and points .libtorch at it. Run it as often as you like.
#
#   ./scripts/setup.sh            libtorch for the CPU: 543 MB to download, 0.5 GB on disk
#   ./scripts/setup.sh --cuda     libtorch for NVIDIA GPUs: some 2.5 GB to download, twice that on disk
#   ./scripts/setup.sh --check    only say what is there and what is missing; exit code 1 if anything is
#
# Taken in this order: the folder in LIBTORCH; what .libtorch points at; an installed PyTorch of the right version;
# an earlier download; PyTorch's own wheels from the Python package index, into ${XDG_CACHE_HOME:-~/.cache}/lnfree.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

LINK=$ROOT/.libtorch
CACHE=${XDG_CACHE_HOME:-${HOME:?is not set: set it, or XDG_CACHE_HOME}/.cache}/lnfree
OWN_HINT="install PyTorch $LIBTORCH_VERSION with pip, or set LIBTORCH to the folder of a libtorch $LIBTORCH_VERSION"
kind=cpu
check=
partial= # what a download is made in; not local, for it is removed when the script ends

# The wheels, as PyTorch's wheel names its needs, with the checksums that pip holds them to.
wheels() {
    cat <<'PINS'
torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
PINS
    [ "$1" = cuda ] || return 0
    cat <<'PINS'
nvidia-cublas==13.1.0.3 --hash=sha256:ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171
nvidia-cuda-nvrtc==13.0.88 --hash=sha256:ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
nvidia-cudnn-cu13==9.19.0.56 --hash=sha256:d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf
nvidia-cufft==12.0.0.61 --hash=sha256:6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3
nvidia-cufile==1.15.1.6 --hash=sha256:08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44
nvidia-curand==10.4.0.35 --hash=sha256:1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc
nvidia-cusolver==12.0.4.66 --hash=sha256:0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112
nvidia-cusparse==12.6.3.3 --hash=sha256:2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b
nvidia-cusparselt-cu13==0.8.0 --hash=sha256:25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd
nvidia-nccl-cu13==2.28.9 --hash=sha256:e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42
nvidia-nvjitlink==13.0.88 --hash=sha256:13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b
nvidia-nvshmem-cu13==3.4.5 --hash=sha256:290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80
nvidia-nvtx==13.0.85 --hash=sha256:4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4
PINS
}

# The compilers, before anything is downloaded for them.
check_tools() {
    local needed found
    have cargo || die "cargo is missing: install Rust with rustup (https://rustup.rs) and open a new shell"
    needed=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    found=$(cargo --version | sed 's/^cargo \([0-9.]*\).*/\1/')
    at_least "$found" "$needed" || die "cargo is $found, $needed or newer is needed: rustup update stable"
    have "${CXX:-c++}" || die "the C++ compiler ${CXX:-c++} is missing: apt-get install g++ (or your system's C++ compiler)"
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
    case $(uname -sm) in
    "Linux x86_64") ;;
    *) die "libtorch is downloaded for x86-64 Linux only, this is $(uname -sm): $OWN_HINT" ;;
    esac
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || echo "glibc 0")
    at_least "${libc#glibc }" 2.28 || die "the libtorch to download needs glibc 2.28 or newer, which is not here: $OWN_HINT"
    have flock || die "flock is missing: apt-get install util-linux"
    have python3 || die "python3 is missing, and libtorch comes through it: apt-get install python3 python3-pip"
    python3 -m pip --version >/dev/null 2>&1 || die "pip is missing: apt-get install python3-pip (or python3 -m ensurepip)"
}

# Downloads the wheels into folder $1. pip refuses what its checksum does not match. Wheels for Python 3.11 whatever
# runs here: no Python ever loads them, and one file needs one checksum.
download() {
    local quiet=() platform platforms=()
    [ -t 1 ] || quiet=(--quiet)
    for platform in manylinux{_2_28,_2_27,_2_25,_2_18,_2_17,2014,_2_12,2010,_2_5,1}_x86_64; do
        platforms+=(--platform "$platform")
    done
    wheels "$kind" >"$1/wheels.txt"
    # TMPDIR: /tmp may be too small a disk for half a gigabyte.
    TMPDIR=$1 PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip download \
        "${quiet[@]}" --no-cache-dir --retries 2 --no-deps --require-hashes --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 --abi none "${platforms[@]}" \
        -d "$1/wheels" -r "$1/wheels.txt" 2>"$1/pip.log" || die "$(why_pip_failed "$1/pip.log")"
}

why_pip_failed() {
    local last
    if grep -qi 'do not match the hashes' "$1"; then
        echo "a downloaded wheel does not match its checksum, so it was thrown away: run again; if it stays so, your package mirror serves another file"
    elif grep -qi 'no space left' "$1"; then
        echo "no space left in $CACHE: free some, or set XDG_CACHE_HOME to another disk"
    elif grep -qiE 'connection|timed out|name resolution|max retries|SSLError|ProxyError' "$1"; then
        echo "the Python package index cannot be reached (no network, or a proxy that pip does not know): connect and run again, or $OWN_HINT"
    else
        last=$(grep -i '^ERROR' "$1" | tail -n 1)
        echo "pip could not download libtorch (${last:-no message}): upgrade pip, or $OWN_HINT"
    fi
}

# Unpacks what is needed of the wheels in folder $1/wheels into $1/root.
unpack() {
    python3 - "$kind" "$1/wheels" "$1/root" <<'PY'
import glob, os, shutil, sys, zipfile

kind, wheels, root = sys.argv[1:]
LIBS = {"libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"}


def place(name):
    """Where a wheel's file goes below root, or None."""
    if kind == "cuda":  # as pip would lay it out: the libraries find each other by that
        wanted = name.startswith(("torch/include/", "torch/lib/")) or (name.startswith("nvidia/") and "/lib/" in name)
        return name if wanted and not name.endswith("libtorch_python.so") else None
    if name.startswith("torch/include/"):
        return name[len("torch/"):]
    return "lib/" + os.path.basename(name) if os.path.basename(name) in LIBS else None


for wheel in sorted(glob.glob(wheels + "/*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            path = None if info.is_dir() else place(info.filename)
            if path is None:
                continue
            path = os.path.join(root, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(info) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            os.chmod(path, 0o755 if "/lib/" in path else 0o644)
    os.remove(wheel)
PY
}

# Makes the download: beside its place and then renamed, so that it is there whole or not at all; one setup at a time.
fetch() {
    local folder=$CACHE/libtorch-$LIBTORCH_VERSION-$kind need_gb=2 free_kb torch
    [ "$kind" = cpu ] || need_gb=9
    can_download
    mkdir -p "$CACHE" 2>/dev/null || die "$CACHE cannot be made: set XDG_CACHE_HOME to a folder that you can write to"
    exec 9>"$CACHE/.lock"
    flock --nonblock 9 || { say "another setup is at work: waiting for it" && flock 9; }
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
    download "$partial"
    unpack "$partial" || die "the downloaded wheels cannot be unpacked into $partial (disk full?): free some space and run again"
    torch=$partial/root
    if [ "$kind" = cuda ]; then
        torch+=/torch
    else
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
