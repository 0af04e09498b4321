#!/usr/bin/env bash
# Fuzzes: each target so many seconds, one after another. Needs a nightly toolchain and cargo-fuzz.
# usage: run.sh [SECONDS [TARGET...]]     by default 60 seconds each, all targets
# FUZZ_SEED=N tries the same inputs in the same order again, if it begins with the same corpus and program.
# Corpora grow in tests/fuzz/corpus/TARGET (not in version control); what stands in seeds/, corpora/ and
# tests/telemetry/ is read at the start. A finding is left in tests/fuzz/artifacts/TARGET and makes the exit status 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
fuzz=tests/fuzz
[ $# -gt 0 ] || for target in "$fuzz"/targets/*.rs; do set -- "$@" "$(basename "$target" .rs)"; done
export PATH="${PARTS_DIR:-$HOME/.cache/outlast-parts}/cargo/bin:$PATH"

# The events of the recorded deliveries, one a file, for the target that takes single events.
events=$(mktemp -d)
trap 'rm -rf "$events"' EXIT
python3 - "$events" tests/telemetry/*.json <<'PY'
import json, pathlib, sys
directory, *samples = sys.argv[1:]
for sample in map(pathlib.Path, samples):
    for number, event in enumerate(json.loads(sample.read_bytes())):
        (pathlib.Path(directory) / f"{sample.stem}-{number}").write_text(json.dumps(event))
PY

failed=()
for target in "$@"; do
  corpus=$fuzz/corpus/$target
  mkdir -p "$corpus"
  inputs=("$corpus")
  for kept in "$fuzz/seeds/$target" "$fuzz/corpora/$target"; do
    [ -d "$kept" ] && inputs+=("$kept")
  done
  case $target in
  telemetry) inputs+=(tests/telemetry) ;;
  record_mapping) inputs+=("$events") ;;
  esac
  # One allocation of more than 64 MiB is out of proportion to any input here. Leaks are no subject of safe code, and
  # looking for them needs rights that containers do not give.
  options=(-max_total_time="$seconds" -timeout=25 -rss_limit_mb=2048 -malloc_limit_mb=64 -detect_leaks=0)
  options+=(-print_final_stats=1 -verbosity="${FUZZ_VERBOSITY:-1}" -max_len=4096 -seed="${FUZZ_SEED:-0}")
  [ -f "$fuzz/dictionaries/$target" ] && options+=(-dict="$fuzz/dictionaries/$target")
  echo "== $target, $seconds s"
  cargo +nightly fuzz run --fuzz-dir "$fuzz" "$target" "${inputs[@]}" -- "${options[@]}" || failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || { echo "findings: ${failed[*]}" >&2; exit 1; }
