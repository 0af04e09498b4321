//! What a platform record says, whichever form it has: an object of the Telemetry API, or a line of the older Logs API.
//!
//! Field names are those of the Lambda developer guide, "Telemetry API Event schema reference".

use std::borrow::Cow;

use crate::record::event::{Status, request_id};
use crate::record::time;
use crate::record::trace_context::{SpanId, XRayHeader};
use crate::record::{Value, identifier};

/// Parts of an invocation that one record may name. Lambda names three; more are not worth remembering.
const PARTS_MAX: usize = 16;
/// Nanoseconds in a millisecond.
const MILLI_NANOS: f64 = 1e6;
/// Lambda's megabyte, in bytes.
const MEGABYTE_BYTES: f64 = 1_048_576.0;

/// A platform record, as far as metrics and spans are made of it.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    pub(super) request_id: Option<Cow<'a, str>>,
    pub(super) status: Option<Status>,
    pub(super) error_type: Option<Cow<'a, str>>,
    pub(super) tracing: Option<XRayHeader>,
    /// `tracing.spanId`
    pub(super) span_id: Option<SpanId>,
    /// `tenantId`
    pub(super) tenant: Option<Cow<'a, str>>,
    /// `functionArn`
    pub(super) function_arn: Option<Cow<'a, str>>,
    /// `initializationType`
    pub(super) initialization_type: Option<Cow<'a, str>>,
    /// `phase`
    pub(super) phase: Option<Cow<'a, str>>,
    /// `instanceId`
    pub(super) instance_id: Option<Cow<'a, str>>,
    /// `spans`
    pub(super) parts: Vec<Part>,
    pub(super) measured: Measured,
}

/// An element of `spans`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) start_unix_nanos: u64,
    pub(super) duration_nanos: u64,
}

impl Part {
    pub(super) fn end_unix_nanos(&self) -> u64 {
        self.start_unix_nanos.saturating_add(self.duration_nanos)
    }

    #[expect(clippy::cast_precision_loss, reason = "durations are far below 2^53 ns")]
    pub(super) fn seconds(&self) -> f64 {
        self.duration_nanos as f64 / 1e9
    }
}

/// `metrics`, in seconds and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Measured {
    pub(super) duration_s: Option<f64>,
    pub(super) billed_s: Option<f64>,
    pub(super) init_s: Option<f64>,
    pub(super) restore_s: Option<f64>,
    pub(super) billed_restore_s: Option<f64>,
    pub(super) memory_size_bytes: Option<f64>,
    pub(super) max_memory_used_bytes: Option<f64>,
    pub(super) produced_bytes: Option<f64>,
}

impl<'a> Told<'a> {
    /// Reads the `record` of a platform event.
    pub(super) fn read(record: &'a Value<'a>) -> Self {
        let request_id = request_id(record);
        let status = Status::of(record);
        if let Value::Str(line) = record {
            let column = |name: &str| column(line, name);
            return Self {
                request_id,
                status,
                error_type: column("Error Type").map(Cow::Borrowed),
                measured: Measured::of_line(line),
                ..Self::default()
            };
        }
        let text = |name: &str| match record.get(name) {
            Some(Value::Str(text)) if !text.is_empty() => Some(Cow::Borrowed(text.as_ref())),
            _ => None,
        };
        let tracing = record.get("tracing");
        let of_tracing = |name: &str| tracing.and_then(|tracing| tracing.get(name)).and_then(Value::as_str);
        Self {
            request_id,
            status,
            error_type: text("errorType"),
            tracing: of_tracing("value").map(XRayHeader::parse),
            span_id: of_tracing("spanId").and_then(identifier),
            tenant: text("tenantId"),
            function_arn: text("functionArn"),
            initialization_type: text("initializationType"),
            phase: text("phase"),
            instance_id: text("instanceId"),
            parts: parts(record.get("spans")),
            measured: record.get("metrics").map(Measured::of_object).unwrap_or_default(),
        }
    }

    /// The part of this name.
    pub(super) fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }
}

fn parts(spans: Option<&Value<'_>>) -> Vec<Part> {
    let Some(Value::Array(spans)) = spans else { return Vec::new() };
    let part = |span: &Value<'_>| {
        Some(Part {
            name: span.get("name")?.as_str().filter(|name| !name.is_empty())?.to_owned(),
            start_unix_nanos: span.get("start")?.as_str().and_then(time::rfc3339)?,
            duration_nanos: nanos(span.get("durationMs")?.as_f64()?)?,
        })
    };
    spans.iter().filter_map(part).take(PARTS_MAX).collect()
}

