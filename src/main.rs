//! The `outlast` extension: read the settings, register, listen, subscribe, run until SHUTDOWN.

use outlast::clock::Clock;
use outlast::config::{self, Config};
use outlast::keeper::Keeper;
use outlast::lambda::{EventKind, LambdaError, Poller, Registration, RuntimeApi, extension_name};
use outlast::lifecycle::{self, Parts};
use outlast::{Signal, logging, start};
use std::env;
use std::process::ExitCode;
use tokio::runtime;

/// Threads for what blocks: building TLS, once for each client. Names are looked up, and stdout is written, in others.
const BLOCKING_THREADS_MAX: usize = 1;

/// Lambda starts its extensions without arguments, and tells them where its API is.
fn is_called_by_hand() -> bool {
    env::args_os().len() > 1 && env::var_os("AWS_LAMBDA_RUNTIME_API").is_none()
}

fn main() -> ExitCode {
    if is_called_by_hand() {
        eprintln!(
            "outlast is an extension of AWS Lambda, and takes no arguments; inspect and replay are in outlast-tool"
        );
        return ExitCode::FAILURE;
    }
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
    let clock = Clock::start();
    let continuous = !events.contains(&EventKind::Invoke);
    let ready = start::survive(prepare(&config, &mut api, &registration, continuous)).await.flatten();
    let mut poller = Poller::start(api, &registration.identifier)?;
    if let Some((keepers, subscribed)) = ready {
        let parts = Parts { config, poller: &mut poller, keepers, clock, continuous, subscribed };
        if start::survive(lifecycle::run(parts)).await.is_some() {
            return Ok(());
        }
    }
    lifecycle::idle(&mut poller).await;
    Ok(())
}

async fn prepare(
    config: &Config,
    api: &mut RuntimeApi,
    registration: &Registration,
    continuous: bool,
) -> Option<(Vec<Keeper>, bool)> {
    if !Signal::ALL.iter().any(|signal| config.is_made(*signal)) {
        log::error!("nowhere to send: set OUTLAST_ENDPOINT; the function runs without telemetry");
        return None;
    }
    start::listen(config, api, registration, continuous).await
}
