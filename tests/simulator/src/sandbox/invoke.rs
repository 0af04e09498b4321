//! One invocation: INVOKE is released to extensions and function together, the function runs its script, and the
//! invocation is over when every INVOKE-subscribed extension has asked for its next event.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::time::{sleep_until, timeout_at};

use super::{Core, Life, SandboxError, ShutdownReason};
use crate::clock::{self, lock};
use crate::invocation::{Ending, Invocation, Invoked, LambdaError};
use crate::options::InitializationType;
use crate::registry::{InvokeGate, Lifecycle};
use crate::telemetry::platform::{self, Billing, Ran, Status, Tracing};

/// A burst gives way to the deliveries this often.
const LINES_PER_TURN: usize = 256;

/// The fixed facts of an invocation in progress.
struct Request {
    id: String,
    number: u64,
    called: Instant,
    cold: bool,
    released: Instant,
    deadline: Instant,
    tracing: Option<Tracing>,
}

/// How the function came to its end.
struct Done {
    at: Instant,
    wall: SystemTime,
    response: Result<Value, LambdaError>,
    status: Status,
    produced_bytes: usize,
    reset: Option<ShutdownReason>,
}

/// How the extensions came to theirs.
struct Gate {
    ready: Option<Instant>,
    let_go: Instant,
    status: Option<Status>,
    reset: Option<ShutdownReason>,
}

impl Core {
    pub(super) async fn invoke(self: &Arc<Self>, invocation: Invocation) -> Result<Invoked, SandboxError> {
        let called = Instant::now();
        let mut life = self.life.lock().await;
        if life.alive && self.failure(None).is_some() {
            // An extension died between invocations: what is left of the environment goes before the next one.
            self.end(&mut life, ShutdownReason::Failure).await;
        }
        let number = self.invocations.fetch_add(1, Ordering::Relaxed) + 1;
        let mut cold = life.init.is_some();
        if !life.alive {
            self.initialise(&mut life).await?;
            cold = true;
        }
        if self.options.initialization == InitializationType::ManagedInstances {
            drop(life);
            let request = self.request(number, called, cold);
            return Ok(self.invoke_managed(&invocation, request).await);
        }
        self.thaw();
        self.release_report(&mut life);
        if self.options.initialization == InitializationType::SnapStart && !life.restored {
            self.restore(&mut life).await;
            cold = true;
        }
        let request = self.request(number, called, cold);
        self.release(&request);
        let done = self.run(&invocation, &request).await;
        let client_waited = called.elapsed();
        self.emit_runtime_done(&request, &done);
        let gate = match done.reset {
            None => self.extensions_ready(&request, done.at).await,
            Some(_) => Gate { ready: None, let_go: done.at, status: None, reset: done.reset },
        };
        life.report = Some(self.report(&mut life, &request, &done, &gate));
        let reset = if let Some(reason) = gate.reset {
            Some(self.end(&mut life, reason).await)
        } else {
            self.freeze_later();
            None
        };
        Ok(Invoked {
            number: request.number,
            request_id: request.id,
            response: done.response,
            cold: request.cold,
            released: request.released,
            function: done.at.saturating_duration_since(request.released),
            client_waited,
            extensions: gate.ready.map(|ready| ready.saturating_duration_since(request.released)),
            added: gate.let_go.saturating_duration_since(done.at),
            reset,
        })
    }

    fn request(&self, number: u64, called: Instant, cold: bool) -> Request {
        let released = Instant::now();
        Request {
            id: clock::uuid(),
            number,
            called,
            cold,
            released,
            deadline: released + self.options.function.timeout,
            tracing: self.options.function.tracing.then(Tracing::new),
        }
    }

    fn release(&self, request: &Request) {
        let function = &self.options.function;
        let start = platform::start(function, &request.id, request.tracing.as_ref());
        self.hub.emit("platform.start", &start);
        let timeout_ms = u64::try_from(function.timeout.as_millis()).unwrap_or(u64::MAX);
        let mut event = json!({
            "eventType": "INVOKE",
            "deadlineMs": clock::unix_millis().saturating_add(timeout_ms),
            "requestId": request.id,
            "invokedFunctionArn": function.arn(),
        });
        if let (Some(fields), Some(tracing)) = (event.as_object_mut(), &request.tracing) {
            fields.insert("tracing".into(), tracing.event());
        }
        lock(&self.registry).release(Lifecycle::Invoke, &event);
    }

    /// The function's own time: ends with its script, its time limit, or the failure of an extension.
    async fn run(&self, invocation: &Invocation, request: &Request) -> Done {
        let failed = self.until(|core| core.failure(Some(&request.id)));
        let (response, status, reset) = tokio::select! {
            error = failed => (Err(error), None, Some(ShutdownReason::Failure)),
            () = self.script(invocation, request) => self.ended(&invocation.ending, request),
            () = sleep_until(request.deadline.into()) => self.ended(&Ending::TimesOut, request),
        };
        let at = Instant::now();
        let status = status.unwrap_or_else(|| match &response {
            Ok(_) => Status::success(),
            Err(error) => Status::failed(&error.error_type),
        });
        let produced_bytes = response.as_ref().map_or(0, |value| value.to_string().len());
        Done { at, wall: SystemTime::now(), response, status, produced_bytes, reset }
    }

