//! Getting one request to the backend, and saying what became of it.
//!
//! [`Client::send`] makes exactly one attempt and always comes back with a [`Verdict`]; it never waits before,
//! never retries after, and has no time-out of its own for the whole: whoever decides about time drops the
//! future. What a verdict means for the queue is decided elsewhere. An error that proves that nothing was
//! written is told from one after which the backend may have the data, for only the latter can lead to a
//! repeat.
//!
//! A freeze kills connections without a sign. [`Client::renew`] forgets them all; a pooled connection that the
//! peer has closed meanwhile is replaced without being noticed, if nothing was written to it.

mod acknowledge;
mod answer;
mod aws;
mod client;
mod dialect;
pub mod fallback;
mod lookup;
mod retry_after;
mod secrets;
mod tls;
mod verdict;

pub use acknowledge::{ACKNOWLEDGED_TIMEOUT_S, is_acknowledged};
pub use answer::MESSAGE_MAX_CHARS;
pub use aws::{Aws, AwsError};
pub use client::{ANSWER_BODY_MAX_BYTES, ANSWER_BODY_WAIT_MAX_MS, Client, Outgoing, SYSTEM};
pub use retry_after::{RETRY_AFTER_MAX_S, retry_after};
pub use secrets::{Headers, SecretHeader, Vault};
pub use verdict::{Cause, Verdict, verdict};
