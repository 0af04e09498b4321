//! The push API of Grafana Loki (HTTP API, "Ingest logs", `POST /loki/api/v1/push`:
//! <https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs>), in JSON.
//!
//! ```text
//! {"streams":[ {"stream":{labels},"values":[␊ ["nanoseconds","line",{structured metadata}],␊ … ]} , … ]}
//!  └ prefix ─┘ └──────────── head ─────────┘ └──────────────── records ──────────────────┘└┬┘ └─ suffix
//!                                                                                     separator
//! ```
//! Every label value makes streams of its own, and Loki is slow with many of them. So labels are the service and the
//! function only; everything else is structured metadata, which is text and whose names have underscores for dots, as in
//! Loki's own OTLP intake.

use std::ops::Range;

use super::lines::{COMMA, Lines};
use super::{Framing, Limits, Parts, SplitError, WireFormat, json};
use crate::Signal;
use crate::record::log::UID;
use crate::record::{LogRecord, Resource};

const LOKI_ID: u8 = 6;
const PUSH: &str = "/loki/api/v1/push";

/// `server.grpc_server_max_recv_msg_size` is 4 MiB by default, which a request meets between distributor and ingester.
const BODY_MAX_BYTES: usize = 4 << 20;
/// `limits_config.max_line_size` is 256 KB by default; a longer line is refused. Less than that: it counts metadata too.
const LINE_MAX_BYTES: usize = 255_000;
/// `limits_config.max_structured_metadata_entries_count` is 128 by default; a line with more is refused. Two less, for what
/// says that something is left out.
const METADATA_MAX_ENTRIES: usize = 126;
/// `limits_config.max_structured_metadata_size` is 64 KB by default.
const METADATA_MAX_BYTES: usize = 60_000;

/// Labels, by the attributes of the resource they are made of.
const LABELS: [(&str, &str); 2] = [("service_name", "service.name"), ("faas_name", "faas.name")];
/// A stream needs a label. Loki calls a service so that has no name.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// The push API.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loki;

impl WireFormat for Loki {
    fn id(&self) -> u8 {
        LOKI_ID
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn path(&self, _: Signal, given: &str) -> String {
        if given.is_empty() { PUSH.to_owned() } else { given.to_owned() }
    }

    fn limits(&self, _: Signal) -> Limits {
        Limits { body_bytes: BODY_MAX_BYTES, ..Limits::NONE }
    }

    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"{\"streams\":[", separator: b"]},", suffix: b"]}]}" }
    }

    fn separator(&self) -> &'static [u8] {
        COMMA
    }

    fn block_head(&self, _: Signal, resource: &Resource, _: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"stream\":");
        json::object(out, |labels| {
            for (label, attribute) in LABELS {
                labels.some_text(label, json::resource_text(resource, attribute));
            }
            if LABELS.iter().all(|(_, attribute)| json::resource_text(resource, attribute).is_empty()) {
                labels.text("service_name", UNKNOWN_SERVICE);
            }
        });
        out.extend_from_slice(b",\"values\":[\n");
    }

    fn log(&self, resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        let text = json::body_text(record);
        let (line, left_out_bytes) = json::cut(&text, LINE_MAX_BYTES);
        out.extend_from_slice(b"[\"");
        json::digits(time(record), out);
        out.extend_from_slice(b"\",");
        json::string(line, out);
        out.push(b',');
        json::object(out, |object| {
            let mut metadata = Metadata { object, names: Vec::new(), bytes: 0, left_out: 0 };
            if record.severity.number != 0 {
                metadata.add("severity_number", &record.severity.number.to_string());
            }
            metadata.add("severity_text", &record.severity.text);
            metadata.add("event_name", record.event_name.as_deref().unwrap_or_default());
            metadata.add("trace_id", &json::hex_text(record.trace_id.as_ref().map(AsRef::as_ref)));
            metadata.add("span_id", &json::hex_text(record.span_id.as_ref().map(AsRef::as_ref)));
            metadata.add("observed_timestamp", &record.observed_unix_nanos.to_string());
            let labelled = |name: &str| LABELS.iter().any(|(_, attribute)| *attribute == name);
            let described = resource.attributes.iter().filter(|(name, _)| !labelled(name));
            for (name, value) in record.attributes.iter().take(OWN_ATTRIBUTES).chain(described) {
                metadata.add(name, &json::plain_text(value));
            }
            for (name, value) in record.attributes.iter().skip(OWN_ATTRIBUTES) {
                metadata.add(name, &json::plain_text(value));
            }
            metadata.finish(left_out_bytes);
        });
        out.push(b']');
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        Lines::HEADED_LIST.parts(plain)
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        Lines::HEADED_LIST.subset(plain, parts, records)
    }
}

/// The time of a record, told apart from others of the same millisecond by their places in the delivery.
///
/// Lambda's times are whole milliseconds, and of two lines of a stream with the same time and text Loki keeps one. A record
/// that is sent again has the same place, and so is dropped there.
fn time(record: &LogRecord<'_>) -> u64 {
    const NANOS_PER_MILLI: u64 = 1_000_000;
    let time = record.time_unix_nanos;
    let place =
        json::record_text(record, UID).rsplit_once('-').map(|(_, place)| u64::from_str_radix(place, 16));
    match place {
        Some(Ok(place)) if time.is_multiple_of(NANOS_PER_MILLI) => {
            time.saturating_add(place % NANOS_PER_MILLI)
        }
        _ => time,
    }
}

/// Attributes at the front that are ours (uid, invocation, type): they come first, so that they are never left out.
const OWN_ATTRIBUTES: usize = 3;

/// Structured metadata within Loki's limits.
struct Metadata<'m, 'o> {
    object: &'m mut json::Object<'o>,
    names: Vec<String>,
    bytes: usize,
    left_out: u64,
}

impl Metadata<'_, '_> {
    fn add(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let name = label_name(name);
        let bytes = name.len() + value.len();
        let fits = self.names.len() < METADATA_MAX_ENTRIES && self.bytes + bytes <= METADATA_MAX_BYTES;
        if !fits || self.names.contains(&name) {
            self.left_out += 1;
            return;
        }
        self.object.text(&name, value);
        self.bytes += bytes;
        self.names.push(name);
    }

    /// Says what is missing.
    fn finish(self, left_out_bytes: usize) {
        if self.left_out > 0 {
            self.object.text("outlast_attributes_left_out", &self.left_out.to_string());
        }
        if left_out_bytes > 0 {
            self.object.text("outlast_bytes_left_out", &left_out_bytes.to_string());
        }
    }
}

/// A name as Prometheus has it: letters, digits and underscores, not a digit first.
fn label_name(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let digit = name.starts_with(|c: char| c.is_ascii_digit());
    let start = if digit || name.is_empty() { "_" } else { "" };
    start.chars().chain(name.chars().map(kept)).collect()
}
