//! JSON as `serde_json` reads it, with what its own `Value` forgets: the order of members, names that occur twice,
//! and the digits of numbers.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Nothing is compared below this depth, where values are kept as text: one level is the envelope.
const DEPTH_MAX: usize = outlast::record::value::MAX_DEPTH_LEVELS + 1;

/// A value and its text.
#[derive(Debug)]
pub(crate) struct Json<'a> {
    pub(crate) raw: &'a str,
    pub(crate) kind: Kind<'a>,
}

#[derive(Debug)]
pub(crate) enum Kind<'a> {
    Null,
    Bool(bool),
    Number,
    Text(String),
    Array(Vec<Json<'a>>),
    Object(Vec<(String, Json<'a>)>),
    /// An object or array that is nested too deep.
    Deep,
}

/// Reads one JSON value by the strict grammar; `None` if it is none, or has text that is no Unicode.
pub(crate) fn read(text: &[u8]) -> Option<Json<'_>> {
    let raw: &RawValue = serde_json::from_slice(text).ok()?;
    value(raw, 0)
}

/// The elements of an array by the strict grammar, as they stand.
pub(crate) fn elements(text: &[u8]) -> Option<Vec<&RawValue>> {
    serde_json::from_slice(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)).ok()
}

/// The members of an object as they stand.
pub(crate) fn members(raw: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(raw.get()).ok().map(|members| members.0)
}

fn value(raw: &RawValue, depth: usize) -> Option<Json<'_>> {
    let text = raw.get();
    let kind = match text.as_bytes()[0] {
        b'{' | b'[' if depth == DEPTH_MAX => Kind::Deep,
        b'{' => {
            let read = |(name, raw)| Some((name, value(raw, depth + 1)?));
            Kind::Object(members(raw)?.into_iter().map(read).collect::<Option<_>>()?)
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            Kind::Array(items.into_iter().map(|raw| value(raw, depth + 1)).collect::<Option<_>>()?)
        }
        b'"' => Kind::Text(serde_json::from_str(text).ok()?),
        b't' => Kind::Bool(true),
        b'f' => Kind::Bool(false),
        b'n' => Kind::Null,
        _ => Kind::Number,
    };
    Some(Json { raw: text, kind })
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
