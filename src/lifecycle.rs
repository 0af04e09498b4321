//! The conductor: waits for whatever happens, tells the policy, does what the policy says.
//!
//! ```text
//!   next (Lambda) ──┐
//!   keeper's notices├─> select ─> Policy::on ─> Policy::next ─> apply: ask, send, abort, settle, leave
//!   ended requests ─┤
//!   wake_at ────────┘
//! ```
//! Every arm of the select may be dropped and waited for again without loss; all decisions are the policy's. Before
//! each decision the keeper's notices are heard, so that SHUTDOWN does not overtake what was acknowledged before it.

use crate::clock::{self, Clock, Time};
use crate::config::Config;
use crate::deliver::{Client, Vault};
use crate::drain::executor::{Executor, Landed};
use crate::drain::policy::{Action, Event, Outcome, Policy, Settings, Target};
use crate::encode::WireFormat;
use crate::health::Health;
use crate::keeper::{Fate, Job, Keeper, Level, Levels, Noted, Notice, Summary, Vital, land, token};
use crate::lambda::{LambdaEvent, Poller, Received, ShutdownReason};
use crate::observe::Ending;
use crate::outage::{self, Alert, Voice};
use crate::{PerSignal, Signal, fallback, logging};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What SHUTDOWN leaves us if it does not say (Lambda's 2 s less what the runtime may take of them).
const SHUTDOWN_BUDGET: Duration = Duration::from_millis(1300);

/// Lambda gives external extensions 2,000 ms (AWS developer guide, "Shutdown phase"). A deadline that seems further off
/// was compared with a wall clock that lags behind, as it may just after a thaw, and says nothing. Nor does one that
/// is over: Lambda kills at the deadline, so whoever hears of it then has a clock that is ahead.
const SHUTDOWN_BUDGET_MAX: Duration = Duration::from_secs(2);

/// The last line is worth waiting so long for the keeper.
const SUMMARY_WAIT: Duration = Duration::from_millis(50);

/// SHUTDOWN begins so much later, at most, for what the keeper held back. It takes a millisecond; longer only if
/// the keeper is busy, which will be noticed later, or its disk hangs.
const FINISH_WAIT: Duration = Duration::from_millis(30);

/// How a request ended that was given up, in metrics.
const TIMED_OUT: &str = "timed_out";

/// What the lifecycle is made of.
pub struct Parts<'a> {
    /// The settings.
    pub config: Config,
    /// Lambda's events. Lent, so that whoever goes on after a failure has the poll that is out.
    pub poller: &'a mut Poller,
    /// The queue.
    pub keeper: Keeper,
    /// What blocks are encoded as.
    pub wire: Box<dyn WireFormat>,
    /// The clock whose zero the keeper was told.
    pub clock: Clock,
    /// Lambda Managed Instances.
    pub continuous: bool,
    /// Telemetry comes, and with it the end of each invocation.
    pub subscribed: bool,
}

/// Runs until SHUTDOWN is over.
pub async fn run(parts: Parts<'_>) {
    let Parts { config, poller, keeper, wire, clock, continuous, subscribed } = parts;
    let urls: Vec<_> = Signal::ALL.into_iter().filter_map(|signal| config.signal_url(signal)).collect();
    if urls.is_empty() {
        return idle(poller).await;
    }
    let client = Arc::new(
        Client::new(&urls, config.timeout)
            .trusting(config.ca_file.clone())
            .showing(config.client_cert_file.clone(), config.client_key_file.clone()),
    );
    let vault = Arc::new(Vault::new(config.timeout, config.ca_file.clone(), |name| std::env::var(name).ok()));
    let (fallback, bounds) = fallback::open(&config, &vault).unzip();
    let settings = Settings { fallback: bounds, ..settings(&config, continuous, subscribed) };
    let fallback_name = config.fallback.as_ref().map(|place| format!("fallback {place}"));
    let (executor, landings) = Executor::new(
        &config,
        Arc::clone(&client),
        vault,
        fallback.map(Arc::new),
        wire.as_ref(),
        keeper.asker(),
    );
    let (settled, settlements) = mpsc::unbounded_channel();
    let mut conductor = Conductor {
        has_fallback: settings.fallback.is_some(),
        policy: Policy::new(settings, fastrand::u64(..)),
        clock,
        poller,
        keeper,
        executor,
        landings,
        settled,
        settlements,
        levels: Levels::default(),
        health: Health::default(),
        fallback_health: Health::of(fallback_name.unwrap_or_default()),
        hands_over: false,
        alert: Alert::after(config.outage_alert_after),
        voice: Voice::default(),
        arn: String::new(),
        continuous,
    };
    conductor.begin();
    // Building TLS takes milliseconds: only now, when Lambda waits for nothing.
    tokio::spawn(async move { client.prepared().await });
    while conductor.step().await.is_some() {}
    conductor.end().await;
}

