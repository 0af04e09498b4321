//! What an answer means to each protocol, where that differs from what its status says.
//!
//! | protocol | difference | source |
//! |---|---|---|
//! | `elasticsearch` | 200 may hold a failure for each record | "Bulk API", "Response body" |
//! | `loki` | 400 may mean that some lines were refused and the others taken | `pkg/ingester/stream.go` and `pkg/distributor` of Loki |
//! | `splunk-hec` | 400 may be about the token's settings | "Troubleshoot HTTP Event Collector", "Possible error codes" |
//! | others than OTLP | the body of a success says nothing of records | |

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::answer;
use super::retry_after::retry_after;
use super::verdict::{Cause, Verdict, is_about_configuration, verdict};
use crate::encode::Protocol;

/// An answer of the bulk API has some 30 bytes for each record that was taken and 300 for one that was not. What is longer
/// than this gets fewer records at once.
const BULK_ANSWER_MAX_BYTES: usize = 1 << 20;

/// An answer, as far as it came.
pub(super) struct Reply<'r> {
    pub(super) status: u16,
    pub(super) headers: &'r HeaderMap,
    pub(super) body: &'r [u8],
    pub(super) end: End,
    /// Whether the request's body was compressed.
    pub(super) gzip: bool,
    /// The wall clock.
    pub(super) now_unix: Duration,
}

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All of it is there.
    Whole,
    /// There is more than was wanted.
    Cut,
    /// The rest did not come.
    Broken,
}

/// How much of an answer's body is read, if that decides what became of the records; else it only explains.
pub(super) fn deciding_bytes(protocol: Protocol, status: u16) -> Option<usize> {
    (protocol == Protocol::Elasticsearch && is_success(status)).then_some(BULK_ANSWER_MAX_BYTES)
}

/// Judges an answer by the rules of `protocol`.
pub(super) fn judge(protocol: Protocol, reply: &Reply<'_>) -> Verdict {
    let special = match protocol {
        Protocol::Elasticsearch if is_success(reply.status) => Some(bulk(reply)),
        Protocol::Loki if reply.status == 400 => push(reply),
        Protocol::SplunkHec if reply.status == 400 => collector(reply),
        _ => None,
    };
    special.unwrap_or_else(|| {
        let says_nothing = !protocol.is_otlp() && is_success(reply.status);
        let body = if says_nothing { &[] } else { reply.body };
        verdict(reply.status, reply.headers, body, reply.gzip, reply.now_unix)
    })
}

const fn is_success(status: u16) -> bool {
    matches!(status, 200..=299)
}

/// The answer of the bulk API, without its items.
#[derive(Deserialize)]
struct Bulk {
    errors: bool,
    #[serde(rename = "items")]
    _items: Option<IgnoredAny>,
}

/// The items, each under the name of its action.
#[derive(Deserialize)]
struct Items {
    items: Vec<BTreeMap<String, Item>>,
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    #[serde(default)]
    error: serde_json::Value,
}

