#!/usr/bin/env bash
# Fuzzes one target, or all of them one after another: scripts/fuzz.sh [parse|run|kernels|all] [SECONDS].
# The pinned compiler is enough: RUSTC_BOOTSTRAP lets cargo-fuzz ask it for coverage and the address sanitizer, whose
# runtime comes with it. Debug assertions and overflow checks are on. A C++ compiler builds libFuzzer.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET=${1:-all}
SECONDS_EACH=${2:-600}
CARGO_FUZZ=0.13.2
HOST=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1

say() { printf 'fuzz: %s\n' "$*"; }
die() { say "$@" >&2; exit 1; }

# About twice the seeds for images; more than one case of the kernels reads.
max_len() { if [ "$1" = kernels ]; then echo 96; else echo 8192; fi; }

fuzz() {
  local target=$1 corpus=fuzz/corpus/$1 log=fuzz/corpus/$1.log found
  mkdir -p "$corpus"
  [ "$target" = kernels ] || cargo run --quiet -p support --example seeds -- "$corpus"
  say "$target for $SECONDS_EACH s from $(ls "$corpus" | wc -l) inputs, log in $log"
  if cargo fuzz run --target "$HOST" "$target" "$corpus" -- -max_total_time="$SECONDS_EACH" \
    -max_len="$(max_len "$target")" -timeout=10 >"$log" 2>&1; then
    grep 'cov: ' "$log" | tail -1
    say "$target: $(sed -n 's/^Done \([0-9]*\) runs in \([0-9]*\) second.*/\1 executions in \2 s, no finding/p' "$log")"
    return
  fi
  tail -40 "$log"
  found=$(sed -n "s,.*Test unit written to $PWD/,,p" "$log" | tail -1)
  [ -n "$found" ] || die "$target did not build or run"
  say "$target: FOUND $found" >&2
  if [ "$target" = kernels ]; then
    say "keep it: add its bytes to kernels/tests/kernels.rs" >&2
  else
    say "keep it: cp $found tests/regressions/WHAT-IT-BROKE.bin" >&2
  fi
  exit 1
}

command -v c++ >/dev/null || die "install a C++ compiler (apt-get install g++)"
command -v cargo-fuzz >/dev/null || { say "installing cargo-fuzz"; cargo install --quiet --locked "cargo-fuzz@$CARGO_FUZZ"; }
case $TARGET in
  all) for target in parse run kernels; do fuzz "$target"; done ;;
  parse | run | kernels) fuzz "$TARGET" ;;
  *) die "no target $TARGET: parse, run, kernels or all" ;;
esac
