//! One element of a delivery: its raw text, and what is known about it.
//!
//! Parsing never fails. What Lambda may add later (types, envelope fields, record fields) is carried as it
//! came; an element that is no event at all is carried as text.

use std::borrow::Cow;

use super::json::{self, Cursor, Members};
use super::time;
use super::value::Value;
use super::words::Form;

/// An event of the Telemetry API, borrowed from the body it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// The element as it came.
    pub raw: &'a [u8],
    /// When the platform made the event, in nanoseconds since the Unix epoch; `None` if missing or malformed.
    pub time_unix_nanos: Option<u64>,
    /// What it is.
    pub kind: Kind<'a>,
    /// The raw JSON of `record`; all of `raw` for [`Kind::Odd`] and [`Kind::Cut`].
    pub record: &'a [u8],
    /// Envelope fields other than `time`, `type` and `record`, in order, and a `time` that was not
    /// understood: name and raw JSON.
    pub extra: Vec<(Cow<'a, str>, &'a [u8])>,
}

/// The type of an event (Lambda developer guide, "Telemetry API Event schema reference").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A line or object the function logged.
    Function,
    /// A line an extension logged.
    Extension,
    /// Something the platform reports.
    Platform(Platform<'a>),
    /// A type outside the three families, by name.
    Other(Cow<'a, str>),
    /// No event: not an object, or without `type` or `record`.
    Odd,
    /// What is left of an event whose other part never came.
    Cut,
}

/// What the platform reports: the part of the type after `platform.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform<'a> {
    /// `initStart`
    InitStart,
    /// `initRuntimeDone`
    InitRuntimeDone,
    /// `initReport`
    InitReport,
    /// `start`
    Start,
    /// `runtimeDone`
    RuntimeDone,
    /// `report`
    Report,
    /// `restoreStart`
    RestoreStart,
    /// `restoreRuntimeDone`
    RestoreRuntimeDone,
    /// `restoreReport`
    RestoreReport,
    /// `extension`
    Extension,
    /// `telemetrySubscription`
    TelemetrySubscription,
    /// `logsDropped`
    LogsDropped,
    /// `fault`, of the older Logs API
    Fault,
    /// `end`, of the older Logs API
    End,
    /// Any other, by the part after `platform.`.
    Other(Cow<'a, str>),
}

const PLATFORM: &str = "platform.";

/// The known platform types; names as they stand after `platform.`.
const PLATFORM_TYPES: [(&str, &str, Platform<'static>); 14] = [
    ("initStart", "platform.initStart", Platform::InitStart),
    ("initRuntimeDone", "platform.initRuntimeDone", Platform::InitRuntimeDone),
    ("initReport", "platform.initReport", Platform::InitReport),
    ("start", "platform.start", Platform::Start),
    ("runtimeDone", "platform.runtimeDone", Platform::RuntimeDone),
    ("report", "platform.report", Platform::Report),
    ("restoreStart", "platform.restoreStart", Platform::RestoreStart),
    ("restoreRuntimeDone", "platform.restoreRuntimeDone", Platform::RestoreRuntimeDone),
    ("restoreReport", "platform.restoreReport", Platform::RestoreReport),
    ("extension", "platform.extension", Platform::Extension),
    ("telemetrySubscription", "platform.telemetrySubscription", Platform::TelemetrySubscription),
    ("logsDropped", "platform.logsDropped", Platform::LogsDropped),
    ("fault", "platform.fault", Platform::Fault),
    ("end", "platform.end", Platform::End),
];

impl Platform<'_> {
    /// The type as Lambda spells it, if `name` is one that is known; the leading `platform.` may be missing.
    pub fn name_of_known(name: &str) -> Option<&'static str> {
        let rest = name.strip_prefix(PLATFORM).unwrap_or(name);
        PLATFORM_TYPES.iter().find(|(known, _, _)| *known == rest).map(|(_, name, _)| *name)
    }
}

impl<'a> Kind<'a> {
    /// Whether it was logged, by the function or by an extension.
    pub fn is_logged(&self) -> bool {
        matches!(self, Self::Function | Self::Extension)
    }

