//! Telemetry records: from the bytes of a delivery to OpenTelemetry log records.
//!
//! ```text
//! body ──split──> raw events ──Event::parse──> envelope + raw record ──Reading──> value ──LogRecord──> log record
//!        │
//!        └─ half a record? join with the next body, or salvage
//! ```
//!
//! Nothing here reads a clock, allocates an identity or does I/O, and nothing fails: a record that cannot be
//! understood is carried as text, and takes none of its neighbours along. Everything is borrowed from the
//! body where it can be.

pub mod event;
mod exception;
mod fields;
mod json;
mod line;
pub mod log;
mod reading;
pub mod resource;
pub mod severity;
pub mod split;
pub mod stack;
pub mod time;
pub mod trace_context;
pub mod value;
mod words;

pub(crate) use fields::id as identifier;
pub(crate) use json::{text as unescaped, value_end};
pub(crate) use split::record_start;

pub use event::{Event, Fact, Kind, Platform};
pub use log::{Context, LogRecord};
pub use reading::{JsonLines, Reading, json_line, object_in_line};
pub use resource::{Resource, ResourceInputs};
pub use severity::Severity;
pub use split::{Join, Piece, Split, join, salvage, split};
pub use stack::{Joined, join_lines};
pub use value::{Field, Value};
