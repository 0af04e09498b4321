//! What the keeper does to deliveries, without its thread, for the fuzz targets (`tests/fuzz`). Behind the feature
//! `fuzzing`, which changes nothing else, so that nothing of the keeper becomes public for their sake.

use super::intake::Intake;
use super::{About, Fate, Making};
use crate::encode::Otlp;
use crate::listen::Receipt;
use crate::queue::{Queue, ReaderId, Request};
use crate::{PerSignal, Signal};

/// A keeper that is called instead of told.
pub struct Keeping(Intake);

impl Keeping {
    /// Over `queue`, encoding OTLP, for an environment that runs one invocation at a time.
    pub fn new(queue: Queue) -> Self {
        let signals = PerSignal::from_fn(|signal| signal == Signal::Logs);
        let logs = Making { signals, ..Making::default() };
        Self(Intake::new(queue, Box::new(Otlp), About::default(), logs))
    }

    /// Takes in the body of a delivery that came at `received` (Unix nanoseconds).
    pub fn take(&mut self, body: &[u8], received: u64) -> Receipt {
        self.0.take(body, received).receipt
    }

    /// The end is near: a cut record that waits for its rest is kept as it is.
    pub fn finish(&mut self) {
        self.0.finish();
    }

    /// `request` of `signal` was taken by the backend, all of it.
    pub fn delivered(&mut self, signal: Signal, request: &Request) {
        let fate = Fate::Delivered {
            to: request.to,
            records: u64::from(request.records),
            reports: u64::from(request.reports),
            rejected: 0,
        };
        self.0.land(ReaderId::FIRST, signal, fate);
    }

    /// The queue, to assemble requests from.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.0.queue
    }
}
