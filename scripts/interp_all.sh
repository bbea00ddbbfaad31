#!/usr/bin/env bash
# All analyses of original, vanilla and LN-free models, beside the published figures. Stopped or killed at any moment, it
# goes on where it was. All arguments go to `lnfree interp-all`; --help lists them.
#
#   ./scripts/interp_all.sh                  the embedded models, offline, into runs/interp-nano: results.html, .md and .json
#   ./scripts/interp_all.sh --suite paper    the paper's small and medium models, into runs/interp-paper
#   ./scripts/interp_all.sh --dry-run        what would be done, and what is finished
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

build
exec "$LNFREE" interp-all "$@"
