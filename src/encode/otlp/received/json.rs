//! A request in JSON, written anew in protobuf.
//!
//! The rules are those of protobuf's JSON mapping, with the exceptions that the OTLP specification makes ("JSON
//! Protobuf Encoding"): ids are hexadecimal, enums are numbers, names are lowerCamelCase, unknown names are ignored.
//! 64-bit integers come as text or as numbers. What is null is absent. It is read in one pass, member by member, and
//! fields are written in the order they come in.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::super::protobuf::{Wire, bytes, fixed32, fixed64, message, tag, varint};
use super::schema::{Field, Kind, request};
use crate::Signal;

/// What an error in the output's length says; it passes through serde as text.
const TOO_LONG: &str = "too long in protobuf";

/// Padding or none, as the mapping of bytes has it.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Why a body is not a request in JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON, or a member is not of its type.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// It has members, but not the one that holds the signal's records.
    #[error("nothing of this signal in it")]
    Foreign,
    /// It takes more bytes in protobuf than it may.
    #[error("{TOO_LONG}")]
    TooLong,
}

/// The request in protobuf, at most about `max_bytes` long.
pub(super) fn to_protobuf(signal: Signal, body: &[u8], max_bytes: usize) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let found = Object { fields: request(signal), out: &mut out, max_bytes }.deserialize(&mut json);
    let found = found.and_then(|found| json.end().map(|()| found));
    match found {
        Ok(Found { known: 0, unknown: 1.. }) => Err(JsonError::Foreign),
        Ok(_) => Ok(out),
        Err(_) if out.len() > max_bytes => Err(JsonError::TooLong),
        Err(error) => Err(error.into()),
    }
}

/// How many members of an object the schema knows.
struct Found {
    known: usize,
    unknown: usize,
}

/// An object that is written as the fields of a message.
struct Object<'o> {
    fields: &'static [Field],
    out: &'o mut Vec<u8>,
    max_bytes: usize,
}

/// The value of one member, tag included.
struct Member<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
    max_bytes: usize,
}

/// One value of a field, with its tag or, as an element of a packed field, without.
struct One<'o> {
    field: &'static Field,
    packed: bool,
    out: &'o mut Vec<u8>,
    max_bytes: usize,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Found, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found, A::Error> {
        let mut found = Found { known: 0, unknown: 0 };
        while let Some(name) = members.next_key::<Name<'de>>()? {
            if let Some(field) = self.fields.iter().find(|field| field.name == name.0) {
                found.known += 1;
                members.next_value_seed(Member { field, out: self.out, max_bytes: self.max_bytes })?;
            } else {
                found.unknown += 1;
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A member's name, borrowed where it holds no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Self { field, out, max_bytes } = self;
        if field.repeated {
            json.deserialize_option(Elements { field, out, max_bytes })
        } else {
            json.deserialize_option(One { field, packed: false, out, max_bytes })
        }
    }
}

/// An array, each element of which is written as a value of the field.
struct Elements<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
    max_bytes: usize,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array for {}", self.field.name)
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { field, out, max_bytes } = self;
        let mut all = |packed: bool, out: &mut Vec<u8>| {
            while elements.next_element_seed(One { field, packed, out, max_bytes })?.is_some() {}
            Ok(())
        };
        if !is_packed(field.kind) {
            return all(false, out);
        }
        let mut result = Ok(());
        message(field.number, out, |out| result = all(true, out));
        result
    }
}

/// Numbers of a repeated field are packed (proto3's default, and what the generated parsers of OTLP expect first).
fn is_packed(kind: Kind) -> bool {
    !matches!(kind, Kind::Text | Kind::Bytes | Kind::Id | Kind::Message(_))
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        // An element is written even if it is null: places in an array count.
        self.visit_some(json)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {}", self.field.name)
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Self { field, packed, out, max_bytes } = self;
        match field.kind {
            Kind::Message(fields) => {
                let mut result = Ok(());
                message(field.number, out, |out| {
                    result = Object { fields, out, max_bytes }.deserialize(json).map(drop);
                });
                result?;
            }
            kind => json.deserialize_any(Scalar { field, kind, packed, out })?,
        }
        if out.len() > max_bytes { Err(de::Error::custom(TOO_LONG)) } else { Ok(()) }
    }
}

/// Anything but a message.
struct Scalar<'o> {
    field: &'static Field,
    kind: Kind,
    packed: bool,
    out: &'o mut Vec<u8>,
}

