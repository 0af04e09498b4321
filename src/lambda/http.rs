//! One connection to the Runtime API, kept alive between calls.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::endpoint::Endpoint;
use super::error::LambdaError;

/// The longest answer that is read. Real ones have a few hundred bytes, so this says only that whatever
/// answers cannot take the function's memory.
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// How long opening a connection may take. The API is on the same machine and accepts within microseconds; a
/// connection that hangs has asked Lambda nothing yet, so giving up on it and trying again is safe.
const CONNECT_TIMEOUT_MS: u64 = 1_000;
/// How much of an answer that is not an error document is shown in a log line.
const EXCERPT_MAX_CHARS: usize = 200;

/// Sends calls, one at a time.
#[derive(Debug)]
pub(super) struct Client {
    endpoint: Endpoint,
    connection: Option<Connection>,
}

/// A call to make.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// What errors call it.
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// From the slash on, without the endpoint's prefix.
    pub(super) path: &'static str,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The task that moves the bytes; it ends with this.
    driver: AbortHandle,
}

// === impl Client ===

impl Client {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connection: None }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes `call`, without any limit of time on the answer.
    ///
    /// The connection of the last call is used again if it still stands. A call that could not be written to
    /// it at all is made on a new one at once; a call that may have arrived is never repeated here.
    /// Dropping the future drops the connection with the call that is open on it.
    pub(super) async fn call(&mut self, call: &Call) -> Result<Answer, LambdaError> {
        let mut request = self.request(call)?;
        if let Some(mut connection) = self.connection.take()
            && connection.sender.ready().await.is_ok()
        {
            match connection.sender.try_send_request(request).await {
                Ok(response) => return self.finish(call, connection, response).await,
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(LambdaError::Http { call: call.name, source: failure.into_error() }),
                },
            }
        }
        let mut connection = self.connect(call).await?;
        let response = connection
            .sender
            .send_request(request)
            .await
            .map_err(|source| LambdaError::Http { call: call.name, source })?;
        self.finish(call, connection, response).await
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, LambdaError> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.endpoint.prefix, call.path))
            .header(HOST, &self.endpoint.authority)
            .body(Full::new(call.body.clone()))
            .map_err(|_| LambdaError::Header { what: "the API's host" })?;
        for (name, value) in &call.headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }

    async fn connect(&self, call: &Call) -> Result<Connection, LambdaError> {
        let limit = Duration::from_millis(CONNECT_TIMEOUT_MS);
        let stream = timeout(limit, TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port)))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            // Requests are small and alone; Nagle's algorithm could only delay them.
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| LambdaError::Connect { address: self.endpoint.authority.clone(), source })?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| LambdaError::Http { call: call.name, source })?;
        let driver = tokio::spawn(async move {
            // The caller of the request in flight gets the same error.
            if let Err(error) = driver.await {
                log::debug!("connection to the runtime API: {error}");
            }
        });
        Ok(Connection { sender, driver: driver.abort_handle() })
    }

    /// Reads the answer to its end, and keeps the connection if that succeeds.
    async fn finish(
        &mut self,
        call: &Call,
        connection: Connection,
        response: hyper::Response<hyper::body::Incoming>,
    ) -> Result<Answer, LambdaError> {
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX_BYTES)
            .collect()
            .await
            .map_err(|error| LambdaError::Body { call: call.name, reason: error.to_string() })?
            .to_bytes();
        self.connection = Some(connection);
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

// === impl Call ===

impl Call {
    /// Adds a header. `what` names the value in the error that is returned if no header can carry it.
    pub(super) fn header(
        mut self,
        name: &'static str,
        value: &str,
        what: &'static str,
    ) -> Result<Self, LambdaError> {
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| LambdaError::Header { what })?;
        self.headers.push((HeaderName::from_static(name), value));
        Ok(self)
    }
}

// === impl Answer ===

impl Answer {
    /// The answer as an error: `{"errorType":…,"errorMessage":…}` where it is one, else its first words.
    pub(super) fn refusal(&self, call: &'static str) -> LambdaError {
        let document: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let field = |name: &str| document.get(name).and_then(Value::as_str).map(str::to_owned);
        LambdaError::Refused {
            call,
            status: self.status.as_u16(),
            error_type: field("errorType").unwrap_or_default(),
            message: field("errorMessage").unwrap_or_else(|| {
                String::from_utf8_lossy(&self.body).chars().take(EXCERPT_MAX_CHARS).collect()
            }),
        }
    }
}
