//! Settings of a sandbox, and its start.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::broadcast;

use super::{Core, Life, Sandbox, SandboxError};
use crate::api;
use crate::options::{
    Freeze, FunctionOptions, InitializationType, LogFormat, ShutdownOptions, TelemetryOptions,
};
use crate::process::Guardian;
use crate::registry::Registry;
use crate::telemetry::Hub;
use crate::telemetry::platform::Phase;

/// Moments that a slow listener may lag behind.
const MOMENTS_KEPT: usize = 1_024;

/// On-demand initialisation may take this long (AWS developer guide, "Init phase").
const INIT_LIMIT: Duration = Duration::from_secs(10);

/// The shortest grace that a timer keeps reliably; Lambda freezes within about a millisecond.
const FREEZE_GRACE: Duration = Duration::from_millis(1);

/// All settings.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) extensions: Vec<PathBuf>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) function: FunctionOptions,
    pub(crate) initialization: InitializationType,
    pub(crate) freeze: Freeze,
    pub(crate) shutdown: ShutdownOptions,
    pub(crate) telemetry: TelemetryOptions,
    pub(crate) init_limit: Duration,
    pub(crate) restore_takes: Duration,
    pub(crate) failed_init_is_suppressed: bool,
    pub(crate) events_late_by: Duration,
    pub(crate) api_host: IpAddr,
    pub(crate) run: String,
}

/// Settings of a sandbox to come. The defaults are an on-demand function with freezing on.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder(Options);

impl Builder {
    pub(super) fn new(extension: &Path) -> Self {
        Self(Options {
            extensions: vec![extension.to_owned()],
            variables: Vec::new(),
            function: FunctionOptions::default(),
            initialization: InitializationType::OnDemand,
            freeze: Freeze::After(FREEZE_GRACE),
            shutdown: ShutdownOptions::default(),
            telemetry: TelemetryOptions::default(),
            init_limit: INIT_LIMIT,
            restore_takes: Duration::from_millis(1),
            failed_init_is_suppressed: false,
            events_late_by: Duration::ZERO,
            api_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            run: format!("{:08x}", fastrand::u32(..)),
        })
    }

    /// One more extension beside the first. Its name is that of its file.
    pub fn extension(mut self, extension: impl Into<PathBuf>) -> Self {
        self.0.extensions.push(extension.into());
        self
    }

    /// A variable of the function's configuration, which the extensions get as well.
    #[allow(clippy::needless_pass_by_value, reason = "addresses, numbers and texts are passed as they are")]
    pub fn env(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.0.variables.push((name.into(), value.to_string()));
        self
    }

    /// The function.
    pub fn function(mut self, function: FunctionOptions) -> Self {
        self.0.function = function;
        self
    }

    /// The function's time limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.function.timeout = timeout;
        self
    }

    /// The function's log format.
    pub fn log_format(mut self, format: LogFormat) -> Self {
        self.0.function.log_format = format;
        self
    }

    /// Turns X-Ray tracing on.
    pub fn tracing(mut self) -> Self {
        self.0.function.tracing = true;
        self
    }

    /// The execution model. Managed Instances never freeze.
    pub fn initialization(mut self, kind: InitializationType) -> Self {
        self.0.initialization = kind;
        self
    }

    /// What happens between invocations.
    pub fn freeze(mut self, freeze: Freeze) -> Self {
        self.0.freeze = freeze;
        self
    }

    /// SHUTDOWN's timing.
    pub fn shutdown(mut self, shutdown: ShutdownOptions) -> Self {
        self.0.shutdown = shutdown;
        self
    }

    /// The Telemetry API's behaviour at the start.
    pub fn telemetry(mut self, telemetry: TelemetryOptions) -> Self {
        self.0.telemetry = telemetry;
        self
    }

    /// How long initialisation may take before it counts as failed.
    pub fn init_limit(mut self, limit: Duration) -> Self {
        self.0.init_limit = limit;
        self
    }

    /// How long a `SnapStart` restore takes.
    pub fn restore_takes(mut self, time: Duration) -> Self {
        self.0.restore_takes = time;
        self
    }

    /// A failed initialisation does not fail [`start`](Self::start): as in Lambda it is suppressed and repeated inside
    /// the first invocation.
    pub fn suppress_failed_init(mut self) -> Self {
        self.0.failed_init_is_suppressed = true;
        self
    }

    /// `next` is answered so long after the event: the function runs meanwhile, and deadlines draw near.
    pub fn events_late_by(mut self, time: Duration) -> Self {
        self.0.events_late_by = time;
        self
    }

    /// Address of the API; newer runtimes do not use 127.0.0.1.
    pub fn api_host(mut self, host: IpAddr) -> Self {
        self.0.api_host = host;
        self
    }

    /// The label in generated log lines, random by default.
    pub fn run(mut self, label: impl Into<String>) -> Self {
        self.0.run = label.into();
        self
    }

    /// Starts the extensions and initialises the environment: returns when every extension waits for its first event.
    pub async fn start(self) -> Result<Sandbox, SandboxError> {
        let mut options = self.0;
        for extension in &mut options.extensions {
            // The processes start in `/`.
            match std::path::absolute(&extension) {
                Ok(path) if path.file_name().is_some() && path.exists() => *extension = path,
                _ => return Err(SandboxError::NoSuchExtension(extension.clone())),
            }
        }
        let listener = TcpListener::bind((options.api_host, 0)).await.map_err(SandboxError::Listen)?;
        let api = listener.local_addr().map_err(SandboxError::Listen)?;
        let core = Arc::new(Core {
            api,
            hub: Arc::new(Hub::new(options.telemetry, options.function.log_format)),
            registry: Mutex::new(Registry::new(options.initialization)),
            processes: Mutex::default(),
            output: Mutex::default(),
            crashes: Mutex::default(),
            times: Mutex::default(),
            instance_id: Mutex::default(),
            freezer: Mutex::default(),
            moments: broadcast::Sender::new(MOMENTS_KEPT),
            guardian: Guardian::start(),
            ending: AtomicBool::new(false),
            invocations: AtomicU64::new(0),
            life: tokio::sync::Mutex::new(Life {
                alive: false,
                next_phase: Phase::Init,
                init: None,
                restore: None,
                restored: false,
                report: None,
            }),
            options,
        });
        let server = tokio::spawn(api::serve(listener, Arc::clone(&core))).abort_handle();
        let sandbox = Sandbox { core, server };
        let mut life = sandbox.core.life.lock().await;
        let started = sandbox.core.initialise(&mut life).await;
        drop(life);
        match started {
            Err(_) if sandbox.core.options.failed_init_is_suppressed => Ok(sandbox),
            Err(error) => Err(error),
            Ok(()) => Ok(sandbox),
        }
    }
}
