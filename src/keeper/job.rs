//! What the lifecycle and the keeper say to each other.

use super::level::Level;
use super::own::Vital;
use super::pipeline::Noted;
use crate::drain::policy::Portion;
use crate::observe::Ending;
use crate::queue::{Encoding, Mark, ReaderId, Request, Waiting};
use crate::rules::Counted;
use crate::{PerSignal, Signal};
use std::time::Duration;
use tokio::sync::oneshot;

/// What the lifecycle asks for.
#[derive(Debug)]
pub enum Job {
    /// Put a request together. The reply is `None` if nothing waits any more.
    Assemble {
        /// Whom it is for.
        reader: ReaderId,
        /// The signal.
        signal: Signal,
        /// How much.
        portion: Portion,
        /// How it is packed.
        encoding: Encoding,
        /// Takes the request.
        reply: oneshot::Sender<Option<Request>>,
    },
    /// The fate of a request is known. The reply is what the signal has waiting then.
    Land {
        /// Whose it was.
        reader: ReaderId,
        /// The signal.
        signal: Signal,
        /// What became of it.
        fate: Fate,
        /// Takes the level.
        reply: oneshot::Sender<Level>,
    },
    /// What the signal has waiting for a reader.
    Level(ReaderId, Signal, oneshot::Sender<Level>),
    /// The function was invoked by this ARN.
    Invoked(String),
    /// SHUTDOWN has come: what is open is closed, after a wait for what may still tell how it ended.
    End(Ending),
    /// SHUTDOWN has come: what waits for a second half waits no longer, and every drop is reported.
    Finish(oneshot::Sender<()>),
    /// The process leaves: nothing is taken in from here on, and what was is told.
    Close {
        /// After spindown nobody sends what is held back.
        brings_out: bool,
        /// Once that is done.
        reply: oneshot::Sender<()>,
    },
    /// What metrics tell about the extension.
    Vital(Vital),
    /// What an alert about a reader's destination says; asked for once for each.
    Standing(ReaderId, oneshot::Sender<Standing>),
    /// What there is to say at the end.
    Summary(oneshot::Sender<Summary>),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Taken; `rejected` of its records were not (OTLP partial success).
    Delivered {
        /// What is done by that.
        to: Mark,
        /// Records in it.
        records: u64,
        /// Those of them that are reports of ours.
        reports: u64,
        /// Records that were not taken.
        rejected: u64,
    },
    /// Taken by the fallback. As [`Fate::Delivered`].
    HandedOver {
        /// What is done by that.
        to: Mark,
        /// Records in it.
        records: u64,
        /// Those of them that are reports of ours.
        reports: u64,
        /// Records that were not taken.
        rejected: u64,
    },
    /// Not taken, or nobody knows: its records stay.
    Kept,
    /// Records at the front were taken, of a request that held more.
    Taken {
        /// The block that must be the oldest; if it is not, nothing happens.
        head: u64,
        /// How many.
        records: u64,
    },
    /// Records at the front are given up, and an alibi after them has arrived.
    Settled {
        /// The block that must be the oldest; if it is not, none is given up.
        head: u64,
        /// Records given up.
        refused: u64,
        /// 1 if the alibi that was sent last has arrived.
        delivered: u64,
    },
}

/// What the keeper tells the lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// What a signal has waiting for a reader changed.
    Level(ReaderId, Signal, Level),
    /// A delivery that was kept said so.
    Noted(Noted),
}

/// Totals of this process, for its last line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records taken in.
    pub received: u64,
    /// What became of them at the main destination, and of what earlier processes left.
    pub main: Fared,
    /// The same for the further destinations of this queue.
    pub further: Vec<(String, Fared)>,
    /// What each of the user's rules did, in this process.
    pub rules: Vec<Counted>,
}

/// What became of records at one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fared {
    /// Delivered by this process; reports of ours not counted.
    pub delivered: u64,
    /// Records that the fallback has, since the queue was made.
    pub handed: u64,
    /// Records given up, since the queue was made.
    pub dropped: PerSignal<u64>,
    /// What waits.
    pub waiting: PerSignal<Waiting>,
}

/// How the queue stands, for an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Name of the function.
    pub function: String,
    /// Records that wait.
    pub records: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// How long the oldest record has waited.
    pub oldest_age: Duration,
    /// Records that this process gave up since it was asked last.
    pub dropped: u64,
}
