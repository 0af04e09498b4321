//! A simulated AWS Lambda sandbox for external extensions.
//!
//! The extension under test is a real process: it is spawned with Lambda's environment variables and meets the
//! Extensions API, the Telemetry API, SIGSTOP between invocations, SHUTDOWN with its deadline, and SIGKILL. Only the
//! function is pretended: an [`Invocation`] says how long it runs, what it logs and how it ends.
//!
//! ```no_run
//! # async fn example() -> Result<(), outlast_simulator::SandboxError> {
//! use std::time::Duration;
//! use outlast_simulator::{Invocation, Sandbox, ShutdownReason};
//!
//! let lambda = Sandbox::builder("target/debug/outlast").env("OUTLAST_ENDPOINT", "http://127.0.0.1:4318").start().await?;
//! let invoked = lambda.invoke(Invocation::new().runs_for(Duration::from_millis(20)).logs(10)).await?;
//! println!("the extension added {:?}", invoked.added);
//! lambda.invoke(Invocation::new().times_out()).await?; // the environment is reset
//! lambda.kill().await; // SIGKILL; the next invocation initialises again
//! lambda.invoke(Invocation::new().logs(1)).await?;
//! let end = lambda.shutdown(ShutdownReason::Spindown).await;
//! assert!(end.exited_by_itself());
//! println!("{} events were acknowledged", lambda.acknowledged().len());
//! # Ok(())
//! # }
//! ```
//!
//! Map: [`Sandbox`] composes; `registry` holds the states of extensions, `subscription` the rules of subscribing (both
//! pure); `telemetry` makes, buffers, cuts and delivers events and keeps the ledger of what was acknowledged;
//! `process` starts and signals; `api` is the HTTP front. [`rie`] drives
//! AWS's own emulator instead, to check this sandbox against it.
//!
//! Not simulated: the `/tmp` quota, CPU throttling, jumps of the wall clock, and the runtime process.

// The sandbox is the world that an extension's policy is tested in: it reads the real clock and really waits.
#![allow(clippy::disallowed_methods)]

mod answer;
mod api;
mod clock;
mod environment;
mod invocation;
mod options;
mod process;
mod registry;
pub mod rie;
mod sandbox;
mod subscription;
mod telemetry;

pub use invocation::{Invocation, Invoked, LambdaError, When};
pub use options::{
    Cut, Freeze, FunctionOptions, InitializationType, LogFormat, Manner, OnFailure, Repeats, Schema,
    ShutdownOptions, TelemetryOptions,
};
pub use process::{Exit, OutputLine};
pub use registry::State as ExtensionState;
pub use sandbox::{
    Builder, Crash, ExtensionEnd, InitTimes, Moment, Sandbox, SandboxError, ShutdownEnd, ShutdownReason,
    copy_directory,
};
pub use telemetry::Delivery;
pub use telemetry::event::Event;
pub use telemetry::platform::Phase;
