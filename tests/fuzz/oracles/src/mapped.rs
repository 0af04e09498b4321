//! One event, as `serde_json` reads it, beside the log record that arrived for it: no field may be lost.

use std::collections::HashSet;
use std::slice::Iter;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use outlast::observe::TENANT_ID;
use outlast::record::log::{INVOCATION_ID, TELEMETRY_TYPE, UID, UNPARSED};
use outlast::record::value::MAX_DEPTH_LEVELS;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::json::{self, Json, Kind};
use crate::otlp::text;

/// Names of the message, in any case; the first that says something counts.
const MESSAGES: [&str; 4] = ["message", "msg", "@message", "@m"];
/// Fields of a logged object that have places of their own in a log record, in any case.
const TIMES: [&str; 6] = ["timestamp", "time", "@timestamp", "ts", "@t", "datetime"];
const LEVELS: [&str; 9] =
    ["level", "severity", "levelname", "level_name", "log.level", "loglevel", "log_level", "@level", "@l"];
const REQUESTS: [&str; 5] =
    ["requestid", "awsrequestid", "aws_request_id", "function_request_id", "functionrequestid"];
const TRACES: [&str; 8] = [
    "traceid",
    "trace_id",
    "trace.id",
    "@tr",
    "oteltraceid",
    "xray_trace_id",
    "xraytraceid",
    "x-amzn-trace-id",
];
const SPANS: [&str; 5] = ["spanid", "span_id", "span.id", "@sp", "otelspanid"];
const FLAGS: [&str; 2] = ["traceflags", "trace_flags"];

