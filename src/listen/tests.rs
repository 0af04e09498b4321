//! The listener over raw TCP: what peers may send, and what each gets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;

const KIB: usize = 1024;
/// A limit that a test waits for.
const SOON: Duration = Duration::from_millis(20);
/// How long a test that waits for what never comes hangs before it fails.
const HANG: Duration = Duration::from_secs(20);

async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, wait).await.expect("what was waited for never came")
}

struct Running {
    port: u16,
    deliveries: mpsc::Receiver<Delivery>,
    server: JoinHandle<std::convert::Infallible>,
}

struct Peer(TcpStream);

impl Running {
    async fn with(limits: Limits) -> Self {
        let (listener, port) = Listener::bind_with(limits).await.unwrap();
        let (inbox, deliveries) = mpsc::channel(4);
        Self { port, deliveries, server: tokio::spawn(listener.serve(inbox)) }
    }

    async fn peer(&self) -> Peer {
        Peer(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap())
    }

    async fn delivery(&mut self) -> Delivery {
        in_time(self.deliveries.recv()).await.unwrap()
    }

    /// Takes one delivery, gives the receipt, returns the body.
    async fn keep(&mut self) -> Bytes {
        let Delivery { body, reply, .. } = self.delivery().await;
        reply.send(Receipt::Kept).unwrap();
        body
    }

    /// Shows that a new connection is served.
    async fn serves(&mut self) {
        let mut peer = self.peer().await;
        peer.send(&post("[1]")).await;
        assert_eq!(self.keep().await, "[1]");
        peer.expect(200).await;
    }

    fn delivered_nothing(&mut self) {
        assert!(self.deliveries.try_recv().is_err());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Peer {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The head of the next answer, in lower case.
    async fn answer(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(in_time(self.0.read_u8()).await.unwrap()));
        }
        head.to_lowercase()
    }

    async fn expect(&mut self, status: u16) -> String {
        let head = self.answer().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        head
    }

    /// Waits until the server has closed the connection, by whatever means.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        while let Ok(1..) = in_time(self.0.read_buf(&mut rest)).await {}
    }
}

fn post(body: &str) -> String {
    post_with("", body)
}

fn post_with(headers: &str, body: &str) -> String {
    format!("POST /telemetry HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn two_deliveries_on_one_connection_arrive_whatever_their_path() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    peer.send(post("[1]")).await;
    let Delivery { body, received_unix_nanos, reply } = running.delivery().await;
    assert_eq!(body, "[1]");
    assert!(received_unix_nanos > 1_600_000_000_000_000_000);
    reply.send(Receipt::Kept).unwrap();
    peer.expect(200).await;
    peer.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n[2]").await;
    assert_eq!(running.keep().await, "[2]");
    peer.expect(200).await;
}

#[tokio::test]
async fn the_answer_waits_for_the_receipt() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    peer.send(post("[]")).await;
    let delivery = running.delivery().await;
    settle().await;
    assert_eq!(peer.0.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    delivery.reply.send(Receipt::Kept).unwrap();
    peer.expect(200).await;
}

#[tokio::test]
async fn only_what_is_kept_nowhere_is_refused_and_then_the_sender_is_told_when_to_come_back() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    for receipt in [Receipt::Kept, Receipt::Repeated, Receipt::Unreadable] {
        peer.send(post("[]")).await;
        running.delivery().await.reply.send(receipt).unwrap();
        peer.expect(200).await;
    }
    peer.send(post("[]")).await;
    running.delivery().await.reply.send(Receipt::Full).unwrap();
    assert!(peer.expect(503).await.contains("retry-after: 1\r\n"));
    peer.send(post("[]")).await;
    drop(running.delivery().await.reply);
    assert!(peer.expect(503).await.contains("retry-after: 1\r\n"));
    // The connection is as good as before.
    peer.send(post("[]")).await;
    running.keep().await;
    peer.expect(200).await;
}

#[tokio::test]
async fn without_anyone_to_take_it_a_delivery_is_refused() {
    let mut running = Running::with(Limits::default()).await;
    running.deliveries.close();
    let mut peer = running.peer().await;
    peer.send(post("[]")).await;
    assert!(peer.expect(503).await.contains("retry-after: 1\r\n"));
}

#[tokio::test]
async fn a_delivery_waits_while_the_inbox_has_no_room() {
    let mut running = Running::with(Limits::default()).await;
    let mut peers = Vec::new();
    for _ in 0..6 {
        let mut peer = running.peer().await;
        peer.send(post("[]")).await;
        peers.push(peer);
    }
    for _ in 0..6 {
        running.keep().await;
    }
    for peer in &mut peers {
        peer.expect(200).await;
    }
}

