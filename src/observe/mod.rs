//! Metrics and spans out of what Lambda's platform says about itself: a state machine, fed the events of the stream in
//! order, without I/O, clock or randomness.
//!
//! ```text
//! Event ──told──> Observer ──┬─ startup      init and restore, until the first invocation claims them
//!                            ├─ invocation   from the start to the report
//!                            ├──> Points     measurements, put together by delivery ──> Metric
//!                            └──> Span       the invocation and its parts, once it ended
//! ```
//! **When an invocation is over** its end (`platform.runtimeDone`) makes its span and is what it is counted by: the
//! report comes one invocation later, and in a quiet environment that is too late. The report adds what only it knows,
//! and stands in where no end came (Managed Instances have none). Where neither comes, the invocation is closed: as
//! timed out or failed if SHUTDOWN says so, as failed if the environment was initialised anew, else as unknown, and then
//! nothing is counted.
//!
//! **What has to be remembered** between events is [`Observer::carry`]: a few hundred bytes that go to disk in the same
//! write as the points and spans of a delivery, so that a SIGKILL neither repeats nor forgets any of them. Should it be
//! lost, ids still follow from the request: a span that is made again is the same span.
//!
//! **Temporality is delta.** An environment counts for itself, lives for minutes, and hundreds of them count at the same
//! time: running totals of each would be hundreds of series that nobody ever reads to their end. Points follow one
//! another without overlap; the first interval begins with the environment, or its restore from a snapshot.

mod carry;
mod embedded;
mod environment;
mod instrument;
mod invocation;
mod metric;
mod observer;
pub mod own;
mod points;
mod sampler;
mod span;
mod startup;
mod told;

pub use embedded::{Embedded, Emf, NAMESPACE};
pub use instrument::Instrument;
pub use invocation::TENANT_ID;
pub use metric::{Data, Histogram, Metric, Number};
pub use observer::Observer;
pub use points::Points;
pub use sampler::Sampler;
pub use span::{Link, Parent, Span, SpanKind, SpanStatus};

/// What an invocation costs, in any currency.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Price {
    /// For a gigabyte of memory and a second of billed time.
    pub gb_second: f64,
    /// For a request.
    pub request: f64,
}

/// How metrics and spans are made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rules {
    /// Which invocations become spans.
    pub sampler: Sampler,
    /// What they cost; without it no cost is estimated.
    pub price: Option<Price>,
    /// Several invocations run at once (Managed Instances), so that one that ends says nothing about the others.
    pub concurrent: bool,
}

/// What is known beside the events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// When the delivery came, Unix nanoseconds. No event is taken to be later.
    pub received: u64,
    /// The function's name.
    pub function_name: Option<&'a str>,
    /// The ARN it was last invoked by.
    pub invoked_arn: Option<&'a str>,
    /// The file system that `/tmp` is on.
    pub tmp: Option<Space>,
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Taken.
    pub used: u64,
    /// Left.
    pub free: u64,
}

/// Why the environment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The function timed out.
    Timeout,
    /// Something crashed.
    Failure,
    /// It is not needed any more, or nobody says.
    Other,
}

/// What came of events.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Measurements.
    pub points: Points,
    /// Spans that are over, each after the one it is part of.
    pub spans: Vec<Span>,
}

#[cfg(test)]
mod tests;
