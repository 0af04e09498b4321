//! The servers: one takes deliveries from Lambda and answers each only once its fate is known, the other does the same
//! for what the function's own SDK exports ([`Receiver`]). What follows is about the first; the second differs in its
//! answers and has less room, and everything below `answer.rs` and `otlp.rs` is common to both.
//!
//! ```text
//! Lambda ── POST ──> connection ── Delivery ──> inbox (the queue's side)
//!        <── 200 ──             <── Receipt ──
//! ```
//!
//! # The answer is the promise
//! 200 tells Lambda that it may forget the batch, so it is sent only after the inbox answered with a
//! [`Receipt`] that says so. Without one (the inbox is gone, or drops the reply) the answer is 503, and Lambda
//! delivers again. What can never be understood is answered 200 as well: Lambda would repeat it without end.
//!
//! # What one peer can cost
//! The listener shares memory and file descriptors with the function, and anything in the environment can
//! connect to it. So everything is bounded by [`Limits`]: the length of a body, the bytes of all bodies that
//! are being read or wait for their receipt, the connections, and the time a peer may take for each step. A
//! body's memory grows with what has arrived, not with what its `Content-Length` claims. When all connections
//! are taken, the one that has kept us waiting for longest makes room for a new one; when all memory is, the largest
//! unfinished body (`roster.rs`). So no peer can keep Lambda out by doing nothing, or by doing it slowly.
//!
//! # Freezes
//! A timer that was running when Lambda froze the environment is overdue on thaw, though the peer was frozen
//! too. The watch over a connection (`watch.rs`) therefore takes a timer that fires much too late for the sign
//! of a freeze, and starts over; and a connection is served before its timer is looked at, so bytes that wait in
//! the socket always count.
//!
//! # Logging
//! A subscription to `extension` telemetry delivers our own log to us. So nothing here logs per delivery.

mod answer;
mod body;
mod connection;
mod fan_out;
mod limits;
mod otlp;
mod roster;
mod server;
#[cfg(test)]
mod tests;
mod watch;

use std::future::Future;
use std::io;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use fan_out::fan_out;
pub use limits::Limits;
pub use otlp::{Export, Outcome, Receiver};
pub use server::Listener;

/// A batch as it came over the network, waiting for its [`Receipt`].
#[derive(Debug)]
pub struct Delivery {
    /// The request's body. Its memory counts against [`Limits::memory_max_bytes`] until the last clone or slice
    /// of it is dropped.
    pub body: Bytes,
    /// The wall clock when the body was complete, in nanoseconds since the Unix epoch.
    pub received_unix_nanos: u64,
    /// Takes the receipt. Dropping it answers 503.
    pub reply: oneshot::Sender<Receipt>,
}

/// What became of a [`Delivery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It would survive the end of this process. 200.
    Kept,
    /// It is a repeat of one that was kept. 200.
    Repeated,
    /// Nothing can be made of it; that has been counted and will be reported. 200.
    Unreadable,
    /// It could be kept nowhere. 503 with `Retry-After`.
    Full,
}

/// Where deliveries go. The telemetry channel implements it.
pub trait Inbox: Clone + Send + Sync + 'static {
    /// Hands `delivery` over, waiting for room if there is none.
    ///
    /// # Errors
    /// [`InboxClosed`] if nobody takes deliveries any more.
    fn deliver(&self, delivery: Delivery) -> impl Future<Output = Result<(), InboxClosed>> + Send;
}

/// Nobody takes deliveries any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes telemetry any more")]
pub struct InboxClosed;

/// A listener that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// No port could be bound on any interface.
    #[error("cannot listen for telemetry: {0}")]
    Bind(#[source] io::Error),
}

impl Inbox for mpsc::Sender<Delivery> {
    async fn deliver(&self, delivery: Delivery) -> Result<(), InboxClosed> {
        self.send(delivery).await.map_err(|_| InboxClosed)
    }
}
