//! OTLP in protobuf, read back into what other wire formats are made of. The extension never does that, for what is stored is
//! what is sent; the tool does, to replay telemetry to a destination that speaks otherwise.
//!
//! Everything that a log record says is kept, and what [`Metric`] has a place for of a data point. Kinds of points that it has
//! no place for, which only a function's own SDK makes, are told by name.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::protobuf::read_varint;
use super::SCOPE_NAME;
use super::walk::{Field as Found, Fields, Shape};
use crate::Signal;
use crate::encode::SplitError;
use crate::observe::{Data, Histogram, Metric, Number};
use crate::record::value::{MAX_DEPTH_LEVELS, make_names_unique};
use crate::record::{Field, LogRecord, Resource, Severity, Value};

/// Who made a record, where that is not us (OpenTelemetry specification, "OpenTelemetry Transformation to non-OTLP Formats").
const ATTRIBUTE_SCOPE_NAME: &str = "otel.scope.name";
const ATTRIBUTE_SCOPE_VERSION: &str = "otel.scope.version";

/// `AGGREGATION_TEMPORALITY_DELTA`
const DELTA: u64 = 1;
/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`
const NO_RECORDED_VALUE: u64 = 1;

/// One record, or why it is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// A log record.
    Log(LogRecord<'static>),
    /// A data point.
    Metric(Metric<'static>),
    /// What has no place in the model, in words in the plural.
    Foreign(&'static str),
}

/// Calls `visit` with each log record or data point of a request, and with what it is about. Spans are
/// [`Decoded::Foreign`].
///
/// # Errors
/// If it is not a request's structure.
pub fn read(
    signal: Signal,
    plain: &[u8],
    visit: &mut dyn FnMut(&Resource, Decoded),
) -> Result<(), SplitError> {
    let whole = Message::whole(plain)?;
    for of_resource in whole.messages(1) {
        let of_resource = of_resource?;
        let mut attributes = of_resource.message(1)?.map_or(Ok(Vec::new()), |about| about.attributes(1))?;
        make_names_unique(&mut attributes);
        let resource = Resource { attributes };
        for of_scope in of_resource.messages(2) {
            let of_scope = of_scope?;
            let scope = of_scope.message(1)?.map(|scope| scope.scope()).unwrap_or_default();
            for record in of_scope.messages(2) {
                let record = record?;
                match signal {
                    Signal::Logs => visit(&resource, Decoded::Log(record.log(&scope)?)),
                    Signal::Metrics => record.points(&scope, &mut |point| visit(&resource, point))?,
                    Signal::Traces => visit(&resource, Decoded::Foreign("spans")),
                }
            }
        }
    }
    Ok(())
}

/// A message, by its fields.
struct Message<'a> {
    plain: &'a [u8],
    fields: Vec<Found>,
}

impl<'a> Message<'a> {
    fn whole(plain: &'a [u8]) -> Result<Self, SplitError> {
        Self::within(plain, 0..plain.len())
    }

    fn within(plain: &'a [u8], within: Range<usize>) -> Result<Self, SplitError> {
        Ok(Self { plain, fields: Fields::all(plain, within)? })
    }

    fn all(&self, number: u32) -> impl Iterator<Item = &Found> {
        self.fields.iter().filter(move |field| field.number == number)
    }

    /// The field; of several the last.
    fn field(&self, number: u32) -> Option<&Found> {
        self.all(number).last()
    }

    fn bytes(&self, number: u32) -> Option<&'a [u8]> {
        let field = self.field(number).filter(|field| field.shape == Shape::Len)?;
        self.plain.get(field.value.clone())
    }

    fn text(&self, number: u32) -> String {
        String::from_utf8_lossy(self.bytes(number).unwrap_or_default()).into_owned()
    }

    fn varint(&self, number: u32) -> Option<u64> {
        let field = self.field(number).filter(|field| field.shape == Shape::Varint)?;
        Some(read_varint(self.plain, field.value.start)?.0)
    }

    fn fixed64(&self, number: u32) -> Option<u64> {
        let field = self.field(number).filter(|field| field.shape == Shape::Fixed64)?;
        Some(u64::from_le_bytes(self.plain.get(field.value.clone())?.try_into().ok()?))
    }

    fn fixed32(&self, number: u32) -> Option<u32> {
        let field = self.field(number).filter(|field| field.shape == Shape::Fixed32)?;
        Some(u32::from_le_bytes(self.plain.get(field.value.clone())?.try_into().ok()?))
    }

    fn double(&self, number: u32) -> Option<f64> {
        self.fixed64(number).map(f64::from_bits)
    }

    fn messages(&self, number: u32) -> impl Iterator<Item = Result<Self, SplitError>> {
        let messages = self.all(number).filter(|field| field.shape == Shape::Len);
        messages.map(|field| Self::within(self.plain, field.value.clone()))
    }

    fn message(&self, number: u32) -> Result<Option<Self>, SplitError> {
        self.messages(number).last().transpose()
    }

    /// A repeated field of `KeyValue`.
    fn attributes(&self, number: u32) -> Result<Vec<Field<'static>>, SplitError> {
        self.pairs(number, 0)
    }

    fn pairs(&self, number: u32, depth: usize) -> Result<Vec<Field<'static>>, SplitError> {
        self.messages(number)
            .map(|pair| {
                let pair = pair?;
                let value = pair.message(2)?.map_or(Ok(Value::Empty), |value| value.any(depth))?;
                Ok((Cow::Owned(pair.text(1)), value))
            })
            .collect()
    }

    /// An `AnyValue`. Bytes are base64, as in OTLP's JSON; what is nested too deep is left out.
    fn any(&self, depth: usize) -> Result<Value<'static>, SplitError> {
        let Some(field) = self.fields.last() else { return Ok(Value::Empty) };
        let number = field.number;
        Ok(match number {
            1 => Value::Str(self.text(number).into()),
            2 => Value::Bool(self.varint(number).unwrap_or_default() != 0),
            3 => Value::Int(self.varint(number).unwrap_or_default().cast_signed()),
            4 => Value::Double(self.double(number).unwrap_or_default()),
            5 | 6 if depth >= MAX_DEPTH_LEVELS => Value::Empty,
            5 => {
                let list = self.message(number)?.map_or(Ok(Vec::new()), |list| {
                    list.messages(1).map(|item| item?.any(depth + 1)).collect::<Result<Vec<_>, _>>()
                });
                Value::Array(list?)
            }
            6 => {
                let mut fields =
                    self.message(number)?.map_or(Ok(Vec::new()), |list| list.pairs(1, depth + 1))?;
                make_names_unique(&mut fields);
                Value::Map(fields)
            }
            7 => Value::Str(STANDARD.encode(self.bytes(number).unwrap_or_default()).into()),
            _ => Value::Empty,
        })
    }

    /// What an `InstrumentationScope` adds to the attributes of its records.
    fn scope(&self) -> Vec<Field<'static>> {
        let name = self.text(1);
        if name.is_empty() || name == SCOPE_NAME {
            return Vec::new();
        }
        let version = self.text(2);
        let mut fields = vec![(ATTRIBUTE_SCOPE_NAME.into(), Value::Str(name.into()))];
        if !version.is_empty() {
            fields.push((ATTRIBUTE_SCOPE_VERSION.into(), Value::Str(version.into())));
        }
        fields
    }

    fn described(&self, number: u32, scope: &[Field<'static>]) -> Result<Vec<Field<'static>>, SplitError> {
        let mut attributes = self.attributes(number)?;
        attributes.extend_from_slice(scope);
        make_names_unique(&mut attributes);
        Ok(attributes)
    }

    fn log(&self, scope: &[Field<'static>]) -> Result<LogRecord<'static>, SplitError> {
        let observed_unix_nanos = self.fixed64(11).unwrap_or_default();
        Ok(LogRecord {
            // "Use Timestamp if it is present, otherwise use ObservedTimestamp" (logs data model).
            time_unix_nanos: self.fixed64(1).filter(|time| *time != 0).unwrap_or(observed_unix_nanos),
            observed_unix_nanos,
            severity: Severity {
                number: self.varint(2).and_then(|number| u8::try_from(number).ok()).unwrap_or_default(),
                text: self.text(3).into(),
            },
            event_name: Some(self.text(12)).filter(|name| !name.is_empty()).map(Cow::Owned),
            body: self.message(5)?.map_or(Ok(Value::Empty), |body| body.any(0))?,
            attributes: self.described(6, scope)?,
            trace_id: self.bytes(9).and_then(|id| id.try_into().ok()),
            span_id: self.bytes(10).and_then(|id| id.try_into().ok()),
            trace_flags: self.fixed32(8).unwrap_or_default(),
        })
    }

    /// The data points of a `Metric`.
    fn points(&self, scope: &[Field<'static>], visit: &mut dyn FnMut(Decoded)) -> Result<(), SplitError> {
        let Some(data) = self.fields.iter().rfind(|field| matches!(field.number, 5 | 7 | 9..=11)) else {
            return Ok(());
        };
        let Some(of_kind) = self.message(data.number)? else { return Ok(()) };
        let is_delta = of_kind.varint(2) == Some(DELTA);
        for point in of_kind.messages(1) {
            let point = point?;
            let (attributes, flags) = match data.number {
                9 => (9, 10),
                _ => (7, 8),
            };
            let data = match data.number {
                _ if point.varint(flags).unwrap_or_default() & NO_RECORDED_VALUE != 0 => {
                    Err("points without a value")
                }
                5 => point.number().map(Data::Gauge).ok_or("points without a value"),
                7 if !is_delta => Err("cumulative sums"),
                7 if of_kind.varint(3).unwrap_or_default() == 0 => Err("sums that may fall"),
                7 => point.number().map(Data::Delta).ok_or("points without a value"),
                9 if !is_delta => Err("cumulative histograms"),
                9 => point
                    .histogram()
                    .map(|spread| Data::Histogram(Cow::Owned(spread)))
                    .ok_or("histograms without sum, least and greatest"),
                10 => Err("exponential histograms"),
                _ => Err("summaries"),
            };
            visit(match data {
                Err(what) => Decoded::Foreign(what),
                Ok(data) => Decoded::Metric(Metric {
                    name: self.text(1).into(),
                    description: self.text(2).into(),
                    unit: self.text(3).into(),
                    attributes: Cow::Owned(point.described(attributes, scope)?),
                    start_unix_nanos: point.fixed64(2).unwrap_or_default(),
                    time_unix_nanos: point.fixed64(3).unwrap_or_default(),
                    data,
                }),
            });
        }
        Ok(())
    }

    /// The value of a `NumberDataPoint`.
    fn number(&self) -> Option<Number> {
        let whole = self.fixed64(6).map(|value| Number::Int(value.cast_signed()));
        whole.or_else(|| self.double(4).map(Number::Double))
    }

    /// A `HistogramDataPoint` without its buckets: no wire format has them but OTLP's own, which is not made in this way.
    fn histogram(&self) -> Option<Histogram> {
        Some(Histogram {
            count: self.fixed64(4).unwrap_or_default(),
            sum: self.double(5)?,
            min: self.double(11)?,
            max: self.double(12)?,
            bounds: &[],
            buckets: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests;
