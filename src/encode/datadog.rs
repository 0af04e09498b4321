//! The logs intake of Datadog, version 2 ("Send logs": <https://docs.datadoghq.com/api/latest/logs/#send-logs>): an array
//! of objects. Metrics go to an API of their own (`datadog/series.rs`).
//!
//! Names are those that Datadog reads by itself: `message`, `status`, `service`, `hostname`, `ddsource`, `ddtags`,
//! `timestamp`, `lambda.arn`, `lambda.request_id`. What a function logs beside its message becomes attributes of the log,
//! under its own names unless one of these is meant.

use std::ops::Range;

use super::lines::{COMMA, Lines};
use super::{Framing, Limits, Parts, SplitError, WireFormat, json};
use crate::Signal;
use crate::observe::Metric;
use crate::record::log::INVOCATION_ID;
use crate::record::{Field, LogRecord, Resource, severity};

mod series;

const DATADOG_ID: u8 = 8;
const INTAKE: &str = "/api/v2/logs";
/// What the host of the logs intake has before the site, and that of the API for metrics.
const INTAKE_HOST: &str = "http-intake.logs.";
const API_HOST: &str = "api.";

/// "Maximum content size per payload (uncompressed): 5MB", less the framing.
const BODY_MAX_BYTES: usize = 4_900_000;
/// "Maximum array size if sending multiple logs in an array: 1000 entries".
const RECORDS_MAX: u32 = 1000;
/// "Maximum size for a single log: 1MB"; Datadog cuts a longer one anywhere, attributes included.
/// Counted as it is written, escapes included.
const MESSAGE_MAX_BYTES: usize = 900_000;

/// Names that Datadog reads in its own way.
const RESERVED: [&str; 13] = [
    "message",
    "status",
    "service",
    "host",
    "hostname",
    "ddsource",
    "ddtags",
    "timestamp",
    "date",
    "lambda",
    "trace_id",
    "span_id",
    "event_name",
];

/// Tags, by the attributes of the resource they are made of: the names that Datadog's own integrations use. All other
/// attributes become tags under their own names.
const TAGS: [(&str, &str); 7] = [
    ("env", "deployment.environment.name"),
    ("env", "deployment.environment"),
    ("version", "service.version"),
    ("functionname", "faas.name"),
    ("executedversion", "faas.version"),
    ("region", "cloud.region"),
    ("account_id", "cloud.account.id"),
];
/// What is said elsewhere in the object.
const NO_TAGS: [&str; 2] = ["service.name", "cloud.resource_id"];

/// The logs intake and the API for metrics.
#[derive(Debug, Default)]
pub struct Datadog {
    totals: series::Totals,
}

impl WireFormat for Datadog {
    fn id(&self) -> u8 {
        DATADOG_ID
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn path(&self, signal: Signal, given: &str) -> String {
        match (signal, given) {
            (Signal::Metrics, _) => {
                format!("{}{}", given.strip_suffix(INTAKE).unwrap_or(given), series::PATH)
            }
            (_, "") => INTAKE.to_owned(),
            _ => given.to_owned(),
        }
    }

    fn host(&self, signal: Signal, given: &str) -> Option<String> {
        let site = given.strip_prefix(INTAKE_HOST).filter(|_| signal == Signal::Metrics)?;
        Some(format!("{API_HOST}{site}"))
    }

    fn limits(&self, signal: Signal) -> Limits {
        match signal {
            Signal::Metrics => series::LIMITS,
            _ => Limits { body_bytes: BODY_MAX_BYTES, records: RECORDS_MAX },
        }
    }

    fn framing(&self, signal: Signal) -> Framing {
        match signal {
            Signal::Metrics => series::FRAMING,
            _ => Framing { prefix: b"[", separator: COMMA, suffix: b"]" },
        }
    }

    fn takes(&self, signal: Signal) -> bool {
        signal != Signal::Traces
    }

    fn metric(&self, resource: &Resource, metric: &Metric<'_>, out: &mut Vec<u8>) {
        series::metric(&self.totals, resource, metric, out);
    }

    fn separator(&self) -> &'static [u8] {
        COMMA
    }

    fn block_head(&self, _: Signal, _: &Resource, _: usize, _: &mut Vec<u8>) {}

    fn log(&self, resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        let text = json::body_text(record);
        let (message, left_out_bytes) = json::cut_escaped(&text, MESSAGE_MAX_BYTES);
        json::object(out, |log| {
            log.text("message", message);
            log.text("ddsource", "lambda");
            log.member("ddtags", |out| json::string(&tags(resource).join(","), out));
            log.some_text("service", json::resource_text(resource, "service.name"));
            log.some_text("hostname", json::resource_text(resource, "cloud.resource_id"));
            log.text("status", status(record.severity.number));
            log.number("timestamp", json::millis(record.time_unix_nanos));
            log.object("lambda", |lambda| {
                lambda.some_text("arn", json::resource_text(resource, "cloud.resource_id"));
                lambda.some_text("request_id", json::record_text(record, INVOCATION_ID));
            });
            log.some_text("event_name", record.event_name.as_deref().unwrap_or_default());
            log.id("trace_id", record.trace_id.as_ref().map(AsRef::as_ref));
            log.id("span_id", record.span_id.as_ref().map(AsRef::as_ref));
            let (renamed, own): (Vec<_>, Vec<_>) =
                record.attributes.iter().partition(|(name, _)| is_renamed(name));
            for (name, value) in own {
                log.value(name, value);
            }
            if !renamed.is_empty() || left_out_bytes > 0 {
                log.object("outlast", |object| {
                    if left_out_bytes > 0 {
                        object.number("bytes_left_out", left_out_bytes as u64);
                    }
                    object.object("attributes", |object| {
                        for (name, value) in renamed {
                            object.value(name, value);
                        }
                    });
                });
            }
        });
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        Lines::LIST.parts(plain)
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        Lines::LIST.subset(plain, parts, records)
    }
}

/// Whether an attribute would be taken for something else under its own name.
fn is_renamed(name: &str) -> bool {
    RESERVED.contains(&name) || name == "outlast"
}

/// The status Datadog's facets know.
const fn status(number: u8) -> &'static str {
    match number {
        severity::FATAL.. => "critical",
        severity::ERROR.. => "error",
        severity::WARN.. => "warn",
        severity::NOTICE.. => "notice",
        // Also where nothing is known: it is what Datadog assumes.
        0 | severity::INFO => "info",
        severity::DEBUG.. => "debug",
        _ => "trace",
    }
}

/// Attributes of the resource, each as `name:value`.
fn tags(resource: &Resource) -> Vec<String> {
    let told = resource.attributes.iter().filter(|(name, _)| !NO_TAGS.contains(&name.as_ref()));
    told.map(tag).collect()
}

fn tag((attribute, value): &Field<'_>) -> String {
    let name = TAGS.iter().find(|(_, known)| known == attribute).map_or(attribute.as_ref(), |(tag, _)| tag);
    // A comma would end the tag.
    let value = json::plain_text(value).replace(',', "_");
    format!("{}:{value}", name.replace([',', ':'], "_"))
}
