//! Between registration and the first event: the keeper and the listener are started, telemetry is subscribed to.
//! In that order, for deliveries come as soon as Lambda knows where to.

use crate::config::{self, Config};
use crate::encode::Protocol;
use crate::keeper::{About, Keeper, Making, Setup};
use crate::lambda::{Registration, RuntimeApi, Subscription};
use crate::listen::{Export, Listener, Receiver, fan_out};
use crate::observe::Rules;
use crate::queue::{Disk, Limits, Overflow, RealDisk};
use crate::rules::{RULES_MAX_BYTES, RuleSet};
use crate::{PerSignal, clock};
use std::env;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Runs `work`, and leaves behind what still blocks a thread: a name lookup can hang for far longer than SHUTDOWN
/// allows, and dropping the runtime would wait for it.
pub fn complete<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// Does `work`. If it panics, that is told, and `None` comes back: whoever asked goes on, for the process must not end
/// before SHUTDOWN.
pub async fn survive<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    // A future that panicked is not polled again: the error is ready.
    let caught = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    });
    let done = caught.await;
    if done.is_none() {
        log::error!("the extension failed and only keeps the function alive");
    }
    done
}

/// Starts the keepers and the listener, and subscribes. With the keepers, one for each of [`Config::queues`], comes whether
/// telemetry is to be expected; `None` if nothing can be taken in at all.
pub async fn listen(
    config: &Config,
    api: &mut RuntimeApi,
    registration: &Registration,
    concurrent: bool,
) -> Option<(Vec<Keeper>, bool)> {
    let making = making(config, concurrent);
    let mut keepers = Vec::new();
    let mut exported_to = Vec::new();
    let epoch_unix_nanos = clock::unix_now_nanos();
    forget_formats(config);
    for plan in config.queues() {
        let receives = plan.protocol.wire().takes_otlp();
        let has_main = plan.has_main();
        let setup = Setup {
            readers: plan.readers(),
            dir: plan.dir,
            disk: || Box::new(RealDisk),
            limits: Limits::new(plan.max_bytes, config.overflow),
            wire: plan.protocol.wire(),
            about: about(config, registration),
            epoch_unix_nanos,
            making: Making {
                signals: plan.signals,
                // They tell of the main destination.
                own_every: making.own_every.filter(|_| has_main),
                ..making.clone()
            },
            completes_resources: config.completes_resources,
        };
        let keeper = Keeper::start(setup).inspect_err(|e| log::error!("cannot start a thread: {e}")).ok()?;
        if receives {
            exported_to.push(keeper.exports.clone());
        }
        keepers.push(keeper);
    }
    let (listener, port) = Listener::bind().await.inspect_err(|error| log::error!("{error}")).ok()?;
    let inbox = fan_out(keepers.iter().map(|keeper| keeper.inbox.clone()).collect())?;
    tokio::spawn(listener.serve(inbox));
    // Before the function starts: its SDK may export while it initialises.
    if let Some(address) = config.otlp_receiver {
        receive(config, address, fan_out(exported_to)).await;
    }
    let subscribed = match api.subscribe(&registration.identifier, &config.telemetry, port).await {
        Ok(Subscription::Active { .. }) => true,
        Ok(Subscription::NotSupported) => false,
        Err(error) => {
            log::error!("cannot subscribe to telemetry: {error}");
            // If nothing comes after all, that is noticed at the first invocation.
            error.may_have_succeeded()
        }
    };
    Some((keepers, subscribed))
}

/// Removes the queues of wire formats that no further destination has any more: nobody will ever read them, and they
/// count against no budget.
fn forget_formats(config: &Config) {
    let kept = config.queues();
    let others = Protocol::ALL.map(|protocol| config.queue_dir.join(protocol.name()));
    let is_left = |dir: &PathBuf| kept.iter().all(|plan| plan.dir != *dir) && dir.symlink_metadata().is_ok();
    for dir in others.into_iter().filter(is_left) {
        let removed = RealDisk.remove_all(&dir);
        let dir = dir.display();
        match removed {
            Ok(()) => log::warn!("{dir} was for destinations that are not set any more: forgotten"),
            Err(error) => log::warn!("{dir} is for destinations that are not set any more: {error}"),
        }
    }
}

