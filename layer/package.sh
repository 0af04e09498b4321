#!/usr/bin/env bash
# Makes the Lambda layer for one architecture, the same bytes from the same source wherever it is built:
#   outlast-ARCH.zip              extensions/outlast, and nothing else
#   outlast-ARCH.zip.sha256
#   outlast-ARCH.cdx.json         what is in it (CycloneDX), with the checksum of the binary
#   outlast-ARCH.licences.txt     the licences of all that is linked into it
# under ${CARGO_TARGET_DIR:-target}/layer. Needs Rust, Python 3 and readelf; installs ziglang, cargo-zigbuild and zopfli by package name into PARTS_DIR.
# usage: package.sh x86_64 | arm64
#   exit status: 1 the build or a check failed, 2 wrong usage, 3 this toolchain has no standard library for the architecture
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Amazon Linux 2 has 2.26, Amazon Linux 2023 has 2.34: one layer serves the runtimes of both.
GLIBC=2.26
# These make the bytes, so their versions are fixed. So does Rust: another one builds the layer as well, to other bytes, and says so. Which one it was is in the SBOM.
RUST_VERSION=1.95.0
ZIG_VERSION=0.17.1
ZIGBUILD_VERSION=0.24.0
ZOPFLI_VERSION=0.4.3
# What is unpacked at a cold start. A layer may have 50 MB. 2 MB was the aim; expressions and TOML of the rules are beyond
# it (docs/dependencies.md, "The release profile").
ZIP_MAX_BYTES=2330000

architecture=${1:-}
case $architecture in
x86_64) target=x86_64-unknown-linux-gnu ;;
arm64) target=aarch64-unknown-linux-gnu ;;
*)
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac

standard_library=$(rustc --print target-libdir --target "$target")
if ! compgen -G "$standard_library/libstd-*.rlib" >/dev/null; then
  cat >&2 <<MESSAGE
package.sh: this Rust toolchain cannot build for $architecture: it has no standard library for $target.
  With rustup: rustup target add $target
  Without: the workflow .github/workflows/release.yml builds both architectures.
MESSAGE
  exit 3
fi

parts=${PARTS_DIR:-$HOME/.cache/outlast-parts}
linker=$parts/venv-zigbuild
wanted="ziglang==$ZIG_VERSION cargo-zigbuild==$ZIGBUILD_VERSION zopfli==$ZOPFLI_VERSION"
if [ "$(cat "$linker/.done" 2>/dev/null)" != "$wanted" ]; then
  mkdir -p "$parts"
  rm -rf "$linker"
  python3 -m venv "$linker"
  # shellcheck disable=SC2086 # several packages
  "$linker/bin/pip" install -q --disable-pip-version-check $wanted
  printf '%s' "$wanted" >"$linker/.done"
fi

built=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$built"
built=$(cd "$built" && pwd)
release=$(rustc -vV | sed -n 's/^release: //p')
[ "$release" = "$RUST_VERSION" ] ||
  echo "package.sh: this is Rust $release; releases are built with $RUST_VERSION (RUSTUP_TOOLCHAIN=$RUST_VERSION), and only that makes the same bytes" >&2
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')

# Panic messages name files. Where they lie on this machine must not be told, nor make another binary.
remapped=(
  "$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$commit"
  "${CARGO_HOME:-$HOME/.cargo}=/cargo"
  "$PWD=/outlast"
  "$built=/target"
)
flags= # in place of those of .cargo/config.toml
[ "$architecture" = x86_64 ] && flags=-Cforce-frame-pointers=yes
for pair in "${remapped[@]}"; do flags+="${flags:+$'\x1f'}--remap-path-prefix=$pair"; done

PATH="$linker/bin:$PATH" CARGO_ENCODED_RUSTFLAGS=$flags CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$built \
  cargo zigbuild --locked --release --bin outlast --target "$target.$GLIBC"

exec "$linker/bin/python" layer/bundle.py --binary "$built/$target/release/outlast" --architecture "$architecture" --target "$target" \
  --glibc "$GLIBC" --zip-max-bytes "$ZIP_MAX_BYTES" --linker "zig $ZIG_VERSION, cargo-zigbuild $ZIGBUILD_VERSION" --zig "$ZIG_VERSION" \
  --private "$HOME" --private "$PWD" --private "$built" --out "$built/layer"
