//! Indexer acknowledgement of Splunk's collector ("About HTTP Event Collector Indexer Acknowledgment":
//! <https://help.splunk.com/splunk-enterprise/get-data-in/collect-http-event-data/about-http-event-collector-indexer-acknowledgment>).
//!
//! An answer of success says that events have come, not that they are indexed. With a channel among the headers and a token
//! that acknowledges, it names an `ackId`, which is asked about until the collector says true; only that is a delivery.
//! Splunk says true once and then forgets, and says false of what it does not know.
//!
//! Whoever decides about time drops the future. So ids are remembered by the idempotency key, and before a request goes
//! again it is asked what became of it the last time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value as Json;

use super::client::{ANSWER_BODY_MAX_BYTES, Client, Outgoing};
use super::secrets::Headers;
use super::verdict::{Cause, Verdict, is_about_configuration};
use crate::clock;
use crate::encode::Protocol;

/// Asks for acknowledgement, and names what ids belong to.
const CHANNEL: HeaderName = HeaderName::from_static("x-splunk-request-channel");

/// How long a request with acknowledgement may take unless the user says otherwise, in seconds: indexing alone may take
/// several, and a request that is given up too early goes again for nothing.
pub const ACKNOWLEDGED_TIMEOUT_S: u64 = 30;

/// The first question comes after this many milliseconds, each further one after twice the pause, up to the second number.
/// Splunk has an answer once its pipeline has written to disk, which takes tenths of a second at least.
const ASK_AFTER_MS: (u64, u64) = (50, 2_000);
/// One question may take this long, in milliseconds: after that it is asked again.
const ASK_MAX_MS: u64 = 2_000;

/// Ids that are remembered: one request is in flight at a time, and of its attempts the last few may still be indexed.
const KEPT_MAX: usize = 8;

/// Whether requests with these headers are acknowledged.
pub fn is_acknowledged(protocol: Protocol, headers: &Headers) -> bool {
    protocol == Protocol::SplunkHec
        && (headers.fixed.contains_key(CHANNEL)
            || headers.secret.iter().any(|header| *header.name() == CHANNEL))
}

/// Ids whose state is not known yet, each with the key of its request, oldest first.
#[derive(Debug, Default)]
pub(super) struct Acks(Mutex<Vec<(String, u64)>>);

impl Acks {
    fn kept(&self) -> MutexGuard<'_, Vec<(String, u64)>> {
        // The list is whole between any two calls of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, key: &str) -> Vec<u64> {
        self.kept().iter().filter(|(known, _)| known == key).map(|(_, id)| *id).collect()
    }

    fn keep(&self, key: &str, id: u64) {
        let mut kept = self.kept();
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push((key.to_owned(), id));
    }

    fn forget(&self, key: &str) {
        self.kept().retain(|(known, _)| known != key);
    }
}

/// The id that an answer names, if any: a token that does not acknowledge names none.
pub(super) fn id(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Json>(body).ok()?.get("ackId")?.as_u64()
}

/// Whether the answer to a question says of any id that it is indexed.
fn is_indexed(answer: &[u8]) -> bool {
    let answer = serde_json::from_slice::<Json>(answer).unwrap_or_default();
    let states = answer.get("acks").and_then(Json::as_object);
    states.is_some_and(|states| states.values().any(|state| *state == Json::Bool(true)))
}

/// Where questions about requests to `url` go; `None` if nothing is to be acknowledged.
pub(super) fn address(outgoing: &Outgoing<'_>) -> Option<Url> {
    const COLLECTOR: &str = "/collector";
    let channel = outgoing.headers.get(CHANNEL).filter(|_| outgoing.protocol == Protocol::SplunkHec)?;
    let mut url = outgoing.url.clone();
    let base = url.path().split_once(COLLECTOR).map_or("/services", |(before, _)| before);
    let path = format!("{base}{COLLECTOR}/ack");
    url.set_path(&path);
    url.query_pairs_mut().append_pair("channel", channel.to_str().ok()?);
    Some(url)
}

impl Client {
    /// Makes one attempt, and waits until it is acknowledged. It ends by itself only with an answer that settles it.
    pub(super) async fn send_acknowledged(&self, address: &Url, outgoing: Outgoing<'_>) -> Verdict {
        let (key, headers) = (outgoing.idempotency_key, outgoing.headers);
        let pending = self.acks.of(key);
        if !pending.is_empty()
            && let Some(verdict) = self.asked(address, headers, key, &pending).await
        {
            return verdict;
        }
        let mut ack = None;
        let verdict = self.post(outgoing.clone(), Some(&mut ack)).await;
        let Some(id) = ack else { return verdict };
        self.acks.keep(key, id);
        let mut pause = ASK_AFTER_MS.0;
        loop {
            clock::sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(ASK_AFTER_MS.1);
            if let Some(verdict) = self.asked(address, headers, key, &self.acks.of(key)).await {
                return verdict;
            }
        }
    }

