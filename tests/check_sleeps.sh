#!/usr/bin/env bash
# A test that waits for a time instead of a condition fails on a busy machine. So no test sleeps: it waits with wait_for() or
# wait_until(), and what is slow on purpose calls let_pass(), which says in words what takes the time. Both are in tests/support/.
set -u
cd "$(dirname "$0")/.." || exit 2
bad=0
complain() { printf '%s\n' "$1" | sed "s|^|$2: |" >&2; bad=1; }
sleeps=$(grep -rnE '\b(u|nano|clock_nano)?sleep *\(|^[^#]*(^|[;&|`({]|\bdo|\bthen|\belse)[[:space:]]*sleep +[0-9.$]|\bimport.*\bsleep\b' tests --include='*.py' --include='*.[ch]' --include='*.sh' --include=run --include=packages |
    grep -vE '^tests/support/(harness\.py|wait\.h):')
[ -z "$sleeps" ] || complain "$sleeps" "sleeps by itself; wait for a condition, or let_pass(time, \"what takes it\")"
# The reason is a text of some words, on the line of the call.
nameless=$(grep -rnE '\blet_pass\(' tests --include='*.py' --include='*.[ch]' | grep -vE '^tests/support/' | grep -vE 'let_pass\(.*, f?"[A-Za-z]+( [^ "]+){2,}[^"]*"\)')
[ -z "$nameless" ] || complain "$nameless" "does not say in words what takes the time"
exit $bad
