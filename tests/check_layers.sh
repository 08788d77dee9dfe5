#!/usr/bin/env bash
# A stage includes base/ mail/ net/, its own headers and include/hikyaku/; each library's header has one home.
set -u
cd "$(dirname "$0")/.." || exit 2
bad=0
complain() { printf '%s\n' "$1" >&2; bad=1; }
for dir in engine/*/; do
    stage=$(basename "$dir")
    for file in "$dir"*.[ch]; do
        [ -e "$file" ] || continue
        while IFS= read -r included; do
            case "$included" in
                hikyaku/*|"$stage"/*|base/*) ;;
                mail/*|net/*) case "$stage" in base|model) complain "$file includes $included: $stage uses base only" ;; esac
                    case "$stage" in mail) [ "${included%%/*}" = mail ] || complain "$file includes $included: mail is pure" ;; esac ;;
                */*) complain "$file includes $included: stages meet in include/hikyaku/ only" ;;
            esac
        done < <(sed -n 's/^#include "\(.*\)"/\1/p' "$file")
    done
done
only() { # pattern, folders that may
    local pattern=$1 may=$2 hits
    hits=$(grep -rlE "#include <($pattern)" engine include | grep -vE "^engine/($may)/" )
    [ -z "$hits" ] || complain "$pattern belongs to engine/{$may} only: $(echo $hits)"
}
only 'event2?/|event\.h' net
only 'lua\.h|lauxlib\.h|lualib\.h' route
only 'curl/' net
only 'ares' net
only 'openssl/' net
only 'sqlite3\.h' state
only 'gsasl' 'deliver|accept'
exit $bad