    fn from_name(name: Cow<'a, str>) -> Self {
        match name.as_ref() {
            "function" => return Self::Function,
            "extension" => return Self::Extension,
            _ => {}
        }
        let Some(rest) = name.strip_prefix(PLATFORM) else {
            return Self::Other(name);
        };
        if let Some((_, _, known)) = PLATFORM_TYPES.iter().find(|(known, _, _)| *known == rest) {
            return Self::Platform(known.clone());
        }
        Self::Platform(Platform::Other(match name {
            Cow::Borrowed(name) => Cow::Borrowed(name.strip_prefix(PLATFORM).unwrap_or(name)),
            Cow::Owned(_) => Cow::Owned(rest.to_owned()),
        }))
    }

    /// The type as Lambda names it; `None` for what has none.
    pub fn name(&self) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::Function => Cow::Borrowed("function"),
            Self::Extension => Cow::Borrowed("extension"),
            Self::Platform(Platform::Other(rest)) => Cow::Owned(format!("{PLATFORM}{rest}")),
            Self::Platform(known) => {
                Cow::Borrowed(PLATFORM_TYPES.iter().find(|(_, _, platform)| platform == known)?.1)
            }
            Self::Other(name) => name.clone(),
            Self::Odd | Self::Cut => return None,
        })
    }
}

impl<'a> Event<'a> {
    /// Reads one element of a delivery, as [`split`](super::split::split) gives it.
    pub fn parse(raw: &'a [u8]) -> Self {
        let (mut event, kind, record) = Self::envelope(raw);
        if let (Some(kind), Some(record)) = (kind, record) {
            event.kind = kind;
            event.record = record;
        }
        event
    }

    /// What there is of an event that was cut: its time if the envelope gives it, and its text.
    pub fn cut(fragment: &'a [u8]) -> Self {
        Self { kind: Kind::Cut, ..Self::envelope(fragment).0 }
    }

    /// An event that nobody tries to understand: its text, as it came.
    pub fn opaque(raw: &'a [u8]) -> Self {
        Self { raw, time_unix_nanos: None, kind: Kind::Odd, record: raw, extra: Vec::new() }
    }

    /// Reads as far as the envelope goes. The kind is left [`Kind::Odd`]; type and record are given if the
    /// whole of `raw` is an object that has them.
    fn envelope(raw: &'a [u8]) -> (Self, Option<Kind<'a>>, Option<&'a [u8]>) {
        let mut event = Self::opaque(raw);
        if let Some((time, record)) = usual(raw) {
            event.time_unix_nanos = Some(time);
            return (event, Some(Kind::Function), Some(record));
        }
        let (mut kind, mut record) = (None, None);
        for member in Members::new(raw) {
            let Some((key, value)) = member else {
                return (event, None, None);
            };
            match json::text(key) {
                name if name == "time" && event.time_unix_nanos.is_none() => {
                    event.time_unix_nanos = Value::parse(value).as_ref().and_then(time::of_value);
                    if event.time_unix_nanos.is_none() {
                        event.extra.push((name, value));
                    }
                }
                // A number that is too long for one is text as well, but no type.
                name if name == "type" && kind.is_none() => match Value::parse(value) {
                    Some(Value::Str(text)) if value.starts_with(b"\"") => kind = Some(Kind::from_name(text)),
                    _ => event.extra.push((name, value)),
                },
                name if name == "record" && record.is_none() => record = Some(value),
                name => event.extra.push((name, value)),
            }
        }
        (event, kind, record)
    }

