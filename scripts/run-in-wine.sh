#!/bin/sh
# Runs a program in Wine, for CTest and for the tests that drive node.exe:
#
#   sh scripts/run-in-wine.sh WINE PROGRAM [ARGUMENT...]
#
# Wine's server now and then, seen twice in two thousand starts, closes the connection of a process that it has just let in. The process ends
# before the program's first instruction then, in silence or with "wine client error", and is started again here. One that has printed anything of
# its own, or that ended well, never is.

output=$(mktemp -d) || exit 1
trap 'rm -rf "$output"' EXIT
for attempt in 1 2 3; do
  "$@" </dev/null >"$output/out" 2>"$output/err"
  status=$?
  [ "$status" -eq 0 ] && break
  [ -s "$output/out" ] && break
  if [ -s "$output/err" ] && ! grep -q '^wine client error' "$output/err"; then break; fi
  echo "run-in-wine: attempt $attempt ended before the program began" >&2
done
cat "$output/out"
cat "$output/err" >&2
exit "$status"
