#!/usr/bin/env python3
"""Writes lnfree/src/base/ffi/tch_functions.rs: the C functions behind tch's generic ones.

    scripts/tch_functions.py            after another version of tch
    scripts/tch_functions.py --check    only says whether the file is that of the version in Cargo.lock
"""

import json
import pathlib
import re
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILE = ROOT / "lnfree/src/base/ffi/tch_functions.rs"
HEAD = '''\
//! The C functions behind tch's generic ones; made by `scripts/tch_functions.py`.
//!
//! A generic function is compiled where it is called: for a notebook in the library of a cell, which finds
//! there only what our own library hands on. Of functions in C that is what is public and declared with a
//! static library to link, so an empty one is named; the functions themselves come with torch-sys. Their
//! arguments do not matter here.

macro_rules! hand_on {
    ($($name:ident)*) => {
        #[allow(clashing_extern_declarations, missing_docs)]
        #[link(name = "lnfree_tch_functions", kind = "static")]
        unsafe extern "C" {
            $(pub fn $name();)*
        }
    };
}

hand_on! {
'''


def wrappers():
    """The folder of tch's wrappers, of the version in Cargo.lock."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", str(ROOT / "Cargo.toml")]
    packages = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["packages"]
    manifest = next(package["manifest_path"] for package in packages if package["name"] == "tch")
    return pathlib.Path(manifest).parent / "src/wrappers"


def of_generic(source):
    """The C functions that are called in functions with type parameters, `impl` among the arguments too."""
    found = set()
    for function in re.split(r"\n *pub(?:\([^)]*\))? (?:unsafe )?fn ", source)[1:]:
        head = function.split("{", 1)[0]
        if re.search(r"<[^'>]", head.split("(", 1)[0]) or re.search(r"\bimpl\b", head):
            found.update(re.findall(r"\bat[a-z]?_\w+(?=\()", function))
    return found


folder = wrappers()
names = set().union(*(of_generic(path.read_text()) for path in folder.glob("*.rs")))
text = textwrap.fill(" ".join(sorted(names)), 110, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
text = HEAD + text + "\n}\n"
if "--check" in sys.argv[1:]:
    if text != FILE.read_text():
        sys.exit(f"{FILE.relative_to(ROOT)} is of another tch: run scripts/tch_functions.py")
else:
    FILE.write_text(text)