/// Asks for events and does nothing else, for an extension that has nowhere to send or has failed: it must
/// not end before SHUTDOWN, or the function does.
pub async fn idle(poller: &mut Poller) {
    loop {
        poller.ask();
        if let LambdaEvent::Shutdown { .. } = poller.event().await.event {
            return;
        }
    }
}

fn settings(config: &Config, continuous: bool, subscribed: bool) -> Settings {
    Settings {
        batch_max_bytes: config.batch_max_bytes as u64,
        gzip: config.gzip,
        max_delay: config.max_delay,
        hold_max: config.hold_max,
        retry_initial: config.retry_initial,
        retry_max: config.retry_max,
        request_timeout: config.timeout,
        shutdown_reserve: config.shutdown_reserve,
        continuous,
        can_hold: subscribed && !continuous,
        fallback: None,
        bytes_per_second: config.rate_limit,
    }
}

struct Conductor<'a> {
    policy: Policy,
    clock: Clock,
    poller: &'a mut Poller,
    keeper: Keeper,
    executor: Executor,
    landings: mpsc::UnboundedReceiver<Landed>,
    settled: mpsc::UnboundedSender<(Signal, Level)>,
    settlements: mpsc::UnboundedReceiver<(Signal, Level)>,
    levels: Levels,
    health: Health,
    fallback_health: Health,
    has_fallback: bool,
    /// That the fallback gets something was told, and nothing was delivered since.
    hands_over: bool,
    alert: Alert,
    voice: Voice,
    arn: String,
    continuous: bool,
}

/// What was waited for.
enum Happened {
    Lambda(Received),
    Notice(Notice),
    Landed(Box<Landed>),
    Settled(Signal, Level),
    Time,
}

