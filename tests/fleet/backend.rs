//! One backend for the whole fleet: a server with so much work in it, that is away for a while.
//!
//! Work is counted in microseconds of the server. A request costs a fixed part and a part for its bytes; at the load of
//! usual times both parts are the same in sum. What it cannot do within its queue it turns away at once.

use std::time::Duration;

use outlast::drain::policy::Outcome;

/// Microseconds of virtual time.
pub(crate) type Micros = u64;

pub(crate) const SECOND: Micros = 1_000_000;

/// The way to the backend and back, as between two zones of a region.
const ROUND_TRIP: Micros = 4_000;

/// Nobody listens: the kernel at the other end says so.
const REFUSAL: Micros = 1_000;

/// Requests wait at the server for so long at most; one that would have to wait longer is turned away.
const QUEUE_MAX: Micros = SECOND;

/// How the backend is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// No connection.
    Refused,
    /// 503, with `Retry-After` or without.
    Unavailable(Option<Duration>),
    /// It takes connections and never answers.
    Hung,
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    At(Micros, Outcome),
    Never,
}

#[derive(Debug)]
pub(crate) struct Backend {
    /// Of one request, in usual times; zero while the capacity is not known.
    per_request: f64,
    per_byte: f64,
    /// When the work it has taken is done.
    busy_until: f64,
    /// What it says to those it turns away.
    shed_after: Option<Duration>,
    away: Option<Away>,
}

impl Backend {
    /// A backend that takes everything, for as long as it is not [limited](Self::limit).
    pub(crate) fn new(shed_after: Option<Duration>) -> Self {
        Self { per_request: 0.0, per_byte: 0.0, busy_until: 0.0, shed_after, away: None }
    }

    /// From now on it can do just so much a second.
    pub(crate) fn limit(&mut self, requests_per_second: f64, bytes_per_second: f64) {
        let half = SECOND as f64 / 2.0;
        self.per_request = half / requests_per_second;
        self.per_byte = half / bytes_per_second;
    }

    pub(crate) fn goes_away(&mut self, how: Away) {
        self.away = Some(how);
    }

    pub(crate) fn comes_back(&mut self, now: Micros) {
        self.away = None;
        self.busy_until = now as f64;
    }

    /// What a request of so many bytes would cost.
    pub(crate) fn work(&self, bytes: u64) -> f64 {
        self.per_request + self.per_byte * bytes as f64
    }

    pub(crate) fn take(&mut self, now: Micros, bytes: u64) -> Answer {
        match self.away {
            Some(Away::Refused) => {
                Answer::At(now + REFUSAL, Outcome::Retry { after: None, fate_unknown: false })
            }
            Some(Away::Unavailable(after)) => {
                Answer::At(now + ROUND_TRIP, Outcome::Retry { after, fate_unknown: false })
            }
            Some(Away::Hung) => Answer::Never,
            None => {
                let begins = self.busy_until.max(now as f64);
                if begins - now as f64 > QUEUE_MAX as f64 {
                    let turned_away = Outcome::Retry { after: self.shed_after, fate_unknown: false };
                    return Answer::At(now + ROUND_TRIP, turned_away);
                }
                self.busy_until = begins + self.work(bytes);
                Answer::At(self.busy_until as Micros + ROUND_TRIP, Outcome::Delivered)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_backend_does_so_much_and_turns_the_rest_away() {
        let mut backend = Backend::new(None);
        backend.limit(100.0, 1e9);
        // Each costs half of a hundredth of a second: 200 a second without their bytes.
        let answers: Vec<Answer> = (0..300).map(|_| backend.take(0, 0)).collect();
        let taken = answers.iter().filter(|answer| matches!(answer, Answer::At(_, Outcome::Delivered)));
        assert_eq!(taken.count(), 201, "a second of work, and the one that fills it");
        assert_eq!(answers[199], Answer::At(SECOND + ROUND_TRIP, Outcome::Delivered));
        assert!(matches!(backend.take(SECOND, 0), Answer::At(_, Outcome::Delivered)), "a second later");
    }
}
