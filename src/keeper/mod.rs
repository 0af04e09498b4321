//! The keeper: the one thread that owns the queue.
//!
//! Decoding, encoding, deflating and writing a delivery takes a few milliseconds; doing that beside the calls
//! to Lambda would keep an invocation waiting. So it happens on a thread of its own, which takes deliveries
//! from the listeners and jobs from the lifecycle, one after another, and tells the lifecycle what changed.
//!
//! ```text
//!  listener ── Delivery ──┐                       ┌── Notice ──> lifecycle
//!  receiver ── Export ────┼──> keeper (queue) ────┤
//!  lifecycle ── Job ──────┘                       └── reply of a job, receipt of a delivery, outcome of an export
//! ```
//! A notice goes out before the receipt: what was acknowledged before SHUTDOWN is known when that comes. Chores
//! (trying the disk, asking the index, counting what old segments hold) come by the clock, so that a busy keeper
//! does them too.
//!
//! A panic while one of them is worked on costs that one only: the queue is opened anew from the disk (what only
//! memory held is gone). If the lifecycle fails, the keeper goes on keeping deliveries for the next process.

mod blocks;
mod closing;
mod delivery;
mod exports;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod intake;
mod job;
mod level;
mod own;
mod pipeline;
mod report;
#[cfg(test)]
mod summary_tests;
mod telling;
#[cfg(test)]
mod tests;
mod tmp;

use crate::Signal;
use crate::clock::{self, Clock};
use crate::drain::policy::{Backlog, Head};
use crate::encode::WireFormat;
use crate::listen::{self, Delivery, Export, Receipt};
use crate::queue::{Disk, Limits, Queue, ReaderId, Readers, RealDisk};
use crate::record::ResourceInputs;
use closing::Closing;
use intake::Intake;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub use job::{Fared, Fate, Job, Notice, Standing, Summary};
pub use level::{Level, Levels};
pub use own::Vital;
pub use pipeline::{About, Making, Noted, token};

/// Deliveries waiting for the keeper. Lambda sends one at a time; more only come from repeats and strangers,
/// and their bodies are bounded by the listener.
const DELIVERIES_WAITING_MAX: usize = 8;
/// Exports waiting for the keeper. An SDK has one of each signal under way; their bodies are bounded by the receiver.
const EXPORTS_WAITING_MAX: usize = 8;
/// How often the disk is tried while it takes or gives nothing, and what is left to count is counted.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(500);

/// How long the first delivery after a restart waits for the index, which takes 50 to 90 ms to open in a debug build (and
/// nothing at all in a new environment, which has none): Lambda waits for the answer, the function does not.
const INDEX_WAIT: Duration = Duration::from_millis(250);

/// A smaller queue does without the index: that takes up to 1 MB of its budget, and there is little to read at start.
const INDEX_WORTH_BYTES: u64 = 8 << 20;

/// A directory that nobody can ever make: below a file.
const NO_DIRECTORY: &str = "/dev/null/outlast";

/// What the keeper needs to know to start.
pub struct Setup {
    /// `OUTLAST_QUEUE_DIR`
    pub dir: PathBuf,
    /// The file system that is on, asked for whenever the queue is opened.
    pub disk: fn() -> Box<dyn Disk>,
    /// Sizes.
    pub limits: Limits,
    /// What blocks are encoded as.
    pub wire: Box<dyn WireFormat>,
    /// What the telemetry is about.
    pub about: About,
    /// When the lifecycle's clock stood at zero, Unix nanoseconds.
    pub epoch_unix_nanos: u64,
    /// What is made of deliveries.
    pub making: Making,
    /// The destinations that are served from it: the main one (which gets nothing if it is served from another queue) and
    /// the further ones.
    pub readers: Readers,
    /// What the function's SDK sends gets the attributes of the function, where it has none of that name.
    pub completes_resources: bool,
}

/// The lifecycle's end of the keeper.
#[derive(Debug)]
pub struct Keeper {
    jobs: mpsc::UnboundedSender<Job>,
    /// Where the listener puts deliveries.
    pub inbox: mpsc::Sender<Delivery>,
    /// Where the OTLP receiver puts exports.
    pub exports: mpsc::Sender<Export>,
    /// What changed.
    pub notices: mpsc::UnboundedReceiver<Notice>,
}

