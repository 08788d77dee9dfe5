#!/usr/bin/env bash
# Every header compiles alone.
cd "$(dirname "$0")/.." || exit 2
bad=0
for header in include/hikyaku/*.h engine/*.h engine/*/*.h engine/*/*/*.h; do
    gcc -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-function -Iinclude -Iengine -I/usr/include/lua5.4 \
        -fsyntax-only -x c "$header" || bad=1
done
exit $bad
