//! Where a run takes place: the backend, the disk, the sandbox with the real binary in it, and the books.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use outlast_backend::{Answer, Backend, Behaviour, Condition, Door, Fate, Reset, Verdict};
use outlast_simulator::{
    Builder, Invocation, Invoked, Moment, Sandbox, ShutdownEnd, ShutdownReason, TelemetryOptions,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{sleep, timeout};

use super::account::{Account, Arrival, Balance, key_of_event};
use super::clock::ShiftedClock;
use super::plan::Weather;
use super::requests::Requests;
use super::room::{self, Room};

/// How long anything is waited for: far more than a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// A freeze from here on may cost a request its connection (the extension's own bound is a second).
pub(crate) const LONG_FREEZE: Duration = Duration::from_millis(900);
/// The last request of a process may go unnoted if the process ends so soon after its answer.
pub(crate) const END: Duration = Duration::from_millis(100);
/// Connections that waited to be accepted are read within so long after that.
const STALE_READ: Duration = Duration::from_millis(300);
/// A smaller queue has no index.
const INDEX_WORTH_BYTES: u64 = 8 << 20;
/// Once drained, no more than this is left on disk.
pub(crate) const DRAINED_MAX_BYTES: u64 = 1 << 20;
/// While a run settles the function is busy like this.
const SETTLING_RUN: Duration = Duration::from_millis(40);
const INVOCATIONS_PER_MARKER: u32 = 50;
/// SHUTDOWNs until everything must be out.
const ENDS_MAX: u32 = 6;

/// What was seen of the extension besides its records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    pub(crate) rss_max_kib: u64,
    pub(crate) disk_max_bytes: u64,
    /// The same for the present sandbox, whose settings say what it may be.
    disk_of_sandbox_max_bytes: u64,
    /// The files there were then.
    files_of_sandbox: Vec<(String, u64)>,
    /// What the extension added to each undisturbed invocation, in microseconds.
    pub(crate) added_micros: Vec<u64>,
    pub(crate) processes: u64,
    pub(crate) shutdowns: u64,
    pub(crate) killed_at_deadline: u64,
}

/// The books of a run.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) account: Account,
    /// The same for the further destination, and the sum of its balances.
    pub(crate) of_further: Account,
    pub(crate) sum_of_further: Balance,
    pub(crate) sum: Balance,
    pub(crate) watched: Watched,
    /// Repeats of records whose request's fate the extension could not know.
    pub(crate) explained_repeats: u64,
    /// Records that the fallback has.
    pub(crate) handed_over: u64,
    pub(crate) problems: Vec<String>,
    /// When a request under way may have been lost sight of.
    disruptions: Vec<(Instant, Instant)>,
    /// Since when connections wait to be accepted. What is sent on them is read once they are, whoever sent it.
    unaccepted_since: Option<Instant>,
    /// What the queue's ledger said at the last balance.
    ledger: u64,
    ledger_of_further: u64,
    /// Whether there was one in the latest episode.
    had_further: bool,
    /// By how much reports said more than was dropped, at the last balance.
    over_told: u64,
}

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

/// A backend that can be shown in a failing test.
pub(crate) struct BackendHandle(pub(crate) Backend);

impl std::fmt::Debug for BackendHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.url())
    }
}

impl BackendHandle {
    /// Makes it so.
    pub(crate) async fn make(&self, weather: Weather, seed: u64) {
        let behaviour = match weather {
            Weather::Healthy => Behaviour::healthy(),
            Weather::Refused => return self.set_door(Door::Refused).await.unwrap(),
            Weather::Unaccepted => return self.set_door(Door::Unaccepted).await.unwrap(),
            Weather::Unreachable => return self.set_door(Door::Unreachable).await.unwrap(),
            Weather::ResetBeforeBody => Behaviour::Reset(Reset::BeforeBody),
            Weather::ResetWithin(bytes) => Behaviour::Reset(Reset::AfterBytes(bytes)),
            Weather::ResetAfter { kept } => Behaviour::Reset(Reset::AfterBody(fate(kept))),
            Weather::Hang { kept } => Behaviour::Hang(fate(kept)),
            Weather::Status(status) => Behaviour::status(status),
            Weather::RetryAfter(status, seconds) => {
                Behaviour::answer(Answer::new(status).retry_after_seconds(seconds))
            }
            Weather::Flaky(status, probability) => {
                Behaviour::status(status).when(Condition::chance(probability, seed))
            }
            Weather::TooLarge(bytes) => Behaviour::too_large_above_plain(bytes),
            Weather::Poison => Behaviour::poisoned_by(|record| record.text.contains(POISON)),
            Weather::Partial(rejected) => Behaviour::partial(rejected, "not all of them"),
            Weather::Garbage => Behaviour::garbage("<html>welcome</html>"),
            Weather::NoGzip => Behaviour::no_gzip(),
            Weather::Slow(delay) => Behaviour::healthy().after(delay),
            Weather::Trickle(pause) => Behaviour::healthy().trickled(pause),
            Weather::Redirect => Behaviour::redirect(302, self.url()),
        };
        self.behave(behaviour);
        self.set_door(Door::Open).await.unwrap();
    }
}

