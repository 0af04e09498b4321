//! Which records a rule is about.

use super::pattern::Patterns;
use crate::record::log::TELEMETRY_TYPE;
use crate::record::{Field, LogRecord, Value};
use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Conditions, all of which must hold. None: every record.
#[derive(Clone, Debug, Default)]
pub(super) struct When {
    /// Types as Lambda spells them; `platform` is all of the platform's.
    pub(super) types: Vec<String>,
    /// Numbers of severities.
    pub(super) severities: Vec<RangeInclusive<u8>>,
    /// Found in the body.
    pub(super) text: Option<Patterns>,
    /// By name.
    pub(super) attributes: Vec<(String, Test)>,
}

/// What an attribute must be.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// Its text has one of these in it.
    Text(Box<Patterns>),
    /// It is this.
    Is(Value<'static>),
}

impl When {
    /// Whether they hold for `record`.
    pub(super) fn holds(&mut self, record: &LogRecord<'_>) -> bool {
        self.is_type(record)
            && (self.severities.is_empty()
                || self.severities.iter().any(|range| range.contains(&record.severity.number)))
            && self.text.as_mut().is_none_or(|patterns| says(&record.body, patterns))
            && self.attributes.iter_mut().all(|(name, test)| {
                let body = match &record.body {
                    Value::Map(fields) => fields.as_slice(),
                    _ => &[],
                };
                let found = get(&record.attributes, name).or_else(|| get(body, name));
                found.is_some_and(|value| test.passes(value))
            })
    }

    fn is_type(&self, record: &LogRecord<'_>) -> bool {
        if self.types.is_empty() {
            return true;
        }
        let kind = record.attributes.iter().find(|(name, _)| name == TELEMETRY_TYPE);
        let Some(kind) = kind.and_then(|(_, kind)| kind.as_str()) else { return false };
        let family = kind.split('.').next().unwrap_or(kind);
        self.types.iter().any(|wanted| wanted == kind || wanted == family)
    }
}

impl Test {
    fn passes(&mut self, value: &Value<'_>) -> bool {
        match self {
            Self::Text(patterns) => says(value, patterns),
            Self::Is(wanted) => {
                let wanted: &Value<'_> = wanted;
                match (wanted.as_f64(), value.as_f64()) {
                    (Some(wanted), Some(value)) => (wanted - value).abs() == 0.0,
                    _ => value == wanted,
                }
            }
        }
    }
}

/// Whether any text or number in `value` has one of `patterns` in it.
fn says(value: &Value<'_>, patterns: &mut Patterns) -> bool {
    let text: Cow<'_, str> = match value {
        Value::Empty => return false,
        Value::Str(text) => Cow::Borrowed(text),
        Value::Bool(is) => Cow::Borrowed(if *is { "true" } else { "false" }),
        Value::Int(number) => Cow::Owned(number.to_string()),
        Value::Double(number) => Cow::Owned(number.to_string()),
        Value::Array(items) => return items.iter().any(|item| says(item, patterns)),
        Value::Map(fields) => return fields.iter().any(|(_, value)| says(value, patterns)),
    };
    patterns.is_in(&text)
}

/// The field `name`, or the one that the dots in `name` lead to.
fn get<'r, 'a>(fields: &'r [Field<'a>], name: &str) -> Option<&'r Value<'a>> {
    fields.iter().find_map(|(key, value)| match (name.strip_prefix(key.as_ref())?, value) {
        ("", value) => Some(value),
        (rest, Value::Map(inner)) => get(inner, rest.strip_prefix('.')?),
        _ => None,
    })
}
