//! What an answer, or the lack of one, means for the data that was sent.

use std::fmt;
use std::time::Duration;

use reqwest::header::HeaderMap;

use super::answer;
use super::retry_after::retry_after;

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The backend has it. It may have rejected some records for good, and may say why; they are never sent
    /// again (OTLP specification, "Partial Success").
    Delivered {
        /// Records the backend will not keep.
        rejected: u64,
        /// The backend's words, on one line; also a warning without any rejected record.
        message: Option<String>,
    },
    /// As [`Verdict::Delivered`], and the answer says which records were rejected, at least one.
    Sifted {
        /// Records at the front that the backend has.
        taken: u64,
        /// The records after those, up to the next that it has, which it will not keep.
        refused: u64,
        /// All records it will not keep.
        rejected: u64,
        /// All records the answer speaks of, in the order of the request.
        items: u64,
        /// The status of the first rejected one.
        status: u16,
        /// The backend's words about it, on one line.
        message: Option<String>,
    },
    /// Not now. The data is fine and goes again.
    Retry {
        /// What happened.
        cause: Cause,
        /// How long the backend asks to wait, at most [`super::RETRY_AFTER_MAX_S`].
        after: Option<Duration>,
    },
    /// 413: fewer blocks per request.
    TooLarge,
    /// 500: retryable a bounded number of times, for it may be about the content.
    ServerError {
        /// How long the backend asks to wait, at most [`super::RETRY_AFTER_MAX_S`].
        after: Option<Duration>,
    },
    /// An answer about the configuration, not about the content: credentials, address, method, a redirect.
    /// The data is kept, the user is told once, the backend is probed slowly.
    Denied {
        /// The HTTP status.
        status: u16,
    },
    /// 415 to a gzip body: the same again, not compressed.
    GzipRefused,
    /// This content will never be taken.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The backend's words, on one line; empty if it had none.
        message: String,
    },
}

/// Why a request goes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection came about (refused, DNS, TLS, connect time-out), or it was gone before anything was
    /// written: the backend has nothing of it. With the reason, on one line.
    Unreachable(String),
    /// Its credentials are kept elsewhere and cannot be had, so no request was made. With the reason, on one line.
    NoSecret(String),
    /// No answer in the time a request may take: whether the backend has it is unknown. Decided by the caller,
    /// who owns the time.
    TimedOut,
    /// An HTTP status that asks for another attempt.
    Status(u16),
    /// The connection ended after the request may have been written and before an answer: whether the backend
    /// has it is unknown.
    Broken,
}

impl Cause {
    /// Whether the backend may have taken the data although it did not say so, so that sending it again may
    /// repeat it.
    pub fn fate_unknown(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Broken)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => write!(f, "unreachable: {reason}"),
            Self::NoSecret(reason) => write!(f, "its credentials cannot be had: {reason}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Broken => f.write_str("connection lost before an answer"),
        }
    }
}

/// Judges an answer. `gzip` says whether the request's body was compressed; `now_unix` is the wall clock as
/// time since the Unix epoch, for a `Retry-After` that is a date.
///
/// After the OTLP specification ("OTLP/HTTP Response", "Failures"), which retries 429, 502, 503 and 504. A
/// durable queue can afford to wait where a client that only has memory gives up, so 408, 425 and every other
/// 5xx are retried as well, and 4xx that cannot be about the content keep the data.
pub fn verdict(status: u16, headers: &HeaderMap, body: &[u8], gzip: bool, now_unix: Duration) -> Verdict {
    match status {
        200..=299 => {
            let (rejected, message) = answer::partial_success(body);
            Verdict::Delivered { rejected, message }
        }
        413 => Verdict::TooLarge,
        415 if gzip => Verdict::GzipRefused,
        500 => Verdict::ServerError { after: retry_after(headers, now_unix) },
        status if is_about_configuration(status) => Verdict::Denied { status },
        408 | 425 | 429 | 501.. => {
            Verdict::Retry { cause: Cause::Status(status), after: retry_after(headers, now_unix) }
        }
        400..=499 => Verdict::Refused { status, message: answer::refusal(body) },
        // 1xx as a final answer: no peer that speaks HTTP sends it.
        _ => Verdict::Retry { cause: Cause::Status(status), after: None },
    }
}

