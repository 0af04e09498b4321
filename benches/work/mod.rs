//! What the benches work on: deliveries as Lambda sends them, and beside each piece of ours a plain reference for it.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(dead_code, reason = "each bench is a crate of its own and uses some of this")]

use flate2::{Compress, Compression, FlushCompress};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord as ProtoRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use outlast::Signal;
use outlast::encode::WireFormat;
use outlast::queue::{Batch, Deflater, Kind, Limits, NewBlock, Overflow, Queue, RealDisk};
use outlast::record::{
    Context, Event, Field, LogRecord, Resource, ResourceInputs, Split, Value, severity, split,
};
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// When the deliveries come, Unix nanoseconds.
pub(crate) const RECEIVED: u64 = 1_791_444_628_000_000_000;
/// The budget of queues: what users have by default.
pub(crate) const QUEUE_MAX_BYTES: u64 = 64 << 20;
const ID: &str = "79b5e81f-9cdd-4145-b1f6-7c50ef8a2a36";
const WORDS: [&str; 24] = [
    "order",
    "accepted",
    "payment",
    "customer",
    "retrying",
    "request",
    "to",
    "inventory",
    "service",
    "took",
    "after",
    "cache",
    "miss",
    "for",
    "key",
    "queue",
    "published",
    "event",
    "with",
    "status",
    "timeout",
    "connection",
    "user",
    "shipped",
];

/// The forms that records come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line of running text.
    Text,
    /// Node.js: time, request id, level, text.
    Node,
    /// Python: level in brackets, time, request id, text.
    Python,
    /// An object, as structured loggers write it.
    Object,
    /// Start, done and report of an invocation, in turn.
    Platform,
}

impl Form {
    pub(crate) const ALL: [Self; 5] = [Self::Text, Self::Node, Self::Python, Self::Object, Self::Platform];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Node => "node",
            Self::Python => "python",
            Self::Object => "object",
            Self::Platform => "platform",
        }
    }

    /// One event in this form, as it stands in a delivery. `words` is the length of what is said.
    fn event(self, number: usize, words: usize, random: &mut fastrand::Rng) -> String {
        let time = format!("2026-10-08T07:30:{:02}.{:03}Z", number / 1000 % 60, number % 1000);
        let said = said(number, words, random);
        let (kind, record) = match self {
            Self::Text => ("function", format!("\"{said}\\n\"")),
            Self::Node => ("function", format!("\"{time}\\t{ID}\\tINFO\\t{said}\\n\"")),
            Self::Python => ("function", format!("\"[WARNING]\\t{time}\\t{ID}\\t{said}\\n\"")),
            Self::Object => (
                "function",
                format!(
                    "{{\"timestamp\":\"{time}\",\"level\":\"INFO\",\"requestId\":\"{ID}\",\"message\":\"{said}\",\
                     \"service\":\"orders\",\"cold_start\":false,\"duration_ms\":{},\"user\":{{\"id\":{},\"plan\":\"free\"}}}}",
                    random.u32(..5000),
                    random.u32(..),
                ),
            ),
            Self::Platform => match number % 3 {
                0 => ("platform.start", format!("{{\"requestId\":\"{ID}\",\"version\":\"$LATEST\"}}")),
                1 => (
                    "platform.runtimeDone",
                    format!(
                        "{{\"requestId\":\"{ID}\",\"status\":\"success\",\"metrics\":{{\"durationMs\":{}.5,\"producedBytes\":34}}}}",
                        random.u32(..3000)
                    ),
                ),
                _ => (
                    "platform.report",
                    format!(
                        "{{\"requestId\":\"{ID}\",\"status\":\"success\",\"metrics\":{{\"durationMs\":12.5,\
                         \"billedDurationMs\":13,\"memorySizeMB\":256,\"maxMemoryUsedMB\":{}}}}}",
                        random.u32(50..256)
                    ),
                ),
            },
        };
        format!("{{\"time\":\"{time}\",\"type\":\"{kind}\",\"record\":{record}}}")
    }
}

