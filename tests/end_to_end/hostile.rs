//! Neighbours in the environment that mean no good: everything the function could do to our port, while the real
//! telemetry goes on.
//!
//! Each attack is a client that is repeated on many connections for as long as the test lasts. The account must
//! balance to the record, memory and files stay within bounds, and invocations go on.

use crate::support::{World, invoke, leave, ms, within};
use flate2::{Compression, write::GzEncoder};
use outlast_simulator::{Invocation, Sandbox};
use std::collections::HashSet;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What the process may have had resident at any time, in KiB.
const RESIDENT_MAX_KIB: u64 = 32 << 10;
/// … of which so much is pages of files in a release build: the binary has 4.3 MB, the C library 2 MB.
const RELEASE_FILES_KIB: u64 = 6 << 10;
/// Files, sockets included, that the process may have open.
const FILES_MAX: usize = 256;
/// More connections than the listener has places for, by far.
const FLOOD: usize = 300;
/// Enough to take every place several times over, for attacks that cost CPU, of which the tests have two.
const CROWD: usize = 80;
const POST: &str = "POST /telemetry HTTP/1.1\r\nhost: sandbox\r\n";

type Attack = fn(TcpStream) -> Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

/// Attackers that go on until this is dropped.
struct Attackers {
    tasks: JoinSet<()>,
    rounds: Arc<AtomicUsize>,
}

impl Attackers {
    fn start(port: u16, connections: usize, attack: Attack) -> Self {
        let rounds = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let rounds = Arc::clone(&rounds);
            tasks.spawn(async move {
                loop {
                    if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
                        // However it ends, the next one follows.
                        drop(attack(stream).await);
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                    // Not to leave the CPU to nobody else.
                    tokio::time::sleep(ms(20)).await;
                }
            });
        }
        Self { tasks, rounds }
    }

    /// Waits until so many connections have been through it.
    async fn until_rounds(&mut self, rounds: usize) {
        let poll = async {
            while self.rounds.load(Ordering::Relaxed) < rounds {
                tokio::time::sleep(ms(5)).await;
            }
        };
        within("the attack to proceed", poll).await;
        assert!(self.tasks.try_join_next().is_none(), "an attacker has panicked");
    }
}

/// A number of `/proc/PID/status`.
fn status(pid: i32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

fn assert_bounded(lambda: &Sandbox) {
    let pid = lambda.process_ids()[0];
    // The code of a debug build is several times that of the one people run: what counts is what the process made, and
    // the pages of files that a release build has.
    let (most, of_files) = (status(pid, "VmHWM"), status(pid, "RssFile"));
    let resident = most.saturating_sub(of_files) + RELEASE_FILES_KIB;
    assert!(resident < RESIDENT_MAX_KIB, "{resident} KiB were resident, {of_files} more of files");
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(files < FILES_MAX, "{files} files are open");
}

/// The real telemetry flows under the attack, and afterwards.
async fn withstands(attack: Attack, connections: usize) -> (World, Sandbox) {
    let world = World::new().await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    let mut attackers = Attackers::start(lambda.telemetry_port().unwrap(), connections, attack);
    for _ in 0..6 {
        invoke(&lambda, Invocation::new().runs_for(ms(5)).logs(50)).await;
        // Everything Lambda had to say was acknowledged while the attack went on.
        within("deliveries under attack", lambda.settled()).await;
        assert_bounded(&lambda);
    }
    attackers.until_rounds(connections.min(FLOOD / 2)).await;
    invoke(&lambda, Invocation::new().logs(50)).await;
    world.until_delivered(&lambda).await;
    drop(attackers);
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    assert_bounded(&lambda);
    assert_eq!(lambda.acknowledged_lines().len(), 370);
    (world, lambda)
}

/// [`withstands`], and nothing but Lambda's telemetry arrives.
async fn shrugs_off(attack: Attack, connections: usize) {
    let (world, lambda) = withstands(attack, connections).await;
    world.end(lambda).await;
    assert_eq!(world.reported(), 0);
}

/// Waits until the other end closes.
async fn until_closed(mut stream: TcpStream) -> std::io::Result<()> {
    let mut sink = [0; 4096];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

async fn send(stream: &mut TcpStream, text: impl AsRef<[u8]>) -> std::io::Result<()> {
    stream.write_all(text.as_ref()).await
}

#[tokio::test]
async fn connections_that_say_nothing() {
    shrugs_off(|stream| Box::pin(until_closed(stream)), FLOOD).await;
}

#[tokio::test]
async fn heads_that_never_end() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                send(&mut stream, &POST[..30]).await?;
                until_closed(stream).await
            })
        },
        FLOOD,
    )
    .await;
}

#[tokio::test]
async fn heads_that_trickle() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                send(&mut stream, POST).await?;
                loop {
                    send(&mut stream, "x").await?;
                    tokio::time::sleep(ms(10)).await;
                }
            })
        },
        CROWD,
    )
    .await;
}

#[tokio::test]
async fn lengths_that_are_lies() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                let length = [8_u64 << 20, 1 << 62, 100][fastrand::usize(..3)];
                send(&mut stream, format!("{POST}content-length: {length}\r\n\r\n[{{")).await?;
                until_closed(stream).await
            })
        },
        FLOOD,
    )
    .await;
}

