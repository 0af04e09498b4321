//! A moving average of durations.

use std::time::Duration;

/// One sample weighs a fourth: a change of habit is believed after two or three samples, an outlier alone is not.
const WEIGHT: u32 = 4;

/// An exponentially weighted moving average; unknown until the first sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Average(Option<Duration>);

impl Average {
    pub(super) fn add(&mut self, sample: Duration) {
        self.0 = Some(match self.0 {
            None => sample,
            Some(value) => value.saturating_mul(WEIGHT - 1).saturating_add(sample) / WEIGHT,
        });
    }

    pub(super) fn get(self) -> Option<Duration> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_is_the_average_and_later_ones_pull_it_by_a_fourth() {
        let mut average = Average::default();
        assert_eq!(average.get(), None);
        average.add(Duration::from_secs(4));
        assert_eq!(average.get(), Some(Duration::from_secs(4)));
        average.add(Duration::from_secs(8));
        assert_eq!(average.get(), Some(Duration::from_secs(5)));
    }
}