/// The bulk API's 200. Whatever else answers 200 (a proxy's page, another service) has kept nothing.
///
/// Records that were taken are met again as conflicts when a request is repeated, so that a part of it can be repeated by
/// repeating the whole.
fn bulk(reply: &Reply<'_>) -> Verdict {
    match reply.end {
        End::Whole => {}
        End::Cut => return Verdict::TooLarge,
        End::Broken => return Verdict::Retry { cause: Cause::Broken, after: None },
    }
    match serde_json::from_slice::<Bulk>(reply.body) {
        Ok(Bulk { errors: true, .. }) => {}
        Ok(Bulk { errors: false, .. }) => return Verdict::Delivered { rejected: 0, message: None },
        Err(_) => return Verdict::Denied { status: reply.status },
    }
    let Ok(Items { items }) = serde_json::from_slice(reply.body) else {
        // Which records it is about is not known. What is there already stays as it is.
        return Verdict::Retry { cause: Cause::Status(reply.status), after: None };
    };
    let items: Vec<&Item> = items.iter().flat_map(BTreeMap::values).collect();
    // A conflict: the record is there already.
    let is_rejected = |item: &&&Item| !is_success(item.status) && item.status != 409;
    let failed: Vec<&Item> = items.iter().filter(is_rejected).copied().collect();
    let first = |is: fn(u16) -> bool| failed.iter().map(|item| item.status).find(|status| is(*status));
    if let Some(status) = first(|status| matches!(status, 408 | 429 | 501..)) {
        let after = retry_after(reply.headers, reply.now_unix);
        return Verdict::Retry { cause: Cause::Status(status), after };
    }
    if let Some(status) = first(is_about_configuration) {
        return Verdict::Denied { status };
    }
    if first(|status| status == 500).is_some() {
        return Verdict::ServerError { after: retry_after(reply.headers, reply.now_unix) };
    }
    let message = failed.first().and_then(|item| {
        let text = |name: &str| item.error.get(name).and_then(serde_json::Value::as_str);
        let told = [text("type"), text("reason")].into_iter().flatten().collect::<Vec<_>>().join(": ");
        answer::one_line(told.as_bytes())
    });
    let rejected = failed.len() as u64;
    let Some(Item { status, .. }) = failed.first() else {
        return Verdict::Delivered { rejected, message };
    };
    // "The result of each operation in the bulk request, in the order they were submitted."
    let taken = items.iter().take_while(|item| !is_rejected(item)).count();
    let refused = items.iter().skip(taken).take_while(is_rejected).count();
    let (taken, refused, items) = (taken as u64, refused as u64, items.len() as u64);
    Verdict::Sifted { taken, refused, rejected, items, status: *status, message }
}

/// What Loki says of single lines that it refused, in `pkg/validation/validate.go` and `pkg/chunkenc/interface.go`, in
/// lower case: versions differ in that.
const LINE_REFUSALS: [&str; 7] = [
    "timestamp too old",
    "timestamp too new",
    "entry too far behind",
    "entry out of order",
    "max entry size",
    "structured metadata too",
    "too many structured metadata labels",
];
/// A limit that is off by configuration: `allow_structured_metadata`.
const METADATA_DISALLOWED: &str = "feature is disallowed";

/// Loki's 400. `None` if it is about the request as a whole.
fn push(reply: &Reply<'_>) -> Option<Verdict> {
    let text = String::from_utf8_lossy(reply.body);
    if text.contains(METADATA_DISALLOWED) {
        return Some(Verdict::Denied { status: reply.status });
    }
    // The ingester counts what it ignores of a stream; the distributor counts errors of a kind, unless there is one.
    let ignored = text.split("total ignored: ").skip(1).filter_map(leading_number);
    let alike = text.match_indices(" errors like: ").filter_map(|(at, _)| trailing_number(text.get(..at)?));
    let counted: u64 = ignored.chain(alike).sum();
    let lower = text.to_ascii_lowercase();
    let is_of_lines = LINE_REFUSALS.iter().any(|refusal| lower.contains(refusal));
    (counted > 0 || is_of_lines)
        .then(|| Verdict::Delivered { rejected: counted.max(1), message: answer::one_line(text.as_bytes()) })
}

