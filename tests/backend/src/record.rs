//! One record as the wire said it: a log record, one data point of a metric, or one span.
//!
//! The three signals share a shape so that a test can count, compare and search them alike. Values are
//! JSON: text, numbers, booleans, arrays and objects map to themselves, bytes to lower-case hexadecimal.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Attributes by key, in the order of the keys.
pub type Attributes = Map<String, Value>;

/// The three OTLP signals this backend takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// `/v1/logs`
    Logs,
    /// `/v1/metrics`
    Metrics,
    /// `/v1/traces`
    Traces,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Metrics, Self::Traces];

    /// The default OTLP/HTTP path (OTLP specification, "OTLP/HTTP Request").
    pub fn path(self) -> &'static str {
        match self {
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
            Self::Traces => "/v1/traces",
        }
    }

    /// The signal a request path names; a query string is ignored.
    pub fn of_path(path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or_default();
        Self::ALL.into_iter().find(|signal| signal.path() == path)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        })
    }
}

/// How much of each accepted record is remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// Everything.
    #[default]
    Everything,
    /// Signal, request, text and uid: enough to find what was lost, repeated or misordered.
    Texts,
    /// Counts only; [`Received::records`](crate::Received::records) stays empty.
    Counts,
}

/// A record that the backend accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Which signal it came by.
    pub signal: Signal,
    /// The number of the request that brought it ([`Request::number`](crate::Request)).
    pub request: u64,
    /// The log body as text (JSON where it is not a string), the metric's name, or the span's name.
    pub text: String,
    /// The log body; for a data point its kind, value and unit; for a span its kind, status, events, links.
    pub body: Value,
    /// Attributes of the record itself.
    pub attributes: Attributes,
    /// Attributes of its resource, shared by all records below it.
    #[serde(serialize_with = "shared")]
    pub resource: Arc<Attributes>,
    /// Name of its instrumentation scope.
    #[serde(serialize_with = "shared")]
    pub scope: Arc<str>,
    /// Event time, data point time or end of the span: nanoseconds since 1970; 0 means unknown.
    pub time_unix_nano: u64,
    /// Observed time of a log record, start of a data point or span: nanoseconds since 1970; 0 means unknown.
    pub other_time_unix_nano: u64,
    /// OTLP severity, 1 to 24; 0 means unknown. Logs only.
    pub severity_number: i32,
    /// Severity as the source wrote it. Logs only.
    pub severity_text: String,
    /// 32 hexadecimal digits, or empty.
    pub trace_id: String,
    /// 16 hexadecimal digits, or empty.
    pub span_id: String,
    /// The `event_name` of a log record.
    pub event_name: String,
    /// The attribute `log.record.uid`: what tells a repeat from a second record with the same text.
    pub uid: Option<String>,
}

impl Record {
    /// The attribute of the OpenTelemetry semantic conventions that identifies a log record.
    pub const UID: &str = "log.record.uid";

    pub(crate) fn reduce(&mut self, keep: Keep) {
        if keep != Keep::Everything {
            self.body = Value::Null;
            self.attributes = Attributes::new();
            self.resource = Arc::default();
            self.severity_text = String::new();
        }
    }

    /// An attribute of the record or, failing that, of its resource.
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        self.attributes.get(key).or_else(|| self.resource.get(key))
    }
}

/// Serializes what an `Arc` holds (serde's own way, the feature `rc`, would be switched on for everyone).
fn shared<T: Serialize + ?Sized, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}
