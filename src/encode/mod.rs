//! From log records, data points and spans to the bytes a destination takes: one file per wire format.
//!
//! A *block* is a run of records of one signal, encoded once, before the queue, in the form in which it will
//! be sent: a head (what stands before the records), the records one after another, nothing after them.
//! Blocks are put together to request bodies by [`Framing`] alone, so that sending never decodes, encodes or
//! compresses. Only a body the destination refuses is ever taken apart, at the bounds of its records
//! ([`WireFormat::parts`], [`WireFormat::subset`]).

use std::ops::Range;

use crate::Signal;
use crate::observe::{Metric, Span};
use crate::record::{LogRecord, Resource};

mod datadog;
mod elasticsearch;
mod json;
mod json_array;
mod lines;
mod loki;
mod ndjson;
mod newrelic;
pub mod otlp;
mod otlp_json;
mod protobuf;
mod protocol;
mod splunk_hec;

pub use datadog::Datadog;
pub use elasticsearch::Elasticsearch;
pub use json::json_text;
pub use json_array::Json;
pub use loki::Loki;
pub use ndjson::Ndjson;
pub use newrelic::NewRelic;
pub use otlp::Otlp;
pub use otlp_json::OtlpJson;
pub use protocol::Protocol;
pub use splunk_hec::SplunkHec;

/// What stands before, between and after the blocks of one request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Before the first block.
    pub prefix: &'static [u8],
    /// Between two blocks.
    pub separator: &'static [u8],
    /// After the last block.
    pub suffix: &'static [u8],
}

/// What a destination takes in one request, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Plain bytes of the body.
    pub body_bytes: usize,
    /// Records.
    pub records: u32,
}

impl Limits {
    /// No limit that is known beforehand.
    pub const NONE: Self = Self { body_bytes: usize::MAX, records: u32::MAX };
}

/// Where the records of a block are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What stands before the first record.
    pub head: Range<usize>,
    /// Each record, in order, with whatever delimits it.
    pub records: Vec<Range<usize>>,
}

/// Why a block cannot be taken apart. What is in the queue was checked before, so there each of these means damage or
/// another format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The bytes end in the middle of something.
    #[error("the block ends in the middle of a field, at byte {0}")]
    Truncated(usize),
    /// Something stands where the format has something else.
    #[error("the block has an unexpected field at byte {0}")]
    Unexpected(usize),
}

/// The wire format of a destination.
pub trait WireFormat: Send + Sync {
    /// The number stored with every block. Never changed, never given to another format.
    fn id(&self) -> u8;

    /// The media type of a request body.
    fn content_type(&self) -> &'static str;

    /// The path of requests that carry `signal`. `given` is the path of the endpoint without a slash at its end, so it is
    /// empty if there is none.
    fn path(&self, signal: Signal, given: &str) -> String;

    /// A query that the reading of the answer rests on.
    fn query(&self) -> Option<&'static str> {
        None
    }

    /// The host of requests that carry `signal`, if that is another than the one of the endpoint, which is `given`.
    fn host(&self, _signal: Signal, _given: &str) -> Option<String> {
        None
    }

    /// What one request that carries `signal` may hold.
    fn limits(&self, _signal: Signal) -> Limits {
        Limits::NONE
    }

    /// What goes around the blocks of one request body.
    fn framing(&self, signal: Signal) -> Framing;

    /// What stands between two records of a block.
    fn separator(&self) -> &'static [u8] {
        b""
    }

    /// Whether OTLP in protobuf, as the function's SDK sends it, is a block of this format as it is
    /// ([`otlp::received`]).
    fn takes_otlp(&self) -> bool {
        false
    }

    /// Appends what stands before the records of a block. `records_len` is the length in bytes of all of
    /// them, as [`WireFormat::log`] and its sisters appended them, with what separates them.
    fn block_head(&self, signal: Signal, resource: &Resource, records_len: usize, out: &mut Vec<u8>);

    /// Whether the destination takes records of `signal`. What it does not take is not made.
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Logs
    }

    /// Appends one encoded record. `resource` is that of the block: some formats say it with every record.
    fn log(&self, resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>);

    /// Appends one encoded metric, a record of its own. Only called if [`WireFormat::takes`] metrics.
    fn metric(&self, _resource: &Resource, _metric: &Metric<'_>, _out: &mut Vec<u8>) {}

    /// Appends one encoded span. Only called if [`WireFormat::takes`] traces.
    fn span(&self, _span: &Span, _out: &mut Vec<u8>) {}

    /// Finds the records of a block, given its plain bytes.
    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError>;

    /// A block made of some records of another, valid on its own. `parts` is what [`WireFormat::parts`] said
    /// of `plain`; `records` counts records, and what lies beyond the last is ignored.
    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8>;

    /// The same with the records whose places `stays` says, wherever they stand.
    fn pick(&self, plain: &[u8], parts: &Parts, stays: &dyn Fn(usize) -> bool) -> Vec<u8> {
        let mut out = plain.get(parts.head.clone()).unwrap_or_default().to_vec();
        let mut separator: &[u8] = b"";
        for (place, record) in parts.records.iter().enumerate().filter(|(place, _)| stays(*place)) {
            let record = plain.get(record.clone()).unwrap_or_default();
            let is_last = place + 1 == parts.records.len();
            let record =
                if is_last { record } else { record.strip_suffix(self.separator()).unwrap_or(record) };
            out.extend_from_slice(separator);
            out.extend_from_slice(record);
            separator = self.separator();
        }
        out
    }
}

#[cfg(test)]
mod tests;