    async fn script(&self, invocation: &Invocation, request: &Request) {
        let script = invocation.script(&self.options.run, request.number);
        for (line, (after, text)) in script.into_iter().enumerate() {
            let due = request.released + after;
            if due > Instant::now() {
                sleep_until(due.into()).await;
            } else if line % LINES_PER_TURN == LINES_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            self.hub.emit_line("function", &text, Some(&request.id));
        }
        if invocation.outlasts_extensions {
            self.until(|core| match lock(&core.registry).invoke_gate() {
                InvokeGate::Closed => None,
                InvokeGate::Open(_) => Some(()),
            })
            .await;
        }
        if invocation.ending == Ending::TimesOut {
            sleep_until(request.deadline.into()).await;
        } else if !invocation.runs_for.is_zero() {
            sleep_until((request.released + invocation.runs_for).into()).await;
        }
    }

    fn ended(
        &self,
        ending: &Ending,
        request: &Request,
    ) -> (Result<Value, LambdaError>, Option<Status>, Option<ShutdownReason>) {
        let error =
            |error_type: &str, message: String| LambdaError { error_type: error_type.to_owned(), message };
        let id = &request.id;
        match ending {
            Ending::Responds(value) => (Ok(value.clone()), None, None),
            Ending::Fails { error_type } => {
                (Err(error(error_type, format!("RequestId: {id} Error: {error_type}"))), None, None)
            }
            Ending::TimesOut => {
                let seconds = self.options.function.timeout.as_secs_f64();
                let message = format!("RequestId: {id} Error: Task timed out after {seconds:.2} seconds");
                (Err(error("Sandbox.Timedout", message)), None, Some(ShutdownReason::Timeout))
            }
            Ending::Exits { code } => {
                let message = format!("RequestId: {id} Error: Runtime exited with error: exit status {code}");
                (Err(error("Runtime.ExitError", message)), None, Some(ShutdownReason::Failure))
            }
        }
    }

    fn emit_runtime_done(&self, request: &Request, done: &Done) {
        if lock(&self.hub.options).runtime_done {
            self.hub.emit(
                "platform.runtimeDone",
                &platform::runtime_done(&ran(request, done, &done.status, self.tenant())),
            );
        }
    }

    fn tenant(&self) -> Option<&str> {
        self.options.function.tenant.as_deref()
    }

    async fn extensions_ready(&self, request: &Request, done: Instant) -> Gate {
        let ready = self.until(|core| {
            if let Some(error) = core.failure(Some(&request.id)) {
                return Some(Err(error));
            }
            match lock(&core.registry).invoke_gate() {
                InvokeGate::Closed => None,
                InvokeGate::Open(last) => Some(Ok(last)),
            }
        });
        let failed = |status, reason| Gate {
            ready: None,
            let_go: Instant::now(),
            status: Some(status),
            reset: Some(reason),
        };
        match timeout_at(request.deadline.into(), ready).await {
            Ok(Ok(ready)) => Gate { ready, let_go: ready.unwrap_or(done), status: None, reset: None },
            Ok(Err(error)) => failed(Status::failed(&error.error_type), ShutdownReason::Failure),
            Err(_) => failed(Status::failed("Sandbox.Timedout"), ShutdownReason::Timeout),
        }
    }

    fn report(&self, life: &mut Life, request: &Request, done: &Done, gate: &Gate) -> Value {
        let end = gate.let_go.max(done.at);
        let billing = Billing {
            memory_mb: self.options.function.memory_mb,
            total: end.saturating_duration_since(request.released),
            init: life.init.take(),
            restore: life.restore.take(),
            overhead: end.saturating_duration_since(done.at),
        };
        let status = gate.status.as_ref().unwrap_or(&done.status);
        platform::report(&ran(request, done, status, self.tenant()), &billing)
    }

    async fn restore(&self, life: &mut Life) {
        let instance_id = lock(&self.instance_id).clone();
        let record = platform::restore_start(&self.options.function, &instance_id);
        self.hub.emit("platform.restoreStart", &record);
        let started = Instant::now();
        tokio::time::sleep(self.options.restore_takes).await;
        self.hub.emit("platform.restoreRuntimeDone", &platform::restore_runtime_done());
        let took = started.elapsed();
        self.hub.emit("platform.restoreReport", &platform::restore_report(took));
        life.restore = Some(took);
        life.restored = true;
    }

    /// Managed Instances: several at once, extensions are told nothing, a time-out ends nothing.
    async fn invoke_managed(self: &Arc<Self>, invocation: &Invocation, request: Request) -> Invoked {
        let start = platform::start(&self.options.function, &request.id, request.tracing.as_ref());
        self.hub.emit("platform.start", &start);
        let done = self.run(invocation, &request).await;
        let client_waited = request.called.elapsed();
        if lock(&self.hub.options).report {
            self.hub.emit(
                "platform.report",
                &platform::managed_report(&ran(&request, &done, &done.status, self.tenant())),
            );
        }
        // The whole environment ends with an extension or the runtime, but not with a time-out.
        let reset = match done.reset {
            Some(ShutdownReason::Failure) => {
                let mut life = self.life.lock().await;
                Some(self.end(&mut life, ShutdownReason::Failure).await)
            }
            _ => None,
        };
        Invoked {
            number: request.number,
            request_id: request.id,
            response: done.response,
            cold: request.cold,
            released: request.released,
            function: done.at.saturating_duration_since(request.released),
            client_waited,
            extensions: None,
            added: Duration::ZERO,
            reset,
        }
    }
}

fn ran<'a>(request: &'a Request, done: &'a Done, status: &'a Status, tenant: Option<&'a str>) -> Ran<'a> {
    Ran {
        request_id: &request.id,
        status,
        took: done.at.saturating_duration_since(request.released),
        done: done.wall,
        produced_bytes: done.produced_bytes,
        tracing: request.tracing.as_ref(),
        tenant,
    }
}
