//! What the listener allows.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The longest body. Lambda documents deliveries of twice the subscribed buffer (1 MiB) plus their envelope; the
/// rest is for records with many escapes and for what Lambda may allow later.
const BODY_MAX_BYTES: usize = 8 * MIB;
/// What is read and thrown away after a refused request, so that the sender finishes writing and sees the
/// answer instead of a reset. Enough for a body twice as long as is taken.
const DISCARD_MAX_BYTES: usize = 2 * BODY_MAX_BYTES;
/// All bodies in memory, being read or waiting for their receipt: one of the longest, and two of the longest that Lambda
/// documents beside it. The function may have 128 MiB in all.
const MEMORY_MAX_BYTES: usize = BODY_MAX_BYTES + 4 * MIB;
/// How long a body waits for memory that others hold before it is refused. Less than a stall may last. The keeper is done
/// with a delivery in milliseconds, unless its disk hangs.
const MEMORY_WAIT_MS: u64 = 1_000;
/// The room for a request's line and headers, and for what is read at a time. Lambda's headers have some 200
/// bytes. All connections together: 2 MiB.
const HEAD_MAX_BYTES: usize = 64 * KIB;
/// hyper takes no smaller buffer for a connection.
pub(super) const HEAD_LEAST_BYTES: usize = 8 * KIB;
/// Connections at a time. Lambda uses one or two; the environment's limit is 1,024 file descriptors for
/// everybody.
const MAX_CONNECTIONS: usize = 32;
/// From a request's first byte to the end of its headers. The peer is on the same machine, but may share a
/// small fraction of one CPU with everything else.
const HEAD_TIMEOUT_MS: u64 = 5_000;
/// Between two pieces of a body, for the same reason.
const STALL_TIMEOUT_MS: u64 = 2_000;
/// From the headers to the end of the body. The longest body needs 0.8 MB/s for it, which loopback gives even
/// to a twentieth of a CPU.
const BODY_TIMEOUT_MS: u64 = 10_000;
/// Without a request. Lambda keeps its connection, and closing it under a delivery that is just being sent costs a
/// repeat; so this only clears away what was forgotten.
const IDLE_TIMEOUT_MS: u64 = 60_000;
/// What a refused sender is told to wait. Whole seconds are all that `Retry-After` can say.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Bounds on what peers can make the listener spend. The defaults are for Lambda; see each constant's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body that is taken, in bytes. More is answered 413.
    pub body_max_bytes: usize,
    /// How much of a refused request is read and thrown away before it is answered, in bytes.
    pub discard_max_bytes: usize,
    /// The memory of all bodies being read or waiting for their receipt, in bytes. A body that does not fit, though an
    /// unfinished one was closed for it and [`Limits::memory_wait`] has passed, is answered 503.
    pub memory_max_bytes: usize,
    /// How long a body waits for memory.
    pub memory_wait: Duration,
    /// The longest request line with headers, in bytes. Less than 8,192 counts as that.
    pub head_max_bytes: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// From a request's first byte to the end of its headers.
    pub head_timeout: Duration,
    /// Between two pieces of a body.
    pub stall_timeout: Duration,
    /// From the end of the headers to the end of the body.
    pub body_timeout: Duration,
    /// Between a connection's requests, or before its first.
    pub idle_timeout: Duration,
    /// `Retry-After` of a 503, in seconds.
    pub retry_after_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_max_bytes: BODY_MAX_BYTES,
            discard_max_bytes: DISCARD_MAX_BYTES,
            memory_max_bytes: MEMORY_MAX_BYTES,
            memory_wait: Duration::from_millis(MEMORY_WAIT_MS),
            head_max_bytes: HEAD_MAX_BYTES,
            max_connections: MAX_CONNECTIONS,
            head_timeout: Duration::from_millis(HEAD_TIMEOUT_MS),
            stall_timeout: Duration::from_millis(STALL_TIMEOUT_MS),
            body_timeout: Duration::from_millis(BODY_TIMEOUT_MS),
            idle_timeout: Duration::from_millis(IDLE_TIMEOUT_MS),
            retry_after_seconds: RETRY_AFTER_SECONDS,
        }
    }
}
