"""`python -m lnfree SOURCE`: what a folder or a model of the hub is, by which evidence, and what loads it."""

import argparse
import dataclasses
import json
import sys

from . import LnFreeError, describe


def main(arguments=None):
    parser = argparse.ArgumentParser(
        "python -m lnfree",
        description="Says what the GPT-2 in a folder, or of a name on "
        "the Hugging Face hub, is. Exit code 1: it is not LN-free, or something is wrong.",
    )
    parser.add_argument("source", nargs="+", help="folder or name")
    parser.add_argument("--json", action="store_true", help="print one JSON object a source")
    options = parser.parse_args(arguments)
    code = 0
    for source in options.source:
        try:
            found = describe(source)
        except LnFreeError as e:
            print(f"error: {e}", file=sys.stderr)
            code = 1
            continue
        print(json.dumps({**dataclasses.asdict(found), "ln_free": found.ln_free}) if options.json else found)
        code = code if found.ln_free else 1
    return code


if __name__ == "__main__":
    sys.exit(main())