/// So many words, some with a number: what shrinks as logs do.
pub(crate) fn said(number: usize, words: usize, random: &mut fastrand::Rng) -> String {
    let mut said = format!("{number}");
    for _ in 0..words {
        said.push(' ');
        said.push_str(WORDS[random.usize(..WORDS.len())]);
        if random.u8(..) < 64 {
            said.push('=');
            said.push_str(&random.u32(..100_000).to_string());
        }
    }
    said
}

/// The body of a delivery of `records` events.
pub(crate) fn delivery(form: Form, records: usize, words: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let events: Vec<_> = (0..records).map(|number| form.event(number, words, &mut random)).collect();
    format!("[{}]", events.join(",")).into_bytes()
}

/// The body of a delivery that has all of an invocation: its start, so many lines of Node's, its end and its report.
pub(crate) fn invocation(lines: usize, words: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut events: Vec<_> = (0..lines).map(|number| Form::Node.event(number, words, &mut random)).collect();
    events.insert(0, Form::Platform.event(0, words, &mut random));
    events.extend((1..3).map(|number| Form::Platform.event(number, words, &mut random)));
    format!("[{}]", events.join(",")).into_bytes()
}

/// What the telemetry is about.
pub(crate) fn resource() -> Resource {
    Resource::build(&ResourceInputs {
        function_name: Some("tenner-notifier"),
        function_version: Some("$LATEST"),
        region: Some("eu-central-1"),
        memory_mb: Some(256),
        instance_id: Some("2026/10/08/tenner-notifier[$LATEST]22be53a8cfde4e68b844f8ec293b2543"),
        invoked_function_arn: Some("arn:aws:lambda:eu-central-1:123456789012:function:tenner-notifier"),
        ..ResourceInputs::default()
    })
}

/// The log records of a delivery, one after another.
pub(crate) fn each_record(body: &[u8], mut take: impl FnMut(&LogRecord<'_>)) -> u32 {
    let Split::Events(events) = split(body) else { panic!("an array of events") };
    let mut count = 0;
    for raw in events {
        let event = Event::parse(raw);
        let record = LogRecord::from_event(&event, &Context { request_id: Some(ID) }, RECEIVED, "0-1");
        take(&record);
        count += 1;
    }
    count
}

/// A delivery as one plain block, and how many records are in it.
pub(crate) fn plain_block(body: &[u8], wire: &dyn WireFormat, resource: &Resource) -> (Vec<u8>, u32) {
    let mut records = Vec::new();
    let count = each_record(body, |record| wire.log(resource, record, &mut records));
    let mut plain = Vec::with_capacity(records.len() + 1024);
    wire.block_head(Signal::Logs, resource, records.len(), &mut plain);
    plain.extend_from_slice(&records);
    (plain, count)
}

/// A block of logs for the queue.
pub(crate) fn block(plain: &[u8], records: u32, wire: &dyn WireFormat, deflater: &mut Deflater) -> NewBlock {
    NewBlock {
        kind: Kind::Block { joins: None },
        signal: Signal::Logs,
        format: wire.id(),
        events_end: records,
        records,
        plain_len: u32::try_from(plain.len()).unwrap(),
        plain_crc: crc32fast::hash(plain),
        times: (RECEIVED, RECEIVED),
        severity: 0,
        payload: deflater.deflate(plain).unwrap(),
    }
}

/// A block whose payload has `bytes` bytes on disk, or a few more.
pub(crate) fn noise(bytes: usize, wire: &dyn WireFormat) -> NewBlock {
    let mut random = fastrand::Rng::with_seed(3);
    let plain: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
    block(&plain, 1, wire, &mut Deflater::default())
}

/// The delivery numbered `number`.
pub(crate) fn batch(number: u128, blocks: Vec<NewBlock>) -> Batch {
    Batch { delivery: number, received: RECEIVED, parts_before: 0, blocks }
}

/// The queue of `dir`, as a new environment opens it.
pub(crate) fn open(dir: &Path) -> Queue {
    Queue::open(Box::new(RealDisk), dir, Limits::new(QUEUE_MAX_BYTES, Overflow::DropOldest), 77).0
}

// === References ===

/// One deflate of `plain` at the level of the queue.
pub(crate) fn deflate_once(plain: &[u8], room: &mut Vec<u8>) {
    room.clear();
    room.reserve(plain.len() + plain.len() / 8 + 1024);
    let mut compress = Compress::new(Compression::new(1), false);
    compress.compress_vec(plain, room, FlushCompress::Finish).unwrap();
}

/// The least that can be called a durable queue: a file that is appended to, with a length and a checksum before each
/// payload.
pub(crate) struct PlainLog {
    file: File,
    end: u64,
    buffer: Vec<u8>,
}

impl PlainLog {
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).truncate(true).write(true).read(true).open(path).unwrap();
        Self { file, end: 0, buffer: Vec::new() }
    }

    pub(crate) fn append(&mut self, payload: &[u8]) {
        self.buffer.clear();
        self.buffer.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        self.buffer.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        self.buffer.extend_from_slice(payload);
        self.file.write_all(&self.buffer).unwrap();
        self.end += self.buffer.len() as u64;
    }

    /// The last payload, read and checked.
    pub(crate) fn last(&self, len: usize) -> Vec<u8> {
        let mut frame = vec![0; len + 12];
        let start = self.end - frame.len() as u64;
        self.file.read_exact_at(&mut frame, start).unwrap();
        let payload = frame.split_off(12);
        assert_eq!(frame[8..], crc32fast::hash(&payload).to_le_bytes());
        payload
    }

    /// Begins anew, once the file has become as long as the budget of a queue.
    pub(crate) fn bound(&mut self) {
        if self.end > QUEUE_MAX_BYTES {
            self.file.set_len(0).unwrap();
            std::io::Seek::rewind(&mut self.file).unwrap();
            self.end = 0;
        }
    }
}

