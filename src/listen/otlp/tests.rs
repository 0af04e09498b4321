//! The receiver over raw TCP: what an SDK may send, and what it gets.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

/// How long a test that waits for what never comes hangs before it fails.
const HANG: Duration = Duration::from_secs(20);

async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, wait).await.expect("what was waited for never came")
}

struct Running {
    port: u16,
    exports: mpsc::Receiver<Export>,
    server: JoinHandle<Infallible>,
}

/// An answer: its status, its head in lower case, its body.
struct Answered {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Running {
    async fn new() -> Self {
        Self::taking(PerSignal::from_fn(|_| true)).await
    }

    async fn taking(takes: PerSignal<bool>) -> Self {
        let receiver = Receiver::bind((Ipv4Addr::LOCALHOST, 0).into(), takes).await.unwrap();
        let port = receiver.address().unwrap().port();
        let (inbox, exports) = mpsc::channel(4);
        Self { port, exports, server: tokio::spawn(receiver.serve(inbox)) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap()
    }

    /// Sends a request, has `outcome` said of it if it gets so far, and returns the answer.
    async fn post(&mut self, path: &str, headers: &str, body: &[u8], outcome: Outcome) -> Answered {
        let mut peer = self.connect().await;
        peer.write_all(&post(path, headers, body)).await.unwrap();
        let answered = answer(&mut peer);
        let mut answered = std::pin::pin!(answered);
        loop {
            tokio::select! {
                answered = &mut answered => return answered,
                Some(export) = self.exports.recv() => export.reply.send(outcome.clone()).unwrap(),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

const PROTOBUF: &str = "content-type: application/x-protobuf\r\n";
const JSON: &str = "content-type: application/json; charset=utf-8\r\n";

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn answer(peer: &mut TcpStream) -> Answered {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(in_time(peer.read_u8()).await.unwrap()));
    }
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    in_time(peer.read_exact(&mut body)).await.unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answered { status, head, body }
}

#[tokio::test]
async fn what_is_kept_is_answered_200_in_the_requests_own_type() {
    let mut running = Running::new().await;
    for path in ["/v1/traces", "/v1/metrics", "/v1/logs?x=1"] {
        let answered = running.post(path, PROTOBUF, b"x", Outcome::Kept).await;
        assert_eq!((answered.status, answered.body), (200, Vec::new()), "{path}");
        assert!(answered.head.contains("content-type: application/x-protobuf\r\n"), "{}", answered.head);
        let answered = running.post(path, JSON, b"{}", Outcome::Kept).await;
        assert_eq!((answered.status, answered.body), (200, b"{}".to_vec()), "{path}");
        assert!(answered.head.contains("content-type: application/json\r\n"), "{}", answered.head);
    }
}

#[tokio::test]
async fn an_export_says_what_the_request_said() {
    let mut running = Running::new().await;
    for (path, headers, signal, media, gzip) in [
        ("/v1/traces", PROTOBUF.to_owned(), Signal::Traces, Media::Protobuf, false),
        ("/v1/logs", format!("{JSON}content-encoding: gzip\r\n"), Signal::Logs, Media::Json, true),
        (
            "/v1/metrics",
            format!("{PROTOBUF}content-encoding: identity\r\n"),
            Signal::Metrics,
            Media::Protobuf,
            false,
        ),
    ] {
        let mut peer = running.connect().await;
        peer.write_all(&post(path, &headers, b"body")).await.unwrap();
        let export = in_time(running.exports.recv()).await.unwrap();
        assert_eq!((export.signal, export.media, export.gzip), (signal, media, gzip));
        assert_eq!(export.body, "body");
        drop(export.reply);
        let answered = answer(&mut peer).await;
        assert_eq!(answered.status, 503, "nobody said that it is kept");
        assert!(answered.head.contains("retry-after: 1\r\n"), "{}", answered.head);
    }
}

#[tokio::test]
async fn what_is_not_kept_is_answered_with_a_status_that_says_why() {
    let mut running = Running::new().await;
    for (outcome, status, code) in [
        (Outcome::Refused("because".into()), 400, 3),
        (Outcome::TooLong("because".into()), 413, 8),
        (Outcome::Full, 503, 14_u8),
    ] {
        let answered = running.post("/v1/logs", JSON, b"{}", outcome.clone()).await;
        assert_eq!(answered.status, status);
        let said: serde_json::Value = serde_json::from_slice(&answered.body).unwrap();
        assert_eq!(said["code"], code);
        assert!(status == 503 || said["message"] == "because", "{said}");
        assert_eq!(answered.head.contains("retry-after"), status == 503);
        let answered = running.post("/v1/logs", PROTOBUF, b"x", outcome).await;
        assert_eq!((answered.status, &answered.body[..2]), (status, &[8, code][..]));
        assert!(answered.head.contains("content-type: application/x-protobuf\r\n"), "{}", answered.head);
    }
}

#[tokio::test]
async fn what_is_no_request_of_otlp_is_refused_without_a_look_at_its_body() {
    let mut running = Running::new().await;
    let gzip_twice = format!("{JSON}content-encoding: gzip\r\ncontent-encoding: gzip\r\n");
    let deflate = format!("{JSON}content-encoding: deflate\r\n");
    for (path, headers, status) in [
        ("/", JSON, 404),
        ("/v1/profiles", JSON, 404),
        ("/v1/traces/", JSON, 404),
        ("/v1/traces", "content-type: text/plain\r\n", 415),
        ("/v1/traces", "", 415),
        ("/v1/traces", gzip_twice.as_str(), 415),
        ("/v1/traces", deflate.as_str(), 415),
    ] {
        let answered = running.post(path, headers, b"{}", Outcome::Kept).await;
        assert_eq!(answered.status, status, "{path} {headers}");
        let said: serde_json::Value = serde_json::from_slice(&answered.body).unwrap();
        assert!(said["message"].is_string());
    }
    let mut peer = running.connect().await;
    peer.write_all(b"GET /v1/traces HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answered = answer(&mut peer).await;
    assert_eq!(answered.status, 405);
    assert!(answered.head.contains("allow: post\r\n"), "{}", answered.head);
    // The connection is still good.
    peer.write_all(&post("/v1/traces", PROTOBUF, b"x")).await.unwrap();
    assert!(in_time(running.exports.recv()).await.is_some());
}

#[tokio::test]
async fn a_signal_that_has_nowhere_to_go_is_not_taken() {
    let mut running = Running::taking(PerSignal::from_fn(|signal| signal != Signal::Metrics)).await;
    let answered = running.post("/v1/metrics", JSON, b"{}", Outcome::Kept).await;
    assert_eq!(answered.status, 404);
    assert!(String::from_utf8_lossy(&answered.body).contains("nowhere to send metrics"));
    assert_eq!(running.post("/v1/logs", JSON, b"{}", Outcome::Kept).await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let mut running = Running::new().await;
    let mut peer = running.connect().await;
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: x\r\n{JSON}expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        REQUEST_MAX_BYTES + 1
    );
    peer.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(answer(&mut peer).await.status, 413);
    assert!(running.exports.try_recv().is_err());
}

#[tokio::test]
async fn when_all_memory_is_taken_the_sender_is_told_to_come_again() {
    let mut running = Running::new().await;
    let body = vec![b'x'; REQUEST_MAX_BYTES];
    let mut first = running.connect().await;
    first.write_all(&post("/v1/logs", PROTOBUF, &body)).await.unwrap();
    let held = in_time(running.exports.recv()).await.unwrap();
    let answered = running.post("/v1/logs", PROTOBUF, &body, Outcome::Kept).await;
    assert_eq!(answered.status, 503);
    assert!(answered.head.contains("retry-after: 1\r\n"), "{}", answered.head);
    // Short ones still fit, and long ones do once the first is done with.
    assert_eq!(running.post("/v1/logs", PROTOBUF, b"short", Outcome::Kept).await.status, 200);
    held.reply.send(Outcome::Kept).unwrap();
    drop(held.body);
    assert_eq!(answer(&mut first).await.status, 200);
    assert_eq!(running.post("/v1/logs", PROTOBUF, &body, Outcome::Kept).await.status, 200);
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error() {
    let running = Running::new().await;
    let again =
        Receiver::bind((Ipv4Addr::LOCALHOST, running.port).into(), PerSignal::from_fn(|_| true)).await;
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}
