//! Every verdict on the wire, against peers that do exactly what a test says.
//!
//! `testdata` holds the certificate of an authority whose key was thrown away, and a server's certificate
//! and key for `localhost` and 127.0.0.1, valid for a hundred years.

use std::io::{Read, Write};
use std::sync::{Arc, mpsc};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::deliver::RETRY_AFTER_MAX_S;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A listener and a client for it.
async fn pair() -> (TcpListener, Client, Url) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}/v1/logs", listener.local_addr().unwrap()).parse().unwrap();
    (listener, Client::new(std::slice::from_ref(&url), TIMEOUT), url)
}

fn outgoing<'a>(url: &'a Url, headers: &'a HeaderMap, gzip: bool) -> Outgoing<'a> {
    Outgoing {
        url,
        headers,
        protocol: Protocol::Otlp,
        content_type: "application/x-protobuf",
        gzip,
        body: Bytes::from_static(b"telemetry"),
        idempotency_key: "key-1",
    }
}

async fn send(client: &Client, url: &Url) -> Verdict {
    client.send(outgoing(url, &HeaderMap::new(), true)).await
}

/// The next request on a connection, whole.
async fn request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"telemetry") {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "the request ended early");
    }
    String::from_utf8(read).unwrap()
}

/// What the client makes of `answer`, after which the peer closes the connection.
async fn answered(answer: &[u8], gzip: bool) -> Verdict {
    let (listener, client, url) = pair().await;
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(answer).await.unwrap();
    };
    let headers = HeaderMap::new();
    tokio::join!(peer, client.send(outgoing(&url, &headers, gzip))).1
}

fn http(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
        .into_bytes()
}

fn is_unreachable(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Retry { cause: Cause::Unreachable(reason), after: None } if !reason.is_empty())
}

const BROKEN: Verdict = Verdict::Retry { cause: Cause::Broken, after: None };
const DELIVERED: Verdict = Verdict::Delivered { rejected: 0, message: None };

#[tokio::test]
async fn every_status_comes_back_as_its_verdict() {
    let status = |status, after| Verdict::Retry { cause: Cause::Status(status), after };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let refused = |status, message: &str| Verdict::Refused { status, message: message.to_owned() };
    for (answer, gzip, expected) in [
        (http(200, "", ""), true, DELIVERED),
        (http(200, "", "not protobuf"), true, DELIVERED),
        (
            http(200, "", "\x0a\x07\x08\x03\x12\x03old"),
            true,
            Verdict::Delivered { rejected: 3, message: Some("old".to_owned()) },
        ),
        (http(202, "", ""), true, DELIVERED),
        (http(302, "location: /elsewhere\r\n", ""), true, Verdict::Denied { status: 302 }),
        (http(400, "", "\x08\x03\x12\x03bad"), true, refused(400, "bad")),
        (http(422, "", "bad\r\nrecord"), true, refused(422, "bad record")),
        (http(401, "", ""), true, Verdict::Denied { status: 401 }),
        (http(404, "", ""), true, Verdict::Denied { status: 404 }),
        (http(408, "", ""), true, status(408, None)),
        (http(413, "", ""), true, Verdict::TooLarge),
        (http(415, "", ""), true, Verdict::GzipRefused),
        (http(415, "", ""), false, Verdict::Denied { status: 415 }),
        (http(429, "retry-after: 3\r\n", ""), true, status(429, seconds(3))),
        (http(500, "", ""), true, Verdict::ServerError { after: None }),
        (
            http(503, "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", ""),
            true,
            status(503, seconds(RETRY_AFTER_MAX_S)),
        ),
        (http(504, "retry-after: soon\r\n", ""), true, status(504, None)),
    ] {
        let line = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(answered(&answer, gzip).await, expected, "{line}");
    }
}

#[tokio::test]
async fn a_request_carries_the_users_headers_and_ours() {
    let (listener, client, url) = pair().await;
    let headers = HeaderMap::from_iter([
        (HeaderName::from_static("api-key"), HeaderValue::from_static("secret")),
        (CONTENT_TYPE, HeaderValue::from_static("text/plain")),
    ]);
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = request(&mut stream).await;
        stream.write_all(&http(200, "", "")).await.unwrap();
        request
    };
    let (request, verdict) = tokio::join!(peer, client.send(outgoing(&url, &headers, true)));
    assert_eq!(verdict, DELIVERED);
    let lower = request.to_lowercase();
    assert!(lower.starts_with("post /v1/logs http/1.1\r\n"), "{request}");
    for line in [
        "api-key: secret",
        "content-type: application/x-protobuf",
        "content-encoding: gzip",
        "content-length: 9",
        "idempotency-key: key-1",
        &format!("user-agent: outlast/{}", env!("CARGO_PKG_VERSION")),
    ] {
        assert_eq!(lower.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {request}");
    }
    assert!(!lower.contains("text/plain"), "{request}");
}

