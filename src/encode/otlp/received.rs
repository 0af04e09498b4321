//! OTLP that others made: what the function's own SDK sends, turned into what a block of [`Otlp`](super::Otlp) holds.
//!
//! A request in protobuf is such a block already, and its bytes stay as they are. It is only made sure of that it has
//! the structure of a request down to the fields of each record: bytes that end in the middle of something would take
//! the block behind them along. What a record says is not judged; if a backend refuses it, it is isolated like any
//! other.
//!
//! A request in JSON is written anew in protobuf (`json.rs`), so that everything in a lane is of one kind: a request to
//! the backend has one content type, and blocks of two kinds in turn would make requests of a single block each.

use std::borrow::Cow;
use std::ops::Range;

use super::super::SplitError;
use super::super::protobuf::{bytes, read_varint, tag, varint};
use super::walk::{self, Field, Fields, Shape};
use super::{Wire, attributes};
use crate::Signal;
use crate::record::Resource;

mod answer;
mod json;
mod schema;
#[cfg(feature = "tool")]
mod to_json;

pub use answer::Code;
pub use json::JsonError;
#[cfg(feature = "tool")]
pub use to_json::to_json;

/// A request is at most this long, in bytes of protobuf. It is what gRPC receivers take unless told otherwise, and 8
/// times what an SDK's full batch of 512 spans takes at a kilobyte each. Some copies of it are in memory at a time.
pub const REQUEST_MAX_BYTES: usize = 4 << 20;

/// Records in a request. A hundred times what SDKs send; the positions of so many take 2 MiB when a request is taken
/// apart. The shortest possible record has two bytes, so the length alone does not bound their number.
pub const REQUEST_MAX_RECORDS: u32 = 1 << 17;

/// How a request is written (OTLP specification, "OTLP/HTTP Request").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

/// Why bytes are not taken for a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// They are not a request's structure in protobuf.
    #[error("not an OTLP request in protobuf: {0}")]
    Structure(#[from] SplitError),
    /// They are not a request in JSON.
    #[error("not an OTLP request in JSON: {0}")]
    Json(#[source] JsonError),
    /// They hold something, but nothing of the signal they were sent for.
    #[error("the request holds nothing for the path it was sent to")]
    Foreign,
    /// It is longer than [`REQUEST_MAX_BYTES`] in protobuf.
    #[error("the request is longer than {REQUEST_MAX_BYTES} bytes")]
    TooLong,
    /// It has more records than [`REQUEST_MAX_RECORDS`].
    #[error("the request has more than {REQUEST_MAX_RECORDS} records")]
    TooMany,
}

/// What is in a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// The request in protobuf.
    pub plain: Cow<'a, [u8]>,
    /// Spans, log records or metrics.
    pub records: u32,
    /// Earliest and latest time that a log record or span says, Unix nanoseconds; `None` if none does.
    pub times: Option<(u64, u64)>,
    /// Each record says when it happened, or has an identity of its own: another request with the same bytes can only
    /// be this one again. Spans have ids; points of metrics must have a time (`metrics.proto`, `time_unix_nano`), a log
    /// record need not.
    pub distinct: bool,
    /// The highest severity number that a log record says; 0 if none does.
    pub severity: u8,
}

/// Reads the body of a request for `signal`.
///
/// # Errors
/// [`RequestError`].
pub fn read(signal: Signal, media: Media, body: &[u8]) -> Result<Received<'_>, RequestError> {
    let plain = match media {
        Media::Protobuf => Cow::Borrowed(body),
        Media::Json => match json::to_protobuf(signal, body, REQUEST_MAX_BYTES) {
            Ok(plain) => Cow::Owned(plain),
            Err(JsonError::TooLong) => return Err(RequestError::TooLong),
            Err(JsonError::Foreign) => return Err(RequestError::Foreign),
            Err(error) => return Err(RequestError::Json(error)),
        },
    };
    if plain.len() > REQUEST_MAX_BYTES {
        return Err(RequestError::TooLong);
    }
    let mut survey = Survey::new(signal);
    walk::records(&plain, &mut |record| survey.record(&plain, record))?;
    survey.fault.map_or(Ok(()), Err)?;
    if survey.records == 0 && !plain.is_empty() && !has_resources(&plain)? {
        return Err(RequestError::Foreign);
    }
    let Survey { records, times, distinct, severity, .. } = survey;
    if records > REQUEST_MAX_RECORDS {
        return Err(RequestError::TooMany);
    }
    Ok(Received { plain, records, times, distinct, severity })
}

