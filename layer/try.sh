#!/usr/bin/env bash
# Runs the layer beside a small function under AWS's own Lambda emulator (Runtime Interface Emulator), through an outage of a small backend, and shows what arrives.
# No account is needed. Takes target/layer/outlast-ARCH.zip, else target/release/outlast, else builds that. Needs Linux, Python 3, curl, ip, and namespaces (root, or a user
# with subordinate ids, where the kernel lets users have them); where that or the emulator is not to be had it says so, and the demo runs instead, between a simulated Lambda and a scripted backend.
# usage: try.sh [--invocations N]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

INVOCATIONS=3
while [ $# -gt 0 ]; do
  case $1 in
  --invocations) INVOCATIONS=${2:?} && shift 2 ;;
  *)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
  esac
done

demo() {
  echo "try.sh: $1; the demo runs instead" >&2
  exec cargo run --release --example demo -- --quick
}

machine=$(uname -m)
as_root=()
[ "$(uname -s)" = Linux ] || demo 'the emulator runs on Linux only'
# The emulator starts the extension as another user. Within a namespace that takes subordinate ids (/etc/subuid, newuidmap), not one id alone.
[ "$(id -u)" -eq 0 ] || as_root=(unshare --map-root-user --map-auto)
for needed in unshare ip curl python3; do command -v "$needed" >/dev/null || demo "there is no $needed"; done
# All that the sandbox does with them.
"${as_root[@]}" unshare -m -n -p -f --mount-proc sh -c '! grep -q deny /proc/self/setgroups && ip link set lo up && mount -t tmpfs tmpfs /opt && { mkdir -p /var/task || { mount -t tmpfs tmpfs /var && mkdir /var/task; }; } && mount --bind /opt /var/task' 2>/dev/null ||
  demo 'this user may not make the namespaces that the emulator needs: root may, or a user with subordinate ids'
tests/parts/get.sh rie >/dev/null || demo 'the emulator cannot be installed'
export RIE=${PARTS_DIR:-$HOME/.cache/outlast-parts}/rie/aws-lambda-rie-${machine/aarch64/arm64}
[ -x "$RIE" ] || demo "there is no emulator for $machine"

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
built=${CARGO_TARGET_DIR:-target}
zip=$built/layer/outlast-${machine/aarch64/arm64}.zip
if [ -f "$zip" ]; then
  from=$zip
  python3 -m zipfile -e "$zip" "$out/layer"
  extension=$out/layer/extensions/outlast
  chmod 755 "$extension"
else
  [ -x "$built/release/outlast" ] || cargo build --release
  from=$built/release/outlast
  extension=$from
fi

# A backend that is away until a file says otherwise. It prints each log record that it takes.
cat >"$out/backend.py" <<'PY'
import http.server, json, os, sys

class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        up = os.path.exists(sys.argv[1])
        if up:
            self.show(json.loads(body))
        self.send_response(200 if up else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def show(self, request):
        signal = self.path.rsplit("/", 1)[1]
        found = [item for resource in request.get({"logs": "resourceLogs", "metrics": "resourceMetrics", "traces": "resourceSpans"}[signal], [])
                 for scope in resource.get({"logs": "scopeLogs", "metrics": "scopeMetrics", "traces": "scopeSpans"}[signal], [])
                 for item in scope.get({"logs": "logRecords", "metrics": "metrics", "traces": "spans"}[signal], [])]
        for item in found:
            what = item.get("name") or item.get("body", {}).get("stringValue") or item.get("eventName") or json.dumps(item.get("body"))
            print(f"  {signal:8}{what[:120]}", flush=True)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", 4318), Backend).serve_forever()
PY
cat >"$out/driver.sh" <<'SH'
python3 "$OUT/backend.py" "$OUT/up" >"$OUT/arrived" 2>&1 &
backend=$!
invoke() { curl -s --max-time 20 -X POST http://127.0.0.1:8080/2015-03-31/functions/function/invocations -d '{"do": "loud", "n": 3, "len": 20}'; echo; }
echo "== $INVOCATIONS invocations while the backend answers 503"
# The emulator's Telemetry API may stop for good if invocations follow one another at once.
for _ in $(seq "$INVOCATIONS"); do invoke; sleep 0.5; done
sleep 1
echo "  arrived: $(grep -c . "$OUT/arrived" || true)"
echo '== the backend is up again, one more invocation'
touch "$OUT/up"
invoke
for _ in $(seq 100); do [ "$(grep -c 'function: line' "$OUT/arrived")" -ge $((3 * INVOCATIONS + 3)) ] && break; sleep 0.1; done
kill -TERM "$RIE_PID"
wait "$RIE_PID" || true
kill "$backend"
echo '== what arrived: log records, and how much there is besides'
grep '^  logs' "$OUT/arrived" || true
for signal in metrics traces; do echo "  $signal  $(grep -c "^  $signal" "$OUT/arrived")"; done
SH

echo "== $from, under $(basename "$RIE") in its Managed Instances mode, the one whose Telemetry API is real"
export INVOCATIONS
# shellcheck disable=SC2016 # for the shell inside
"${as_root[@]}" tests/parts/rie-sandbox.sh "$extension" tests/parts/bootstrap.py "$out" AWS_LAMBDA_MAX_CONCURRENCY=1 OUTLAST_ENDPOINT=http://127.0.0.1:4318 \
  OUTLAST_PROTOCOL=otlp-json OUTLAST_COMPRESSION=none OUTLAST_RETRY_MAX=500ms OUTLAST_QUEUE_DIR="$out/queue" -- '. "$OUT/driver.sh"; true' || true
echo '== what the extension said'
grep -o 'outlast \(INFO\|WARN\|ERROR\) .*' "$out/rie.log" || true
lines=$(grep -c 'function: line' "$out/arrived" || true)
expected=$((3 * INVOCATIONS + 3))
echo "== $lines of $expected lines of the function arrived"
[ "$lines" -eq "$expected" ]
