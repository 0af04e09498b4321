//! The `outlast` extension: read the settings, register, listen, subscribe, run until SHUTDOWN.

use outlast::clock::{self, Clock};
use outlast::config::{self, Config};
use outlast::encode::Otlp;
use outlast::keeper::{About, Keeper, Setup};
use outlast::lambda::{
    EventKind, LambdaError, Poller, Registration, RuntimeApi, Subscription, extension_name,
};
use outlast::lifecycle::{self, Parts};
use outlast::listen::Listener;
use outlast::queue::Limits;
use outlast::{Signal, logging};
use std::env;
use std::process::ExitCode;
use tokio::runtime::{self, Runtime};

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
        Ok(runtime) => complete(runtime, run(loaded.config)).map_err(|error| error.to_string()),
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

/// Runs `work`, and leaves behind what still blocks a thread: a name lookup can hang for far longer than SHUTDOWN
/// allows, and dropping the runtime would wait for it.
fn complete<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
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
    let ready = match config.signal_url(Signal::Logs) {
        None => {
            log::error!("nowhere to send: set OUTLAST_ENDPOINT; the function runs without telemetry");
            None
        }
        Some(_) => listen(&config, &mut api, &registration, continuous).await,
    };
    let poller = match Poller::start(api, &registration.identifier) {
        Ok(poller) => poller,
        Err(error) => return log::error!("cannot ask for events: {error}"),
    };
    let Some((keeper, subscribed)) = ready else { return lifecycle::idle(poller).await };
    let wire = Box::new(Otlp);
    lifecycle::run(Parts { config, poller, keeper, wire, clock, continuous, subscribed }).await;
}

/// Starts the keeper and the listener, and subscribes. `None` if that is not possible.
async fn listen(
    config: &Config,
    api: &mut RuntimeApi,
    registration: &Registration,
    concurrent: bool,
) -> Option<(Keeper, bool)> {
    let setup = Setup {
        dir: config.queue_dir.clone(),
        limits: Limits::new(config.queue_max_bytes, config.overflow),
        wire: Box::new(Otlp),
        about: about(config, registration),
        epoch_unix_nanos: clock::unix_now_nanos(),
        concurrent,
    };
    let keeper = Keeper::start(setup).inspect_err(|e| log::error!("cannot start a thread: {e}")).ok()?;
    let (listener, port) = Listener::bind().await.inspect_err(|error| log::error!("{error}")).ok()?;
    tokio::spawn(listener.serve(keeper.inbox.clone()));
    let subscribed = match api.subscribe(&registration.identifier, &config.telemetry, port).await {
        Ok(Subscription::Active { .. }) => true,
        Ok(Subscription::NotSupported) => false,
        Err(error) => {
            log::error!("cannot subscribe to telemetry: {error}");
            // If nothing comes after all, that is noticed at the first invocation.
            error.may_have_succeeded()
        }
    };
    Some((keeper, subscribed))
}

fn about(config: &Config, registration: &Registration) -> About {
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    About {
        function_name: named(&registration.function_name).or(env::var("AWS_LAMBDA_FUNCTION_NAME").ok()),
        function_version: named(&registration.function_version),
        region: env::var("AWS_REGION").ok(),
        account_id: registration.account_id.clone(),
        memory_mb: env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").ok().and_then(|size| size.parse().ok()),
        invoked_function_arn: None,
        instance_id: None,
        service_name: config.service_name.clone(),
        resource_attributes: config.resource_attributes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_that_hangs_does_not_keep_the_process() {
        let (release, hanging) = mpsc::channel::<()>();
        let (report, ended) = mpsc::channel();
        let main = std::thread::spawn(move || {
            complete(runtime::Builder::new_current_thread().build().unwrap(), async move {
                tokio::task::spawn_blocking(move || hanging.recv());
                // Once this has begun the one before it has, too: there is a thread for each.
                tokio::task::spawn_blocking(|| {}).await.unwrap();
            });
            report.send(()).unwrap();
        });
        // Far longer than it takes, and the only way to tell waiting from hanging.
        let in_time = ended.recv_timeout(std::time::Duration::from_secs(20)).is_ok();
        drop(release);
        main.join().unwrap();
        assert!(in_time, "it waited for the hanging thread");
    }
}
