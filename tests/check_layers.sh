#!/usr/bin/env bash
# A stage includes base/ mail/ net/, its own headers and include/hikyaku/; each library's header has one home. Public headers
# and what wires the stages are held to the same, and so are the rooms of route.
set -u
cd "$(dirname "$0")/.." || exit 2
bad=0
complain() { printf '%s\n' "$1" >&2; bad=1; }
includes() { sed -n 's/^#include "\(.*\)"/\1/p' "$1"; }
for dir in engine/*/; do
    stage=$(basename "$dir")
    while IFS= read -r file; do
        while IFS= read -r included; do
            case "$included" in
                hikyaku/*|"$stage"/*|base/*) ;;
                mail/*|net/*) case "$stage" in base|model) complain "$file includes $included: $stage uses base only" ;; esac
                    case "$stage" in mail) [ "${included%%/*}" = mail ] || complain "$file includes $included: mail is pure" ;; esac ;;
                smtp/*) case "$stage" in deliver|cli) ;; *) complain "$file includes $included: deliver and cli speak as clients" ;; esac ;;
                */*) complain "$file includes $included: stages meet in include/hikyaku/ only" ;;
            esac
        done < <(includes "$file")
    done < <(find "$dir" -name '*.[ch]')
done
# What stages say to each other names no stage's private header; what wires them names none either.
for file in include/hikyaku/*.h; do
    while IFS= read -r included; do
        case "$included" in
            hikyaku/*|base/*|net/loop.h) ;;
            *) complain "$file includes $included: public headers use include/hikyaku/, base/ and net/loop.h" ;;
        esac
    done < <(includes "$file")
done
for file in engine/*.[ch]; do
    while IFS= read -r included; do
        case "$file:$included" in
            *:hikyaku/*|*:base/*|*:net/loop.h|engine/main.c:cli/*) ;;
            *:*/*) complain "$file includes $included: what wires the stages uses their public headers" ;;
        esac
    done < <(includes "$file")
done
# Rooms of route: table knows no Lua, lua does not know how a policy is loaded.
for room in table lua; do
    for file in engine/route/$room/*.[ch]; do
        while IFS= read -r included; do
            case "$room:$included" in
                table:route/lua/*|*:route/load/*) complain "$file includes $included: it is above engine/route/$room" ;;
            esac
        done < <(includes "$file")
    done
done
only() { # pattern, folders that may
    local pattern=$1 may=$2 hits
    hits=$(grep -rlE "#include <($pattern)" engine include | grep -vE "^engine/($may)/" )
    [ -z "$hits" ] || complain "$pattern belongs to engine/{$may} only: $(echo $hits)"
}
only 'event2?/|event\.h' net
only 'lua\.h|lauxlib\.h|lualib\.h' 'route/lua|route/load'
only 'curl/' net
only 'ares' net
only 'openssl/' net
only 'sqlite3\.h' state
only 'gsasl' 'smtp|accept'
exit $bad
