//! What a backend says in the body of its answer.
//!
//! OTLP/HTTP answers in protobuf: `ExportLogsServiceResponse` (its metrics and traces siblings have the same
//! field numbers) with 200, `google.rpc.Status` otherwise. Two or three fields are wanted out of them, so this
//! is a reader of fields rather than generated code. Proxies and vendors answer in JSON or text; their words are
//! taken where there are any, for they are what the user needs to see. A body never decides the verdict.

/// Messages are cut here: enough for a reason, little enough for a line of the log.
pub const MESSAGE_MAX_CHARS: usize = 256;

/// `ExportLogsServiceResponse.partial_success`.
const PARTIAL_SUCCESS_FIELD: u64 = 1;
/// `ExportLogsPartialSuccess.rejected_log_records`, int64.
const REJECTED_FIELD: u64 = 1;
/// `ExportLogsPartialSuccess.error_message`, string.
const ERROR_MESSAGE_FIELD: u64 = 2;
/// `google.rpc.Status.message`, string.
const STATUS_MESSAGE_FIELD: u64 = 2;

/// One field of a protobuf message.
#[derive(Debug)]
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Fixed width: none of the fields wanted here.
    Other,
}

/// How many records the backend took but will not keep, and its words about it. A body that is no such message
/// says nothing: (0, none).
pub(super) fn partial_success(body: &[u8]) -> (u64, Option<String>) {
    if let Some(json) = json(body) {
        return partial_success_json(&json);
    }
    let mut found = (0, None);
    let Some(response) = fields(body) else { return found };
    for (_, value) in response.iter().filter(|(number, _)| *number == PARTIAL_SUCCESS_FIELD) {
        let Value::Bytes(inner) = value else { continue };
        for (number, value) in fields(inner).unwrap_or_default() {
            match (number, value) {
                // An int64; a negative count is no count.
                (REJECTED_FIELD, Value::Varint(count)) => {
                    found.0 = count.cast_signed().max(0).cast_unsigned();
                }
                (ERROR_MESSAGE_FIELD, Value::Bytes(text)) => found.1 = one_line(text),
                _ => {}
            }
        }
    }
    found
}

/// The backend's words about why it refused; empty if it gave none.
pub(super) fn refusal(body: &[u8]) -> String {
    let from_json = || {
        let json = json(body)?;
        let text = ["message", "error", "errorMessage", "detail"].into_iter().find_map(|key| {
            match json.get(key)? {
                serde_json::Value::String(text) => Some(text.clone()),
                serde_json::Value::Object(inner) => inner.get("message")?.as_str().map(str::to_owned),
                _ => None,
            }
        })?;
        one_line(text.as_bytes())
    };
    let from_status = || {
        fields(body)?.into_iter().find_map(|(number, value)| match (number, value) {
            (STATUS_MESSAGE_FIELD, Value::Bytes(text)) => one_line(text),
            _ => None,
        })
    };
    from_json().or_else(from_status).or_else(|| one_line(body)).unwrap_or_default()
}

/// The body as a JSON object, if it is one. A protobuf message that begins with `{` would open a group, which
/// neither message has.
fn json(body: &[u8]) -> Option<serde_json::Value> {
    body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(body).ok()).flatten()
}

/// OTLP/HTTP in JSON: the name of the count depends on the signal, 64-bit integers may be strings.
fn partial_success_json(json: &serde_json::Value) -> (u64, Option<String>) {
    let Some(partial) = json.get("partialSuccess") else { return (0, None) };
    let rejected = ["rejectedLogRecords", "rejectedDataPoints", "rejectedSpans"]
        .into_iter()
        .find_map(|key| {
            let value = partial.get(key)?;
            value.as_u64().or_else(|| value.as_str()?.parse().ok())
        })
        .unwrap_or(0);
    let message = partial.get("errorMessage").and_then(|text| one_line(text.as_str()?.as_bytes()));
    (rejected, message)
}