#[tokio::test]
async fn bodies_that_stop_short_of_their_end() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                let length = 8 << 20;
                send(&mut stream, format!("{POST}content-length: {length}\r\n\r\n")).await?;
                for _ in 0..(length / (64 << 10)) - 1 {
                    send(&mut stream, "x".repeat(64 << 10)).await?;
                }
                until_closed(stream).await
            })
        },
        CROWD,
    )
    .await;
}

#[tokio::test]
async fn bodies_that_trickle() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                send(&mut stream, format!("{POST}content-length: 1000000\r\n\r\n[")).await?;
                loop {
                    send(&mut stream, " ").await?;
                    tokio::time::sleep(ms(10)).await;
                }
            })
        },
        CROWD,
    )
    .await;
}

#[tokio::test]
async fn bodies_that_fill_the_memory_and_then_trickle() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                send(&mut stream, format!("{POST}content-length: 7000000\r\n\r\n[")).await?;
                send(&mut stream, " ".repeat(1 << 20)).await?;
                loop {
                    send(&mut stream, " ").await?;
                    tokio::time::sleep(ms(10)).await;
                }
            })
        },
        16,
    )
    .await;
}

#[tokio::test]
async fn chunks_without_end() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                send(&mut stream, format!("{POST}transfer-encoding: chunked\r\n\r\n")).await?;
                let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
                loop {
                    send(&mut stream, &chunk).await?;
                }
            })
        },
        16,
    )
    .await;
}

#[tokio::test]
async fn chunks_of_one_byte() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                send(&mut stream, format!("{POST}transfer-encoding: chunked\r\n\r\n")).await?;
                let chunks = "1\r\n \r\n".repeat(2_000);
                loop {
                    send(&mut stream, &chunks).await?;
                }
            })
        },
        16,
    )
    .await;
}

#[tokio::test]
async fn chunk_extensions_without_end() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                send(&mut stream, format!("{POST}transfer-encoding: chunked\r\n\r\n1;x=")).await?;
                loop {
                    send(&mut stream, "y".repeat(8 << 10)).await?;
                }
            })
        },
        CROWD,
    )
    .await;
}

#[tokio::test]
async fn headers_without_end() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                send(&mut stream, POST).await?;
                loop {
                    let header =
                        format!("x-{}: {}\r\n", fastrand::u64(..), "y".repeat(fastrand::usize(..2_000)));
                    send(&mut stream, header).await?;
                }
            })
        },
        CROWD,
    )
    .await;
}

/// 64 MiB of zeros in 64 KiB.
fn bomb() -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        gzip.write_all(&vec![0; 1 << 20]).unwrap();
    }
    gzip.finish().unwrap()
}

#[tokio::test]
async fn gzip_bombs() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                static BOMB: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
                let bomb = BOMB.get_or_init(bomb);
                let head = format!("{POST}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
                send(&mut stream, head).await?;
                send(&mut stream, bomb).await?;
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await?;
                assert_eq!(&answer, b"HTTP/1.1 415");
                Ok(())
            })
        },
        CROWD,
    )
    .await;
}

#[tokio::test]
async fn other_protocols() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                let greetings: [&[u8]; 5] = [
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                    b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
                    b"[{\"time\":\"x\",\"type\":\"function\",\"record\":\"x\"}]\n",
                    b"\0\0\0\0\0\0\0\0",
                ];
                send(&mut stream, greetings[fastrand::usize(..5)]).await?;
                stream.shutdown().await?;
                until_closed(stream).await
            })
        },
        CROWD,
    )
    .await;
}

#[tokio::test]
async fn other_methods() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                let method = ["GET", "PUT", "DELETE", "TRACE", "CONNECT", "HEAD"][fastrand::usize(..6)];
                send(
                    &mut stream,
                    format!("{method} /a/b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]"),
                )
                .await?;
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await?;
                assert_eq!(&answer, b"HTTP/1.1 405");
                Ok(())
            })
        },
        CROWD,
    )
    .await;
}

#[tokio::test]
async fn peers_that_read_no_answers() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                let requests = format!("{POST}content-length: 2\r\n\r\n[]").repeat(100);
                loop {
                    send(&mut stream, &requests).await?;
                }
            })
        },
        CROWD,
    )
    .await;
}

#[tokio::test]
async fn requests_that_are_refused_without_end() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                let requests = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
                let (mut read, mut write) = stream.split();
                tokio::select! {
                    sent = async { loop { write.write_all(requests.as_bytes()).await? } } => sent,
                    read = async { while read.read(&mut [0; 4096]).await? > 0 {} Ok(()) } => read,
                }
            })
        },
        CROWD,
    )
    .await;
}

