//! Lines on stdout, which Lambda sends to CloudWatch Logs: a place that every function has, and that costs money.
//!
//! A body becomes one or more lines of JSON, each with a part of it in base64; parts of one body share its `id`:
//! `{"outlast.fallback":1,"id":"…","part":1,"parts":2,"signal":"logs","format":"application/x-protobuf",
//! "encoding":"gzip","records":120,"body":"H4sI…"}`. What is bounded and how is in `docs/fallback.md`.
//!
//! A pipe that nobody reads blocks whoever writes. So lines are written on a thread of their own, one body at a time,
//! and whoever waits for that may give up; the lines are then finished later, or never.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Mutex, oneshot};

use super::Parcel;
use crate::deliver::verdict::{Cause, Verdict};

/// No line is longer, in bytes. An event of CloudWatch Logs was at most 256 KB for long, and Lambda may still cut there;
/// the rest is room for what Lambda puts around a line.
const LINE_MAX_BYTES: usize = 200_000;

/// Everything in a line but the body: at most some 250 bytes.
const AROUND_BODY_BYTES: usize = 512;

/// Bytes of a body in one line. Three bytes are four characters of base64, so that parts can be joined before or after
/// decoding.
const PART_BYTES: usize = (LINE_MAX_BYTES - AROUND_BODY_BYTES) / 4 * 3;

/// What may go to stdout per second, in bytes of lines, while the function runs. In an outage that lasts all day this is
/// 2.8 GB per environment; without a bound a busy function would write as much in minutes.
pub const STDOUT_BYTES_PER_SECOND_MAX: u64 = 32 << 10;

/// What one SHUTDOWN may write, in bytes of lines, but for the end of the body that reaches it: some 20 MB of logs.
pub const SHUTDOWN_MAX_BYTES: u64 = 4 << 20;

/// What each line begins with, up to the version of the form.
const MARKER: &str = r#"{"outlast.fallback":"#;

/// Lines on a stream, usually stdout.
pub struct Stdout {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl Default for Stdout {
    /// The process's own.
    fn default() -> Self {
        Self::on(Box::new(io::stdout()))
    }
}

impl Stdout {
    /// Lines on `out`.
    pub fn on(out: Box<dyn Write + Send>) -> Self {
        Self { out: Arc::new(Mutex::new(out)) }
    }

