//! What the function's own SDK does, by hand: OTLP requests to the receiver of the extension.

use crate::support::{World, within};
use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use outlast_backend::{Backend, Received, Record, Signal};
use outlast_simulator::Builder;
use prost::Message;
use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";

/// The address of a receiver to come, which stays the same when the extension is restarted.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    /// Bound without listening, so that nothing else gets the port. The extension sets `SO_REUSEADDR` as this does, and
    /// Linux lets the two share it.
    _reservation: TcpSocket,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { address: socket.local_addr().unwrap(), _reservation: socket }
    }

    /// [`World::lambda`] with the receiver on.
    pub(crate) fn lambda(&self, world: &World) -> Builder {
        world.lambda().env("OUTLAST_OTLP_RECEIVER", self.address)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a request on a connection of its own, and leaves it to the caller to wait for the answer.
    pub(crate) async fn begin(&self, path: &str, kind: &str, gzip: bool, body: &[u8]) -> TcpStream {
        let mut stream = within("a connection", TcpStream::connect(self.address)).await.unwrap();
        let coding = if gzip { "content-encoding: gzip\r\n" } else { "" };
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\n{coding}content-length: {length}\r\n\r\n"
        );
        // The receiver may answer and close before it has everything.
        drop(stream.write_all(&[head.as_bytes(), body].concat()).await);
        stream
    }

    /// Sends a request and returns the status of the answer.
    pub(crate) async fn post(&self, path: &str, kind: &str, gzip: bool, body: &[u8]) -> u16 {
        status(self.begin(path, kind, gzip, body).await).await
    }

    /// Exports the spans with these numbers, which must be accepted.
    pub(crate) async fn export(&self, ids: Range<u64>) {
        assert_eq!(self.post("/v1/traces", PROTOBUF, true, &gzip(&spans(ids))).await, 200);
    }
}

/// The status of the answer that comes on `stream`; 0 if the connection broke instead.
pub(crate) async fn status(mut stream: TcpStream) -> u16 {
    let mut answer = Vec::new();
    let read = within("an answer", stream.read_to_end(&mut answer)).await;
    let text = String::from_utf8_lossy(&answer);
    match (read, text.split(' ').nth(1)) {
        (_, Some(status)) => status.parse().unwrap(),
        (_, None) => 0,
    }
}

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// A request with the spans of these numbers.
pub(crate) fn spans(ids: Range<u64>) -> Vec<u8> {
    named_spans(ids.map(|id| (id, format!("span {id}"))))
}

pub(crate) fn named_spans(spans: impl Iterator<Item = (u64, String)>) -> Vec<u8> {
    let span = |(id, name): (u64, String)| Span {
        trace_id: u128::from(id + 1).to_be_bytes().into(),
        span_id: (id + 1).to_be_bytes().into(),
        name,
        start_time_unix_nano: 1_700_000_000_000_000_000 + id,
        end_time_unix_nano: 1_700_000_000_000_001_000 + id,
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: spans.map(span).collect(), ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// Whether a record is the SDK's, and of `signal`: beside them come the spans and data points that the extension makes.
pub(crate) fn is_theirs(record: &Record, signal: Signal) -> bool {
    record.signal == signal && &*record.scope != "outlast"
}

/// How much of `signal` came from the SDK.
pub(crate) fn count_theirs(received: &Received, signal: Signal) -> usize {
    received.records().iter().filter(|record| is_theirs(record, signal)).count()
}

/// Names of the spans of the SDK that the backend has, in order of arrival.
pub(crate) fn span_names(backend: &Backend) -> Vec<String> {
    let records = backend.records();
    records.into_iter().filter(|record| is_theirs(record, Signal::Traces)).map(|record| record.text).collect()
}

/// Each of these came, each once, and nothing else did.
pub(crate) fn assert_each_once(what: &str, expected: impl IntoIterator<Item = String>, got: Vec<String>) {
    let mut times: HashMap<String, i64> = HashMap::new();
    for one in expected {
        *times.entry(one).or_default() -= 1;
    }
    for one in got {
        *times.entry(one).or_default() += 1;
    }
    times.retain(|_, times| *times != 0);
    assert!(times.is_empty(), "{what}: missing are those below 0, too many those above: {times:?}");
}
