//! `Metric` of opentelemetry-proto, `metrics.v1`, with its one data point.

use super::super::protobuf::{Wire, bytes, fixed64, message, tag, varint};
use super::attributes;
use crate::observe::{Data, Histogram, Metric, Number};

/// `AGGREGATION_TEMPORALITY_DELTA`
const DELTA: u64 = 1;

/// Appends the fields of a `Metric`.
pub(super) fn metric(metric: &Metric<'_>, out: &mut Vec<u8>) {
    for (field, text) in [(1, &metric.name), (2, &metric.description), (3, &metric.unit)] {
        if !text.is_empty() {
            bytes(field, text.as_bytes(), out);
        }
    }
    match &metric.data {
        Data::Gauge(value) => message(5, out, |out| message(1, out, |out| number(metric, *value, out))),
        Data::Delta(value) => message(7, out, |out| {
            message(1, out, |out| number(metric, *value, out));
            tag(2, Wire::Varint, out);
            varint(DELTA, out);
            // is_monotonic
            tag(3, Wire::Varint, out);
            out.push(1);
        }),
        Data::Histogram(spread) => message(9, out, |out| {
            message(1, out, |out| histogram(metric, spread, out));
            tag(2, Wire::Varint, out);
            varint(DELTA, out);
        }),
    }
}

fn times(metric: &Metric<'_>, out: &mut Vec<u8>) {
    for (field, time) in [(2, metric.start_unix_nanos), (3, metric.time_unix_nanos)] {
        if time != 0 {
            fixed64(field, time, out);
        }
    }
}

/// A `NumberDataPoint`.
fn number(metric: &Metric<'_>, value: Number, out: &mut Vec<u8>) {
    times(metric, out);
    // Members of a oneof are written even when they hold the default.
    match value {
        Number::Double(value) => fixed64(4, value.to_bits(), out),
        Number::Int(value) => fixed64(6, value.cast_unsigned(), out),
    }
    attributes(7, &metric.attributes, out);
}

/// A `HistogramDataPoint`.
fn histogram(metric: &Metric<'_>, spread: &Histogram, out: &mut Vec<u8>) {
    times(metric, out);
    if spread.count != 0 {
        fixed64(4, spread.count, out);
    }
    fixed64(5, spread.sum.to_bits(), out);
    packed(6, spread.buckets.iter().copied(), out);
    packed(7, spread.bounds.iter().map(|bound| bound.to_bits()), out);
    attributes(9, &metric.attributes, out);
    fixed64(11, spread.min.to_bits(), out);
    fixed64(12, spread.max.to_bits(), out);
}

/// A packed repeated field of 64 bits each.
fn packed(field: u32, values: impl ExactSizeIterator<Item = u64>, out: &mut Vec<u8>) {
    if values.len() == 0 {
        return;
    }
    tag(field, Wire::Len, out);
    varint(values.len() as u64 * 8, out);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}
