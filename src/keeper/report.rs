//! The log record that tells the backend's user what was lost.

use crate::queue::{Reason, Tally};
use crate::record::log::UID;
use crate::record::{LogRecord, Severity, Value};
use std::borrow::Cow;

/// The event name of a drop report.
pub(super) const EVENT_NAME: &str = "outlast.dropped";

/// A report of `tally`, made at `now` (Unix nanoseconds), about what `destination` did not get; `None`: the main one.
pub(super) fn record<'a>(
    tally: Tally,
    destination: Option<&'a str>,
    now: u64,
    uid: &'a str,
) -> LogRecord<'a> {
    let Tally { signal, reason, records } = tally;
    let counted = i64::try_from(records).unwrap_or(i64::MAX);
    let mut attributes = vec![
        (UID.into(), Value::Str(uid.into())),
        ("outlast.dropped.records".into(), Value::Int(counted)),
        ("outlast.dropped.signal".into(), Value::Str(signal.name().into())),
        ("outlast.dropped.reason".into(), Value::Str(reason.name().into())),
    ];
    let for_whom = destination.map_or_else(String::new, |name| format!(" for {name}"));
    if let Some(name) = destination {
        attributes.push(("outlast.dropped.destination".into(), Value::Str(name.into())));
    }
    LogRecord {
        time_unix_nanos: now,
        observed_unix_nanos: now,
        severity: Severity::from_word(Cow::Borrowed("WARN")).unwrap_or_default(),
        event_name: Some(EVENT_NAME.into()),
        body: Value::Str(
            format!("outlast dropped {records} {signal} records{for_whom}: {reason} ({})", why(reason))
                .into(),
        ),
        attributes,
        ..LogRecord::default()
    }
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Overflow => "the queue was full and the oldest made room: see OUTLAST_QUEUE_MAX_BYTES",
        Reason::OverflowNewest => "the queue was full: see OUTLAST_QUEUE_MAX_BYTES",
        Reason::Refused => "the backend refused them for good",
        Reason::Rejected => "the backend took the request but rejected them",
        Reason::Damaged => "what was stored is damaged, or was made for another OUTLAST_PROTOCOL",
        Reason::Unreadable => "deliveries that are not telemetry",
        Reason::Shed => "the queue was full and the least severe made room: see OUTLAST_QUEUE_MAX_BYTES",
        Reason::Unsaved => "the disk took nothing until the end of the environment",
    }
}
