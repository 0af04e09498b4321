//! The fields of a logged object that have a place of their own in a log record.

use std::borrow::Cow;

use super::log::lambda_request_id;
use super::severity::Severity;
use super::time;
use super::trace_context::{TraceParent, XRayHeader};
use super::value::{Field, Value};

/// A place in a log record that a field may go to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Message,
    Time,
    Level,
    RequestId,
    TraceId,
    SpanId,
    TraceFlags,
    TraceParent,
}

/// The names that loggers use, in any case. Of several for one place the first counts whose value can be read as what the
/// place holds. `docs/signals.md` says who writes which.
const NAMES: [(&str, Place); 40] = [
    ("message", Place::Message),
    ("msg", Place::Message),
    ("@message", Place::Message),
    ("@m", Place::Message),
    ("timestamp", Place::Time),
    ("time", Place::Time),
    ("@timestamp", Place::Time),
    ("ts", Place::Time),
    ("@t", Place::Time),
    ("datetime", Place::Time),
    ("level", Place::Level),
    ("severity", Place::Level),
    ("levelname", Place::Level),
    ("level_name", Place::Level),
    ("log.level", Place::Level),
    ("loglevel", Place::Level),
    ("log_level", Place::Level),
    ("@level", Place::Level),
    ("@l", Place::Level),
    ("requestId", Place::RequestId),
    ("AWSRequestId", Place::RequestId),
    ("aws_request_id", Place::RequestId),
    ("function_request_id", Place::RequestId),
    ("functionRequestId", Place::RequestId),
    ("traceId", Place::TraceId),
    ("trace_id", Place::TraceId),
    ("trace.id", Place::TraceId),
    ("@tr", Place::TraceId),
    ("otelTraceID", Place::TraceId),
    ("xray_trace_id", Place::TraceId),
    ("xRayTraceId", Place::TraceId),
    ("X-Amzn-Trace-Id", Place::TraceId),
    ("spanId", Place::SpanId),
    ("span_id", Place::SpanId),
    ("span.id", Place::SpanId),
    ("@sp", Place::SpanId),
    ("otelSpanID", Place::SpanId),
    ("traceFlags", Place::TraceFlags),
    ("trace_flags", Place::TraceFlags),
    ("traceparent", Place::TraceParent),
];

/// Names of [`NAMES`], a bit each, by what most names differ in.
struct Index {
    /// By the first character, in any case.
    first: [u64; 32],
    /// By the length.
    length: [u64; 32],
}

#[allow(clippy::indexing_slicing, reason = "done by the compiler, which would refuse it")]
const INDEX: Index = {
    let (mut first, mut length) = ([0; 32], [0; 32]);
    let mut rank = 0;
    while rank < NAMES.len() {
        let name = NAMES[rank].0.as_bytes();
        first[(name[0] & 0x1f) as usize] |= 1 << rank;
        length[name.len()] |= 1 << rank;
        rank += 1;
    }
    Index { first, length }
};

/// The place of `name` in [`NAMES`].
fn rank(name: &str) -> Option<usize> {
    let first = name.as_bytes().first()? & 0x1f;
    let mut left = INDEX.first.get(usize::from(first))? & INDEX.length.get(name.len())?;
    while left != 0 {
        let rank = left.trailing_zeros() as usize;
        if NAMES.get(rank).is_some_and(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Some(rank);
        }
        left &= left - 1;
    }
    None
}

/// Spans around a line that are looked at.
const SPANS_MAX: usize = 16;

/// Where the message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The field at this place.
    At(usize),
    /// The member `message` of the object in the field at this place (Rust's tracing-subscriber).
    Within(usize),
}

/// What a logged object says in the fields that loggers agree on.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) message: Option<Message>,
    pub(super) time: Option<u64>,
    pub(super) severity: Option<Severity<'a>>,
    pub(super) request_id: Option<Cow<'a, str>>,
    pub(super) trace_id: Option<[u8; 16]>,
    pub(super) span_id: Option<[u8; 8]>,
    pub(super) trace_flags: Option<u32>,
    /// The places of the fields that say no more than the above.
    pub(super) placed: Vec<usize>,
}

