//! The vocabulary of the policy: what it is told and what it asks for.

use std::time::Duration;

use crate::Signal;
use crate::clock::Time;

/// What the policy needs to know of the configuration and the environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Plain bytes per request, at most; one block is always sent whole, however long
    /// (`OUTLAST_BATCH_MAX_BYTES`).
    pub batch_max_bytes: u64,
    /// Whether bodies are compressed, as long as the backend takes that (`OUTLAST_COMPRESSION`).
    pub gzip: bool,
    /// How late telemetry may be before an invocation is held for it (`OUTLAST_MAX_DELAY`).
    pub max_delay: Duration,
    /// How long an invocation is held after its function is done, at most (`OUTLAST_HOLD_MAX`).
    pub hold_max: Duration,
    /// The shortest delay before a retry (`OUTLAST_RETRY_INITIAL`).
    pub retry_initial: Duration,
    /// Where the growth of the delay ends (`OUTLAST_RETRY_MAX`).
    pub retry_max: Duration,
    /// How long one request may take, frozen time not counted (`OUTLAST_TIMEOUT`).
    pub request_timeout: Duration,
    /// What is left unused of the SHUTDOWN budget (`OUTLAST_SHUTDOWN_RESERVE`).
    pub shutdown_reserve: Duration,
    /// Lambda Managed Instances: only SHUTDOWN is registered and nothing is ever frozen.
    pub continuous: bool,
    /// INVOKE is registered and the telemetry subscription stands, so the end of a function can be seen.
    pub can_hold: bool,
    /// Where telemetry goes that the backend does not take (`OUTLAST_FALLBACK`); `None`: it only waits.
    pub fallback: Option<FallbackSettings>,
    /// What may go to the backend per second, in the mean, counted by [`Sent::wire_bytes`]; none for no limit.
    pub bytes_per_second: Option<u64>,
}

/// What the policy needs to know of the fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FallbackSettings {
    /// Plain bytes per request, at most; one block is always sent whole.
    pub batch_max_bytes: u64,
    /// Whether bodies are compressed, as long as it takes that.
    pub gzip: bool,
    /// What may go there; `None`: everything.
    pub meter: Option<Meter>,
}

/// The bounds of a fallback whose bytes cost money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Bytes per second, in the mean, counted by [`Sent::wire_bytes`].
    pub bytes_per_second: u64,
    /// Bytes of one SHUTDOWN. The request that reaches it is the last one.
    pub shutdown_max_bytes: u64,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The backend.
    #[default]
    Primary,
    /// Where telemetry goes that the backend does not take.
    Fallback,
}

/// The oldest block of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its sequence number in the queue.
    pub sequence: u64,
    /// Its records that are not done. A block that cannot be split at record bounds counts as one record.
    pub records: u64,
    /// Their plain bytes.
    pub bytes: u64,
}

/// What the queue holds of one signal and is not done, what is in flight included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Blocks, a partly done one included.
    pub blocks: u64,
    /// Plain bytes.
    pub bytes: u64,
    /// When the oldest of it was taken in; `None` if an earlier process did.
    pub oldest: Option<Time>,
    /// The oldest block; `None` if there is none.
    pub head: Option<Head>,
    /// The queue as a whole is nearly full, so that something will have to give way soon.
    pub crowded: bool,
    /// It is so full that the next delivery may cost something.
    pub brimming: bool,
}

impl Backlog {
    /// The sequence number of the oldest block.
    pub fn head_sequence(&self) -> Option<u64> {
        self.head.map(|head| head.sequence)
    }
}

/// What a request really carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The sequence number of the block that was the head when the request was assembled.
    pub head: u64,
    /// Blocks it took from, whole or in part.
    pub blocks: u64,
    /// Records.
    pub records: u64,
    /// Plain bytes.
    pub plain_bytes: u64,
    /// Bytes that went out: the body, as often as it was sent, or the lines it became.
    pub wire_bytes: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted, in whole or as a partial success. The executor has marked it done in the queue (as delivered or as
    /// handed over, by the target), unless it was a [`Portion::Alibi`]: that is marked by the [`Action::Settle`] which
    /// follows.
    Delivered,
    /// A failure that may pass: 408, 429, 502, 503, 504, no connection, no answer.
    Retry {
        /// The answer's `Retry-After`, counted from now.
        after: Option<Duration>,
        /// The backend may have taken the request (no answer was read).
        fate_unknown: bool,
    },
    /// 413.
    TooLarge,
    /// 500: the backend is broken, or it breaks on this content.
    ServerError {
        /// The answer's `Retry-After`, counted from now.
        after: Option<Duration>,
    },
    /// 401, 403 and other answers that speak of the configuration rather than of the content.
    Denied,
    /// 400 and other refusals of the content.
    Refused,
    /// Of several records, the answer refuses the first so many, and says so of them alone. Nothing was marked.
    FirstRefused {
        /// How many; they may be more than the head has.
        records: u64,
    },
    /// 415 to a compressed request.
    GzipRefused,
    /// No request was made: the queue had changed, or its content could not be read.
    NotSent,
}