/// A request in JSON, in protobuf, however long.
///
/// # Errors
/// [`JsonError`].
#[cfg(feature = "tool")]
pub fn from_json(signal: Signal, body: &[u8]) -> Result<Vec<u8>, JsonError> {
    json::to_protobuf(signal, body, usize::MAX)
}

/// The severity number of each log record, 0 where it has none.
///
/// # Errors
/// As [`read`].
pub fn severities(plain: &[u8]) -> Result<Vec<u8>, SplitError> {
    let mut severities = Vec::new();
    walk::records(plain, &mut |record| {
        // What was walked before has no fault.
        let number = severity_of(plain, record).unwrap_or_default();
        severities.push(number);
    })?;
    Ok(severities)
}

fn severity_of(plain: &[u8], record: &Field) -> Result<u8, SplitError> {
    let mut severity = 0;
    let mut fields = Fields::new(plain, record.value.clone());
    while let Some(field) = fields.next()? {
        severity = severity_in(plain, &field).unwrap_or(severity);
    }
    Ok(severity)
}

/// The severity number, if that is what the field of a log record says.
fn severity_in(plain: &[u8], field: &Field) -> Option<u8> {
    let says_it = field.number == SEVERITY_NUMBER && field.shape == Shape::Varint;
    let number = || read_varint(plain, field.value.start).map_or(0, |(number, _)| number);
    says_it.then(|| u8::try_from(number()).unwrap_or_default())
}