/// Text made fit for a line of the log: control characters and runs of white space become one space, cut at
/// [`MESSAGE_MAX_CHARS`]. None if it is not UTF-8 or has nothing to say.
pub(super) fn one_line(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let mut line = String::new();
    let mut chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let space = usize::from(!line.is_empty());
        if chars + space >= MESSAGE_MAX_CHARS {
            break;
        }
        line.extend(std::iter::repeat_n(' ', space));
        let room = MESSAGE_MAX_CHARS - chars - space;
        line.extend(word.chars().take(room));
        chars += space + word.chars().count().min(room);
    }
    (!line.is_empty()).then_some(line)
}

/// The fields of a protobuf message in order (protobuf encoding guide); none if it is not one.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut message)?),
            1 => take(&mut message, 8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Value::Bytes(take(&mut message, length)?)
            }
            5 => take(&mut message, 4).map(|_| Value::Other)?,
            _ => return None,
        };
        if tag >> 3 == 0 {
            return None;
        }
        fields.push((tag >> 3, value));
    }
    Some(fields)
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

/// A base-128 integer, at most ten bytes.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    use proptest::prelude::*;
    use prost::Message;

    fn response(rejected_log_records: i64, error_message: &str) -> Vec<u8> {
        let partial =
            ExportLogsPartialSuccess { rejected_log_records, error_message: error_message.to_owned() };
        ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    }

    /// `google.rpc.Status` has no type among the crates used here; its first two fields are these.
    #[derive(Clone, PartialEq, Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }

    #[test]
    fn a_partial_success_is_read_as_the_specification_encodes_it() {
        assert_eq!(partial_success(&[]), (0, None));
        assert_eq!(partial_success(&ExportLogsServiceResponse::default().encode_to_vec()), (0, None));
        assert_eq!(partial_success(&response(7, "too old")), (7, Some("too old".to_owned())));
        assert_eq!(partial_success(&response(0, "a warning")), (0, Some("a warning".to_owned())));
        assert_eq!(partial_success(&response(i64::MAX, "")), (i64::MAX.unsigned_abs(), None));
        assert_eq!(partial_success(&response(-1, "")), (0, None));
    }

    #[test]
    fn a_partial_success_in_json_is_read_too() {
        let body = br#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"no\nroom"}}"#;
        assert_eq!(partial_success(body), (3, Some("no room".to_owned())));
        assert_eq!(partial_success(br#"{"partialSuccess":{"rejectedSpans":2}}"#), (2, None));
        assert_eq!(partial_success(b"{}"), (0, None));
        assert_eq!(partial_success(br#"{"partialSuccess":[]}"#), (0, None));
    }

    #[test]
    fn a_body_that_is_something_else_says_nothing_about_records() {
        for body in
            [&b"OK"[..], b"<html></html>", b"{", b"\x0a\xff\xff\xff\xff\xff", b"\x0a\x7f", &[0xff; 40]]
        {
            assert_eq!(partial_success(body), (0, None), "{body:?}");
        }
    }

    #[test]
    fn the_reason_of_a_refusal_is_found_in_protobuf_json_and_text() {
        let status = Status { code: 3, message: "bad\n record".to_owned() }.encode_to_vec();
        for (body, reason) in [
            (&status[..], "bad record"),
            (br#"{"code":3,"message":"bad record"}"#, "bad record"),
            (br#"{"error":{"message":"bad record"}}"#, "bad record"),
            (br#"{"error":"bad record"}"#, "bad record"),
            (br#"{"odd":1}"#, r#"{"odd":1}"#),
            (b"bad  record\r\n", "bad record"),
            (b"", ""),
            (b"\xff\xfe", ""),
        ] {
            assert_eq!(refusal(body), reason, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_a_panic_and_its_message_is_one_short_line(body in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,600}|[ \u{7f}\n\ta-z]{0,600}") {
            for body in [&body[..], text.as_bytes(), &response(1, &text)] {
                let message = partial_success(body).1.unwrap_or_default();
                for line in [message, refusal(body)] {
                    prop_assert!(line.chars().count() <= MESSAGE_MAX_CHARS);
                    prop_assert!(!line.chars().any(char::is_control));
                }
            }
        }
    }
}
