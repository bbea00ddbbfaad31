#!/usr/bin/env bash
# LN-free models in the libraries that read them: one virtual environment each, with the libraries from PyPI,
# in which nano and a tiny model are loaded in every format, by people's own line and by the package in
# lnfree/python.
#
#   scripts/tests/python_peers.sh OUT [NAME…]
#
# OUT keeps the environments (8 GB, 5 of them torch) and what was found. NAMEs are those below; all of them
# without one. PYTHON is the interpreter to begin with. TORCH_SITE is a site-packages folder whose torch is to
# be used: without it OUT gets one of its own, which all environments share. With LNFREE, a binary, nano's
# folders are its exports; without, numpy's.
set -euo pipefail
case ${1:-} in
-h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0" && exit ;;
'' | -*) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
place=$1
case $place in /*) ;; *) place=$PWD/$place ;; esac
shift
cd "$(dirname "$0")/../.."

# name | packages | what is tried of them
environments='
transformers4 | transformers==4.57.*                           | Transformers
transformers5 | transformers==5.*                              | Transformers
lens2         | transformer-lens==2.* pyarrow<22               | HookedTransformer
lens3         | transformer-lens==3.*                          | HookedTransformer Bridge
lens4         | transformer-lens==4.*                          | Bridge
nnsight       | nnsight==0.8.*                                 | Nnsight
nnterp        | nnterp nnsight<0.8                             | Nnsight Nnterp
saelens       | sae-lens                                       | Sae
'
# lens2 wants numpy 1, for which the newest pyarrow has no code; nnterp 1.3 imports a module that nnsight 0.8
# moved.
for name in "$@"; do
    grep -q "^$name " <<< "$environments" || { echo "python_peers: there is no environment $name" >&2; exit 2; }
done
mkdir -p "$place"
out=$(cd "$place" && pwd)

environment() { # name packages…: makes it, once
    local home="$out/envs/$1" name=$1
    shift
    [ -f "$home/ready" ] && return
    rm -rf "$home"
    "${PYTHON:-python3}" -m venv "$home"
    site=$("$home/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    [ "$name" = torch ] || echo "$torch_site" > "$site/zz_torch.pth"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    touch "$home/ready"
}

torch_site=${TORCH_SITE:-}
if [ -z "$torch_site" ]; then
    environment torch torch numpy setuptools
    torch_site=$("$out/envs/torch/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
fi

# The package as it is given away, in an environment that has nothing else.
rm -rf "$out/wheel" "$out/envs/empty" "$out/source"
cp -r lnfree/python "$out/source"
rm -rf "$out/source/build"
export PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1
"${PYTHON:-python3}" -m pip wheel --no-deps --wheel-dir "$out/wheel" "$out/source"
"${PYTHON:-python3}" -m venv "$out/envs/empty"
"$out/envs/empty/bin/python" -m pip install "$out"/wheel/*.whl

rm -f "$out"/*.jsonl
failed=0
prepared=
while IFS='|' read -r name packages tools; do
    name=${name// /}
    [ -n "$name" ] || continue
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    echo "== $name"
    # shellcheck disable=SC2086 # Several words.
    environment "$name" $packages pytest
    python="$out/envs/$name/bin/python"
    "$python" -m pip install --no-deps --force-reinstall "$out"/wheel/*.whl
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
    if [ -z "$prepared" ]; then
        "$python" scripts/tests/python_peers.py prepare "$out"
        prepared=yes
        (cd "$out" && "$out/envs/empty/bin/python" -m lnfree nano/identity nano/scaled)
    fi
    for model in nano tiny; do
        HF_HUB_CACHE="$out/$model/hub" PEERS_ONLY="$tools" \
            "$python" scripts/tests/python_peers.py check "$model" "$out" \
            > "$out/$name-$model.jsonl" 2> "$out/$name-$model.log" \
            || { failed=1; echo "FAILED: $name, $model"; tail -3 "$out/$name-$model.log"; }
    done
    "$python" -m pytest -q -p no:cacheprovider lnfree/python/tests || failed=1
done <<< "$environments"
"${PYTHON:-python3}" scripts/tests/python_peers.py table "$out" | tee "$out/table.md" || failed=1
exit $failed