/// Members of an exception, and the attributes that they become.
const EXCEPTION: [(&str, &str); 7] = [
    ("type", "exception.type"),
    ("name", "exception.type"),
    ("message", "exception.message"),
    ("stack", "exception.stacktrace"),
    ("stack_trace", "exception.stacktrace"),
    ("stacktrace", "exception.stacktrace"),
    ("stackTrace", "exception.stacktrace"),
];

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

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
        (Kind::Object(fields), true) => {
            if !object(fields, record, &mut attributes, invocation, &mut own_time) {
                body(envelope.record, record, 0);
            }
        }
        (Kind::Text(line), true) => {
            let inside = without_newline(line);
            match json::read(inside.as_bytes()).map(|json| json.kind) {
                Some(Kind::Object(fields)) if text(record.body.as_ref()) != Some(inside) => {
                    let opened = object(&fields, record, &mut attributes, invocation, &mut own_time);
                    assert!(opened, "{line:?} without a message is no line: {record:?}");
                }
                Some(Kind::Object(fields)) => {
                    own_time = fields.iter().any(|(name, _)| is_one_of(&TIMES, name) || name == "_aws");
                }
                // What only we take for JSON.
                None if text(record.body.as_ref()) != Some(inside) => {
                    assert!(inside.starts_with('{'), "{line:?} became {record:?}");
                    return;
                }
                _ => {
                    assert!(line.contains(&record.severity_text), "a severity from nowhere: {record:?}");
                    own_time = tells_time(line, record.time_unix_nano);
                }
            }
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
    // An earlier event of the delivery may have told whose the invocation is.
    let mut rest =
        attributes.filter(|attribute| attribute.key != TENANT_ID || text(attribute.value.as_ref()).is_none());
    assert_eq!(rest.next(), None, "an attribute from nowhere: {record:?}");
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

/// Whether a line can say that it is of this second.
fn tells_time(line: &str, nanos: u64) -> bool {
    line.contains(&format!(":{:02}", nanos / 1_000_000_000 % 60)) || line.contains(":60")
}

fn without_newline(line: &str) -> &str {
    line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// Whether a logged object has a message; then each of its fields must be where it belongs.
fn object(
    fields: &[(String, Json<'_>)],
    record: &LogRecord,
    attributes: &mut Iter<'_, KeyValue>,
    invocation: Option<&str>,
    own_time: &mut bool,
) -> bool {
    *own_time = fields.iter().any(|(name, _)| is_one_of(&TIMES, name) || name == "_aws");
    let Some(message) = message_of(fields, record) else { return false };
    let keeps = fields.iter().any(|(name, _)| name.starts_with("exception."));
    for (at, (name, value)) in fields.iter().enumerate() {
        if at == message {
            within(name, value, record, attributes);
        } else if !takes(attributes, name, value, 1) && (keeps || !renamed(name, value, attributes)) {
            placed(name, value, record, invocation);
        }
    }
    true
}

/// The message itself, or the object that it is in.
fn within(name: &str, value: &Json<'_>, record: &LogRecord, attributes: &mut Iter<'_, KeyValue>) {
    let Kind::Object(members) = &value.kind else { return body(value, record, 1) };
    if is_one_of(&MESSAGES, name) {
        return body(value, record, 1);
    }
    let at = members.iter().position(|(name, _)| name == "message").expect("a message");
    body(&members[at].1, record, 2);
    let rest: Vec<_> =
        members.iter().enumerate().filter(|(place, _)| *place != at).map(|(_, it)| it).collect();
    remains(name, &rest, attributes);
}

/// What is left of an object is the next attribute, if anything is.
fn remains(name: &str, rest: &[&(String, Json<'_>)], attributes: &mut Iter<'_, KeyValue>) {
    if rest.is_empty() {
        return;
    }
    let next = attributes.next().expect("the rest of an object");
    let Some(Value::KvlistValue(found)) = next.value.as_ref().and_then(|value| value.value.as_ref()) else {
        panic!("{next:?} is not what is left of {name}");
    };
    let all = rest.len() == found.values.len()
        && rest
            .iter()
            .zip(&found.values)
            .all(|((name, said), found)| is_name(&found.key, name) && same(said, found.value.as_ref(), 2));
    assert!(is_name(&next.key, name) && all, "{next:?} is not what is left of {name}");
}

/// Whether a field became attributes that are named as the conventions name what exceptions say.
fn renamed(name: &str, value: &Json<'_>, attributes: &mut Iter<'_, KeyValue>) -> bool {
    let mut takes_text = |place: Option<&str>, said: &str| {
        let next = attributes.clone().next();
        let found = next.is_some_and(|next| {
            next.key.starts_with("exception.")
                && place.is_none_or(|place| next.key == place)
                && text(next.value.as_ref()) == Some(said)
        });
        if found {
            attributes.next();
        }
        found
    };
    match &value.kind {
        Kind::Text(said) => {
            let names =
                ["errorType", "errorMessage", "exception", "exception_name", "stack", "error.stack_trace"];
            (names.contains(&name) || name.starts_with("stack")) && takes_text(None, said)
        }
        Kind::Array(items) => {
            let lines: Option<Vec<&str>> = items
                .iter()
                .map(|item| match &item.kind {
                    Kind::Text(line) if !line.contains('\n') => Some(line.as_str()),
                    _ => None,
                })
                .collect();
            lines.is_some_and(|lines| takes_text(Some("exception.stacktrace"), &lines.join("\n")))
        }
        Kind::Object(members) if ["err", "error", "exception"].contains(&name) => {
            let has_type =
                members.iter().any(|(name, value)| name == "type" && matches!(value.kind, Kind::Text(_)));
            let mut rest = Vec::new();
            for member in members {
                let place = EXCEPTION.iter().find(|(known, _)| *known == member.0);
                let place = place.filter(|(known, _)| !(has_type && *known == "name"));
                let taken = match (&member.1.kind, place) {
                    (Kind::Text(said), Some((_, place))) => takes_text(Some(place), said),
                    _ => false,
                };
                if !taken {
                    rest.push(member);
                }
            }
            let some = rest.len() < members.len();
            if some {
                remains(name, &rest, attributes);
            }
            some
        }
        _ => false,
    }
}

/// Which of a logged object's fields is its message, or holds it.
fn message_of(fields: &[(String, Json<'_>)], record: &LogRecord) -> Option<usize> {
    let usual = MESSAGES.iter().find_map(|wanted| {
        let at = fields.iter().position(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        (!matches!(fields[at].1.kind, Kind::Null)).then_some(at)
    });
    let says = |value: &Json<'_>| match &value.kind {
        Kind::Object(members) => members
            .iter()
            .find(|(name, _)| name == "message")
            .is_some_and(|(_, message)| !matches!(message.kind, Kind::Null)),
        _ => false,
    };
    let mut seen = HashSet::new();
    usual.or_else(|| {
        fields.iter().filter(|_| record.severity_number > 0).position(|(name, value)| {
            // A name that comes again has a number.
            seen.insert(name)
                && match name.as_str() {
                    "fields" => says(value),
                    "event" => matches!(value.kind, Kind::Text(_)),
                    _ => false,
                }
        })
    })
}

fn body(json: &Json<'_>, record: &LogRecord, depth: usize) {
    if let Kind::Text(said) = &json.kind {
        assert_eq!(text(record.body.as_ref()), Some(without_newline(said)));
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
    let word = match &value.kind {
        Kind::Text(text) => text.as_str(),
        _ => value.raw,
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let in_place = match name {
        name if is_one_of(&TIMES, name) => is_time(value, record.time_unix_nano),
        name if is_one_of(&LEVELS, name) => record.severity_text == word && record.severity_number > 0,
        name if is_one_of(&REQUESTS, name) => invocation == Some(word),
        name if is_one_of(&TRACES, name) => {
            let plain = word.strip_prefix("1-").unwrap_or(word).replace('-', "");
            hex(&record.trace_id) == plain.to_ascii_lowercase()
        }
        name if is_one_of(&SPANS, name) => hex(&record.span_id) == word.to_ascii_lowercase(),
        name if is_one_of(&FLAGS, name) => match value.kind {
            Kind::Number => word.parse() == Ok(record.flags),
            _ => u32::from_str_radix(word, 16) == Ok(record.flags),
        },
        name if name.eq_ignore_ascii_case("traceparent") => {
            word.contains(&hex(&record.trace_id)) && word.contains(&hex(&record.span_id))
        }
        _ => false,
    };
    assert!(in_place, "{name} is lost or not in its place: {value:?} {record:?}");
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