impl Keeper {
    /// Starts the thread; the queue is opened there.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn start(setup: Setup) -> std::io::Result<Self> {
        let (jobs, job_queue) = mpsc::unbounded_channel();
        let (inbox, deliveries) = mpsc::channel(DELIVERIES_WAITING_MAX);
        let (exports, export_queue) = mpsc::channel(EXPORTS_WAITING_MAX);
        let (notify, notices) = mpsc::unbounded_channel();
        thread::Builder::new().name("keeper".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            match runtime {
                Ok(runtime) => {
                    let worker = Worker::open(setup, notify);
                    runtime.block_on(worker.run(job_queue, deliveries, export_queue));
                }
                Err(error) => log::error!("keeper: {error}"),
            }
        })?;
        Ok(Self { jobs, inbox, exports, notices })
    }

    /// Gives the keeper a job. A job given to a keeper that is gone is dropped, and with it its reply.
    pub fn ask(&self, job: Job) {
        drop(self.jobs.send(job));
    }

    /// Gives the keeper a job that is answered, and where the answer comes out.
    pub fn asked<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        self.ask(job(reply));
        answer
    }

    /// Another handle for giving jobs.
    pub fn asker(&self) -> mpsc::UnboundedSender<Job> {
        self.jobs.clone()
    }
}

/// Has the fate of a request noted, and gives what the signal has waiting then. The keeper is told before this
/// returns. `None` if the keeper is gone.
pub fn land(
    jobs: &mpsc::UnboundedSender<Job>,
    reader: ReaderId,
    signal: Signal,
    fate: Fate,
) -> impl Future<Output = Option<Level>> + Send + use<> {
    let (reply, level) = oneshot::channel();
    let told = jobs.send(Job::Land { reader, signal, fate, reply });
    let jobs = jobs.clone();
    async move {
        told.ok()?;
        if let Ok(level) = level.await {
            return Some(level);
        }
        // The job came to grief and the queue was opened anew: what counts is what waits now.
        let (reply, level) = oneshot::channel();
        jobs.send(Job::Level(reader, signal, reply)).ok()?;
        level.await.ok()
    }
}

/// Runs on the keeper's thread.
struct Worker {
    setup: OpenSetup,
    intake: Intake,
    notify: mpsc::UnboundedSender<Notice>,
    /// Of the last level told.
    revision: u64,
    index_consulted: bool,
    /// How long the next delivery waits for it.
    index_wait: Duration,
    counted: bool,
    clock: Clock,
    closing: Option<Closing>,
    /// The process leaves: what would be taken in now would be neither sent nor told of.
    leaving: bool,
}

/// What is needed to open the queue again.
struct OpenSetup {
    dir: PathBuf,
    disk: fn() -> Box<dyn Disk>,
    limits: Limits,
    epoch_unix_nanos: u64,
    readers: Readers,
}

impl OpenSetup {
    fn open(&self) -> Queue {
        let queue_id = u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..));
        let (mut queue, opened) = Queue::open((self.disk)(), &self.dir, self.limits, queue_id);
        queue.serve(&self.readers);
        if let Some(problem) = &opened.problem {
            log::error!(
                "queue: {} cannot be used ({problem}): keeping up to {} bytes in memory, which a crash would lose, until it can",
                self.dir.display(),
                self.limits.memory_max_bytes
            );
            queue.stand_in();
        } else if self.limits.max_bytes >= INDEX_WORTH_BYTES {
            queue.attach_index(&self.dir);
        }
        if opened.bytes > 0 {
            log::info!("queue: found {} segments, {} bytes", opened.segments, opened.bytes);
        }
        queue
    }

    /// A queue without a disk, should opening the real one panic. What is there is left for the next process.
    fn in_memory(&self) -> Queue {
        log::error!("queue: a panic was caught at opening; only memory is used, which a crash would lose");
        let (mut queue, _) = Queue::open(Box::new(RealDisk), Path::new(NO_DIRECTORY), self.limits, 0);
        queue.serve(&self.readers);
        queue.stand_in();
        queue
    }

    /// What `signal` has waiting for the reader at the desk, in the terms of the drain.
    fn backlog(&self, queue: &mut Queue, signal: Signal) -> Backlog {
        let oldest = queue.oldest(signal);
        let waiting = queue.waiting(signal);
        let (crowded, brimming) = (queue.is_nearly_full(), queue.is_brimming());
        let Some(oldest) = oldest else { return Backlog { crowded, brimming, ..Backlog::default() } };
        Backlog {
            // Segments that are not counted yet hold something as well.
            blocks: waiting.blocks.max(1),
            bytes: waiting.plain_bytes.max(u64::from(oldest.plain_bytes)),
            oldest: oldest.received.checked_sub(self.epoch_unix_nanos).map(Duration::from_nanos),
            head: Some(Head {
                sequence: oldest.seq.0,
                records: u64::from(oldest.records),
                bytes: u64::from(oldest.plain_bytes),
            }),
            crowded,
            brimming,
        }
    }
}

