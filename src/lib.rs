//! `outlast` keeps an AWS Lambda function's telemetry through any backend outage.
//!
//! It is an external extension: a process beside the function, which takes the function's telemetry from the
//! Telemetry API, puts it on disk before it acknowledges it, and delivers it while the function runs. When the
//! backend is slow, hung or gone, the function does not notice, and what was acknowledged waits in `/tmp` across
//! warm invocations, resets and crashes.
//!
//! # Promises
//! 1. Acknowledged means kept: a batch is answered 200 once it would survive SIGKILL of this process. Each
//!    record of it is delivered, handed to the fallback, or counted in a drop report that the user sees. (While the disk takes nothing,
//!    a bounded memory stands in for it, and one line says so. What else is not promised, and how it was all
//!    tried, is in `docs/durability.md`.)
//! 2. The function does not pay: a busy one is not kept waiting, and no failure of ours fails it.
//! 3. Once, in order, per signal. A repeat happens only where the fate of a request is unknown.
//!
//! # How it goes
//! ```text
//! Telemetry API ─> listen ─> record ─> encode ─> queue ─> drain ─> deliver ─> backend
//!             <─ 200 ──────────────────────────────┘        ^
//! Extensions API <─> lambda ────────────────────────────────┘   conducted by lifecycle
//! ```
//! [`listen`] takes a delivery (and, from the function's own SDK, OTLP requests, which skip `record`) and hands it
//! to the [`keeper`], the thread that owns the queue. There [`record`] finds the log records in it, [`encode`]
//! turns them into the destination's bytes, and the [`queue`] deflates these into blocks and writes them to a
//! segment file: that write is the commit. The lifecycle hears of it, and then the delivery is answered. The
//! [`drain`] decides, without any I/O or clock, when to send how much, when to wait, and how long an invocation may
//! be held; its executor joins stored blocks to requests, and [`deliver`] makes one attempt at a time. [`lambda`]
//! speaks to the Extensions API, [`start`] brings keeper, listener and subscription up after registration, and the
//! [`lifecycle`] connects all of these in one select loop. Beside them: [`config`] is the table of settings,
//! [`clock`] the only place that reads a clock, [`health`] what the user is told about the backend, [`outage`] the alert about one that is away for long, [`fallback`] the
//! place for what the backend does not take, [`logging`] the lines on stderr.
//!
//! The whole map and the format on disk are in `docs/architecture.md`, the table of decisions in `docs/decisions.md`.

pub mod clock;
pub mod config;
pub mod deliver;
pub mod drain;
pub mod encode;
pub mod fallback;
pub mod health;
pub mod keeper;
pub mod lambda;
pub mod lifecycle;
pub mod listen;
pub mod logging;
pub mod observe;
pub mod outage;
pub mod queue;
pub mod record;
pub mod rules;
mod signal;
pub mod start;
#[cfg(feature = "tool")]
pub mod tool;

pub use signal::{PerSignal, Signal};