/// What is made of deliveries. Where several invocations run at once, a line without a request id belongs to none.
fn making(config: &Config, concurrent: bool) -> Making {
    Making {
        signals: PerSignal::from_fn(|signal| config.is_made(signal)),
        rules: Rules { sampler: config.sampler, price: config.price, concurrent },
        silenced: config.silenced.clone(),
        emf: config.emf,
        json_lines: config.json_lines,
        joins_lines: config.joins_lines,
        own_every: config.self_metrics,
        rule_set: config.rules.as_ref().and_then(|rules| rule_set(rules, config.otlp_receiver.is_some())),
        sorts: config.overflow == Overflow::Shed,
    }
}

/// The user's rules, as far as they are right; what is wrong is told. `receives`: the OTLP receiver is on.
fn rule_set(rules: &config::Rules, receives: bool) -> Option<RuleSet> {
    let (rules, problems) = match rules {
        config::Rules::Inline(text) => RuleSet::parse(text),
        config::Rules::File(path) => match read_rules(path) {
            Ok(text) => RuleSet::parse(&text),
            Err(error) => {
                log::warn!("OUTLAST_RULES: {} cannot be read ({error}); there are no rules", path.display());
                return None;
            }
        },
    };
    for problem in problems {
        log::warn!("OUTLAST_RULES: {problem}");
    }
    if receives && rules.redacts() {
        log::warn!("OUTLAST_RULES: what the OTLP receiver takes is sent as it came; it is not redacted");
    }
    Some(rules).filter(|rules| !rules.is_empty())
}

/// Reads a little more than rules may have: that there is too much is told with them.
fn read_rules(path: &Path) -> io::Result<String> {
    // Anything else may never end.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    File::open(path)?.take(RULES_MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Starts the OTLP receiver, or says why not. `exports`: where what it takes is kept, if any destination takes it.
async fn receive(config: &Config, address: SocketAddr, exports: Option<mpsc::Sender<Export>>) {
    let Some(exports) = exports else {
        return log::error!(
            "OUTLAST_OTLP_RECEIVER needs OUTLAST_PROTOCOL=otlp; nothing listens on {address}"
        );
    };
    let taken_by = |config: &Config, signal| config.protocol.wire().takes_otlp() && config.is_made(signal);
    let takes =
        PerSignal::from_fn(|signal| config.all_destinations().any(|(_, config)| taken_by(config, signal)));
    let bound = Receiver::bind(address, takes).await;
    match bound.and_then(|receiver| Ok((receiver.address()?, receiver))) {
        Ok((address, receiver)) => {
            log::info!("the OTLP receiver listens on {address}");
            tokio::spawn(receiver.serve(exports));
        }
        Err(error) => log::error!("the OTLP receiver cannot listen on {address}: {error}"),
    }
}

/// What the telemetry is about, from the registration, the settings and the environment variables of Lambda.
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
        tenant: None,
        service_name: config.service_name.clone(),
        resource_attributes: config.resource_attributes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::runtime;

    #[test]
    fn a_queue_of_a_format_that_nobody_has_is_forgotten_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["loki", "elasticsearch", "index", "mine"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("0000000001.seg"), b"x").unwrap();
        }
        let path = dir.path().to_str().unwrap();
        let loaded = config::load([
            ("OUTLAST_ENDPOINT", "http://main"),
            ("OUTLAST_PROTOCOL", "elasticsearch"),
            ("OUTLAST_SIGNALS", "logs"),
            ("OUTLAST_QUEUE_DIR", path),
            ("OUTLAST_DESTINATIONS", "a"),
            ("OUTLAST_A_ENDPOINT", "http://a"),
            ("OUTLAST_A_PROTOCOL", "loki"),
        ]);
        forget_formats(&loaded.config);
        let left: Vec<bool> =
            ["loki", "elasticsearch", "index", "mine"].map(|name| dir.path().join(name).exists()).to_vec();
        assert_eq!(left, [true, false, true, true], "the main one has the directory itself");
    }

    #[tokio::test]
    async fn what_was_lent_outlives_a_panic() {
        let mut lent = vec![1];
        let failed = survive(async {
            lent.push(2);
            tokio::task::yield_now().await;
            assert!(lent.len() < 2, "on purpose");
        });
        assert_eq!(failed.await, None);
        assert_eq!(lent, [1, 2]);
        assert_eq!(survive(async { 3 }).await, Some(3));
    }

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
