//! The fields of a logged object that have a place of their own in a log record.

use std::borrow::Cow;

use super::log::lambda_request_id;
use super::severity::Severity;
use super::time;
use super::trace_context::{TraceParent, XRayHeader};
use super::value::{Field, Value};

/// What a logged object says in the fields that loggers agree on.
#[derive(Default)]
pub(super) struct Fields<'a> {
    /// The name of the field that is the message.
    pub(super) message: Option<&'static str>,
    pub(super) time: Option<u64>,
    pub(super) severity: Option<Severity<'a>>,
    pub(super) request_id: Option<Cow<'a, str>>,
    pub(super) trace_id: Option<[u8; 16]>,
    pub(super) span_id: Option<[u8; 8]>,
    pub(super) trace_flags: Option<u32>,
    /// The names of the fields that say no more than the above.
    pub(super) placed: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn read(object: &[Field<'a>]) -> Self {
        let mut fields = Self { message: name_of(object, &["message", "msg"]), ..Self::default() };
        fields.time = fields.place(object, &["timestamp", "time"], time::of_value);
        fields.severity = fields.place(object, &["level", "severity"], |value| match value {
            Value::Str(word) => Severity::from_word(word.clone()),
            _ => None,
        });
        if fields.severity.is_none() {
            fields.severity = pino_level(object);
        }
        fields.request_id = fields.place(object, &["requestId", "AWSRequestId"], lambda_request_id);
        fields.trace_id = fields.place(object, &["traceId", "trace_id"], |value| id(value.as_str()?));
        fields.span_id = fields.place(object, &["spanId", "span_id"], |value| id(value.as_str()?));
        fields.trace_flags = fields.place(object, &["traceFlags", "trace_flags"], flags);
        if fields.trace_id.is_none()
            && fields.span_id.is_none()
            && let Some(parent) =
                fields.place(object, &["traceparent"], |value| TraceParent::parse(value.as_str()?))
        {
            fields.trace_id = Some(parent.trace_id);
            fields.span_id = Some(parent.span_id);
            fields.trace_flags = fields.trace_flags.or(Some(parent.flags));
        }
        fields
    }

    /// The first of `names` that can be read; its field is then placed.
    fn place<T>(
        &mut self,
        object: &[Field<'a>],
        names: &[&'static str],
        read: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Option<T> {
        let (name, found) = names.iter().find_map(|name| Some((*name, read(get(object, name)?)?)))?;
        self.placed.push(name);
        Some(found)
    }
}

fn get<'o, 'a>(object: &'o [Field<'a>], name: &str) -> Option<&'o Value<'a>> {
    object.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

fn name_of(object: &[Field<'_>], names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|name| get(object, name).is_some_and(|value| *value != Value::Empty))
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