/// Statuses that a change of settings, rights or the bill could turn into a success for the same content.
pub(super) fn is_about_configuration(status: u16) -> bool {
    matches!(status,
        300..=399 // a redirect; following it would carry credentials elsewhere
        | 401..=407 // unauthorized, payment, forbidden, not found, method, not acceptable, proxy authentication
        | 410 | 411 | 414 | 415 // gone, length required, URI too long, media type (when it is not about gzip)
        | 417 | 421 | 426 | 431 | 451) // expectation, misdirected, upgrade, header fields too large, legal
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::{HeaderValue, RETRY_AFTER};

    fn of(status: u16, body: &[u8], gzip: bool) -> Verdict {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
        verdict(status, &headers, body, gzip, Duration::ZERO)
    }

    #[test]
    fn every_status_has_its_verdict() {
        let retry =
            |status| Verdict::Retry { cause: Cause::Status(status), after: Some(Duration::from_secs(7)) };
        for status in [200, 202, 204, 299] {
            assert_eq!(of(status, b"", true), Verdict::Delivered { rejected: 0, message: None }, "{status}");
        }
        for status in [408, 425, 429, 501, 502, 503, 504, 505, 507, 511, 529, 599, 600, 999] {
            assert_eq!(of(status, b"", true), retry(status), "{status}");
        }
        for status in [
            301, 302, 304, 307, 308, 401, 402, 403, 404, 405, 406, 407, 410, 411, 414, 417, 421, 426, 431,
            451,
        ] {
            assert_eq!(of(status, b"", true), Verdict::Denied { status }, "{status}");
        }
        for status in [400, 409, 412, 416, 418, 422, 423, 424, 428, 499] {
            assert_eq!(
                of(status, b"", true),
                Verdict::Refused { status, message: String::new() },
                "{status}"
            );
        }
        assert_eq!(of(413, b"", true), Verdict::TooLarge);
        assert_eq!(of(500, b"", true), Verdict::ServerError { after: Some(Duration::from_secs(7)) });
        assert_eq!(of(100, b"", true), Verdict::Retry { cause: Cause::Status(100), after: None });
    }

    #[test]
    fn a_media_type_that_is_refused_without_gzip_is_a_matter_of_configuration() {
        assert_eq!(of(415, b"", true), Verdict::GzipRefused);
        assert_eq!(of(415, b"", false), Verdict::Denied { status: 415 });
    }

    #[test]
    fn a_rejection_of_some_records_is_still_a_delivery() {
        let body = br#"{"partialSuccess":{"rejectedLogRecords":3,"errorMessage":"too old"}}"#;
        assert_eq!(
            of(200, body, true),
            Verdict::Delivered { rejected: 3, message: Some("too old".to_owned()) }
        );
    }

    #[test]
    fn only_a_request_whose_fate_is_unknown_can_repeat() {
        assert!(Cause::TimedOut.fate_unknown() && Cause::Broken.fate_unknown());
        assert!(!Cause::Status(503).fate_unknown() && !Cause::Unreachable(String::new()).fate_unknown());
    }

    proptest! {
        #[test]
        fn content_is_given_up_only_on_a_4xx(status in any::<u16>(), gzip in any::<bool>(), body in prop::collection::vec(any::<u8>(), 0..64)) {
            match verdict(status, &HeaderMap::new(), &body, gzip, Duration::ZERO) {
                Verdict::Refused { .. } | Verdict::TooLarge | Verdict::GzipRefused => prop_assert!((400..500).contains(&status)),
                Verdict::Delivered { .. } => prop_assert!((200..300).contains(&status)),
                _ => {}
            }
        }
    }
}