/// Milliseconds as nanoseconds; `None` if they are negative or no number.
#[expect(clippy::cast_sign_loss, reason = "not negative")]
pub(super) fn nanos(millis: f64) -> Option<u64> {
    (millis >= 0.0 && millis.is_finite()).then(|| (millis * MILLI_NANOS).round() as u64)
}

impl Measured {
    fn of_object(metrics: &Value<'_>) -> Self {
        let number = |name: &str| metrics.get(name).and_then(Value::as_f64);
        let seconds = |name: &str| number(name).map(|ms| ms / 1e3);
        let megabytes = |name: &str| number(name).map(|mb| mb * MEGABYTE_BYTES);
        Self {
            duration_s: seconds("durationMs"),
            billed_s: seconds("billedDurationMs"),
            init_s: seconds("initDurationMs"),
            restore_s: seconds("restoreDurationMs"),
            billed_restore_s: seconds("billedRestoreDurationMs"),
            memory_size_bytes: megabytes("memorySizeMB"),
            max_memory_used_bytes: megabytes("maxMemoryUsedMB"),
            produced_bytes: number("producedBytes"),
        }
    }

    /// Of a line `REPORT RequestId: …⇥Duration: 25.30 ms⇥Billed Duration: 100 ms⇥…` (Lambda developer guide, "Viewing
    /// logs").
    fn of_line(line: &str) -> Self {
        let number = |name: &str, unit: &str| -> Option<f64> {
            column(line, name)?.strip_suffix(unit)?.trim_end().parse().ok()
        };
        let seconds = |name: &str| number(name, "ms").map(|ms| ms / 1e3);
        let megabytes = |name: &str| number(name, "MB").map(|mb| mb * MEGABYTE_BYTES);
        Self {
            duration_s: seconds("Duration"),
            billed_s: seconds("Billed Duration"),
            init_s: seconds("Init Duration"),
            restore_s: seconds("Restore Duration"),
            billed_restore_s: seconds("Billed Restore Duration"),
            memory_size_bytes: megabytes("Memory Size"),
            max_memory_used_bytes: megabytes("Max Memory Used"),
            produced_bytes: None,
        }
    }
}

/// What stands after `name: ` in a line of columns set apart by tabs.
fn column<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.split('\t').find_map(|column| column.strip_prefix(name)?.strip_prefix(": "))?;
    Some(value.trim()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_the_same_as_an_object() {
        let line = Value::Str(
            "REPORT RequestId: 7b317588-2cdc-4bef-ac04-92e83cc8f418\tDuration: 25.50 ms\tBilled Duration: 100 ms\tMemory Size: 128 MB\tMax Memory Used: 74 MB\tInit Duration: 202.00 ms\tStatus: timeout\tError Type: Runtime.ExitError\n".into(),
        );
        let object = Value::parse(
            br#"{"requestId":"7b317588-2cdc-4bef-ac04-92e83cc8f418","status":"timeout","errorType":"Runtime.ExitError",
                "metrics":{"durationMs":25.5,"billedDurationMs":100,"memorySizeMB":128,"maxMemoryUsedMB":74,"initDurationMs":202}}"#,
        )
        .unwrap();
        let (line, object) = (Told::read(&line), Told::read(&object));
        assert_eq!(line.measured, object.measured);
        assert_eq!(line.measured.max_memory_used_bytes, Some(77_594_624.0));
        assert_eq!((line.request_id, line.status), (object.request_id, object.status));
        assert_eq!(line.error_type, object.error_type);
    }

    #[test]
    fn records_of_the_wrong_shape_say_nothing() {
        for record in [
            "null",
            "7",
            "[]",
            r#""""#,
            r#"{"requestId":7,"spans":{},"metrics":[],"tracing":"x","status":[]}"#,
            r#"{"spans":[7,{},{"name":"","start":"now","durationMs":-1},{"name":"x","start":"2022-10-21T14:05:03.165Z","durationMs":-1}]}"#,
        ] {
            let record = Value::parse(record.as_bytes()).unwrap();
            let told = Told::read(&record);
            assert!(told.request_id.is_none() && told.parts.is_empty() && told.tracing.is_none());
            assert_eq!(told.measured, Measured::default());
        }
    }
}
