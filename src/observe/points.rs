//! Measurements of one delivery, put together: one data point for each metric and set of attributes.

use std::borrow::Cow;

use super::instrument::{Instrument, Kind};
use super::metric::{Data, Histogram, Metric, Number};
use crate::record::Field;

/// The shortest interval: a millisecond, which is as finely as the platform tells times. There are receivers that divide by
/// the interval.
const INTERVAL_MIN_NANOS: u64 = 1_000_000;

/// What was measured and is not written yet.
#[derive(Clone, Debug, Default)]
pub struct Points {
    series: Vec<Series>,
    /// The latest event among those that brought a measurement, Unix nanoseconds.
    latest: u64,
}

#[derive(Clone, Debug)]
struct Series {
    instrument: &'static Instrument,
    attributes: Vec<Field<'static>>,
    value: Sum,
}

#[derive(Clone, Debug)]
enum Sum {
    Whole(i64),
    Amount(f64),
    Spread(Histogram),
}

impl Points {
    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Takes in a measurement of an event at `time` (Unix nanoseconds). What is no number, or negative, is none.
    #[expect(clippy::cast_precision_loss, reason = "counters and gauges are far below 2^53")]
    pub(super) fn add(
        &mut self,
        instrument: &'static Instrument,
        time: u64,
        value: f64,
        attributes: &[Field<'static>],
    ) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        self.latest = self.latest.max(time);
        let known = self
            .series
            .iter_mut()
            .find(|series| std::ptr::eq(series.instrument, instrument) && series.attributes == attributes);
        if let Some(series) = known {
            match &mut series.value {
                Sum::Whole(latest) if instrument.kind == Kind::Gauge => *latest = value as i64,
                Sum::Whole(sum) => *sum = sum.saturating_add(value as i64),
                Sum::Amount(latest) if instrument.kind == Kind::Level => *latest = value,
                Sum::Amount(sum) => *sum += value,
                Sum::Spread(histogram) => histogram.add(value),
            }
            return;
        }
        let value = match instrument.kind {
            Kind::Counter | Kind::Gauge => Sum::Whole(value.min(i64::MAX as f64) as i64),
            Kind::Amount | Kind::Level => Sum::Amount(value),
            Kind::Histogram(bounds) => Sum::Spread(Histogram::of(bounds, value)),
        };
        self.series.push(Series { instrument, attributes: attributes.to_vec(), value });
    }

    /// Hands each data point to `write` and forgets them. `since` is where the interval began that they belong to, and
    /// becomes where the next one begins. Returns the time of the points, Unix nanoseconds.
    ///
    /// Intervals follow one another without overlap, whatever the order of events: a point that would end before the
    /// last one did, or right after it, ends `INTERVAL_MIN_NANOS` after it.
    pub fn write(&mut self, since: &mut u64, mut write: impl FnMut(&Metric<'_>)) -> u64 {
        let time = self.latest.max(since.saturating_add(INTERVAL_MIN_NANOS));
        for Series { instrument, attributes, value } in &self.series {
            let data = match value {
                Sum::Whole(value) if instrument.kind == Kind::Gauge => Data::Gauge(Number::Int(*value)),
                Sum::Whole(value) => Data::Delta(Number::Int(*value)),
                Sum::Amount(value) if instrument.kind == Kind::Level => Data::Gauge(Number::Double(*value)),
                Sum::Amount(value) => Data::Delta(Number::Double(*value)),
                Sum::Spread(histogram) => Data::Histogram(Cow::Borrowed(histogram)),
            };
            write(&Metric {
                name: instrument.name.into(),
                description: instrument.description.into(),
                unit: instrument.unit.into(),
                attributes: Cow::Borrowed(attributes),
                start_unix_nanos: if matches!(instrument.kind, Kind::Gauge | Kind::Level) {
                    0
                } else {
                    *since
                },
                time_unix_nanos: time,
                data,
            });
        }
        self.series.clear();
        self.latest = 0;
        *since = time;
        time
    }
}

#[cfg(test)]
mod tests {
    use super::super::instrument::{COLDSTARTS, ESTIMATED_COST, INVOKE_DURATION, TMP_FREE};
    use super::super::own::QUEUE_OLDEST_AGE;
    use super::*;
    use crate::record::Value;

