//! The `Retry-After` header (RFC 9110, section 10.2.3): seconds or an HTTP date.
//!
//! The value comes from a peer, perhaps from one whose clock is wrong, so it is bounded in both directions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest pause a backend can ask for, in seconds. Longer than any back-pressure is meant to last, short
/// enough that an absurd date does not silence an environment for the rest of its life.
pub const RETRY_AFTER_MAX_S: u64 = 15 * 60;

/// Longer values are not numbers or dates that anyone means.
const VALUE_MAX_BYTES: usize = 64;

/// How long the answer asks to wait, counted from `now_unix` (time since the Unix epoch). A date that is past
/// and a negative number mean now; what cannot be read counts as absent.
pub fn retry_after(headers: &HeaderMap, now_unix: Duration) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if value.len() > VALUE_MAX_BYTES {
        return None;
    }
    let asked = seconds(value).or_else(|| until(value, now_unix))?;
    Some(asked.min(Duration::from_secs(RETRY_AFTER_MAX_S)))
}

/// Digits, perhaps with a sign and (as some send it) a fraction, which is rounded up.
fn seconds(value: &str) -> Option<Duration> {
    let (negative, digits) = match value.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = !whole.is_empty() && [whole, fraction].concat().bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    if negative {
        return Some(Duration::ZERO);
    }
    // Too many digits for the type are still a number, if an absurd one.
    let whole: u64 = whole.parse().unwrap_or(u64::MAX);
    let up = u64::from(fraction.bytes().any(|byte| byte != b'0'));
    Some(Duration::from_secs(whole.saturating_add(up)))
}

fn until(value: &str, now_unix: Duration) -> Option<Duration> {
    let date: SystemTime = httpdate::parse_http_date(value).ok()?;
    let date = date.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(date.saturating_sub(now_unix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    /// 1994-11-06 08:49:37 UTC, the date of the RFC's examples.
    const NOW: Duration = Duration::from_secs(784_111_777);

    fn read(value: &str) -> Option<u64> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).ok()?)]);
        retry_after(&headers, NOW).map(|after| {
            assert_eq!(after.subsec_nanos(), 0);
            after.as_secs()
        })
    }

    #[test]
    fn seconds_and_dates_are_read() {
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("1.2", Some(2)),
            ("3.0", Some(3)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:50:07 1994", Some(30)),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_past_means_now_and_what_is_absurd_means_the_longest_pause() {
        for (value, expected) in [
            ("-5", 0),
            ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("901", RETRY_AFTER_MAX_S),
            ("99999999999999999999999999", RETRY_AFTER_MAX_S),
            ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_S),
        ] {
            assert_eq!(read(value), Some(expected), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_counts_as_absent() {
        for value in
            ["", "soon", "1e3", "+5", "-", ".", "5s", "0x10", "inf", "NaN", "Sun, 99 Nov 1994 08:50:07 GMT"]
        {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(read(&"1".repeat(VALUE_MAX_BYTES + 1)), None);
        assert_eq!(retry_after(&HeaderMap::new(), NOW), None);
    }

    proptest! {
        #[test]
        fn any_value_gives_a_bounded_pause_or_none(value in prop::collection::vec(32_u8..=255, 0..80), now in any::<u32>()) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
                let after = retry_after(&headers, Duration::from_secs(u64::from(now)));
                prop_assert!(after.unwrap_or_default() <= Duration::from_secs(RETRY_AFTER_MAX_S));
            }
        }

        #[test]
        fn a_date_is_the_time_until_it(ahead in 0..RETRY_AFTER_MAX_S, now in 0_u64..4_000_000_000) {
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now + ahead));
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(&date).unwrap())]);
            prop_assert_eq!(retry_after(&headers, Duration::from_secs(now)), Some(Duration::from_secs(ahead)));
        }
    }
}
