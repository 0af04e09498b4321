#!/usr/bin/env bash
# Installs software that tests run against and that is not part of this repository, by package name, into
# ${PARTS_DIR:-$HOME/.cache/outlast-parts}, and prints where it is. What is there already is left alone.
# usage: get.sh rie | rotel | moto | otel-python | otel-node | elasticsearch | victoria-metrics
#   rie          AWS Lambda Runtime Interface Emulator, out of the Python package aws-sam-cli
#   rotel        an OpenTelemetry collector
#   moto         a stand-in for services of AWS, S3 and IAM among them
#   otel-python  the OpenTelemetry SDK for Python with its OTLP/HTTP exporters
#   otel-node    the OpenTelemetry SDK for Node.js with its OTLP/HTTP exporters; needs npm
#   elasticsearch
#                Elastic's client for Python
#   victoria-metrics
#                a store of metrics, out of Debian's unstable distribution; needs Debian
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
victoria-metrics)
  program=$parts/victoria-metrics/usr/bin/victoria-metrics
  if [ ! -x "$program" ]; then
    # Lists and archives of their own: the machine's packages are not touched.
    apt=$(mktemp -d)
    trap 'rm -rf "$apt"' EXIT
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    # From where this machine has its packages; the variable is apt's.
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/$/ && !found++')
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources.list"
    cd "$apt"
    options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
      -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none
      -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    apt-get "${options[@]}" update >&2
    apt-get "${options[@]}" download victoria-metrics >&2
    dpkg -x victoria-metrics_*.deb unpacked
    # It is built for another distribution's libraries: it must run here.
    unpacked/usr/bin/victoria-metrics -version >&2
    mkdir -p "$parts/victoria-metrics/usr/bin"
    mv unpacked/usr/bin/victoria-metrics "$program.part"
    mv "$program.part" "$program" # a name that exists is a file that is whole
  fi
  echo "$parts/victoria-metrics"
  ;;
otel-node)
  node otel-node @opentelemetry/sdk-node @opentelemetry/exporter-trace-otlp-proto @opentelemetry/exporter-trace-otlp-http
  ;;
*)
  sed -n '4,13s/^# //p' "$0"
  exit 2
  ;;
esac
