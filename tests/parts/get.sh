#!/usr/bin/env bash
# Installs software that tests run against and that is not part of this repository, by package name, into
# ${PARTS_DIR:-$HOME/.cache/outlast-parts}, and prints where it is. What is there already is left alone.
# usage: get.sh rie | rotel | moto | otel-python | otel-node | elasticsearch
#   rie          AWS Lambda Runtime Interface Emulator, out of the Python package aws-sam-cli
#   rotel        an OpenTelemetry collector
#   moto         a stand-in for services of AWS, S3 and IAM among them
#   otel-python  the OpenTelemetry SDK for Python with its OTLP/HTTP exporters
#   otel-node    the OpenTelemetry SDK for Node.js with its OTLP/HTTP exporters; needs npm
#   elasticsearch
#                Elastic's client for Python
set -euo pipefail
parts=${PARTS_DIR:-$HOME/.cache/outlast-parts}
mkdir -p "$parts"

# venv NAME PACKAGE...: a virtual environment of its own, complete once .done says so
venv() {
  local directory="$parts/venv-$1"
  shift
  if [ "$(cat "$directory/.done" 2>/dev/null)" != "$*" ]; then
    rm -rf "$directory"
    python3 -m venv "$directory"
    "$directory/bin/pip" install -q --disable-pip-version-check "$@"
    printf '%s' "$*" >"$directory/.done"
  fi
  echo "$directory"
}

# node NAME PACKAGE...: the same for Node.js
node() {
  local directory="$parts/node-$1"
  shift
  if [ "$(cat "$directory/.done" 2>/dev/null)" != "$*" ]; then
    rm -rf "$directory"
    mkdir -p "$directory"
    npm install --silent --no-audit --no-fund --no-update-notifier --prefix "$directory" "$@" >&2
    printf '%s' "$*" >"$directory/.done"
  fi
  echo "$directory"
}

case ${1:-} in
rie)
  if [ ! -x "$parts/rie/aws-lambda-rie-x86_64" ]; then
    wheel=$(mktemp -d)
    trap 'rm -rf "$wheel"' EXIT
    python3 -m pip download -q --disable-pip-version-check --no-deps -d "$wheel" aws-sam-cli
    python3 - "$wheel" "$parts/rie" <<'PY'
import glob, os, sys, zipfile

wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
os.makedirs(sys.argv[2], exist_ok=True)
for name in wheel.namelist():
    if "/rapid/aws-lambda-rie" in name:
        path = os.path.join(sys.argv[2], os.path.basename(name))
        with open(path + ".part", "wb") as file:
            file.write(wheel.read(name))
        os.chmod(path + ".part", 0o755)
        os.rename(path + ".part", path)  # a name that exists is a file that is whole
PY
  fi
  ls "$parts"/rie/*
  ;;
rotel) venv rotel rotel ;;
moto) venv moto 'moto[server]' boto3 ;;
otel-python) venv otel-python opentelemetry-sdk opentelemetry-exporter-otlp-proto-http ;;
elasticsearch) venv elasticsearch elasticsearch ;;
otel-node)
  node otel-node @opentelemetry/sdk-node @opentelemetry/exporter-trace-otlp-proto @opentelemetry/exporter-trace-otlp-http
  ;;
*)
  sed -n '4,11s/^# //p' "$0"
  exit 2
  ;;
esac
