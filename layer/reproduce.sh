#!/usr/bin/env bash
# Packages the layer once more, in another folder with another target folder and another CARGO_HOME, and compares: nothing of the place may be in the result.
# usage: reproduce.sh x86_64 | arm64, after package.sh with the same argument
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

architecture=${1:?usage: reproduce.sh x86_64 | arm64}
first=${CARGO_TARGET_DIR:-target}/layer
[ -f "$first/outlast-$architecture.zip" ] || { echo "reproduce.sh: run layer/package.sh $architecture before" >&2; exit 2; }

elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
mkdir -p "$elsewhere/a longer name/outlast" "$elsewhere/cargo"
git ls-files -z --cached --others --exclude-standard | tar --null -T - -c | tar -x -C "$elsewhere/a longer name/outlast"
# Another name of the same registry: nothing is downloaded again.
for part in "${CARGO_HOME:-$HOME/.cargo}"/*; do ln -s "$part" "$elsewhere/cargo/"; done

CARGO_HOME=$elsewhere/cargo CARGO_TARGET_DIR=$elsewhere/target "$elsewhere/a longer name/outlast/layer/package.sh" "$architecture"

for made in "$first/outlast-$architecture".*; do
  cmp "$made" "$elsewhere/target/layer/$(basename "$made")"
  echo "the same twice: $(basename "$made")"
done