impl Conductor<'_> {
    fn begin(&mut self) {
        // What an earlier process left is known by now, as a rule.
        self.hear_notices();
        self.tell(Event::Started);
    }

    /// Takes note of what the keeper has said already.
    fn hear_notices(&mut self) {
        while let Ok(notice) = self.keeper.notices.try_recv() {
            self.notice(notice);
        }
    }

    /// Does what is to be done, waits, and takes note of what happened. `None`: it is over.
    async fn step(&mut self) -> Option<()> {
        // Before anything is decided: SHUTDOWN may have overtaken them.
        self.hear_notices();
        let mut now = self.clock.now();
        while let Some(action) = self.policy.next(now) {
            self.apply(action)?;
            now = self.clock.now();
        }
        let wake = self.policy.wake_at();
        let happened = tokio::select! {
            biased;
            received = self.poller.event() => Happened::Lambda(received),
            Some(landed) = self.landings.recv() => Happened::Landed(Box::new(landed)),
            Some((signal, level)) = self.settlements.recv() => Happened::Settled(signal, level),
            Some(notice) = self.keeper.notices.recv() => Happened::Notice(notice),
            () = until(now, wake) => Happened::Time,
        };
        match happened {
            Happened::Lambda(received) => self.received(&received).await,
            Happened::Notice(notice) => self.notice(notice),
            Happened::Landed(landed) => self.landed(*landed),
            Happened::Settled(signal, level) => {
                let left = self.levels.newest(signal, level);
                self.tell(Event::Settled { signal, left });
            }
            Happened::Time => {}
        }
        Some(())
    }

    fn tell(&mut self, event: Event) {
        let now = self.clock.now();
        self.policy.on(now, event);
    }

    async fn received(&mut self, received: &Received) {
        let now = self.clock.now();
        let deadline = received.budget().map(|budget| now.saturating_add(budget));
        match &received.event {
            LambdaEvent::Invoke { request_id, invoked_function_arn, .. } => {
                self.policy.on(now, Event::Invoke { request: token(request_id), deadline });
                if self.arn != *invoked_function_arn && !invoked_function_arn.is_empty() {
                    self.arn.clone_from(invoked_function_arn);
                    self.keeper.ask(Job::Invoked(self.arn.clone()));
                }
            }
            LambdaEvent::Shutdown { reason, .. } => {
                let deadline = now.saturating_add(shutdown_budget(received.budget(), self.continuous));
                self.keeper.ask(Job::End(ending(reason)));
                // After a reset the second half of a cut record may still come; after spindown nothing does.
                if !matches!(reason, ShutdownReason::Timeout | ShutdownReason::Failure) {
                    self.finish().await;
                }
                self.tell(Event::Shutdown { deadline });
            }
            LambdaEvent::Unknown(kind) => {
                log::warn!("Lambda sent an event of the unknown type {kind}");
                self.poller.ask();
            }
        }
    }

    /// Has the keeper bring out what it held back, before the policy judges whether there is anything to wait for:
    /// after spindown nobody else will send it.
    async fn finish(&mut self) {
        let (reply, finished) = oneshot::channel();
        self.keeper.ask(Job::Finish(reply));
        tokio::select! {
            biased;
            _ = finished => {}
            () = clock::sleep(FINISH_WAIT) => {}
        }
        while let Ok(notice) = self.keeper.notices.try_recv() {
            self.notice(notice);
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Level(signal, level) => {
                let level = self.levels.newest(signal, level);
                // What an earlier process left for an address that is not set any more waits, and holds nobody up.
                if self.executor.can_send(signal) {
                    self.tell(Event::Backlog { signal, level });
                }
            }
            Notice::Noted(Noted::Started(request)) => self.tell(Event::FunctionStarted { request }),
            Notice::Noted(Noted::Done(request, ran)) => self.tell(Event::FunctionDone { request, ran }),
            Notice::Noted(Noted::Reported(request)) => self.tell(Event::Reported { request }),
        }
    }

    fn landed(&mut self, landed: Landed) {
        let Landed { signal, attempt, target, sent, outcome, verdict, left } = landed;
        let left = self.levels.newest(signal, left);
        let now = self.clock.now();
        let took = self.policy.under_way(now, signal);
        if let Some(verdict) = verdict {
            self.health_of(target).note(now, &verdict, left.blocks);
        }
        match (target, outcome) {
            (Target::Primary, Outcome::Delivered) => self.hands_over = false,
            (Target::Fallback, Outcome::Delivered) => {
                // What the backend refused is there now: the search for it is over.
                self.health.found_the_fault();
                if !self.hands_over {
                    self.hands_over = true;
                    log::warn!("the fallback gets what the backend does not take");
                }
            }
            _ => {}
        }
        self.policy.on(now, Event::Answer { signal, attempt, sent, outcome, left });
        if outcome != Outcome::NotSent {
            self.ended(signal, target, outcome.name(), took);
        }
    }

    /// A request ended: metrics and alerts may want to know.
    fn ended(&mut self, signal: Signal, target: Target, result: &'static str, took: Option<Duration>) {
        let breaker_open = self.policy.is_open();
        self.keeper.ask(Job::Vital(Vital::Request { signal, target, result, took, breaker_open }));
        let now = self.clock.now();
        let Some(said) = self.alert.ended(now, self.health.outage(now)) else { return };
        let (reply, standing) = oneshot::channel();
        self.keeper.ask(Job::Standing(reply));
        let voice = self.voice.clone();
        tokio::spawn(async move {
            if let Ok(standing) = standing.await {
                let line = outage::line(said, &standing, clock::unix_now());
                voice.say(line);
            }
        });
    }

    fn apply(&mut self, action: Action) -> Option<()> {
        match action {
            Action::Next => {
                self.poller.ask();
                if let Some(held) = self.policy.since_done(self.clock.now()) {
                    self.keeper.ask(Job::Vital(Vital::Held(held)));
                }
            }
            Action::Send { signal, attempt, portion, gzip, target } => {
                self.executor.send(signal, attempt, portion, gzip, target);
            }
            Action::Abort { signal, target } => {
                let wire_bytes = self.executor.abort(signal);
                let now = self.clock.now();
                if target == Target::Primary {
                    self.policy.on(now, Event::Spent { wire_bytes });
                }
                self.health_of(target).timed_out(now);
                self.ended(signal, target, TIMED_OUT, None);
            }
            Action::RenewConnections(target) => self.executor.renew_connections(target),
            Action::Settle { signal, head, refused, delivered } => {
                if refused > 0 {
                    self.health.gave_up(self.clock.now(), signal, refused);
                }
                self.settle(signal, Fate::Settled { head, refused, delivered });
            }
            Action::Exit => return None,
        }
        Some(())
    }

    fn health_of(&mut self, target: Target) -> &mut Health {
        match target {
            Target::Primary => &mut self.health,
            Target::Fallback => &mut self.fallback_health,
        }
    }

    fn settle(&self, signal: Signal, fate: Fate) {
        let level = land(&self.keeper.asker(), signal, fate);
        let settled = self.settled.clone();
        tokio::spawn(async move {
            if let Some(level) = level.await {
                // Nobody listens any more once it is over.
                let _unheard = settled.send((signal, level)).err();
            }
        });
    }

    /// The last line.
    async fn end(&mut self) {
        self.health.end();
        let (reply, summary) = oneshot::channel();
        self.keeper.ask(Job::Summary(reply));
        tokio::select! {
            biased;
            summary = summary => if let Ok(summary) = summary { logging::say(&last_line(&summary, self.has_fallback, self.executor.egress_bytes())) },
            () = clock::sleep(SUMMARY_WAIT) => logging::say("shutdown: the counts took too long"),
        }
        // What the keeper took in before it counted is answered: that goes out when its connection has its turn.
        tokio::task::yield_now().await;
    }
}

