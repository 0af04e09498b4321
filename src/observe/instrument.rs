//! Every metric there is: name, unit, description, and the bounds of histograms.
//!
//! Names that begin with `faas.` are those of the OpenTelemetry semantic conventions ("Semantic conventions for
//! `FaaS` metrics"), with their units. For the rest the conventions have no name. Durations are in seconds and sizes in
//! bytes throughout, as the conventions ask for. `docs/signals.md` tells for each from which field it is made.

/// A kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Adds up; whole numbers.
    Counter,
    /// Adds up; numbers with a fraction.
    Amount,
    /// The latest value counts; whole numbers.
    Gauge,
    /// The latest value counts; numbers with a fraction.
    Level,
    /// Falls into buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// A metric.
#[derive(Debug, PartialEq)]
pub struct Instrument {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) description: &'static str,
    pub(super) kind: Kind,
}

/// What the conventions advise for durations of functions, in seconds.
const DURATION_BOUNDS_S: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// What the platform and extensions spend beside the function, in seconds: mostly under ten milliseconds, where the
/// bounds for functions see nothing.
pub(super) const OVERHEAD_BOUNDS_S: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const MIB: f64 = 1_048_576.0;
/// Memory in bytes: the sizes that functions are given, and steps between the small ones.
const MEMORY_BOUNDS_BY: &[f64] = &[
    64.0 * MIB,
    96.0 * MIB,
    128.0 * MIB,
    192.0 * MIB,
    256.0 * MIB,
    384.0 * MIB,
    512.0 * MIB,
    768.0 * MIB,
    1024.0 * MIB,
    1536.0 * MIB,
    2048.0 * MIB,
    3072.0 * MIB,
    4096.0 * MIB,
    6144.0 * MIB,
    8192.0 * MIB,
];
/// Responses in bytes, up to the 6 MB that Lambda buffers.
const RESPONSE_BOUNDS_BY: &[f64] =
    &[128.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 6_291_456.0];

const fn counter(name: &'static str, unit: &'static str, description: &'static str) -> Instrument {
    Instrument { name, unit, description, kind: Kind::Counter }
}

const fn gauge(name: &'static str, description: &'static str) -> Instrument {
    Instrument { name, unit: "By", description, kind: Kind::Gauge }
}

const fn histogram(
    name: &'static str,
    unit: &'static str,
    bounds: &'static [f64],
    description: &'static str,
) -> Instrument {
    Instrument { name, unit, description, kind: Kind::Histogram(bounds) }
}

pub(super) const INVOKE_DURATION: Instrument = histogram(
    "faas.invoke_duration",
    "s",
    DURATION_BOUNDS_S,
    "Measures the duration of the function's logic execution.",
);
pub(super) const INIT_DURATION: Instrument = histogram(
    "faas.init_duration",
    "s",
    DURATION_BOUNDS_S,
    "Measures the duration of the function's initialization, such as a cold start.",
);
pub(super) const COLDSTARTS: Instrument =
    counter("faas.coldstarts", "{coldstart}", "Number of invocation cold starts.");
pub(super) const ERRORS: Instrument = counter("faas.errors", "{error}", "Number of invocation errors.");
pub(super) const INVOCATIONS: Instrument =
    counter("faas.invocations", "{invocation}", "Number of successful invocations.");
pub(super) const TIMEOUTS: Instrument =
    counter("faas.timeouts", "{timeout}", "Number of invocation timeouts.");
pub(super) const MEM_USAGE: Instrument =
    histogram("faas.mem_usage", "By", MEMORY_BOUNDS_BY, "Distribution of max memory usage per invocation.");

pub(super) const BILLED_DURATION: Instrument = histogram(
    "aws.lambda.billed_duration",
    "s",
    DURATION_BOUNDS_S,
    "Time that is billed for an invocation, initialization included where that is billed.",
);
pub(super) const MEMORY_SIZE: Instrument =
    gauge("aws.lambda.memory_size", "Memory that the function is given.");
pub(super) const RESTORE_DURATION: Instrument = histogram(
    "aws.lambda.restore_duration",
    "s",
    DURATION_BOUNDS_S,
    "Time to restore the environment from a snapshot.",
);
pub(super) const BILLED_RESTORE_DURATION: Instrument = histogram(
    "aws.lambda.billed_restore_duration",
    "s",
    DURATION_BOUNDS_S,
    "Time that is billed for restoring the environment from a snapshot.",
);
pub(super) const PRODUCED_BYTES: Instrument =
    histogram("aws.lambda.produced_bytes", "By", RESPONSE_BOUNDS_BY, "Size of the function's response.");
pub(super) const RESPONSE_LATENCY: Instrument = histogram(
    "aws.lambda.response_latency",
    "s",
    DURATION_BOUNDS_S,
    "Time from the start of an invocation to the first byte of its response.",
);
pub(super) const RESPONSE_DURATION: Instrument = histogram(
    "aws.lambda.response_duration",
    "s",
    OVERHEAD_BOUNDS_S,
    "Time from the first to the last byte of a response.",
);
pub(super) const RUNTIME_OVERHEAD: Instrument = histogram(
    "aws.lambda.runtime_overhead",
    "s",
    OVERHEAD_BOUNDS_S,
    "Time from the end of a response until the runtime was ready for the next event.",
);
pub(super) const EXTENSION_OVERHEAD: Instrument = histogram(
    "aws.lambda.extension_overhead",
    "s",
    OVERHEAD_BOUNDS_S,
    "Time from the end of the function until all extensions were done.",
);
pub(super) const TMP_USED: Instrument = gauge("aws.lambda.tmp_used", "Bytes of /tmp in use.");
pub(super) const TMP_FREE: Instrument =
    gauge("aws.lambda.tmp_free", "Bytes of /tmp that can still be written.");
pub(super) const ESTIMATED_COST: Instrument = Instrument {
    name: "aws.lambda.estimated_cost",
    unit: "{currency}",
    description: "Billed time and request at the configured price, in its currency.",
    kind: Kind::Amount,
};

/// Each of them, for what holds for all.
#[cfg(test)]
pub(super) const ALL: [&Instrument; 19] = [
    &INVOKE_DURATION,
    &INIT_DURATION,
    &COLDSTARTS,
    &ERRORS,
    &INVOCATIONS,
    &TIMEOUTS,
    &MEM_USAGE,
    &BILLED_DURATION,
    &MEMORY_SIZE,
    &RESTORE_DURATION,
    &BILLED_RESTORE_DURATION,
    &PRODUCED_BYTES,
    &RESPONSE_LATENCY,
    &RESPONSE_DURATION,
    &RUNTIME_OVERHEAD,
    &EXTENSION_OVERHEAD,
    &TMP_USED,
    &TMP_FREE,
    &ESTIMATED_COST,
];

#[cfg(test)]
mod tests {
    use super::super::own;
    use super::*;

    fn all() -> impl Iterator<Item = &'static Instrument> {
        ALL.into_iter().chain(own::ALL)
    }

    #[test]
    fn names_are_unique_and_bounds_grow() {
        let mut names: Vec<_> = all().map(|instrument| instrument.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
        for instrument in all() {
            if let Kind::Histogram(bounds) = instrument.kind {
                assert!(bounds.is_sorted_by(|a, b| a < b), "{}", instrument.name);
            }
        }
    }

    #[test]
    fn each_is_documented_with_its_unit() {
        let page = include_str!("../../docs/signals.md");
        for Instrument { name, unit, .. } in all() {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("{name} is not in docs/signals.md"));
            assert!(row.contains(&format!("| `{unit}` |")), "{row}");
        }
    }
}
