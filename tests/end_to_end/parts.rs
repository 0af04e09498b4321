//! The same binary among parts nobody here wrote: AWS's own Lambda emulator, and an OpenTelemetry collector.

use crate::support::{OUTLAST, PATIENCE, World, invoke, leave, lines_with, ms, output};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use outlast_backend::real::Rotel;
use outlast_simulator::rie::{self, Emulator, Ran};
use outlast_simulator::{FunctionOptions, Invocation};
use prost::Message;
use serde_json::json;
use std::collections::HashSet;
use std::io::Read;
use std::path::PathBuf;

/// A backend inside the emulator's network namespace, which ours cannot be reached from: writes each body to a file.
/// It answers once the directory holds `open`, so that a driver decides when the backend is up.
const RECEIVER: &str = r#"cat >$OUT/receiver.py <<'PY'
import http.server, os
class Receiver(http.server.BaseHTTPRequestHandler):
    count = 0
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        up = os.path.exists("OUT/open")
        if up:
            Receiver.count += 1
            with open("OUT/%s-%04d" % (self.path.rsplit("/", 1)[1], Receiver.count), "wb") as file:
                file.write(body)
        self.send_response(200 if up else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", 4318), Receiver).serve_forever()
PY
sed -i "s|OUT/|$OUT/|g" $OUT/receiver.py; python3 $OUT/receiver.py >$OUT/receiver.log 2>&1 &"#;

const UP: &str = "touch $OUT/open";

fn emulator() -> Emulator {
    Emulator::new(OUTLAST)
        .env("OUTLAST_ENDPOINT", "http://127.0.0.1:4318")
        .env("OUTLAST_QUEUE_DIR", "$OUT/queue")
        .env("OUTLAST_RETRY_INITIAL", "20ms")
        .env("OUTLAST_RETRY_MAX", "100ms")
        .env("OUTLAST_LOG", "info")
        .shell(RECEIVER)
}

/// The requests that the receiver took at `/v1/SIGNAL`, in order.
fn requests<R: Message + Default>(ran: &Ran, signal: &str) -> Vec<R> {
    let mut files: Vec<_> = std::fs::read_dir(ran.directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{signal}-")))
        .collect();
    files.sort();
    let read = |file: &PathBuf| {
        let mut plain = Vec::new();
        GzDecoder::new(&std::fs::read(file).unwrap()[..]).read_to_end(&mut plain).unwrap();
        R::decode(&plain[..]).unwrap()
    };
    files.iter().map(read).collect()
}

/// The bodies of the log records that the receiver took, in order.
fn received(ran: &Ran) -> Vec<String> {
    let mut texts = Vec::new();
    for request in requests::<ExportLogsServiceRequest>(ran, "logs") {
        let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        for record in scopes.flat_map(|scope| scope.log_records) {
            if let Some(Value::StringValue(text)) = record.body.and_then(|body| body.value) {
                texts.push(text);
            }
        }
    }
    texts
}

#[tokio::test]
async fn aws_own_emulator_in_managed_instances_mode() {
    if !rie::usable().unwrap() {
        return;
    }
    let run = emulator()
        .managed()
        .invoke(&json!({"do": "loud", "n": 100, "len": 50}))
        .wait(ms(500))
        .shell(UP)
        .invoke(&json!({"do": "loud", "n": 100, "len": 50}))
        .wait(ms(500));
    let ran = run.run().await.unwrap();
    assert_eq!(ran.responses.len(), 2, "{:?} {}", ran.responses, ran.log);
    assert!(ran.responses.iter().all(|response| response.contains("\"ok\"")), "{:?}", ran.responses);
    let texts = received(&ran);
    let lines: Vec<&String> = texts.iter().filter(|text| text.starts_with("function: line")).collect();
    let expected = |at: usize| format!("function: line {} {}", at % 100, "x".repeat(50));
    assert_eq!(lines.len(), 200, "once each, those of the outage included: {}", ran.log);
    assert!(lines.iter().enumerate().all(|(at, line)| **line == expected(at)), "and in order");
    assert!(ran.log.contains("0 left on disk"), "{}", ran.log);
    // No end comes there: the invocations are told by their reports.
    let spans = requests::<ExportTraceServiceRequest>(&ran, "traces").into_iter();
    let spans = spans.flat_map(|request| request.resource_spans).flat_map(|resource| resource.scope_spans);
    let roots = spans.flat_map(|scope| scope.spans).filter(|span| span.kind == SpanKind::Server as i32);
    assert_eq!(roots.map(|span| span.span_id).collect::<HashSet<_>>().len(), 2, "{}", ran.log);
    let metrics = requests::<ExportMetricsServiceRequest>(&ran, "metrics").into_iter();
    let metrics = metrics.flat_map(|request| request.resource_metrics).flat_map(|r| r.scope_metrics);
    let counters = metrics.flat_map(|scope| scope.metrics).filter(|metric| metric.name == "faas.invocations");
    assert!(counters.count() >= 1, "{}", ran.log);
}

#[tokio::test]
async fn aws_own_emulator_in_ordinary_mode() {
    if !rie::usable().unwrap() {
        return;
    }
    let mut run = emulator().shell(UP);
    for _ in 0..3 {
        run = run.invoke(&json!({"do": "plain"}));
    }
    let ran = run.run().await.unwrap();
    assert_eq!(ran.responses.len(), 3, "{:?} {}", ran.responses, ran.log);
    assert!(ran.responses.iter().all(|response| response.contains("\"ok\"")), "{:?}", ran.responses);
    assert!(ran.log.contains("shutdown: 0 records received"), "it has no telemetry there: {}", ran.log);
    assert!(!ran.log.contains("Extension.Crash"), "{}", ran.log);
}

#[tokio::test]
async fn a_collector_nobody_here_wrote_takes_everything() {
    let name = "a_collector_nobody_here_wrote_takes_everything";
    let Some(rotel) = Rotel::start_or_skip(name).await.unwrap() else { return };
    let world = World::new().await;
    let function = FunctionOptions { tracing: true, ..FunctionOptions::default() };
    let lambda = world.lambda().env("OUTLAST_ENDPOINT", rotel.url()).function(function).run("rotel");
    let lambda = lambda.start().await.unwrap();
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(invoke(&lambda, Invocation::new().logs(20)).await.request_id);
    }
    let texts: Vec<String> =
        (1..=3).flat_map(|inv| (0..20).map(move |line| format!("run=rotel inv={inv} line={line}"))).collect();
    rotel.wait_for_texts(&texts, PATIENCE).await.unwrap();
    rotel.wait_for_texts(&["faas.name", "simulated-function", "log.record.uid"], PATIENCE).await.unwrap();
    leave(&lambda).await;
    assert_eq!(lines_with(&lambda, "0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
    let metrics = ["faas.invoke_duration", "faas.invocations", "faas.coldstarts", "faas.mem_usage"];
    rotel.wait_for_texts(&metrics, PATIENCE).await.unwrap();
    rotel
        .wait_for_texts(&["responseLatency", "extensionOverhead", "faas.coldstart"], PATIENCE)
        .await
        .unwrap();
    rotel.wait_for_texts(&requests, PATIENCE).await.unwrap();
}
