//! The `outlast` extension: read the settings, register, listen, subscribe, run until SHUTDOWN.

use outlast::clock::Clock;
use outlast::config::{self, Config};
use outlast::lambda::{EventKind, LambdaError, Poller, Registration, RuntimeApi, extension_name};
use outlast::lifecycle::{self, Parts};
use outlast::{Signal, logging, start};
use std::env;
use std::process::ExitCode;
use tokio::runtime;

/// Threads for what blocks: building TLS, and looking up the backend's name (which may hang).
const BLOCKING_THREADS_MAX: usize = 2;

fn main() -> ExitCode {
    let loaded = config::load(env::vars_os());
    logging::start(loaded.config.log);
    for problem in &loaded.problems {
        log::warn!("{problem}");
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build();
    let ended = match runtime {
        Ok(runtime) => start::complete(runtime, run(loaded.config)).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match ended {
        // Threads may still be at work; nothing they do now is needed.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            log::error!("cannot register as a Lambda extension: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Fails only where there is no way back: before registration.
async fn run(config: Config) -> Result<(), LambdaError> {
    let runtime_api = env::var("AWS_LAMBDA_RUNTIME_API").unwrap_or_default();
    let initialization = env::var("AWS_LAMBDA_INITIALIZATION_TYPE").ok();
    let events = EventKind::for_initialization(initialization.as_deref());
    let name = extension_name(env::args_os().next().as_deref(), env::current_exe().ok().as_deref());
    let mut api = RuntimeApi::from_env_value(&runtime_api)?;
    let registration = api.register(&name, events).await?;

    // From here on a failure of ours must not end the process: Lambda would fail the function.
    let continuous = !events.contains(&EventKind::Invoke);
    let again = RuntimeApi::from_env_value(&runtime_api)?;
    let working = tokio::spawn(work(config, api, registration.clone(), continuous));
    let Err(failure) = working.await else { return Ok(()) };
    log::error!("the extension failed and only keeps the function alive: {failure}");
    lifecycle::idle(Poller::start(again, &registration.identifier)?).await;
    Ok(())
}

async fn work(config: Config, mut api: RuntimeApi, registration: Registration, continuous: bool) {
    let clock = Clock::start();
    let ready = if Signal::ALL.iter().any(|signal| config.is_made(*signal)) {
        start::listen(&config, &mut api, &registration, continuous).await
    } else {
        log::error!("nowhere to send: set OUTLAST_ENDPOINT; the function runs without telemetry");
        None
    };
    let poller = match Poller::start(api, &registration.identifier) {
        Ok(poller) => poller,
        Err(error) => return log::error!("cannot ask for events: {error}"),
    };
    let Some((keeper, subscribed)) = ready else { return lifecycle::idle(poller).await };
    let wire = config.protocol.wire();
    lifecycle::run(Parts { config, poller, keeper, wire, clock, continuous, subscribed }).await;
}
