//! `Retry-After`: whatever a peer writes, the pause is bounded, and what has a meaning has that one.
//!
//! The first eight bytes are the clock, in seconds since the Unix epoch; the rest is the header's value.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outlast::deliver::{RETRY_AFTER_MAX_S, retry_after};
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

/// The last second that an HTTP date can say: 9999-12-31T23:59:59Z.
const DATE_MAX_S: u64 = 253_402_300_799;

/// Checks one value.
pub fn check(data: &[u8]) {
    let Some((clock, value)) = data.split_first_chunk() else { return };
    let now = Duration::from_secs(u64::from_le_bytes(*clock));
    if let Ok(header) = HeaderValue::from_bytes(value) {
        let meant = expected(&header, now);
        assert_eq!(asked(header, now), meant, "{value:?} at {now:?}");
    }
    // The same bytes as a number of seconds and as a date.
    let seconds = value.iter().take(8).fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    let digits = HeaderValue::from_str(&seconds.to_string()).expect("digits");
    assert_eq!(asked(digits, now), Some(Duration::from_secs(seconds.min(RETRY_AFTER_MAX_S))));
    let seconds = seconds % (DATE_MAX_S + 1);
    let written = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    let pause = Duration::from_secs(seconds).saturating_sub(now).min(Duration::from_secs(RETRY_AFTER_MAX_S));
    let found = asked(HeaderValue::from_str(&written).expect("a date"), now);
    assert_eq!(found, Some(pause), "{written} at {now:?}");
}

fn asked(value: HeaderValue, now: Duration) -> Option<Duration> {
    let found = retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]), now);
    assert!(found.is_none_or(|pause| pause <= Duration::from_secs(RETRY_AFTER_MAX_S)));
    found
}

/// What the value means: seconds (RFC 9110, and with a sign or a fraction), an HTTP date, or nothing.
fn expected(value: &HeaderValue, now: Duration) -> Option<Duration> {
    let max = Duration::from_secs(RETRY_AFTER_MAX_S);
    let text = value.to_str().ok()?.trim();
    if text.len() > 64 {
        return None;
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit())
        && unsigned.chars().all(|c| c.is_ascii_digit() || c == '.')
        && unsigned.matches('.').count() <= 1;
    if is_number {
        // To 64 digits a double is exact enough for numbers that are capped at 900 and rounded up.
        let whole: f64 = unsigned.split('.').next().and_then(|whole| whole.parse().ok())?;
        let some_more = unsigned.split_once('.').is_some_and(|(_, rest)| rest.bytes().any(|b| b != b'0'));
        if text.starts_with('-') {
            return Some(Duration::ZERO);
        }
        let seconds = whole + f64::from(u8::from(some_more));
        return Some(Duration::try_from_secs_f64(seconds).map_or(max, |pause| pause.min(max)));
    }
    let date: SystemTime = httpdate::parse_http_date(text).ok()?;
    let since_epoch = date.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(since_epoch.saturating_sub(now).min(max))
}
