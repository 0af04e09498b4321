//! A moment as people write it, in UTC, out of seconds since the Unix epoch.

use std::fmt;
use std::time::Duration;

const SECONDS_PER_DAY: u64 = 86_400;

/// A moment of the Gregorian calendar in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::deliver) struct Civil {
    pub(in crate::deliver) year: u64,
    pub(in crate::deliver) month: u64,
    pub(in crate::deliver) day: u64,
    pub(in crate::deliver) hour: u64,
    minute: u64,
    second: u64,
    millis: u32,
}

impl Civil {
    /// The moment so long after the Unix epoch.
    pub(in crate::deliver) fn of(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs();
        let (days, of_day) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        // Years that begin in March have their leap day at the end: Howard Hinnant, "chrono-Compatible Low-Level Date
        // Algorithms", `civil_from_days`.
        let days = days + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            millis: since_epoch.subsec_millis(),
        }
    }

    /// `20260723`
    pub(in crate::deliver) fn date(&self) -> String {
        format!("{:04}{:02}{:02}", self.year, self.month, self.day)
    }

    /// `20260723T101530Z`, the basic format of ISO 8601.
    pub(in crate::deliver) fn to_second(self) -> impl fmt::Display {
        format!("{}T{:02}{:02}{:02}Z", self.date(), self.hour, self.minute, self.second)
    }

    /// `20260723T101530123Z`
    pub(in crate::deliver) fn to_millisecond(self) -> impl fmt::Display {
        let Self { hour, minute, second, millis, .. } = self;
        format!("{}T{hour:02}{minute:02}{second:02}{millis:03}Z", self.date())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::OffsetDateTime;

    #[test]
    fn moments_are_written_in_the_basic_format() {
        let moment = Civil::of(Duration::from_millis(1_440_938_160_007));
        assert_eq!(moment.to_second().to_string(), "20150830T123600Z");
        assert_eq!(moment.to_millisecond().to_string(), "20150830T123600007Z");
        assert_eq!(Civil::of(Duration::ZERO).date(), "19700101");
    }

    proptest! {
        #[test]
        fn every_moment_is_the_one_another_library_finds(seconds in 0..253_402_300_799_u64) {
            let ours = Civil::of(Duration::from_secs(seconds));
            let theirs = OffsetDateTime::from_unix_timestamp(seconds.cast_signed()).unwrap();
            prop_assert_eq!(ours.date(), format!("{:04}{:02}{:02}", theirs.year(), u8::from(theirs.month()), theirs.day()));
            prop_assert_eq!((ours.hour, ours.minute, ours.second), (theirs.hour().into(), theirs.minute().into(), theirs.second().into()));
        }
    }
}
