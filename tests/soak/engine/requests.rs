//! The requests of a run, to the backend and to the fallback, and what the extension could know of them.

use std::time::{Duration, Instant};

use outlast_backend::{Request, Verdict};

use super::account::FALLBACK_FROM;

/// A freeze from here on may cost a request its connection (the extension's own bound is a second).
pub(crate) const LONG_FREEZE: Duration = Duration::from_millis(900);
/// The last request of a process may go unnoted if the process ends so soon after its answer.
pub(crate) const END: Duration = Duration::from_millis(100);
/// Requests before the first of two with the same record that are told of as well.
const AROUND_REPEAT: Duration = Duration::from_millis(300);

/// When a request under way may have been lost sight of: from, to.
pub(crate) type Disruptions = Vec<(Instant, Instant)>;

/// All of them, by their numbers in the account.
pub(crate) struct Requests {
    pub(crate) primary: Vec<Request>,
    pub(crate) fallback: Vec<Request>,
}

impl Requests {
    fn get(&self, number: u64) -> Option<&Request> {
        let (place, number) = match number.checked_sub(FALLBACK_FROM) {
            Some(number) => (&self.fallback, number),
            None => (&self.primary, number),
        };
        place.get(usize::try_from(number).unwrap())
    }

    fn is_fallback(number: u64) -> bool {
        number >= FALLBACK_FROM
    }

    /// Each with its number.
    fn all(&self) -> impl Iterator<Item = (u64, &Request)> {
        let primary = self.primary.iter().map(|request| (request.number, request));
        primary.chain(self.fallback.iter().map(|request| (request.number + FALLBACK_FROM, request)))
    }

    /// The two in the order in which they began.
    pub(crate) fn in_order(&self, one: u64, other: u64) -> (u64, u64) {
        let at = |number: u64| self.get(number).map(|request| (request.at, number));
        if at(one) <= at(other) { (one, other) } else { (other, one) }
    }

    /// The next request of the same signal, wherever it went, and whether it went the other way: each signal has requests of its
    /// own, which wait for none of another's. Either place has its own in the order in which they began.
    fn after(&self, number: u64, first: &Request) -> Option<(bool, &Request)> {
        let (own, other) = if Self::is_fallback(number) {
            (&self.fallback, &self.primary)
        } else {
            (&self.primary, &self.fallback)
        };
        let from = [
            (false, own, usize::try_from(first.number).unwrap() + 1),
            (true, other, other.partition_point(|other| other.at <= first.at)),
        ];
        let next = from.into_iter().filter_map(|(is_aside, place, from)| {
            let next = place.iter().skip(from).find(|later| later.signal == first.signal)?;
            Some((is_aside, next))
        });
        next.min_by_key(|(_, next)| next.at)
    }

    /// Whether the extension could not know that a request had been taken: it had no answer or a late one, or something came
    /// between the answer and the next request.
    pub(crate) fn is_unknown(
        &self,
        number: u64,
        disruptions: &[(Instant, Instant)],
        request_timeout: Duration,
    ) -> bool {
        let Some(first) = self.get(number) else { return false };
        if !matches!(first.verdict, Verdict::Accepted | Verdict::Partial { .. }) {
            return true;
        }
        let Some(answered) = first.answered_at else { return true };
        if answered.duration_since(first.at) * 10 >= request_timeout * 9 {
            return true;
        }
        let next = self.after(number, first);
        let next_at = next.map_or_else(Instant::now, |(_, next)| next.at);
        // Given up without an answer: a machine this busy looks like a freeze to the extension.
        if answered > next_at && next_at.saturating_duration_since(first.at) >= LONG_FREEZE {
            return true;
        }
        // SHUTDOWN cuts a request short for the fallback.
        if next.is_some_and(|(is_aside, _)| is_aside) && answered + END >= next_at {
            return true;
        }
        disruptions.iter().any(|(from, to)| first.at <= *to && next_at >= *from)
    }

    /// Two requests, and what was sent before and between them, in words.
    pub(crate) fn around(&self, one: u64, other: u64) -> Vec<String> {
        let (first, last) = self.in_order(one, other);
        let (Some(first), Some(last)) = (self.get(first), self.get(last)) else { return Vec::new() };
        let mut around: Vec<_> = self
            .all()
            .filter(|(_, request)| request.at + AROUND_REPEAT >= first.at && request.at <= last.at)
            .collect();
        around.sort_by_key(|(number, request)| (request.at, *number));
        let told = around.into_iter().map(|(number, request)| {
            let Request { signal, verdict, records, connection, at, .. } = request;
            let answered = request.answered_at.map(|answered| answered.duration_since(*at));
            let place = if Self::is_fallback(number) { "fallback, " } else { "" };
            let since = at.duration_since(first.at.min(*at));
            format!(
                "{place}{} {signal:?} {records} {verdict:?} {answered:?} on {connection}, {since:?} later",
                request.number
            )
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use outlast_backend::Signal;
    use std::time::SystemTime;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn request(number: u64, at: Instant, answered_ms: Option<u64>) -> Request {
        Request {
            number,
            connection: 0,
            reused_connection: true,
            at,
            at_wall: SystemTime::UNIX_EPOCH,
            method: "POST".into(),
            path: "/v1/logs".into(),
            signal: Some(Signal::Logs),
            headers: Vec::new(),
            body: Bytes::new(),
            wire_bytes: 1,
            plain_bytes: 1,
            records: 1,
            kept: true,
            verdict: Verdict::Accepted,
            answered_at: answered_ms.map(|ms| at + Duration::from_millis(ms)),
            defect: None,
        }
    }

    #[test]
    fn what_was_answered_in_time_is_known() {
        let now = Instant::now();
        let later = now + Duration::from_millis(500);
        let of = |answered_ms| Requests {
            primary: vec![request(0, now, answered_ms), request(1, later, Some(1))],
            fallback: Vec::new(),
        };
        assert!(!of(Some(10)).is_unknown(0, &[], TIMEOUT));
        assert!(of(None).is_unknown(0, &[], TIMEOUT));
        assert!(of(Some(950)).is_unknown(0, &[], TIMEOUT), "about when it was given up");
        assert!(of(Some(10)).is_unknown(0, &[(now, now)], TIMEOUT), "a disruption");
    }

    #[test]
    fn a_request_that_the_fallback_followed_at_once_was_cut_short() {
        let now = Instant::now();
        let of = |after_ms, is_aside: bool| {
            let next = request(u64::from(!is_aside), now + Duration::from_millis(after_ms), Some(1));
            let first = request(0, now, Some(300));
            if is_aside {
                Requests { primary: vec![first], fallback: vec![next] }
            } else {
                Requests { primary: vec![first, next], fallback: Vec::new() }
            }
        };
        assert!(of(250, true).is_unknown(0, &[], TIMEOUT));
        assert!(!of(250, false).is_unknown(0, &[], TIMEOUT));
        assert!(!of(600, true).is_unknown(0, &[], TIMEOUT), "it had been answered long before");
        assert_eq!(of(250, true).in_order(FALLBACK_FROM, 0), (0, FALLBACK_FROM));
        assert_eq!(of(250, true).around(0, FALLBACK_FROM).len(), 2);
    }
}
