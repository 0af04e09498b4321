//! Initialisation: extensions are started, all of them register, the runtime initialises, all ask for their first
//! event.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::freeze::Moment;
use super::{Core, Crash, Life, SandboxError, ShutdownReason};
use crate::clock::{self, lock};
use crate::environment;
use crate::invocation::LambdaError;
use crate::options::InitializationType;
use crate::process::{self, Exit, OnLine, OutputLine};
use crate::registry::{Registry, State};
use crate::telemetry::platform::{self, Phase, Status};

/// How long the steps of an initialisation took, each since the extensions were started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitTimes {
    /// Initialisation by itself, or inside an invocation.
    pub phase: Phase,
    /// Until all extensions had registered, which is when the runtime starts.
    pub registered: Duration,
    /// Until all extensions had asked for their first event.
    pub extensions_ready: Duration,
    /// Until everything was ready, the runtime included.
    pub total: Duration,
}

impl Core {
    /// Brings an environment to life.
    pub(super) async fn initialise(self: &Arc<Self>, life: &mut Life) -> Result<(), SandboxError> {
        let phase = life.next_phase;
        let limit = match phase {
            Phase::Init => self.options.init_limit,
            Phase::Invoke => self.options.init_limit.min(self.options.function.timeout),
        };
        let kind = self.options.initialization;
        self.reset_records(phase);
        let started = Instant::now();
        let outcome = tokio::time::timeout(limit, self.pass_gates(phase, started)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(LambdaError {
                error_type: "Sandbox.Timedout".into(),
                message: format!("Error: initialisation timed out after {:.2} seconds", limit.as_secs_f64()),
            })
        });
        let status = match &outcome {
            Ok(_) => Status::success(),
            Err(error) => Status::failed(&error.error_type),
        };
        {
            let mut registry = lock(&self.registry);
            registry.open = false;
            for (name, events) in registry.descriptions() {
                let state = if outcome.is_ok() { "Ready" } else { "Registered" };
                let record = serde_json::json!({"name": name, "state": state, "events": events});
                self.hub.emit("platform.extension", &record);
            }
        }
        let total = started.elapsed();
        self.hub.emit("platform.initReport", &platform::init_report(kind, phase, &status, total));
        self.hub.close_subscriptions();
        life.alive = true;
        life.restored = false;
        let (registered, extensions_ready) = match outcome {
            Ok(times) => times,
            Err(error) => {
                self.end(life, ShutdownReason::Failure).await;
                return Err(SandboxError::Init(error));
            }
        };
        *lock(&self.times) = Some(InitTimes { phase, registered, extensions_ready, total });
        life.init = (kind == InitializationType::OnDemand && phase == Phase::Init).then_some(total);
        self.announce(Moment::Initialised(phase));
        self.freeze_later();
        Ok(())
    }

    fn reset_records(&self, phase: Phase) {
        self.ending.store(false, Ordering::Relaxed);
        *lock(&self.registry) = Registry::new(self.options.initialization);
        lock(&self.processes).clear();
        let function = &self.options.function;
        let date = clock::iso_now().get(..10).unwrap_or_default().replace('-', "/");
        let instance_id =
            format!("{date}/{}[{}]{:032x}", function.name, function.version, fastrand::u128(..));
        self.hub.open();
        let record = platform::init_start(function, &instance_id, self.options.initialization, phase);
        self.hub.emit("platform.initStart", &record);
        *lock(&self.instance_id) = instance_id;
    }

    /// Returns when all had registered and when all extensions were ready, since `started`.
    async fn pass_gates(
        self: &Arc<Self>,
        phase: Phase,
        started: Instant,
    ) -> Result<(Duration, Duration), LambdaError> {
        for extension in &self.options.extensions {
            self.launch(extension)?;
        }
        self.gate(Registry::all_registered).await?;
        let registered = started.elapsed();
        let runtime = async {
            tokio::time::sleep(self.options.function.init_runs_for).await;
            for line in &self.options.function.init_logs {
                self.hub.emit_line("function", &format!("{line}\n"), None);
            }
            let record = platform::init_runtime_done(self.options.initialization, phase, &Status::success());
            self.hub.emit("platform.initRuntimeDone", &record);
            Ok(())
        };
        let extensions = async {
            self.gate(Registry::all_ready).await?;
            Ok(started.elapsed())
        };
        let ((), ready) = tokio::try_join!(runtime, extensions)?;
        Ok((registered, ready))
    }

    /// Waits for a condition of all extensions, or for the failure of one.
    async fn gate(&self, condition: fn(&Registry) -> bool) -> Result<(), LambdaError> {
        self.until(|core| {
            if let Some(error) = core.failure(None) {
                return Some(Err(error));
            }
            condition(&lock(&core.registry)).then_some(Ok(()))
        })
        .await
    }

    /// The failure of an extension, worded for the client of this request.
    pub(super) fn failure(&self, request_id: Option<&str>) -> Option<LambdaError> {
        let registry = lock(&self.registry);
        let (extension, error_type) = registry.failed()?;
        let detail = match (&extension.error_type, error_type) {
            (Some(given), _) => given.clone(),
            (None, "Extension.Crash") => {
                let processes = lock(&self.processes);
                let exit = processes.iter().find(|p| p.name == extension.name).and_then(|p| p.exit);
                exit.map_or_else(|| "unknown".into(), Exit::wording)
            }
            (None, _) => "UnknownError".into(),
        };
        let message = match request_id {
            Some(request_id) => format!("RequestId: {request_id} Error: {detail}"),
            None => format!("Error: {detail}"),
        };
        Some(LambdaError { error_type: error_type.to_owned(), message })
    }

    fn launch(self: &Arc<Self>, executable: &Path) -> Result<(), LambdaError> {
        let name = executable.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let variables = environment::variables(
            self.api,
            &self.options.function,
            self.options.initialization,
            &self.options.variables,
        );
        lock(&self.registry).launch(&name);
        let core = Arc::downgrade(self);
        // Held while starting, so that an exit finds the process in the list.
        let mut processes = lock(&self.processes);
        let group = Arc::new(std::sync::OnceLock::new());
        let on_exit = {
            let (core, group) = (Weak::clone(&core), Arc::clone(&group));
            move |exit| {
                if let (Some(core), Some(group)) = (core.upgrade(), group.get()) {
                    core.exited(*group, exit);
                }
            }
        };
        match process::start(executable, &name, &variables, record_line(core), on_exit) {
            Ok(process) => {
                // Set once: this closure's process is the only writer.
                let _first = group.set(process.group).is_ok();
                processes.push(process);
                self.guardian.watch(processes.iter().filter(|p| p.exit.is_none()).map(|p| p.group));
                Ok(())
            }
            Err(error) => {
                let reason = match error.kind() {
                    std::io::ErrorKind::PermissionDenied => "PermissionDenied",
                    _ => "UnknownError",
                };
                drop(processes);
                if let Some(extension) = lock(&self.registry).named(&name) {
                    extension.state = State::LaunchError;
                    extension.error_type = Some(reason.to_owned());
                }
                let message = format!("Error: {reason}");
                Err(LambdaError { error_type: "Extension.LaunchError".into(), message })
            }
        }
    }

    fn exited(&self, group: Pid, exit: Exit) {
        let mut registry = lock(&self.registry);
        let mut processes = lock(&self.processes);
        let Some(process) = processes.iter_mut().find(|p| p.group == group && p.exit.is_none()) else {
            return;
        };
        process.exit = Some(exit);
        let name = process.name.clone();
        drop(processes);
        if let Some(extension) = registry.named(&name)
            && !matches!(extension.state, State::InitError | State::ExitError)
        {
            extension.state = State::Exited;
        }
        drop(registry);
        if !self.ending.load(Ordering::Relaxed) {
            lock(&self.crashes).push(Crash { extension: name, exit });
        }
        self.hub.notify();
    }
}

/// Keeps a line of output and makes it telemetry of type `extension`.
fn record_line(core: Weak<Core>) -> OnLine {
    Arc::new(move |extension, stderr, text| {
        let Some(core) = core.upgrade() else { return };
        lock(&core.output).push(OutputLine {
            extension: extension.to_owned(),
            at: Instant::now(),
            stderr,
            text: text.to_owned(),
        });
        core.hub.emit_line("extension", &format!("{text}\n"), None);
        core.hub.notify();
    })
}
