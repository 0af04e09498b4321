//! What can go wrong between the extension and Lambda.

use std::io;
use std::time::Duration;

/// A call to the Extensions API or the Telemetry API that failed.
///
/// Before registration such an error may end the process: there is nothing to keep going for. After it, none
/// may; see the module's head.
#[derive(Debug, thiserror::Error)]
pub enum LambdaError {
    /// `AWS_LAMBDA_RUNTIME_API` does not name a host.
    #[error("AWS_LAMBDA_RUNTIME_API is {value:?}, which is not host:port ({reason})")]
    Address {
        /// The variable's value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name or identifier contains bytes that no HTTP header can carry.
    #[error("{what} cannot be sent in an HTTP header")]
    Header {
        /// What the header was to carry.
        what: &'static str,
    },
    /// No connection to the API could be opened. Nothing was sent.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port that were tried.
        address: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The connection broke, or what came back is not HTTP. The call may or may not have been acted upon.
    #[error("{call}: {source}")]
    Http {
        /// The call that was made.
        call: &'static str,
        /// hyper's reason.
        source: hyper::Error,
    },
    /// The answer could not be read to its end: it is longer than any real one, or broke off.
    #[error("{call}: the answer cannot be read: {reason}")]
    Body {
        /// The call that was made.
        call: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// The API answered with a status that means no.
    #[error("{call}: status {status} {error_type}: {message}")]
    Refused {
        /// The call that was made.
        call: &'static str,
        /// The HTTP status.
        status: u16,
        /// `errorType` of the answer, empty if it has none.
        error_type: String,
        /// `errorMessage` of the answer, or the start of its text if it is not an error document.
        message: String,
    },
    /// The answer to `register` carries no `Lambda-Extension-Identifier`.
    #[error("register: the answer carries no Lambda-Extension-Identifier")]
    NoIdentifier,
    /// `next` was answered with something that is not a JSON object.
    #[error("next: the event is not a JSON object")]
    NotAnEvent,
    /// The answer did not come within the call's time limit. The call may or may not have been acted upon.
    #[error("{call}: no answer within {limit:?}")]
    TimedOut {
        /// The call that was made.
        call: &'static str,
        /// How long was waited.
        limit: Duration,
    },
}

impl LambdaError {
    /// Whether Lambda may have acted upon the call all the same: it was sent, and no answer says that it failed.
    pub fn may_have_succeeded(&self) -> bool {
        matches!(self, Self::Http { .. } | Self::Body { .. } | Self::TimedOut { .. })
    }
}
