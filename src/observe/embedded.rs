//! Metrics that a function embeds in what it logs: CloudWatch's embedded metric format (CloudWatch user guide,
//! "Specification: Embedded metric format").
//!
//! The format names no kind of metric: CloudWatch keeps how many values there were, their sum, the least and the greatest.
//! A histogram without bounds says just that, so it is what each value becomes, alone or in a list. Libraries write one
//! and the same metric as a number at one time and as a list at another, so that a kind chosen by the form would change.

use std::borrow::Cow;

use super::metric::{Data, Histogram, Metric};
use crate::record::{Field, Reading, Value, time};

/// The member that makes an object one with embedded metrics.
const METADATA: &str = "_aws";
/// Its member that lists the directives.
const DIRECTIVES: &str = "CloudWatchMetrics";
/// Its member that says when: milliseconds since the Unix epoch.
const TIMESTAMP: &str = "Timestamp";
/// Attribute: the namespace of CloudWatch that the metric is meant for.
pub const NAMESPACE: &str = "aws.cloudwatch.namespace";

/// Metrics of a directive ("`MetricDirective` object").
const METRICS_MAX: usize = 100;
/// Names of a dimension set ("`DimensionSet` array").
const DIMENSIONS_MAX: usize = 30;
/// Numbers in a list ("Target members").
const VALUES_MAX: usize = 100;
/// Characters of the name of a metric, of a namespace, and of a dimension's value (JSON schema of the specification).
const TEXT_MAX_CHARS: usize = 1024;
/// Characters of a dimension's name (likewise).
const DIMENSION_MAX_CHARS: usize = 250;
/// Points of one object: the specification bounds neither directives nor dimension sets, and a line of a megabyte could
/// ask for millions. This is 100 metrics in 30 dimension sets.
const POINTS_MAX: usize = 3_000;
/// Names that are looked up, times the members they are looked for among: some 10 ms. A line of a megabyte could ask for
/// thousands of millions.
const LOOKS_MAX: usize = 4_000_000;
/// Bytes of the attributes of all points of one object, about, for each point repeats those of its dimensions.
const ATTRIBUTES_MAX_BYTES: usize = 1 << 20;
/// A value has no interval. It is said to stand for the millisecond that ends with it, for there are receivers that
/// divide by the interval.
const INTERVAL_NANOS: u64 = 1_000_000;

/// UCUM's notation for the units of CloudWatch (CloudWatch API reference, `MetricDatum`). Their prefixes are decimal.
const UNITS: [(&str, &str); 16] = [
    ("None", ""),
    ("Count", "{count}"),
    ("Percent", "%"),
    ("Seconds", "s"),
    ("Milliseconds", "ms"),
    ("Microseconds", "us"),
    ("Bytes", "By"),
    ("Kilobytes", "kBy"),
    ("Megabytes", "MBy"),
    ("Gigabytes", "GBy"),
    ("Terabytes", "TBy"),
    ("Bits", "bit"),
    ("Kilobits", "kbit"),
    ("Megabits", "Mbit"),
    ("Gigabits", "Gbit"),
    ("Terabits", "Tbit"),
];

/// What becomes of metrics that are embedded in log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emf {
    /// Data points are made of them, and they are taken out of the log record.
    #[default]
    Metrics,
    /// Data points are made of them, and the log record is what it would be without.
    Keep,
    /// Nothing is made of them.
    Off,
}

/// The metrics in one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded<'a> {
    /// `Timestamp`, in nanoseconds since the Unix epoch, if it is given.
    pub time_unix_nanos: Option<u64>,
    points: Vec<Point<'a>>,
    /// Names of the members whose values are in the points.
    values: Vec<Cow<'a, str>>,
    /// Names of the members that are dimensions of the points.
    dimensions: Vec<Cow<'a, str>>,
    /// Everything that the directives ask for is in the points.
    is_complete: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Point<'a> {
    name: Cow<'a, str>,
    unit: Cow<'a, str>,
    attributes: Vec<Field<'a>>,
    statistics: Statistics,
}