impl std::ops::Deref for BackendHandle {
    type Target = Backend;
    fn deref(&self) -> &Backend {
        &self.0
    }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
        lock(&self.books).disruptions.push((from, to));
    }

    /// Makes the backend so.
    pub(crate) async fn weather(&self, weather: Weather, seed: u64) {
        self.accept_again();
        if weather == Weather::Unaccepted {
            lock(&self.books).unaccepted_since = Some(Instant::now());
        }
        self.backend.make(weather, seed).await;
    }

    fn all(&self) -> [&BackendHandle; 3] {
        [&self.backend, &self.fallback, &self.further]
    }

    fn accept_again(&self) {
        let mut books = lock(&self.books);
        if let Some(since) = books.unaccepted_since.take() {
            books.disruptions.push((since, Instant::now() + STALE_READ));
        }
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
            books.account.acknowledge(key);
            if environment.has_further {
                books.of_further.acknowledge(key);
            }
        }
        for arrival in further {
            books.of_further.receive(arrival);
        }
        for arrival in arrivals {
            books.account.receive(arrival);
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
        books.disruptions.push((now.checked_sub(END).unwrap_or(now), now));
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
        self.accept_again();
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
            while markers == 0 || (self.books().account.is_awaiting() && began.elapsed() < PATIENCE) {
                // The last in the queue: once it is through, so is everything before it. A full queue may drop it.
                let marker = format!("{marker} end {attempt}.{markers}");
                markers += 1;
                self.books().account.wait_for(&marker);
                self.invoke(environment, Invocation::new().line(marker.as_str())).await;
                for _ in 0..INVOCATIONS_PER_MARKER {
                    if !self.books().account.is_awaiting() {
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

    fn balance(&self, environment: &Environment, ledgers: Option<(u64, u64)>, innocents: bool) -> Balance {
        let dropped_by_lambda = environment.lambda.dropped();
        let mut undelivered = lock(&environment.undelivered);
        let lost_by_lambda = dropped_by_lambda - *undelivered;
        *undelivered = dropped_by_lambda;
        let mut books = lock(&self.books);
        let books = &mut *books;
        let requests = Requests { primary: self.backend.requests(), fallback: self.fallback.requests() };
        let of_further = Requests { primary: self.further.requests(), fallback: Vec::new() };
        for (account, requests, is_first) in
            [(&mut books.account, &requests, true), (&mut books.of_further, &of_further, false)]
        {
            let mut needless: BTreeMap<(u64, u64), u64> = BTreeMap::new();
            for repeat in account.take_repeats() {
                // The one that began first may have been taken last.
                let (first, _) = requests.in_order(repeat.before, repeat.again);
                // What the extension says of itself is stored again if its segment goes before the first destination has it,
                // and then goes to all of them.
                let is_told_again = repeat.own && !is_first;
                if is_told_again
                    || requests.is_unknown(first, &books.disruptions, environment.request_timeout)
                {
                    books.explained_repeats += 1;
                } else {
                    *needless.entry((repeat.before, repeat.again)).or_default() += 1;
                }
            }
            for ((first, again), records) in needless {
                let told = requests.around(first, again);
                books.problems.push(format!(
                    "{records} records came again in request {again} after request {first}, without need: {told:#?}"
                ));
            }
        }
        let disruptions = std::mem::take(&mut books.disruptions);
        let dropped = if let Some((ledger, ledger_of_further)) = ledgers {
            // One that was not set meanwhile was forgotten.
            let before =
                if ledger_of_further < books.ledger_of_further { 0 } else { books.ledger_of_further };
            books.ledger_of_further = ledger_of_further;
            let mut of_further =
                books.of_further.close(ledger_of_further - before, lost_by_lambda, |request| {
                    of_further.is_unknown(request, &disruptions, environment.request_timeout)
                });
            if !std::mem::replace(&mut books.had_further, environment.has_further) {
                // A new one gets what is still stored, though the others have it.
                of_further.unacknowledged = 0;
            }
            let problems = of_further.problems(false).into_iter();
            books.problems.extend(problems.map(|problem| format!("further destination: {problem}")));
            books.sum_of_further.add(&of_further);
            let dropped = ledger.saturating_sub(books.ledger);
            books.ledger = ledger;
            dropped
        } else {
            let said = environment.lambda.extension_output();
            let said: Vec<_> = said.iter().rev().take(3).map(|line| line.text.as_str()).collect();
            let problem = format!("it is not all out at SHUTDOWN: {said:?}");
            books.problems.push(problem);
            0
        };
        books.handed_over += books.account.handed_over();
        let balance = books.account.close(dropped, lost_by_lambda, |request| {
            requests.is_unknown(request, &disruptions, environment.request_timeout)
        });
        books.problems.extend(balance.problems(innocents));
        if balance.first_parts > disruptions.len() as u64 {
            let Balance { first_parts, parts, .. } = balance;
            books.problems.push(format!("{parts} parts of {first_parts} records that nothing came between"));
        }
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
        books.sum.add(&balance);
        let told: u64 = books.account.reported().values().sum();
        let over_told = told.saturating_sub(books.sum.dropped);
        if over_told > books.over_told {
            let problem = format!("reports speak of {told} records, {} were dropped", books.sum.dropped);
            books.problems.push(problem);
            books.over_told = over_told;
        }
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
        (books.ledger, books.ledger_of_further) = (0, 0);
    }
}

/// The name of the further destination.
pub(crate) const FURTHER: &str = "further";

/// What a poisonous line contains.
pub(crate) const POISON: &str = "poison";

fn fate(kept: bool) -> Fate {
    if kept { Fate::Kept } else { Fate::Lost }
}

/// How many log records the last line says were dropped since the queue was made: for the backend, and for the further
/// destination if there is one. Nothing if it says that something is left on disk for either.
fn dropped_if_drained(line: &str, has_further: bool) -> Option<(u64, u64)> {
    let mut parts = line.split("; ");
    let (left, dropped) = counts(parts.next()?)?;
    let further = parts.find_map(|part| part.strip_prefix(FURTHER));
    let (left_for_further, dropped_for_further) = match further {
        Some(part) if has_further => counts(part)?,
        None if has_further => return None,
        _ => (0, 0),
    };
    (left + left_for_further == 0).then_some((dropped, dropped_for_further))
}

/// What a part of the last line says is left on disk, of all signals, and how many log records were dropped.
fn counts(line: &str) -> Option<(u64, u64)> {
    let (left, rest) = line.split_once(" left on disk")?;
    let (_, dropped) = rest.split_once(" dropped")?;
    let mut by_signal = dropped.split(')').next()?.trim_start_matches(" (").split(", ");
    let logs = by_signal.find_map(|count| count.strip_suffix(" logs")).unwrap_or("0");
    Some((left.rsplit(' ').next()?.parse().ok()?, logs.parse().ok()?))
}

/// `VmHWM` of the extension in KiB.
fn rss_max_kib(process: i32) -> Option<u64> {
    // Before exec it is a copy of ours.
    let executable = std::fs::read_link(format!("/proc/{process}/exe")).ok()?;
    (executable != std::env::current_exe().ok()?).then_some(())?;
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Reads memory and disk now and then, for as long as the sandbox lives.
async fn watch(lambda: Weak<Sandbox>, queue: PathBuf, books: Arc<Mutex<Books>>) {
    let mut last = 0;
    while let Some(lambda) = lambda.upgrade() {
        let process = lambda.process_ids().first().copied();
        drop(lambda);
        let rss = process.and_then(rss_max_kib);
        // A walk may count a file under two names, if it is renamed meanwhile.
        let disk = room::bytes_below(&queue).min(room::bytes_below(&queue));
        if let Some(process) = process.filter(|process| *process != last) {
            last = process;
            lock(&books).watched.processes += 1;
        }
        note(&mut lock(&books).watched, rss.unwrap_or_default(), disk, &queue);
        sleep(WATCH_EVERY).await;
    }
}

fn note(watched: &mut Watched, rss_kib: u64, disk_bytes: u64, queue: &Path) {
    if disk_bytes > watched.disk_of_sandbox_max_bytes {
        watched.files_of_sandbox = room::files_in(queue);
    }
    watched.rss_max_kib = watched.rss_max_kib.max(rss_kib);
    watched.disk_max_bytes = watched.disk_max_bytes.max(disk_bytes);
    watched.disk_of_sandbox_max_bytes = watched.disk_of_sandbox_max_bytes.max(disk_bytes);
}

/// Cuts the backend's idle connections at every freeze, as a network forgets those of a frozen sandbox, and notes long
/// freezes.
async fn note_freezes(
    mut moments: tokio::sync::broadcast::Receiver<Moment>,
    backend: Backend,
    books: Arc<Mutex<Books>>,
) {
    let mut frozen = None;
    loop {
        match moments.recv().await {
            Ok(Moment::Frozen) => {
                frozen = Some(Instant::now());
                backend.cut_idle().await;
            }
            Ok(_) => {
                let since = frozen.take().filter(|since: &Instant| since.elapsed() >= LONG_FREEZE);
                if let Some(since) = since {
                    lock(&books).disruptions.push((since, Instant::now()));
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
