//! A scripted server for the tests of this module: raw bytes over TCP, so that no HTTP library smooths out what
//! the client is to be tried with.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What one accepted connection does.
pub(super) struct Script {
    steps: Vec<Step>,
    piece_bytes: usize,
}

enum Step {
    /// Reads a request, then writes these bytes.
    Answer(Vec<u8>),
    /// Reads a request, then does nothing until the client closes.
    Hang,
    /// Reads a request, then closes.
    Vanish,
}

/// Serves one script per connection, in order, and keeps what was asked.
pub(super) struct Server {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
    task: JoinHandle<()>,
}

/// An answer with these status and header lines and this body.
pub(super) fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Script {
    /// Answers a request with each of these in turn, then closes the connection.
    pub(super) fn answers<A: Into<Vec<u8>>>(answers: impl IntoIterator<Item = A>) -> Self {
        let steps = answers.into_iter().map(|answer| Step::Answer(answer.into())).collect();
        Self { steps, piece_bytes: usize::MAX }
    }

    /// Takes a request and never answers it.
    pub(super) fn hangs() -> Self {
        Self { steps: vec![Step::Hang], piece_bytes: usize::MAX }
    }

    /// Takes a request and closes the connection.
    pub(super) fn vanishes() -> Self {
        Self { steps: vec![Step::Vanish], piece_bytes: usize::MAX }
    }

    /// After these answers, takes another request and never answers it.
    pub(super) fn then_hangs(mut self) -> Self {
        self.steps.push(Step::Hang);
        self
    }

    /// After these answers, takes another request and closes the connection.
    pub(super) fn then_vanishes(mut self) -> Self {
        self.steps.push(Step::Vanish);
        self
    }

    /// Writes the answers in pieces of this many bytes.
    pub(super) fn in_pieces_of(mut self, bytes: usize) -> Self {
        self.piece_bytes = bytes;
        self
    }

    async fn play(self, mut stream: TcpStream, requests: &mpsc::UnboundedSender<String>) {
        stream.set_nodelay(true).unwrap();
        for step in self.steps {
            let Some(request) = read_request(&mut stream).await else { return };
            // The test may have stopped listening.
            drop(requests.send(request));
            match step {
                Step::Answer(bytes) => {
                    for piece in bytes.chunks(self.piece_bytes) {
                        // A client that has read enough closes; that is its right.
                        if stream.write_all(piece).await.is_err() {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                }
                Step::Hang => {
                    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "sent more while waiting");
                    return;
                }
                Step::Vanish => return,
            }
        }
    }
}

impl Server {
    pub(super) async fn start(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                script.play(stream, &sender).await;
            }
        });
        Self { address, requests, task }
    }

    /// `host:port`.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Waits for the next request.
    pub(super) async fn request(&mut self) -> String {
        self.requests.recv().await.unwrap()
    }

    /// How many requests arrived that nobody has waited for.
    pub(super) fn waiting_requests(&self) -> usize {
        self.requests.len()
    }

    /// Waits until every script is played, and returns what was asked.
    pub(super) async fn finish(mut self) -> Vec<String> {
        self.task.await.unwrap();
        let mut all = Vec::new();
        while let Some(request) = self.requests.recv().await {
            all.push(request);
        }
        all
    }
}

/// One request, head and body; `None` if the client closed instead.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if bytes.len() == end + 4 + length {
                return Some(String::from_utf8(bytes).unwrap());
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
