//! The queue: what was acknowledged, on disk, until it is done.
//!
//! ```text
//!  append ──> frames in the newest segment file ──> lanes (one per signal) ──> assemble ──> a request body
//!                     │                                      ^                                  │
//!                     └ state: marks, ledger ────────────────┴───────── done / refuse ──────────┘
//! ```
//!
//! # Contract
//! - [`Queue::append`] returns once the frames would survive the end of our process, or says that they do not.
//! - Each signal is first in, first out. A [`Mark`] says how far it has come; whatever lies behind the mark is
//!   waiting. A request is assembled from the oldest waiting blocks, and at most one per signal is in flight.
//! - Several readers may be served from it ([`Queue::serve`]), each with a mark of its own; [`Queue::at`] is the queue as one
//!   of them sees it.
//! - Records leave the queue in one of two ways: [`Queue::done`] (delivered), or counted in the [`Ledger`].
//!
//! # Invariants
//! 1. A frame is never changed after it was written; only the state at the head of the newest segment is. To shed,
//!    a whole segment takes the place of another.
//! 2. A segment is removed only on positive evidence that each of its frames is done: the marks of all readers are past them,
//!    and they were counted frame by frame. Lost evidence means a repeat, never a loss.
//! 3. The ledger is on disk before the records it speaks of are removed: nothing is while the state of any reader could
//!    not be saved, and the file that carries the latest state stays.
//! 4. The segments alone are enough to recover everything. The index (sled) beside them saves work at start
//!    and is never waited for.
//! 5. What cannot be read is unknown, not absent: a signal waits ([`Queue::is_stalled`]) and it is tried again.
//!    Given up after many tries, or gone for good, it is counted in the ledger.
//! 6. What a later version wrote is left as it is. A new format takes a new last byte in the magic of both slot
//!    and frame.
//! 7. Disk use stays within the budget plus one segment; memory use does not grow with the backlog.
//!
//! # Assumptions about the medium
//! `/tmp` lives exactly as long as the kernel, so nothing is synced. A write of one slot (1 KiB within a page)
//! is not torn by SIGKILL; if it were, the other slot holds the state before it, because slots change places only
//! after a write that worked.

mod block;
mod budget;
mod bytes;
mod catch_up;
mod classes;
mod close;
#[cfg(test)]
mod corners;
mod damage;
mod deliveries;
mod disk;
mod expected;
mod fate;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod heads;
mod index;
mod lane;
mod ledger;
mod notes;
mod open;
mod overflowed;
mod reader;
mod reading;
mod reports;
mod rewritten;
mod scan;
mod segments;
mod send;
mod shed;
mod state;
mod store;
#[cfg(feature = "tool")]
mod survey;
mod thin;
mod totals;
mod types;

pub use block::{BlockError, Deflater, GzipAssembler, gzip, inflate};
pub use classes::severity_class;
pub use deliveries::{Progress, REMEMBERED_DELIVERIES_MAX};
pub use disk::{Disk, DiskFile, RealDisk};
pub use frame::{HEADER_BYTES, Kind, Seq};
pub use index::IndexError;
pub use ledger::{Ledger, Reason, Tally};
pub use notes::{Entry, Found, Index, SegmentRow};
pub use reader::{At, ReaderId, ReaderSpec, Readers};
pub use segments::StoreError;
pub use state::{Mark, Outstanding, Shedding, State, Unread};
pub use store::Queue;
#[cfg(feature = "tool")]
pub use survey::{ReadOnlyDisk, SegmentSurvey, Standing, Surveyed, survey};
pub use totals::Totals;
pub use types::{
    AppendError, Appended, Batch, Encoding, Limits, NewBlock, Oldest, Opened, Overflow, Request, Waiting,
};
