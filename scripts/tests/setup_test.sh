#!/usr/bin/env bash
# Tries setup.sh on a copy of it in an empty folder: what it takes, what it refuses, and what an interruption leaves.
# Nothing is downloaded: pip gets tiny wheels made here, whose checksums replace the real ones in the copy.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

SANDBOX=$(mktemp -d)
trap 'rm -rf "$SANDBOX"' EXIT
PROJECT=$SANDBOX/project
CACHE=$SANDBOX/cache/lnfree
CPU=$CACHE/libtorch-$LIBTORCH_VERSION-cpu
MACHINE=$(uname -sm)
passed=0
output=
code=0

# Every test starts from an empty project and cache, and sees neither a PyTorch of this machine nor a package index.
fresh() {
    rm -rf "$PROJECT" "$SANDBOX/cache"
    mkdir -p "$PROJECT/scripts"
    cp "$ROOT"/scripts/*.sh "$PROJECT/scripts/"
    cp "$ROOT/Cargo.toml" "$PROJECT/"
    if [ -f "$SANDBOX/pins.sed" ]; then
        sed -f "$SANDBOX/pins.sed" "$ROOT/scripts/wheels.sh" >"$PROJECT/scripts/wheels.sh"
    fi
}

# Runs the copy with these arguments; the environment of a test stands before the call.
setup() {
    code=0
    output=$(cd "$SANDBOX" && XDG_CACHE_HOME=$SANDBOX/cache PIP_CONFIG_FILE=/dev/null \
        PIP_FIND_LINKS=${WHEELS-$(wheels_for "$MACHINE")} PIP_NO_INDEX=${NO_INDEX-1} PYTHONNOUSERSITE=1 PYTHONPATH=${PYTORCH-$SANDBOX/no_torch} \
        LIBTORCH=${OWN-} "$PROJECT/scripts/setup.sh" "$@" 2>&1) || code=$?
}

fail() {
    printf 'FAILED: %s\n  exit code %s, output:\n%s\n' "$*" "$code" "$output" >&2
    exit 1
}

pass() {
    passed=$((passed + 1))
    printf 'ok: %s\n' "$1"
}

accepts() { [ "$code" = 0 ] || fail "$1"; }

# One line that holds every one of the words, and a failure.
refuses() {
    local word
    [ "$code" = 1 ] || fail "not refused: $*"
    [ "$(printf '%s\n' "$output" | grep -cv ': downloading ')" = 1 ] || fail "more than one line: $*"
    for word in "$@"; do
        case $output in *"$word"*) ;; *) fail "the line lacks '$word'" ;; esac
    done
}

links_to() { [ "$(readlink "$PROJECT/.libtorch")" = "$1" ] || fail ".libtorch points at $(readlink "$PROJECT/.libtorch"), not at $1"; }
absent() { for path in "$@"; do if [ -e "$path" ] || [ -L "$path" ]; then fail "$path is there"; fi; done; }
no_link() { absent "$PROJECT/.libtorch"; }

# A folder that looks like libtorch: $1 the folder, $2 the version, $3 the file that tells it.
fake_libtorch() {
    mkdir -p "$1/lib" "$1/include/torch/csrc/api/include/torch"
    local name
    for name in libtorch_cpu libtorch libc10; do echo lib >"$1/lib/$name.$(so_suffix)"; done
    echo header >"$1/include/torch/csrc/api/include/torch/torch.h"
    case $3 in
    build-version) echo "$2" >"$1/build-version" ;;
    version.py) printf "__version__ = '%s'\ncuda = None\n" "$2" >"$1/version.py" && touch "$1/__init__.py" ;;
    esac
}

# A tiny wheel for each one that wheels.sh pins, in a folder for each system, and a sed script that puts their checksums into it.
make_wheels() {
    local system folder
    # shellcheck source=scripts/wheels.sh
    . "$ROOT/scripts/wheels.sh"
    : >"$SANDBOX/pins.sed"
    for system in "Linux x86_64" "Linux aarch64" "Darwin arm64"; do
        folder=$(wheels_for "$system")
        mkdir -p "$folder"
        wheels "$system" cuda >"$folder/pins"
        python3 - "$folder" "$(platform_tags "$system" | head -n 1)" >>"$SANDBOX/pins.sed" <<'PY'
import hashlib, re, sys, zipfile

folder, tag = sys.argv[1:]
NEEDED = ["libtorch_cpu", "libc10", "libtorch"]
MORE = {"x86_64": ["libgomp.so.1", "libtorch_cuda.so"], "aarch64": ["libgomp.so.1", "libnvpl_blas_core.so.0", "libarm_compute.so"],
        "arm64": ["libomp.dylib"]}
suffix = ".dylib" if "macos" in tag else ".so"
arch = re.search("x86_64$|aarch64$|arm64$", tag).group()
FILES = {
    "torch": ["include/torch/csrc/api/include/torch/torch.h", "__init__.py", f"lib/libtorch_python{suffix}"]
             + ["lib/" + name + suffix for name in NEEDED] + ["lib/" + name for name in MORE[arch]],
    "nvidia-cuda-runtime": ["cu13/lib/libcudart.so.13", "cu13/include/cuda.h"],
    "nvidia-cuda-cupti": ["cu13/lib/libcupti.so.13", "cu13/lib/libpcsamplingutil.so"],
    "nvidia-cudnn-cu13": ["cudnn/lib/libcudnn.so.9"],
}
for pin, version, old in re.findall(r"^([a-z0-9-]+)==(\S+) --hash=sha256:(\S+)", open(folder + "/pins").read(), re.M):
    name = pin.replace("-", "_")
    path = f"{folder}/{name}-{version}-{'cp311-cp311' if pin == 'torch' else 'py3-none'}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in FILES.get(pin, [f"cu13/lib/lib{name}.so"]):
            file = ("torch/" if pin == "torch" else "nvidia/") + file
            archive.writestr(file, "content of " + file)
        info = f"{name}-{version}.dist-info/"
        archive.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: {pin}\nVersion: {version}\n")
        archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
        archive.writestr(info + "RECORD", "")
    print(f"s/{old}/{hashlib.sha256(open(path, 'rb').read()).hexdigest()}/")
PY
    done
}

# The folder of the tiny wheels for system $1.
wheels_for() { printf '%s/wheels-%s\n' "$SANDBOX" "${1// /-}"; }

# A system is made out of this one by another answer of uname, and a Mac has no flock.
pretend() {
    rm -rf "$SANDBOX/system" && mkdir "$SANDBOX/system"
    local tool path
    for tool in bash basename dirname sed head tail sort cat cargo c++ python3 getconf mkdir rm df awk mv ln sync grep; do
        path=$(command -v "$tool")
        # The one that a version manager's command stands for.
        [ "$tool" != python3 ] || path=$(python3 -c 'import sys; print(sys.executable)')
        # No links: a Python of a virtual environment would look for it beside the link.
        printf '#!/bin/sh\nexec "%s" "$@"\n' "$path" >"$SANDBOX/system/$tool"
    done
    # shellcheck disable=SC2016  # for the shell that runs it
    printf '#!/bin/sh\ncase $1 in -s) echo "%s";; *) echo "%s";; esac\n' "${1%% *}" "$1" >"$SANDBOX/system/uname"
    # It looks for its assembler and linker.
    printf '#!/bin/sh\nPATH="%s" exec c++ "$@"\n' "$PATH" >"$SANDBOX/system/c++"
    chmod +x "$SANDBOX"/system/*
}

# A PyTorch of another version, found before any that this machine has: every test below passes it by.
fake_libtorch "$SANDBOX/no_torch/torch" 2.6.0 version.py
good=$SANDBOX/good
fake_libtorch "$good" "$LIBTORCH_VERSION+cpu" build-version

# --- what is there already
fresh
OWN=$good setup
accepts "LIBTORCH of the right version"
links_to "$good"
pass "LIBTORCH of the right version is used"

setup
accepts "a second run"
links_to "$good"
absent "$CACHE"
pass "a second run without LIBTORCH keeps the link"

OWN=$PROJECT/.libtorch setup --check
accepts "LIBTORCH naming the link"
pass "LIBTORCH may name .libtorch itself"

fresh
fake_libtorch "$SANDBOX/old" 2.6.0 build-version
OWN=$SANDBOX/old setup
refuses "LIBTORCH=$SANDBOX/old" "2.6.0" "$LIBTORCH_VERSION is needed" "unset"
no_link
pass "LIBTORCH of another version is refused by name"

fresh
fake_libtorch "$SANDBOX/torn" "$LIBTORCH_VERSION" build-version
rm "$SANDBOX/torn/lib/libc10.$(so_suffix)"
OWN=$SANDBOX/torn setup
refuses "LIBTORCH=$SANDBOX/torn" "lacks lib/libc10"
OWN=$SANDBOX/nowhere setup
refuses "LIBTORCH=$SANDBOX/nowhere" "no folder"
OWN=good setup
refuses "LIBTORCH=good" "relative"
OWN=$good setup --cuda
refuses "LIBTORCH=$good" "without CUDA"
no_link
pass "LIBTORCH that is torn, missing, relative or without CUDA is refused"

fresh
fake_libtorch "$SANDBOX/site/torch" "$LIBTORCH_VERSION+cu130" version.py
PYTORCH=$SANDBOX/site setup
accepts "an installed PyTorch"
links_to "$SANDBOX/site/torch"
pass "an installed PyTorch of the right version is used, and not imported"

fresh
mkdir "$PROJECT/.libtorch"
OWN=$good setup
refuses "$PROJECT/.libtorch" "move it away"
pass "a folder in the way of .libtorch is left alone"

# --- tools
fresh
mkdir "$SANDBOX/bin"
for tool in bash basename dirname sed head sort uname cargo; do ln -s "$(command -v $tool)" "$SANDBOX/bin/$tool"; done
PATH=$SANDBOX/bin CXX='' setup
refuses "C++ compiler" "apt-get install g++"
rm "$SANDBOX/bin/cargo"
PATH=$SANDBOX/bin setup
refuses "cargo" "rustup"
printf '#!/bin/sh\necho "cargo 1.75.0 (1d8b05cdd 2023-11-20)"\n' >"$SANDBOX/bin/cargo"
chmod +x "$SANDBOX/bin/cargo"
PATH=$SANDBOX/bin setup
refuses "cargo is 1.75.0" "rustup update"
setup --gpu
refuses "--gpu" "--cuda"
pass "a missing or old tool and an unknown flag are refused with what to do"

fresh
setup --check
refuses "./scripts/setup.sh gets it"
no_link
absent "$CACHE"
pass "--check only looks"

# --- the download
pretend "SunOS sun4v"
fresh
PATH=$SANDBOX/system setup
refuses "Linux (x86-64 and ARM)" "SunOS sun4v" "LIBTORCH"
pretend "Linux aarch64"
PATH=$SANDBOX/system setup --cuda
refuses "with CUDA" "x86-64 Linux only" "LIBTORCH"
pretend "Darwin arm64"
PATH=$SANDBOX/system setup --cuda
refuses "Mac" "without --cuda"
no_link
absent "$CACHE"
pass "what there is no download for is refused by name"

make_wheels
for system in "Linux x86_64" "Linux aarch64" "Darwin arm64"; do
    # A library of Linux is not to be had from a Mac's linker.
    [ "${system%% *}" = Darwin ] || [ "${MACHINE%% *}" = Linux ] || continue
    fresh
    pretend "$system"
    PATH=$SANDBOX/system WHEELS=$(wheels_for "$system") setup
    accepts "$system"
    links_to "$CPU"
    expected="build-version include/torch/csrc/api/include/torch/torch.h "
    case $system in
    "Linux x86_64") expected+="lib/libc10.so lib/libcudart.so.13 lib/libcupti.so.13 lib/libgomp.so.1 lib/libtorch.so lib/libtorch_cpu.so" ;;
    "Linux aarch64")
        expected+="lib/libarm_compute.so lib/libc10.so lib/libcudart.so.13 lib/libcupti.so.13 lib/libgomp.so.1"
        expected+=" lib/libnvpl_blas_core.so.0 lib/libtorch.so lib/libtorch_cpu.so"
        ;;
    "Darwin arm64") expected+="lib/libc10.dylib lib/libomp.dylib lib/libtorch.dylib lib/libtorch_cpu.dylib" ;;
    esac
    files=$(cd "$CPU" && find . -type f | sed 's,^\./,,' | LC_ALL=C sort | xargs)
    [ "$files" = "$expected" ] || fail "$system: the download holds $files"
    pass "$system gets its own wheels, laid out as the linker wants them"
done
(
    # shellcheck disable=SC2123
    PATH=$SANDBOX/system # of a Mac
    exec 8>"$SANDBOX/lock" 9>"$SANDBOX/lock"
    take_lock 8 && ! take_lock 9
) || fail "a lock was not taken, or taken twice"
pass "without a flock command a lock is one all the same"

# From here on as this system.
case $MACHINE in
"Linux x86_64") ;;
*)
    printf '%s passed, 0 failed\n' "$passed"
    exit 0
    ;;
esac

fresh
# A port where nothing listens is as good as no network.
NO_INDEX=0 WHEELS='' PIP_INDEX_URL=http://127.0.0.1:9/simple PIP_EXTRA_INDEX_URL='' setup
refuses "cannot be reached" "LIBTORCH"
no_link
absent "$CPU" "$CPU.partial"
pass "no network: one line, nothing left behind"

fresh
cp "$ROOT/scripts/wheels.sh" "$PROJECT/scripts/" # with the real checksums, which the tiny wheels do not have
setup
refuses "does not match its checksum"
absent "$CPU"
pass "a wheel with another checksum is refused"

fresh
mkdir -p "$CPU.partial/root/lib" "$CPU/lib"
echo half >"$CPU.partial/root/lib/libtorch_cuda.so"
echo half >"$CPU/lib/libtorch_cpu.so"
setup
accepts "after an interrupted run"
links_to "$CPU"
expected="build-version include/torch/csrc/api/include/torch/torch.h lib/libc10.so lib/libcudart.so.13 lib/libcupti.so.13"
expected+=" lib/libgomp.so.1 lib/libtorch.so lib/libtorch_cpu.so"
files=$(cd "$CPU" && find . -type f | sed 's,^\./,,' | LC_ALL=C sort | xargs)
[ "$files" = "$expected" ] || fail "the download holds $files"
[ "$(cat "$CPU/lib/libtorch_cpu.so")" = "content of torch/lib/libtorch_cpu.so" ] || fail "the file is not the wheel's"
[ "$(cat "$CPU/build-version")" = "$LIBTORCH_VERSION" ] || fail "wrong build-version"
absent "$CPU.partial"
pass "what an interrupted run left is replaced by a whole download"

WHEELS='' setup
accepts "with nothing to download from"
rm "$PROJECT/.libtorch"
WHEELS='' setup
accepts "with the link gone"
links_to "$CPU"
pass "the download is kept and linked again"

setup --cuda
accepts "the CUDA kind beside the CPU kind"
cuda=$CACHE/libtorch-$LIBTORCH_VERSION-cuda
links_to "$cuda/torch"
for file in torch/lib/libtorch_cuda.so torch/lib/libtorch.so nvidia/cu13/lib/libcudart.so.13 nvidia/cudnn/lib/libcudnn.so.9 \
    nvidia/cu13/lib/libnvidia_cublas.so; do
    [ -s "$cuda/$file" ] || fail "the CUDA kind lacks $file"
done
absent "$cuda/torch/lib/libtorch_python.so" "$cuda/torch/__init__.py" "$cuda/nvidia/cu13/include"
setup
accepts "no flag after --cuda"
links_to "$cuda/torch"
pass "--cuda lays the libraries out as their wheels do, and a plain run keeps them"

fresh
setup >/dev/null &
first=$!
setup
accepts "the second of two at once"
wait "$first" || fail "the first of two at once failed"
links_to "$CPU"
absent "$CPU.partial"
pass "two setups at once end with one whole download"

fresh
mkfifo "$SANDBOX/hold"
# A pip that never ends, for a setup that is killed while it downloads.
mkdir -p "$SANDBOX/slow/pip"
printf 'import sys\nif "download" in sys.argv: open("%s").read()\nelse: print("pip 99")\n' "$SANDBOX/hold" >"$SANDBOX/slow/pip/__main__.py"
touch "$SANDBOX/slow/pip/__init__.py"
XDG_CACHE_HOME=$SANDBOX/cache PYTHONPATH=$SANDBOX/slow:$SANDBOX/no_torch LIBTORCH='' "$PROJECT/scripts/setup.sh" >/dev/null 2>&1 &
victim=$!
until [ -s "$CPU.partial/wheels.txt" ]; do sleep 0.05; done
kill -9 "$victim"
wait "$victim" 2>/dev/null || true
: >"$SANDBOX/hold" # lets the orphaned pip go, and with it the lock
absent "$CPU"
[ -d "$CPU.partial" ] || fail "the setup was killed too late to show anything"
setup
accepts "after a kill"
links_to "$CPU"
absent "$CPU.partial"
pass "a setup killed in its download leaves nothing that counts"

printf '%s passed, 0 failed\n' "$passed"
