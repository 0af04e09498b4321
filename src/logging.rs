//! The extension's own log: single lines on stderr.
//!
//! Lambda takes each write to stderr as one log record, so a line is one write. With the type `extension`
//! subscribed to, our own lines come back to us as telemetry: nothing may log once per record.
//!
//! Nobody promises to read what we write. A pipe that is full would hold up the thread that writes, and with the main
//! thread Lambda's `next`; so a thread of its own writes, begun with the first line. Who logs waits until the line is out,
//! so that lines stand before what follows from them, but a short time only, and not again before the pipe takes some.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};

/// Lines that may come again and again are said at once, and then at most this often. A backend that refuses everything, or a
/// full queue, would otherwise cost a line per record or delivery; and where our lines are telemetry too, each would beget
/// the next.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// When lines of one kind may be said.
#[derive(Debug, Default)]
pub struct Pace {
    from: Duration,
}

impl Pace {
    /// Whether one may be said at `now`; asking is saying it.
    pub fn allows(&mut self, now: Duration) -> bool {
        let allows = now >= self.from;
        if allows {
            self.from = now.saturating_add(SAID_EVERY);
        }
        allows
    }
}

/// Lines longer than this are cut: an error text may quote a peer's answer, and a line should stay readable.
const LINE_MAX_CHARS: usize = 2_000;

/// Only our own modules are heard; what libraries log is about their insides.
const OWN_TARGET: &str = env!("CARGO_PKG_NAME");

/// How long a line is waited for: a write takes microseconds, on a starved machine a few milliseconds.
const WRITE_WAIT: Duration = Duration::from_millis(20);
/// Lines that wait for a pipe that nobody reads, some 200 bytes each. What comes then is lost, and their number told.
const LINES_WAITING_MAX: usize = 256;
/// The thread does nothing but write.
const STACK_BYTES: usize = 128 << 10;

struct Stderr;

/// A line on its way, and where it is told that it is out.
type Line = (String, SyncSender<()>);

/// Writes lines without being waited for for long.
struct Outlet {
    lines: SyncSender<Line>,
    /// The last line that was waited for did not get out in time.
    clogged: Arc<AtomicBool>,
    /// Lines there was no place for.
    lost: Arc<AtomicU64>,
}

