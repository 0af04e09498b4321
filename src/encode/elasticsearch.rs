//! The bulk API of Elasticsearch and `OpenSearch` ("Bulk API": <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>).
//!
//! A record is two lines: the action `create` with the record's uid as `_id`, and the document. `create` is what data
//! streams take, and never overwrites: a record that is sent again meets itself, a conflict (409), and counts as
//! delivered. Documents use the names of the Elastic Common Schema where it has one; what a function logs beside its
//! message is below `attributes`.

use std::ops::Range;

use super::lines::Lines;
use super::{Framing, Limits, Parts, SplitError, WireFormat, json};
use crate::Signal;
use crate::record::log::{INVOCATION_ID, UID};
use crate::record::{LogRecord, Resource};

const ELASTICSEARCH_ID: u8 = 5;

/// Where documents go if the endpoint names no index: a data stream by the naming scheme `type-dataset-namespace`, which
/// matches the template for logs that Elasticsearch has built in.
const DATA_STREAM: &str = "/logs-outlast-default";
const BULK: &str = "/_bulk";

/// Of the answer only what is read, which is a tenth of it ("Common options", "Response filtering").
const ANSWER_FILTER: &str = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason";

/// Far below `http.max_content_length` (100 MB) and at the low end of what Elastic recommends (5 to 15 MB): the answer has an
/// entry for each record, and is read as a whole.
const BODY_MAX_BYTES: usize = 5 << 20;

/// Resource attributes that the Elastic Common Schema has under the same names; others become `labels`.
const COMMON: [&str; 3] = ["service.", "faas.", "cloud."];

/// Actions and documents.
const PAIRS: Lines = Lines { per_record: 2, ..Lines::STREAM };

/// The bulk API.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elasticsearch;

impl WireFormat for Elasticsearch {
    fn id(&self) -> u8 {
        ELASTICSEARCH_ID
    }

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn path(&self, _: Signal, given: &str) -> String {
        match given {
            "" => format!("{DATA_STREAM}{BULK}"),
            bulk if bulk.ends_with(BULK) => bulk.to_owned(),
            index => format!("{index}{BULK}"),
        }
    }

    fn query(&self) -> Option<&'static str> {
        Some(ANSWER_FILTER)
    }

    fn limits(&self, _: Signal) -> Limits {
        Limits { body_bytes: BODY_MAX_BYTES, ..Limits::NONE }
    }

    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"", separator: b"", suffix: b"" }
    }

    fn block_head(&self, _: Signal, _: &Resource, _: usize, _: &mut Vec<u8>) {}

    fn log(&self, resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        let uid = json::record_text(record, UID);
        json::object(out, |action| action.object("create", |create| create.some_text("_id", uid)));
        out.push(b'\n');
        json::object(out, |document| {
            document.member("@timestamp", |out| json::rfc3339(record.time_unix_nanos, out));
            document.text("message", &json::body_text(record));
            document.some_text("log.level", &record.severity.text);
            if record.severity.number != 0 {
                document.number("event.severity", record.severity.number.into());
            }
            document.some_text("event.action", record.event_name.as_deref().unwrap_or_default());
            document.some_text("event.id", uid);
            document.member("event.created", |out| json::rfc3339(record.observed_unix_nanos, out));
            document.some_text("faas.execution", json::record_text(record, INVOCATION_ID));
            document.id("trace.id", record.trace_id.as_ref().map(AsRef::as_ref));
            document.id("span.id", record.span_id.as_ref().map(AsRef::as_ref));
            let (common, labels): (Vec<_>, Vec<_>) = resource
                .attributes
                .iter()
                .partition(|(name, _)| COMMON.iter().any(|prefix| name.starts_with(prefix)));
            for (name, value) in common {
                // The one name that both schemas have, for different things.
                document.value(if name == "faas.execution" { "labels.faas_execution" } else { name }, value);
            }
            let mut taken = Vec::with_capacity(labels.len());
            for (name, value) in labels {
                let label = format!("labels.{}", name.replace('.', "_"));
                // A document with a name twice is refused.
                if !taken.contains(&label) {
                    document.text(&label, &json::plain_text(value));
                    taken.push(label);
                }
            }
            if record.attributes.iter().any(|(name, _)| is_left(name)) {
                document.object("attributes", |attributes| {
                    let left = record.attributes.iter().filter(|(name, _)| is_left(name));
                    left.for_each(|(name, value)| attributes.value(name, value));
                });
            }
        });
        out.push(b'\n');
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        PAIRS.parts(plain)
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        PAIRS.subset(plain, parts, records)
    }
}

/// Whether an attribute has no name of its own in the schema.
fn is_left(name: &str) -> bool {
    name != UID && name != INVOCATION_ID
}
