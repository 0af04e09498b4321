//! The Lambda side: what an extension says to Lambda and hears from it.
//!
//! Every call goes over plain HTTP/1.1 to the address in `AWS_LAMBDA_RUNTIME_API`, in this order:
//!
//! 1. [`RuntimeApi::register`] with the extension's name ([`extension_name`]). Lambda starts the function's
//!    runtime only after every extension registered, so this comes before anything else.
//! 2. [`RuntimeApi::subscribe`], once the telemetry listener is bound. The window for it closes when the
//!    first `next` has been asked for.
//! 3. [`Poller::start`], which asks for the next event whenever it is told to, until the process ends.
//!
//! # Why the poller is built the way it is
//! `GET /event/next` is at once the question "what now?" and the statement "I have finished with the last
//! event". Lambda may freeze the environment while the question is open, for any length of time. Hence:
//!
//! - It has no time-out. The answer may be minutes away, and giving up on it loses the event it would have
//!   carried, because Lambda writes that event to the connection that asked.
//! - It is never asked twice at once; the second would be refused (`Extension.InvalidExtensionState`).
//! - It is never given up. An extension that exits outside SHUTDOWN, even with status 0, fails the function's
//!   invocation, and one that stops asking holds it until its time-out. So after registration there is no
//!   error that ends the polling: a failed poll is logged once and asked again after a bounded pause.
//!
//! Sources: "Lambda Extensions API" and "Lambda Telemetry API" in the AWS Lambda developer guide; where these
//! are silent, the runtime interface emulator that AWS publishes.

mod endpoint;
mod error;
mod event;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod name;
mod poller;
mod register;
mod telemetry;
#[cfg(test)]
mod testing;

pub use endpoint::RuntimeApi;
pub use error::LambdaError;
pub use event::{LambdaEvent, ShutdownReason};
pub use name::extension_name;
pub use poller::{Poller, Received};
pub use register::{EventKind, Registration};
pub use telemetry::{Subscription, TelemetryType};