impl Outlet {
    /// `None` if no thread can be made.
    fn start(mut sink: impl Write + Send + 'static) -> Option<Self> {
        let (lines, inbox) = sync_channel::<Line>(LINES_WAITING_MAX);
        let (clogged, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let outlet = Self { lines, clogged: Arc::clone(&clogged), lost: Arc::clone(&lost) };
        let write = move || {
            for (text, written) in inbox {
                // There is nowhere to report that stderr is gone; the function goes on.
                drop(sink.write_all(text.as_bytes()));
                let missing = lost.swap(0, Ordering::Relaxed);
                if missing > 0 {
                    drop(
                        sink.write_all(
                            format!("{OWN_TARGET} WARN {missing} lines are missing here: nobody took them\n")
                                .as_bytes(),
                        ),
                    );
                }
                clogged.store(false, Ordering::Relaxed);
                // Who wrote it may wait no longer.
                let _unwaited = written.try_send(()).err();
            }
        };
        thread::Builder::new().name("log".into()).stack_size(STACK_BYTES).spawn(write).ok()?;
        Some(outlet)
    }

    /// Writes a line, and waits for that at most so long.
    fn put(&self, text: String, wait: Duration) {
        let (written, is_out) = sync_channel(1);
        if self.lines.try_send((text, written)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if !wait.is_zero() && is_out.recv_timeout(wait).is_err() {
            self.clogged.store(true, Ordering::Relaxed);
        }
    }
}

/// `last_wait`: it is the last line of the process, and waited for so long.
fn put(text: String, last_wait: Option<Duration>) {
    static OUTLET: OnceLock<Option<Outlet>> = OnceLock::new();
    match OUTLET.get_or_init(|| Outlet::start(std::io::stderr())) {
        Some(outlet) => {
            let is_clogged = outlet.clogged.load(Ordering::Relaxed);
            outlet.put(text, last_wait.unwrap_or(if is_clogged { Duration::ZERO } else { WRITE_WAIT }));
        }
        None => drop(std::io::stderr().write_all(text.as_bytes())),
    }
}

/// Starts the log, or changes its level if it is running.
pub fn start(level: LevelFilter) {
    static LOGGER: Stderr = Stderr;
    // It fails only if a logger is set already, which is then this one.
    drop(log::set_logger(&LOGGER));
    log::set_max_level(level);
}

/// Writes a line whatever the level is, and waits for that at most so long. For the one line that every run ends with: the
/// process is gone after it.
pub fn say(message: &str, wait: Duration) {
    let level = log::Level::Info;
    put(line(&Record::builder().level(level).args(format_args!("{message}")).build()), Some(wait));
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_own(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            put(line(record), None);
        }
    }

    fn flush(&self) {}
}

fn is_own(target: &str) -> bool {
    target.strip_prefix(OWN_TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `outlast WARN message`, on one line.
fn line(record: &Record<'_>) -> String {
    let message = record.args().to_string();
    let mut line = format!("{OWN_TARGET} {} ", record.level());
    line.extend(message.chars().take(LINE_MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }));
    if message.chars().nth(LINE_MAX_CHARS).is_some() {
        line.push('…');
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;
    use std::sync::{Condvar, Mutex};

    fn written(message: &str) -> String {
        line(&Record::builder().level(Level::Warn).args(format_args!("{message}")).build())
    }

    #[test]
    fn a_record_is_one_line_with_its_level() {
        assert_eq!(written("backend away"), "outlast WARN backend away\n");
        assert_eq!(written("two\r\nlines\u{1b}[31m"), "outlast WARN two  lines [31m\n");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let line = written(&"é".repeat(LINE_MAX_CHARS + 1));
        assert_eq!(line.chars().count(), "outlast WARN ".len() + LINE_MAX_CHARS + "…\n".chars().count());
    }

    /// Takes nothing until it is opened, then all of it.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<(bool, String)>, Condvar)>);

    impl Pipe {
        fn open(&self) {
            self.0.0.lock().unwrap().0 = true;
            self.0.1.notify_all();
        }

        fn until(&self, has: impl Fn(&str) -> bool) -> String {
            let kept = self.0.0.lock().unwrap();
            self.0.1.wait_while(kept, |(_, text)| !has(text)).unwrap().1.clone()
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let kept = self.0.0.lock().unwrap();
            let mut kept = self.0.1.wait_while(kept, |(open, _)| !*open).unwrap();
            kept.1.push_str(std::str::from_utf8(bytes).unwrap());
            self.0.1.notify_all();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_out_when_who_wrote_it_goes_on() {
        let pipe = Pipe::default();
        pipe.open();
        let outlet = Outlet::start(pipe.clone()).unwrap();
        outlet.put("one\n".into(), Duration::from_secs(60));
        assert_eq!(pipe.until(|_| true), "one\n");
        assert!(!outlet.clogged.load(Ordering::Relaxed));
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_what_it_has_no_room_for_is_told() {
        let pipe = Pipe::default();
        let outlet = Outlet::start(pipe.clone()).unwrap();
        outlet.put("first\n".into(), Duration::from_millis(1));
        assert!(outlet.clogged.load(Ordering::Relaxed));
        // One more may be in the hand of the thread.
        for _ in 0..LINES_WAITING_MAX + 10 {
            outlet.put("next\n".into(), Duration::ZERO);
        }
        let lost = usize::try_from(outlet.lost.load(Ordering::Relaxed)).unwrap();
        assert!((9..=11).contains(&lost));
        pipe.open();
        // All of them: before that there is no room for another.
        let text = pipe.until(|text| text.matches("next\n").count() == LINES_WAITING_MAX + 10 - lost);
        assert!(text.starts_with("first\n"), "{text}");
        assert!(text.contains("lines are missing here"), "{text}");
        outlet.put("after\n".into(), Duration::from_secs(60));
        assert!(pipe.until(|_| true).ends_with("next\nafter\n"));
        assert!(!outlet.clogged.load(Ordering::Relaxed));
    }

    #[test]
    fn libraries_are_not_heard() {
        assert!(is_own("outlast") && is_own("outlast::drain::policy"));
        assert!(!is_own("outlaster") && !is_own("hyper::proto") && !is_own("reqwest"));
    }

    #[test]
    fn starting_twice_changes_the_level() {
        start(LevelFilter::Info);
        start(LevelFilter::Error);
        assert_eq!(log::max_level(), LevelFilter::Error);
    }
}