#[tokio::test]
async fn other_methods_are_refused_and_the_connection_goes_on() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "NONSENSE"] {
        peer.send(format!("{method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]")).await;
        assert!(peer.expect(405).await.contains("allow: post\r\n"));
    }
    running.delivered_nothing();
    peer.send(post("[]")).await;
    running.keep().await;
    peer.expect(200).await;
}

#[tokio::test]
async fn a_compressed_body_is_refused_and_a_plain_one_may_say_that_it_is() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    peer.send(post_with("Content-Encoding: gzip\r\n", "xx")).await;
    assert!(peer.expect(415).await.contains("accept-encoding: identity\r\n"));
    running.delivered_nothing();
    peer.send(post_with("Content-Encoding: Identity\r\n", "[]")).await;
    running.keep().await;
    peer.expect(200).await;
}

#[tokio::test]
async fn chunked_bodies_are_put_together() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    peer.send("POST / HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n").await;
    settle().await;
    peer.send("2;ext=1\r\n2]\r\n0\r\nTrailer: x\r\n\r\n").await;
    assert_eq!(running.keep().await, "[1,2]");
    peer.expect(200).await;
}

#[tokio::test]
async fn a_sender_that_asks_before_it_sends_is_invited() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    let request = post_with("Expect: 100-continue\r\n", "[]");
    let (head, body) = request.split_at(request.len() - 2);
    peer.send(head).await;
    peer.expect(100).await;
    peer.send(body).await;
    assert_eq!(running.keep().await, "[]");
    peer.expect(200).await;
}

#[tokio::test]
async fn a_sender_that_asks_before_it_sends_too_much_is_not_invited() {
    let mut running = Running::with(Limits { body_max_bytes: 10, ..Limits::default() }).await;
    let mut peer = running.peer().await;
    peer.send("POST / HTTP/1.1\r\nhost: x\r\nExpect: 100-continue\r\ncontent-length: 11\r\n\r\n").await;
    peer.expect(413).await;
    peer.closed().await;
    running.delivered_nothing();
}

#[tokio::test]
async fn a_body_of_megabytes_in_many_pieces_arrives_intact() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    let numbers: Vec<_> = (1_000_000..1_400_000).map(|number: u32| number.to_string()).collect();
    let body = numbers.join(",");
    let request = post(&body);
    let send = async {
        for piece in request.as_bytes().chunks(100_003) {
            peer.send(piece).await;
        }
        peer.expect(200).await;
    };
    let (taken, ()) = tokio::join!(running.keep(), send);
    assert_eq!(taken.len(), body.len());
    assert!(taken == body.as_bytes());
}

