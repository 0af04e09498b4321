//! What the tests of this module have in common.

use super::event::Settings;
use std::time::Duration;

pub(super) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) fn settings() -> Settings {
    Settings {
        batch_max_bytes: 1 << 20,
        gzip: true,
        max_delay: ms(10_000),
        hold_max: ms(150),
        retry_initial: ms(200),
        retry_max: ms(30_000),
        request_timeout: ms(5_000),
        shutdown_reserve: ms(150),
        continuous: false,
        can_hold: true,
        fallback: None,
        bytes_per_second: None,
    }
}
