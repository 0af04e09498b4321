//! One request: what it asks for, and the answer it gets.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, EXPECT, HeaderName, HeaderValue, RETRY_AFTER,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::oneshot;

use super::body::{Memory, Refusal, discard};
use super::connection::Progress;
use super::limits::Limits;
use super::roster::Roster;
use super::server::Answers;
use super::watch::Phase;
use super::{Delivery, Inbox, Receipt};
use crate::clock;

/// What every connection needs to answer requests.
#[derive(Debug)]
pub(super) struct Desk<I> {
    pub(super) inbox: I,
    pub(super) limits: Limits,
    pub(super) memory: Memory,
    pub(super) roster: Arc<Roster>,
}

impl<I: Inbox> Answers for Desk<I> {
    const WHAT: &'static str = "telemetry";

    fn limits(&self) -> Limits {
        self.limits
    }

    fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    async fn answer(&self, request: Request<Incoming>, progress: &Progress) -> Response<Full<Bytes>> {
        progress.enter(Phase::Body);
        let (head, mut body) = request.into_parts();
        let outcome = match refusal(&head.method, &head.headers) {
            Some(status) => Err(status),
            None => self.memory.take(&mut body, &self.limits, progress).await.map_err(status_of),
        };
        let mut response = match outcome {
            Ok(bytes) => {
                progress.enter(Phase::Answering);
                self.plain(self.hand_over(bytes).await)
            }
            Err(status) => {
                // A sender that waits for "100 Continue" has sent nothing yet, and reading would invite it.
                let reusable = !head.headers.contains_key(EXPECT)
                    && discard(&mut body, &self.limits).await
                    && status != StatusCode::PAYLOAD_TOO_LARGE;
                let mut response = self.plain(status);
                if !reusable {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        };
        // A peer that has its next request ready would keep its place for ever.
        if self.roster.is_wanted() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        progress.enter(Phase::Replying);
        response
    }
}

impl<I: Inbox> Desk<I> {
    /// Passes the body on and waits for its receipt.
    async fn hand_over(&self, body: Bytes) -> StatusCode {
        let (reply, receipt) = oneshot::channel();
        let delivery = Delivery { body, received_unix_nanos: clock::unix_now_nanos(), reply };
        if self.inbox.deliver(delivery).await.is_err() {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        match receipt.await {
            Ok(Receipt::Kept | Receipt::Repeated | Receipt::Unreadable) => StatusCode::OK,
            Ok(Receipt::Full) | Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// An answer without a body, with the header that its status calls for.
    fn plain(&self, status: StatusCode) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        let header: Option<(HeaderName, HeaderValue)> = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, self.limits.retry_after_seconds.into())),
            StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, HeaderValue::from_static("POST"))),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Some((ACCEPT_ENCODING, HeaderValue::from_static("identity")))
            }
            _ => None,
        };
        response.headers_mut().extend(header);
        response
    }
}

/// Why a request is refused before its body is read. Its path is not looked at: some senders ignore the one
/// they were given.
fn refusal(method: &Method, headers: &HeaderMap) -> Option<StatusCode> {
    if method != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    // The Telemetry API does not compress, and bytes that we cannot read must not be answered 200.
    let plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|value| value.is_empty() || value.as_bytes().eq_ignore_ascii_case(b"identity"));
    (!plain).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

fn status_of(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::NoMemory => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Broken => StatusCode::BAD_REQUEST,
    }
}
