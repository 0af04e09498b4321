//! Durations and sizes as people write them: `250ms`, `1.5s`, `64MiB`.
//!
//! Arithmetic is exact (decimal digits, no floating point), so that `0.1s` is 100 ms on every machine.

use std::time::Duration;

const NANOS_PER_MS: u128 = 1_000_000;
const NANOS_PER_S: u128 = 1_000_000_000;

/// Duration units, nanoseconds each. Longest suffix first: `ms` must not be read as `s`.
const DURATION_UNITS: [(&str, u128); 4] =
    [("ms", NANOS_PER_MS), ("s", NANOS_PER_S), ("m", 60 * NANOS_PER_S), ("h", 3600 * NANOS_PER_S)];

/// Size units, bytes each, in lower case. Longest suffix first: `kib` must not be read as `b`.
const SIZE_UNITS: [(&str, u128); 7] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("b", 1),
];

/// More digits than any value in range has, and few enough that the arithmetic stays within 128 bits.
const DIGITS_MAX: usize = 18;

/// A duration with its unit. A bare `0` needs none; any other bare number is refused, for seconds and
/// milliseconds are too easily taken for each other.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (number, scale) =
        DURATION_UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))?;
    let nanos = u64::try_from(scaled(number.trim_end(), scale)?).ok()?;
    Some(Duration::from_nanos(nanos))
}

/// A size with its unit, in either case, or in plain bytes. A fraction of a byte is dropped.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (number, scale) = SIZE_UNITS
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))
        .unwrap_or((text.as_str(), 1));
    u64::try_from(scaled(number.trim_end(), scale)?).ok()
}

/// `number` (digits, perhaps a point and more digits) times `scale`, rounded down.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "") | ("", _)) => return None,
        Some(parts) => parts,
        None => (number, ""),
    };
    let digits = [whole, fraction].concat();
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let shift = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(digits.parse::<u128>().ok()? * scale / shift)
}

/// The way a user would write it, in the largest unit that is exact.
pub(super) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, scale) in DURATION_UNITS.iter().rev() {
        if nanos >= *scale && nanos.is_multiple_of(*scale) {
            return format!("{}{unit}", nanos / scale);
        }
    }
    if nanos == 0 { "0".to_owned() } else { format!("{}ms", duration.as_secs_f64() * 1e3) }
}

/// The way a user would write it, in the largest binary unit that is exact, else in bytes.
pub(super) fn show_bytes(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30_u32), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, ms) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("5 s", 5_000),
            ("1.5s", 1_500),
            ("0.1s", 100),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0", 0),
            ("0ms", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_not_a_duration() {
        for text in ["5", "1.5", "", "s", "-5s", "+5s", "5sec", "1e3ms", ".5s", "5.s", "5S", "5s5s", "NaNs"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_or_without_a_unit() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("4194304", 4_194_304),
            ("1.5 GiB", 3 << 29),
            ("10kB", 10_000),
            ("10KB", 10_000),
            ("1MB", 1_000_000),
            ("2GB", 2_000_000_000),
            ("512B", 512),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "64Mi", "1TiB", "0x10", "1_000", "99999999999999999999"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(ms in 0_u64..100_000_000, bytes in any::<u32>()) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
            prop_assert_eq!(parse_bytes(&show_bytes(u64::from(bytes))), Some(u64::from(bytes)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}", number in "[0-9.]{0,40}(ms|s|m|h|B|GiB|)") {
            for text in [text, number] {
                let _ = (parse_duration(&text), parse_bytes(&text));
            }
        }
    }
}
