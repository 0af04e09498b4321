//! The OTLP receiver: takes what the function's own SDK exports over OTLP/HTTP, and answers once it is kept.
//!
//! ```text
//! SDK ── POST /v1/traces ──> connection ── Export ──> the keeper
//!     <── 200 ──────────              <── Outcome ──
//! ```
//! Bodies are passed on as they came, compressed or not: inflating and reading them takes time, and this thread has
//! none. What can be told from the head of a request is answered here: another path (404), another method (405), a type
//! or coding that is not OTLP's (415), a body that is too long (413), no room for it now (503). An error's body is a
//! `google.rpc.Status`, in the media type of the request, as the OTLP specification wants it ("OTLP/HTTP Response").
//!
//! A 503 and a connection that breaks make an SDK try again, everything else does not.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::answer::{header_of, refuse};
use super::body::{Memory, Refusal};
use super::connection::Progress;
use super::limits::Limits;
use super::roster::Roster;
use super::server::{Answering, Answers, serve};
use super::watch::Phase;
use crate::encode::otlp::received::{Code, Media, REQUEST_MAX_BYTES};
use crate::{PerSignal, Signal, clock};

/// All bodies in memory, being read or waiting for their answer. One of the longest and as much again: SDKs send one at
/// a time, of a few hundred kilobytes at most, and are told to come again when there is no room.
const MEMORY_MAX_BYTES: usize = REQUEST_MAX_BYTES + REQUEST_MAX_BYTES / 2;

/// The room for a request's line and headers, and for what is read at a time. SDKs' headers have some 300 bytes, but
/// what is set for every exporter (credentials) comes along.
const HEAD_MAX_BYTES: usize = 32 << 10;

/// A request of the function's SDK, waiting for its [`Outcome`].
#[derive(Debug)]
pub struct Export {
    /// The signal its path names.
    pub signal: Signal,
    /// How it is written.
    pub media: Media,
    /// Whether it is compressed.
    pub gzip: bool,
    /// The body. Its memory counts against the receiver's until the last clone or slice of it is dropped.
    pub body: Bytes,
    /// The wall clock when the body was complete, in nanoseconds since the Unix epoch.
    pub received_unix_nanos: u64,
    /// Takes the outcome. Dropping it answers 503.
    pub reply: oneshot::Sender<Outcome>,
}

/// What became of an [`Export`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It would survive the end of this process, now or before. 200.
    Kept,
    /// It is no OTLP request, for this reason. 400.
    Refused(String),
    /// It is too long once inflated, or has too many records. 413.
    TooLong(String),
    /// It could be kept nowhere. 503 with `Retry-After`.
    Full,
}

/// A bound port that nobody answers yet.
#[derive(Debug)]
pub struct Receiver {
    socket: TcpListener,
    takes: PerSignal<bool>,
}

struct Desk {
    exports: mpsc::Sender<Export>,
    takes: PerSignal<bool>,
    limits: Limits,
    memory: Memory,
}

/// An answer that is not 200.
struct Problem {
    status: StatusCode,
    code: Code,
    text: String,
}

impl Receiver {
    /// Binds `address`. Requests for signals that it does not take are answered 404.
    ///
    /// # Errors
    /// Whatever the system says, usually that the port is taken.
    pub async fn bind(address: SocketAddr, takes: PerSignal<bool>) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, takes })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes exports until the future is dropped, which closes the port and every connection.
    pub async fn serve(self, exports: mpsc::Sender<Export>) -> Infallible {
        let limits = Limits {
            body_max_bytes: REQUEST_MAX_BYTES,
            discard_max_bytes: 2 * REQUEST_MAX_BYTES,
            memory_max_bytes: MEMORY_MAX_BYTES,
            head_max_bytes: HEAD_MAX_BYTES,
            ..Limits::default()
        };
        let roster = Arc::new(Roster::new(limits.max_connections));
        let memory = Memory::new(&limits, Arc::clone(&roster));
        serve(self.socket, Arc::new(Desk { exports, takes: self.takes, limits, memory }), roster).await
    }
}