/// What CloudWatch keeps of values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Statistics {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl<'a> Embedded<'a> {
    /// The metrics of an object with these members. `None` if there are none that the specification allows: then nothing
    /// may be taken out of it.
    ///
    /// As in CloudWatch, a metric whose value is missing or is no number, and a dimension set that names a member which is
    /// missing or is no text, are passed over; so is a directive that breaks a limit.
    pub fn read(members: &[Field<'a>]) -> Option<Self> {
        let metadata = find(members, METADATA)?;
        let Value::Array(directives) = metadata.get(DIRECTIVES)? else { return None };
        let time_unix_nanos = match metadata.get(TIMESTAMP) {
            None => None,
            Some(Value::Int(millis)) => Some(time::epoch_millis(*millis)?),
            Some(_) => return None,
        };
        let mut found = Self {
            time_unix_nanos,
            points: Vec::new(),
            values: Vec::new(),
            dimensions: Vec::new(),
            is_complete: true,
        };
        let mut left = Left { looks: LOOKS_MAX, bytes: ATTRIBUTES_MAX_BYTES };
        for directive in directives {
            let understood = found.direct(directive, members, &mut left)?;
            found.is_complete &= understood;
        }
        (!found.points.is_empty()).then_some(found)
    }

    /// Lets `change` have what the function logged of each point: its attributes, and, as fields without a name, its own name
    /// and unit.
    pub fn texts(&mut self, mut change: impl FnMut(&mut [Field<'a>])) {
        for point in &mut self.points {
            change(&mut point.attributes);
            for text in [&mut point.name, &mut point.unit] {
                let mut field = [(Cow::Borrowed(""), Value::Str(std::mem::take(text)))];
                change(&mut field);
                let [(_, Value::Str(changed))] = field else { continue };
                *text = changed;
            }
        }
    }

    /// Follows one directive. Whether all of it was understood; `None` if it asks for too much.
    fn direct(&mut self, directive: &Value<'a>, members: &[Field<'a>], left: &mut Left) -> Option<bool> {
        let namespace = directive.get("Namespace").and_then(|name| text(name, TEXT_MAX_CHARS));
        let (Some(namespace), Some(Value::Array(sets)), Some(Value::Array(metrics))) =
            (namespace, directive.get("Dimensions"), directive.get("Metrics"))
        else {
            return Some(false);
        };
        if metrics.is_empty() || metrics.len() > METRICS_MAX {
            return Some(false);
        }
        if sets.len().max(1).saturating_mul(metrics.len()) > POINTS_MAX.saturating_sub(self.points.len()) {
            return None;
        }
        let names = sets.iter().map(|set| if let Value::Array(names) = set { names.len() } else { 1 });
        let looks = names.sum::<usize>().saturating_add(metrics.len()).saturating_mul(members.len());
        left.looks = left.looks.checked_sub(looks)?;
        let before = self.points.len();
        let mut is_complete = has_only(directive, &["Namespace", "Dimensions", "Metrics"]);
        let mut series = Vec::with_capacity(sets.len());
        if sets.is_empty() {
            series.push(Vec::new());
        }
        for set in sets {
            match dimensions(set, members) {
                Some(dimensions) => series.push(dimensions),
                None => is_complete = false,
            }
        }
        let bytes = |(name, value): &Field<'_>| name.len() + value.as_str().map_or(0, str::len);
        let each: usize = series.iter().flatten().map(bytes).sum();
        let all = each.saturating_add(namespace.len() * series.len()).saturating_mul(metrics.len());
        left.bytes = left.bytes.checked_sub(all)?;
        for metric in metrics {
            is_complete &= self.measure(metric, namespace, &series, members).is_some()
                && has_only(metric, &["Name", "Unit", "StorageResolution"]);
        }
        if self.points.len() > before {
            self.dimensions.extend(series.into_iter().flatten().map(|(name, _)| name));
        }
        Some(is_complete)
    }

    /// The points of one metric. `None` if there are none.
    fn measure(
        &mut self,
        metric: &Value<'a>,
        namespace: &str,
        series: &[Vec<Field<'a>>],
        members: &[Field<'a>],
    ) -> Option<()> {
        let name = text(metric.get("Name")?, TEXT_MAX_CHARS).filter(|name| *name != METADATA)?;
        let unit = match metric.get("Unit") {
            None => Cow::Borrowed(""),
            Some(Value::Str(unit)) => ucum(unit),
            Some(_) => return None,
        };
        let statistics = Statistics::of(find(members, name)?)?;
        if series.is_empty() {
            return None;
        }
        for dimensions in series {
            let mut attributes = Vec::with_capacity(dimensions.len() + 1);
            attributes.extend_from_slice(dimensions);
            if find(dimensions, NAMESPACE).is_none() {
                attributes.push((NAMESPACE.into(), Value::Str(namespace.to_owned().into())));
            }
            self.points.push(Point { name: name.clone(), unit: unit.clone(), attributes, statistics });
        }
        self.values.push(name.clone());
        Some(())
    }

    /// Takes out of `reading`, which these metrics were read from, what they say. Whether anything is left: dimensions
    /// alone say nothing more.
    ///
    /// The metadata stays as far as it was not understood.
    pub fn take_from(&self, reading: &mut Reading<'_>) -> bool {
        let Some(members) = reading.members_mut() else { return true };
        let mut is_left = false;
        members.retain_mut(|(name, value)| {
            let stays = match value {
                Value::Map(metadata) if name == METADATA => {
                    if self.is_complete {
                        metadata.retain(|(name, _)| name != TIMESTAMP && name != DIRECTIVES);
                    }
                    !metadata.is_empty()
                }
                _ => !self.values.contains(name),
            };
            is_left |= stays && !self.dimensions.contains(name);
            stays
        });
        is_left
    }

    /// Hands each point to `write`. `otherwise` is when it was logged, in Unix nanoseconds, for want of a `Timestamp`.
    /// Below the millisecond, which is all that a `Timestamp` tells, points are told apart by `place`, that of their
    /// event in its delivery: there are receivers that keep one point of a series for a moment.
    ///
    /// Returns how many there are, and their time in Unix nanoseconds.
    pub fn write(&self, otherwise: u64, place: u32, mut write: impl FnMut(&Metric<'_>)) -> (u32, u64) {
        let below = u64::from(place) % INTERVAL_NANOS;
        let time = self.time_unix_nanos.unwrap_or(otherwise).saturating_add(below);
        for Point { name, unit, attributes, statistics } in &self.points {
            let &Statistics { count, sum, min, max } = statistics;
            let histogram = Histogram { count, sum, min, max, bounds: &[], buckets: vec![count] };
            write(&Metric {
                name: Cow::Borrowed(name),
                description: Cow::Borrowed(""),
                unit: Cow::Borrowed(unit),
                attributes: Cow::Borrowed(attributes),
                start_unix_nanos: time.saturating_sub(INTERVAL_NANOS),
                time_unix_nanos: time,
                data: Data::Histogram(Cow::Owned(histogram)),
            });
        }
        (u32::try_from(self.points.len()).unwrap_or(u32::MAX), time)
    }
}

/// What an object may still ask for.
struct Left {
    looks: usize,
    bytes: usize,
}

impl Statistics {
    /// What a metric's value says: a number, a list of numbers, or an object of `Values`, which may occur several times
    /// (`Counts`), or of their statistics, as the OpenTelemetry collector writes for its histograms.
    fn of(value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Array(values) => Self::of_values(values, None),
            Value::Map(members) => {
                if !has_only(value, &["Values", "Counts", "Count", "Sum", "Min", "Max"]) {
                    return None;
                }
                let number = |name| find(members, name).and_then(number);
                if let (Some(count), Some(sum), Some(min), Some(max)) =
                    (find(members, "Count").and_then(whole), number("Sum"), number("Min"), number("Max"))
                {
                    return (count > 0).then_some(Self { count, sum, min, max });
                }
                match (find(members, "Values")?, find(members, "Counts")) {
                    (Value::Array(values), None) => Self::of_values(values, None),
                    (Value::Array(values), Some(Value::Array(counts))) if values.len() == counts.len() => {
                        Self::of_values(values, Some(counts))
                    }
                    _ => None,
                }
            }
            value => Self::of_values(std::slice::from_ref(value), None),
        }
    }

    /// Each of `values`, so many times as `counts` says, or once.
    #[expect(clippy::cast_precision_loss, reason = "counts of log lines are far below 2^53")]
    fn of_values(values: &[Value<'_>], counts: Option<&[Value<'_>]>) -> Option<Self> {
        if values.len() > VALUES_MAX {
            return None;
        }
        let mut all = Self { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };
        for (at, value) in values.iter().enumerate() {
            let value = number(value)?;
            let count = match counts {
                None => 1,
                Some(counts) => counts.get(at).and_then(whole)?,
            };
            if count > 0 {
                all.count = all.count.checked_add(count)?;
                all.sum += value * count as f64;
                all.min = all.min.min(value);
                all.max = all.max.max(value);
            }
        }
        (all.count > 0 && all.sum.is_finite()).then_some(all)
    }
}

/// A number that a double holds to its last digit, as far as it was written with as many.
#[expect(clippy::cast_precision_loss, reason = "this is what is asked")]
fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64).filter(|double| *double as i64 == *number),
        Value::Double(number) => Some(*number).filter(|number| number.is_finite()),
        _ => None,
    }
}