    pub(super) async fn send(&self, parcel: &Parcel<'_>) -> Verdict {
        let lines = lines(parcel);
        // A body before this one that stdout does not take keeps this one waiting here, not on another thread.
        let mut out = Arc::clone(&self.out).lock_owned().await;
        let (done, written) = oneshot::channel();
        // Not a thread of the runtime: of those there is one, and TLS is built there.
        let started = thread::Builder::new().name("stdout".into()).spawn(move || {
            // Whoever waited may have given up.
            drop(done.send(out.write_all(lines.as_bytes()).and_then(|()| out.flush())));
        });
        if let Err(error) = started {
            return unreachable(error.to_string());
        }
        match written.await {
            Ok(Ok(())) => Verdict::Delivered { rejected: 0, message: None },
            Ok(Err(error)) => unreachable(error.to_string()),
            Err(_) => unreachable("writing came to grief".to_owned()),
        }
    }
}

fn unreachable(reason: String) -> Verdict {
    Verdict::Retry { cause: Cause::Unreachable(reason), after: None }
}

fn lines(parcel: &Parcel<'_>) -> String {
    let Parcel { signal, content_type, gzip, body, hash, records, .. } = parcel;
    let parts = body.len().div_ceil(PART_BYTES).max(1);
    let encoding = if *gzip { "gzip" } else { "identity" };
    let mut lines = String::with_capacity(usize::try_from(lines_bytes(body.len())).unwrap_or_default());
    for (index, part) in (1..).zip(body.chunks(PART_BYTES)) {
        let head = format!(
            r#"{MARKER}1,"id":"{hash}","part":{index},"parts":{parts},"signal":"{}","format":"{content_type}","encoding":"{encoding}","records":{records},"body":""#,
            signal.name()
        );
        lines.push_str(&head);
        STANDARD.encode_string(part, &mut lines);
        lines.push_str("\"}\n");
    }
    lines
}

/// How many bytes of lines a body of so many bytes becomes, at most.
pub(super) fn lines_bytes(body_bytes: usize) -> u64 {
    let parts = body_bytes.div_ceil(PART_BYTES).max(1);
    (body_bytes.div_ceil(3) * 4 + parts * AROUND_BODY_BYTES) as u64
}

/// Whether `record`, the raw JSON of what an extension logged, is one of these lines: what the Telemetry API brings back
/// must not be queued again. Lambda gives a line as text or, with the JSON log format, as the object it is.
pub fn is_echo(record: &[u8]) -> bool {
    let as_text = br#""{\"outlast.fallback\":"#;
    record.starts_with(MARKER.as_bytes()) || record.starts_with(as_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signal;
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Value;
    use std::sync::Mutex as StdMutex;
    use std::time::Duration;

    fn parcel(body: Vec<u8>) -> Parcel<'static> {
        Parcel {
            protocol: crate::encode::Protocol::Otlp,
            signal: Signal::Traces,
            content_type: "application/x-protobuf",
            gzip: true,
            body: Bytes::from(body),
            hash: "00112233445566778899aabbccddeeff",
            records: 42,
            first: 1,
            from_record: 0,
            received: Duration::ZERO,
            queue_id: 1,
        }
    }

    /// Joins lines as a reader who only knows the documentation would.
    fn joined(lines: &[Value]) -> Vec<u8> {
        assert!(lines.iter().all(|line| line["id"] == lines[0]["id"]));
        let mut lines = lines.to_vec();
        lines.sort_by_key(|line| line["part"].as_u64());
        assert_eq!(lines.len() as u64, lines[0]["parts"].as_u64().unwrap());
        lines.iter().flat_map(|line| STANDARD.decode(line["body"].as_str().unwrap()).unwrap()).collect()
    }

    fn parsed(text: &str) -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<StdMutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_body_is_written_as_lines_that_say_what_they_are() {
        let written = Shared::default();
        let verdict = Stdout::on(Box::new(written.clone())).send(&parcel(b"body".to_vec())).await;
        assert_eq!(verdict, Verdict::Delivered { rejected: 0, message: None });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines = parsed(&text);
        assert_eq!(lines.len(), 1);
        let expected = serde_json::json!({
            "outlast.fallback": 1, "id": "00112233445566778899aabbccddeeff", "part": 1, "parts": 1,
            "signal": "traces", "format": "application/x-protobuf", "encoding": "gzip", "records": 42,
            "body": "Ym9keQ==",
        });
        assert_eq!(lines[0], expected);
    }

    #[tokio::test]
    async fn a_stream_that_is_gone_is_a_failure_that_may_pass() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let verdict = Stdout::on(Box::new(Gone)).send(&parcel(vec![1])).await;
        assert!(
            matches!(verdict, Verdict::Retry { cause: Cause::Unreachable(_), after: None }),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_pipe_that_nobody_reads_blocks_one_thread_and_nobody_else() {
        // As in `main`.
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(writes_while_nobody_reads());
    }

    async fn writes_while_nobody_reads() {
        struct Full {
            begun: tokio::sync::mpsc::UnboundedSender<()>,
            room: std::sync::mpsc::Receiver<()>,
        }
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.begun.send(()).unwrap();
                self.room.recv().unwrap();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (make_room, room) = std::sync::mpsc::channel();
        let stdout = Arc::new(Stdout::on(Box::new(Full { begun, room })));
        let first = Arc::clone(&stdout);
        let first = tokio::spawn(async move { first.send(&parcel(vec![1])).await });
        begins.recv().await.unwrap();
        // Whoever waited gave up.
        first.abort();
        assert!(first.await.is_err());
        let next = parcel(vec![2]);
        let mut second = std::pin::pin!(stdout.send(&next));
        tokio::select! {
            biased;
            verdict = &mut second => panic!("written into a full pipe: {verdict:?}"),
            () = std::future::ready(()) => {}
        }
        assert!(begins.try_recv().is_err(), "it waits for its turn on no thread");
        tokio::task::spawn_blocking(|| {}).await.unwrap();
        make_room.send(()).unwrap();
        make_room.send(()).unwrap();
        assert_eq!(second.await, Verdict::Delivered { rejected: 0, message: None });
    }

    #[test]
    fn our_own_lines_are_known_in_both_forms_lambda_gives_them() {
        let text = lines(&parcel(vec![1, 2, 3]));
        let line = text.trim_end();
        assert!(is_echo(line.as_bytes()));
        assert!(is_echo(serde_json::to_string(line).unwrap().as_bytes()));
        assert!(
            !is_echo(br#""outlast WARN fallback: away""#) && !is_echo(br#"{"message":"outlast.fallback"}"#)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_length_lines_are_short_enough_and_join_to_the_body(
            length in prop_oneof![1..2_000usize, PART_BYTES - 2..PART_BYTES + 3, 2 * PART_BYTES - 1..2 * PART_BYTES + 2, 1..900_000usize],
            seed in any::<u64>(),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let body: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            let text = lines(&parcel(body.clone()));
            prop_assert!(text.lines().all(|line| line.len() <= LINE_MAX_BYTES));
            prop_assert!(text.len() as u64 <= lines_bytes(length));
            prop_assert_eq!(joined(&parsed(&text)), body);
        }
    }
}