fn leading_number(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn trailing_number(text: &str) -> Option<u64> {
    text.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Codes with status 400 that are about the token rather than about the events: incorrect index, data channel missing or
/// invalid, acknowledgement disabled, authorization in the query not enabled.
const TOKEN_CODES: [u64; 5] = [7, 10, 11, 14, 16];

/// The 400 of Splunk's collector. `None` if it is about the events.
fn collector(reply: &Reply<'_>) -> Option<Verdict> {
    let answer = serde_json::from_slice::<serde_json::Value>(reply.body).ok()?;
    let code = answer.get("code")?.as_u64()?;
    TOKEN_CODES.contains(&code).then(|| {
        log::debug!("Splunk says {}", answer::refusal(reply.body));
        Verdict::Denied { status: reply.status }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(protocol: Protocol, status: u16, body: &str) -> Verdict {
        ended(protocol, status, body, End::Whole)
    }

    fn ended(protocol: Protocol, status: u16, body: &str, end: End) -> Verdict {
        let headers = HeaderMap::new();
        let now_unix = Duration::ZERO;
        judge(
            protocol,
            &Reply { status, headers: &headers, body: body.as_bytes(), end, gzip: true, now_unix },
        )
    }

    fn delivered(rejected: u64, message: &str) -> Verdict {
        let message = (!message.is_empty()).then(|| message.to_owned());
        Verdict::Delivered { rejected, message }
    }

    fn items(statuses: &[u16]) -> String {
        let item = |status: &u16| match status {
            201 => r#"{"create":{"status":201}}"#.to_owned(),
            _ => {
                format!(r#"{{"create":{{"status":{status},"error":{{"type":"t","reason":"r {status}"}}}}}}"#)
            }
        };
        let items: Vec<String> = statuses.iter().map(item).collect();
        format!(r#"{{"errors":true,"items":[{}]}}"#, items.join(","))
    }

    #[test]
    fn the_bulk_api_is_judged_by_its_items() {
        let bulk = |statuses: &[u16]| of(Protocol::Elasticsearch, 200, &items(statuses));
        let taken = r#"{"errors":false,"items":[{"create":{"status":201}}]}"#;
        assert_eq!(of(Protocol::Elasticsearch, 200, taken), delivered(0, ""));
        let sifted = |taken, refused, rejected, items| Verdict::Sifted {
            taken,
            refused,
            rejected,
            items,
            status: 400,
            message: Some("t: r 400".to_owned()),
        };
        assert_eq!(bulk(&[201, 400, 201, 400]), sifted(1, 1, 2, 4));
        assert_eq!(bulk(&[409, 201, 400]), sifted(2, 1, 1, 3));
        assert_eq!(bulk(&[400, 400, 409, 400]), sifted(0, 2, 3, 4), "a run, up to what is there");
        assert_eq!(bulk(&[201, 409]), delivered(0, ""), "a conflict is the record itself");
        let retry = Verdict::Retry { cause: Cause::Status(429), after: None };
        assert_eq!(bulk(&[201, 400, 429, 409]), retry, "what is refused is refused again");
        assert_eq!(bulk(&[503]), Verdict::Retry { cause: Cause::Status(503), after: None });
        assert_eq!(bulk(&[201, 403]), Verdict::Denied { status: 403 });
        assert_eq!(bulk(&[404, 404]), Verdict::Denied { status: 404 });
        assert_eq!(bulk(&[201, 500]), Verdict::ServerError { after: None });
    }

    #[test]
    fn an_answer_of_the_bulk_api_that_is_not_all_there_does_not_count() {
        let part = r#"{"errors":true,"items":[{"create":{"st"#;
        let ended = |end| ended(Protocol::Elasticsearch, 200, part, end);
        assert_eq!(ended(End::Cut), Verdict::TooLarge, "fewer records have a shorter answer");
        assert_eq!(ended(End::Broken), Verdict::Retry { cause: Cause::Broken, after: None });
        for other in ["<html>", "", "{}", r#"{"errors":"no"}"#, r#"{"items":[]}"#] {
            let denied = Verdict::Denied { status: 200 };
            assert_eq!(of(Protocol::Elasticsearch, 200, other), denied, "not the bulk API at all: {other}");
        }
        for unreadable in [r#"{"errors":true}"#, r#"{"errors":true,"items":[{"create":{"status":"x"}}]}"#] {
            let again = Verdict::Retry { cause: Cause::Status(200), after: None };
            assert_eq!(of(Protocol::Elasticsearch, 200, unreadable), again, "{unreadable}");
        }
        assert_eq!(deciding_bytes(Protocol::Elasticsearch, 200), Some(BULK_ANSWER_MAX_BYTES));
        assert_eq!(deciding_bytes(Protocol::Elasticsearch, 503), None);
        assert_eq!(deciding_bytes(Protocol::Otlp, 200), None);
    }

    #[test]
    fn what_loki_refuses_of_a_request_is_told_from_a_refused_request() {
        let loki = |body: &str| of(Protocol::Loki, 400, body);
        let behind = "entry with timestamp 2026-10-08 07:30:27 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-10-08T07:30:27Z, oldest acceptable timestamp is: 2026-10-08T08:00:00Z',\nuser 'fake', total ignored: 17 out of 20 for stream: {service_name=\"f\"}";
        let Verdict::Delivered { rejected: 17, message: Some(message) } = loki(behind) else { panic!() };
        assert!(message.starts_with("entry with timestamp"), "{message}");
        let long = "3 errors like: max entry size '262144' bytes exceeded for stream '{}' while adding an entry with length '300000' bytes";
        assert!(matches!(loki(long), Verdict::Delivered { rejected: 3, .. }));
        for alone in [
            "Max entry size '262144' bytes exceeded for stream '{}' while adding an entry with length '300000' bytes",
            "stream '{}' has too many structured metadata labels: '200', limit: '128'. Please see `limits_config.max_structured_metadata_entries_count`",
            "stream '{}' has structured metadata too large: '70000' bytes, limit: '65536' bytes",
        ] {
            assert!(matches!(loki(alone), Verdict::Delivered { rejected: 1, .. }), "{alone}");
        }
        let old = "entry for stream '{service_name=\"f\"}' has timestamp too old: 2026-10-01T00:00:00Z, oldest acceptable timestamp is: 2026-10-02T00:00:00Z";
        assert!(matches!(loki(old), Verdict::Delivered { rejected: 1, .. }));
        assert_eq!(
            loki("error parsing labels"),
            Verdict::Refused { status: 400, message: "error parsing labels".to_owned() }
        );
        let off = "stream '{}' includes structured metadata, but this feature is disallowed. Please see `limits_config.structured_metadata`";
        assert_eq!(loki(off), Verdict::Denied { status: 400 });
        assert_eq!(of(Protocol::Loki, 204, ""), delivered(0, ""));
    }

    #[test]
    fn a_token_that_is_set_up_otherwise_costs_no_events() {
        let hec = |body: &str| of(Protocol::SplunkHec, 400, body);
        for code in TOKEN_CODES {
            assert_eq!(hec(&format!(r#"{{"text":"x","code":{code}}}"#)), Verdict::Denied { status: 400 });
        }
        let invalid = r#"{"text":"Invalid data format","code":6,"invalid-event-number":3}"#;
        assert_eq!(hec(invalid), Verdict::Refused { status: 400, message: invalid.to_owned() });
        assert!(matches!(hec("nonsense"), Verdict::Refused { .. }));
        assert_eq!(
            of(Protocol::SplunkHec, 200, r#"{"text":"Success","code":0,"ackId":7}"#),
            delivered(0, "")
        );
        assert_eq!(
            of(Protocol::SplunkHec, 403, r#"{"text":"Invalid token","code":4}"#),
            Verdict::Denied { status: 403 }
        );
        let busy = r#"{"text":"Server is busy","code":9}"#;
        assert_eq!(
            of(Protocol::SplunkHec, 503, busy),
            Verdict::Retry { cause: Cause::Status(503), after: None }
        );
    }

    #[test]
    fn only_otlp_says_in_a_success_what_it_rejected() {
        let body = r#"{"partialSuccess":{"rejectedLogRecords":"3"}}"#;
        for protocol in Protocol::ALL.into_iter().filter(|protocol| *protocol != Protocol::Elasticsearch) {
            let rejected = if protocol.is_otlp() { 3 } else { 0 };
            assert_eq!(of(protocol, 202, body), delivered(rejected, ""), "{protocol:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_read_with_a_panic_and_content_is_given_up_only_on_a_4xx(
            protocol in prop::sample::select(Protocol::ALL.to_vec()),
            status in 100..600_u16,
            body in prop::collection::vec(any::<u8>(), 0..60),
            end in prop::sample::select(vec![End::Whole, End::Cut, End::Broken]),
        ) {
            let headers = HeaderMap::new();
            let reply = Reply { status, headers: &headers, body: &body, end, gzip: true, now_unix: Duration::ZERO };
            match judge(protocol, &reply) {
                Verdict::Refused { .. } | Verdict::GzipRefused => prop_assert!((400..500).contains(&status)),
                Verdict::Delivered { .. } | Verdict::Sifted { .. } => prop_assert!(is_success(status) || (protocol, status) == (Protocol::Loki, 400)),
                _ => {}
            }
        }
    }
}
