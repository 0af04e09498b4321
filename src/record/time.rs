//! Points in time as telemetry writes them, as nanoseconds since the Unix epoch.
//!
//! Reading is lenient where no other meaning is possible and refuses the rest: a record whose time is not
//! understood gets the time it was received, and keeps what it said as an attribute. A date-time without an
//! offset is refused because it could be in any zone.

use super::value::Value;
use super::words::Form;

/// Nanoseconds in a second.
const SECOND_NANOS: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
const MILLISECOND_NANOS: u64 = 1_000_000;
/// Digits of a second's fraction that nanoseconds can hold. More would be lost, so more is refused.
const FRACTION_MAX_DIGITS: usize = 9;
/// Numbers are taken as seconds since the epoch from here (2001-09-09) ...
const EPOCH_MIN_SECONDS: i64 = 1_000_000_000;
/// ... to here (2096-10-02). Seconds, milli-, micro- and nanoseconds of that span do not overlap, and a
/// number outside all four (a duration, say) is no time.
const EPOCH_MAX_SECONDS: i64 = 4_000_000_000;

/// Reads an RFC 3339 date-time.
///
/// Also taken: lower-case `t` and `z`, a space for the `T`, `,` or `:` before the fraction (AWS's
/// documentation has `12:01:23:521Z`), offsets as `+0100` or `+01`. Refused: no offset, over nine digits of
/// fraction, dates before 1970 or after 2554.
pub fn rfc3339(text: &str) -> Option<u64> {
    let date_time = date_time(text.as_bytes())?;
    if date_time.length == text.len() { date_time.unix_nanos() } else { None }
}

/// The length in bytes of the date-time that `text` begins with, and when that is, if it has an offset.
pub(super) fn leading(text: &str) -> Option<(usize, Option<u64>)> {
    date_time(text.as_bytes()).map(|date_time| (date_time.length, date_time.unix_nanos()))
}

/// The length in bytes of the date-time that `text` begins with, with or without an offset.
pub(super) fn date_time_length(text: &str) -> Option<usize> {
    date_time(text.as_bytes()).map(|date_time| date_time.length)
}

/// Takes a whole number as a time, its unit (s, ms, µs or ns) told by its size.
pub fn epoch(number: i64) -> Option<u64> {
    [1_000_000_000, 1_000_000, 1_000, 1].into_iter().find_map(|unit_nanos: i64| {
        let per_second = 1_000_000_000 / unit_nanos;
        let seconds = number / per_second;
        if !(EPOCH_MIN_SECONDS..EPOCH_MAX_SECONDS).contains(&seconds) {
            return None;
        }
        u64::try_from(i128::from(number) * i128::from(unit_nanos)).ok()
    })
}

/// Takes a number as seconds or milliseconds with a fraction.
///
/// Rounded to the microsecond: at this size a double holds no more.
pub fn epoch_fraction(number: f64) -> Option<u64> {
    #[expect(clippy::cast_precision_loss, reason = "the bounds are far below 2^53")]
    let (least, most) = (EPOCH_MIN_SECONDS as f64, EPOCH_MAX_SECONDS as f64);
    let micros = if (least..most).contains(&number) {
        number * 1e6
    } else if (least * 1e3..most * 1e3).contains(&number) {
        number * 1e3
    } else {
        return None;
    };
    #[expect(clippy::cast_sign_loss, reason = "within the bounds above, so positive")]
    let micros = micros.round() as u64;
    micros.checked_mul(1_000)
}

/// Whether `number` of seconds or milliseconds can be told from the `nanos` that were made of it, to the last digit.
#[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "what is lost is what is asked for")]
pub(super) fn is_exact(number: f64, nanos: u64) -> bool {
    let micros = (nanos / 1_000) as f64;
    micros / 1e6 == number || micros / 1e3 == number
}

/// Takes a whole number of milliseconds since the epoch as a time.
pub fn epoch_millis(number: i64) -> Option<u64> {
    epoch(number).filter(|nanos| i64::try_from(nanos / 1_000_000) == Ok(number))
}

/// A record is written before it comes, and in the course of an invocation, which takes 15 minutes at most (Lambda quotas); a
/// minute more for what a logger holds back. A time before that is of something else that is told of.
const BEFORE_MAX_NANOS: u64 = 16 * 60 * 1_000_000_000;
/// It is by the clock of the same machine, so this is for clocks that are set in between.
const AFTER_MAX_NANOS: u64 = 60 * 1_000_000_000;

/// Whether `nanos` can be when something was logged that came as of `near`.
pub(super) fn is_near(nanos: u64, near: u64) -> bool {
    nanos >= near.saturating_sub(BEFORE_MAX_NANOS) && nanos <= near.saturating_add(AFTER_MAX_NANOS)
}

