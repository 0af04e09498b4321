//! HTTP/1.1 by the byte: heads by `httparse`, bodies by length or in chunks (RFC 9112), answers written
//! whole or one byte at a time.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{script::Answer, tls::Identity};

/// As many headers as common servers take.
const HEADERS_MAX: usize = 100;
/// As long a head as common servers take, several times over.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// A chunk's size line, extensions included.
const CHUNK_LINE_MAX_BYTES: usize = 1024;
/// The longest body taken. Tests drain queues of 64 MiB, usually in requests of 1 MiB.
const BODY_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Room made for each read.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    #[error("connection closed inside a request")]
    Cut,
    #[error("malformed request: {0}")]
    Malformed(String),
}

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
}

/// The head of a request.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) framing: Framing,
    /// Whether the connection is to be kept after this request.
    pub(crate) keep_alive: bool,
    /// Whether the sender waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A body, or the news that reading stopped inside it as asked.
pub(crate) enum Read {
    Whole(Bytes),
    Stopped,
}

/// What bytes come and go through.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// One connection.
pub(crate) struct Io {
    stream: Box<dyn Wire>,
    buffer: BytesMut,
}

impl Io {
    /// A connection, with the TLS handshake done if there is to be one. `None`: the peer did not want it.
    pub(crate) async fn accept(stream: TcpStream, identity: Option<&Identity>) -> Option<Self> {
        let stream: Box<dyn Wire> = match identity {
            None => Box::new(stream),
            Some(Identity(config)) => {
                Box::new(TlsAcceptor::from(Arc::clone(config)).accept(stream).await.ok()?)
            }
        };
        Some(Self { stream, buffer: BytesMut::new() })
    }

    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Waits for the first byte of a request; false means the sender closed the connection instead.
    pub(crate) async fn more(&mut self) -> bool {
        !self.buffer.is_empty() || self.fill().await.unwrap_or(false)
    }

    /// Reads until the sender has gone. What it sends meanwhile is kept.
    pub(crate) async fn gone(&mut self) {
        while self.fill().await.unwrap_or(false) {}
    }

    pub(crate) async fn head(&mut self) -> Result<Head, HttpError> {
        loop {
            if let Some((head, length)) = parse(&self.buffer)? {
                let _head_bytes = self.buffer.split_to(length);
                return Ok(head);
            }
            if self.buffer.len() > HEAD_MAX_BYTES {
                return Err(HttpError::Malformed(format!("head longer than {HEAD_MAX_BYTES} bytes")));
            }
            if !self.fill().await? {
                return Err(HttpError::Cut);
            }
        }
    }

