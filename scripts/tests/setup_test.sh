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
        sed -i -f "$SANDBOX/pins.sed" "$PROJECT/scripts/setup.sh"
    fi
}

# Runs the copy with these arguments; the environment of a test stands before the call.
setup() {
    code=0
    output=$(cd "$SANDBOX" && XDG_CACHE_HOME=$SANDBOX/cache PIP_CONFIG_FILE=/dev/null \
        PIP_FIND_LINKS=${WHEELS-$SANDBOX/wheels} PIP_NO_INDEX=${NO_INDEX-1} PYTHONNOUSERSITE=1 PYTHONPATH=${PYTORCH-$SANDBOX/no_torch} \
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

# A tiny wheel for each one that setup.sh pins, and a sed script that puts their checksums into it.
make_wheels() {
    python3 - "$SANDBOX" "$ROOT/scripts/setup.sh" <<'PY'
import hashlib, os, re, sys, zipfile

sandbox, setup = sys.argv[1:]
os.mkdir(sandbox + "/wheels")
FILES = {
    "torch": ["include/torch/csrc/api/include/torch/torch.h", "lib/libtorch_cpu.so", "lib/libc10.so", "lib/libgomp.so.1",
              "lib/libtorch.so", "lib/libtorch_cuda.so", "lib/libtorch_python.so", "__init__.py"],
    "nvidia-cuda-runtime": ["cu13/lib/libcudart.so.13", "cu13/include/cuda.h"],
    "nvidia-cuda-cupti": ["cu13/lib/libcupti.so.13", "cu13/lib/libpcsamplingutil.so"],
    "nvidia-cudnn-cu13": ["cudnn/lib/libcudnn.so.9"],
}
with open(sandbox + "/pins.sed", "w") as pins:
    for pin, version in re.findall(r"^([a-z0-9-]+)==(\S+) --hash", open(setup).read(), re.M):
        name = pin.replace("-", "_")
        tag = "cp311-cp311-manylinux_2_28_x86_64" if pin == "torch" else "py3-none-manylinux_2_27_x86_64"
        path = f"{sandbox}/wheels/{name}-{version}-{tag}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for file in FILES.get(pin, [f"cu13/lib/lib{name}.so"]):
                file = ("torch/" if pin == "torch" else "nvidia/") + file
                archive.writestr(file, "content of " + file)
            info = f"{name}-{version}.dist-info/"
            archive.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: {pin}\nVersion: {version}\n")
            archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
            archive.writestr(info + "RECORD", "")
        digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
        pins.write(f"s/^\\({pin}==[^ ]* --hash=sha256:\\).*/\\1{digest}/\n")
PY
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
for tool in bash basename dirname sed head sort cargo; do ln -s "$(command -v $tool)" "$SANDBOX/bin/$tool"; done
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
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    fresh
    setup
    refuses "x86-64 Linux only" "LIBTORCH"
    pass "there is no download for this kind of machine, and it says so"
    printf '%s passed, 0 failed\n' "$passed"
    exit 0
fi

fresh
# A port where nothing listens is as good as no network.
NO_INDEX=0 WHEELS='' PIP_INDEX_URL=http://127.0.0.1:9/simple PIP_EXTRA_INDEX_URL='' setup
refuses "cannot be reached" "LIBTORCH"
no_link
absent "$CPU" "$CPU.partial"
pass "no network: one line, nothing left behind"

make_wheels
fresh
cp "$ROOT/scripts/setup.sh" "$PROJECT/scripts/" # with the real checksums, which the tiny wheels do not have
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
