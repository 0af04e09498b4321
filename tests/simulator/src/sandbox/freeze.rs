//! Freezing between invocations: SIGSTOP to the process groups after a grace, SIGCONT just before the next event.

use std::sync::Arc;

use rustix::process::Signal;

use super::Core;
use crate::clock::lock;
use crate::options::{Freeze, InitializationType};
use crate::telemetry::platform::Phase;

/// A turning point in an environment's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Every extension waits for its first event.
    Initialised(Phase),
    /// All processes are stopped. Connections of theirs that idle now are what a network would forget.
    Frozen,
    /// All processes run again.
    Thawed,
    /// All processes are gone.
    Ended,
}

/// Whether the environment is frozen, and which freeze is meant: thawing outdates those that are still to come.
#[derive(Debug, Default)]
pub(crate) struct Freezer {
    frozen: bool,
    epoch: u64,
}

impl Freezer {
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }
}

impl Core {
    /// Freezes after the grace, unless the environment is thawed before.
    pub(super) fn freeze_later(self: &Arc<Self>) {
        let Freeze::After(grace) = self.options.freeze else { return };
        if self.options.initialization == InitializationType::ManagedInstances {
            return;
        }
        let epoch = lock(&self.freezer).epoch;
        let core = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            if let Some(core) = core.upgrade() {
                core.freeze(epoch);
            }
        });
    }

    fn freeze(&self, epoch: u64) {
        let mut freezer = lock(&self.freezer);
        if freezer.epoch != epoch || freezer.frozen {
            return;
        }
        freezer.frozen = true;
        self.hub.running.send_replace(false);
        lock(&self.processes).iter().for_each(|process| process.signal(Signal::STOP));
        drop(freezer);
        self.announce(Moment::Frozen);
    }

    pub(super) fn thaw(&self) {
        let mut freezer = lock(&self.freezer);
        freezer.epoch += 1;
        if !freezer.frozen {
            return;
        }
        freezer.frozen = false;
        lock(&self.processes).iter().for_each(|process| process.signal(Signal::CONT));
        self.hub.running.send_replace(true);
        drop(freezer);
        self.announce(Moment::Thawed);
    }

    pub(super) fn announce(&self, moment: Moment) {
        // Without listeners there is nobody to tell.
        let _listeners = self.moments.send(moment).is_ok();
        self.hub.notify();
    }
}