impl Worker {
    fn open(setup: Setup, notify: mpsc::UnboundedSender<Notice>) -> Self {
        let Setup { dir, disk, limits, wire, about, epoch_unix_nanos, making, completes_resources, readers } =
            setup;
        let open = OpenSetup { dir, disk, limits, epoch_unix_nanos, readers };
        let opened = catch_unwind(|| open.open()).ok();
        let queue = opened.unwrap_or_else(|| open.in_memory());
        let mut intake = Intake::new(queue, wire, about, making);
        intake.completes_resources = completes_resources;
        let mut worker = Self {
            setup: open,
            intake,
            notify,
            revision: 0,
            index_consulted: false,
            index_wait: INDEX_WAIT,
            counted: false,
            clock: Clock::start(),
            closing: None,
            leaving: false,
        };
        worker.tell_levels();
        worker
    }

    async fn run(
        mut self,
        mut jobs: mpsc::UnboundedReceiver<Job>,
        mut deliveries: mpsc::Receiver<Delivery>,
        mut exports: mpsc::Receiver<Export>,
    ) {
        let mut chore_at = HOUSEKEEPING_INTERVAL;
        let (mut asked, mut fed, mut exported_to) = (true, true, true);
        while asked || fed || exported_to {
            let chores = self.has_chores();
            let rest = chore_at.saturating_sub(self.clock.now());
            let to_close = self.closing.map_or(Duration::ZERO, |closing| closing.rest(self.clock.now()));
            tokio::select! {
                biased;
                job = jobs.recv(), if asked => match job {
                    Some(job) => self.guarded(|worker| worker.work(job)),
                    // The lifecycle has failed. What is kept now is sent by the next process.
                    None => asked = false,
                },
                delivery = deliveries.recv(), if fed => match delivery {
                    Some(delivery) => self.guarded(|worker| worker.take(delivery)),
                    None => fed = false,
                },
                // Last of the three: whatever an SDK does, Lambda and the lifecycle come first.
                export = exports.recv(), if exported_to => match export {
                    Some(export) => self.guarded(|worker| worker.take_export(export)),
                    None => exported_to = false,
                },
                () = idle(), if self.index_consulted && !self.counted => self.guarded(Self::chore),
                () = clock::sleep(rest), if chores && !self.is_unsettled() => {}
                () = clock::sleep(to_close), if self.closing.is_some() => {}
            }
            if self.closing.is_some() {
                self.guarded(Self::close_if_due);
            }
            // By the clock, so that a busy keeper does its chores as well.
            if chores && self.clock.now() >= chore_at && !self.is_unsettled() {
                self.guarded(Self::chore);
                chore_at = self.clock.now().saturating_add(HOUSEKEEPING_INTERVAL);
            }
        }
    }

    /// A request is under way while the disk takes nothing: the queue's place on disk cannot change before it lands.
    fn is_unsettled(&self) -> bool {
        let queue = &self.intake.queue;
        queue.is_degraded() && queue.is_sending()
    }

