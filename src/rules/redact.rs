//! What is taken out of records, wherever in them it stands.

use super::detect::Detector;
use super::keys::Keys;
use super::pattern::Patterns;
use super::raw::{End, walk};
use super::spans::{Span, replace};
use crate::record::log::{CUT, INVOCATION_ID, TELEMETRY_TYPE, UID, UNPARSED};
use crate::record::value::make_names_unique;
use crate::record::{Field, LogRecord, Value};
use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

/// Whether the body is the raw text of something that could not be read.
pub(super) fn is_unread(record: &LogRecord<'_>) -> bool {
    record.attributes.iter().any(|(name, _)| name == UNPARSED || name == CUT)
}

/// The part of `text` that is JSON, more or less: a line may have something before it, such as the time and the level that
/// a runtime puts there, and after it. Where nothing is escaped, JSON is as good as text.
fn json_within(text: &str) -> Option<Range<usize>> {
    if text.starts_with('{') && text.ends_with('}') {
        return Some(0..text.len());
    }
    if !text.contains('\\') {
        return None;
    }
    let bytes = text.as_bytes();
    let opens = |at: &usize| {
        let inside = bytes.iter().skip(at + 1).find(|byte| !byte.is_ascii_whitespace());
        matches!((bytes.get(*at), inside), (Some(b'{'), Some(b'"')) | (Some(b'['), Some(b'"' | b'{' | b'[')))
    };
    let start = text.match_indices(['{', '[']).map(|(at, _)| at).take(OPENINGS_MAX).find(opens)?;
    let end = text.rfind(['}', ']']).filter(|end| *end > start)? + 1;
    Some(start..end)
}

/// Brackets in a text that may be the first of JSON. Behind each there may be blanks to look past.
const OPENINGS_MAX: usize = 64;

/// Attributes that hold nothing of what was logged: what identifies the record, and its type.
const OURS: [&str; 4] = [UID, TELEMETRY_TYPE, UNPARSED, CUT];

/// The action `redact`.
#[derive(Clone, Debug)]
pub(super) struct Redaction {
    detectors: Vec<Detector>,
    patterns: Option<Patterns>,
    pub(super) keys: Keys,
    /// What stands in its place.
    pub(super) with: String,
    /// Room, kept from one text to the next.
    spans: Vec<Span>,
    number: String,
}

impl Redaction {
    pub(super) fn new(
        detectors: Vec<Detector>,
        patterns: Option<Patterns>,
        keys: Keys,
        with: String,
    ) -> Self {
        Self { detectors, patterns, keys, with, spans: Vec::new(), number: String::new() }
    }

    /// Takes it out of `record`, and says whether anything was found.
    pub(super) fn apply(&mut self, record: &mut LogRecord<'_>) -> bool {
        let mut found = false;
        let unread = is_unread(record);
        if let Value::Str(text) = &mut record.body {
            // What is written with escapes is found as what it means.
            let written = if unread { Some(0..text.len()) } else { json_within(text) };
            if let Some(written) = written
                && let Some(walked) =
                    walk(text.get(written.clone()).unwrap_or_default().as_bytes(), self, End::Known)
            {
                let (before, after) = (text.get(..written.start), text.get(written.end..));
                let walked = String::from_utf8_lossy(&walked);
                *text = Cow::Owned([before.unwrap_or_default(), &walked, after.unwrap_or_default()].concat());
                found = true;
            }
        }
        found |= self.value(&mut record.body);
        found |= self.fields(&mut record.attributes);
        found
    }

    /// Where in `text` it is.
    pub(super) fn places(&mut self, text: &str, spans: &mut Vec<Span>) {
        for detector in &self.detectors {
            detector.find(text, spans);
        }
        self.keys.find(text, spans);
        if let Some(patterns) = &mut self.patterns {
            patterns.find(text, spans);
        }
    }

    /// `text` without it; `None` if it is not in there.
    pub(super) fn text(&mut self, text: &str) -> Option<String> {
        let mut spans = std::mem::take(&mut self.spans);
        self.places(text, &mut spans);
        let replaced = replace(text, &mut spans, &self.with);
        self.spans = spans;
        replaced
    }

    fn text_of(&mut self, text: &mut Cow<'_, str>) -> bool {
        let replaced = self.text(text);
        let found = replaced.is_some();
        if let Some(replaced) = replaced {
            *text = Cow::Owned(replaced);
        }
        found
    }

    fn value(&mut self, value: &mut Value<'_>) -> bool {
        match value {
            Value::Empty | Value::Bool(_) => false,
            Value::Str(text) => self.text_of(text),
            Value::Int(number) => {
                let number = *number;
                self.number(value, format_args!("{number}"))
            }
            Value::Double(number) => {
                let number = *number;
                self.number(value, format_args!("{number}"))
            }
            Value::Array(items) => items.iter_mut().fold(false, |found, item| self.value(item) | found),
            Value::Map(fields) => self.fields(fields),
        }
    }

    /// A number is a text to whoever looks for one.
    fn number(&mut self, value: &mut Value<'_>, number: std::fmt::Arguments<'_>) -> bool {
        let mut digits = std::mem::take(&mut self.number);
        digits.clear();
        // Writing to a string does not fail.
        let replaced = digits.write_fmt(number).ok().and_then(|()| self.text(&digits));
        self.number = digits;
        let found = replaced.is_some();
        if let Some(replaced) = replaced {
            *value = Value::Str(Cow::Owned(replaced));
        }
        found
    }

    /// Takes it out of names and values, and says whether anything was found.
    pub(super) fn fields(&mut self, fields: &mut [Field<'_>]) -> bool {
        let (mut found, mut renamed) = (false, false);
        for (name, value) in fields.iter_mut() {
            if OURS.contains(&name.as_ref()) {
                continue;
            }
            if !self.keys.is_empty() && self.keys.has(name) {
                *value = Value::Str(Cow::Owned(self.with.clone()));
                found = true;
            } else {
                found |= self.value(value);
            }
            renamed |= name != INVOCATION_ID && self.text_of(name);
        }
        if renamed {
            make_names_unique(fields);
        }
        found | renamed
    }
}
