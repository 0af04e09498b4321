//! From log records, data points and spans to the bytes a destination takes: one file per wire format.
//!
//! A *block* is a run of records of one signal, encoded once, before the queue, in the form in which it will
//! be sent: a head (what stands before the records), the records one after another, nothing after them.
//! Blocks are put together to request bodies by [`Framing`] alone, so that sending never decodes, encodes or
//! compresses. Only a body the destination refuses is ever taken apart, at the bounds of its records
//! ([`WireFormat::parts`], [`WireFormat::subset`]).

use std::ops::Range;

use crate::Signal;
use crate::observe::{Metric, Span};
use crate::record::{LogRecord, Resource};

pub mod otlp;
mod protobuf;

pub use otlp::Otlp;

/// What stands before, between and after the blocks of one request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Before the first block.
    pub prefix: &'static [u8],
    /// Between two blocks.
    pub separator: &'static [u8],
    /// After the last block.
    pub suffix: &'static [u8],
}

/// Where the records of a block are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What stands before the first record.
    pub head: Range<usize>,
    /// Each record, in order, with whatever delimits it.
    pub records: Vec<Range<usize>>,
}

/// Why a block cannot be taken apart. What is in the queue was checked before, so there each of these means damage or
/// another format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The bytes end in the middle of something.
    #[error("the block ends in the middle of a field, at byte {0}")]
    Truncated(usize),
    /// Something stands where the format has something else.
    #[error("the block has an unexpected field at byte {0}")]
    Unexpected(usize),
}

/// The wire format of a destination.
pub trait WireFormat: Send + Sync {
    /// The number stored with every block. Never changed, never given to another format.
    fn id(&self) -> u8;

    /// The media type of a request body.
    fn content_type(&self) -> &'static str;

    /// What is appended to the endpoint, with its leading slash.
    fn path(&self, signal: Signal) -> &'static str;

    /// What goes around the blocks of one request body.
    fn framing(&self) -> Framing;

    /// Whether OTLP in protobuf, as the function's SDK sends it, is a block of this format as it is
    /// ([`otlp::received`]).
    fn takes_otlp(&self) -> bool {
        false
    }

    /// Appends what stands before the records of a block. `records_len` is the length in bytes of all of
    /// them, as [`WireFormat::log`] and its sisters appended them.
    fn block_head(&self, resource: &Resource, records_len: usize, out: &mut Vec<u8>);

    /// Whether the destination takes records of `signal`. What it does not take is not made.
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Logs
    }

    /// Appends one encoded record.
    fn log(&self, record: &LogRecord<'_>, out: &mut Vec<u8>);

    /// Appends one encoded metric, a record of its own. Only called if [`WireFormat::takes`] metrics.
    fn metric(&self, _metric: &Metric<'_>, _out: &mut Vec<u8>) {}

    /// Appends one encoded span. Only called if [`WireFormat::takes`] traces.
    fn span(&self, _span: &Span, _out: &mut Vec<u8>) {}

    /// Finds the records of a block, given its plain bytes.
    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError>;

    /// A block made of some records of another, valid on its own. `parts` is what [`WireFormat::parts`] said
    /// of `plain`; `records` counts records, and what lies beyond the last is ignored.
    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8>;
}
