//! One event, as `serde_json` reads it, beside the log record that arrived for it: no field may be lost.

use std::collections::HashSet;
use std::slice::Iter;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use outlast::record::log::{INVOCATION_ID, TELEMETRY_TYPE, UID, UNPARSED};
use outlast::record::value::MAX_DEPTH_LEVELS;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::json::{self, Json, Kind};
use crate::otlp::text;

/// Fields of a logged object that have places of their own in a log record.
const PLACED: [&str; 12] = [
    "timestamp",
    "time",
    "level",
    "severity",
    "requestId",
    "AWSRequestId",
    "traceId",
    "trace_id",
    "spanId",
    "span_id",
    "traceFlags",
    "trace_flags",
];

/// What holds for every record, whatever it was made of.
pub(crate) fn sound(record: &LogRecord) {
    let mut names = HashSet::new();
    assert!(record.attributes.iter().all(|field| names.insert(&field.key)), "a name twice: {record:?}");
    assert_eq!(record.attributes[0].key, UID);
    assert!(text(record.attributes[0].value.as_ref()).is_some_and(|uid| !uid.is_empty()));
    assert!(record.trace_id.is_empty() || record.trace_id.len() == 16);
    assert!(record.span_id.is_empty() || record.span_id.len() == 8);
    assert!((0..=24).contains(&record.severity_number));
    assert_ne!(record.observed_time_unix_nano, 0);
    assert_ne!(record.time_unix_nano, 0);
}

/// Whether `record` holds everything that `event` says. `running` is the invocation that ran. An event that is no
/// strict JSON is only looked at for soundness.
pub(crate) fn check(event: &[u8], record: &LogRecord, running: Option<&str>) {
    sound(record);
    let Some(event_json) = json::read(event) else { return };
    let mut attributes = record.attributes[1..].iter();
    let invocation = attributes.clone().next().filter(|field| field.key == INVOCATION_ID);
    if invocation.is_some() {
        attributes.next();
    }
    let invocation = invocation.map(|field| text(field.value.as_ref()).expect("a request id"));
    let said = |id: &str| running == Some(id) || event_json.raw.contains(id) || id_escaped(&event_json, id);
    assert!(invocation.is_none_or(said), "{invocation:?} comes from nowhere");

    let Some(envelope) = Envelope::of(&event_json) else {
        let unparsed = attributes.next().expect("said to be unparsed");
        assert_eq!((unparsed.key.as_str(), boolean(unparsed)), (UNPARSED, Some(true)));
        assert_eq!(text(record.body.as_ref()), std::str::from_utf8(event).ok(), "the text of no event");
        assert_eq!(attributes.next(), None);
        return;
    };
    let kind = attributes.next().expect("a type");
    assert_eq!((kind.key.as_str(), text(kind.value.as_ref())), (TELEMETRY_TYPE, Some(envelope.kind)));
    let logged = matches!(envelope.kind, "function" | "extension");
    assert_eq!(record.event_name, if logged { "" } else { envelope.kind });

    let mut own_time = false;
    match (&envelope.record.kind, logged) {
        (Kind::Object(fields), true) if message_of(fields).is_some() => {
            let message = message_of(fields).expect("just seen");
            for (at, (name, value)) in fields.iter().enumerate() {
                if at == message {
                    body(value, record, 1);
                } else if !takes(&mut attributes, name, value, 1) {
                    placed(name, value, record, invocation);
                    own_time |= matches!(name.as_str(), "timestamp" | "time");
                }
            }
        }
        (Kind::Object(fields), true) => {
            body(envelope.record, record, 0);
            own_time = fields.iter().any(|(name, _)| matches!(name.as_str(), "timestamp" | "time"));
        }
        (Kind::Text(line), true) => {
            body(envelope.record, record, 0);
            assert!(line.contains(&record.severity_text), "a severity from nowhere: {record:?}");
        }
        _ => body(envelope.record, record, 0),
    }
    let mut time = None;
    for (name, value) in envelope.extra {
        if !takes(&mut attributes, name, value, 0) {
            assert!(name == "time" && time.is_none(), "{name} of the envelope is lost: {record:?}");
            time = Some(value);
        }
    }
    assert_eq!(attributes.next(), None, "an attribute from nowhere: {record:?}");
    match time {
        Some(time) if !own_time => {
            assert!(is_time(time, record.time_unix_nano), "{time:?} became {}", record.time_unix_nano);
        }
        None if !own_time => assert_eq!(record.time_unix_nano, record.observed_time_unix_nano),
        _ => {}
    }
}

/// A request id that stands in the event with escapes in it.
fn id_escaped(json: &Json<'_>, id: &str) -> bool {
    match &json.kind {
        Kind::Text(text) => text.contains(id),
        Kind::Array(items) => items.iter().any(|item| id_escaped(item, id)),
        Kind::Object(fields) => fields.iter().any(|(_, value)| id_escaped(value, id)),
        _ => false,
    }
}

fn boolean(field: &KeyValue) -> Option<bool> {
    match field.value.as_ref()?.value.as_ref()? {
        Value::BoolValue(value) => Some(*value),
        _ => None,
    }
}