/// Takes a value as a time: text as a date-time, a number by its size.
pub(super) fn of_value(value: &Value<'_>) -> Option<u64> {
    match value {
        Value::Str(text) => rfc3339(text),
        Value::Int(number) => epoch(*number),
        Value::Double(number) => epoch_fraction(*number),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DateTime {
    /// As if the offset were zero.
    local_seconds: i64,
    fraction_nanos: u64,
    offset_seconds: Option<i32>,
    length: usize,
}

impl DateTime {
    /// `None` if there is no offset, before 1970 and after 2554.
    fn unix_nanos(&self) -> Option<u64> {
        let seconds = u64::try_from(self.local_seconds - i64::from(self.offset_seconds?)).ok()?;
        seconds.checked_mul(SECOND_NANOS)?.checked_add(self.fraction_nanos)
    }
}

fn date_time(text: &[u8]) -> Option<DateTime> {
    usual(text).or_else(|| any_form(text))
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`, as Lambda and nearly every logger write it.
const USUAL: [Form; 3] = [Form::of(*b"0000-00-"), Form::of(*b"00T00:00"), Form::of(*b":00.000Z")];

/// Whether `text` has the usual form, whatever its numbers are.
pub(super) fn is_usual(text: &[u8]) -> bool {
    matches!(text.as_chunks(), (words, []) if usual_digits(words).is_some())
}

fn usual_digits(words: &[[u8; 8]]) -> Option<[[u8; 8]; 3]> {
    let &[first, second, third, ..] = words else { return None };
    let [date, hour, rest] = USUAL;
    let digits = |form: Form, word| form.digits(u64::from_le_bytes(word));
    Some([digits(date, first)?, digits(hour, second)?, digits(rest, third)?])
}

/// What is in the usual form. `None` if it is in another, or no time.
fn usual(text: &[u8]) -> Option<DateTime> {
    let [[y0, y1, y2, y3, _, m0, m1, _], [d0, d1, _, h0, h1, _, n0, n1], [_, s0, s1, _, f0, f1, f2, _]] =
        usual_digits(text.as_chunks().0)?;
    let two = |tens: u8, ones: u8| i64::from(tens * 10 + ones);
    let date = (two(y0, y1) * 100 + two(y2, y3), two(m0, m1), two(d0, d1));
    let time = (two(h0, h1), two(n0, n1), two(s0, s1));
    let millis = u64::from(f0) * 100 + u64::from(f1 * 10 + f2);
    Some(DateTime {
        local_seconds: local_seconds(date, time)?,
        fraction_nanos: millis * MILLISECOND_NANOS,
        offset_seconds: Some(0),
        length: USUAL.len() * size_of::<u64>(),
    })
}

/// Seconds since 1970 as if the offset were zero. `None` if there is no such day or time of day.
fn local_seconds(
    (year, month, day): (i64, i64, i64),
    (hour, minute, second): (i64, i64, i64),
) -> Option<i64> {
    // 60 is a leap second: the arithmetic below makes it the first second of the next minute.
    if day == 0 || day > days_in_month(year, month)? || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Any of the forms that are taken.
fn any_form(text: &[u8]) -> Option<DateTime> {
    let mut reader = Reader { text, at: 0 };
    let year = reader.number(4)?;
    reader.one_of(b"-")?;
    let month = reader.number(2)?;
    reader.one_of(b"-")?;
    let day = reader.number(2)?;
    reader.one_of(b"Tt ")?;
    let hour = reader.number(2)?;
    reader.one_of(b":")?;
    let minute = reader.number(2)?;
    reader.one_of(b":")?;
    let second = reader.number(2)?;
    let local_seconds = local_seconds((year, month, day), (hour, minute, second))?;
    let fraction_nanos = reader.fraction()?;
    let offset_seconds = reader.offset();
    Some(DateTime { local_seconds, fraction_nanos, offset_seconds, length: reader.at })
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let text = self.text.get(self.at..self.at + digits)?;
        self.at += digits;
        text.iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    }

    fn one_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let found = *self.text.get(self.at).filter(|byte| bytes.contains(byte))?;
        self.at += 1;
        Some(found)
    }

    /// The fraction in nanoseconds, 0 if there is none.
    fn fraction(&mut self) -> Option<u64> {
        let digits = match self.text.get(self.at..) {
            Some([b'.' | b',' | b':', rest @ ..]) => {
                rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
            }
            _ => 0,
        };
        if digits == 0 {
            return Some(0);
        }
        if digits > FRACTION_MAX_DIGITS {
            return None;
        }
        self.at += 1;
        let number = u64::try_from(self.number(digits)?).ok()?;
        Some((digits..FRACTION_MAX_DIGITS).fold(number, |number, _| number * 10))
    }

    fn offset(&mut self) -> Option<i32> {
        let start = self.at;
        let offset = self.signed_offset();
        if offset.is_none() {
            self.at = start;
        }
        offset
    }

    fn signed_offset(&mut self) -> Option<i32> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.number(2)?;
        let hours_end = self.at;
        self.one_of(b":");
        let minutes = self.number(2).unwrap_or_else(|| {
            self.at = hours_end;
            0
        });
        if hours > 23 || minutes > 59 {
            return None;
        }
        i32::try_from(sign * (hours * 60 + minutes) * 60).ok()
    }
}

const fn days_in_month(year: i64, month: i64) -> Option<i64> {
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => return None,
    })
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, from year 0 on. Counting years from March puts the leap day
/// last.
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_month = (153 * month + 2) / 5;
    // From the year -400 on, so that there is nothing below zero to be divided.
    let year = year + 400;
    // 719468 days lie between 0000-03-01 and 1970-01-01, and 146097 in 400 years.
    365 * year + year / 4 - year / 100 + year / 400 + before_month + day - 1 - 719_468 - 146_097
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;
    use time::{OffsetDateTime, UtcOffset};

    use super::*;

    const REPORT: u64 = 1_791_444_627_768_000_000;

    #[test]
    fn the_forms_lambda_and_its_loggers_write_are_read() {
        for text in [
            "2026-10-08T07:30:27.768Z",
            "2026-10-08t07:30:27.768z",
            "2026-10-08 07:30:27.768Z",
            "2026-10-08T07:30:27:768Z",
            "2026-10-08T07:30:27,768Z",
            "2026-10-08T07:30:27.768000000Z",
            "2026-10-08T09:30:27.768+02:00",
            "2026-10-08T09:30:27.768+0200",
            "2026-10-08T09:30:27.768+02",
            "2026-10-08T04:00:27.768-03:30",
        ] {
            assert_eq!(rfc3339(text), Some(REPORT), "{text}");
        }
        assert_eq!(rfc3339("2026-10-08T07:30:27Z"), Some(REPORT - 768_000_000));
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339("2016-12-31T23:59:60Z"), rfc3339("2017-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_not_a_point_in_time_is_refused() {
        for text in [
            "",
            "now",
            "2026-10-08",
            "2026-10-08T07:30:27",
            "2026-10-08T07:30:27.768",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-10-08T24:00:00Z",
            "2026-10-08T07:60:00Z",
            "2026-10-08T07:30:61Z",
            "2026-10-08T07:30:27.1234567890Z",
            "2026-10-08T07:30:27.Z",
            "2026-10-08T07:30:27Zx",
            "2026-10-08T07:30:27+24:00",
            "2026-10-08T07:30:27+2:00",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:30:00+01:00",
            "9999-12-31T23:59:59Z",
            "２026-10-08T07:30:27Z",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_times_by_their_size() {
        let time = Some(1_531_171_074_631_000_000);
        assert_eq!(epoch(1_531_171_074), Some(1_531_171_074_000_000_000));
        assert_eq!(epoch(1_531_171_074_631), time);
        assert_eq!(epoch(1_531_171_074_631_000), time);
        assert_eq!(epoch(1_531_171_074_631_000_000), time);
        assert_eq!(epoch_fraction(1_531_171_074.631), time);
        assert_eq!(epoch_fraction(1_531_171_074_631.0), time);
        for number in [0, 12, -1_531_171_074, 999_999_999, 4_000_000_000, 999_999_999_999, i64::MAX, i64::MIN]
        {
            assert_eq!(epoch(number), None, "{number}");
        }
        for number in [12.5, f64::NAN, f64::INFINITY, -1_531_171_074.5, 1e300] {
            assert_eq!(epoch_fraction(number), None, "{number}");
        }
    }

    proptest! {
        #[test]
        fn every_time_reads_as_another_library_writes_it(nanos in 0..253_370_764_800_000_000_000_u128, offset_minutes in -1439..1440_i32) {
            let offset = UtcOffset::from_whole_seconds(offset_minutes * 60).unwrap();
            let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::try_from(nanos).unwrap()).unwrap().to_offset(offset);
            prop_assume!((0..=9999).contains(&moment.year()));
            let text = moment.format(&Rfc3339).unwrap();
            prop_assert_eq!(rfc3339(&text), u64::try_from(nanos).ok(), "{}", text);
        }

        #[test]
        fn the_usual_form_is_read_as_any_is(seconds in 0..18_000_000_000_i64, millis in 0..1000_u32, at in 0..24_usize, byte in prop_oneof!["[0-9TtZz:., +-]", "\\PC"], rest in "[0-9Z]{0,2}") {
            let text = OffsetDateTime::from_unix_timestamp(seconds).unwrap().format(&Rfc3339).unwrap();
            let text = text.replace('Z', &format!(".{millis:03}Z{rest}"));
            prop_assert!(usual(text.as_bytes()).is_some());
            prop_assert_eq!(usual(text.as_bytes()), any_form(text.as_bytes()));
            let mut changed = text.into_bytes();
            changed[at] = byte.as_bytes()[0];
            let read = usual(&changed);
            prop_assert!(read.is_none() || read == any_form(&changed), "{:?}", changed);
        }

        #[test]
        fn no_text_makes_it_fail_badly(text in "[0-9TtZz:., +-]{0,40}") {
            let _ = rfc3339(&text);
        }

        #[test]
        fn whole_milliseconds_survive_as_numbers(millis in 1_000_000_000_000..4_000_000_000_000_i64) {
            let expected = UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs());
            let read = epoch(millis).map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos));
            prop_assert_eq!(read, Some(expected));
        }
    }
}