/// A whole number of at least zero, also if it is written with a fraction of zero.
#[expect(clippy::cast_sign_loss, reason = "within the bounds before it")]
fn whole(value: &Value<'_>) -> Option<u64> {
    match value {
        Value::Double(number) if number.fract() == 0.0 && (0.0..1e15).contains(number) => {
            Some(*number as u64)
        }
        value => value.as_u64(),
    }
}

fn find<'m, 'a>(members: &'m [Field<'a>], name: &str) -> Option<&'m Value<'a>> {
    members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Whether an object has no members but these. What others say would be lost.
fn has_only(object: &Value<'_>, names: &[&str]) -> bool {
    matches!(object, Value::Map(members) if members.iter().all(|(name, _)| names.contains(&name.as_ref())))
}

/// Text that is not empty and has at most so many characters.
fn text<'m, 'a>(value: &'m Value<'a>, max_chars: usize) -> Option<&'m Cow<'a, str>> {
    match value {
        Value::Str(text) if !text.is_empty() && text.chars().nth(max_chars).is_none() => Some(text),
        _ => None,
    }
}

/// The dimensions that a set names. `None` if it is no set, too large, or names one that is not there or is no text.
fn dimensions<'a>(set: &Value<'a>, members: &[Field<'a>]) -> Option<Vec<Field<'a>>> {
    let Value::Array(names) = set else { return None };
    if names.len() > DIMENSIONS_MAX {
        return None;
    }
    let mut dimensions: Vec<Field<'a>> = Vec::with_capacity(names.len());
    for name in names {
        let name = text(name, DIMENSION_MAX_CHARS)?;
        let Value::Str(value) = find(members, name)? else { return None };
        // A name twice would be an attribute twice.
        if value.chars().nth(TEXT_MAX_CHARS).is_some() || find(&dimensions, name).is_some() {
            return None;
        }
        dimensions.push((name.clone(), Value::Str(value.clone())));
    }
    Some(dimensions)
}

/// A unit in UCUM's notation; one that CloudWatch does not know stays as it is.
fn ucum<'a>(unit: &Cow<'a, str>) -> Cow<'a, str> {
    let (base, per_second) = unit.strip_suffix("/Second").map_or((unit.as_ref(), false), |base| (base, true));
    let known = UNITS.iter().find(|(name, _)| *name == base);
    match known {
        Some((_, ucum)) if !per_second => Cow::Borrowed(ucum),
        Some((_, ucum)) if !ucum.is_empty() => Cow::Owned(format!("{ucum}/s")),
        _ => unit.clone(),
    }
}

#[cfg(test)]
mod tests;