/// The records of a delivery as the types that `prost` generates, encoded: what an extension on `opentelemetry-proto`
/// does after parsing.
pub(crate) fn with_prost(body: &[u8], resource: &Resource) -> Vec<u8> {
    let mut log_records = Vec::new();
    each_record(body, |record| log_records.push(proto_record(record)));
    let resource = ProtoResource { attributes: fields(&resource.attributes), ..ProtoResource::default() };
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs =
        vec![ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn proto_record(record: &LogRecord<'_>) -> ProtoRecord {
    ProtoRecord {
        time_unix_nano: record.time_unix_nanos,
        observed_time_unix_nano: record.observed_unix_nanos,
        severity_number: i32::from(record.severity.number >= severity::WARN),
        event_name: record.event_name.as_deref().unwrap_or_default().to_owned(),
        body: Some(any(&record.body)),
        attributes: fields(&record.attributes),
        trace_id: record.trace_id.map(|id| id.to_vec()).unwrap_or_default(),
        span_id: record.span_id.map(|id| id.to_vec()).unwrap_or_default(),
        flags: record.trace_flags,
        ..ProtoRecord::default()
    }
}

fn fields(fields: &[Field<'_>]) -> Vec<KeyValue> {
    let field = |(key, value): &Field<'_>| KeyValue {
        key: key.to_string(),
        value: Some(any(value)),
        ..KeyValue::default()
    };
    fields.iter().map(field).collect()
}

fn any(value: &Value<'_>) -> AnyValue {
    use any_value::Value as Any;
    let value = match value {
        Value::Empty => None,
        Value::Bool(value) => Some(Any::BoolValue(*value)),
        Value::Int(value) => Some(Any::IntValue(*value)),
        Value::Double(value) => Some(Any::DoubleValue(*value)),
        Value::Str(text) => Some(Any::StringValue(text.to_string())),
        Value::Array(items) => Some(Any::ArrayValue(ArrayValue { values: items.iter().map(any).collect() })),
        Value::Map(members) => Some(Any::KvlistValue(KeyValueList { values: fields(members) })),
    };
    AnyValue { value }
}
