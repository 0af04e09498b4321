//! The sandbox itself: what a test holds in its hand. The phases of an environment's life are in files of their own:
//! [`init`], [`invoke`], [`shutdown`], [`freeze`].

mod builder;
mod freeze;
mod init;
mod invoke;
mod shutdown;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use crate::clock::lock;
use crate::invocation::{Invocation, Invoked, LambdaError};
use crate::options::TelemetryOptions;
use crate::process::{Exit, Guardian, OutputLine, Process};
use crate::registry::{Registry, State};
use crate::telemetry::event::Event;
use crate::telemetry::platform::Phase;
use crate::telemetry::{Delivery, Hub};

pub use builder::Builder;
pub(crate) use builder::Options;
pub use freeze::Moment;
pub use init::InitTimes;
pub use shutdown::{ExtensionEnd, ShutdownEnd, ShutdownReason};

/// What can go wrong with the sandbox, as opposed to what it simulates going wrong.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The API port could not be opened.
    #[error("cannot open the API port: {0}")]
    Listen(#[source] std::io::Error),
    /// An extension path names no file.
    #[error("{0} is not a path to an executable")]
    NoSuchExtension(std::path::PathBuf),
    /// Initialisation failed, in Lambda's words.
    #[error("initialisation failed: {}: {}", .0.error_type, .0.message)]
    Init(LambdaError),
}

/// An exit of an extension that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// The extension's name.
    pub extension: String,
    /// How it ended. Any exit outside SHUTDOWN is a crash, code 0 included.
    pub exit: Exit,
}

/// What the parts of a sandbox share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) api: SocketAddr,
    pub(crate) hub: Arc<Hub>,
    pub(crate) registry: Mutex<Registry>,
    processes: Mutex<Vec<Process>>,
    output: Mutex<Vec<OutputLine>>,
    crashes: Mutex<Vec<Crash>>,
    times: Mutex<Option<InitTimes>>,
    instance_id: Mutex<String>,
    freezer: Mutex<freeze::Freezer>,
    moments: broadcast::Sender<Moment>,
    guardian: Guardian,
    /// The environment is being ended, so that exits are no crashes.
    ending: AtomicBool,
    invocations: AtomicU64,
    life: tokio::sync::Mutex<Life>,
}

/// The part of an environment's state that outlives its processes.
#[derive(Debug)]
struct Life {
    alive: bool,
    /// What the next initialisation calls itself.
    next_phase: Phase,
    /// Duration of an initialisation that no `platform.report` has told yet.
    init: Option<Duration>,
    restore: Option<Duration>,
    restored: bool,
    /// `platform.report` of the last invocation, withheld until the environment runs again.
    report: Option<Value>,
}

impl Core {
    /// Waits until `check` yields something. It is tried again after every change.
    async fn until<T>(&self, mut check: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changed = self.hub.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(found) = check(self) {
                return found;
            }
            // The sender lives in `self`.
            let _changed = changed.changed().await.is_ok();
        }
    }
}

/// A simulated Lambda environment around one or more extension processes.
///
/// All methods take `&self`. Invocations take turns, as they do in Lambda, except with Managed Instances, where
/// several may run at once (`tokio::join!`). Dropping the sandbox kills its processes.
#[derive(Debug)]
pub struct Sandbox {
    core: Arc<Core>,
    server: AbortHandle,
}

impl Sandbox {
    /// A sandbox around this executable. Nothing runs before [`Builder::start`].
    pub fn builder(extension: impl AsRef<Path>) -> Builder {
        Builder::new(extension.as_ref())
    }

    /// Runs one invocation; initialises the environment first where there is none. Returns when the function is done
    /// and every INVOKE-subscribed extension has asked for its next event, or when the environment was reset.
    pub async fn invoke(&self, invocation: Invocation) -> Result<Invoked, SandboxError> {
        self.core.invoke(invocation).await
    }

    /// Ends the environment as Lambda does. Returns when all processes are gone, by themselves or by SIGKILL at the
    /// deadline. The next invocation starts a new environment with the same variables.
    pub async fn shutdown(&self, reason: ShutdownReason) -> ShutdownEnd {
        let mut life = self.core.life.lock().await;
        let end = self.core.end(&mut life, reason).await;
        life.next_phase = Phase::Init;
        end
    }

    /// SIGKILL to all process groups at once, in the middle of an invocation too, without any SHUTDOWN. The next
    /// invocation initialises again.
    pub async fn kill(&self) {
        self.core.kill().await;
    }

    /// SIGSTOP to all process groups at once, whatever they are doing. The sandbox takes it for slowness: its clocks go
    /// on. [`resume`](Self::resume) ends it.
    pub fn pause(&self) {
        self.core.signal_all(rustix::process::Signal::STOP);
    }