/// Bodies as large as they may be that are no telemetry are answered 200 and counted, once each.
#[tokio::test]
async fn large_bodies_of_rubbish_are_counted_to_the_last_one() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let (world, lambda) = withstands(
        |mut stream| {
            Box::pin(async move {
                let length = 8 << 20;
                // No two are the same: a repeat is not counted.
                let mark = format!("{:016x}", fastrand::u64(..));
                send(&mut stream, format!("{POST}content-length: {length}\r\n\r\n{mark}")).await?;
                for _ in 0..length / (64 << 10) - 1 {
                    send(&mut stream, "x".repeat(64 << 10)).await?;
                }
                send(&mut stream, "x".repeat((64 << 10) - 16)).await?;
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await?;
                if &answer == b"HTTP/1.1 200" {
                    TAKEN.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        },
        2,
    )
    .await;
    world.end(lambda).await;
    // Whoever was cut off before it read its answer does not know that it was counted.
    let (taken, counted) = (TAKEN.load(Ordering::Relaxed) as u64, world.reported_for("unreadable"));
    assert!(taken > 0 && (taken..=taken + 2).contains(&counted), "{taken} taken, {counted} counted");
}

/// Nothing tells it from Lambda's: it is kept and delivered, and takes nothing away from Lambda's.
#[tokio::test]
async fn telemetry_of_a_stranger_is_delivered_beside_lambdas() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let (world, lambda) = withstands(
        |mut stream| {
            Box::pin(async move {
                let number = SENT.fetch_add(1, Ordering::Relaxed);
                let body = format!(
                    r#"[{{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"stranger {number}\n"}}]"#
                );
                send(&mut stream, format!("{POST}content-length: {}\r\n\r\n{body}", body.len())).await?;
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await?;
                assert_eq!(&answer, b"HTTP/1.1 200");
                TAKEN.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        },
        16,
    )
    .await;
    leave(&lambda).await;
    let taken = TAKEN.load(Ordering::Relaxed);
    let mut texts = world.backend.texts();
    assert_eq!(world.backend.repeated(), []);
    assert_eq!(world.backend.missing(&lambda.acknowledged_lines()), Vec::<String>::new());
    assert_eq!(world.backend.misordered(&lambda.acknowledged_lines()), Vec::<String>::new());
    texts.retain(|text| text.starts_with("stranger "));
    assert!(taken > 0 && (taken..=taken + 16).contains(&texts.len()), "{taken} taken, {} came", texts.len());
    assert_eq!(world.reported(), 0);
}

/// As much as one delivery can carry, on more connections than there is memory for.
#[tokio::test]
async fn large_deliveries_of_a_stranger_take_turns() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    const LINES: usize = 7_000;
    let (world, lambda) = withstands(
        |mut stream| {
            Box::pin(async move {
                let lines: Vec<String> = (0..LINES)
                    .map(|_| {
                        let text = format!("stranger {:016x} {}", fastrand::u64(..), "x".repeat(1_000));
                        format!(
                            r#"{{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"{text}"}}"#
                        )
                    })
                    .collect();
                let body = format!("[{}]", lines.join(","));
                send(&mut stream, format!("{POST}content-length: {}\r\n\r\n{body}", body.len())).await?;
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await?;
                if &answer == b"HTTP/1.1 200" {
                    TAKEN.fetch_add(1, Ordering::Relaxed);
                }
                // Some that are taken are enough: each is decoded three times over by this test.
                tokio::time::sleep(ms(1_000)).await;
                Ok(())
            })
        },
        4,
    )
    .await;
    leave(&lambda).await;
    let next = world.aftermath().await;
    let taken = TAKEN.load(Ordering::Relaxed);
    // The request that was under way at the end may have been taken, and comes again.
    assert!(world.backend.repeated().iter().all(|repeat| repeat.times == 2));
    let mut lines = lambda.acknowledged_lines();
    lines.extend(next.acknowledged_lines());
    assert_eq!(world.backend.missing(&lines), Vec::<String>::new());
    assert_eq!(world.backend.misordered(&lines), Vec::<String>::new());
    let texts = world.backend.texts();
    let came = texts.iter().filter(|text| text.starts_with("stranger ")).collect::<HashSet<_>>().len();
    assert!(taken > 0 && (taken * LINES..=(taken + 4) * LINES).contains(&came), "{taken} taken, {came} came");
    assert_eq!(came % LINES, 0, "whole deliveries");
    assert_eq!(world.reported(), 0);
}

/// All attacks that hold something, at once.
#[tokio::test]
async fn everything_at_once() {
    shrugs_off(
        |mut stream| {
            Box::pin(async move {
                match fastrand::u8(..5) {
                    0 => {}
                    1 => send(&mut stream, &POST[..20]).await?,
                    2 => {
                        send(&mut stream, format!("{POST}transfer-encoding: chunked\r\n\r\n1;x=")).await?;
                        send(&mut stream, "y".repeat(60 << 10)).await?;
                    }
                    3 => {
                        send(&mut stream, format!("{POST}content-length: 8000000\r\n\r\n")).await?;
                        for _ in 0..70 {
                            send(&mut stream, "x".repeat(100_000)).await?;
                        }
                    }
                    _ => {
                        send(&mut stream, format!("{POST}content-length: 2\r\n\r\n[]").repeat(50)).await?;
                    }
                }
                until_closed(stream).await
            })
        },
        CROWD,
    )
    .await;
}