/// Whether the request names any resource.
fn has_resources(plain: &[u8]) -> Result<bool, SplitError> {
    let mut fields = Fields::new(plain, 0..plain.len());
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `LogRecord.severity_number`
const SEVERITY_NUMBER: u32 = 2;

/// What a walk over the records finds out.
struct Survey {
    /// Numbers of the fields that hold a record's times, `fixed64`.
    time_fields: &'static [u32],
    /// A record without a time is nothing that can be told from another with the same content.
    needs_time: bool,
    records: u32,
    times: Option<(u64, u64)>,
    distinct: bool,
    severity: u8,
    fault: Option<SplitError>,
}

impl Survey {
    fn new(signal: Signal) -> Self {
        let time_fields: &[u32] = match signal {
            // time_unix_nano, observed_time_unix_nano
            Signal::Logs => &[1, 11],
            // start_time_unix_nano, end_time_unix_nano
            Signal::Traces => &[7, 8],
            // They are further down, in the points.
            Signal::Metrics => &[],
        };
        let needs_time = signal == Signal::Logs;
        Self { time_fields, needs_time, records: 0, times: None, distinct: true, severity: 0, fault: None }
    }

    fn record(&mut self, plain: &[u8], record: &Field) {
        self.records = self.records.saturating_add(1);
        if let Err(fault) = self.look_into(plain, record) {
            self.fault.get_or_insert(fault);
        }
    }

    fn look_into(&mut self, plain: &[u8], record: &Field) -> Result<(), SplitError> {
        let mut timed = false;
        let mut fields = Fields::new(plain, record.value.clone());
        while let Some(field) = fields.next()? {
            if self.needs_time
                && let Some(severity) = severity_in(plain, &field)
            {
                self.severity = self.severity.max(severity);
            }
            if field.shape != Shape::Fixed64 || !self.time_fields.contains(&field.number) {
                continue;
            }
            let time = plain.get(field.value).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
            let Some(time) = time.filter(|time| *time != 0) else { continue };
            timed = true;
            let (first, last) = self.times.unwrap_or((time, time));
            self.times = Some((first.min(time), last.max(time)));
        }
        self.distinct &= timed || !self.needs_time;
        Ok(())
    }
}

/// The runs of records that the blocks of a request are to hold, if it is longer than `block_max_bytes`; `None` if it
/// is one block. A record that is longer has a block of its own.
///
/// What is said of resources and scopes is in each block of theirs. So that it does not multiply, a request that
/// consists of it for more than `block_max_bytes` stays one block.
///
/// # Errors
/// As [`read`].
pub fn runs(plain: &[u8], block_max_bytes: usize) -> Result<Option<Vec<Range<usize>>>, SplitError> {
    if plain.len() <= block_max_bytes {
        return Ok(None);
    }
    let (mut place, mut start, mut run_bytes, mut all_bytes) = (0, 0, 0, 0);
    let mut runs = Vec::new();
    walk::records(plain, &mut |record| {
        let length = record.whole.len();
        if place > start && run_bytes + length > block_max_bytes {
            runs.push(start..place);
            (start, run_bytes) = (place, 0);
        }
        run_bytes += length;
        all_bytes += length;
        place += 1;
    })?;
    runs.push(start..place);
    let around = plain.len().saturating_sub(all_bytes);
    Ok((runs.len() > 1 && around <= block_max_bytes).then_some(runs))
}

/// The request with only the records whose places are in `run`.
///
/// # Errors
/// As [`read`].
pub fn part(plain: &[u8], run: &Range<usize>) -> Result<Vec<u8>, SplitError> {
    walk::subset(plain, &|place| run.contains(&place))
}

/// The request with the attributes of `resource` added to each resource, where it does not have one of that name.
///
/// The resource message is written anew rather than continued in a second field beside it: parsers merge the two by
/// the rules of protobuf, but not everything that reads OTLP is one.
///
/// # Errors
/// As [`read`]; [`RequestError::TooLong`] if it is too long by that, which takes thousands of resources.
pub fn complete(plain: &[u8], resource: &Resource) -> Result<Vec<u8>, RequestError> {
    let mut out = Vec::with_capacity(plain.len() + 512);
    let mut fields = Fields::new(plain, 0..plain.len());
    while let Some(field) = fields.next()? {
        if field.number == 1 && field.shape == Shape::Len {
            let mut completed = Vec::with_capacity(field.value.len() + 512);
            complete_one(plain, field.value, resource, &mut completed)?;
            bytes(1, &completed, &mut out);
        } else {
            out.extend_from_slice(plain.get(field.whole).unwrap_or_default());
        }
        if out.len() > REQUEST_MAX_BYTES {
            return Err(RequestError::TooLong);
        }
    }
    Ok(out)
}

/// `within` is the content of one `resource_spans` or the like.
fn complete_one(
    plain: &[u8],
    within: Range<usize>,
    resource: &Resource,
    out: &mut Vec<u8>,
) -> Result<(), SplitError> {
    let is_resource = |field: &Field| field.number == 1 && field.shape == Shape::Len;
    let mut missing: Vec<_> = resource.attributes.iter().collect();
    let mut has_resource = false;
    let mut fields = Fields::new(plain, within.clone());
    while let Some(field) = fields.next()? {
        if is_resource(&field) {
            has_resource = true;
            let mut inside = Fields::new(plain, field.value);
            while let Some(attribute) = inside.next()? {
                if attribute.number == 1 && attribute.shape == Shape::Len {
                    let key = key_of(plain, attribute.value)?;
                    missing.retain(|(name, _)| Some(name.as_bytes()) != key);
                }
            }
        }
    }
    let mut added = Vec::new();
    for field in missing {
        attributes(1, std::slice::from_ref(field), &mut added);
    }
    if !has_resource && !added.is_empty() {
        bytes(1, &added, out);
    }
    let mut fields = Fields::new(plain, within);
    while let Some(field) = fields.next()? {
        if is_resource(&field) && !added.is_empty() {
            let content = plain.get(field.value).unwrap_or_default();
            tag(1, Wire::Len, out);
            varint((content.len() + added.len()) as u64, out);
            out.extend_from_slice(content);
            out.append(&mut added);
        } else {
            out.extend_from_slice(plain.get(field.whole).unwrap_or_default());
        }
    }
    Ok(())
}

/// The key of a `KeyValue`.
fn key_of(plain: &[u8], within: Range<usize>) -> Result<Option<&[u8]>, SplitError> {
    let mut fields = Fields::new(plain, within);
    let mut key = None;
    while let Some(field) = fields.next()? {
        if field.number == 1 && field.shape == Shape::Len {
            key = plain.get(field.value);
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