#[tokio::test]
async fn a_body_that_is_not_compressed_is_not_said_to_be() {
    let (listener, client, url) = pair().await;
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = request(&mut stream).await;
        stream.write_all(&http(200, "", "")).await.unwrap();
        request
    };
    let headers = HeaderMap::new();
    let (request, _) = tokio::join!(peer, client.send(outgoing(&url, &headers, false)));
    assert!(!request.to_lowercase().contains("content-encoding"), "{request}");
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let (listener, client, url) = pair().await;
    drop(listener);
    let verdict = send(&client, &url).await;
    assert!(is_unreachable(&verdict), "{verdict:?}");
    assert!(format!("{verdict:?}").contains("refused"), "{verdict:?}");
}

#[tokio::test]
async fn a_connection_that_ends_before_an_answer_leaves_the_fate_unknown() {
    assert_eq!(answered(b"", true).await, BROKEN);
    assert_eq!(answered(b"HTTP/1.1 20", true).await, BROKEN);
    assert_eq!(answered(b"220 mail.example ESMTP\r\n", true).await, BROKEN);
}

#[tokio::test]
async fn a_status_stands_even_if_the_body_breaks_off() {
    assert_eq!(answered(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", true).await, DELIVERED);
    assert_eq!(
        answered(b"HTTP/1.1 413 No\r\ncontent-length: 100\r\n\r\nhalf", true).await,
        Verdict::TooLarge
    );
}

#[tokio::test(start_paused = true)]
async fn a_status_stands_even_if_the_body_never_comes() {
    let (listener, client, url) = pair().await;
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await.unwrap();
        stream
    };
    let (_stream, verdict) = tokio::join!(peer, send(&client, &url));
    assert_eq!(verdict, DELIVERED);
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let (listener, client, url) = pair().await;
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 400 No\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        // Writing fails once the client has had enough.
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    };
    let ((), verdict) = tokio::join!(peer, async {
        let verdict = send(&client, &url).await;
        client.renew();
        verdict
    });
    assert!(matches!(verdict, Verdict::Refused { status: 400, message } if message.starts_with("xxx")));
}

#[tokio::test]
async fn connections_are_kept_until_they_are_renewed() {
    let (listener, client, url) = pair().await;
    let peer = async {
        let (mut first, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            request(&mut first).await;
            first.write_all(&http(200, "", "")).await.unwrap();
        }
        let (mut second, _) = listener.accept().await.unwrap();
        request(&mut second).await;
        second.write_all(&http(204, "", "")).await.unwrap();
        first
    };
    let requests = async {
        assert_eq!(send(&client, &url).await, DELIVERED);
        assert_eq!(send(&client, &url).await, DELIVERED);
        client.renew();
        assert_eq!(send(&client, &url).await, DELIVERED);
    };
    tokio::join!(peer, requests);
}

#[tokio::test]
async fn a_kept_connection_that_ends_under_a_request_leaves_the_fate_unknown() {
    let (listener, client, url) = pair().await;
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(&http(200, "", "")).await.unwrap();
        request(&mut stream).await;
    };
    let requests = async {
        assert_eq!(send(&client, &url).await, DELIVERED);
        assert_eq!(send(&client, &url).await, BROKEN);
    };
    tokio::join!(peer, requests);
}

#[tokio::test]
async fn a_kept_connection_that_the_peer_has_closed_is_replaced_unnoticed() {
    let (listener, client, url) = pair().await;
    let closed = tokio::sync::Notify::new();
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(&http(200, "", "")).await.unwrap();
        stream.shutdown().await.unwrap();
        // The client closes its side: it has seen the end, and the pool knows.
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        closed.notify_one();
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(&http(200, "", "")).await.unwrap();
    };
    let requests = async {
        assert_eq!(send(&client, &url).await, DELIVERED);
        closed.notified().await;
        assert_eq!(send(&client, &url).await, DELIVERED);
    };
    tokio::join!(peer, requests);
}

#[tokio::test]
async fn a_dropped_request_does_not_spoil_the_next() {
    let (listener, client, url) = pair().await;
    let (got, wait) = tokio::sync::oneshot::channel();
    let peer = async {
        let (mut hung, _) = listener.accept().await.unwrap();
        request(&mut hung).await;
        got.send(()).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(&http(200, "", "")).await.unwrap();
    };
    let requests = async {
        tokio::select! {
            verdict = send(&client, &url) => panic!("{verdict:?}"),
            done = wait => done.unwrap(),
        }
        assert_eq!(send(&client, &url).await, DELIVERED);
    };
    tokio::join!(peer, requests);
}

