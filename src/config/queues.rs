//! Which queues there are, and which destinations are served from each.
//!
//! What is stored is what is sent, so destinations of one wire format are served from the same stored blocks, and each
//! further format has a queue of its own, below the directory of the first.

use std::path::PathBuf;

use super::Config;
use crate::encode::Protocol;
use crate::queue::{ReaderId, ReaderSpec, Readers};
use crate::{PerSignal, Signal};

/// A queue, and who is served from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePlan {
    /// What its blocks are encoded for.
    pub protocol: Protocol,
    /// Where it lives.
    pub dir: PathBuf,
    /// Its share of `OUTLAST_QUEUE_MAX_BYTES`.
    pub max_bytes: u64,
    /// The signals that are made for it: what any of those needs who are served from it.
    pub signals: PerSignal<bool>,
    /// The signals that the main destination gets; none if it is served from another queue.
    main: Option<PerSignal<bool>>,
    further: Vec<ReaderSpec>,
}

impl QueuePlan {
    /// Whether the main destination is served from it.
    pub fn has_main(&self) -> bool {
        self.main.is_some()
    }

    /// Who reads it. The main destination alone gets whatever is stored, also what an earlier process left of signals that
    /// are not made any more.
    pub fn readers(&self) -> Readers {
        let main = self.main.unwrap_or_default();
        let is_alone = self.has_main() && self.further.is_empty();
        let first = PerSignal::from_fn(|signal| is_alone || *main.get(signal));
        Readers { first, others: self.further.clone() }
    }

    /// Who the destination `name` is among the readers of the queue; `None`: it is none of them.
    pub fn reader(&self, name: Option<&str>) -> Option<ReaderId> {
        let Some(name) = name else { return self.main.map(|_| ReaderId::FIRST) };
        let place = self.further.iter().position(|reader| reader.name == name)?;
        Some((0..=place).fold(ReaderId::FIRST, |reader, _| reader.next()))
    }
}

impl Config {
    /// The main destination, without a name, and those with one.
    pub fn all_destinations(&self) -> impl Iterator<Item = (Option<&str>, &Self)> {
        let named = self.destinations.iter().map(|named| (Some(named.name.as_str()), &named.config));
        std::iter::once((None, self)).chain(named)
    }

    /// The queues, that of the main destination first.
    pub fn queues(&self) -> Vec<QueuePlan> {
        let mut plans = vec![QueuePlan {
            protocol: self.protocol,
            dir: self.queue_dir.clone(),
            max_bytes: 0,
            signals: self.made(),
            main: Some(self.made()),
            further: Vec::new(),
        }];
        for named in &self.destinations {
            let wants = named.config.made();
            let reader = ReaderSpec { name: named.name.clone(), wants };
            let protocol = named.config.protocol;
            if let Some(plan) = plans.iter_mut().find(|plan| plan.protocol == protocol) {
                plan.signals = PerSignal::from_fn(|signal| *plan.signals.get(signal) || *wants.get(signal));
                plan.further.push(reader);
            } else {
                plans.push(QueuePlan {
                    protocol,
                    dir: self.queue_dir.join(protocol.name()),
                    max_bytes: 0,
                    signals: wants,
                    main: None,
                    further: vec![reader],
                });
            }
        }
        let share = self.queue_max_bytes / plans.len().max(1) as u64;
        for plan in &mut plans {
            plan.max_bytes = share;
        }
        plans
    }

    /// The signals that are made for this destination.
    fn made(&self) -> PerSignal<bool> {
        PerSignal::from_fn(|signal: Signal| self.is_made(signal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn destinations_of_one_format_share_a_queue_and_each_other_format_has_one() {
        let loaded = load([
            ("OUTLAST_ENDPOINT", "http://main"),
            ("OUTLAST_SIGNALS", "logs"),
            ("OUTLAST_QUEUE_MAX_BYTES", "10MiB"),
            ("OUTLAST_DESTINATIONS", "a,b,c"),
            ("OUTLAST_A_ENDPOINT", "http://a"),
            ("OUTLAST_B_ENDPOINT", "http://b"),
            ("OUTLAST_B_PROTOCOL", "loki"),
            ("OUTLAST_C_ENDPOINT", "http://c"),
            ("OUTLAST_C_PROTOCOL", "loki"),
        ]);
        assert_eq!(loaded.problems, []);
        let [first, second] = &loaded.config.queues()[..] else { panic!() };
        assert_eq!((first.protocol, second.protocol), (Protocol::Otlp, Protocol::Loki));
        assert_eq!(second.dir, PathBuf::from("/tmp/outlast/loki"));
        assert_eq!((first.max_bytes, second.max_bytes), (5 << 20, 5 << 20));
        assert!(*first.signals.get(Signal::Metrics), "for a");
        assert!(!first.readers().first.get(Signal::Metrics) && *first.readers().first.get(Signal::Logs));
        let one = ReaderId::FIRST.next();
        assert_eq!((first.reader(None), first.reader(Some("a"))), (Some(ReaderId::FIRST), Some(one)));
        assert_eq!((second.reader(None), second.reader(Some("a"))), (None, None));
        assert_eq!((second.reader(Some("b")), second.reader(Some("c"))), (Some(one), Some(one.next())));
        assert_eq!(second.readers().first, PerSignal::default());
    }

    #[test]
    fn a_destination_that_is_alone_gets_whatever_is_stored() {
        let loaded = load([("OUTLAST_ENDPOINT", "http://main"), ("OUTLAST_SIGNALS", "logs")]);
        let [only] = &loaded.config.queues()[..] else { panic!() };
        assert!(only.readers().first.iter().all(|(_, gets)| *gets));
        assert!(*only.signals.get(Signal::Logs) && !only.signals.get(Signal::Traces));
        assert_eq!((only.max_bytes, only.dir.as_path()), (64 << 20, std::path::Path::new("/tmp/outlast")));
    }
}
