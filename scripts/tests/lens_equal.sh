#!/usr/bin/env bash
# lnfree's analyses beside those of TransformerLens 3: activations, attributions, patching, head detectors and
# composition scores, on the test vectors' tiny model, nano with LN, fine-tuned with it and without any, and a
# random model of GPT-2 small's shape. Prints a table of differences for each.
#
#   scripts/tests/lens_equal.sh OUT
#
# OUT is a folder of python_peers.sh, whose environment lens3 is used, and made by it where it is missing.
# PYTHON and TORCH_SITE are as there.
set -euo pipefail
case ${1:-} in
-h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit ;;
'' | -*) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
place=$1
case $place in /*) ;; *) place=$PWD/$place ;; esac
cd "$(dirname "$0")/../.."

if [ ! -f "$place/envs/lens3/ready" ]; then
    # What it then tries of the Python package is another test.
    scripts/tests/python_peers.sh "$place" lens3 || [ -f "$place/envs/lens3/ready" ]
fi
scripts/setup.sh
cargo build --locked --quiet --release --example interp_dump
program=${CARGO_TARGET_DIR:-target}/release/examples/interp_dump

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
failed=0
compare() { # title arguments…
    printf '\n== %s\n\n' "$1"
    shift
    "$place/envs/lens3/bin/python" scripts/tests/lens_equal.py --lnfree "$program" "$@" || failed=1
}
for folder in lnfree/tests/vectors/tiny-a data/nano data/nano_vanilla200 data/nano_LNFree200; do
    compare "$folder" --model "$folder" --hf "$folder"
done
compare "GPT-2 small's shape, random weights" --random-gpt2
exit $failed
