//! What must hold for arbitrary input, one module per fuzz target (`tests/fuzz/targets`).
//!
//! Every `check` takes the bytes a fuzzer made up and panics if something is wrong. They are here rather than in the
//! targets so that an ordinary test runs them too, over every input in `tests/fuzz/seeds` and `tests/fuzz/corpora`
//! (`tests/corpora.rs`), with a stable toolchain and without `cargo fuzz`.
//!
//! What is expected is told by others wherever there are others: `serde_json`, `prost`, `flate2`, `httpdate`, `time`,
//! and the strict gzip reader of the scripted backend.

// An oracle speaks by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::missing_panics_doc)]

pub mod answers;
pub mod block_and_frame;
pub mod gzip_assembly;
mod json;
mod lines;
mod mapped;
mod memory;
pub mod open_index;
pub mod open_queue;
mod otlp;
pub mod otlp_received;
pub mod record_mapping;
pub mod retry_after;
pub mod settings;
pub mod telemetry;

/// What is left of an input.
pub(crate) fn rest<'a>(input: &mut arbitrary::Unstructured<'a>) -> &'a [u8] {
    input.bytes(input.len()).unwrap_or_default()
}

/// Panics if something is wrong with what becomes of an input.
pub type Oracle = fn(&[u8]);

/// Every target: its name and its oracle.
pub const TARGETS: [(&str, Oracle); 10] = [
    ("answers", answers::check),
    ("block_and_frame", block_and_frame::check),
    ("gzip_assembly", gzip_assembly::check),
    ("open_index", open_index::check),
    ("open_queue", open_queue::check),
    ("otlp_received", otlp_received::check),
    ("record_mapping", record_mapping::check),
    ("retry_after", retry_after::check),
    ("settings", settings::check),
    ("telemetry", telemetry::check),
];