#[tokio::test]
async fn the_longest_body_is_taken_and_one_byte_more_is_not_in_either_form() {
    let limits = Limits { body_max_bytes: 100 * KIB, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let longest = "x".repeat(100 * KIB);
    let mut peer = running.peer().await;
    peer.send(post(&longest)).await;
    assert_eq!(running.keep().await.len(), 100 * KIB);
    peer.expect(200).await;

    let chunk = format!("{:x}\r\n{longest}\r\n", longest.len());
    let chunked = format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
    peer.send(format!("{chunked}0\r\n\r\n")).await;
    assert_eq!(running.keep().await.len(), 100 * KIB);
    peer.expect(200).await;

    for request in [post(&format!("{longest}x")), format!("{chunked}1\r\nx\r\n0\r\n\r\n")] {
        let mut peer = running.peer().await;
        peer.send(request).await;
        assert!(peer.expect(413).await.contains("connection: close\r\n"));
        peer.closed().await;
    }
    running.delivered_nothing();
    running.serves().await;
}

#[tokio::test]
async fn an_endless_body_is_not_read_for_ever() {
    let limits = Limits { body_max_bytes: KIB, discard_max_bytes: KIB, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let mut peer = running.peer().await;
    peer.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = format!("400\r\n{}\r\n", "x".repeat(KIB));
    // Until the connection is closed under it.
    while peer.0.write_all(chunk.as_bytes()).await.is_ok() {}
    running.delivered_nothing();
    running.serves().await;
}

#[tokio::test]
async fn a_claimed_length_takes_no_memory() {
    let limits = Limits { body_max_bytes: 100 * KIB, memory_max_bytes: 100 * KIB, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let mut liar = running.peer().await;
    liar.send("POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 102400\r\n\r\n").await;
    liar.expect(100).await;
    liar.send("x").await;
    settle().await;
    running.serves().await;
}

#[tokio::test]
async fn what_does_not_fit_in_memory_is_refused_until_there_is_room_again() {
    let limits = Limits { memory_max_bytes: 150 * KIB, memory_wait: SOON, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let body = "x".repeat(100 * KIB);
    let mut first = running.peer().await;
    first.send(post(&body)).await;
    let held = running.delivery().await;

    let mut second = running.peer().await;
    second.send(post(&body)).await;
    assert!(second.expect(503).await.contains("retry-after: 1\r\n"));

    // The receipt alone frees nothing: whoever has the body still holds the memory.
    held.reply.send(Receipt::Kept).unwrap();
    first.expect(200).await;
    second.send(post(&body)).await;
    second.expect(503).await;

    drop(held.body);
    second.send(post(&body)).await;
    assert_eq!(running.keep().await.len(), 100 * KIB);
    second.expect(200).await;
}

#[tokio::test]
async fn a_peer_that_vanishes_in_mid_body_leaves_nothing_behind() {
    let limits = Limits { memory_max_bytes: 100 * KIB, ..Limits::default() };
    let mut running = Running::with(limits).await;
    for _ in 0..3 {
        let mut peer = running.peer().await;
        peer.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n[1,2").await;
        settle().await;
        peer.0.shutdown().await.unwrap();
        peer.closed().await;
    }
    running.delivered_nothing();
    running.serves().await;
}

#[tokio::test]
async fn a_peer_that_vanishes_before_its_answer_is_noticed() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    peer.send(post("[]")).await;
    let mut delivery = running.delivery().await;
    drop(peer);
    delivery.reply.closed().await;
    running.serves().await;
}

#[tokio::test]
async fn peers_that_say_nothing_or_stop_are_cut_off() {
    let limits = Limits { idle_timeout: SOON, head_timeout: SOON, stall_timeout: SOON, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let sent = [
        "",
        "POST / HT",
        "POST / HTTP/1.1\r\nhost: x\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n[1",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[1",
    ];
    for bytes in sent {
        let mut peer = running.peer().await;
        peer.send(bytes).await;
        peer.closed().await;
    }
    running.delivered_nothing();
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_off_after_its_whole_time() {
    let limits = Limits { body_timeout: SOON, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let mut peer = running.peer().await;
    peer.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n").await;
    // Refused as too long, but a byte at a time is thrown away, so only the clock can end it.
    while peer.0.write_all(b"x").await.is_ok() {
        tokio::task::yield_now().await;
    }
    running.delivered_nothing();
}

#[tokio::test]
async fn an_answer_that_takes_long_is_not_cut_off() {
    let limits = Limits {
        idle_timeout: SOON,
        head_timeout: SOON,
        stall_timeout: SOON,
        body_timeout: SOON,
        ..Limits::default()
    };
    let mut running = Running::with(limits).await;
    let mut peer = running.peer().await;
    peer.send(post("[]")).await;
    let delivery = running.delivery().await;
    // Every limit passes on another connection meanwhile.
    for _ in 0..3 {
        running.peer().await.closed().await;
    }
    delivery.reply.send(Receipt::Kept).unwrap();
    peer.expect(200).await;
}

#[tokio::test]
async fn the_longest_idle_connection_makes_room_for_a_new_one() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let mut first = running.peer().await;
    let mut second = running.peer().await;
    for turn in 0..3 {
        let peer = if turn == 1 { &mut second } else { &mut first };
        peer.send(post("[]")).await;
        running.keep().await;
        peer.expect(200).await;
    }
    // The second has been idle for longer than the first, though it came later.
    let mut third = running.peer().await;
    second.closed().await;
    for peer in [&mut first, &mut third] {
        peer.send(post("[]")).await;
        running.keep().await;
        peer.expect(200).await;
    }
}

#[tokio::test]
async fn with_every_connection_being_answered_a_new_one_waits_its_turn() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let mut first = running.peer().await;
    first.send(post("[0]")).await;
    let held = running.delivery().await;
    let mut second = running.peer().await;
    second.send(post("[1]")).await;
    let also_held = running.delivery().await;
    let mut third = running.peer().await;
    third.send(post("[2]")).await;
    settle().await;
    running.delivered_nothing();
    held.reply.send(Receipt::Kept).unwrap();
    // It has its answer before it makes room.
    assert!(first.expect(200).await.contains("connection: close\r\n"));
    first.closed().await;
    assert_eq!(running.keep().await, "[2]");
    third.expect(200).await;
    also_held.reply.send(Receipt::Kept).unwrap();
    second.expect(200).await;
}

#[tokio::test]
async fn requests_that_never_become_complete_keep_nobody_out() {
    let limits = Limits { max_connections: 4, ..Limits::default() };
    for begun in ["", "POST / HT", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n[1"] {
        let mut running = Running::with(limits).await;
        let mut kept = running.peer().await;
        kept.send(post("[0]")).await;
        running.keep().await;
        kept.expect(200).await;
        let mut floods = Vec::new();
        for _ in 0..40 {
            let mut flood = running.peer().await;
            // It may be closed before it is written.
            drop(flood.0.write_all(begun.as_bytes()).await);
            floods.push(flood);
            settle().await;
        }
        running.serves().await;
        running.delivered_nothing();
        if !begun.ends_with("[1") {
            // Strangers went before the peer that has sent a request, although that has been idle for longest.
            kept.send(post("[3]")).await;
            assert_eq!(running.keep().await, "[3]");
            kept.expect(200).await;
        }
    }
}

#[tokio::test]
async fn a_body_that_stalls_gives_its_memory_to_one_that_goes_on() {
    let limits = Limits { memory_max_bytes: 150 * KIB, memory_wait: HANG, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let mut small = running.peer().await;
    small.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n[1").await;
    settle().await;
    let mut large = running.peer().await;
    large.send(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 100 * KIB)).await;
    large.send("x".repeat(100 * KIB - 1)).await;
    settle().await;
    let mut peer = running.peer().await;
    let send = async {
        peer.send(post(&"y".repeat(100 * KIB))).await;
        peer.expect(200).await;
    };
    let (body, ()) = tokio::join!(running.keep(), send);
    assert_eq!(body.len(), 100 * KIB);
    large.closed().await;
    small.send("2345678").await;
    assert_eq!(running.keep().await, "[12345678");
    small.expect(200).await;
}

#[tokio::test]
async fn a_body_that_trickles_gives_its_memory_to_one_that_goes_on() {
    let limits = Limits { memory_max_bytes: 150 * KIB, memory_wait: HANG, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let mut large = running.peer().await;
    large.send(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 140 * KIB)).await;
    large.send("x".repeat(100 * KIB)).await;
    settle().await;
    let mut peer = running.peer().await;
    let send = async {
        peer.send(post(&"y".repeat(100 * KIB))).await;
        peer.expect(200).await;
    };
    // It never is silent for as long as a stall takes.
    let trickle = async {
        while large.0.write_all(b"x").await.is_ok() {
            crate::clock::sleep(Duration::from_millis(10)).await;
        }
    };
    let (body, (), ()) = tokio::join!(running.keep(), send, trickle);
    assert_eq!(body.len(), 100 * KIB);
}

#[tokio::test]
async fn what_is_not_http_1_is_closed_and_harms_nobody_else() {
    let mut running = Running::with(Limits::default()).await;
    let mut bystander = running.peer().await;
    bystander.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[").await;
    let nonsense = [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\0\u{5}\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n[]".to_owned(),
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500)),
        format!("POST /{} HTTP/1.1\r\n\r\n", "x".repeat(70 * KIB)),
    ];
    for bytes in nonsense {
        let mut peer = running.peer().await;
        // It may be closed before the last of it is written.
        drop(peer.0.write_all(bytes.as_bytes()).await);
        peer.closed().await;
    }
    running.delivered_nothing();
    bystander.send("]").await;
    running.keep().await;
    bystander.expect(200).await;
}

#[tokio::test]
async fn a_header_that_never_ends_is_closed() {
    let mut running = Running::with(Limits { head_max_bytes: 0, ..Limits::default() }).await;
    let mut peer = running.peer().await;
    peer.send("POST / HTTP/1.1\r\nx: ").await;
    while peer.0.write_all(&[b'x'; KIB]).await.is_ok() {}
    running.serves().await;
}

#[tokio::test]
async fn requests_sent_without_waiting_are_answered_in_order() {
    let mut running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    peer.send(format!("{}{}", post("[1]"), post("[2]"))).await;
    assert_eq!(running.keep().await, "[1]");
    assert_eq!(running.keep().await, "[2]");
    peer.expect(200).await;
    peer.expect(200).await;
}

#[tokio::test]
async fn a_peer_that_reads_no_answers_is_cut_off() {
    let limits = Limits { stall_timeout: SOON, idle_timeout: SOON, ..Limits::default() };
    let mut running = Running::with(limits).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // A small one is full sooner.
    socket.set_recv_buffer_size(1024).unwrap();
    let mut deaf = Peer(socket.connect(([127, 0, 0, 1], running.port).into()).await.unwrap());
    let send = async { while deaf.0.write_all(post("[]").repeat(100).as_bytes()).await.is_ok() {} };
    let keep = async {
        loop {
            running.keep().await;
        }
    };
    tokio::select! {
        () = in_time(send) => {}
        () = keep => {}
    }
    running.serves().await;
}

#[tokio::test]
async fn dropping_the_server_closes_the_port_and_every_connection() {
    let running = Running::with(Limits::default()).await;
    let mut peer = running.peer().await;
    settle().await;
    let port = running.port;
    drop(running);
    peer.closed().await;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}
