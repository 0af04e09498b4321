//! What the backend does with a request.
//!
//! A [`Behaviour`] is a small tree: its leaves say what happens (accept, an answer, a reset, silence),
//! its inner nodes when (delays, conditions). The script holds a queue of behaviours for the next
//! requests and one for all others; both can be changed while requests are under way, which then keep
//! the behaviour they began with.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message;

use crate::record::{Record, Signal};

/// An answer that is not the acceptance of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
}

/// `google.rpc.Status`, which the OTLP specification ("OTLP/HTTP Response", Failures) makes the body of
/// every 4xx and 5xx answer.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

impl Answer {
    /// A status with the body OTLP asks for.
    pub fn new(status: u16) -> Self {
        Self::explained(status, format!("scripted status {status}"))
    }

    /// A status with a message in the body OTLP asks for.
    pub fn explained(status: u16, message: impl Into<String>) -> Self {
        let body = RpcStatus { code: 0, message: message.into() }.encode_to_vec();
        let content_type = "application/x-protobuf".to_owned();
        Self { status, headers: Vec::new(), content_type, body: body.into() }
    }

    /// With `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after_seconds(self, seconds: u64) -> Self {
        self.retry_after(seconds.to_string())
    }

    /// With `Retry-After` as an HTTP date (RFC 9110, 5.6.7), which has whole seconds.
    #[must_use]
    pub fn retry_after_date(self, date: SystemTime) -> Self {
        self.retry_after(httpdate::fmt_http_date(date))
    }

    /// With `Retry-After` as any text at all.
    #[must_use]
    pub fn retry_after(self, text: impl Into<String>) -> Self {
        self.header("retry-after", text)
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With another body.
    #[must_use]
    pub fn body(mut self, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        self.content_type = content_type.into();
        self.body = body.into();
        self
    }
}

/// Whether the backend keeps the records of a request whose sender never learns what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Kept: sending them again makes a repeat.
    Kept,
    /// Gone: not sending them again is a loss.
    Lost,
}

/// Where in a request the connection is reset (RST, not FIN).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// After the head, with the body unread.
    BeforeBody,
    /// After this many bytes of the body, or at its end if that comes first.
    AfterBytes(usize),
    /// After the whole request was read.
    AfterBody(Fate),
}

/// What follows the first part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: the connection stays.
    Hang,
    /// A reset.
    Reset,
}

/// Asks something of a request.
#[derive(Clone)]
pub enum Condition {
    /// The request is of this signal.
    Signal(Signal),
    /// The body is gzip.
    Gzip,
    /// The connection has carried a request before this one.
    ReusedConnection,
    /// The body is longer than this on the wire.
    WireBytesAbove(usize),
    /// The body is longer than this when inflated.
    PlainBytesAbove(usize),
    /// The request brings more records than this.
    RecordsAbove(usize),
    /// Any of its records satisfies this.
    AnyRecord(Arc<dyn Fn(&Record) -> bool + Send + Sync>),
    /// With a chance, the same sequence for the same seed; see [`Condition::chance`].
    Chance(Arc<Chance>),
}

/// A seeded coin with a bias.
#[derive(Debug)]
pub struct Chance {
    probability: f64,
    random: Mutex<fastrand::Rng>,
}

impl Condition {
    /// True with this probability, from a generator seeded so that a run can be repeated.
    pub fn chance(probability: f64, seed: u64) -> Self {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        Self::Chance(Arc::new(Chance { probability, random }))
    }

    /// True if any record satisfies this.
    pub fn any_record(predicate: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        Self::AnyRecord(Arc::new(predicate))
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "Signal({signal})"),
            Self::Gzip => f.write_str("Gzip"),
            Self::ReusedConnection => f.write_str("ReusedConnection"),
            Self::WireBytesAbove(bytes) => write!(f, "WireBytesAbove({bytes})"),
            Self::PlainBytesAbove(bytes) => write!(f, "PlainBytesAbove({bytes})"),
            Self::RecordsAbove(records) => write!(f, "RecordsAbove({records})"),
            Self::AnyRecord(_) => f.write_str("AnyRecord(..)"),
            Self::Chance(chance) => write!(f, "Chance({})", chance.probability),
        }
    }
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// 200, and the records are kept; a body other than the empty `Export…ServiceResponse` may be given.
    Accept {
        /// The body of the answer.
        body: Bytes,
    },
    /// 200 with `partial_success`; the last `rejected` records are not kept.
    Partial {
        /// How many records the answer says were rejected.
        rejected: u64,
        /// The `error_message`.
        message: String,
    },
    /// 200, with this status for each record of which the condition holds; it is not kept, the others are. Only of use
    /// where an answer tells of single records (Elasticsearch).
    Items {
        /// The status of these records.
        status: u16,
        /// Which they are.
        of: Condition,
    },
    /// The request is read, its records are not kept, and this is the answer.
    Answer(Answer),
    /// This is the answer, sent before the body is read; then the connection ends.
    AnswerEarly(Answer),
    /// The request is read and never answered.
    Hang(Fate),
    /// The connection is reset.
    Reset(Reset),
    /// Waits, then goes on. If the sender has gone by then, the records are not kept.
    Delay(Duration, Box<Behaviour>),
    /// Reads the request, waits for [`Backend::release`](crate::Backend::release), then goes on.
    Hold(Box<Behaviour>),
    /// Sends the answer one byte at a time, with this pause after each.
    Trickle(Duration, Box<Behaviour>),
    /// Sends so many bytes of the answer, and then nothing, or a reset.
    Part(usize, Rest, Box<Behaviour>),
    /// The request's body is not read, and there is no answer.
    Deaf,
    /// Asks, then goes on with one of two.
    When(Condition, Box<Behaviour>, Box<Behaviour>),
}