struct Envelope<'e, 'a> {
    kind: &'e str,
    record: &'e Json<'a>,
    extra: Vec<(&'e str, &'e Json<'a>)>,
}

impl<'e, 'a> Envelope<'e, 'a> {
    fn of(event: &'e Json<'a>) -> Option<Self> {
        let Kind::Object(members) = &event.kind else { return None };
        let (mut kind, mut record, mut extra) = (None, None, Vec::new());
        for (name, value) in members {
            match (name.as_str(), &value.kind) {
                ("type", Kind::Text(text)) if kind.is_none() => kind = Some(text.as_str()),
                ("record", _) if record.is_none() => record = Some(value),
                (name, _) => extra.push((name, value)),
            }
        }
        Some(Self { kind: kind?, record: record?, extra })
    }
}

/// Which of a logged object's fields is its message.
fn message_of(fields: &[(String, Json<'_>)]) -> Option<usize> {
    ["message", "msg"].iter().find_map(|wanted| {
        let at = fields.iter().position(|(name, _)| name == wanted)?;
        (!matches!(fields[at].1.kind, Kind::Null)).then_some(at)
    })
}

fn body(json: &Json<'_>, record: &LogRecord, depth: usize) {
    if let Kind::Text(said) = &json.kind {
        let line =
            said.strip_suffix('\n').map_or(said.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        assert_eq!(text(record.body.as_ref()), Some(line));
        return;
    }
    assert!(same(json, record.body.as_ref(), depth), "{json:?} became {:?}", record.body);
}

/// Takes the next attribute if it is `name` with this value. A name that was taken has got a number.
fn takes(attributes: &mut Iter<'_, KeyValue>, name: &str, value: &Json<'_>, depth: usize) -> bool {
    let found = attributes
        .clone()
        .next()
        .is_some_and(|field| is_name(&field.key, name) && same(value, field.value.as_ref(), depth));
    if found {
        attributes.next();
    }
    found
}

fn is_name(found: &str, name: &str) -> bool {
    found.strip_prefix(name).is_some_and(|rest| {
        rest.split('.').skip(1).all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
            && (rest.is_empty() || rest.starts_with('.'))
    })
}

/// Whether a field that is no attribute is in its place.
fn placed(name: &str, value: &Json<'_>, record: &LogRecord, invocation: Option<&str>) {
    assert!(PLACED.contains(&name), "{name} is lost: {record:?}");
    let word = match &value.kind {
        Kind::Text(text) => text.as_str(),
        _ => value.raw,
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let in_place = match name {
        "timestamp" | "time" => is_time(value, record.time_unix_nano),
        "level" | "severity" => record.severity_text == word && record.severity_number > 0,
        "requestId" | "AWSRequestId" => invocation == Some(word),
        "traceId" | "trace_id" => {
            let plain = word.strip_prefix("1-").unwrap_or(word).replace('-', "");
            hex(&record.trace_id) == plain.to_ascii_lowercase()
        }
        "spanId" | "span_id" => hex(&record.span_id) == word.to_ascii_lowercase(),
        _ => match value.kind {
            Kind::Number => word.parse() == Ok(record.flags),
            _ => u32::from_str_radix(word, 16) == Ok(record.flags),
        },
    };
    assert!(in_place, "{name} is not in its place: {value:?} {record:?}");
}

/// Whether `nanos` can be what `value` says. Where only we read a form, any time will do.
fn is_time(value: &Json<'_>, nanos: u64) -> bool {
    match &value.kind {
        Kind::Text(text) => OffsetDateTime::parse(text, &Rfc3339).map_or(nanos != 0, |time| {
            time.unix_timestamp_nanos() == i128::from(nanos) || text.contains(":60")
        }),
        Kind::Number => match value.raw.parse::<i128>() {
            Ok(number) => {
                [1, 1_000, 1_000_000, 1_000_000_000].iter().any(|unit| number * unit == i128::from(nanos))
            }
            Err(_) => value.raw.parse::<f64>().is_ok_and(|number| {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "compared to a microsecond of seconds since 1970"
                )]
                let seconds = nanos as f64 / 1e9;
                (number - seconds).abs() < 2e-6 || (number / 1e3 - seconds).abs() < 2e-6
            }),
        },
        _ => false,
    }
}

/// Whether a value is what it was.
fn same(json: &Json<'_>, value: Option<&AnyValue>, depth: usize) -> bool {
    let found = value.and_then(|value| value.value.as_ref());
    match (&json.kind, found) {
        (Kind::Array(_) | Kind::Object(_) | Kind::Deep, Some(Value::StringValue(text))) => {
            depth >= MAX_DEPTH_LEVELS && text == json.raw
        }
        (Kind::Null, None) => true,
        (Kind::Bool(said), Some(Value::BoolValue(found))) => said == found,
        (Kind::Text(said), Some(Value::StringValue(found))) => said == found,
        (Kind::Number, found) => same_number(json.raw, found),
        (Kind::Array(said), Some(Value::ArrayValue(found))) => {
            said.len() == found.values.len()
                && said.iter().zip(&found.values).all(|(said, found)| same(said, Some(found), depth + 1))
        }
        (Kind::Object(said), Some(Value::KvlistValue(found))) => {
            let mut names = HashSet::new();
            said.len() == found.values.len()
                && found.values.iter().all(|field| names.insert(&field.key))
                && said.iter().zip(&found.values).all(|((name, said), found)| {
                    is_name(&found.key, name) && same(said, found.value.as_ref(), depth + 1)
                })
        }
        _ => false,
    }
}

/// Whole numbers stay whole, others become the nearest double, and what fits neither stays text.
fn same_number(raw: &str, found: Option<&Value>) -> bool {
    match found {
        Some(Value::IntValue(found)) => raw == found.to_string(),
        Some(Value::DoubleValue(found)) => {
            let is_whole = raw != "-0" && raw.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
            let read: f64 = serde_json::from_str(raw).unwrap_or(f64::NAN);
            !is_whole && read.to_bits() == found.to_bits()
        }
        // Kept as digits only if a number would not say the same.
        Some(Value::StringValue(found)) => {
            found == raw
                && raw.parse::<i64>().is_err()
                && raw.parse::<f64>().is_ok_and(|read| {
                    read.is_infinite() || read == 0.0 || raw.bytes().all(|b| b.is_ascii_digit() || b == b'-')
                })
        }
        _ => false,
    }
}