impl<'a> Fields<'a> {
    /// Reads the members of an object that was logged about at `near`, Unix nanoseconds.
    pub(super) fn read(object: &[Field<'a>], near: u64) -> Self {
        let known = Known::of(object);
        let mut fields = Self::default();
        fields.time = fields.place(&known, Place::Time, |value| {
            let time = time::of_value(value).filter(|time| time::is_near(*time, near))?;
            Some((time, !matches!(value, Value::Double(number) if !time::is_exact(*number, time))))
        });
        fields.severity = fields.place(&known, Place::Level, |value| match value {
            Value::Str(word) => exactly(Severity::from_word(word.clone())),
            _ => None,
        });
        if fields.severity.is_none() {
            fields.severity = pino_level(object);
        }
        fields.request_id = fields.place(&known, Place::RequestId, |value| exactly(lambda_request_id(value)));
        let mut x_ray_flags = None;
        fields.trace_id = fields.place(&known, Place::TraceId, |value| {
            let text = value.as_str()?;
            if !text.contains("Root=") {
                return exactly(id(text));
            }
            let header = XRayHeader::parse(text);
            // An open decision is none.
            x_ray_flags = header.sampled.map(u32::from);
            Some((header.trace_id?, false))
        });
        fields.span_id = fields.place(&known, Place::SpanId, |value| exactly(id(value.as_str()?)));
        fields.trace_flags =
            fields.place(&known, Place::TraceFlags, |value| exactly(flags(value))).or(x_ray_flags);
        if fields.trace_id.is_none()
            && fields.span_id.is_none()
            && let Some(parent) =
                fields.place(&known, Place::TraceParent, |value| exactly(TraceParent::parse(value.as_str()?)))
        {
            fields.trace_id = Some(parent.trace_id);
            fields.span_id = Some(parent.span_id);
            fields.trace_flags = fields.trace_flags.or(Some(parent.flags));
        }
        fields.message = known.message().or_else(|| fields.unusual_message(object));
        if let Some(span) = get(object, "span") {
            fields.read_span(span);
        }
        if let Some(Value::Array(spans)) = get(object, "spans") {
            // The innermost comes last.
            spans.iter().rev().take(SPANS_MAX).for_each(|span| fields.read_span(span));
        }
        for name in ["mdc", "contextMap"] {
            if let Some(Value::Map(context)) = get(object, name) {
                fields.read_context(context);
            }
        }
        fields
    }

    /// What Java's loggers have in their diagnostic context: logback in `mdc`, log4j2 in `contextMap`. It stays where it is.
    fn read_context(&mut self, context: &[Field<'a>]) {
        let known = Known::of(context);
        let text = |place| known.fields(place).find_map(|(_, value)| value.as_str());
        if self.request_id.is_none() {
            self.request_id = known.fields(Place::RequestId).find_map(|(_, value)| lambda_request_id(value));
        }
        if self.trace_id.is_none()
            && self.span_id.is_none()
            && let Some(trace_id) = text(Place::TraceId).and_then(id)
        {
            self.trace_id = Some(trace_id);
            self.span_id = text(Place::SpanId).and_then(id);
            let flags = known.fields(Place::TraceFlags).find_map(|(_, value)| flags(value));
            self.trace_flags = self.trace_flags.or(flags);
        }
    }

    /// The message of loggers that name it in a way that many others use for something else. That they say a level shows
    /// that they are loggers.
    fn unusual_message(&self, object: &[Field<'a>]) -> Option<Message> {
        self.severity.as_ref()?;
        object.iter().enumerate().find_map(|(at, (name, value))| match (name.as_ref(), value) {
            ("fields", Value::Map(_)) if value.get("message").is_some_and(Value::is_something) => {
                Some(Message::Within(at))
            }
            ("event", Value::Str(_)) => Some(Message::At(at)),
            _ => None,
        })
    }

    /// The span that Rust's Lambda runtime opens around an invocation. What it says stays where it is.
    fn read_span(&mut self, span: &Value<'a>) {
        if self.request_id.is_none() {
            self.request_id = span.get("requestId").and_then(lambda_request_id);
        }
        if self.trace_id.is_none()
            && let Some(header) = span.get("xrayTraceId").and_then(Value::as_str)
        {
            let header = XRayHeader::parse(header);
            self.trace_id = header.trace_id;
            self.trace_flags = self.trace_flags.or(header.sampled.map(u32::from));
        }
    }

    /// What the first field says that can be read as what `place` holds, and whether that is all it says: then it is
    /// placed.
    fn place<T>(
        &mut self,
        known: &Known<'_, 'a>,
        place: Place,
        mut read: impl FnMut(&Value<'a>) -> Option<(T, bool)>,
    ) -> Option<T> {
        let (at, (found, is_all)) = known.fields(place).find_map(|(at, value)| Some((at, read(value)?)))?;
        if is_all {
            self.placed.push(at);
        }
        Some(found)
    }
}

fn exactly<T>(found: Option<T>) -> Option<(T, bool)> {
    found.map(|found| (found, true))
}

/// The fields of an object whose names mean something.
struct Known<'o, 'a> {
    object: &'o [Field<'a>],
    /// Names by their place in [`NAMES`], each with the place of the first field that has it. Few: a table of all names
    /// would take longer to look through than it takes to read an object.
    found: Vec<(usize, usize)>,
}

impl<'o, 'a> Known<'o, 'a> {
    fn of(object: &'o [Field<'a>]) -> Self {
        let mut found = Vec::with_capacity(object.len().min(NAMES.len()));
        for (at, (name, _)) in object.iter().enumerate() {
            let Some(rank) = rank(name) else { continue };
            let place = found.partition_point(|(before, _)| *before < rank);
            if found.get(place).is_none_or(|(next, _)| *next != rank) {
                found.insert(place, (rank, at));
            }
        }
        Self { object, found }
    }

    fn fields(&self, wanted: Place) -> impl Iterator<Item = (usize, &'o Value<'a>)> {
        let places = self
            .found
            .iter()
            .filter(move |(rank, _)| NAMES.get(*rank).is_some_and(|(_, place)| *place == wanted));
        places.filter_map(|(_, at)| Some((*at, &self.object.get(*at)?.1)))
    }

    fn message(&self) -> Option<Message> {
        self.fields(Place::Message).find(|(_, value)| value.is_something()).map(|(at, _)| Message::At(at))
    }
}

/// The field `name`.
pub(super) fn get<'o, 'a>(object: &'o [Field<'a>], name: &str) -> Option<&'o Value<'a>> {
    object.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Numbers are levels only in what is certainly a line of pino's or bunyan's: Python's loggers use the same
/// numbers for other levels. The field stays an attribute, for the sake of the number.
fn pino_level<'a>(object: &[Field<'a>]) -> Option<Severity<'a>> {
    let has = |name| matches!(get(object, name), Some(Value::Int(_) | Value::Str(_)));
    match get(object, "level")? {
        Value::Int(level) if has("pid") && has("hostname") && has("msg") && has("time") => {
            Severity::from_pino(*level)
        }
        _ => None,
    }
}

