//! A bound on what is sent per second, in the mean.
//!
//! A token bucket, kept as the time until which what was sent is paid for: a request may go while that is no further off
//! than the bucket holds. How large it is shows only when it has gone, so it may overdraw; what follows waits for that.

use std::time::Duration;

use crate::clock::Time;

/// What the bucket holds, as time: an invocation's worth, so that a function that is idle most of the time is not
/// delayed while it runs.
const BURST: Duration = Duration::from_secs(10);

/// See the module's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throttle {
    bytes_per_second: u64,
    paid_until: Time,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_until: Time::ZERO }
    }

    /// When the next request may go.
    pub(super) fn ready_at(&self) -> Time {
        self.paid_until.saturating_sub(BURST)
    }

    /// So many bytes went at `now`.
    pub(super) fn sent(&mut self, now: Time, bytes: u64) {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.paid_until = self.paid_until.max(now).saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn after_a_pause_ten_seconds_worth_goes_at_once_and_then_the_rate_holds() {
        let mut throttle = Throttle::new(1_000);
        let start = Duration::from_secs(100);
        for _ in 0..11 {
            assert!(throttle.ready_at() <= start);
            throttle.sent(start, 1_000);
        }
        assert_eq!(throttle.ready_at(), Duration::from_secs(101));
        throttle.sent(Duration::from_secs(101), 4_000);
        assert_eq!(throttle.ready_at(), Duration::from_secs(105));
    }

    proptest! {
        #[test]
        fn the_mean_keeps_to_the_rate(
            rate in 1u64..100_000, requests in proptest::collection::vec((0u64..200_000, 0u64..20_000), 1..60),
        ) {
            let mut throttle = Throttle::new(rate);
            let (mut now, mut total, mut largest) = (Time::ZERO, 0u64, 0);
            for (bytes, pause_millis) in requests {
                now = now.saturating_add(Duration::from_millis(pause_millis)).max(throttle.ready_at());
                throttle.sent(now, bytes);
                total += bytes;
                largest = largest.max(bytes);
                // Costs are rounded down to a microsecond.
                let allowed_micros = (now + BURST).as_micros() + 100;
                let allowed = allowed_micros * u128::from(rate) / 1_000_000 + u128::from(largest) + 1;
                prop_assert!(u128::from(total) <= allowed, "{total} of {allowed}");
            }
        }

        #[test]
        fn nothing_overflows(rate: u64, bytes: u64, now: u64) {
            let mut throttle = Throttle::new(rate);
            throttle.sent(Duration::from_millis(now), bytes);
            throttle.sent(Duration::from_millis(now), bytes);
            prop_assert!(throttle.ready_at() >= Duration::from_millis(now).saturating_sub(BURST));
        }
    }
}