impl Behaviour {
    /// 200 to everything that is well formed.
    pub fn healthy() -> Self {
        Self::Accept { body: Bytes::new() }
    }

    /// 200 with a body that is not OTLP; the records are kept all the same.
    pub fn garbage(body: impl Into<Bytes>) -> Self {
        Self::Accept { body: body.into() }
    }

    /// A status without further ado.
    pub fn status(status: u16) -> Self {
        Self::Answer(Answer::new(status))
    }

    /// An answer.
    pub fn answer(answer: Answer) -> Self {
        Self::Answer(answer)
    }

    /// A redirect to another address.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::Answer(Answer::new(status).header("location", location))
    }

    /// Read, never answered, not kept.
    pub fn hang() -> Self {
        Self::Hang(Fate::Lost)
    }

    /// 200 with `partial_success`.
    pub fn partial(rejected: u64, message: impl Into<String>) -> Self {
        Self::Partial { rejected, message: message.into() }
    }

    /// 413 for bodies longer than this on the wire.
    pub fn too_large_above_wire(bytes: usize) -> Self {
        Self::status(413).when(Condition::WireBytesAbove(bytes))
    }

    /// 413 for bodies longer than this when inflated.
    pub fn too_large_above_plain(bytes: usize) -> Self {
        Self::status(413).when(Condition::PlainBytesAbove(bytes))
    }

    /// 400 for every request with a record like this in it: poison that takes its neighbours along.
    pub fn poisoned_by(predicate: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        Self::Answer(Answer::explained(400, "a record is not acceptable"))
            .when(Condition::any_record(predicate))
    }

    /// This status for every record like this, where an answer tells of single records.
    pub fn items(status: u16, predicate: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        Self::Items { status, of: Condition::any_record(predicate) }
    }

    /// 415 for compressed bodies.
    pub fn no_gzip() -> Self {
        Self::status(415).when(Condition::Gzip)
    }

    /// This behaviour with a probability; otherwise healthy.
    #[must_use]
    pub fn flaky(self, probability: f64, seed: u64) -> Self {
        self.when(Condition::chance(probability, seed))
    }

    /// This behaviour where the condition holds; otherwise healthy.
    #[must_use]
    pub fn when(self, condition: Condition) -> Self {
        Self::When(condition, Box::new(self), Box::new(Self::healthy()))
    }

    /// Another behaviour in place of the healthy one at the end of a chain of conditions.
    #[must_use]
    pub fn otherwise(self, other: Self) -> Self {
        match self {
            Self::When(condition, then, rest) => Self::When(condition, then, Box::new(rest.otherwise(other))),
            _ => other,
        }
    }

    /// This behaviour after a delay.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::Delay(delay, Box::new(self))
    }

    /// This behaviour after [`Backend::release`](crate::Backend::release).
    #[must_use]
    pub fn held(self) -> Self {
        Self::Hold(Box::new(self))
    }

    /// This behaviour, its answer broken off after so many bytes.
    #[must_use]
    pub fn broken_off(self, bytes: usize, rest: Rest) -> Self {
        Self::Part(bytes, rest, Box::new(self))
    }

    /// This behaviour, its answer sent one byte at a time.
    #[must_use]
    pub fn trickled(self, pause: Duration) -> Self {
        Self::Trickle(pause, Box::new(self))
    }
}

/// What is known of a request when a condition is asked.
pub(crate) struct Facts<'a> {
    pub(crate) signal: Signal,
    pub(crate) gzip: bool,
    pub(crate) reused_connection: bool,
    /// Absent while the body is unread.
    pub(crate) body: Option<BodyFacts<'a>>,
}

/// What reading the body adds.
pub(crate) struct BodyFacts<'a> {
    pub(crate) wire_bytes: usize,
    /// Absent while a compressed body has not been inflated.
    pub(crate) plain_bytes: Option<usize>,
    /// Absent while nothing has asked for them.
    pub(crate) records: Option<&'a [Record]>,
}

