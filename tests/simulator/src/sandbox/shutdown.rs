//! The end of an environment: SHUTDOWN with its deadline, and SIGKILL for whatever is left then. A reset is the same
//! pass, after which the next invocation initialises again over the same files.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::freeze::Moment;
use super::{Core, Life};
use crate::clock::{self, lock};
use crate::options::InitializationType;
use crate::process::Exit;
use crate::registry::Lifecycle;
use crate::telemetry::platform::Phase;

/// How long answers of processes that are gone are read: an attempt ends as soon as its connection does, unless somebody
/// else holds that.
const ANSWERS_WAIT: Duration = Duration::from_secs(1);

/// Why an environment ends; the `shutdownReason` of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// Idle, or recycled.
    Spindown,
    /// The function ran into its time limit.
    Timeout,
    /// The runtime or an extension failed.
    Failure,
}

impl ShutdownReason {
    /// As the event has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spindown => "spindown",
            Self::Timeout => "timeout",
            Self::Failure => "failure",
        }
    }
}

/// How one extension ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionEnd {
    /// Its name.
    pub name: String,
    /// Whether it had to be killed: at the deadline, or at once for want of a SHUTDOWN subscription.
    pub killed: bool,
    /// Exit code or signal, and when.
    pub exit: Option<Exit>,
    /// From the delivery of SHUTDOWN to the exit.
    pub took: Duration,
    /// From the exit to the deadline; `None` where it was killed there.
    pub left: Option<Duration>,
    /// How often it asked for a further event instead of leaving.
    pub asked_again: u32,
}

/// How an environment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownEnd {
    /// Why.
    pub reason: ShutdownReason,
    /// When SHUTDOWN was delivered.
    pub delivered: Instant,
    /// The deadline that was announced.
    pub deadline: Instant,
    /// Each extension.
    pub extensions: Vec<ExtensionEnd>,
}

impl ShutdownEnd {
    /// Whether every extension left without being killed.
    pub fn exited_by_itself(&self) -> bool {
        self.extensions.iter().all(|extension| !extension.killed)
    }

    /// Exit code of the first extension.
    pub fn exit_code(&self) -> Option<i32> {
        self.extensions.first()?.exit?.code
    }

    /// Time from the delivery of SHUTDOWN until the last extension was gone.
    pub fn took(&self) -> Duration {
        self.extensions.iter().map(|extension| extension.took).max().unwrap_or_default()
    }

    /// What the slowest extension left of the deadline; `None` where one was killed.
    pub fn left(&self) -> Option<Duration> {
        self.extensions.iter().map(|extension| extension.left).min().flatten()
    }
}

impl Core {
    /// Ends the environment. The next initialisation counts as part of an invocation until the caller says otherwise.
    pub(super) async fn end(self: &Arc<Self>, life: &mut Life, reason: ShutdownReason) -> ShutdownEnd {
        let now = Instant::now();
        if !life.alive {
            return ShutdownEnd { reason, delivered: now, deadline: now, extensions: Vec::new() };
        }
        self.ending.store(true, Ordering::Relaxed);
        self.thaw();
        if !self.options.shutdown.runtime_stops_in.is_zero() {
            tokio::time::sleep(self.options.shutdown.runtime_stops_in).await;
        }
        if self.options.initialization == InitializationType::ManagedInstances {
            self.hub.flush();
        }
        let budget = self.options.shutdown.budget;
        let deadline_ms = clock::unix_millis() + u64::try_from(budget.as_millis()).unwrap_or(u64::MAX);
        let delivered = Instant::now();
        let deadline = delivered + budget;
        let mut killed = self.kill_unsubscribed();
        let event =
            json!({"eventType": "SHUTDOWN", "deadlineMs": deadline_ms, "shutdownReason": reason.as_str()});
        lock(&self.registry).release(Lifecycle::Shutdown, &event);
        self.release_report(life);
        let all_gone = |core: &Self| lock(&core.processes).iter().all(|p| p.exit.is_some()).then_some(());
        if tokio::time::timeout_at(deadline.into(), self.until(all_gone)).await.is_err() {
            for process in lock(&self.processes).iter().filter(|process| process.exit.is_none()) {
                killed.push(process.name.clone());
                process.signal(Signal::KILL);
            }
            self.until(all_gone).await;
        }
        // What an extension answered before it left is in the socket, and Lambda reads it.
        let answered = self.until(|core| core.hub.is_answered().then_some(()));
        let _read = tokio::time::timeout(ANSWERS_WAIT, answered).await.is_ok();
        let registry = lock(&self.registry);
        let extensions = lock(&self.processes)
            .iter()
            .map(|process| {
                let killed = killed.contains(&process.name);
                let at = process.exit.map_or(deadline, |exit| exit.at);
                ExtensionEnd {
                    name: process.name.clone(),
                    killed,
                    exit: process.exit,
                    took: at.saturating_duration_since(delivered),
                    asked_again: registry
                        .extensions
                        .iter()
                        .find(|extension| extension.name == process.name)
                        .map_or(0, |extension| extension.asked_while_leaving),
                    left: (!killed).then(|| deadline.saturating_duration_since(at)),
                }
            })
            .collect();
        drop(registry);
        self.close(life);
        ShutdownEnd { reason, delivered, deadline, extensions }
    }

    /// An extension without a SHUTDOWN subscription gets no chance.
    fn kill_unsubscribed(&self) -> Vec<String> {
        let registry = lock(&self.registry);
        let processes = lock(&self.processes);
        let mut killed = Vec::new();
        for process in processes.iter().filter(|process| process.exit.is_none()) {
            let subscribed = registry
                .extensions
                .iter()
                .any(|e| e.name == process.name && e.subscribed(Lifecycle::Shutdown));
            if !subscribed {
                process.signal(Signal::KILL);
                killed.push(process.name.clone());
            }
        }
        killed
    }

    /// SIGKILL to everything, now.
    pub(super) async fn kill(self: &Arc<Self>) {
        self.ending.store(true, Ordering::Relaxed);
        self.signal_all(Signal::KILL);
        // An invocation in progress fails by this, and resets what is left of the environment itself.
        let mut life = self.life.lock().await;
        if life.alive {
            // Whatever was started while this waited.
            self.ending.store(true, Ordering::Relaxed);
            self.signal_all(Signal::KILL);
            self.until(|core| lock(&core.processes).iter().all(|p| p.exit.is_some()).then_some(())).await;
            self.thaw();
            self.close(&mut life);
        }
    }

    /// To every process group that is still there.
    pub(super) fn signal_all(&self, signal: Signal) {
        lock(&self.processes).iter().for_each(|process| process.signal(signal));
    }

    fn close(&self, life: &mut Life) {
        self.hub.end();
        self.guardian.watch(std::iter::empty());
        life.alive = false;
        life.next_phase = Phase::Invoke;
        life.report = None;
        self.announce(Moment::Ended);
    }

    /// Makes the withheld `platform.report`, now or after the delay that the options ask for.
    pub(super) fn release_report(self: &Arc<Self>, life: &mut Life) {
        let Some(report) = life.report.take() else { return };
        let options = *lock(&self.hub.options);
        if !options.report {
            return;
        }
        if options.report_after.is_zero() {
            self.hub.emit("platform.report", &report);
            return;
        }
        let hub = Arc::clone(&self.hub);
        tokio::spawn(async move {
            tokio::time::sleep(options.report_after).await;
            hub.emit("platform.report", &report);
            hub.flush();
        });
    }
}
