#!/usr/bin/env bash
# Mutants of the policy or of the queue, in a crate of its own that holds nothing else: a mutant takes seconds instead of a
# minute. Needs `cargo install cargo-mutants`. What survives is looked at with all tests.
# usage: mutants.sh drain|queue DIRECTORY [OPTIONS of cargo mutants]
#   mutants.sh drain /tmp/drain -f 'src/drain/policy/**'
#   mutants.sh queue /tmp/queue -f src/queue/budget.rs -C=--test=queue_model -C=--test=queue_reports
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
part=$1 to=$2
shift 2
case $part in
drain) modules=(clock drain) ;;
queue) modules=(encode observe queue record) ;;
*) echo "drain or queue, not $part" >&2 && exit 2 ;;
esac
mkdir -p "$to/src" "$to/tests"
cp Cargo.lock src/signal.rs "$to"
mv "$to/signal.rs" "$to/src"
{
  printf 'mod signal;\npub use signal::{PerSignal, Signal};\n'
  for module in "${modules[@]}"; do echo "pub mod $module;"; done
} >"$to/src/lib.rs"
for module in "${modules[@]}"; do cp -r "src/$module"* "$to/src"; done
# The executor is I/O and knows everybody; the others' unit tests are not these modules'.
rm -f "$to/src/drain/executor.rs"
[ "$part" = queue ] || sed -i '/mod executor;/d' "$to/src/drain/mod.rs"
[ "$part" = drain ] || {
  grep -rl 'cfg(test)' "$to/src"/{encode,observe,record} | xargs sed -i 's/#\[cfg(test)\]/#[cfg(any())]/'
  cp -r tests/common tests/queue_*.rs "$to/tests"
}
{
  sed -n '/^\[package\]/,/^edition/p' Cargo.toml
  printf '[workspace]\n[features]\nfuzzing = []\ntool = []\ndefault = ["tool"]\n'
  # Of the dependencies those that are small; what these modules do not name is not built into them.
  sed -n '/^\[dependencies\]/,/^\[profile/p' Cargo.toml |
    grep -vE '^(\[profile|outlast-|hyper|reqwest|rustls|ring|webpki|http-body|opentelemetry|prost |insta|memmap2)'
} >"$to/Cargo.toml"
cd "$to"
exec cargo mutants --in-place --baseline skip --timeout 120 -C=--lib "$@"
