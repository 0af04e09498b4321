//! Whole requests of every protocol, as reviewed snapshots: method, path, query, headers, body.
//!
//! What is sent is what the extension sends: a delivery goes through the thread that owns the queue into blocks on disk, and
//! from there by the executor, with the settings of `docs/destinations.md`, to a backend that shares no code with it. A body is
//! printed as it came, but for gzip; one in protobuf as `opentelemetry-proto` decodes it. Only what no two runs have in common is
//! left out: the port, the hash in `log.record.uid` and with it the key and the length of a request, our own version, and how full `/tmp` is.
//!
//! `INSTA_UPDATE=always cargo test --test golden_requests` rewrites `tests/snapshots/`; the difference is to be read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use outlast::deliver::{Client, Vault};
use outlast::drain::executor::Executor;
use outlast::drain::policy::{Outcome, Portion, Target};
use outlast::keeper::{About, Job, Keeper, Making, Setup};
use outlast::listen::{Delivery, Receipt};
use outlast::queue::{Limits, Overflow, ReaderId, Readers, RealDisk};
use outlast::{PerSignal, Signal, config};
use outlast_backend::{Backend, Decode, Dialect, Request};
use prost::Message;
use serde::Serialize;
use std::fmt::Write;
use std::io::Read;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// When the delivery is said to arrive.
const RECEIVED: u64 = 1_777_630_531_000_000_000;
const INVOKED: &str = "arn:aws:lambda:eu-central-1:123456789012:function:checkout";
/// More than the delivery makes, so it all goes in one request of each signal.
const REQUEST: Portion = Portion::Run { max_blocks: 1_000, max_bytes: 1 << 20 };
/// Whose values are the machine's.
const TMP: &str = "aws.lambda.tmp_";
/// The hash in a uid, in hexadecimal digits.
const UID_DIGITS: usize = 32;

/// A traced invocation that logs a line, an object and an error.
const DELIVERY: &str = r#"[
{"time":"2026-05-01T10:15:30.100Z","type":"platform.start","record":{"requestId":"8f507cfc-a1b2-4697-b07a-ac58fc914c95","version":"$LATEST","tracing":{"spanId":"24cd7d670fa455f0","type":"X-Amzn-Trace-Id","value":"Root=1-6352a70e-1e2c502e358361800241fd45;Parent=35465b3a9e2f7c6a;Sampled=1"}}},
{"time":"2026-05-01T10:15:30.120Z","type":"function","record":"2026-05-01T10:15:30.119Z\t8f507cfc-a1b2-4697-b07a-ac58fc914c95\tINFO\ta \"plain\" line: \u00e4\n"},
{"time":"2026-05-01T10:15:30.121Z","type":"function","record":{"timestamp":"2026-05-01T10:15:30.121Z","level":"WARN","message":"stock is low","requestId":"8f507cfc-a1b2-4697-b07a-ac58fc914c95","item":{"id":7,"price":1.5,"tags":["a",null,true]}}},
{"time":"2026-05-01T10:15:30.300Z","type":"platform.runtimeDone","record":{"requestId":"8f507cfc-a1b2-4697-b07a-ac58fc914c95","status":"success","metrics":{"durationMs":200.5,"producedBytes":8}}},
{"time":"2026-05-01T10:15:30.310Z","type":"platform.report","record":{"requestId":"8f507cfc-a1b2-4697-b07a-ac58fc914c95","status":"success","metrics":{"durationMs":200.5,"billedDurationMs":201,"memorySizeMB":128,"maxMemoryUsedMB":94}}}
]"#;