impl Scalar<'_> {
    /// The tag, unless the value is an element of a packed field.
    fn tag(&mut self, wire: Wire) {
        if !self.packed {
            tag(self.field.number, wire, self.out);
        }
    }

    fn integer<E: de::Error>(mut self, value: i128) -> Result<(), E> {
        let outside = || E::custom(format_args!("{value} is out of range for {}", self.field.name));
        match self.kind {
            Kind::Double => {
                // As JSON has it: a number, which is as exact as a double can be.
                #[allow(clippy::cast_precision_loss)]
                let value = value as f64;
                return self.double(value);
            }
            Kind::Int32 => {
                let value = i32::try_from(value).map_err(|_| outside())?;
                self.tag(Wire::Varint);
                varint(i64::from(value).cast_unsigned(), self.out);
            }
            Kind::Int64 | Kind::Enum => {
                let value = i64::try_from(value).map_err(|_| outside())?;
                self.tag(Wire::Varint);
                varint(value.cast_unsigned(), self.out);
            }
            Kind::Uint => {
                let value = u64::try_from(value).map_err(|_| outside())?;
                self.tag(Wire::Varint);
                varint(value, self.out);
            }
            Kind::Sint => {
                let value = i32::try_from(value).map_err(|_| outside())?;
                self.tag(Wire::Varint);
                let zigzag = (value << 1) ^ (value >> 31);
                varint(u64::from(zigzag.cast_unsigned()), self.out);
            }
            Kind::Fixed32 => {
                let value = u32::try_from(value).map_err(|_| outside())?;
                self.fixed32(value);
            }
            Kind::Fixed64 => {
                let value = u64::try_from(value).map_err(|_| outside())?;
                self.fixed64(value);
            }
            Kind::Sfixed64 => {
                let value = i64::try_from(value).map_err(|_| outside())?;
                self.fixed64(value.cast_unsigned());
            }
            _ => return Err(E::custom(format_args!("a number is no value for {}", self.field.name))),
        }
        Ok(())
    }

    fn double<E: de::Error>(self, value: f64) -> Result<(), E> {
        if matches!(self.kind, Kind::Double) {
            self.fixed64(value.to_bits());
            return Ok(());
        }
        // The mapping takes 1.0 and 1e3 for integers. i128 holds every integer of a 64-bit field, and the cast saturates.
        if value.fract() == 0.0 {
            return self.integer(value as i128);
        }
        Err(E::custom(format_args!("{value} is no integer for {}", self.field.name)))
    }

    fn fixed64(self, value: u64) {
        if self.packed {
            self.out.extend_from_slice(&value.to_le_bytes());
        } else {
            fixed64(self.field.number, value, self.out);
        }
    }

    fn fixed32(self, value: u32) {
        if self.packed {
            self.out.extend_from_slice(&value.to_le_bytes());
        } else {
            fixed32(self.field.number, value, self.out);
        }
    }

    /// A number in quotes, which is how 64-bit integers come.
    fn quoted_number<E: de::Error>(self, text: &str) -> Result<(), E> {
        if let Ok(value) = text.parse::<i64>() {
            return self.integer(i128::from(value));
        }
        if let Ok(value) = text.parse::<u64>() {
            return self.integer(i128::from(value));
        }
        // Rust's names for what is no number are others than the mapping's: "NaN", "Infinity", "-Infinity".
        match text.parse::<f64>() {
            Ok(value) => self.double(value),
            Err(_) => Err(E::custom(format_args!("a text is no value for {}", self.field.name))),
        }
    }
}

impl Visitor<'_> for Scalar<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {}", self.field.name)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if self.packed { self.integer(0) } else { Ok(()) }
    }

    fn visit_bool<E: de::Error>(mut self, value: bool) -> Result<(), E> {
        if !matches!(self.kind, Kind::Bool) {
            return Err(E::custom(format_args!("{value} is no value for {}", self.field.name)));
        }
        self.tag(Wire::Varint);
        varint(u64::from(value), self.out);
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.double(value)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let number = self.field.number;
        match self.kind {
            Kind::Text => bytes(number, text.as_bytes(), self.out),
            Kind::Id => {
                let id = from_hex(text)
                    .ok_or_else(|| E::custom(format_args!("{} must be hexadecimal", self.field.name)))?;
                bytes(number, &id, self.out);
            }
            Kind::Bytes => {
                let decoded = BASE64.decode(text).or_else(|_| BASE64_URL.decode(text));
                let decoded =
                    decoded.map_err(|_| E::custom(format_args!("{} must be base64", self.field.name)))?;
                bytes(number, &decoded, self.out);
            }
            Kind::Bool => return Err(E::custom(format_args!("{} must be a bool", self.field.name))),
            _ => return self.quoted_number(text),
        }
        Ok(())
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            let digits = std::str::from_utf8(pair).ok().filter(|digits| !digits.starts_with('+'))?;
            u8::from_str_radix(digits, 16).ok()
        })
        .collect()
}
