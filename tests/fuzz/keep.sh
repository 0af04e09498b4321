#!/usr/bin/env bash
# Keeps, of what fuzzing found worth keeping, the smallest set of inputs that covers as much: tests/fuzz/corpora/TARGET is
# made anew out of itself and of tests/fuzz/corpus/TARGET. Needs a nightly toolchain and cargo-fuzz.
# usage: keep.sh [TARGET...]              by default all targets
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
fuzz=tests/fuzz
# The repository is no place for more than some 300 KB of them all, and an ordinary test reads every one.
input_max_bytes=2048
target_max_bytes=$((32 << 10))
target_max_inputs=200
[ $# -gt 0 ] || for target in "$fuzz"/targets/*.rs; do set -- "$@" "$(basename "$target" .rs)"; done
export PATH="${PARTS_DIR:-$HOME/.cache/outlast-parts}/cargo/bin:$PATH"

for target in "$@"; do
  kept=$fuzz/corpora/$target
  mkdir -p "$kept" "$fuzz/corpus/$target"
  chosen=$(mktemp -d)
  cargo +nightly fuzz run --fuzz-dir "$fuzz" "$target" "$chosen" "$kept" "$fuzz/corpus/$target" -- \
    -set_cover_merge=1 -max_len=$input_max_bytes -detect_leaks=0 -verbosity=0
  rm -rf "$kept"
  mkdir "$kept"
  total=0
  # Names are hashes, so this is a sample of long and short ones where not all fit.
  while read -r name size; do
    [ $((total + size)) -le $target_max_bytes ] || continue
    total=$((total + size))
    cp "$chosen/$name" "$kept/"
  done < <(find "$chosen" -type f -printf '%f %s\n' | sort | head -n $target_max_inputs)
  rm -rf "$chosen"
  echo "$target: $(find "$kept" -type f | wc -l) inputs, $(cat "$kept"/* 2>/dev/null | wc -c) bytes"
done