/// Every request that the delivery makes of a backend that speaks `dialect`.
async fn requests(dialect: Dialect) -> String {
    let backend = Backend::builder().dialect(dialect).bodies().decode(Decode::BeforeAnswer).start().unwrap();
    // What a protocol does not take is not asked for.
    let signals = match dialect {
        Dialect::Otlp | Dialect::OtlpJson => "logs,metrics,traces",
        Dialect::Datadog | Dialect::NewRelic => "logs,metrics",
        _ => "logs",
    };
    let settings = [
        ("OUTLAST_SIGNALS", signals.to_owned()),
        ("OUTLAST_ENDPOINT", backend.url()),
        ("OUTLAST_PROTOCOL", dialect.name().to_owned()),
        ("OUTLAST_HEADERS", dialect.headers().unwrap_or_else(|| "authorization=Bearer%20key".to_owned())),
    ];
    let loaded = config::load(settings);
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let config = loaded.config;
    let dir = tempfile::tempdir().unwrap();
    let keeper = Keeper::start(Setup {
        dir: dir.path().join("queue"),
        disk: || Box::new(RealDisk),
        limits: Limits::new(4 << 20, Overflow::DropOldest),
        wire: config.protocol.wire(),
        about: About { function_name: Some("checkout".to_owned()), ..About::default() },
        epoch_unix_nanos: 0,
        making: Making { signals: PerSignal::from_fn(|signal| config.is_made(signal)), ..Making::default() },
        readers: Readers::default(),
        completes_resources: false,
    })
    .unwrap();
    keeper.ask(Job::Invoked(INVOKED.to_owned()));
    let (reply, receipt) = oneshot::channel();
    let delivery = Delivery { body: DELIVERY.into(), received_unix_nanos: RECEIVED, reply };
    keeper.inbox.send(delivery).await.unwrap();
    assert_eq!(receipt.await, Ok(Receipt::Kept));
    let urls: Vec<_> = Signal::ALL.into_iter().filter_map(|signal| config.signal_url(signal)).collect();
    let client = Arc::new(Client::new(&urls, config.timeout));
    let vault = Arc::new(Vault::new(config.timeout, None, |_| None));
    let (landed, mut ended) = mpsc::unbounded_channel();
    let whose = (0, ReaderId::FIRST);
    let wire = config.protocol.wire();
    let mut executor =
        Executor::new(whose, &config, (client, vault, None), wire.as_ref(), keeper.asker(), landed);
    let mut told = String::new();
    for signal in Signal::ALL.into_iter().filter(|signal| config.is_made(*signal)) {
        executor.send(signal, 1, REQUEST, config.gzip, Target::Primary);
        let landed = ended.recv().await.unwrap();
        assert_eq!(landed.outcome, Outcome::Delivered, "{:?}", landed.verdict);
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.defect, None);
        write!(told, "{}\n\n", shown(signal, dialect, &request)).unwrap();
    }
    told
}

fn shown(signal: Signal, dialect: Dialect, request: &Request) -> String {
    let mut plain = Vec::new();
    GzDecoder::new(&request.body[..]).read_to_end(&mut plain).unwrap();
    let body = match (dialect, signal) {
        (Dialect::Otlp, Signal::Logs) => decoded::<ExportLogsServiceRequest>(&plain),
        (Dialect::Otlp, Signal::Metrics) => decoded::<ExportMetricsServiceRequest>(&plain),
        (Dialect::Otlp, Signal::Traces) => decoded::<ExportTraceServiceRequest>(&plain),
        _ => String::from_utf8(plain).unwrap(),
    };
    let mut headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| match name.as_str() {
            "host" => format!("{name}: 127.0.0.1:*"),
            "content-length" | "idempotency-key" => format!("{name}: *"),
            "user-agent" => format!("{name}: {}", value.replace(env!("CARGO_PKG_VERSION"), "*")),
            _ => format!("{name}: {value}"),
        })
        .collect();
    headers.sort_unstable();
    let (method, path) = (&request.method, &request.path);
    format!("{method} {path}\n{}\n\n{}", headers.join("\n"), without_chance(&body))
}

fn decoded<M: Message + Default + Serialize>(plain: &[u8]) -> String {
    serde_json::to_string_pretty(&M::decode(plain).unwrap()).unwrap()
}

/// Without the hashes in uids, our own version, and what `/tmp` has.
fn without_chance(body: &str) -> String {
    let mut out = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let body = ["\"version\":\"", "\"version\": \""].iter().fold(body.to_owned(), |body, name| {
        body.replace(&format!("{name}{version}\""), &format!("{name}*\""))
    });
    let mut rest = body.as_str();
    while let Some(at) = rest.find('-').filter(|_| !rest.is_empty()) {
        let (before, after) = rest.split_at(at);
        let digits = before.bytes().rev().take_while(u8::is_ascii_hexdigit).count();
        if digits == UID_DIGITS && after.as_bytes().get(1).is_some_and(u8::is_ascii_digit) {
            out.push_str(before.strip_suffix(&before[at - digits..]).unwrap());
            out.push('*');
        } else {
            out.push_str(before);
        }
        out.push('-');
        rest = &after[1..];
    }
    out.push_str(rest);
    let mut parts = out.split(TMP);
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let value =
            ["\"value\":", "\"asInt\":"].iter().filter_map(|name| Some(part.find(name)? + name.len()));
        let start = value.min().expect("a value");
        let length = part[start..].find([',', '}', '\n']).expect("its end");
        write!(masked, "{TMP}{}(of the machine){}", &part[..start], &part[start + length..]).unwrap();
    }
    masked
}

macro_rules! golden {
    ($($test:ident: $dialect:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            insta::assert_snapshot!(Dialect::$dialect.name(), requests(Dialect::$dialect).await);
        })*

        /// Every protocol is among the above.
        #[test]
        fn no_protocol_is_left_out() {
            assert_eq!([$(Dialect::$dialect),*], Dialect::ALL);
        }
    };
}

golden! {
    otlp: Otlp,
    otlp_json: OtlpJson,
    ndjson: Ndjson,
    json: Json,
    elasticsearch: Elasticsearch,
    loki: Loki,
    splunk_hec: SplunkHec,
    datadog: Datadog,
    newrelic: NewRelic,
}