impl Answers for Desk {
    fn what(&self) -> &'static str {
        "OTLP"
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn answer<'a>(&'a self, request: Request<Incoming>, progress: &'a Progress) -> Answering<'a> {
        Box::pin(async move {
            let (head, mut body) = request.into_parts();
            // Whoever sent neither is most likely a person.
            let media = media_of(&head).unwrap_or(Media::Json);
            let asked = self.asked(&head);
            let taken = match asked {
                Ok(asked) => match self.memory.take(&mut body, &self.limits, progress).await {
                    Ok(bytes) => Ok((asked, bytes)),
                    Err(refusal) => Err(problem_of(refusal)),
                },
                Err(problem) => Err(problem),
            };
            match taken {
                Ok(((signal, media, gzip), bytes)) => {
                    progress.enter(Phase::Answering);
                    match self.hand_over(signal, media, gzip, bytes).await {
                        Ok(()) => respond(StatusCode::OK, media, media.accepted().into()),
                        Err(problem) => self.respond_to(&problem, media),
                    }
                }
                Err(problem) => {
                    refuse(self.respond_to(&problem, media), &head.headers, &mut body, &self.limits).await
                }
            }
        })
    }
}

impl Desk {
    /// What the head of a request asks for: signal, media type, and whether the body is gzip.
    fn asked(&self, head: &Parts) -> Result<(Signal, Media, bool), Problem> {
        let path = head.uri.path();
        let signal = Signal::ALL.into_iter().find(|signal| path.strip_prefix("/v1/") == Some(signal.name()));
        let Some(signal) = signal else {
            let text = "only /v1/logs, /v1/metrics and /v1/traces are here".to_owned();
            return Err(Problem { status: StatusCode::NOT_FOUND, code: Code::Unimplemented, text });
        };
        if head.method != Method::POST {
            let text = "only POST is taken".to_owned();
            return Err(Problem { status: StatusCode::METHOD_NOT_ALLOWED, code: Code::Unimplemented, text });
        }
        if !self.takes.get(signal) {
            let text = format!("there is nowhere to send {signal} to");
            return Err(Problem { status: StatusCode::NOT_FOUND, code: Code::Unimplemented, text });
        }
        let unsupported =
            |text| Problem { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, code: Code::InvalidArgument, text };
        let media = media_of(head).ok_or_else(|| {
            unsupported("Content-Type must be application/x-protobuf or application/json".to_owned())
        })?;
        let mut gzip = false;
        for coding in head.headers.get_all(CONTENT_ENCODING) {
            match coding.as_bytes() {
                [] => {}
                name if name.eq_ignore_ascii_case(b"identity") => {}
                name if name.eq_ignore_ascii_case(b"gzip") && !gzip => gzip = true,
                _ => return Err(unsupported("Content-Encoding must be gzip or identity".to_owned())),
            }
        }
        Ok((signal, media, gzip))
    }

    async fn hand_over(&self, signal: Signal, media: Media, gzip: bool, body: Bytes) -> Result<(), Problem> {
        let (reply, outcome) = oneshot::channel();
        let export =
            Export { signal, media, gzip, body, received_unix_nanos: clock::unix_now_nanos(), reply };
        if self.exports.send(export).await.is_err() {
            return Err(unavailable());
        }
        let (status, code, text) = match outcome.await {
            Ok(Outcome::Kept) => return Ok(()),
            Ok(Outcome::Refused(text)) => (StatusCode::BAD_REQUEST, Code::InvalidArgument, text),
            Ok(Outcome::TooLong(text)) => (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, text),
            Ok(Outcome::Full) | Err(_) => return Err(unavailable()),
        };
        Err(Problem { status, code, text })
    }

    /// An answer that says what is wrong, with the header that its status calls for.
    fn respond_to(&self, problem: &Problem, media: Media) -> Response<Full<Bytes>> {
        let body = media.status(problem.code, &problem.text);
        let mut response = respond(problem.status, media, body.into());
        response.headers_mut().extend(header_of(problem.status, &self.limits, "gzip, identity"));
        response
    }
}

fn media_of(head: &Parts) -> Option<Media> {
    Media::of_content_type(head.headers.get(CONTENT_TYPE)?.to_str().ok()?)
}

fn unavailable() -> Problem {
    let text = "there is no room at the moment".to_owned();
    Problem { status: StatusCode::SERVICE_UNAVAILABLE, code: Code::Unavailable, text }
}

fn problem_of(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NoMemory => unavailable(),
        Refusal::TooLong => Problem {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: Code::ResourceExhausted,
            text: format!("a body has at most {REQUEST_MAX_BYTES} bytes"),
        },
        Refusal::Broken => Problem {
            status: StatusCode::BAD_REQUEST,
            code: Code::InvalidArgument,
            text: "the body is cut off".to_owned(),
        },
    }
}

fn respond(status: StatusCode, media: Media, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
    response
}

#[cfg(test)]
mod tests;
