//! Median, 99th percentile and maximum of some measurements.

use serde::Serialize;

/// Microseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) median_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

impl Spread {
    /// By the nearest rank: each figure is one of the measurements.
    pub(crate) fn of(measurements: impl IntoIterator<Item = u64>) -> Self {
        let mut sorted: Vec<u64> = measurements.into_iter().collect();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(at).copied().unwrap_or_default()
        };
        Self { count: sorted.len(), median_us: rank(50), p99_us: rank(99), max_us: rank(100) }
    }
}

/// Microseconds as milliseconds with two places.
pub(crate) fn ms(us: u64) -> String {
    let hundredths = (us + 5) / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// A number with its thousands set apart.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// KiB as MiB with one place.
pub(crate) fn mib(kib: u64) -> String {
    format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_measurements() {
        let spread = Spread::of((1..=100).rev());
        assert_eq!((spread.median_us, spread.p99_us, spread.max_us), (50, 99, 100));
        let spread = Spread::of([7]);
        assert_eq!((spread.count, spread.median_us, spread.p99_us, spread.max_us), (1, 7, 7, 7));
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!((ms(0), ms(1234), ms(99_995)), ("0.00".into(), "1.23".into(), "100.00".into()));
        assert_eq!(
            (thousands(7), thousands(1234), thousands(123_456)),
            ("7".into(), "1,234".into(), "123,456".into())
        );
        assert_eq!(mib(10 * 1024 + 512), "10.5");
    }
}