fn ending(reason: &ShutdownReason) -> Ending {
    match reason {
        ShutdownReason::Timeout => Ending::Timeout,
        ShutdownReason::Failure => Ending::Failure,
        ShutdownReason::Spindown | ShutdownReason::Other(_) => Ending::Other,
    }
}

/// How long SHUTDOWN lasts, given what its deadline says. What Managed Instances grant is not documented, and as they are
/// never frozen their clock is right: it is believed.
fn shutdown_budget(told: Option<Duration>, continuous: bool) -> Duration {
    told.filter(|told| !told.is_zero() && (continuous || *told <= SHUTDOWN_BUDGET_MAX))
        .unwrap_or(SHUTDOWN_BUDGET)
}

fn last_line(summary: &Summary, has_fallback: bool, egress_bytes: u64) -> String {
    let Summary { received, delivered, handed, dropped, waiting, rules } = summary;
    let left = by_signal("left on disk", &PerSignal::from_fn(|signal| waiting.get(signal).records));
    let dropped = by_signal("dropped", dropped);
    let handed = if has_fallback || *handed > 0 {
        format!(", {handed} handed to the fallback")
    } else {
        String::new()
    };
    let acted = rules.iter().filter(|rule| rule.records > 0);
    let by_rule: Vec<String> =
        acted.map(|rule| format!("\"{}\" {} {}", rule.name, rule.done, rule.records)).collect();
    let by_rule =
        if by_rule.is_empty() { String::new() } else { format!("; by rules: {}", by_rule.join(", ")) };
    format!(
        "shutdown: {received} records received, {delivered} delivered{handed}, {left}, {dropped}{by_rule}; {egress_bytes} bytes sent"
    )
}

/// What became of so many records of each signal.
fn by_signal(what: &str, counts: &PerSignal<u64>) -> String {
    let total: u64 = counts.iter().map(|(_, count)| *count).sum();
    let told = counts.iter().filter(|(_, count)| **count > 0);
    let told: Vec<String> = told.map(|(signal, count)| format!("{count} {signal}")).collect();
    if told.is_empty() { format!("0 {what}") } else { format!("{total} {what} ({})", told.join(", ")) }
}

