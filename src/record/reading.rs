//! What an event's record says, as a value that may still be changed before it becomes a log record.

use std::borrow::Cow;

use super::event::{Event, Kind};
use super::line::Line;
use super::value::{Field, Value};

/// What becomes of a line that is the text of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonLines {
    /// It is the body as it is, and what it tells of severity, time, request id and trace is known.
    #[default]
    Text,
    /// As if it had come as an object: its message is the body, and the rest are attributes.
    Fields,
    /// It is text like any other.
    Off,
}

/// The record of an event, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading<'a> {
    /// `None` if the record is no JSON, or the event is no event.
    pub(super) value: Option<Value<'a>>,
    /// The line that `value` was read from, if that was a line.
    pub(super) line: Option<&'a str>,
    /// The line is the body, even if it has a message in it.
    pub(super) stays_line: bool,
    /// When it was logged, by what is not a field of its own.
    pub(super) time_unix_nanos: Option<u64>,
    /// It is not what the record said any more.
    is_changed: bool,
}

/// The text of a record that is a line and may be the text of an object: what loggers write while Lambda's log format is
/// `Text`. `None`, at the cost of a look at a few bytes, for everything else.
pub fn json_line(event: &Event<'_>) -> Option<String> {
    let inside = event.record.strip_prefix(b"\"{")?.strip_suffix(b"\"")?;
    let inside = inside.strip_suffix(br"\n").unwrap_or(inside);
    let inside = inside.strip_suffix(br"\r").unwrap_or(inside);
    if !event.kind.is_logged() || !inside.ends_with(b"}") {
        return None;
    }
    match Value::parse(event.record)? {
        Value::Str(text) => Some(without_newline(text).into_owned()),
        _ => None,
    }
}

/// A line in the form that Node.js's `console` has on Lambda, `TIME⇥REQUEST⇥LEVEL⇥{…}`, in two: what stands before the text of
/// an object, and that text. Embedded metrics are looked for in it. `None`, at the cost of a look at a few bytes, for most
/// others.
pub fn object_in_line(event: &Event<'_>) -> Option<(String, String)> {
    let inside = event.record.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let inside = inside.strip_suffix(br"\n").unwrap_or(inside);
    if !event.kind.is_logged() || !inside.ends_with(b"}") || !inside.first()?.is_ascii_digit() {
        return None;
    }
    let Value::Str(text) = Value::parse(event.record)? else { return None };
    let text = without_newline(text);
    let mut columns = text.splitn(4, '\t');
    let (_, request_id, _) = (columns.next()?, columns.next()?, columns.next()?);
    let object = columns.next().filter(|object| object.starts_with('{'))?;
    let line = Line::read(&text);
    let is_nodes = line.level.is_some() && (line.request_id.is_some() || request_id == "undefined");
    let before = text.get(..text.len() - object.len())?;
    is_nodes.then(|| (before.to_owned(), object.to_owned()))
}

impl<'a> Reading<'a> {
    /// Reads the record of `event`. `line` is its [`json_line`], if that is to be read as the object it may be.
    pub fn of(event: &Event<'a>, line: Option<&'a str>) -> Self {
        match (line, &event.kind) {
            (Some(line), _) => match Value::parse(line.as_bytes()) {
                Some(object @ Value::Map(_)) => {
                    Self { value: Some(object), line: Some(line), ..Self::default() }
                }
                _ => Self::text(line),
            },
            (None, Kind::Odd | Kind::Cut) => Self::default(),
            (None, kind) => match plain_line(event.record).filter(|_| kind.is_logged()) {
                Some(line) => Self::text(line),
                None => Self { value: Value::parse(event.record), ..Self::default() },
            },
        }
    }

    /// A line.
    pub fn text(line: &'a str) -> Self {
        Self { value: Some(Value::Str(Cow::Borrowed(line))), ..Self::default() }
    }

    /// The same, with a line made what is wanted of it.
    #[must_use]
    pub fn with(self, wanted: JsonLines) -> Self {
        match (wanted, self.line) {
            (JsonLines::Off, Some(line)) => Self::text(line),
            (wanted, _) => Self { stays_line: wanted == JsonLines::Text, ..self },
        }
    }

    /// The members of the object that the record is; none if it is something else.
    pub fn members(&self) -> &[Field<'a>] {
        match &self.value {
            Some(Value::Map(members)) => members,
            _ => &[],
        }
    }

    /// It was logged at `time_unix_nanos`, unless a field of its own says when.
    pub fn dated(&mut self, time_unix_nanos: Option<u64>) {
        self.time_unix_nanos = time_unix_nanos;
    }

