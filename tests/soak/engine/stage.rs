//! Where a run takes place: the backend, the disk, and the sandbox with the real binary in it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outlast_backend::{Backend, Verdict};
use outlast_simulator::{
    Builder, Invocation, Invoked, Sandbox, ShutdownEnd, ShutdownReason, TelemetryOptions,
};
use tokio::time::timeout;

use super::account::{Arrival, Balance, key_of_event};
use super::backends::BackendHandle;
use super::books::{Books, Evidence};
use super::clock::ShiftedClock;
use super::last_line::dropped_if_drained;
use super::plan::Weather;
use super::requests::{END, Requests};
use super::room::{self, Room};
use super::watch::{note_freezes, rss_max_kib, watch};

/// How long anything is waited for: far more than a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// A smaller queue has no index.
const INDEX_WORTH_BYTES: u64 = 8 << 20;
/// Once drained, no more than this is left on disk.
pub(crate) const DRAINED_MAX_BYTES: u64 = 1 << 20;
/// While a run settles the function is busy like this.
const SETTLING_RUN: Duration = Duration::from_millis(40);
const INVOCATIONS_PER_MARKER: u32 = 50;
/// SHUTDOWNs until everything must be out.
const ENDS_MAX: u32 = 6;

/// See the module.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) backend: BackendHandle,
    /// A second backend for what the first does not take, in some episodes.
    pub(crate) fallback: BackendHandle,
    /// A further destination, in some episodes.
    pub(crate) further: BackendHandle,
    pub(crate) room: Option<Room>,
    pub(crate) clock: Option<ShiftedClock>,
    extension: PathBuf,
    queue: PathBuf,
    books: Arc<Mutex<Books>>,
}

