//! One data point of one metric, as it is encoded (opentelemetry-proto, `metrics.v1.Metric`).

use std::borrow::Cow;

use crate::record::Field;

/// A metric with its one data point: the unit that is counted, queued and, if need be, refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric<'a> {
    /// The metric's name.
    pub name: Cow<'a, str>,
    /// What it measures, for people.
    pub description: Cow<'a, str>,
    /// The unit in UCUM notation.
    pub unit: Cow<'a, str>,
    /// What sets this point apart from others of the metric. Names are unique.
    pub attributes: Cow<'a, [Field<'a>]>,
    /// Where the interval that the point speaks of begins, in nanoseconds since the Unix epoch; 0 if it speaks of no
    /// interval.
    pub start_unix_nanos: u64,
    /// Where the interval ends, or when the value was taken, likewise.
    pub time_unix_nanos: u64,
    /// The value.
    pub data: Data<'a>,
}

/// The value of a data point.
#[derive(Clone, Debug, PartialEq)]
pub enum Data<'a> {
    /// A value at a moment.
    Gauge(Number),
    /// What was added within the interval, never less than nothing (a monotonic sum of delta temporality).
    Delta(Number),
    /// How the values of the interval are spread (delta temporality).
    Histogram(Cow<'a, Histogram>),
}

/// A number of either kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole number.
    Int(i64),
    /// Any other.
    Double(f64),
}

/// Values in buckets (opentelemetry-proto, `metrics.v1.HistogramDataPoint`).
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// How many values.
    pub count: u64,
    /// What they add up to.
    pub sum: f64,
    /// The least of them.
    pub min: f64,
    /// The greatest of them.
    pub max: f64,
    /// Upper bounds of all buckets but the last, ascending; a value equal to a bound is within it.
    pub bounds: &'static [f64],
    /// How many values in each bucket: one more than there are bounds.
    pub buckets: Vec<u64>,
}

impl Histogram {
    /// A histogram of one value.
    pub fn of(bounds: &'static [f64], value: f64) -> Self {
        let mut histogram =
            Self { count: 0, sum: 0.0, min: value, max: value, bounds, buckets: vec![0; bounds.len() + 1] };
        histogram.add(value);
        histogram
    }

    /// Takes in another value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::of(&[1.0, 2.0, 5.0], 1.0);
        for value in [0.0, 1.5, 2.0, 5.0, 5.1, 100.0] {
            histogram.add(value);
        }
        assert_eq!(histogram.buckets, [2, 2, 1, 2]);
        assert_eq!((histogram.count, histogram.min, histogram.max), (7, 0.0, 100.0));
        assert!((histogram.sum - 114.6).abs() < 1e-9);
    }
}
