//! Which queues there are, and which destinations are served from each.
//!
//! What is stored is what is sent, so destinations of one wire format are served from the same stored blocks, and each
//! further format has a queue of its own, below the directory of the first.

use std::path::PathBuf;

use super::Config;
use crate::PerSignal;
use crate::encode::Protocol;

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
    /// Who is served from it.
    pub served: Vec<Served>,
}

/// A destination that is served from a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its name; none for the main one.
    pub name: Option<String>,
    /// The signals it gets.
    pub signals: PerSignal<bool>,
}

impl Config {
    /// The main destination, without a name, and those with one.
    pub fn all_destinations(&self) -> impl Iterator<Item = (Option<&str>, &Self)> {
        let named = self.destinations.iter().map(|named| (Some(named.name.as_str()), &named.config));
        std::iter::once((None, self)).chain(named)
    }

    /// The queues, that of the main destination first.
    pub fn queues(&self) -> Vec<QueuePlan> {
        let mut plans: Vec<QueuePlan> = Vec::new();
        for (name, config) in self.all_destinations() {
            let signals = PerSignal::from_fn(|signal| config.is_made(signal));
            let served = Served { name: name.map(str::to_owned), signals };
            plans.push(QueuePlan {
                protocol: config.protocol,
                dir: name
                    .map_or_else(|| self.queue_dir.clone(), |name| self.queue_dir.join(format!("to-{name}"))),
                max_bytes: 0,
                signals,
                served: vec![served],
            });
        }
        let share = self.queue_max_bytes / plans.len().max(1) as u64;
        for plan in &mut plans {
            plan.max_bytes = share;
        }
        plans
    }
}
