//! The Metric API of New Relic ("Report metrics via the Metric API":
//! <https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/report-metrics-metric-api/>).
//!
//! ```text
//! [ {"common":{"attributes":{resource}},"metrics":[␊ {"name":…,"type":…,"value":…,"timestamp":…,…},␊ … ]} , … ]
//! ```
//! A sum is a `count`, a histogram a `summary` (count, sum, minimum and maximum), a gauge a `gauge`. Time is when the interval
//! began, in milliseconds. Points add up however many there are of one moment, so one that is sent twice counts twice.

use super::{Attributes, common};
use crate::encode::json;
use crate::observe::{Data, Metric, Number};
use crate::record::{Resource, Value};

pub(super) const PATH: &str = "/metric/v1";

/// "Max attributes per metric: 150", the common ones included ("Metric API limits and restricted attributes").
const ATTRIBUTES_MAX: usize = 150;
/// Ours: `unit`, and what says that something is left out.
const OURS: usize = 2;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Appends a data point.
pub(super) fn metric(resource: &Resource, metric: &Metric<'_>, out: &mut Vec<u8>) {
    json::object(out, |object| {
        object.text("name", &metric.name);
        let begins = match &metric.data {
            Data::Gauge(number) => {
                object.text("type", "gauge");
                object.value("value", &value(*number));
                metric.time_unix_nanos
            }
            Data::Delta(number) => {
                object.text("type", "count");
                object.value("value", &value(*number));
                metric.start_unix_nanos
            }
            Data::Histogram(spread) => {
                object.text("type", "summary");
                object.object("value", |object| {
                    object.number("count", spread.count);
                    for (name, number) in [("sum", spread.sum), ("min", spread.min), ("max", spread.max)] {
                        object.value(name, &value(Number::Double(number)));
                    }
                });
                metric.start_unix_nanos
            }
        };
        object.number("timestamp", json::millis(begins));
        if !matches!(metric.data, Data::Gauge(_)) {
            let lasts = metric.time_unix_nanos.saturating_sub(begins);
            // None is refused.
            object.number("interval.ms", lasts.div_ceil(NANOS_PER_MILLI).max(1));
        }
        object.object("attributes", |object| {
            object.some_text("unit", &metric.unit);
            let mut attributes = Attributes::of(object, ATTRIBUTES_MAX - OURS - common(resource));
            let own = metric.attributes.iter().filter(|(name, _)| name != "unit");
            own.for_each(|field| attributes.add(field));
            attributes.finish();
        });
    });
}

const fn value(number: Number) -> Value<'static> {
    match number {
        Number::Int(number) => Value::Int(number),
        // JSON has no infinity, which a sum may come to.
        Number::Double(number) => Value::Double(number.clamp(f64::MIN, f64::MAX)),
    }
}