    /// What becomes of the request that has these ids; `None` if that is not known yet.
    async fn asked(&self, address: &Url, headers: &HeaderMap, key: &str, ids: &[u64]) -> Option<Verdict> {
        let mut headers = headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let question = Bytes::from(format!("{{\"acks\":{ids:?}}}"));
        let exchange = self.exchange(Method::POST, address.clone(), headers, question, ANSWER_BODY_MAX_BYTES);
        let answer = tokio::time::timeout(Duration::from_millis(ASK_MAX_MS), exchange).await;
        match answer {
            Ok(Ok((200, body))) => {
                if !is_indexed(&body) {
                    return None;
                }
                self.acks.forget(key);
                Some(Verdict::Delivered { rejected: 0, message: None })
            }
            // 400: the token does not acknowledge after all, or the channel is not one (codes 10, 11, 14).
            Ok(Ok((status, _))) if status == 400 || is_about_configuration(status) => {
                Some(Verdict::Denied { status })
            }
            Ok(Ok((status, _))) => {
                log::debug!("no word on the acknowledgement: {}", Cause::Status(status));
                None
            }
            Ok(Err(reason)) => {
                log::debug!("no word on the acknowledgement: {reason}");
                None
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_backend::{Backend, Dialect, Indexing};

    const EVENTS: &[u8] = b"{\"event\":\"a\",\"fields\":{\"log.record.uid\":\"u-1\"}}\n";

    fn headers() -> HeaderMap {
        HeaderMap::from_iter([
            (CHANNEL, HeaderValue::from_static("c-1")),
            (reqwest::header::AUTHORIZATION, HeaderValue::from_static("Splunk key")),
        ])
    }

    fn outgoing<'a>(url: &'a Url, headers: &'a HeaderMap) -> Outgoing<'a> {
        Outgoing {
            url,
            headers,
            protocol: Protocol::SplunkHec,
            content_type: "application/json",
            gzip: false,
            body: Bytes::from_static(EVENTS),
            idempotency_key: "key-1",
        }
    }

    #[test]
    fn questions_go_beside_the_events_with_the_channel() {
        let headers = headers();
        for (events, questions) in [
            ("https://s:8088/services/collector/event", "https://s:8088/services/collector/ack?channel=c-1"),
            ("https://s/x/services/collector?a=b", "https://s/x/services/collector/ack?a=b&channel=c-1"),
            ("https://s/hec", "https://s/services/collector/ack?channel=c-1"),
        ] {
            let url: Url = events.parse().unwrap();
            assert_eq!(address(&outgoing(&url, &headers)).unwrap().as_str(), questions);
            assert_eq!(address(&outgoing(&url, &HeaderMap::new())), None);
            let other = Outgoing { protocol: Protocol::Ndjson, ..outgoing(&url, &headers) };
            assert_eq!(address(&other), None);
        }
    }

    /// A request that was given up before it was acknowledged does not go again if it is acknowledged by then.
    #[tokio::test]
    async fn before_a_request_goes_again_it_is_asked_after() {
        let backend = Backend::builder().dialect(Dialect::SplunkHecAck).start().unwrap();
        let url: Url = format!("{}/services/collector/event", backend.url()).parse().unwrap();
        let client = Client::new(std::slice::from_ref(&url), Duration::from_secs(30));
        let headers = headers();
        backend.index(Indexing::Never);
        let given_up =
            tokio::time::timeout(Duration::from_millis(400), client.send(outgoing(&url, &headers)));
        assert!(given_up.await.is_err(), "never acknowledged");
        assert_eq!(client.acks.of("key-1").len(), 1);
        backend.index(Indexing::AtOnce);
        let delivered = Verdict::Delivered { rejected: 0, message: None };
        assert_eq!(client.send(outgoing(&url, &headers)).await, delivered);
        assert_eq!(backend.requests().len(), 1, "it went once");
        assert!(client.acks.of("key-1").is_empty());
        assert_eq!(client.send(outgoing(&url, &headers)).await, delivered);
        assert_eq!(backend.requests().len(), 2, "what was settled is settled");
    }

    #[tokio::test]
    async fn a_token_that_does_not_acknowledge_is_taken_at_its_word() {
        let backend = Backend::builder().dialect(Dialect::SplunkHec).start().unwrap();
        let url: Url = format!("{}/services/collector/event", backend.url()).parse().unwrap();
        let client = Client::new(std::slice::from_ref(&url), Duration::from_secs(30));
        let verdict = client.send(outgoing(&url, &headers())).await;
        assert_eq!(verdict, Verdict::Delivered { rejected: 0, message: None });
    }

    #[test]
    fn only_true_is_an_acknowledgement() {
        assert!(is_indexed(br#"{"acks":{"1":false,"2":true}}"#));
        for answer in
            [r#"{"acks":{"1":false}}"#, r#"{"acks":{"1":"true"}}"#, r#"{"acks":[true]}"#, "{}", "<html>", ""]
        {
            assert!(!is_indexed(answer.as_bytes()), "{answer}");
        }
        assert_eq!(id(br#"{"text":"Success","code":0,"ackId":7}"#), Some(7));
        assert_eq!(id(br#"{"text":"Success","code":0}"#), None);
    }

    #[test]
    fn few_ids_are_remembered() {
        let acks = Acks::default();
        (0..20).for_each(|id| acks.keep(if id % 2 == 0 { "even" } else { "odd" }, id));
        assert_eq!(acks.of("even"), [12, 14, 16, 18]);
        acks.forget("even");
        assert_eq!((acks.of("even").len(), acks.of("odd").len()), (0, 4));
    }
}