/// Waits until `wake`; for ever if there is none.
async fn until(now: Time, wake: Option<Time>) {
    match wake {
        Some(wake) => clock::sleep(wake.saturating_sub(now)).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::encode::Otlp;
    use crate::keeper::{About, Setup};
    use crate::lambda::RuntimeApi;
    use crate::listen::Delivery;
    use crate::queue::{Disk, DiskFile, Limits};
    use bytes::Bytes;
    use std::io::{self, Read, Write};
    use std::net::TcpListener;
    use std::path::Path;
    use std::thread;

    #[test]
    fn compression_is_what_the_user_set() {
        for (value, gzip) in [("gzip", true), ("none", false)] {
            let loaded = config::load([("OUTLAST_COMPRESSION", value)]);
            assert_eq!(settings(&loaded.config, false, true).gzip, gzip);
        }
    }

    #[test]
    fn a_deadline_of_shutdown_that_cannot_be_is_not_believed() {
        let told = |millis| Some(Duration::from_millis(millis));
        for millis in [1, 160, 1_300, 2_000] {
            assert_eq!(shutdown_budget(told(millis), false), Duration::from_millis(millis));
        }
        assert_eq!(shutdown_budget(told(2_001), false), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(told(40 * 24 * 3_600_000), false), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(told(0), false), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(told(0), true), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(None, false), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(told(10_000), true), Duration::from_secs(10), "nothing is frozen there");
    }

    #[test]
    fn the_last_line_tells_what_is_left_and_what_was_dropped_by_signal() {
        let mut summary = Summary { received: 9, delivered: 2, ..Summary::default() };
        let line = last_line(&summary, false, 7);
        assert_eq!(
            line,
            "shutdown: 9 records received, 2 delivered, 0 left on disk, 0 dropped; 7 bytes sent"
        );
        summary.waiting.get_mut(Signal::Traces).records = 3;
        *summary.dropped.get_mut(Signal::Logs) = 4;
        *summary.dropped.get_mut(Signal::Metrics) = 1;
        let line = last_line(&summary, true, 0);
        let told = "0 handed to the fallback, 3 left on disk (3 traces), 5 dropped (4 logs, 1 metrics)";
        assert_eq!(line, format!("shutdown: 9 records received, 2 delivered, {told}; 0 bytes sent"));
    }

    /// A file system that never comes back, as one over a network may.
    struct HangingDisk;

    impl HangingDisk {
        fn hang() -> ! {
            loop {
                thread::park();
            }
        }
    }

    impl Disk for HangingDisk {
        fn prepare(&self, _: &Path) -> io::Result<()> {
            Self::hang()
        }
        fn list(&self, _: &Path) -> io::Result<Vec<(String, u64)>> {
            Self::hang()
        }
        fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
            Self::hang()
        }
        fn open(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
            Self::hang()
        }
        fn remove(&self, _: &Path) -> io::Result<()> {
            Self::hang()
        }
        fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
            Self::hang()
        }
        fn remove_all(&self, _: &Path) -> io::Result<()> {
            Self::hang()
        }
    }

    /// A Lambda that has one event: SHUTDOWN, so long before its deadline.
    fn lambda_that_ends(budget: Duration) -> RuntimeApi {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _head = stream.read(&mut request).unwrap();
            let deadline = (clock::unix_now() + budget).as_millis();
            let body =
                format!(r#"{{"eventType":"SHUTDOWN","deadlineMs":{deadline},"shutdownReason":"spindown"}}"#);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        RuntimeApi::from_env_value(&address.to_string()).unwrap()
    }

    #[tokio::test]
    async fn a_disk_that_hangs_does_not_keep_the_process_at_shutdown() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = config::load([("OUTLAST_ENDPOINT", "http://127.0.0.1:9")]);
        let setup = Setup {
            dir: dir.path().to_path_buf(),
            disk: || Box::new(HangingDisk),
            limits: Limits::new(1 << 20, loaded.config.overflow),
            wire: Box::new(Otlp),
            about: About::default(),
            epoch_unix_nanos: 0,
            making: crate::keeper::Making::default(),
            completes_resources: false,
        };
        let keeper = Keeper::start(setup).unwrap();
        let (reply, _receipt) = oneshot::channel();
        let delivery = Delivery { body: Bytes::from_static(b"[]"), received_unix_nanos: 0, reply };
        keeper.inbox.send(delivery).await.unwrap();
        let mut poller = Poller::start(lambda_that_ends(Duration::from_millis(400)), "id").unwrap();
        let parts = Parts {
            config: loaded.config,
            poller: &mut poller,
            keeper,
            wire: Box::new(Otlp),
            clock: Clock::start(),
            continuous: false,
            subscribed: true,
        };
        // Far longer than it takes, and the only way to tell waiting from hanging.
        let ended = tokio::time::timeout(Duration::from_secs(20), run(parts)).await;
        assert!(ended.is_ok(), "it waited for the disk");
    }
}