    fn owned((name, value): &Field<'_>) -> Field<'static> {
        (name.to_string().into(), Value::Str(value.as_str().unwrap().to_owned().into()))
    }

    fn written(points: &mut Points, since: &mut u64) -> Vec<Metric<'static>> {
        let mut metrics = Vec::new();
        points.write(since, |metric| {
            let data = match &metric.data {
                Data::Histogram(histogram) => Data::Histogram(Cow::Owned((**histogram).clone())),
                Data::Gauge(number) => Data::Gauge(*number),
                Data::Delta(number) => Data::Delta(*number),
            };
            metrics.push(Metric {
                name: metric.name.to_string().into(),
                description: metric.description.to_string().into(),
                unit: metric.unit.to_string().into(),
                attributes: metric.attributes.iter().map(owned).collect(),
                start_unix_nanos: metric.start_unix_nanos,
                time_unix_nanos: metric.time_unix_nanos,
                data,
            });
        });
        metrics
    }

    #[test]
    fn measurements_of_one_series_become_one_point() {
        let mut points = Points::default();
        let tenant: [Field<'static>; 1] = [("tenant".into(), Value::Str("blue".into()))];
        points.add(&COLDSTARTS, 10, 1.0, &[]);
        points.add(&COLDSTARTS, 30_000_000, 1.0, &[]);
        points.add(&COLDSTARTS, 20, 1.0, &tenant);
        points.add(&INVOKE_DURATION, 5, 0.02, &[]);
        points.add(&INVOKE_DURATION, 5, 3.0, &[]);
        points.add(&TMP_FREE, 5, 100.0, &[]);
        points.add(&TMP_FREE, 6, 50.0, &[]);
        points.add(&ESTIMATED_COST, 6, 0.25, &[]);
        points.add(&QUEUE_OLDEST_AGE, 6, 7.5, &[]);
        points.add(&QUEUE_OLDEST_AGE, 6, 0.75, &[]);
        let mut since = 3;
        let metrics = written(&mut points, &mut since);
        assert!(points.is_empty());
        assert_eq!(since, 30_000_000);
        let value = |at: usize| metrics[at].data.clone();
        assert_eq!((value(0), value(1)), (Data::Delta(Number::Int(2)), Data::Delta(Number::Int(1))));
        let Data::Histogram(durations) = value(2) else { panic!("{:?}", value(2)) };
        assert_eq!((durations.count, durations.min, durations.max), (2, 0.02, 3.0));
        assert_eq!((value(3), metrics[3].start_unix_nanos), (Data::Gauge(Number::Int(50)), 0));
        assert_eq!(value(4), Data::Delta(Number::Double(0.25)));
        assert_eq!((value(5), metrics[5].start_unix_nanos), (Data::Gauge(Number::Double(0.75)), 0));
        assert!(metrics.iter().all(|metric| metric.time_unix_nanos == 30_000_000));
        assert_eq!(metrics[0].start_unix_nanos, 3);
    }

    #[test]
    fn intervals_never_overlap_and_are_never_empty() {
        let (mut points, mut since) = (Points::default(), 100);
        let mut last = 100;
        for time in [50, 100, 101, 500, 499] {
            points.add(&COLDSTARTS, time, 1.0, &[]);
            let metrics = written(&mut points, &mut since);
            assert_eq!(metrics[0].start_unix_nanos, last);
            assert!(metrics[0].time_unix_nanos >= last + INTERVAL_MIN_NANOS);
            last = metrics[0].time_unix_nanos;
        }
    }

    #[test]
    fn what_is_no_measurement_is_left_out() {
        let mut points = Points::default();
        for value in [f64::NAN, f64::INFINITY, -1.0] {
            points.add(&INVOKE_DURATION, 1, value, &[]);
        }
        assert!(points.is_empty());
        points.add(&TMP_FREE, 1, 1e300, &[]);
        assert_eq!(written(&mut points, &mut 0)[0].data, Data::Gauge(Number::Int(i64::MAX)));
    }
}
