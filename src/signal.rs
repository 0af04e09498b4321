//! The three OpenTelemetry signals. Order, acknowledgement and back-pressure are kept per signal.

use std::fmt;

/// A kind of telemetry (OpenTelemetry specification, "Signals").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Log records, platform events included.
    Logs,
    /// Metric data points.
    Metrics,
    /// Spans.
    Traces,
}

impl Signal {
    /// Every signal, in the order of [`Signal::index`].
    pub const ALL: [Self; 3] = [Self::Logs, Self::Metrics, Self::Traces];

    /// A stable small number: the place in [`Signal::ALL`], and the byte stored on disk.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The signal stored as `byte`, if there is one.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Logs),
            1 => Some(Self::Metrics),
            2 => Some(Self::Traces),
            _ => None,
        }
    }

    /// The name used in settings, log lines and OTLP paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One `T` for each signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerSignal<T> {
    logs: T,
    metrics: T,
    traces: T,
}

impl<T> PerSignal<T> {
    /// Builds the value of each signal with `make`.
    pub fn from_fn(mut make: impl FnMut(Signal) -> T) -> Self {
        Self { logs: make(Signal::Logs), metrics: make(Signal::Metrics), traces: make(Signal::Traces) }
    }

    /// The value of `signal`.
    pub fn get(&self, signal: Signal) -> &T {
        match signal {
            Signal::Logs => &self.logs,
            Signal::Metrics => &self.metrics,
            Signal::Traces => &self.traces,
        }
    }

    /// The value of `signal`, to be changed.
    pub fn get_mut(&mut self, signal: Signal) -> &mut T {
        match signal {
            Signal::Logs => &mut self.logs,
            Signal::Metrics => &mut self.metrics,
            Signal::Traces => &mut self.traces,
        }
    }

    /// The three values in the order of [`Signal::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Signal, &T)> {
        Signal::ALL.into_iter().map(|signal| (signal, self.get(signal)))
    }
}
