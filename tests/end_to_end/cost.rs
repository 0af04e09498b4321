//! What it costs: figures, not judgements. Not run with the others.
//!
//! ```sh
//! cargo build --release
//! OUTLAST_BINARY=target/release/outlast cargo test --test end_to_end cost:: -- --ignored --nocapture --test-threads 1
//! ```
//! `OUTLAST_BINARY` may be another build to compare with.

use crate::sdk::{JSON, PROTOBUF, Port, gzip};
use crate::support::{OUTLAST, PATIENCE, World, invoke, leave, within};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use outlast_backend::{Backend, Keep, Signal};
use outlast_simulator::{Builder, Freeze, Invocation, Sandbox};
use prost::Message;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an SDK puts into a request by default, at most.
const SPANS_PER_REQUEST: u64 = 512;

fn builder(backend: &Backend, world: &World) -> Builder {
    let binary = std::env::var("OUTLAST_BINARY").unwrap_or_else(|_| OUTLAST.to_owned());
    Sandbox::builder(binary)
        .env("OUTLAST_ENDPOINT", backend.url())
        .env("OUTLAST_QUEUE_DIR", world.queue().display())
        .freeze(Freeze::Off)
        .timeout(PATIENCE)
}

/// CPU so far (user and system, in steps of 10 ms), resident memory now and at most in KiB.
fn usage(lambda: &Sandbox) -> (Duration, u64, u64) {
    let pid = lambda.process_ids()[0];
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = after_name[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (Duration::from_millis(ticks * 10), kib("VmRSS:"), kib("VmHWM:"))
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

/// Spans as an instrumented HTTP client makes them, about 400 bytes each.
fn request(random: &mut fastrand::Rng, spans: u64) -> ExportTraceServiceRequest {
    let mut span = || Span {
        trace_id: random.u128(..).to_be_bytes().into(),
        span_id: random.u64(..).to_be_bytes().into(),
        parent_span_id: random.u64(..).to_be_bytes().into(),
        name: "GET /orders/{id}".into(),
        kind: 3,
        start_time_unix_nano: 1_700_000_000_000_000_000 + random.u64(..1 << 40),
        end_time_unix_nano: 1_700_000_000_000_000_000 + random.u64(..1 << 40),
        attributes: vec![
            attribute("http.request.method", "GET".into()),
            attribute("http.response.status_code", "200".into()),
            attribute("url.full", format!("https://orders.internal.example.com/orders/{}", random.u32(..))),
            attribute("server.address", "orders.internal.example.com".into()),
            attribute("network.peer.address", format!("10.0.{}.{}", random.u8(..), random.u8(..))),
            attribute("customer.id", format!("{:016x}", random.u64(..))),
        ],
        ..Default::default()
    };
    let spans = (0..spans).map(|_| span()).collect();
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    let resource =
        Some(Resource { attributes: vec![attribute("service.name", "orders".into())], ..Default::default() });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }],
    }
}

/// Sends the requests on one connection, as an SDK does.
async fn send(port: &Port, kind: &str, gzipped: bool, bodies: &[Vec<u8>]) {
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let coding = if gzipped { "content-encoding: gzip\r\n" } else { "" };
    for body in bodies {
        let length = body.len();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n{coding}content-length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            assert!(within("an answer", stream.read_buf(&mut answer)).await.unwrap() > 0);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        if kind == JSON && !answer.ends_with(b"{}") {
            within("the body", stream.read_buf(&mut answer)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn logs() {
    let (world, backend) = (World::new().await, Backend::builder().keep(Keep::Counts).start().unwrap());
    let lambda = builder(&backend, &world).start().await.unwrap();
    invoke(&lambda, Invocation::new()).await;
    within("deliveries", lambda.settled()).await;
    println!("logs: idle {} KiB", usage(&lambda).1);
    for _ in 0..60 {
        invoke(&lambda, Invocation::new().runs_for(Duration::from_millis(60)).logs(2_000).padded(200)).await;
    }
    within("deliveries", lambda.settled()).await;
    backend.wait_for(|received| received.count(Signal::Logs) >= 120_000, PATIENCE).await.unwrap();
    let (cpu, now, most) = usage(&lambda);
    println!("logs: 120,000 records of some 250 bytes: {cpu:?} of CPU, {now} KiB, most {most} KiB");
    leave(&lambda).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn spans() {
    let mut random = fastrand::Rng::with_seed(1);
    for (what, kind, gzipped, requests, per_request) in [
        ("protobuf", PROTOBUF, false, 200, SPANS_PER_REQUEST),
        ("protobuf, gzip", PROTOBUF, true, 200, SPANS_PER_REQUEST),
        ("JSON", JSON, false, 200, SPANS_PER_REQUEST),
        ("protobuf, a span a request", PROTOBUF, false, 10_000, 1),
    ] {
        let (world, port) = (World::new().await, Port::reserve());
        let backend = Backend::builder().keep(Keep::Counts).start().unwrap();
        let lambda =
            builder(&backend, &world).env("OUTLAST_OTLP_RECEIVER", port.address).start().await.unwrap();
        invoke(&lambda, Invocation::new()).await;
        within("deliveries", lambda.settled()).await;
        let idle = usage(&lambda).1;
        let bodies: Vec<Vec<u8>> = (0..requests)
            .map(|_| {
                let request = request(&mut random, per_request);
                let body = if kind == JSON {
                    serde_json::to_vec(&request).unwrap()
                } else {
                    request.encode_to_vec()
                };
                if gzipped { gzip(&body) } else { body }
            })
            .collect();
        let length = bodies.iter().map(Vec::len).sum::<usize>() / bodies.len();
        send(&port, kind, gzipped, &bodies).await;
        let expected = usize::try_from(requests * per_request).unwrap();
        backend.wait_for(|received| received.count(Signal::Traces) >= expected, PATIENCE).await.unwrap();
        let (cpu, now, most) = usage(&lambda);
        let each = cpu / u32::try_from(expected).unwrap();
        println!(
            "{what}: {expected} spans in requests of {length} bytes: {cpu:?} of CPU, {each:?} a span; idle {idle} KiB, now {now} KiB, most {most} KiB"
        );
        leave(&lambda).await;
    }
}
