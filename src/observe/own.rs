//! What the extension measures of itself: every `outlast.*` metric, and the attributes of their points.
//!
//! The conventions have no names for these. `docs/signals.md` tells how each comes about, and why deltas are right.

use super::instrument::{Instrument, Kind, OVERHEAD_BOUNDS_S};
use super::points::Points;
use crate::record::{Field, Value};

/// The signal of the records that a point counts.
pub const SIGNAL: &str = "outlast.signal";
/// Why records were dropped, as in drop reports.
pub const REASON: &str = "outlast.dropped.reason";
/// How requests ended.
pub const RESULT: &str = "outlast.request.result";
/// Where requests went: `backend` or `fallback`.
pub const TARGET: &str = "outlast.request.target";

/// From what a healthy backend takes to the longest outage that an environment outlives, in seconds.
const DELAY_BOUNDS_S: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0];

const fn own(name: &'static str, unit: &'static str, kind: Kind, description: &'static str) -> Instrument {
    Instrument { name, unit, description, kind }
}

/// Records taken in.
pub static RECEIVED: Instrument =
    own("outlast.received", "{record}", Kind::Counter, "Records taken in and kept.");
/// Records that the backend has.
pub static DELIVERED: Instrument =
    own("outlast.delivered", "{record}", Kind::Counter, "Records that the backend took.");
/// Records that the fallback has.
pub static HANDED_OVER: Instrument =
    own("outlast.handed_over", "{record}", Kind::Counter, "Records that the fallback took.");
/// Records given up.
pub static DROPPED: Instrument = own("outlast.dropped", "{record}", Kind::Counter, "Records given up.");
/// Records that Lambda dropped before they came.
pub static LOST_RECORDS: Instrument = own(
    "outlast.lambda.dropped_records",
    "{record}",
    Kind::Counter,
    "Records that Lambda dropped before the extension got them.",
);
/// Their bytes.
pub static LOST_BYTES: Instrument = own(
    "outlast.lambda.dropped_bytes",
    "By",
    Kind::Counter,
    "Bytes that Lambda dropped before the extension got them.",
);
/// Requests, by how they ended.
pub static REQUESTS: Instrument =
    own("outlast.requests", "{request}", Kind::Counter, "Requests, by how they ended.");
/// Requests that followed a failure.
pub static RETRIES: Instrument = own(
    "outlast.retries",
    "{request}",
    Kind::Counter,
    "Requests that followed one of the same signal which failed.",
);
/// How long requests took.
pub static SEND_DURATION: Instrument = own(
    "outlast.send_duration",
    "s",
    Kind::Histogram(OVERHEAD_BOUNDS_S),
    "Time from the start of a request to its answer, freezes not counted.",
);
/// How late telemetry arrived.
pub static FLUSH_DURATION: Instrument = own(
    "outlast.flush_duration",
    "s",
    Kind::Histogram(DELAY_BOUNDS_S),
    "Time from the receipt of the oldest record of a request until the request was delivered.",
);
/// How long invocations were held.
pub static HOLD_DURATION: Instrument = own(
    "outlast.hold_duration",
    "s",
    Kind::Histogram(OVERHEAD_BOUNDS_S),
    "Time that an invocation was held after its function was done.",
);
/// Bytes on disk.
pub static QUEUE_BYTES: Instrument =
    own("outlast.queue.bytes", "By", Kind::Gauge, "What the queue occupies on disk.");
/// Records that wait.
pub static QUEUE_RECORDS: Instrument =
    own("outlast.queue.records", "{record}", Kind::Gauge, "Records that wait.");
/// How long the oldest has waited.
pub static QUEUE_OLDEST_AGE: Instrument =
    own("outlast.queue.oldest_age", "s", Kind::Level, "How long the oldest record that waits has waited.");
/// The circuit breaker.
pub static BREAKER_OPEN: Instrument =
    own("outlast.breaker_open", "1", Kind::Gauge, "1 while the backend gets single probes only, else 0.");
/// Memory stands in for the disk.
pub static DEGRADED: Instrument =
    own("outlast.degraded", "1", Kind::Gauge, "1 while memory stands in for the disk, else 0.");

impl Points {
    /// Takes in a measurement of our own, made at `time` (Unix nanoseconds).
    pub fn measure_own(
        &mut self,
        instrument: &'static Instrument,
        time: u64,
        value: f64,
        labels: &[(&'static str, &'static str)],
    ) {
        let labels: Vec<Field<'static>> =
            labels.iter().map(|(name, value)| ((*name).into(), Value::Str((*value).into()))).collect();
        self.add(instrument, time, value, &labels);
    }
}

/// Each of them, for what holds for all.
#[cfg(test)]
pub(super) const ALL: [&Instrument; 16] = [
    &RECEIVED,
    &DELIVERED,
    &HANDED_OVER,
    &DROPPED,
    &LOST_RECORDS,
    &LOST_BYTES,
    &REQUESTS,
    &RETRIES,
    &SEND_DURATION,
    &FLUSH_DURATION,
    &HOLD_DURATION,
    &QUEUE_BYTES,
    &QUEUE_RECORDS,
    &QUEUE_OLDEST_AGE,
    &BREAKER_OPEN,
    &DEGRADED,
];