    /// What the record says now, if it was changed.
    pub fn changed(&self) -> Option<&Value<'a>> {
        self.value.as_ref().filter(|_| self.is_changed)
    }

    /// The same, to be changed. What they become is what the record says, and no longer the line they were read from.
    pub fn members_mut(&mut self) -> Option<&mut Vec<Field<'a>>> {
        self.line = None;
        self.is_changed = true;
        match &mut self.value {
            Some(Value::Map(members)) => Some(members),
            _ => None,
        }
    }
}

/// The line that `record` is, without the newline at its end, if that newline is all in it that is escaped: it stays where
/// it is, where decoding would copy it for the sake of its last character.
fn plain_line(record: &[u8]) -> Option<&str> {
    let inside = record.strip_prefix(b"\"")?.strip_suffix(br#"\n""#)?;
    let is_plain = memchr::memchr2(b'"', b'\\', inside).is_none()
        && !inside.ends_with(b"\n")
        && !inside.ends_with(b"\r");
    if is_plain { str::from_utf8(inside).ok() } else { None }
}

/// A line without the newline at its end.
pub(super) fn without_newline(text: Cow<'_, str>) -> Cow<'_, str> {
    let Some(end) = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text).len()) else {
        return text;
    };
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(..end).unwrap_or(text)),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(record: &str) -> Option<String> {
        json_line(&Event::parse(format!(r#"{{"type":"function","record":{record}}}"#).as_bytes()))
    }

    #[test]
    fn only_a_line_that_may_be_an_object_is_looked_into() {
        let text = r#"{"a":"b"}"#;
        for end in ["", r"\n", r"\r\n"] {
            assert_eq!(line_of(&format!(r#""{{\"a\":\"b\"}}{end}""#)).as_deref(), Some(text), "{end}");
        }
        for record in
            [r#""a {}""#, r#""{} a""#, r#"" {}""#, r#"{"a":"{}"}"#, "{}", r#""[1]""#, r#""""#, r#""{\n""#]
        {
            assert_eq!(line_of(record), None, "{record}");
        }
        assert_eq!(json_line(&Event::parse(br#"{"type":"platform.end","record":"{}"}"#)), None);
        assert_eq!(json_line(&Event::cut(br#""{}""#)), None);
    }

    #[test]
    fn an_object_behind_what_node_writes_is_found() {
        let id = "8c181f94-0f1e-4cdb-a46b-a8dbe7918715";
        let found = |text: &str| {
            let raw = serde_json::json!({"type": "function", "record": text}).to_string();
            object_in_line(&Event::parse(raw.as_bytes()))
        };
        for head in [
            format!("2024-05-15T23:59:20.159Z\t{id}\tINFO\t"),
            "2024-05-15T23:59:20.159Z\tundefined\tINFO\t".into(),
        ] {
            let object = "{\"a\":\"b\\tc\"}";
            assert_eq!(found(&format!("{head}{object}\n")), Some((head, object.to_owned())));
        }
        for text in [
            &format!("2024-05-15T23:59:20.159Z\t{id}\tINFO\tx {{}}"),
            &format!("2024-05-15T23:59:20.159Z\t{id}\tso-so\t{{}}"),
            "2024-05-15T23:59:20.159Z\tINFO\tapp/main.go:7\t{}",
            "2024-05-15\tx\tINFO\t{}",
            "{}",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_an_object_stays_a_line() {
        let event = Event::parse(br#"{"type":"function","record":"{a}"}"#);
        let line = json_line(&event).unwrap();
        assert_eq!(Reading::of(&event, Some(&line)), Reading::text("{a}"));
        assert_eq!(Reading::of(&event, None), Reading::text("{a}"));
    }

    #[test]
    fn a_line_with_nothing_else_escaped_is_borrowed_and_reads_as_before() {
        for inside in [
            r"a b",
            r"a b\n",
            r"a b\r\n",
            r"a\tb\n",
            r"\n",
            r"\\n",
            r"\\\n",
            "raw\n\\n",
            "raw\r\\n",
            "é\u{1f600}\\n",
            "\\n\\n",
        ] {
            let record = format!("\"{inside}\"");
            let raw = format!(r#"{{"type":"function","record":{record}}}"#);
            let event = Event::parse(raw.as_bytes());
            let Some(Value::Str(text)) = Value::parse(record.as_bytes()) else { panic!("{inside}") };
            let Some(Value::Str(read)) = Reading::of(&event, None).value else { panic!("{inside}") };
            assert_eq!(without_newline(read), without_newline(text), "{inside}");
        }
        let event = Event::parse(br#"{"type":"function","record":"a b\n"}"#);
        assert!(matches!(Reading::of(&event, None).value, Some(Value::Str(Cow::Borrowed("a b")))));
        let event = Event::parse(br#"{"type":"platform.x","record":"a b\n"}"#);
        assert_eq!(Reading::of(&event, None).value, Some(Value::Str("a b\n".into())));
    }
}
