//! Finding the record that a backend does not take, without taking its neighbours along.
//!
//! A refusal (400) says that something in the request is wrong. The search keeps a *window*: the run from the
//! front of the lane that contains what is wrong, first in blocks, then in records of the head block. Each
//! step sends the front half of the window. Delivered: the window is its rest. Refused: the window is that half. A
//! single record refused on its own is given up. Everything goes out from the front, so the order holds.
//!
//! A 500 may mean the same, or an outage. After [`SERVER_ERRORS_BEFORE_DOUBT`] in a row for the same head
//! the same search is made, at the pace of the backoff. A single record that gets 500 on its own is only
//! *suspected*: the record after it is sent as an alibi. If that fails too, it is an outage: everything is kept,
//! and the doubt begins anew. If it is accepted (or refused with a 400: the backend judges content again), the
//! suspect is tried once more, for the outage may have ended between the two; only with a 500 again is it given
//! up. If it is accepted now, the two changed places: the price of not losing it.

use super::event::{Backlog, Portion, Sent};

/// Consecutive 500s for the same head before its content is doubted. Fewer would search in every restart of a
/// backend; the breaker opens earlier, so that these come at the pace of the backoff.
pub(super) const SERVER_ERRORS_BEFORE_DOUBT: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Refusal,
    Doubt,
}

/// What is known to contain the fault, counted from the front of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    Blocks(u64),
    Records { head: u64, count: u64 },
}

/// How far the case against a single record has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    None,
    /// It got 500 on its own: ask for an alibi.
    Suspected,
    /// Its neighbour was judged, so the backend works: try it a last time.
    Accused {
        alibi_delivered: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Search {
    cause: Cause,
    window: Window,
    suspicion: Suspicion,
}

/// Records to mark without sending them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) head: u64,
    pub(super) refused: u64,
    pub(super) delivered: u64,
}

impl Settlement {
    /// A neighbour was delivered, and what stood before it is gone.
    pub(super) fn of_neighbour(left: &Backlog) -> Option<Self> {
        left.head_sequence().map(|head| Self { head, refused: 0, delivered: 1 })
    }
}

/// The search in one lane.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    search: Option<Search>,
    server_errors: u32,
}

impl Isolation {
    pub(super) fn is_active(&self) -> bool {
        self.search.is_some()
    }

    /// Forgets everything: the head is another one than was thought.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// What to send next, or `None` for as much as the limits allow.
    pub(super) fn portion(&self, level: &Backlog, max_bytes: u64) -> Option<Portion> {
        let search = self.search?;
        Some(match (search.window, search.suspicion) {
            (Window::Blocks(count), _) => Portion::Run { max_blocks: (count / 2).max(1), max_bytes },
            (Window::Records { .. }, Suspicion::Suspected) if has_neighbour(level) => Portion::Alibi,
            (Window::Records { count, .. }, _) => {
                let rest = level.head.map_or(1, |head| head.records);
                Portion::Records { count: (count / 2).min(rest).max(1) }
            }
        })
    }

    /// The content was refused: narrows the window, or gives a single record up.
    pub(super) fn refused(&mut self, sent: &Sent, alibi: bool) -> Option<Settlement> {
        if alibi {
            self.accuse(false);
            return None;
        }
        let delivered = self.alibi_delivered();
        self.reset();
        if self.narrow(Cause::Refusal, sent) {
            return None;
        }
        Some(Settlement { head: sent.head, refused: 1, delivered: u64::from(delivered.unwrap_or(false)) })
    }

    /// A 500: counts it, and once in doubt narrows the window or goes on with the case against a record.
    pub(super) fn server_error(&mut self, sent: &Sent, alibi: bool) -> Option<Settlement> {
        if alibi {
            self.reset();
            return None;
        }
        if let Some(delivered) = self.alibi_delivered() {
            self.reset();
            return Some(Settlement { head: sent.head, refused: 1, delivered: u64::from(delivered) });
        }
        self.server_errors = self.server_errors.saturating_add(1);
        if self.server_errors < SERVER_ERRORS_BEFORE_DOUBT {
            return None;
        }
        if !self.narrow(Cause::Doubt, sent) {
            let window = Window::Records { head: sent.head, count: 1 };
            self.search = Some(Search { cause: Cause::Doubt, window, suspicion: Suspicion::Suspected });
        }
        None
    }

    /// Another failure: an outage, so a doubt was unfounded. What was refused stays refused, and an accused record
    /// still waits for its last try.
    pub(super) fn failed(&mut self) {
        self.server_errors = 0;
        let doubt = self.search.is_some_and(|search| search.cause == Cause::Doubt);
        if doubt && self.alibi_delivered().is_none() {
            self.search = None;
        }
    }

    /// The request was accepted: what is left of the window holds the fault.
    pub(super) fn delivered(&mut self, sent: &Sent, left: &Backlog, alibi: bool) -> Option<Settlement> {
        if alibi {
            self.accuse(true);
            // The suspect may have gone meanwhile.
            return if self.is_active() { None } else { Settlement::of_neighbour(left) };
        }
        if let Some(delivered) = self.alibi_delivered() {
            self.reset();
            return Settlement::of_neighbour(left).filter(|_| delivered);
        }
        let search = self.search.as_mut()?;
        search.suspicion = Suspicion::None;
        let over = match &mut search.window {
            Window::Blocks(count) => {
                *count = count.saturating_sub(sent.blocks);
                *count == 0
            }
            Window::Records { head, count } => {
                *count = count.saturating_sub(sent.records);
                *count == 0 || left.head_sequence() != Some(*head)
            }
        };
        if over {
            self.reset();
        }
        None
    }

    fn accuse(&mut self, alibi_delivered: bool) {
        if let Some(search) = &mut self.search {
            search.suspicion = Suspicion::Accused { alibi_delivered };
        }
    }

    /// A record is accused whose neighbour was delivered already, and not marked yet.
    pub(super) fn neighbour_was_delivered(&self) -> bool {
        self.alibi_delivered() == Some(true)
    }

    /// Whether the alibi was accepted, if a record is accused.
    fn alibi_delivered(&self) -> Option<bool> {
        match self.search?.suspicion {
            Suspicion::Accused { alibi_delivered } => Some(alibi_delivered),
            Suspicion::None | Suspicion::Suspected => None,
        }
    }

    /// Takes what was sent as the window; false if that is a single record.
    fn narrow(&mut self, cause: Cause, sent: &Sent) -> bool {
        let window = if sent.blocks > 1 {
            Window::Blocks(sent.blocks)
        } else {
            Window::Records { head: sent.head, count: sent.records }
        };
        let divisible = sent.blocks > 1 || sent.records > 1;
        if divisible {
            self.search = Some(Search { cause, window, suspicion: Suspicion::None });
        }
        divisible
    }
}

fn has_neighbour(level: &Backlog) -> bool {
    level.blocks > 1 || level.head.is_some_and(|head| head.records > 1)
}

#[cfg(test)]
mod tests;