    /// What this event tells the lifecycle, if anything.
    pub fn fact(&self) -> Option<Fact<'a>> {
        let Kind::Platform(platform) = &self.kind else {
            return None;
        };
        let read = || Value::parse(self.record).unwrap_or_default();
        Some(match platform {
            Platform::Start => Fact::Start { request_id: request_id(&read()) },
            Platform::RuntimeDone => {
                let record = read();
                Fact::RuntimeDone {
                    request_id: request_id(&record),
                    status: Status::of(&record),
                    duration_ms: record
                        .get("metrics")
                        .and_then(|m| m.get("durationMs"))
                        .and_then(Value::as_f64),
                }
            }
            Platform::Report => {
                let record = read();
                Fact::Report { request_id: request_id(&record), status: Status::of(&record) }
            }
            Platform::InitStart => Fact::InitStart(Instance::of(&read())),
            Platform::RestoreStart => Fact::RestoreStart(Instance::of(&read())),
            Platform::LogsDropped => {
                let record = read();
                let number = |name| record.get(name).and_then(Value::as_u64);
                Fact::LogsDropped { records: number("droppedRecords"), bytes: number("droppedBytes") }
            }
            _ => return None,
        })
    }
}

impl Event<'_> {
    /// The tenant that an invocation begins for, if this is its `platform.start` and the function isolates tenants.
    pub fn tenant(&self) -> Option<String> {
        if self.kind != Kind::Platform(Platform::Start) {
            return None;
        }
        let tenant = Value::parse(self.record)?.get("tenantId")?.as_str()?.to_owned();
        (!tenant.is_empty()).then_some(tenant)
    }
}

/// What the lifecycle needs to know of the platform's events.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact<'a> {
    /// `platform.start`: an invocation begins.
    Start {
        /// The invocation.
        request_id: Option<Cow<'a, str>>,
    },
    /// `platform.runtimeDone`: the function is done with an invocation.
    RuntimeDone {
        /// The invocation.
        request_id: Option<Cow<'a, str>>,
        /// How it ended.
        status: Option<Status>,
        /// How long the function ran, in milliseconds.
        duration_ms: Option<f64>,
    },
    /// `platform.report`: an invocation is over, extensions included.
    Report {
        /// The invocation.
        request_id: Option<Cow<'a, str>>,
        /// How it ended.
        status: Option<Status>,
    },
    /// `platform.initStart`: the environment starts.
    InitStart(Instance<'a>),
    /// `platform.restoreStart`: the environment starts from a snapshot.
    RestoreStart(Instance<'a>),
    /// `platform.logsDropped`: Lambda itself lost telemetry.
    LogsDropped {
        /// `droppedRecords`
        records: Option<u64>,
        /// `droppedBytes`
        bytes: Option<u64>,
    },
}

/// The environment, as it describes itself when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance<'a> {
    /// `instanceId`: the name of the log stream.
    pub id: Option<Cow<'a, str>>,
    /// `instanceMaxMemory`, in bytes.
    ///
    /// The schema reference shows 256 for a function of 256 MB; recorded events have 268435456.
    pub max_memory_bytes: Option<u64>,
    /// `functionVersion`
    pub function_version: Option<Cow<'a, str>>,
}

/// Lambda's smallest memory size is 128 MB, its largest 10,240 MB: no count of bytes is this small, no count
/// of megabytes this large.
const MEMORY_IS_BYTES_FROM: u64 = 1 << 20;

impl<'a> Instance<'a> {
    fn of(record: &Value<'a>) -> Self {
        let memory = record.get("instanceMaxMemory").and_then(Value::as_u64);
        Self {
            id: text_of(record, "instanceId"),
            max_memory_bytes: memory.map(|size| if size < MEMORY_IS_BYTES_FROM { size << 20 } else { size }),
            function_version: text_of(record, "functionVersion"),
        }
    }
}

/// How a phase or an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `success`
    Success,
    /// `failure`
    Failure,
    /// `error`
    Error,
    /// `timeout`
    Timeout,
    /// A status Lambda did not have when this was written.
    Other,
}

impl Status {
    /// Reads the `status` of a platform record, or the `Status: ` of a report line.
    pub(crate) fn of(record: &Value<'_>) -> Option<Self> {
        let name = match record {
            Value::Str(line) => {
                let (_, after) = line.split_once("\tStatus: ")?;
                after.split(['\t', '\n']).next()?
            }
            _ => record.get("status")?.as_str()?,
        };
        Some(match name.to_ascii_lowercase().as_str() {
            "success" => Self::Success,
            "failure" => Self::Failure,
            "error" => Self::Error,
            "timeout" => Self::Timeout,
            _ => Self::Other,
        })
    }