impl Condition {
    /// Whether this record alone meets the condition.
    pub(crate) fn holds_of(&self, record: &Record) -> bool {
        matches!(self, Self::AnyRecord(predicate) if predicate(record))
    }
}

/// What a condition says, or what it must know first.
pub(crate) enum Truth {
    Known(bool),
    NeedsBody,
    NeedsDecoding,
}

impl Condition {
    pub(crate) fn test(&self, facts: &Facts<'_>) -> Truth {
        Truth::Known(match (self, &facts.body) {
            (Self::Signal(signal), _) => *signal == facts.signal,
            (Self::Gzip, _) => facts.gzip,
            (Self::ReusedConnection, _) => facts.reused_connection,
            (Self::Chance(chance), _) => {
                let mut random = chance.random.lock().unwrap_or_else(PoisonError::into_inner);
                random.f64() < chance.probability
            }
            (_, None) => return Truth::NeedsBody,
            (Self::WireBytesAbove(limit), Some(body)) => body.wire_bytes > *limit,
            (Self::PlainBytesAbove(limit), Some(BodyFacts { plain_bytes: Some(bytes), .. })) => bytes > limit,
            (Self::RecordsAbove(limit), Some(BodyFacts { records: Some(records), .. })) => {
                records.len() > *limit
            }
            (Self::AnyRecord(predicate), Some(BodyFacts { records: Some(records), .. })) => {
                records.iter().any(|record| predicate(record))
            }
            (Self::PlainBytesAbove(_) | Self::RecordsAbove(_) | Self::AnyRecord(_), Some(_)) => {
                return Truth::NeedsDecoding;
            }
        })
    }
}

/// The behaviours to come.
#[derive(Debug)]
pub(crate) struct Script {
    next: VecDeque<(Option<Signal>, Behaviour)>,
    default: Behaviour,
}

impl Default for Script {
    fn default() -> Self {
        Self { next: VecDeque::new(), default: Behaviour::healthy() }
    }
}

impl Script {
    pub(crate) fn push(&mut self, signal: Option<Signal>, behaviour: Behaviour) {
        self.next.push_back((signal, behaviour));
    }

    pub(crate) fn set_default(&mut self, behaviour: Behaviour) {
        self.default = behaviour;
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn queued(&self) -> usize {
        self.next.len()
    }

    /// The behaviour for a request that has just begun.
    pub(crate) fn take(&mut self, signal: Signal) -> Behaviour {
        let at = self.next.iter().position(|(only, _)| only.is_none_or(|only| only == signal));
        at.and_then(|at| self.next.remove(at))
            .map_or_else(|| self.default.clone(), |(_, behaviour)| behaviour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(body: Option<BodyFacts<'_>>) -> Facts<'_> {
        Facts { signal: Signal::Logs, gzip: true, reused_connection: false, body }
    }

    #[test]
    fn the_queue_is_used_up_in_order_before_the_default() {
        let mut script = Script::default();
        script.set_default(Behaviour::status(500));
        script.push(None, Behaviour::status(501));
        script.push(Some(Signal::Traces), Behaviour::status(502));
        script.push(None, Behaviour::status(503));
        let mut status = |signal| match script.take(signal) {
            Behaviour::Answer(answer) => answer.status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(Signal::Logs), 501);
        assert_eq!(status(Signal::Logs), 503);
        assert_eq!(status(Signal::Logs), 500);
        assert_eq!(status(Signal::Traces), 502);
        assert_eq!(status(Signal::Traces), 500);
    }

    #[test]
    fn a_condition_asks_for_no_more_of_the_request_than_it_needs() {
        assert!(matches!(Condition::Gzip.test(&facts(None)), Truth::Known(true)));
        assert!(matches!(Condition::WireBytesAbove(1).test(&facts(None)), Truth::NeedsBody));
        let unread = BodyFacts { wire_bytes: 2, plain_bytes: None, records: None };
        assert!(matches!(Condition::WireBytesAbove(1).test(&facts(Some(unread))), Truth::Known(true)));
        let unread = BodyFacts { wire_bytes: 2, plain_bytes: None, records: None };
        assert!(matches!(Condition::RecordsAbove(1).test(&facts(Some(unread))), Truth::NeedsDecoding));
    }

    #[test]
    fn the_same_seed_gives_the_same_luck() {
        let draw = |seed| {
            let condition = Condition::chance(0.5, seed);
            (0..64).map(|_| matches!(condition.test(&facts(None)), Truth::Known(true))).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn otherwise_goes_to_the_end_of_a_chain() {
        let chain = Behaviour::no_gzip().otherwise(Behaviour::too_large_above_wire(10));
        let chain = chain.otherwise(Behaviour::hang());
        let Behaviour::When(_, _, rest) = chain else { panic!("no condition") };
        let Behaviour::When(_, _, rest) = *rest else { panic!("no second condition") };
        assert!(matches!(*rest, Behaviour::Hang(Fate::Lost)));
    }
}
