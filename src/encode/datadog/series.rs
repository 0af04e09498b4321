//! The API of Datadog for metrics, version 2 ("Submit metrics":
//! <https://docs.datadoghq.com/api/latest/metrics/#submit-metrics>).
//!
//! ```text
//! {"series":[ {"metric":…,"type":…,"points":[{"timestamp":…,"value":…}],…},␊ … ]}
//! ```
//! A sum is a count, a gauge a gauge. A histogram is four series, as the Agent and the OpenTelemetry Collector have it:
//! `.count` and `.sum`, which add up, `.min` and `.max`. Not a distribution: those are taken as single values, at another
//! address, and we have no single values but how they are spread.
//!
//! **One point a second.** Of points of one series with the same second Datadog keeps the last ("Custom metrics from AWS
//! Lambda", "Understanding distribution metrics"). So a point tells what its series has come to in its second, not what
//! was added since the one before it ([`Totals`]): points arrive in order, and the last one is right. A point that is
//! repeated takes its own place again. What sets environments apart is the tag `faas.instance`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_128;

use super::{tag, tags};
use crate::encode::lines::COMMA;
use crate::encode::{Framing, Limits, json};
use crate::observe::{Data, Metric, Number};
use crate::record::Resource;

pub(super) const PATH: &str = "/api/v2/series";
pub(super) const FRAMING: Framing = Framing { prefix: b"{\"series\":[", separator: COMMA, suffix: b"]}" };

/// "The maximum payload size is 500 kilobytes (512000 bytes)", as it is sent; 5 MiB before compression. Kept to before it,
/// less the framing, so that it holds without compression as well.
pub(super) const LIMITS: Limits = Limits { body_bytes: 500_000, ..Limits::NONE };

/// Series that are remembered; with their seconds and values some 200 KB. A line has at most 3,000 embedded metrics, mostly few.
const SERIES_MAX: usize = 4_096;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Units as Datadog calls them. Others are not said.
const UNITS: [(&str, &str); 9] = [
    ("s", "second"),
    ("ms", "millisecond"),
    ("us", "microsecond"),
    ("By", "byte"),
    ("kBy", "kilobyte"),
    ("MBy", "megabyte"),
    ("GBy", "gigabyte"),
    ("TBy", "terabyte"),
    ("%", "percent"),
];

/// What a series is of, by the number Datadog has for it, and how points of one second become one.
#[derive(Clone, Copy)]
enum Kind {
    /// What was added.
    Count,
    /// The last counts.
    Last,
    Least,
    Greatest,
}

/// What each series has come to in its newest second, by a hash of its name and tags.
///
/// It is not undone if a delivery could not be kept and comes again: then that second counts it twice. It is not kept
/// across a restart, so a restart within a second forgets the first part of it.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<BTreeMap<u128, (u64, f64)>>);

impl Totals {
    /// What `series` has come to in `second` with `value`.
    fn with(&self, series: u128, second: u64, value: f64, kind: Kind) -> f64 {
        // The map is whole between any two calls of it.
        let mut totals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = totals.get(&series).copied();
        let value = match (before, kind) {
            (Some((at, total)), Kind::Count) if at == second => total + value,
            (Some((at, total)), Kind::Least) if at == second => total.min(value),
            (Some((at, total)), Kind::Greatest) if at == second => total.max(value),
            // Late: its second is not known any more.
            (Some((at, _)), _) if at > second => return value,
            _ => value,
        };
        if before.is_none() && totals.len() >= SERIES_MAX {
            totals.retain(|_, (at, _)| *at >= second);
            if totals.len() >= SERIES_MAX {
                totals.clear();
            }
        }
        totals.insert(series, (second, value));
        value
    }
}

/// Appends the series of a metric, with commas between them: they are one record.
pub(super) fn metric(totals: &Totals, resource: &Resource, metric: &Metric<'_>, out: &mut Vec<u8>) {
    let mut all = tags(resource);
    let service = json::resource_text(resource, "service.name");
    if !service.is_empty() {
        all.push(format!("service:{service}"));
    }
    all.extend(metric.attributes.iter().map(tag));
    let mut series = Series { totals, metric, tags: Vec::new(), out, is_first: true };
    json::array(&all, &mut series.tags, |tag, out| json::string(tag, out));
    match &metric.data {
        Data::Gauge(number) => series.add("", value(*number), Kind::Last),
        Data::Delta(number) => series.add("", value(*number), Kind::Count),
        Data::Histogram(spread) => {
            series.add(".count", value(Number::Int(spread.count.cast_signed())), Kind::Count);
            series.add(".sum", spread.sum, Kind::Count);
            series.add(".min", spread.min, Kind::Least);
            series.add(".max", spread.max, Kind::Greatest);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53, and Datadog has no other numbers")]
const fn value(number: Number) -> f64 {
    match number {
        Number::Int(number) => number as f64,
        Number::Double(number) => number,
    }
}

struct Series<'s, 'm> {
    totals: &'s Totals,
    metric: &'s Metric<'m>,
    /// As JSON.
    tags: Vec<u8>,
    out: &'s mut Vec<u8>,
    is_first: bool,
}

impl Series<'_, '_> {
    fn add(&mut self, suffix: &str, value: f64, kind: Kind) {
        let metric = self.metric;
        let name = format!("{}{suffix}", metric.name);
        let second = metric.time_unix_nanos / NANOS_PER_SECOND;
        let identity = xxh3_128(&[name.as_bytes(), b" ", &self.tags].concat());
        // JSON has no infinity.
        let value = self.totals.with(identity, second, value, kind).clamp(f64::MIN, f64::MAX);
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
        json::object(self.out, |series| {
            series.text("metric", &name);
            series.number("type", if matches!(kind, Kind::Count) { 1 } else { 3 });
            series.member("points", |out| {
                json::array([second], out, |second, out| {
                    json::object(out, |point| {
                        point.number("timestamp", second);
                        point.member("value", |out| json::double(value, out));
                    });
                });
            });
            if matches!(kind, Kind::Count) {
                let interval = metric.time_unix_nanos.saturating_sub(metric.start_unix_nanos);
                series.number("interval", interval.div_ceil(NANOS_PER_SECOND).max(1));
            }
            let unit = UNITS.iter().find(|(ours, _)| *ours == metric.unit && suffix != ".count");
            series.some_text("unit", unit.map_or("", |(_, theirs)| theirs));
            series.member("tags", |out| out.extend_from_slice(&self.tags));
        });
    }
}