/// An identifier in hexadecimal. X-Ray's form of a trace id (`1-`, eight digits, `-`, 24 digits) is one as
/// well. All zeros is no identifier (W3C Trace Context, sections 3.2.2.3 and 3.2.2.4).
pub(crate) fn id<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let (first, rest) = match text.strip_prefix("1-").and_then(|x_ray| x_ray.split_once('-')) {
        Some((seconds, rest)) if BYTES == 16 && seconds.len() == 8 && rest.len() == 24 => (seconds, rest),
        _ if text.len() == 2 * BYTES => (text, ""),
        _ => return None,
    };
    let mut digits = first.bytes().chain(rest.bytes());
    let mut id = [0_u8; BYTES];
    for byte in &mut id {
        *byte = (nibble(digits.next()?)? << 4) | nibble(digits.next()?)?;
    }
    (id != [0; BYTES]).then_some(id)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// W3C trace flags: two hexadecimal digits, or the number.
fn flags(value: &Value<'_>) -> Option<u32> {
    match value {
        Value::Str(text) if text.len() == 2 => u8::from_str_radix(text, 16).ok().map(u32::from),
        Value::Int(number) => u8::try_from(*number).ok().map(u32::from),
        _ => None,
    }
}

/// The trace id and the sampled flag of an X-Ray trace header (`Root=1-…;Parent=…;Sampled=1`).
pub(super) fn x_ray(header: &str) -> (Option<[u8; 16]>, u32) {
    let header = XRayHeader::parse(header);
    (header.trace_id, u32::from(header.sampled == Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_any_case_and_no_other_is() {
        for (at, (name, _)) in NAMES.iter().enumerate() {
            for name in [(*name).to_owned(), name.to_uppercase(), name.to_lowercase()] {
                assert_eq!(
                    rank(&name),
                    NAMES.iter().position(|(known, _)| known.eq_ignore_ascii_case(&name))
                );
                assert_eq!(rank(&name), Some(at));
            }
            for other in [format!("{name}x"), format!("x{name}"), name[1..].to_owned()] {
                let known = NAMES.iter().position(|(known, _)| known.eq_ignore_ascii_case(&other));
                assert_eq!(rank(&other), known, "{other}");
            }
        }
        assert_eq!((rank(""), rank(&"m".repeat(32)), rank("\u{4d}\u{e9}")), (None, None, None));
    }

    #[test]
    fn identifiers_are_read_in_both_forms() {
        let trace =
            [0x63, 0x52, 0xa7, 0x0e, 0x1e, 0x2c, 0x50, 0x2e, 0x35, 0x83, 0x61, 0x80, 0x02, 0x41, 0xfd, 0x45];
        assert_eq!(id("6352a70e1e2c502e358361800241fd45"), Some(trace));
        assert_eq!(id("6352A70E1E2C502E358361800241FD45"), Some(trace));
        assert_eq!(id("1-6352a70e-1e2c502e358361800241fd45"), Some(trace));
        assert_eq!(
            x_ray("Root=1-6352a70e-1e2c502e358361800241fd45;Parent=35465b3a9e2f7c6a;Sampled=1"),
            (Some(trace), 1)
        );
        assert_eq!(x_ray("Sampled=0"), (None, 0));
        assert_eq!(id("35465b3a9e2f7c6a"), Some([0x35, 0x46, 0x5b, 0x3a, 0x9e, 0x2f, 0x7c, 0x6a]));
        for text in [
            "",
            "0000000000000000",
            "35465b3a9e2f7c6",
            "+5465b3a9e2f7c6a",
            "35465b3a9e2f7c6ag",
            "é5465b3a9e2f7c6a",
        ] {
            assert_eq!(id::<8>(text), None, "{text}");
        }
        for text in
            ["1-6352a70e-1e2c", "1-6352a70e1e2c502e358361800241fd45", "1-6352a70-e1e2c502e358361800241fd45"]
        {
            assert_eq!(id::<16>(text), None, "{text}");
        }
    }
}
