//! `outlast` keeps an AWS Lambda function's telemetry through any backend outage.

pub mod clock;
pub mod config;
pub mod deliver;
pub mod drain;
pub mod encode;
pub mod health;
pub mod keeper;
pub mod lambda;
pub mod lifecycle;
pub mod listen;
pub mod logging;
pub mod queue;
pub mod record;
mod signal;

pub use signal::{PerSignal, Signal};