impl Outcome {
    /// The name used in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry { .. } => "unavailable",
            Self::TooLarge => "too_large",
            Self::ServerError { .. } => "server_error",
            Self::Denied => "denied",
            Self::Refused | Self::FirstRefused { .. } => "refused",
            Self::GzipRefused => "gzip_refused",
            Self::NotSent => "not_sent",
        }
    }
}

impl Target {
    /// The name used in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "backend",
            Self::Fallback => "fallback",
        }
    }
}

/// What the policy is told. Each is reported once, as soon as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Registered and listening. Backlogs reported before this were left by an earlier process.
    Started,
    /// An INVOKE arrived from `next`.
    Invoke {
        /// Any number that tells invocations apart (say, a hash of the request id).
        request: u64,
        /// When the function times out, if known.
        deadline: Option<Time>,
    },
    /// `platform.start` was taken in.
    FunctionStarted {
        /// The invocation.
        request: u64,
    },
    /// `platform.runtimeDone` was taken in. Report it after the [`Event::Backlog`] of the delivery that carried
    /// it: a held invocation with nothing to send is let go at once.
    FunctionDone {
        /// The invocation.
        request: u64,
        /// `metrics.durationMs`. With it the end is known even if the event was read after a freeze.
        ran: Option<Duration>,
    },
    /// `platform.report` was taken in. Report it after the [`Event::Backlog`] of the delivery that carried it.
    Reported {
        /// The invocation.
        request: u64,
    },
    /// The content of the queue changed by something other than an answer or a settlement: an append, a drop.
    Backlog {
        /// The lane.
        signal: Signal,
        /// Its content now.
        level: Backlog,
    },
    /// The request in flight ended. Not reported for a request that was aborted.
    Answer {
        /// The lane.
        signal: Signal,
        /// The number given in [`Action::Send`]; an answer to any other attempt changes nothing.
        attempt: u64,
        /// What the request carried.
        sent: Sent,
        /// How it ended.
        outcome: Outcome,
        /// The lane's content after the outcome was applied to the queue.
        left: Backlog,
    },
    /// A request to the backend that was given up had brought this much of its body on the way, in bytes.
    Spent {
        /// Counted as [`Sent::wire_bytes`].
        wire_bytes: u64,
    },
    /// An [`Action::Settle`] was carried out.
    Settled {
        /// The lane.
        signal: Signal,
        /// The lane's content now.
        left: Backlog,
    },
    /// SHUTDOWN arrived from `next`.
    Shutdown {
        /// When Lambda kills us.
        deadline: Time,
    },
    /// After [`Action::Exit`]: nothing more is taken in, and what was is told. There may be something to do once more.
    Closed,
}

/// Which part of a lane a request carries. Always from its first record that is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Portion {
    /// As many whole blocks as fit both limits, at least one. What is left of a partly done head counts as a
    /// block; the executor may send it on its own.
    Run {
        /// Blocks, at most.
        max_blocks: u64,
        /// Plain bytes, at most.
        max_bytes: u64,
    },
    /// The first `count` records of the head that are not done.
    Records {
        /// How many; no more than the head has.
        count: u64,
    },
    /// The one record *after* the first that is not done, from the next block if the head has no other. On
    /// [`Outcome::Delivered`] nothing is marked in the queue.
    #[default]
    Alibi,
}

/// What the policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask Lambda for the next event. Exactly once per event received, never while one is asked for.
    Next,
    /// Send a request; its end is reported as [`Event::Answer`].
    Send {
        /// The lane.
        signal: Signal,
        /// A number for the answer.
        attempt: u64,
        /// What to send.
        portion: Portion,
        /// Compressed, or as identity.
        gzip: bool,
        /// Where to.
        target: Target,
    },
    /// Give up the request in flight: drop it and its connection. Whether the other end took it stays unknown.
    Abort {
        /// The lane.
        signal: Signal,
        /// Where it was going.
        target: Target,
    },
    /// Close pooled connections to this target: they are presumed dead.
    RenewConnections(Target),
    /// Mark records at the front of the lane without sending them, then report [`Event::Settled`]. If the head is
    /// no longer `head`, change nothing and report [`Event::Settled`].
    Settle {
        /// The lane.
        signal: Signal,
        /// The sequence number of the block that must be the head.
        head: u64,
        /// The first so many records that are not done are given up: counted and reported.
        refused: u64,
        /// The so many records after those were delivered already (as an alibi). May reach into the next block.
        delivered: u64,
    },
    /// The work of SHUTDOWN is over, unless something comes to light when the intake closes ([`Event::Closed`]): print the
    /// final line and exit 0.
    Exit,
}
