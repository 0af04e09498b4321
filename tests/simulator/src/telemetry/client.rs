//! The HTTP client that posts telemetry. Written on a plain socket, because tests need what a client library hides:
//! pieces of one byte, an answer left unread, the moment at which the answer is read.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::options::Manner;
use crate::subscription::Destination;

/// Longest head or body of an answer that is read; an extension answers with a few bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Status(u16),
    /// The extension has answered; nobody read it.
    Unread,
}

/// A client of one destination, with at most one kept-alive connection.
#[derive(Debug)]
pub(crate) struct Client {
    destination: Destination,
    idle: Option<TcpStream>,
}

impl Client {
    pub(crate) fn new(destination: Destination) -> Self {
        Self { destination, idle: None }
    }

    /// Posts a body. A kept connection that turns out to be dead before any answer is replaced once.
    pub(crate) async fn post(
        &mut self,
        body: &[u8],
        manner: Manner,
        leave_unread: bool,
    ) -> io::Result<Reply> {
        let kept = self.idle.take().filter(|_| !manner.close_each);
        if let Some(stream) = kept
            && let Ok(reply) = self.exchange(stream, body, manner, leave_unread).await
        {
            return Ok(reply);
        }
        let (Destination::Http { port, .. } | Destination::Tcp { port }) = self.destination;
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        self.exchange(stream, body, manner, leave_unread).await
    }

    async fn exchange(
        &mut self,
        mut stream: TcpStream,
        body: &[u8],
        manner: Manner,
        leave_unread: bool,
    ) -> io::Result<Reply> {
        let Destination::Http { host, path, .. } = &self.destination else {
            return self.write_lines(stream, body, manner).await;
        };
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        write(&mut stream, &request, manner).await?;
        if !manner.read_after.is_zero() {
            tokio::time::sleep(manner.read_after).await;
        }
        if leave_unread {
            stream.readable().await?;
            return Ok(Reply::Unread);
        }
        let (status, reusable) = read_answer(&mut stream).await?;
        if reusable && !manner.close_each {
            self.idle = Some(stream);
        }
        Ok(Reply::Status(status))
    }

    /// TCP destinations take one event per line and acknowledge nothing beyond TCP itself.
    async fn write_lines(&mut self, mut stream: TcpStream, body: &[u8], manner: Manner) -> io::Result<Reply> {
        let mut lines = Vec::with_capacity(body.len());
        if let Ok(events) = serde_json::from_slice::<Vec<Box<serde_json::value::RawValue>>>(body) {
            for event in events {
                lines.extend_from_slice(event.get().as_bytes());
                lines.push(b'\n');
            }
        } else {
            lines.extend_from_slice(body);
            lines.push(b'\n');
        }
        write(&mut stream, &lines, manner).await?;
        self.idle = Some(stream);
        Ok(Reply::Status(200))
    }
}

async fn write(stream: &mut TcpStream, bytes: &[u8], manner: Manner) -> io::Result<()> {
    let Some((size, pause)) = manner.pieces else {
        return stream.write_all(bytes).await;
    };
    for piece in bytes.chunks(size.max(1)) {
        stream.write_all(piece).await?;
        if pause > Duration::ZERO {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

/// Reads one answer; returns its status and whether the connection can be used again.
async fn read_answer(stream: &mut TcpStream) -> io::Result<(u16, bool)> {
    let mut bytes = Vec::with_capacity(512);
    let head_end = loop {
        if let Some(at) = find(&bytes, b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, &mut bytes).await?;
    };
    let head = String::from_utf8_lossy(bytes.get(..head_end).unwrap_or_default()).to_ascii_lowercase();
    let status = head
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no status line"))?;
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim).map(str::to_owned))
    };
    let closing = field("connection").is_some_and(|value| value == "close");
    let chunked = field("transfer-encoding").is_some_and(|value| value.ends_with("chunked"));
    let length: usize = field("content-length").and_then(|value| value.parse().ok()).unwrap_or_default();
    if chunked {
        while find(bytes.get(head_end.saturating_sub(2)..).unwrap_or_default(), b"\r\n0\r\n\r\n").is_none() {
            read_more(stream, &mut bytes).await?;
        }
    } else {
        while bytes.len() < head_end + length {
            read_more(stream, &mut bytes).await?;
        }
    }
    Ok((status, !closing))
}

async fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    if bytes.len() > ANSWER_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "answer too long"));
    }
    if stream.read_buf(bytes).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
