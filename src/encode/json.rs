//! JSON as it is written (RFC 8259), for the formats that are made of it.
//!
//! Nothing here puts white space, and text never holds a raw control character. So a line feed between records is a bound
//! that no record can fake (`lines.rs`). Names are the caller's to keep unique.

use std::borrow::Cow;

use crate::record::{Field, LogRecord, Resource, Value};

/// Digits of nanoseconds in a second.
const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// What one byte of text becomes at most: a control character without a short form.
const ESCAPED_MAX_BYTES: usize = "\\u0000".len();

/// The members of an object under construction.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl Object<'_> {
    /// A member whose value `write` appends.
    pub(super) fn member(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        string(name, self.out);
        self.out.push(b':');
        write(self.out);
    }

    /// A member that is text.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.member(name, |out| string(text, out));
    }

    /// A member that is text, left out if it is empty.
    pub(super) fn some_text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    /// A member that is a number.
    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.member(name, |out| digits(number, out));
    }

    /// A member that is any value.
    pub(super) fn value(&mut self, name: &str, value: &Value<'_>) {
        self.member(name, |out| any_value(value, out));
    }

    /// A member that is an id in hexadecimal, left out if there is none.
    pub(super) fn id(&mut self, name: &str, id: Option<&[u8]>) {
        if let Some(id) = id {
            self.member(name, |out| {
                out.push(b'"');
                hex(id, out);
                out.push(b'"');
            });
        }
    }

    /// A member that is an object.
    pub(super) fn object(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) {
        self.member(name, |out| object(out, write));
    }

    /// A member that is an object of `fields`, left out if there are none.
    pub(super) fn fields(&mut self, name: &str, fields: &[Field<'_>]) {
        if !fields.is_empty() {
            self.object(name, |object| fields.iter().for_each(|(name, value)| object.value(name, value)));
        }
    }
}

/// Appends an object whose members `write` adds.
pub(super) fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    write(&mut Object { out, is_empty: true });
    out.push(b'}');
}

/// Appends a list of what `write` appends for each item.
pub(super) fn array<T>(
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(b'[');
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

/// Appends any value. Numbers that JSON does not have (NaN, the infinities) become text.
///
/// Recursion is bounded by [`MAX_DEPTH_LEVELS`](crate::record::value::MAX_DEPTH_LEVELS) where values are read.
pub(super) fn any_value(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Empty => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => integer(*number, out),
        Value::Double(number) => double(*number, out),
        Value::Str(text) => string(text, out),
        Value::Array(items) => array(items, out, any_value),
        Value::Map(fields) => {
            object(out, |object| fields.iter().for_each(|(name, value)| object.value(name, value)));
        }
    }
}

/// Appends text in quotes.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let Some(letter) = escape(*byte) else { continue };
        out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
        copied = at + 1;
        out.push(b'\\');
        out.push(letter);
        if letter == b'u' {
            out.extend_from_slice(b"00");
            hex(&[*byte], out);
        }
    }
    out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
    out.push(b'"');
}

/// The letter behind the backslash for a byte that may not stand in a string (RFC 8259, section 7).
const fn escape(byte: u8) -> Option<u8> {
    match byte {
        b'"' | b'\\' => Some(byte),
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        0..0x20 => Some(b'u'),
        _ => None,
    }
}

/// Appends a number in decimal.
pub(super) fn digits(number: u64, out: &mut Vec<u8>) {
    padded(number, 1, out);
}

/// Appends a number in decimal, with zeros before it up to `width` digits.
fn padded(mut number: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    while number > 0 || out.len() < start + width {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
    }
    if let Some(written) = out.get_mut(start..) {
        written.reverse();
    }
}

/// Appends a signed number in decimal.
pub(super) fn integer(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    digits(number.unsigned_abs(), out);
}

/// Appends a number with the fewest digits that read back as the same.
pub(super) fn double(number: f64, out: &mut Vec<u8>) {
    let quote = if number.is_finite() { "" } else { "\"" };
    let name = match number {
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        // Rust's debug form is JSON, and short for very large and very small numbers as well.
        _ => format!("{number:?}"),
    };
    out.extend_from_slice(format!("{quote}{name}{quote}").as_bytes());
}

/// Appends bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
    out.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
}

/// Appends a point in time as RFC 3339 has it, in quotes, in UTC, with nanoseconds.
pub(super) fn rfc3339(unix_nanos: u64, out: &mut Vec<u8>) {
    let seconds = unix_nanos / NANOS_PER_SECOND;
    let (year, month, day) = date(seconds / SECONDS_PER_DAY);
    let second = seconds % SECONDS_PER_DAY;
    out.push(b'"');
    for (number, width, end) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
        (unix_nanos % NANOS_PER_SECOND, 9, b'Z'),
    ] {
        padded(number, width, out);
        out.push(end);
    }
    out.push(b'"');
}

/// Year, month and day of the day `days` after the first of January 1970. 64 bits of nanoseconds end in 2554.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted in years that begin in March, so that the leap day is the last of its year, in cycles of 400 years.
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_PER_CYCLE: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (cycle, day) = (days / DAYS_PER_CYCLE, days % DAYS_PER_CYCLE);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day + 2) / 153;
    let day = day - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = 400 * cycle + year + u64::from(month <= 2);
    (year, month, day)
}

