//! A request in protobuf, written anew in JSON: the way back of `json.rs`, by the same table and the same rules.
//!
//! It is laid out as blocks of [`OtlpJson`](crate::encode::OtlpJson) are: a block for the records of each scope, every record
//! on a line of its own. Fields that the table does not have are left out.

use std::fmt::Write;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::super::protobuf::read_varint;
use super::super::walk::{Field as Found, Fields, Shape};
use super::schema::{Field, Kind, request};
use crate::Signal;
use crate::encode::{OtlpJson, SplitError, WireFormat};

/// Messages nested deeper than this are left out: receivers bound the nesting at about as much, and refuse the request.
const MAX_DEPTH_MESSAGES: usize = 100;

/// The fields that lead from a request to its resources, scopes and records.
const RESOURCES: u32 = 1;
const SCOPES: u32 = 2;
const RECORDS: u32 = 2;

/// The request `plain` in JSON; nothing if there are no records in it.
///
/// # Errors
/// If it is not a request's structure.
pub fn to_json(signal: Signal, plain: &[u8]) -> Result<Vec<u8>, SplitError> {
    let writer = Writer { plain };
    let framing = OtlpJson.framing(signal);
    let mut out = framing.prefix.to_vec();
    let mut is_first = true;
    let (_, about_resource) = down(request(signal), RESOURCES);
    let (scopes, about_scope) = down(about_resource, SCOPES);
    let (records, about_record) = down(about_scope, RECORDS);
    for resource in writer.fields(0..plain.len())?.iter().filter(|field| field.number == RESOURCES) {
        let of_resource = writer.fields(resource.value.clone())?;
        for scope in of_resource.iter().filter(|field| field.number == SCOPES) {
            let of_scope = writer.fields(scope.value.clone())?;
            let mut lines = of_scope.iter().filter(|field| field.number == RECORDS).peekable();
            if lines.peek().is_none() {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                out.extend_from_slice(framing.separator);
            }
            out.push(b'{');
            writer.members(&of_resource, about_resource, SCOPES, &mut out)?;
            string(scopes, &mut out);
            out.extend_from_slice(b":[{");
            writer.members(&of_scope, about_scope, RECORDS, &mut out)?;
            string(records, &mut out);
            out.extend_from_slice(b":[\n");
            while let Some(line) = lines.next() {
                writer.message(line.value.clone(), about_record, 0, &mut out)?;
                if lines.peek().is_some() {
                    out.extend_from_slice(OtlpJson.separator());
                }
            }
        }
    }
    if is_first {
        return Ok(Vec::new());
    }
    out.extend_from_slice(framing.suffix);
    Ok(out)
}

/// The name of a field that holds messages, and the fields of these.
fn down(fields: &'static [Field], number: u32) -> (&'static str, &'static [Field]) {
    match fields.iter().find(|field| field.number == number) {
        Some(Field { name, kind: Kind::Message(below), .. }) => (name, below),
        _ => ("", &[]),
    }
}

struct Writer<'a> {
    plain: &'a [u8],
}

