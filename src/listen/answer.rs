//! One request: what it asks for, and the answer it gets.

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
use super::server::{Answering, Answers};
use super::watch::Phase;
use super::{Delivery, Inbox, Receipt};
use crate::clock;

/// What every connection needs to answer requests.
#[derive(Debug)]
pub(super) struct Desk<I> {
    pub(super) inbox: I,
    pub(super) limits: Limits,
    pub(super) memory: Memory,
}

impl<I: Inbox> Answers for Desk<I> {
    fn what(&self) -> &'static str {
        "telemetry"
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn answer<'a>(&'a self, request: Request<Incoming>, progress: &'a Progress) -> Answering<'a> {
        Box::pin(async move {
            let (head, mut body) = request.into_parts();
            let outcome = match refusal(&head.method, &head.headers) {
                Some(status) => Err(status),
                None => self.memory.take(&mut body, &self.limits, progress).await.map_err(status_of),
            };
            match outcome {
                Ok(bytes) => {
                    progress.enter(Phase::Answering);
                    self.plain(self.hand_over(bytes).await)
                }
                Err(status) => refuse(self.plain(status), &head.headers, &mut body, &self.limits).await,
            }
        })
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
        response.headers_mut().extend(header_of(status, &self.limits, "identity"));
        response
    }
}

/// The header that a status calls for. `codings` are those that a body may have.
pub(super) fn header_of(
    status: StatusCode,
    limits: &Limits,
    codings: &'static str,
) -> Option<(HeaderName, HeaderValue)> {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, limits.retry_after_seconds.into())),
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, HeaderValue::from_static("POST"))),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Some((ACCEPT_ENCODING, HeaderValue::from_static(codings))),
        _ => None,
    }
}

/// Refuses a request with `response`. The connection may be used again if what is left of the body can be read.
pub(super) async fn refuse(
    mut response: Response<Full<Bytes>>,
    headers: &HeaderMap,
    body: &mut Incoming,
    limits: &Limits,
) -> Response<Full<Bytes>> {
    // A sender that waits for "100 Continue" has sent nothing yet, and reading would invite it.
    let reusable = !headers.contains_key(EXPECT)
        && discard(body, limits).await
        && response.status() != StatusCode::PAYLOAD_TOO_LARGE;
    if !reusable {
        close_after(&mut response);
    }
    response
}

/// Has the connection closed after `response`.
pub(super) fn close_after(response: &mut Response<Full<Bytes>>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
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
