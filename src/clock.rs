//! The one place that reads a clock.
//!
//! Lambda freezes the environment between invocations. Depending on the kernel the monotonic clock stands
//! still meanwhile or goes on, and the wall clock may be corrected in either direction afterwards. Policies
//! want one time that never goes back and that includes the freeze, so [`Clock::now`] advances by whichever
//! of the two clocks moved further.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the process started, freezes included. Never goes back.
pub type Time = Duration;

/// Both clocks, read together.
#[derive(Clone, Copy, Debug)]
struct Reading {
    monotonic: Instant,
    wall: SystemTime,
}

/// Produces [`Time`]; one per thread of decisions.
#[derive(Debug)]
pub struct Clock {
    last: Reading,
    elapsed: Duration,
}

impl Clock {
    /// Starts a clock at zero.
    pub fn start() -> Self {
        Self { last: read(), elapsed: Duration::ZERO }
    }

    /// The time since [`Clock::start`].
    pub fn now(&mut self) -> Time {
        let now = read();
        self.elapsed += advance(self.last, now);
        self.last = now;
        self.elapsed
    }
}

/// The larger of the two clocks' steps; a clock that went back counts as not having moved.
fn advance(from: Reading, to: Reading) -> Duration {
    let monotonic = to.monotonic.saturating_duration_since(from.monotonic);
    let wall = to.wall.duration_since(from.wall).unwrap_or_default();
    monotonic.max(wall)
}

#[allow(clippy::disallowed_methods)]
fn read() -> Reading {
    Reading { monotonic: Instant::now(), wall: SystemTime::now() }
}

/// The wall clock as time since the Unix epoch; zero if it is set before 1970.
#[allow(clippy::disallowed_methods)]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The wall clock in nanoseconds since the Unix epoch, as OTLP writes times.
pub fn unix_now_nanos() -> u64 {
    u64::try_from(unix_now().as_nanos()).unwrap_or(u64::MAX)
}

/// Waits. For the edges only: what to wait for is decided by a policy.
#[allow(clippy::disallowed_methods)]
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Reading, monotonic_ms: u64, wall_ms: i64) -> Reading {
        let wall = if wall_ms >= 0 {
            at.wall + Duration::from_millis(wall_ms.unsigned_abs())
        } else {
            at.wall - Duration::from_millis(wall_ms.unsigned_abs())
        };
        Reading { monotonic: at.monotonic + Duration::from_millis(monotonic_ms), wall }
    }

    #[test]
    fn a_freeze_seen_by_only_one_clock_counts_in_full() {
        let start = read();
        assert_eq!(advance(start, reading(start, 1, 60_000)), Duration::from_secs(60));
        assert_eq!(advance(start, reading(start, 60_000, 1)), Duration::from_secs(60));
    }

    #[test]
    fn a_wall_clock_set_back_does_not_stop_time() {
        let start = read();
        assert_eq!(advance(start, reading(start, 5, -3_600_000)), Duration::from_millis(5));
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = Clock::start();
        let first = clock.now();
        assert!(clock.now() >= first);
    }
}