    /// Runs `work`; if it panics, the queue is what the disk says it is.
    fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            log::error!("keeper: a panic was caught; the queue is opened anew");
            let reopened = catch_unwind(AssertUnwindSafe(|| self.setup.open()));
            if let Ok(queue) = reopened {
                self.intake.queue = queue;
                let carry = self.intake.queue.carry();
                self.intake.pipeline.resume(carry.as_deref());
                self.index_consulted = false;
                self.counted = false;
            }
            drop(catch_unwind(AssertUnwindSafe(|| self.tell_levels())));
        }
    }

    fn take(&mut self, delivery: Delivery) {
        let Delivery { body, received_unix_nanos, reply } = delivery;
        if self.leaving {
            return answer(reply, Receipt::Full);
        }
        self.consult_index();
        let taken = self.intake.take(&body, received_unix_nanos);
        // Its memory is counted until it is dropped.
        drop(body);
        if taken.receipt == Receipt::Repeated {
            return answer(reply, taken.receipt);
        }
        self.intake.report_drops();
        self.tell_levels();
        for noted in taken.noted {
            self.tell(Notice::Noted(noted));
        }
        // Last, so that what was acknowledged before SHUTDOWN is known to the lifecycle when that comes.
        answer(reply, taken.receipt);
    }

    fn take_export(&mut self, export: Export) {
        if self.leaving {
            return answer(export.reply, listen::Outcome::Full);
        }
        self.consult_index();
        let (outcome, reply) = self.intake.take_export(export);
        self.intake.report_drops();
        self.tell_levels();
        // Last, as above.
        answer(reply, outcome);
    }

    /// Waits for the index, once: it knows what was delivered and deleted by an earlier process, which may be what comes
    /// again now.
    fn consult_index(&mut self) {
        if !self.index_consulted {
            let wait = std::mem::take(&mut self.index_wait);
            self.index_consulted = self.intake.queue.consult_index_within(wait);
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Assemble { reader, signal, portion, encoding, reply } => {
                answer(reply, self.intake.assemble(reader, signal, portion, encoding));
            }
            Job::Land { reader, signal, fate, reply } => {
                self.intake.land(reader, signal, fate);
                self.intake.report_drops();
                answer(reply, self.level(reader, signal));
                // A report is a log record, for all of them.
                for other in self.intake.queue.readers() {
                    if (other, Signal::Logs) != (reader, signal) {
                        self.tell_level(other, Signal::Logs);
                    }
                }
            }
            Job::Level(reader, signal, reply) => answer(reply, self.level(reader, signal)),
            Job::Invoked(arn) => self.intake.pipeline.invoked(&arn),
            Job::End(ending) => {
                self.closing = Some(Closing::begun(ending, self.clock.now()));
                self.close_if_due();
            }
            Job::Finish(reply) => {
                self.intake.finish();
                self.intake.report_drops_now();
                self.intake.tell_own_at_end();
                self.tell_levels();
                answer(reply, ());
            }
            Job::Close { brings_out, reply } => {
                self.leaving = true;
                self.close();
                if brings_out {
                    // A half that came since the other jobs of SHUTDOWN, and drops.
                    self.intake.finish();
                    self.intake.report_drops_now();
                }
                self.tell_levels();
                answer(reply, ());
            }
            Job::Vital(vital) => self.intake.own.note(vital),
            Job::Standing(reader, reply) => answer(reply, self.intake.standing(reader)),
            Job::Summary(reply) => {
                self.close();
                // First what would be lost: whoever asks waits for little, and counting may take long.
                self.intake.tell_losses_now();
                self.intake.queue.close();
                while self.intake.queue.count_one() {}
                answer(reply, self.intake.summary());
            }
        }
    }

    /// Closes what is open, if nothing more is to be expected of it.
    fn close_if_due(&mut self) {
        let Some(closing) = self.closing else { return };
        let now = self.clock.now();
        if closing.is_due(now, self.intake.pipeline.awaits_an_end()) {
            self.close();
        }
        if closing.rest(now).is_zero() {
            self.closing = None;
        }
    }

    fn close(&mut self) {
        if let Some(closing) = self.closing
            && self.intake.pipeline.has_loose_ends()
        {
            self.intake.end(closing.ending());
            self.tell_levels();
        }
    }

    fn has_chores(&mut self) -> bool {
        !self.index_consulted || !self.counted || self.disk_is_out() || self.intake.owes_reports()
    }

    /// The disk takes nothing, or does not give what is on it.
    fn disk_is_out(&self) -> bool {
        self.intake.queue.is_degraded() || self.intake.queue.is_stalled()
    }

    fn chore(&mut self) {
        if self.disk_is_out() {
            // What could not be read when it was to be counted is counted once it can be.
            self.counted &= !self.intake.queue.is_stalled();
            self.intake.queue.try_disk();
        }
        if !self.index_consulted {
            self.index_consulted = self.intake.queue.consult_index();
        } else if !self.counted {
            self.counted = !self.intake.queue.count_one();
        }
        self.intake.report_drops();
        self.tell_levels();
    }

    fn tell_levels(&mut self) {
        for reader in self.intake.queue.readers() {
            for signal in Signal::ALL {
                self.tell_level(reader, signal);
            }
        }
    }

    fn tell(&self, notice: Notice) {
        // The lifecycle is gone only when the process is.
        let _unheard = self.notify.send(notice).err();
    }

    fn tell_level(&mut self, reader: ReaderId, signal: Signal) {
        let level = self.level(reader, signal);
        self.tell(Notice::Level(reader, signal, level));
    }

    fn level(&mut self, reader: ReaderId, signal: Signal) -> Level {
        self.revision += 1;
        let mut queue = self.intake.queue.at(reader);
        Level { revision: self.revision, backlog: self.setup.backlog(&mut queue, signal) }
    }
}

/// Replies to a job. Whoever asked may have given up waiting.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _unwanted = reply.send(value).err();
}

/// Ready when nothing else is.
async fn idle() {
    tokio::task::yield_now().await;
}

/// The parts of [`About`] as the resource wants them.
fn inputs(about: &About) -> ResourceInputs<'_> {
    ResourceInputs {
        function_name: about.function_name.as_deref(),
        function_version: about.function_version.as_deref(),
        region: about.region.as_deref(),
        account_id: about.account_id.as_deref(),
        memory_mb: about.memory_mb,
        invoked_function_arn: about.invoked_function_arn.as_deref(),
        instance_id: about.instance_id.as_deref(),
        otel_service_name: about.service_name.as_deref(),
        user_attributes: &about.resource_attributes,
    }
}
