//! The HTTP Event Collector of Splunk ("Format events for HTTP Event Collector":
//! <https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector>).
//!
//! A batch is one event object after another, without an array around them. The body keeps its shape in `event`, so that
//! Splunk finds the fields of what is JSON by itself. Everything else is in `fields`, which are indexed and must be flat:
//! their values are text here.

use std::ops::Range;

use super::lines::Lines;
use super::{Framing, Limits, Parts, SplitError, WireFormat, json};
use crate::Signal;
use crate::record::{LogRecord, Resource, Value};

const SPLUNK_HEC_ID: u8 = 7;
const EVENT: &str = "/services/collector/event";

/// Splunk Cloud Platform takes requests of 1 MB ("Splunk Cloud Platform Service Details", "HEC maximum content length");
/// Splunk Enterprise takes far larger ones.
const BODY_MAX_BYTES: usize = 980_000;

/// What `props.conf` of the receiver can name these events by.
const SOURCE_TYPE: &str = "aws:lambda";

/// The HTTP Event Collector.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplunkHec;

impl WireFormat for SplunkHec {
    fn id(&self) -> u8 {
        SPLUNK_HEC_ID
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn path(&self, _: Signal, given: &str) -> String {
        if given.is_empty() { EVENT.to_owned() } else { given.to_owned() }
    }

    fn limits(&self, _: Signal) -> Limits {
        Limits { body_bytes: BODY_MAX_BYTES, ..Limits::NONE }
    }

    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"", separator: b"", suffix: b"" }
    }

    fn block_head(&self, _: Signal, _: &Resource, _: usize, _: &mut Vec<u8>) {}

    fn log(&self, resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        let function = json::resource_text(resource, "faas.name");
        json::object(out, |event| {
            event.member("time", |out| json::seconds(record.time_unix_nanos, out));
            event.some_text("host", function);
            if !function.is_empty() {
                event.text("source", &format!("lambda:{function}"));
            }
            event.text("sourcetype", SOURCE_TYPE);
            match &record.body {
                // An event may be neither absent nor blank (codes 12 and 13).
                Value::Empty => event.object("event", |blank| blank.value("message", &Value::Empty)),
                Value::Str(text) if text.trim().is_empty() => {
                    event.object("event", |blank| blank.text("message", text));
                }
                body => event.value("event", body),
            }
            event.object("fields", |fields| {
                fields.some_text("severity", &record.severity.text);
                if record.severity.number != 0 {
                    fields.text("severity_number", &record.severity.number.to_string());
                }
                fields.some_text("event_name", record.event_name.as_deref().unwrap_or_default());
                fields.id("trace_id", record.trace_id.as_ref().map(AsRef::as_ref));
                fields.id("span_id", record.span_id.as_ref().map(AsRef::as_ref));
                let mut taken = taken(record);
                for (name, value) in record.attributes.iter().chain(&resource.attributes) {
                    let text = json::plain_text(value);
                    if !text.is_empty() && !taken.contains(&name.as_ref()) {
                        taken.push(name);
                        fields.text(name, &text);
                    }
                }
            });
        });
        out.push(b'\n');
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        Lines::STREAM.parts(plain)
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        Lines::STREAM.subset(plain, parts, records)
    }
}

/// Names of fields that are ours in what becomes of `record`: only if there is something to say is it said.
fn taken<'n>(record: &LogRecord<'_>) -> Vec<&'n str> {
    let said = [
        ("severity", !record.severity.text.is_empty()),
        ("severity_number", record.severity.number != 0),
        ("event_name", record.event_name.as_deref().is_some_and(|name| !name.is_empty())),
        ("trace_id", record.trace_id.is_some()),
        ("span_id", record.span_id.is_some()),
    ];
    said.into_iter().filter(|(_, is_said)| *is_said).map(|(name, _)| name).collect()
}
