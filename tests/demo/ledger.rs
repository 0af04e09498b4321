//! Every log line twice over: as the extension acknowledged it and as the backend received it.
//!
//! All figures about lines come from here, and everything here comes from the sandbox's list of
//! acknowledged events and the backend's list of records.

use std::collections::HashMap;

use serde::Serialize;

/// One log line of the function; its text is unique.
#[derive(Debug, Default, Clone, Copy)]
struct Line {
    acknowledged: bool,
    came: usize,
}

/// Figures about some lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Answered 200 by the extension.
    pub(crate) acknowledged: usize,
    /// Of these, received by the backend.
    pub(crate) delivered: usize,
    /// Received once more than once.
    pub(crate) repeated: usize,
    /// Acknowledged, not received, and a line that was acknowledged later has been received: as order is
    /// kept, it will not come any more. At the end: not received.
    pub(crate) lost: usize,
    /// Received after a line that was acknowledged later.
    pub(crate) misordered: usize,
}

impl Counts {
    /// Acknowledged and yet to come.
    pub(crate) fn waiting(&self) -> usize {
        self.acknowledged.saturating_sub(self.delivered + self.lost)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    lines: HashMap<String, Line>,
    /// In the order of acknowledgement.
    order: Vec<String>,
    /// How far `order` is done with: everything before has come.
    settled: usize,
    /// The place in `order` of the furthest line that has come, plus one.
    furthest: usize,
    counts: Counts,
    /// Expected places by text, for those acknowledged but not received.
    awaited: HashMap<String, usize>,
}

impl Ledger {
    /// A line was acknowledged.
    pub(crate) fn acknowledged(&mut self, text: &str) {
        let line = self.lines.entry(text.to_owned()).or_default();
        if line.acknowledged {
            return;
        }
        line.acknowledged = true;
        self.counts.acknowledged += 1;
        let place = self.order.len();
        self.order.push(text.to_owned());
        if line.came > 0 {
            self.counts.delivered += 1;
            self.furthest = place + 1;
        } else {
            self.awaited.insert(text.to_owned(), place);
        }
        self.settle();
    }

    /// A line was received.
    pub(crate) fn received(&mut self, text: &str) {
        let line = self.lines.entry(text.to_owned()).or_default();
        line.came += 1;
        if line.came > 1 {
            self.counts.repeated += 1;
        } else if let Some(place) = self.awaited.remove(text) {
            self.counts.delivered += 1;
            self.furthest = self.furthest.max(place + 1);
        }
        self.settle();
    }

    fn settle(&mut self) {
        while self.order.get(self.settled).is_some_and(|text| !self.awaited.contains_key(text)) {
            self.settled += 1;
        }
    }

    /// The figures so far. What was overtaken counts as lost; it counts as misordered once it comes.
    pub(crate) fn counts(&self) -> Counts {
        let overtaken = self
            .order
            .get(self.settled..self.furthest)
            .unwrap_or_default()
            .iter()
            .filter(|text| self.awaited.contains_key(*text))
            .count();
        Counts { lost: overtaken, ..self.counts }
    }

    /// The lines in the order of acknowledgement.
    pub(crate) fn order(&self) -> &[String] {
        &self.order
    }

    /// The final figures of groups of lines: everything that has not come is lost.
    pub(crate) fn grouped(
        &self,
        misordered: &[String],
        groups: usize,
        group_of: impl Fn(&str) -> Option<usize>,
    ) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); groups];
        for (text, line) in &self.lines {
            let Some(group) = group_of(text).and_then(|group| counts.get_mut(group)) else { continue };
            group.repeated += line.came.saturating_sub(1);
            if line.acknowledged {
                group.acknowledged += 1;
                group.delivered += usize::from(line.came > 0);
                group.lost += usize::from(line.came == 0);
            }
        }
        for text in misordered {
            if let Some(group) = group_of(text).and_then(|group| counts.get_mut(group)) {
                group.misordered += 1;
            }
        }
        counts
    }
}

/// The invocation that logged a line `run=R inv=I line=L`.
pub(crate) fn invocation_of(text: &str) -> Option<usize> {
    text.split(' ').find_map(|part| part.strip_prefix("inv=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_waits_until_it_comes() {
        let mut ledger = Ledger::default();
        ledger.acknowledged("a");
        ledger.acknowledged("b");
        assert_eq!(ledger.counts().waiting(), 2);
        ledger.received("a");
        let counts = ledger.counts();
        assert_eq!((counts.delivered, counts.waiting(), counts.lost), (1, 1, 0));
    }

    #[test]
    fn a_line_that_was_overtaken_counts_as_lost_until_it_comes() {
        let mut ledger = Ledger::default();
        for text in ["a", "b", "c"] {
            ledger.acknowledged(text);
        }
        ledger.received("a");
        ledger.received("c");
        assert_eq!((ledger.counts().lost, ledger.counts().waiting()), (1, 0));
        ledger.received("b");
        assert_eq!((ledger.counts().lost, ledger.counts().delivered), (0, 3));
    }

    #[test]
    fn a_line_received_before_its_acknowledgement_is_known_is_delivered() {
        let mut ledger = Ledger::default();
        ledger.received("a");
        ledger.acknowledged("a");
        ledger.received("a");
        let counts = ledger.counts();
        assert_eq!((counts.delivered, counts.repeated, counts.waiting()), (1, 1, 0));
    }

    #[test]
    fn the_end_is_judged_by_group() {
        let mut ledger = Ledger::default();
        for text in ["inv=1 line=0", "inv=1 line=1", "inv=2 line=0"] {
            ledger.acknowledged(text);
        }
        ledger.received("inv=2 line=0");
        ledger.received("inv=1 line=0");
        let groups = ledger.grouped(&["inv=1 line=0".to_owned()], 2, |text| {
            invocation_of(text).map(|invocation| invocation - 1)
        });
        let first = Counts { acknowledged: 2, delivered: 1, repeated: 0, lost: 1, misordered: 1 };
        assert_eq!(groups, [first, Counts { acknowledged: 1, delivered: 1, ..Counts::default() }]);
    }
}
