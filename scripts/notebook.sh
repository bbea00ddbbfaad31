#!/usr/bin/env bash
# Opens the notebooks in Jupyter Lab, with a Rust kernel that finds everything by itself. Installs and compiles what is missing
# first: some ten minutes the first time on two cores, half a minute after a change to the crate, else nothing.
#
#   ./scripts/notebook.sh [ARGUMENTS]      Jupyter Lab on notebooks/; arguments go to it
#   ./scripts/notebook.sh --run [NAME…]    executes these notebooks, or all, without a browser, and stores what they print and draw
#   ./scripts/notebook.sh --check [NAME…]  executes them and stores nothing; a cell that fails makes the exit code 1
#   ./scripts/notebook.sh --setup          only installs and compiles
#   ./scripts/notebook.sh --kernel         makes the kernel known to every Jupyter of this user (VS Code, a JupyterLab of your own)
#
# Jupyter, evcxr and Kaleido go into ${XDG_CACHE_HOME:-~/.cache}/lnfree, the builds of cells into .evcxr here (into the
# former where the path of this folder has a space).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

CACHE=${XDG_CACHE_HOME:-${HOME:?is not set: set it, or XDG_CACHE_HOME}/.cache}/lnfree
STATE=$ROOT/.evcxr
CELLS=$(cells_folder)
EVCXR_VERSION=0.22.0
EVCXR=$CACHE/evcxr-$EVCXR_VERSION/bin/evcxr_jupyter
JUPYTER=$CACHE/jupyter
# plotly brings what Jupyter Lab draws figures with, Kaleido makes images of them, Pillow makes those small.
PACKAGES=(jupyterlab==4.6.6 nbconvert==7.17.1 'plotly>=6,<7' kaleido==0.2.1 'pillow>=12,<14')

# Two at a time would trip over each other.
lock() {
    mkdir -p "$CACHE" "$STATE" "$CELLS"
    # Cells are built with the settings of this repository, which cargo looks for in the folders above.
    [ "$CELLS" = "$STATE" ] || ln -sfn "$ROOT/.cargo" "$ROOT/.libtorch" "$CELLS/"
    exec 9>"$CACHE/.notebook.lock"
    take_lock 9 || { say "another set-up is at work: waiting for it" && take_lock 9 wait; }
}

install_jupyter() {
    local pins="${PACKAGES[*]}"
    [ "$(cat "$JUPYTER/complete" 2>/dev/null)" != "$pins" ] || return 0
    have python3 || die "python3 is missing, and Jupyter needs it: apt-get install python3 python3-venv"
    say "installing Jupyter Lab into $JUPYTER (550 MB)"
    rm -rf "$JUPYTER"
    python3 -m venv "$JUPYTER" 2>/dev/null || die "python3 cannot make an environment: apt-get install python3-venv"
    PIP_REQUIRE_VIRTUALENV=0 "$JUPYTER/bin/python" -m pip install --quiet --disable-pip-version-check "${PACKAGES[@]}" ||
        die "pip could not install Jupyter, see above (no network?): run again when it can"
    printf '%s\n' "$pins" >"$JUPYTER/complete"
}

install_evcxr() {
    [ ! -x "$EVCXR" ] || return 0
    say "compiling the Rust kernel, evcxr_jupyter $EVCXR_VERSION (once; some five minutes on two cores)"
    # Optimised less than usual: that halves the time, and cells take as long as before.
    cargo install --quiet --locked --root "$CACHE/evcxr-$EVCXR_VERSION" --version "=$EVCXR_VERSION" evcxr_jupyter \
        --config profile.release.opt-level=1 --config profile.release.codegen-units=16 ||
        die "evcxr_jupyter could not be compiled, see above: run again when that is mended"
}

# Writes the kernel into folder $1, below the folders that Jupyter looks into.
write_kernel() {
    local folder=$1/kernels/lnfree
    mkdir -p "$folder" "$STATE/config"
    # What the dependencies do is done in libtorch; what is hot in Rust is optimised by .cargo/config.toml. Offline, so that the
    # crates that were compiled are the ones that are used.
    printf '[evcxr]\nopt_level = "0"\noffline_mode = true\n' >"$STATE/config/evcxr.toml"
    python3 - "$folder/kernel.json" "$ROOT/scripts/notebooks/kernel.sh" "$EVCXR" "${LIBTORCH:-}" <<'PY'
import json, os, sys

path, launcher, evcxr, libtorch = sys.argv[1:]
spec = {
    "argv": [launcher, evcxr, "{connection_file}"],
    "display_name": "lnfree (Rust)",
    "language": "rust",
    # As a signal: the kernel's own way to interrupt kills the process that runs the cells, and with it all variables.
    "interrupt_mode": "signal",
    "env": {"LIBTORCH": libtorch} if libtorch else {},
    "metadata": {"debugger": False},
}
with open(path + ".new", "w") as file:
    json.dump(spec, file, indent=1)
os.replace(path + ".new", path)
PY
}

# What the compiled dependencies were made from, and where: moved, they are compiled anew.
build_inputs() {
    cargo --version
    pwd -P
    (cd "${LIBTORCH:-$ROOT/.libtorch}" && pwd -P)
    cat Cargo.lock .cargo/config.toml lnfree/Cargo.toml lnfree/build.rs | cksum
    find lnfree/src lnfree/native lnfree/build -type f -exec cksum {} + | sort
}

# The first line of a log that speaks of an error, or else its last.
why() {
    grep -m 1 -E '(^|[^a-z])[eE]rror' "$1" || tail -n 1 "$1"
}

# Compiles the crate and its dependencies the way cells need them, for all kernels to take over.
warm_up() {
    local inputs
    inputs=$(build_inputs | cksum)
    [ "$(head -n 1 "$CELLS/warm/complete" 2>/dev/null)" != "$inputs" ] || return 0
    say 'compiling lnfree for notebooks (minutes the first time, half a minute after a change)'
    cargo fetch --locked --quiet || die 'the dependencies could not be downloaded, see above: run again when there is a network'
    rm -f "$CELLS/warm/complete"
    LNFREE_WARM_UP=1 run_notebooks --warm-up >"$STATE/warm-up.log" 2>&1 ||
        die "lnfree could not be compiled for notebooks: $(why "$STATE/warm-up.log"), see $STATE/warm-up.log"
    printf '%s\n%s\n' "$inputs" "$(date +%s)-$$-$RANDOM" >"$CELLS/warm/complete"
}

run_notebooks() {
    JUPYTER_PATH=$STATE/jupyter "$JUPYTER/bin/python" scripts/notebooks/run.py "$@"
}

setup() {
    "$ROOT/scripts/setup.sh"
    lock
    install_jupyter
    install_evcxr
    write_kernel "$STATE/jupyter"
    warm_up
    exec 9>&-
}

case ${1:-} in
-h | --help) sed -n '2,11s/^# \{0,1\}//p' "$ROOT/scripts/notebook.sh" ;;
--setup) setup ;;
--kernel)
    setup
    write_kernel "${JUPYTER_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/jupyter}"
    say "the kernel lnfree (Rust) is there for every Jupyter of $(id -un)"
    ;;
--run | --check)
    setup
    run_notebooks "$@"
    ;;
*)
    setup
    # Its folder is the one it is started in, unless an argument names another.
    cd notebooks
    JUPYTER_PATH=$STATE/jupyter exec "$JUPYTER/bin/jupyter-lab" "$@"
    ;;
esac