impl Writer<'_> {
    fn fields(&self, within: Range<usize>) -> Result<Vec<Found>, SplitError> {
        Fields::all(self.plain, within)
    }

    /// The members but `except`, each with a comma behind it.
    fn members(
        &self,
        found: &[Found],
        known: &'static [Field],
        except: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), SplitError> {
        for field in known.iter().filter(|field| field.number != except) {
            if self.member(found, field, 0, out)? {
                out.push(b',');
            }
        }
        Ok(())
    }

    fn message(
        &self,
        within: Range<usize>,
        known: &'static [Field],
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), SplitError> {
        let found = self.fields(within)?;
        out.push(b'{');
        let mut any = false;
        for field in known {
            let length = out.len();
            if any {
                out.push(b',');
            }
            if self.member(&found, field, depth, out)? {
                any = true;
            } else {
                out.truncate(length);
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Appends a member, if the message has it.
    fn member(
        &self,
        found: &[Found],
        field: &'static Field,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, SplitError> {
        let mut values = found.iter().filter(|found| found.number == field.number).peekable();
        let is_too_deep = depth >= MAX_DEPTH_MESSAGES && matches!(field.kind, Kind::Message(_));
        if values.peek().is_none() || is_too_deep {
            return Ok(false);
        }
        string(field.name, out);
        out.push(b':');
        if !field.repeated {
            // Of a field that comes again the last one counts.
            if let Some(value) = values.last() {
                self.value(value.value.clone(), field, depth, out)?;
            }
            return Ok(true);
        }
        out.push(b'[');
        let mut is_first = true;
        for value in values {
            for one in self.elements(value, field)? {
                if !std::mem::take(&mut is_first) {
                    out.push(b',');
                }
                self.value(one, field, depth, out)?;
            }
        }
        out.push(b']');
        Ok(true)
    }

    /// The values of a repeated field: numbers may be packed.
    fn elements(&self, found: &Found, field: &Field) -> Result<Vec<Range<usize>>, SplitError> {
        let width = match field.kind {
            Kind::Text | Kind::Bytes | Kind::Id | Kind::Message(_) => return Ok(vec![found.value.clone()]),
            _ if found.shape != Shape::Len => return Ok(vec![found.value.clone()]),
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Some(8),
            Kind::Fixed32 => Some(4),
            Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint | Kind::Enum | Kind::Sint => None,
        };
        let mut at = found.value.start;
        let mut values = Vec::new();
        while at < found.value.end {
            let end = match width {
                Some(width) => at + width,
                None => read_varint(self.plain, at).ok_or(SplitError::Truncated(at))?.1,
            };
            if end > found.value.end {
                return Err(SplitError::Truncated(at));
            }
            values.push(at..end);
            at = end;
        }
        Ok(values)
    }

    fn value(
        &self,
        at: Range<usize>,
        field: &'static Field,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), SplitError> {
        let bytes = self.plain.get(at.clone()).unwrap_or_default();
        let varint = || read_varint(self.plain, at.start).map_or(0, |(number, _)| number);
        let fixed64 = || bytes.try_into().map_or(0, u64::from_le_bytes);
        match field.kind {
            Kind::Message(below) => return self.message(at, below, depth + 1, out),
            Kind::Text => string(&String::from_utf8_lossy(bytes), out),
            Kind::Bytes => string(&STANDARD.encode(bytes), out),
            Kind::Id => string(&hexadecimal(bytes), out),
            Kind::Bool => text(if varint() == 0 { "false" } else { "true" }, out),
            Kind::Double => double(f64::from_bits(fixed64()), out),
            Kind::Int64 => string(&varint().cast_signed().to_string(), out),
            Kind::Int32 | Kind::Enum => text(&(varint() as i32).to_string(), out),
            // "uint64" is text, "uint32" a number; of the former there is one.
            Kind::Uint if field.name == "bucketCounts" => string(&varint().to_string(), out),
            Kind::Uint => text(&varint().to_string(), out),
            Kind::Sint => {
                let number = varint();
                let number = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
                text(&number.to_string(), out);
            }
            Kind::Fixed32 => text(&bytes.try_into().map_or(0, u32::from_le_bytes).to_string(), out),
            Kind::Fixed64 => string(&fixed64().to_string(), out),
            Kind::Sfixed64 => string(&fixed64().cast_signed().to_string(), out),
        }
        Ok(())
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

fn string(text: &str, out: &mut Vec<u8>) {
    crate::encode::json::string(text, out);
}

fn double(number: f64, out: &mut Vec<u8>) {
    match number {
        _ if number.is_nan() => string("NaN", out),
        f64::INFINITY => string("Infinity", out),
        f64::NEG_INFINITY => string("-Infinity", out),
        _ => crate::encode::json::double(number, out),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
