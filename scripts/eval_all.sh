#!/usr/bin/env bash
# The paper's results table: twelve models on three data sets, beside the published figures. Stopped or killed at any
# moment, it goes on where it was. All arguments go to `lnfree eval-all`; --help lists them.
#
#   ./scripts/eval_all.sh                  into runs/eval-paper: results.html, results.md, results.json
#   ./scripts/eval_all.sh --suite nano     the same study on the embedded models, offline, in minutes
#   ./scripts/eval_all.sh --dry-run        what would be done, and what it needs
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

build
exec "$LNFREE" eval-all "$@"