#[tokio::test]
async fn tls_to_a_port_that_speaks_plain_text_is_unreachable() {
    let (listener, _, url) = pair().await;
    let url: Url = url.as_str().replace("http://", "https://").parse().unwrap();
    let client = Client::new(std::slice::from_ref(&url), TIMEOUT);
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    };
    let ((), verdict) = tokio::join!(peer, send(&client, &url));
    assert!(is_unreachable(&verdict), "{verdict:?}");
}

fn testdata(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/deliver/client/testdata/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

/// A TLS server on a thread that answers 200 on each connection and tells how it was made.
fn tls_peer() -> (Url, mpsc::Receiver<Option<HandshakeKind>>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from(testdata("server.der"));
    let key = PrivateKeyDer::Pkcs8(testdata("server.key.der").into());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (made, how) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            let mut read = Vec::new();
            let mut chunk = [0; 4096];
            while !read.ends_with(b"telemetry") {
                // A client that trusts someone else hangs up.
                match stream.read(&mut chunk) {
                    Ok(count) if count > 0 => read.extend_from_slice(&chunk[..count]),
                    _ => break,
                }
            }
            drop(stream.write_all(&http(200, "", "")).and_then(|()| stream.flush()));
            if made.send(stream.conn.handshake_kind()).is_err() {
                return;
            }
        }
    });
    (format!("https://localhost:{port}/v1/logs").parse().unwrap(), how)
}

#[tokio::test]
async fn tls_works_without_preparation_and_resumes_its_session_after_a_renewal() {
    let (url, how) = tls_peer();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(testdata("authority.der"))).unwrap();
    let client = Client { roots: Roots::Only(roots), ..Client::new(std::slice::from_ref(&url), TIMEOUT) };
    let client = Arc::new(client);
    assert_eq!(send(&client, &url).await, DELIVERED);
    assert_eq!(how.recv().unwrap(), Some(HandshakeKind::Full));
    client.renew();
    client.prepared().await;
    assert_eq!(send(&client, &url).await, DELIVERED);
    assert_eq!(how.recv().unwrap(), Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_unreachable() {
    let (url, _how) = tls_peer();
    let client = Arc::new(Client::new(std::slice::from_ref(&url), TIMEOUT));
    client.prepared().await;
    let verdict = send(&client, &url).await;
    assert!(is_unreachable(&verdict), "{verdict:?}");
    assert!(format!("{verdict:?}").contains("certificate"), "{verdict:?}");
}

#[test]
fn only_this_machine_is_loopback() {
    for (url, expected) in [
        ("http://127.0.0.1:1", true),
        ("http://[::1]:1", true),
        ("http://localhost/x", true),
        ("http://10.0.0.1", false),
        ("https://localhost.example.com", false),
    ] {
        assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
    }
}

#[test]
fn the_client_shows_nothing_of_its_insides() {
    let url: Url = "http://u:hunter2@h/?k=hunter2".parse().unwrap();
    let client = Client::new(std::slice::from_ref(&url), TIMEOUT);
    drop(client.current(&url));
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[tokio::test]
async fn whoever_forgets_connections_does_not_wait_for_files_that_do_not_come() {
    let url: Url = "https://localhost:1/".parse().unwrap();
    let client = Arc::new(Client::new(std::slice::from_ref(&url), TIMEOUT));
    let held = client.preparing.lock().await;
    let waiter = tokio::spawn({
        let client = Arc::clone(&client);
        async move { client.prepared().await }
    });
    tokio::task::yield_now().await;
    client.renew();
    assert!(!waiter.is_finished() && client.tls.get().is_none());
    drop(held);
    waiter.await.unwrap();
    assert!(client.tls.get().is_some(), "built, and by one");
}

#[test]
fn connections_to_this_machine_and_to_others_are_kept_apart() {
    let (here, elsewhere) = ("http://127.0.0.1:1".parse().unwrap(), "http://c".parse().unwrap());
    let client = Client::new(&[here, elsewhere], TIMEOUT);
    for (url, is_here) in [("http://127.0.0.1:1", true), ("http://c/v1/logs", false)] {
        client.renew();
        client.current(&url.parse().unwrap()).unwrap();
        let mut pools = client.slot();
        assert_eq!((pools.of(true).is_some(), pools.of(false).is_some()), (is_here, !is_here), "{url}");
    }
}
