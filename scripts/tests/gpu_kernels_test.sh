#!/usr/bin/env bash
# Tries the kernels for GPUs without a GPU: on threads of the CPU against plain formulas, and, where PEER_PYTHON (python3) has NVIDIA's compiler, that
# it compiles them for every kind of GPU that libtorch serves.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

KERNELS=$ROOT/lnfree/native/cuda
SANDBOX=$(mktemp -d)
trap 'rm -rf "$SANDBOX"' EXIT

"${CXX:-c++}" -std=c++17 -O1 -Wall -Wextra -Werror -pthread "$KERNELS/rows_test.cpp" -o "$SANDBOX/rows_test"
"$SANDBOX/rows_test"

"${PEER_PYTHON:-python3}" - "$KERNELS/rows.cu" <<'PYTHON'
import ctypes, glob, sys, sysconfig

folder = sysconfig.get_path("purelib") + "/nvidia/*/lib/"
compilers = [name for name in sorted(glob.glob(folder + "libnvrtc.so.*"))]
if not compilers:
    sys.exit(print("no compiler of NVIDIA's here: they are not compiled for GPUs"))
for name in glob.glob(folder + "libnvrtc-builtins.so.*"):
    ctypes.CDLL(name)
nvrtc = ctypes.CDLL(compilers[-1])
with open(sys.argv[1], "rb") as file:
    source = file.read()
for architecture in ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"):
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"rows.cu", 0, None, None)
    options = [b"--std=c++17", b"--gpu-architecture=" + architecture.encode()]
    code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if code != 0 or log.value.strip():
        sys.exit(f"{architecture}: {log.value.decode()}")
print("compiled for every kind of GPU without a warning")
PYTHON