    /// SIGCONT to all process groups, after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.core.signal_all(rustix::process::Signal::CONT);
    }

    /// Changes how the Telemetry API behaves from now on.
    pub fn telemetry(&self, change: impl FnOnce(&mut TelemetryOptions)) {
        change(&mut lock(&self.core.hub.options));
    }

    /// Every event that an extension answered 2xx, in the order of the answers, each once.
    pub fn acknowledged(&self) -> Vec<Arc<Event>> {
        self.core.hub.acknowledged()
    }

    /// Those of [`acknowledged`](Self::acknowledged) from the `first` on, so that a long run need not copy them all.
    pub fn acknowledged_from(&self, first: usize) -> Vec<Arc<Event>> {
        self.core.hub.acknowledged_from(first)
    }

    /// The text of every acknowledged `function` record, without the end of line.
    pub fn acknowledged_lines(&self) -> Vec<String> {
        let events = self.core.hub.acknowledged();
        let lines = events.iter().filter(|event| event.kind == "function").filter_map(|event| event.text());
        lines.map(|line| line.trim_end().to_owned()).collect()
    }

    /// How many events have been acknowledged.
    pub fn acknowledged_count(&self) -> usize {
        self.core.hub.acknowledged_count()
    }

    /// Every request sent to a subscriber, with its outcome.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.core.hub.deliveries()
    }

    /// Events that no subscriber will ever get: dropped by the rules of delivery, or gone with an environment.
    pub fn dropped(&self) -> u64 {
        self.core.hub.dropped()
    }

    /// Waits until every event made so far is acknowledged or dropped. Never returns while the environment is frozen
    /// with events waiting.
    pub async fn settled(&self) {
        self.core.until(|core| core.hub.is_settled().then_some(())).await;
    }

    /// Waits until this many events have been acknowledged in all.
    pub async fn until_acknowledged(&self, events: usize) {
        self.core.until(|core| (core.hub.acknowledged_count() >= events).then_some(())).await;
    }

    /// Waits until an acknowledged event satisfies the condition.
    pub async fn until_acknowledges(&self, mut condition: impl FnMut(&Event) -> bool) {
        let mut seen = 0;
        self.core
            .until(|core| {
                let events = core.hub.acknowledged();
                let found = events.iter().skip(seen).any(|event| condition(event));
                seen = events.len();
                found.then_some(())
            })
            .await;
    }

    /// Waits until the condition yields something. It is tried again after every change of the sandbox: a call, a line
    /// of output, a delivery, a freeze, an exit.
    pub async fn until<T>(&self, mut check: impl FnMut(&Self) -> Option<T>) -> T {
        self.core.until(|_| check(self)).await
    }

    /// Makes a telemetry event of any type, known or not.
    pub fn emit(&self, kind: impl Into<String>, record: &Value) {
        self.core.hub.emit(kind.into(), record);
    }

    /// Makes the waiting events due at once.
    pub fn flush(&self) {
        self.core.hub.flush();
    }

    /// Posts an arbitrary body to the first subscriber and returns the status of the answer.
    pub async fn inject(&self, body: &[u8]) -> std::io::Result<u16> {
        let manner = lock(&self.core.hub.options).manner;
        self.core.hub.inject(body, manner).await
    }

    /// The port that the first subscriber listens on, for whoever else wants to talk to it.
    pub fn telemetry_port(&self) -> Option<u16> {
        self.core.hub.subscriber_port()
    }

    /// What the extensions have written so far.
    pub fn extension_output(&self) -> Vec<OutputLine> {
        lock(&self.core.output).clone()
    }

    /// Waits for a line of the extensions' output that satisfies the condition, earlier ones included.
    pub async fn until_output(&self, mut condition: impl FnMut(&str) -> bool) -> OutputLine {
        self.core.until(|core| lock(&core.output).iter().find(|line| condition(&line.text)).cloned()).await
    }

    /// Exits that nobody asked for.
    pub fn crashes(&self) -> Vec<Crash> {
        lock(&self.core.crashes).clone()
    }

    /// Freezes, thaws, initialisations and ends as they happen; a backend cuts its idle connections on
    /// [`Moment::Frozen`].
    pub fn moments(&self) -> broadcast::Receiver<Moment> {
        self.core.moments.subscribe()
    }

    /// Waits until the environment is frozen; returns at once where it is.
    pub async fn frozen(&self) {
        self.core.until(|core| lock(&core.freezer).is_frozen().then_some(())).await;
    }

    /// How long the last initialisation took.
    pub fn init_times(&self) -> Option<InitTimes> {
        *lock(&self.core.times)
    }

    /// State of each extension, by name, in the order of starting and registering.
    pub fn extensions(&self) -> Vec<(String, State)> {
        lock(&self.core.registry).extensions.iter().map(|e| (e.name.clone(), e.state)).collect()
    }

    /// Waits until the extension of this name is in this state.
    pub async fn until_extension(&self, name: &str, state: State) {
        let reached =
            |core: &Core| lock(&core.registry).named(name).is_some_and(|e| e.state == state).then_some(());
        self.core.until(reached).await;
    }

    /// Events that were released into polls whose clients had gone.
    pub fn lost_events(&self) -> u64 {
        lock(&self.core.registry).lost_events
    }

    /// Process ids of the running extensions.
    pub fn process_ids(&self) -> Vec<i32> {
        let processes = lock(&self.core.processes);
        processes.iter().filter(|p| p.exit.is_none()).map(|p| p.group.as_raw_nonzero().get()).collect()
    }

    /// `AWS_LAMBDA_RUNTIME_API`.
    pub fn api_address(&self) -> SocketAddr {
        self.core.api
    }

    /// The label in the generated log lines.
    pub fn run(&self) -> &str {
        &self.core.options.run
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.server.abort();
        self.core.ending.store(true, std::sync::atomic::Ordering::Relaxed);
        for process in lock(&self.core.processes).iter() {
            process.signal(rustix::process::Signal::KILL);
        }
        self.core.hub.end();
    }
}

/// Copies a directory with all that is in it: a snapshot's disk, to start two sandboxes from.
pub fn copy_directory(from: impl AsRef<Path>, to: impl AsRef<Path>) -> std::io::Result<()> {
    let to = to.as_ref();
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(entry.path(), target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
