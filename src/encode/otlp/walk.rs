//! The structure that requests of all three signals have in common, and what can be done by knowing no more.
//!
//! ```text
//! ExportLogsServiceRequest, ExportMetricsServiceRequest, ExportTraceServiceRequest
//!   resource_logs = 1, resource_metrics = 1, resource_spans = 1 ─┬ resource = 1
//!                                                                ├ schema_url = 3
//!     scope_logs = 2, scope_metrics = 2, scope_spans = 2 ────────┴┬ scope = 1
//!                                                                 ├ schema_url = 3
//!       log_records = 2, metrics = 2, spans = 2 ──────────────────┘
//! ```
//! (opentelemetry-proto 1.x, `*_service.proto`, `logs.proto`, `metrics.proto`, `trace.proto`). Field numbers are the
//! same throughout, so a walk needs no signal. Fields that are not known are left as they are, wherever they stand.

use std::ops::Range;

use super::super::SplitError;
use super::super::protobuf::{bytes, read_varint};

/// The number of the field that leads one level down: from the request to resources, to scopes, to records.
const DOWN: [u32; 3] = [1, 2, 2];
/// The level whose [`DOWN`] field is a record.
const RECORD_LEVEL: usize = DOWN.len() - 1;

/// One field of a message.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Its number.
    pub(super) number: u32,
    /// Where it is, tag included.
    pub(super) whole: Range<usize>,
    /// Where its value is.
    pub(super) value: Range<usize>,
    /// What the value looks like.
    pub(super) shape: Shape,
}

/// What a field's value looks like (Protocol Buffers documentation, "Encoding"). Groups are not among them: proto3
/// has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A varint.
    Varint,
    /// Eight bytes.
    Fixed64,
    /// Bytes, text or a message.
    Len,
    /// Four bytes.
    Fixed32,
}

/// The fields of the message that lies in `within` of `plain`, one after another. Positions are those in `plain`.
pub(super) struct Fields<'a> {
    plain: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(plain: &'a [u8], within: Range<usize>) -> Self {
        Self { plain, at: within.start, end: within.end.min(plain.len()) }
    }

    /// All of them.
    #[cfg(feature = "tool")]
    pub(super) fn all(plain: &'a [u8], within: Range<usize>) -> Result<Vec<Field>, SplitError> {
        let mut fields = Self::new(plain, within);
        std::iter::from_fn(|| fields.next().transpose()).collect()
    }

    /// The next field; `None` at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<Field>, SplitError> {
        let start = self.at;
        if start >= self.end {
            return Ok(None);
        }
        let cut = SplitError::Truncated(start);
        let message = self.plain.get(..self.end).ok_or(cut)?;
        let (tag, after_tag) = read_varint(message, start).ok_or(cut)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number != 0);
        let number = number.ok_or(SplitError::Unexpected(start))?;
        let (shape, value_start, length) = match tag & 7 {
            0 => {
                let (_, end) = read_varint(message, after_tag).ok_or(cut)?;
                (Shape::Varint, after_tag, (end - after_tag) as u64)
            }
            1 => (Shape::Fixed64, after_tag, 8),
            2 => {
                let (length, start) = read_varint(message, after_tag).ok_or(cut)?;
                (Shape::Len, start, length)
            }
            5 => (Shape::Fixed32, after_tag, 4),
            _ => return Err(SplitError::Unexpected(start)),
        };
        let length = usize::try_from(length).map_err(|_| cut)?;
        let end = value_start.checked_add(length).filter(|end| *end <= self.end).ok_or(cut)?;
        self.at = end;
        Ok(Some(Field { number, whole: start..end, value: value_start..end, shape }))
    }
}

/// Calls `visit` with each record of a request, in order.
///
/// # Errors
/// If something is cut off, or stands where the structure has something else. Records are not looked into.
pub(super) fn records(plain: &[u8], visit: &mut dyn FnMut(&Field)) -> Result<(), SplitError> {
    visit_level(plain, 0..plain.len(), 0, visit)
}

fn visit_level(
    plain: &[u8],
    within: Range<usize>,
    level: usize,
    visit: &mut dyn FnMut(&Field),
) -> Result<(), SplitError> {
    let mut fields = Fields::new(plain, within);
    while let Some(field) = fields.next()? {
        if DOWN.get(level) != Some(&field.number) {
            continue;
        }
        if field.shape != Shape::Len {
            return Err(SplitError::Unexpected(field.whole.start));
        }
        if level == RECORD_LEVEL {
            visit(&field);
        } else {
            visit_level(plain, field.value, level + 1, visit)?;
        }
    }
    Ok(())
}

/// A request with those records only whose places `chosen` says. A resource or scope keeps everything else that is said
/// of it, and is left out if none of its records is chosen. What is unknown beside the resources is left out too: it
/// belongs to no record.
///
/// # Errors
/// As [`records`].
pub(super) fn subset(plain: &[u8], chosen: &dyn Fn(usize) -> bool) -> Result<Vec<u8>, SplitError> {
    let mut out = Vec::new();
    copy_level(plain, 0..plain.len(), 0, &mut 0, chosen, &mut out)?;
    Ok(out)
}

/// Returns whether any record was copied.
fn copy_level(
    plain: &[u8],
    within: Range<usize>,
    level: usize,
    place: &mut usize,
    chosen: &dyn Fn(usize) -> bool,
    out: &mut Vec<u8>,
) -> Result<bool, SplitError> {
    let mut any = false;
    let mut fields = Fields::new(plain, within);
    while let Some(field) = fields.next()? {
        let whole = plain.get(field.whole.clone()).unwrap_or_default();
        if DOWN.get(level) != Some(&field.number) {
            if level > 0 {
                out.extend_from_slice(whole);
            }
        } else if field.shape != Shape::Len {
            return Err(SplitError::Unexpected(field.whole.start));
        } else if level == RECORD_LEVEL {
            if chosen(*place) {
                out.extend_from_slice(whole);
                any = true;
            }
            *place += 1;
        } else {
            let mut inner = Vec::new();
            if copy_level(plain, field.value, level + 1, place, chosen, &mut inner)? {
                bytes(field.number, &inner, out);
                any = true;
            }
        }
    }
    Ok(any)
}
