//! Telling of what the full queue gave up. In an outage that is something with every delivery, and where our lines are
//! telemetry too each line would beget the next: so it is summed up, and whoever has a clock says when it is told.

use super::store::Queue;

/// What was given up for want of room, and not told.
#[derive(Debug, Default)]
pub(super) struct Overflowed {
    /// Records that were turned away.
    pub(super) new: u64,
    /// The oldest there were.
    pub(super) oldest: u64,
    /// The oldest behind a segment that cannot be read.
    pub(super) readable: u64,
    /// The least severe.
    pub(super) least_severe: u64,
    /// How often the oldest had to go instead of the least severe, and why the last time.
    pub(super) not_rewritten: u64,
    pub(super) why_not: String,
}

impl Overflowed {
    fn is_told(&self) -> bool {
        [self.new, self.oldest, self.readable, self.least_severe, self.not_rewritten] == [0; 5]
    }

    /// The lines that tell it, each at the end about `for_whom`.
    fn lines(&self, for_whom: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if self.not_rewritten > 0 {
            let times = self.not_rewritten;
            lines.push(format!(
                "queue: segments cannot be written anew ({times} times), the oldest go instead: {}",
                self.why_not
            ));
        }
        let told = [
            (self.oldest, "the oldest", "records"),
            (self.readable, "the oldest", "records that can be read"),
            (self.least_severe, "the", "least severe records"),
        ];
        for (count, which, what) in told.into_iter().filter(|(count, ..)| *count > 0) {
            lines.push(format!("queue full: {which} {count} {what} dropped{for_whom}"));
        }
        if self.new > 0 {
            lines.push(format!("queue full: {} new records dropped", self.new));
        }
        lines
    }
}

impl Queue {
    /// Whether something was given up for want of room that [`Queue::tell_overflow`] has not told.
    pub fn owes_overflow(&self) -> bool {
        let aside = self.others.iter().map(|reader| &reader.own);
        aside.chain([&self.own]).any(|own| !own.overflowed.is_told())
    }

    /// Says on stderr what was given up for want of room since it was said last.
    pub fn tell_overflow(&mut self) {
        let aside = self.others.iter_mut().map(|reader| &mut reader.own);
        for own in std::iter::once(&mut self.own).chain(aside) {
            let overflowed = std::mem::take(&mut own.overflowed);
            for line in overflowed.lines(&own.for_whom()) {
                log::warn!("{line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_summed_up_by_what_it_was() {
        let mut overflowed = Overflowed::default();
        assert!(overflowed.is_told() && overflowed.lines("").is_empty());
        for records in 1..=4 {
            overflowed.new += records;
            overflowed.oldest += 100;
        }
        assert_eq!(
            overflowed.lines(" for audit"),
            ["queue full: the oldest 400 records dropped for audit", "queue full: 10 new records dropped",]
        );
        let overflowed = Overflowed {
            readable: 2,
            least_severe: 3,
            not_rewritten: 1,
            why_not: "no".to_owned(),
            ..Overflowed::default()
        };
        assert_eq!(
            overflowed.lines(""),
            [
                "queue: segments cannot be written anew (1 times), the oldest go instead: no",
                "queue full: the oldest 2 records that can be read dropped",
                "queue full: the 3 least severe records dropped",
            ]
        );
    }

    #[test]
    fn what_is_owed_is_owed_until_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let limits = crate::queue::Limits::new(1 << 20, crate::queue::Overflow::Shed);
        let mut queue = Queue::open(Box::new(crate::queue::RealDisk), dir.path(), limits, 1).0;
        assert!(!queue.owes_overflow());
        queue.own.overflowed.new = 1;
        assert!(queue.owes_overflow());
        queue.tell_overflow();
        assert!(!queue.owes_overflow());
    }
}