    /// Reads the body; with `stop_after`, no more than that many bytes of it.
    pub(crate) async fn body(&mut self, head: &Head, stop_after: Option<usize>) -> Result<Read, HttpError> {
        if head.expects_continue {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        match head.framing {
            Framing::Length(length) => {
                let wanted = stop_after.map_or(length, |stop| stop.min(length));
                let body = self.take(wanted).await?;
                Ok(if stop_after.is_some() { Read::Stopped } else { Read::Whole(body) })
            }
            Framing::Chunked => self.chunks(stop_after).await,
        }
    }

    async fn chunks(&mut self, stop_after: Option<usize>) -> Result<Read, HttpError> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16)
                .map_err(|_| HttpError::Malformed(format!("chunk size {digits:?}")))?;
            if body.len().saturating_add(size) > BODY_MAX_BYTES {
                return Err(HttpError::Malformed(format!("body longer than {BODY_MAX_BYTES} bytes")));
            }
            if size == 0 {
                while !self.line().await?.is_empty() {} // trailers
                return Ok(if stop_after.is_some() { Read::Stopped } else { Read::Whole(body.freeze()) });
            }
            if let Some(rest) = stop_after.map(|stop| stop.saturating_sub(body.len()))
                && rest <= size
            {
                self.take(rest).await?;
                return Ok(Read::Stopped);
            }
            body.extend_from_slice(&self.take(size).await?);
            if !self.line().await?.is_empty() {
                return Err(HttpError::Malformed("chunk longer than its size".to_owned()));
            }
        }
    }

    /// A line without its CR LF.
    async fn line(&mut self) -> Result<String, HttpError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end);
                let _line_end = self.buffer.split_to(2);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.buffer.len() > CHUNK_LINE_MAX_BYTES {
                return Err(HttpError::Malformed("chunk size line too long".to_owned()));
            }
            if !self.fill().await? {
                return Err(HttpError::Cut);
            }
        }
    }

    async fn take(&mut self, length: usize) -> Result<Bytes, HttpError> {
        while self.buffer.len() < length {
            if !self.fill().await? {
                return Err(HttpError::Cut);
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Writes an answer; with `pause`, one byte at a time with that pause after each.
    pub(crate) async fn answer(
        &mut self,
        answer: &Answer,
        keep_alive: bool,
        pause: Option<Duration>,
    ) -> io::Result<()> {
        let bytes = render(answer, keep_alive);
        match pause {
            None => self.write(&bytes).await,
            Some(pause) => {
                for byte in bytes {
                    self.write(&[byte]).await?;
                    sleep(pause).await;
                }
                Ok(())
            }
        }
    }

    /// Writes the first `bytes` of an answer that could be followed by more requests.
    pub(crate) async fn part(&mut self, answer: &Answer, bytes: usize) -> io::Result<()> {
        let rendered = render(answer, true);
        self.write(rendered.get(..bytes).unwrap_or(&rendered)).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Says that nothing more will be written, and reads what the sender still has to say, so that the
    /// answer is not destroyed by a reset for unread bytes (RFC 9112, 9.6).
    pub(crate) async fn close(mut self) {
        if self.stream.shutdown().await.is_ok() {
            self.gone().await;
        }
    }

    /// Drops the connection with RST instead of FIN.
    pub(crate) fn reset(self) {
        // Fails only on a socket that is closed already, and then there is nothing left to reset.
        if self.stream.socket().set_zero_linger().is_ok() {
            drop(self.stream);
        }
    }
}

/// A head and its length, or nothing while it is incomplete.
fn parse(buffer: &[u8]) -> Result<Option<(Head, usize)>, HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(HttpError::Malformed(error.to_string())),
    };
    let headers: Vec<_> = request
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned()))
        .collect();
    let http_1_1 = request.version == Some(1);
    let has = |name: &str, token: &str| {
        headers
            .iter()
            .filter(|(key, _)| key == name)
            .any(|(_, value)| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        framing: framing(&headers)?,
        keep_alive: if http_1_1 { !has("connection", "close") } else { has("connection", "keep-alive") },
        expects_continue: has("expect", "100-continue"),
        headers,
    };
    Ok(Some((head, length)))
}

/// RFC 9112, 6.3, without its leniency: two framings, or two lengths, are an error.
fn framing(headers: &[(String, String)]) -> Result<Framing, HttpError> {
    let values = |name: &'static str| {
        headers.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.trim())
    };
    let mut lengths = values("content-length");
    let mut encodings = values("transfer-encoding");
    match (lengths.next(), encodings.next()) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(length), None) if lengths.next().is_none() => match length.parse::<usize>() {
            Ok(length) if length <= BODY_MAX_BYTES => Ok(Framing::Length(length)),
            Ok(_) => Err(HttpError::Malformed(format!("body longer than {BODY_MAX_BYTES} bytes"))),
            Err(_) => Err(HttpError::Malformed(format!("content-length {length:?}"))),
        },
        (None, Some(encoding)) if encoding.eq_ignore_ascii_case("chunked") && encodings.next().is_none() => {
            Ok(Framing::Chunked)
        }
        _ => Err(HttpError::Malformed("content-length and transfer-encoding are ambiguous".to_owned())),
    }
}

fn render(answer: &Answer, keep_alive: bool) -> Vec<u8> {
    let Answer { status, headers, content_type, body } = answer;
    let fields: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    let persistence = if keep_alive { "" } else { "connection: close\r\n" };
    let head = format!(
        "HTTP/1.1 {status} {}\r\n{fields}{persistence}content-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        reason(*status),
        body.len(),
    );
    [head.as_bytes(), body].concat()
}

/// The reason phrase of the statuses scripts use; any other status goes without, as HTTP/1.1 allows.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<(Head, usize)>, HttpError> {
        parse(text.as_bytes())
    }

    #[test]
    fn a_head_is_complete_at_its_empty_line() {
        let text = "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        assert!(head(&text[..text.len() - 1]).unwrap().is_none());
        let (head, length) = head(text).unwrap().unwrap();
        assert_eq!((head.framing, length), (Framing::Length(3), text.len()));
        assert_eq!(head.header("host"), Some("x"));
        assert!(head.keep_alive);
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Content-Length: 3\r\nContent-Length: 3",
            "Content-Length: three",
            "Transfer-Encoding: gzip",
        ] {
            assert!(head(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")).is_err(), "{fields}");
        }
    }

    #[test]
    fn connection_persistence_follows_version_and_header() {
        let keep = |text: &str| head(text).unwrap().unwrap().0.keep_alive;
        assert!(!keep("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"));
        assert!(!keep("GET / HTTP/1.0\r\n\r\n"));
        assert!(keep("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }
}