/// Appends a number of seconds with milliseconds, `1570818238.015`.
pub(super) fn seconds(unix_nanos: u64, out: &mut Vec<u8>) {
    digits(unix_nanos / NANOS_PER_SECOND, out);
    out.push(b'.');
    padded(unix_nanos % NANOS_PER_SECOND / 1_000_000, 3, out);
}

/// Milliseconds since the Unix epoch.
pub(super) const fn millis(unix_nanos: u64) -> u64 {
    unix_nanos / 1_000_000
}

/// The body of a record as text: text as it is, anything else as JSON.
pub(super) fn body_text<'r>(record: &'r LogRecord<'_>) -> Cow<'r, str> {
    plain_text(&record.body)
}

/// `value` as JSON.
pub fn json_text(value: &Value<'_>) -> String {
    let mut json = Vec::new();
    any_value(value, &mut json);
    // It is made of text only.
    String::from_utf8(json).unwrap_or_default()
}

/// Text as it is, nothing as nothing, anything else as JSON.
pub(super) fn plain_text<'v>(value: &'v Value<'_>) -> Cow<'v, str> {
    match value {
        Value::Str(text) => text.as_ref().into(),
        Value::Empty => "".into(),
        other => json_text(other).into(),
    }
}

/// As much of the beginning of `text` as takes at most `max_bytes`, and how many bytes that leaves out.
pub(super) fn cut(text: &str, max_bytes: usize) -> (&str, usize) {
    let mut end = max_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kept = text.get(..end).unwrap_or(text);
    (kept, text.len() - kept.len())
}

/// As [`cut`], by the bytes that the text takes in a JSON string, its quotes not counted: what has to be escaped takes more.
pub(super) fn cut_escaped(text: &str, max_bytes: usize) -> (&str, usize) {
    let mut room = max_bytes;
    let mut fits = |byte: &u8| {
        let bytes = match escape(*byte) {
            None => 1,
            Some(b'u') => ESCAPED_MAX_BYTES,
            Some(_) => 2,
        };
        room.checked_sub(bytes).map(|left| room = left).is_some()
    };
    cut(text, text.as_bytes().iter().take_while(|byte| fits(byte)).count())
}

/// An id in hexadecimal; empty if there is none.
pub(super) fn hex_text(id: Option<&[u8]>) -> String {
    let mut text = Vec::new();
    hex(id.unwrap_or_default(), &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// The attribute `name` of a resource, if it is text.
pub(super) fn resource_text<'r>(resource: &'r Resource, name: &str) -> &'r str {
    resource.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The attribute `name` of a record, if it is text.
pub(super) fn record_text<'r>(record: &'r LogRecord<'_>, name: &str) -> &'r str {
    let found = record.attributes.iter().find(|(key, _)| key == name);
    found.and_then(|(_, value)| value.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_json_lacks_are_text() {
        for (number, text) in [
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
            (-0.0, "-0.0"),
            (1e21, "1e21"),
            (1.5, "1.5"),
        ] {
            assert_eq!(written(|out| double(number, out)), text);
        }
        assert_eq!(written(|out| integer(i64::MIN, out)), i64::MIN.to_string());
    }

    #[test]
    fn times_are_written_in_the_forms_of_the_formats() {
        assert_eq!(written(|out| rfc3339(0, out)), "\"1970-01-01T00:00:00.000000000Z\"");
        assert_eq!(written(|out| seconds(1_570_818_238_015_999_999, out)), "1570818238.015");
        assert_eq!(millis(1_570_818_238_015_999_999), 1_570_818_238_015);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aé", 3), ("aé", 0));
        assert_eq!(cut("aé", 2), ("a", 2));
        assert_eq!(cut("é", 0), ("", 2));
    }

    proptest! {
        #[test]
        fn what_is_cut_for_a_string_fits_and_is_no_shorter_than_it_must_be(text in "[a\"\\\\\n\u{1}é€]{0,20}", max in 0..60usize) {
            let (kept, left_out) = cut_escaped(&text, max);
            let escaped = |text: &str| written(|out| string(text, out)).len() - 2;
            prop_assert!(escaped(kept) <= max && kept.len() + left_out == text.len());
            if let Some(next) = text[kept.len()..].chars().next() {
                let longer = format!("{kept}{next}");
                prop_assert!(escaped(&longer) > max);
            }
        }

        #[test]
        fn another_reader_finds_every_text_and_number(text in any::<String>(), int: i64, number in any::<f64>()) {
            let read = |json: String| serde_json::from_str::<serde_json::Value>(&json).unwrap();
            let json = written(|out| string(&text, out));
            prop_assert!(!json.bytes().any(|byte| byte < 0x20));
            prop_assert_eq!(read(json), serde_json::json!(text));
            prop_assert_eq!(read(written(|out| integer(int, out))), serde_json::json!(int));
            if number.is_finite() {
                prop_assert_eq!(read(written(|out| double(number, out))).as_f64(), Some(number));
            }
        }

        #[test]
        fn every_time_is_written_as_another_library_reads_it(nanos: u64) {
            let text = written(|out| rfc3339(nanos, out));
            let date = OffsetDateTime::from_unix_timestamp_nanos(nanos.into()).unwrap();
            let whole = date.replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap();
            prop_assert_eq!(text, format!("\"{}.{:09}Z\"", whole.trim_end_matches('Z'), date.nanosecond()));
        }
    }
}