    /// Whether something went wrong.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::Error | Self::Timeout)
    }
}

fn text_of<'a>(record: &Value<'a>, name: &str) -> Option<Cow<'a, str>> {
    match record.get(name) {
        Some(Value::Str(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// Time and record of what the function logged, as Lambda writes it. Member by member the same would be found with a seventh
/// more instructions until it is a log record.
fn usual(raw: &[u8]) -> Option<(u64, &[u8])> {
    let (time, rest) = usual_envelope(raw)?;
    let mut cursor = Cursor::new(rest, 0);
    let record = cursor.skip()?;
    let is_all = rest.get(cursor.at()..) == Some(b"}");
    is_all.then_some((time::rfc3339(str::from_utf8(time).ok()?)?, record))
}

/// The time of an event that the function logged, as Lambda begins it, and what follows that beginning: the record and a
/// brace.
pub(super) fn usual_envelope(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = raw.strip_prefix(br#"{"time":""#)?;
    let (time, rest) = rest.split_at_checked("2026-10-08T07:30:27.768Z".len())?;
    let rest = rest.strip_prefix(br#"","type":"function","record":"#)?;
    time::is_usual(time).then_some((time, rest))
}

/// The request id of a platform record: its field, or what follows `RequestId: ` where the record is a line.
pub(crate) fn request_id<'a>(record: &Value<'a>) -> Option<Cow<'a, str>> {
    match record {
        Value::Str(Cow::Borrowed(line)) => request_id_in_line(line).map(Cow::Borrowed),
        Value::Str(Cow::Owned(line)) => request_id_in_line(line).map(|id| Cow::Owned(id.to_owned())),
        _ => text_of(record, "requestId"),
    }
}

/// The request id in the platform's own lines: `START RequestId: … Version: …`, `END RequestId: …`,
/// `REPORT RequestId: …`, `RequestId: … Process exited before completing request`.
pub(super) fn request_id_in_line(line: &str) -> Option<&str> {
    let line = ["START ", "END ", "REPORT "].iter().find_map(|word| line.strip_prefix(word)).unwrap_or(line);
    let id = line.strip_prefix("RequestId: ")?.split_ascii_whitespace().next()?;
    is_request_id(id).then_some(id)
}

/// Whether `text` has the form of a Lambda request id, which is a UUID.
pub(super) fn is_request_id(text: &str) -> bool {
    const DIGITS: Form = Form::of(*b"00000000");
    const SECOND: Form = Form::of(*b"-0000-00");
    const THIRD: Form = Form::of(*b"00-0000-");
    let (words, rest) = text.as_bytes().as_chunks();
    let (&[first, second, third, fourth], &[a, b, c, d]) = (words, rest) else { return false };
    [
        (first, DIGITS),
        (second, SECOND),
        (third, THIRD),
        (fourth, DIGITS),
        ([a, b, c, d, b'0', b'0', b'0', b'0'], DIGITS),
    ]
    .into_iter()
    .all(|(word, form)| form.is_hexadecimal(u64::from_le_bytes(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7b317588-2cdc-4bef-ac04-92e83cc8f418";

    fn fact(kind: &str, record: &str) -> Option<Fact<'static>> {
        let raw =
            format!(r#"{{"time":"2026-10-08T07:30:27.768Z","type":"{kind}","record":{record}}}"#).leak();
        Event::parse(raw.as_bytes()).fact()
    }

    #[test]
    fn an_event_is_its_envelope_and_its_raw_record() {
        let raw =
            br#"{"time":"2026-10-08T07:30:27.768Z","type":"function","record":{"a": 1},"added":[true]}"#;
        let event = Event::parse(raw);
        assert_eq!(event.time_unix_nanos, Some(1_791_444_627_768_000_000));
        assert_eq!(event.kind, Kind::Function);
        assert_eq!(event.record, br#"{"a": 1}"#);
        assert_eq!(event.extra, [("added".into(), &b"[true]"[..])]);
        assert_eq!(event.raw, raw);
    }

    #[test]
    fn a_start_tells_its_tenant() {
        let tenant = |kind: &str, record: &str| {
            Event::parse(format!(r#"{{"type":"{kind}","record":{record}}}"#).as_bytes()).tenant()
        };
        assert_eq!(
            tenant("platform.start", r#"{"requestId":"r","tenantId":"blue"}"#).as_deref(),
            Some("blue")
        );
        for (kind, record) in [
            ("platform.start", r#"{"requestId":"r"}"#),
            ("platform.start", r#"{"tenantId":""}"#),
            ("platform.start", r#"{"tenantId":7}"#),
            ("platform.start", r#""text""#),
            ("function", r#"{"tenantId":"blue"}"#),
        ] {
            assert_eq!(tenant(kind, record), None, "{kind} {record}");
        }
    }

    #[test]
    fn every_type_keeps_its_name() {
        for (_, name, platform) in PLATFORM_TYPES {
            assert_eq!(Kind::from_name(name.into()), Kind::Platform(platform));
            assert_eq!(Kind::from_name(name.into()).name().as_deref(), Some(name));
        }
        for name in ["function", "extension", "platform.somethingNew", "platform.", "novel", ""] {
            assert_eq!(Kind::from_name(name.into()).name().as_deref(), Some(name));
            assert_eq!(Kind::from_name(name.to_owned().into()).name().as_deref(), Some(name));
        }
        assert_eq!(Kind::from_name("platform.x".into()), Kind::Platform(Platform::Other("x".into())));
    }

    #[test]
    fn what_is_no_event_is_odd_and_keeps_its_text() {
        for raw in [
            "1",
            "\"x\"",
            "null",
            "[]",
            "{}",
            r#"{"type":"function"}"#,
            r#"{"record":1}"#,
            r#"{"type":1,"record":2}"#,
            r#"{"type":9223372036854775808,"record":2}"#,
            r#"{"type":"function","record":}"#,
            "{",
            "",
        ] {
            let event = Event::parse(raw.as_bytes());
            assert_eq!((event.kind, event.record), (Kind::Odd, raw.as_bytes()), "{raw}");
        }
        let event = Event::parse(br#"{"time":"2026-10-08T07:30:27.768Z","type":"function"}"#);
        assert_eq!((event.kind, event.time_unix_nanos), (Kind::Odd, Some(1_791_444_627_768_000_000)));
    }

    #[test]
    fn a_time_nobody_understands_is_kept_aside() {
        let event = Event::parse(br#"{"time":"yesterday","type":"function","record":""}"#);
        assert_eq!(event.time_unix_nanos, None);
        assert_eq!(event.extra, [("time".into(), &br#""yesterday""#[..])]);
    }

    #[test]
    fn repeated_envelope_fields_survive() {
        let event = Event::parse(br#"{"type":"function","record":1,"record":2,"type":"extension"}"#);
        assert_eq!((event.kind, event.record), (Kind::Function, &b"1"[..]));
        assert_eq!(event.extra, [("record".into(), &b"2"[..]), ("type".into(), &br#""extension""#[..])]);
    }

    #[test]
    fn a_cut_event_still_has_its_time() {
        let event =
            Event::cut(br#"{"time":"2026-10-08T07:30:27.768Z","type":"function","record":{"message":"AA"#);
        assert_eq!((event.kind, event.time_unix_nanos), (Kind::Cut, Some(1_791_444_627_768_000_000)));
        assert!(event.record.ends_with(b"AA"));
    }

    #[test]
    fn facts_are_read_from_objects() {
        let id = || Some(Cow::Borrowed(ID));
        assert_eq!(
            fact("platform.start", &format!(r#"{{"requestId":"{ID}"}}"#)),
            Some(Fact::Start { request_id: id() })
        );
        assert_eq!(
            fact(
                "platform.runtimeDone",
                &format!(r#"{{"requestId":"{ID}","status":"timeout","metrics":{{"durationMs":5001.182}}}}"#)
            ),
            Some(Fact::RuntimeDone {
                request_id: id(),
                status: Some(Status::Timeout),
                duration_ms: Some(5001.182)
            })
        );
        assert_eq!(
            fact("platform.report", &format!(r#"{{"requestId":"{ID}","status":"cosmic"}}"#)),
            Some(Fact::Report { request_id: id(), status: Some(Status::Other) })
        );
        let instance = Instance {
            id: Some("2026/x".into()),
            max_memory_bytes: Some(268_435_456),
            function_version: Some("7".into()),
        };
        for memory in ["268435456", "256"] {
            let record =
                format!(r#"{{"instanceId":"2026/x","instanceMaxMemory":{memory},"functionVersion":"7"}}"#);
            assert_eq!(fact("platform.initStart", &record), Some(Fact::InitStart(instance.clone())));
            assert_eq!(fact("platform.restoreStart", &record), Some(Fact::RestoreStart(instance.clone())));
        }
        assert_eq!(
            fact("platform.logsDropped", r#"{"droppedRecords":123,"droppedBytes":12345,"reason":"x"}"#),
            Some(Fact::LogsDropped { records: Some(123), bytes: Some(12345) })
        );
    }

    #[test]
    fn facts_survive_records_of_the_wrong_shape() {
        for record in ["null", "[]", "{}", "7", r#"{"requestId":7,"status":[],"metrics":"x"}"#, "{\"a\":}"] {
            assert_eq!(fact("platform.start", record), Some(Fact::Start { request_id: None }), "{record}");
            assert_eq!(
                fact("platform.runtimeDone", record),
                Some(Fact::RuntimeDone { request_id: None, status: None, duration_ms: None }),
                "{record}"
            );
        }
        assert_eq!(fact("function", "{}"), None);
        assert_eq!(fact("platform.novelty", "{}"), None);
    }

    #[test]
    fn facts_are_read_from_lines() {
        let id = || Some(Cow::Borrowed(ID));
        for line in [format!("\"RequestId: {ID}\""), format!("\"START RequestId: {ID} Version: $LATEST\\n\"")]
        {
            assert_eq!(fact("platform.start", &line), Some(Fact::Start { request_id: id() }));
        }
        let report = format!("\"REPORT RequestId: {ID}\\tDuration: 3000.00 ms\\tStatus: timeout\\n\"");
        assert_eq!(
            fact("platform.report", &report),
            Some(Fact::Report { request_id: id(), status: Some(Status::Timeout) })
        );
        assert_eq!(fact("platform.start", "\"RequestId: unknown\""), Some(Fact::Start { request_id: None }));
    }

    #[test]
    fn what_the_function_logs_reads_the_same_in_lambdas_spelling_and_in_any_other() {
        let usual_form = |record: &str, end: &str| {
            format!(r#"{{"time":"2026-10-08T07:30:27.768Z","type":"function","record":{record}{end}"#)
        };
        for record in [r#""a \" \\""#, r#"{"a":["}"]}"#, "7", "null", r#""""#, "[1,2]", "nonsense"] {
            let text = usual_form(record, "}");
            assert!(usual(text.as_bytes()).is_some(), "{record}");
            let spaced = usual_form(record, " }").replacen(':', ": ", 1);
            assert_eq!(usual(spaced.as_bytes()), None);
            let (one, other) = (Event::parse(text.as_bytes()), Event::parse(spaced.as_bytes()));
            assert_eq!(
                (one.time_unix_nanos, &one.kind, one.record, &one.extra),
                (Some(1_791_444_627_768_000_000), &Kind::Function, record.as_bytes(), &Vec::new()),
            );
            assert_eq!(
                (other.time_unix_nanos, other.kind, other.record),
                (one.time_unix_nanos, one.kind, record.as_bytes())
            );
        }
        for other in [
            usual_form("7", r#","added":1}"#),
            usual_form("7", "}}"),
            usual_form("7", ""),
            usual_form("", "}"),
            usual_form(" 7", "}"),
            usual_form(r#""a"#, "}"),
            usual_form("7", "}").replacen("10-08", "13-08", 1),
            usual_form("7", "}").replacen("function", "extension", 1),
        ] {
            assert_eq!(usual(other.as_bytes()), None, "{other}");
        }
    }
}
