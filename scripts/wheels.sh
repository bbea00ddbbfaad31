# shellcheck shell=bash
# PyTorch's wheels: which ones make a libtorch on which system, and how they become one. Source it after lib.sh.
#
# A system is what `uname -sm` says: Linux x86_64, Linux aarch64 or Darwin arm64 (Apple silicon).

# The wheels for system $1 and kind $2 (cpu or cuda), as PyTorch's wheel names its needs, with the checksums that pip holds them to.
wheels() {
    case $1 in
    "Linux x86_64")
        cat <<'PINS'
torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
PINS
        ;;
    "Linux aarch64")
        cat <<'PINS'
torch==2.11.0 --hash=sha256:d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6
nvidia-cuda-runtime==13.0.96 --hash=sha256:ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55
nvidia-cuda-cupti==13.0.85 --hash=sha256:796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151
PINS
        ;;
    "Darwin arm64")
        cat <<'PINS'
torch==2.11.0 --hash=sha256:7b6a60d48062809f58595509c524b88e6ddec3ebe25833d6462eeab81e5f2ce4
PINS
        ;;
    esac
    [ "$2" = cuda ] || return 0
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

# The tags of wheels that fit system $1.
platform_tags() {
    local machine=${1#* }
    case $1 in
    Linux*) printf '%s\n' manylinux{_2_28,_2_27,_2_25,_2_18,_2_17,2014,_2_12,2010,_2_5,1}_"$machine" ;;
    Darwin*) printf '%s\n' macosx_11_0_arm64 ;;
    esac
}

# Downloads the wheels for system $2 and kind $3 into folder $1. pip refuses what its checksum does not match. Wheels for Python
# 3.11 whatever runs here: no Python ever loads them, and one file needs one checksum.
download() {
    local platform options=(--no-cache-dir --retries 2 --no-deps --require-hashes --only-binary=:all:)
    [ -t 1 ] || options+=(--quiet)
    for platform in $(platform_tags "$2"); do
        options+=(--platform "$platform")
    done
    wheels "$2" "$3" >"$1/wheels.txt"
    # TMPDIR: /tmp may be too small a disk for half a gigabyte.
    TMPDIR=$1 PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip download \
        "${options[@]}" --implementation cp --python-version 3.11 --abi cp311 --abi none \
        -d "$1/wheels" -r "$1/wheels.txt" 2>"$1/pip.log" || die "$(why_pip_failed "$1/pip.log")"
}

why_pip_failed() {
    local last
    if grep -qi 'do not match the hashes' "$1"; then
        echo "a downloaded wheel does not match its checksum, so it was thrown away: run again; if it stays so, your package mirror serves another file"
    elif grep -qi 'no space left' "$1"; then
        echo "no space left in ${1%/*}: free some, or set XDG_CACHE_HOME to another disk"
    elif grep -qiE 'connection|timed out|name resolution|max retries|SSLError|ProxyError' "$1"; then
        echo "the Python package index cannot be reached (no network, or a proxy that pip does not know): connect and run again, or $OWN_HINT"
    else
        last=$(grep -i '^ERROR' "$1" | tail -n 1)
        echo "pip could not download libtorch (${last:-no message}): upgrade pip, or $OWN_HINT"
    fi
}

# Unpacks what is needed of the wheels in folder $1/wheels into $1/root, for system $2 and kind $3.
unpack() {
    python3 - "$3" "$1/wheels" "$1/root" <<'PY'
import fnmatch, glob, os, shutil, sys, zipfile

kind, wheels, root = sys.argv[1:]
# libtorch_cpu and what it needs: on ARM with BLAS of NVIDIA's and kernels of Arm's.
LIBS = ["libtorch_cpu.so", "libc10.so", "libgomp.so.*", "libcudart.so.*", "libcupti.so.*"]
LIBS += ["libnvpl_*.so.*", "libgfortran.so.*", "libarm_compute*.so"]
LIBS += ["libtorch.dylib", "libtorch_cpu.dylib", "libc10.dylib", "libomp.dylib"]


def place(name):
    """Where a wheel's file goes below root, or None."""
    if kind == "cuda":  # as pip would lay it out: the libraries find each other by that
        wanted = name.startswith(("torch/include/", "torch/lib/")) or (name.startswith("nvidia/") and "/lib/" in name)
        return name if wanted and not name.endswith("libtorch_python.so") else None
    if name.startswith("torch/include/"):
        return name[len("torch/"):]
    base = os.path.basename(name)
    return "lib/" + base if any(fnmatch.fnmatch(base, lib) for lib in LIBS) else None


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