/// A sandbox and how far it was read.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) lambda: Arc<Sandbox>,
    events_seen: Mutex<usize>,
    lines_seen: Mutex<usize>,
    crashes_seen: Mutex<usize>,
    undelivered: Mutex<u64>,
    /// The most that may be on disk.
    disk_limit_bytes: u64,
    /// Requests that take longer than this were given up by the extension.
    request_timeout: Duration,
    /// There is a further destination, which gets everything as well.
    pub(crate) has_further: bool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    /// A stage whose queue is below `dir`.
    pub(crate) fn new(extension: &Path, dir: &Path) -> Self {
        let room = Room::mine();
        let disk = room.as_ref().map_or(dir, Room::dir);
        Self {
            backend: BackendHandle(Backend::builder().start().unwrap()),
            fallback: BackendHandle(Backend::builder().start().unwrap()),
            further: BackendHandle(Backend::builder().start().unwrap()),
            queue: disk.join("queue"),
            room,
            clock: None,
            extension: extension.to_owned(),
            books: Arc::default(),
        }
    }

    /// Gives the extension a clock that can be shifted, if that can be built.
    pub(crate) fn with_clock(mut self, dir: &Path) -> Self {
        self.clock = ShiftedClock::build(dir).unwrap();
        self
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    pub(crate) fn queue(&self) -> &Path {
        &self.queue
    }

    /// A sandbox to come, with what every run needs.
    pub(crate) fn builder(&self) -> Builder {
        let builder = Sandbox::builder(&self.extension)
            .env("OUTLAST_ENDPOINT", self.backend.url())
            .env("OUTLAST_QUEUE_DIR", self.queue.display())
            .env("OUTLAST_RETRY_INITIAL", "20ms")
            // What arrives is compared with what came: the extension's own alert is a line like any other.
            .env("OUTLAST_EMF", "off")
            // The account is one of log records. Of the other signals it only says what came again.
            .env("OUTLAST_SIGNALS", "logs")
            .suppress_failed_init();
        match &self.clock {
            Some(clock) => clock.applied_to(builder),
            None => builder,
        }
    }

    /// Starts it. `queue_max_bytes` and `request_timeout` are what it was told.
    pub(crate) async fn start(
        &self,
        builder: Builder,
        queue_max_bytes: u64,
        request_timeout: Duration,
    ) -> Environment {
        let index = self.queue.join("index");
        if queue_max_bytes < INDEX_WORTH_BYTES && index.exists() {
            // Lambda never brings other settings to a disk: an index of a larger queue would lie there uncounted.
            std::fs::remove_dir_all(index).unwrap();
        }
        let lambda = Arc::new(builder.start().await.unwrap());
        let segment_bytes = (queue_max_bytes / 16).clamp(128 << 10, 4 << 20);
        let watch = watch(Arc::downgrade(&lambda), self.queue.clone(), Arc::clone(&self.books));
        tokio::spawn(watch);
        for backend in self.all() {
            tokio::spawn(note_freezes(lambda.moments(), backend.0.clone(), Arc::clone(&self.books)));
        }
        lock(&self.books).watched.disk_of_sandbox_max_bytes = 0;
        Environment {
            lambda,
            events_seen: Mutex::default(),
            lines_seen: Mutex::default(),
            crashes_seen: Mutex::default(),
            undelivered: Mutex::default(),
            disk_limit_bytes: queue_max_bytes + segment_bytes,
            request_timeout,
            has_further: false,
        }
    }

    pub(crate) fn problem(&self, problem: impl Into<String>) {
        lock(&self.books).problems.push(problem.into());
    }

    /// A request under way since `from` may have been lost sight of until now.
    pub(crate) fn disrupted(&self, from: Instant) {
        self.disrupted_until(from, Instant::now());
    }

    /// The same, until another moment.
    pub(crate) fn disrupted_until(&self, from: Instant, to: Instant) {
        lock(&self.books).disrupted(from, to);
    }

    /// Makes the backend so.
    pub(crate) async fn weather(&self, weather: Weather, seed: u64) {
        lock(&self.books).accepts(weather != Weather::Unaccepted);
        self.backend.make(weather, seed).await;
    }

    fn all(&self) -> [&BackendHandle; 3] {
        [&self.backend, &self.fallback, &self.further]
    }

    /// Reads what is new at both ends.
    pub(crate) fn observe(&self, environment: &Environment) {
        let mut seen = lock(&environment.events_seen);
        let events = environment.lambda.acknowledged_from(*seen);
        *seen += events.len();
        // Not under the lock: others wait for that who are to keep time.
        let keys: Vec<_> = events.iter().map(|event| key_of_event(event)).collect();
        let mut arrivals: Vec<_> = self.backend.take_records().iter().map(Arrival::of).collect();
        let handed = self.fallback.take_records();
        arrivals.extend(handed.iter().map(|record| Arrival::of(record).at_fallback()));
        let further: Vec<_> = self.further.take_records().iter().map(Arrival::of).collect();
        let mut books = lock(&self.books);
        for key in keys {
            books.main.account.acknowledge(key);
            if environment.has_further {
                books.further.account.acknowledge(key);
            }
        }
        for arrival in further {
            books.further.account.receive(arrival);
        }
        for arrival in arrivals {
            books.main.account.receive(arrival);
        }
        let mut lines = lock(&environment.lines_seen);
        let output = environment.lambda.extension_output();
        for line in output.iter().skip(*lines).filter(|line| line.text.contains("panic")) {
            books.problems.push(format!("the extension said: {}", line.text));
        }
        *lines = output.len();
    }

    /// An invocation that nothing disturbs but the backend and the disk: it must succeed.
    pub(crate) async fn invoke(&self, environment: &Environment, invocation: Invocation) {
        match timeout(PATIENCE, environment.lambda.invoke(invocation)).await {
            Err(_) => self.problem("an invocation does not end"),
            Ok(Err(error)) => self.problem(format!("an invocation failed: {error}")),
            Ok(Ok(invoked)) => {
                if let Err(error) = &invoked.response {
                    self.problem(format!("an invocation failed: {error:?}"));
                }
                lock(&self.books).watched.added_micros.push(invoked.added_micros());
            }
        }
        self.observe(environment);
    }

    /// An invocation that may fail.
    pub(crate) async fn invoke_whatever_comes(&self, environment: &Environment, invocation: Invocation) {
        match timeout(PATIENCE, environment.lambda.invoke(invocation)).await {
            Err(_) => self.problem("an invocation does not end"),
            Ok(Ok(Invoked { reset: Some(end), .. })) => self.note_end(&end),
            // An initialisation that was killed fails.
            Ok(_) => {}
        }
        self.observe(environment);
    }

    /// SHUTDOWN; the extension must leave by itself.
    pub(crate) async fn shut_down(&self, environment: &Environment, reason: ShutdownReason) {
        let Ok(end) = timeout(PATIENCE, environment.lambda.shutdown(reason)).await else {
            return self.problem("SHUTDOWN does not end");
        };
        self.note_end(&end);
        self.observe(environment);
    }

    pub(crate) fn note_end(&self, end: &ShutdownEnd) {
        let mut books = lock(&self.books);
        let now = Instant::now();
        books.disrupted(now.checked_sub(END).unwrap_or(now), now);
        books.watched.shutdowns += u64::from(!end.extensions.is_empty());
        let by_us = end.extensions.iter().any(|extension| extension.took < end.deadline - end.delivered);
        books.watched.killed_at_deadline += u64::from(!end.exited_by_itself() && !by_us);
        if end.exited_by_itself() && end.exit_code().is_some_and(|code| code != 0) {
            books.problems.push(format!("the extension left SHUTDOWN with {:?}", end.exit_code()));
        }
    }

    /// Sees to it that everything is delivered: the backend is well, there is room, the clock is right; and `marker`, a
    /// line that no other is like, comes through. Then SHUTDOWN, until nothing is left on disk. Then the balance.
    pub(crate) async fn settle(&self, environment: &Environment, marker: &str, innocents: bool) -> Balance {
        lock(&self.books).accepts(true);
        for backend in self.all() {
            backend.recover().await.unwrap();
        }
        if let Some(room) = &self.room {
            room.free().unwrap();
        }
        environment.lambda.telemetry(|options| *options = TelemetryOptions::default());
        let mut ledgers = None;
        for attempt in 0..ENDS_MAX {
            let began = Instant::now();
            let mut markers = 0;
            while markers == 0 || (self.books().main.account.is_awaiting() && began.elapsed() < PATIENCE) {
                // The last in the queue: once it is through, so is everything before it. A full queue may drop it.
                let marker = format!("{marker} end {attempt}.{markers}");
                markers += 1;
                self.books().main.account.wait_for(&marker);
                self.invoke(environment, Invocation::new().line(marker.as_str())).await;
                for _ in 0..INVOCATIONS_PER_MARKER {
                    if !self.books().main.account.is_awaiting() {
                        break;
                    }
                    self.invoke(environment, Invocation::new().runs_for(SETTLING_RUN)).await;
                }
            }
            self.shut_down(environment, ShutdownReason::Spindown).await;
            let lines = environment.lambda.extension_output();
            let last = lines.iter().rev().find(|line| line.text.contains("shutdown: "));
            ledgers = last.and_then(|line| dropped_if_drained(&line.text, environment.has_further));
            if ledgers.is_some() {
                break;
            }
        }
        let came_in = |received: &outlast_backend::Received| {
            received.undecoded() == 0 && received.requests_with(&Verdict::Pending) == 0
        };
        for backend in self.all() {
            if backend.wait_for(came_in, PATIENCE).await.is_err() {
                self.problem("requests do not end");
            }
        }
        self.observe(environment);
        self.balance(environment, ledgers, innocents)
    }

    fn balance(&self, environment: &Environment, dropped: Option<(u64, u64)>, innocents: bool) -> Balance {
        let dropped_by_lambda = environment.lambda.dropped();
        let undelivered =
            dropped_by_lambda - std::mem::replace(&mut *lock(&environment.undelivered), dropped_by_lambda);
        let evidence = Evidence {
            dropped,
            undelivered,
            has_further: environment.has_further,
            innocents,
            request_timeout: environment.request_timeout,
            requests: Requests { primary: self.backend.requests(), fallback: self.fallback.requests() },
            requests_of_further: Requests { primary: self.further.requests(), fallback: Vec::new() },
        };
        let mut books = lock(&self.books);
        if dropped.is_none() {
            let said = environment.lambda.extension_output();
            let said: Vec<_> = said.iter().rev().take(3).map(|line| line.text.as_str()).collect();
            books.problems.push(format!("it is not all out at SHUTDOWN: {said:?}"));
        }
        let balance = books.balance(&evidence);
        let (most, limit) = (books.watched.disk_of_sandbox_max_bytes, environment.disk_limit_bytes);
        if most > limit {
            let files = &books.watched.files_of_sandbox;
            let problem = format!("{most} bytes on disk, above {limit}; then or just after: {files:?}");
            books.problems.push(problem);
        }
        let left = room::bytes_below(&self.queue);
        if left > DRAINED_MAX_BYTES {
            books.problems.push(format!("{left} bytes on disk once drained"));
        }
        let crashes = environment.lambda.crashes();
        let mut seen = lock(&environment.crashes_seen);
        // A SIGKILL of ours may be reaped only after the next start.
        for crash in crashes.iter().skip(*seen).filter(|crash| crash.exit.signal != Some(libc::SIGKILL)) {
            books.problems.push(format!("{crash:?}"));
        }
        *seen = crashes.len();
        balance
    }

    /// The most memory since the last time, of the process that runs now.
    pub(crate) fn take_rss_max(&self, environment: &Environment) -> u64 {
        let process = environment.lambda.process_ids().first().copied();
        std::mem::take(&mut lock(&self.books).watched.rss_max_kib)
            .max(process.and_then(rss_max_kib).unwrap_or_default())
    }

    /// The queue's directory is removed while nothing runs: the next process begins with nothing.
    pub(crate) fn wipe(&self) {
        std::fs::remove_dir_all(&self.queue).unwrap();
        let mut books = lock(&self.books);
        (books.main.dropped, books.further.dropped) = (0, 0);
    }
}
