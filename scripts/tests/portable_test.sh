#!/usr/bin/env bash
# The scripts keep to bash 3.2, which is macOS', and to what its tools know: no word of later versions is in them. Not that it is
# proof, but each of these once passed here and failed there.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"
cd "$ROOT"

# shellcheck disable=SC2016  # words, not variables
# Patterns, each with what to write instead after a tab.
words() {
    printf '%s\t%s\n' \
        '\b(mapfile|readarray)\b' 'while read' \
        '\b(declare|local|typeset) -[a-z]*[An]' 'parallel arrays, or a function that prints' \
        '\$\{[A-Za-z_]+(\^|,|@)' 'tr, or printf %q' \
        '&>>|\|&|\bcoproc\b' '>>FILE 2>&1' \
        '\bwait -n\b' 'wait PID' \
        '\[\[ -v ' '${name+set}' \
        '\breadlink -f\b' 'cd and pwd -P' \
        '\bsed -i\b' 'a new file and mv' \
        '\bstat -c\b' 'wc -c, or ls' \
        '\bdate [^|;]*(%N|-d )' 'seconds alone' \
        '\bgrep -[a-zA-Z]*P' 'grep -E' \
        '(^|[$(;&|] *)(timeout|numfmt|tac|nproc|realpath) ' 'what POSIX has' \
        '\bxargs [^|;]*-(d|r)\b' 'find -exec'
}

failed=0
complain() {
    printf '%s\n' "$*" >&2
    failed=1
}

files=$(find scripts .ci -type f \( -name '*.sh' -o -name run \) ! -name portable_test.sh | LC_ALL=C sort)
for file in $files; do
    code=$(grep -vE '^[[:space:]]*#' "$file")
    while IFS=$'\t' read -r pattern instead; do
        # Where the line says Linux it is for Linux.
        found=$(printf '%s\n' "$code" | grep -E -- "$pattern" | grep -v Linux || true)
        [ -z "$found" ] || complain "$file: write $instead instead of: $found"
    done < <(words)
    # An array that may be empty, unguarded: `set -u` takes it for unbound before bash 4.4.
    for array in $(printf '%s\n' "$code" | grep -oE '(^|[[:space:]])[A-Za-z_]+=\(\)' | grep -oE '[A-Za-z_]+' | sort -u); do
        # Held against its length before.
        case $code in *"\${#$array""[@]} -gt 0"*) continue ;; esac
        guard="\${$array""[@]+"
        found=$(printf '%s\n' "$code" | grep -F "\"\${$array""[@]}\"" | grep -vF "$guard" || true)
        [ -z "$found" ] || complain "$file: write $guard…}, for it may be empty: $found"
    done
done
[ "$failed" = 0 ] || die "macOS would refuse the above"
say "no script has what bash 3.2 or macOS' tools lack"
