#!/usr/bin/env bash
# Fetches real parts by package name into ${PARTS_DIR:-$HOME/.cache/outlast-parts} and prints where they are.
# usage: get.sh rie
set -euo pipefail
D=${PARTS_DIR:-$HOME/.cache/outlast-parts}; mkdir -p "$D"
case ${1:-} in
  rie) # AWS Lambda Runtime Interface Emulator, as the SAM CLI ships it
    if [ ! -x "$D/rie/aws-lambda-rie-x86_64" ]; then
      mkdir -p "$D/rie"; t=$(mktemp -d)
      python3 -m pip download -q --disable-pip-version-check --no-deps -d "$t" aws-sam-cli
      python3 - "$t" "$D/rie" <<'PY'
import glob, os, sys, zipfile
z = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
for n in z.namelist():
    if "/rapid/aws-lambda-rie" in n:
        p = os.path.join(sys.argv[2], os.path.basename(n)); open(p, "wb").write(z.read(n)); os.chmod(p, 0o755)
PY
      rm -rf "$t"
    fi
    ls "$D"/rie/* ;;
  *) sed -n 2,3p "$0"; exit 2 ;;
esac
