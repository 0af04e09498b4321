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
use crate::drain::executor::Landed;
use crate::drain::policy::{Event, Settings};
use crate::keeper::{Job, Keeper, Noted, Notice, Vital, token};
use crate::lambda::{LambdaEvent, Poller, Received, ShutdownReason};
use crate::logging;
use crate::observe::Ending;
use crate::queue::ReaderId;
use courier::{Courier, Outlets, Settlement};
use last_line::last_line;
use leaving::{Leaving, shutdown_budget};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

mod courier;
mod last_line;
mod leaving;
#[cfg(test)]
mod tests;

/// SHUTDOWN begins so much later, at most, for what the keeper held back. It takes a millisecond; longer only if
/// the keeper is busy, which will be noticed later, or its disk hangs.
const FINISH_WAIT: Duration = Duration::from_millis(30);

/// What the lifecycle is made of.
pub struct Parts<'a> {
    /// The settings.
    pub config: Config,
    /// Lambda's events. Lent, so that whoever goes on after a failure has the poll that is out.
    pub poller: &'a mut Poller,
    /// The queues, one for each of [`Config::queues`].
    pub keepers: Vec<Keeper>,
    /// The clock whose zero the keepers were told.
    pub clock: Clock,
    /// Lambda Managed Instances.
    pub continuous: bool,
    /// Telemetry comes, and with it the end of each invocation.
    pub subscribed: bool,
}

/// Who a courier is: its place among the couriers, that of its keeper among the keepers, and who it is to that keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Whose {
    courier: usize,
    keeper: usize,
    reader: ReaderId,
}

/// Runs until SHUTDOWN is over.
pub async fn run(parts: Parts<'_>) {
    let Parts { config, poller, keepers, clock, continuous, subscribed } = parts;
    let (landed, landings) = mpsc::unbounded_channel();
    let (settled, settlements) = mpsc::unbounded_channel();
    let outlets = Outlets { landed, settled };
    let couriers = couriers(&config, &keepers, &outlets, (continuous, subscribed));
    if couriers.is_empty() {
        return idle(poller).await;
    }
    let clients: Vec<_> = couriers.iter().map(Courier::client).collect();
    let mut conductor = Conductor {
        couriers,
        clock,
        poller,
        keepers,
        landings,
        settlements,
        arn: String::new(),
        continuous,
        leaving: None,
        is_closed: false,
    };
    conductor.begin();
    // Building TLS takes milliseconds: only now, when Lambda waits for nothing.
    tokio::spawn(async move {
        for client in clients {
            client.prepared().await;
        }
    });
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

/// A courier for each destination, the main one first.
fn couriers(config: &Config, keepers: &[Keeper], outlets: &Outlets, lambda: (bool, bool)) -> Vec<Courier> {
    let mut couriers = Vec::new();
    let queues = config.queues();
    for (name, config) in config.all_destinations() {
        let found = queues.iter().zip(keepers).enumerate().find_map(|(place, (plan, keeper))| {
            let reader = plan.reader(name)?;
            Some((Whose { courier: couriers.len(), keeper: place, reader }, keeper))
        });
        let Some((whose, keeper)) = found else { continue };
        couriers.extend(Courier::new(whose, name, config, keeper, outlets, lambda));
    }
    couriers
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
    /// One for each destination, the primary first.
    couriers: Vec<Courier>,
    clock: Clock,
    poller: &'a mut Poller,
    keepers: Vec<Keeper>,
    landings: mpsc::UnboundedReceiver<Landed>,
    settlements: mpsc::UnboundedReceiver<Settlement>,
    arn: String,
    continuous: bool,
    /// Once SHUTDOWN has come.
    leaving: Option<Leaving>,
    /// The keepers take in nothing more.
    is_closed: bool,
}

/// What was waited for.
enum Happened {
    Lambda(Received),
    Notice(usize, Notice),
    Landed(Box<Landed>),
    Settled(Settlement),
    Time,
}

impl Conductor<'_> {
    fn begin(&mut self) {
        // What an earlier process left is known by now, as a rule.
        self.hear_notices();
        self.tell(Event::Started);
    }

    /// Takes note of what the keepers have said already.
    fn hear_notices(&mut self) {
        for keeper in 0..self.keepers.len() {
            while let Some(notice) = self.keepers.get_mut(keeper).and_then(|k| k.notices.try_recv().ok()) {
                self.notice(keeper, notice);
            }
        }
    }

    /// Does what is to be done, waits, and takes note of what happened. `None`: it is over.
    async fn step(&mut self) -> Option<()> {
        // Before anything is decided: SHUTDOWN may have overtaken them.
        self.hear_notices();
        self.act();
        if self.couriers.iter().all(Courier::is_done) {
            if self.is_closed {
                return None;
            }
            self.close().await;
            return Some(());
        }
        let now = self.clock.now();
        let wake = self.couriers.iter().filter_map(Courier::wake_at).min();
        let happened = tokio::select! {
            biased;
            received = self.poller.event() => Happened::Lambda(received),
            Some(landed) = self.landings.recv() => Happened::Landed(Box::new(landed)),
            Some(settlement) = self.settlements.recv() => Happened::Settled(settlement),
            (keeper, notice) = next_notice(&mut self.keepers) => Happened::Notice(keeper, notice),
            () = until(now, wake) => Happened::Time,
        };
        match happened {
            Happened::Lambda(received) => self.received(&received).await,
            Happened::Notice(keeper, notice) => self.notice(keeper, notice),
            Happened::Landed(landed) => self.landed(*landed),
            Happened::Settled(settlement) => {
                let now = self.clock.now();
                if let Some(courier) = self.couriers.get_mut(settlement.courier) {
                    courier.settled(now, settlement);
                }
            }
            Happened::Time => {}
        }
        Some(())
    }

    /// Has the keepers take in nothing more, and the couriers look at what came up to then: what is acknowledged is sent, or
    /// told as left.
    async fn close(&mut self) {
        self.is_closed = true;
        let brings_out = self.leaving.is_some_and(|leaving| leaving.for_good);
        let now = self.clock.now();
        let wait = self.leaving.map_or(FINISH_WAIT, |leaving| leaving.closing_wait(now));
        self.settle_keepers(|reply| Job::Close { brings_out, reply }, wait).await;
        let now = self.clock.now();
        self.couriers.iter_mut().for_each(|courier| courier.intake_closed(now));
    }

    /// Each courier does what it has to. The next event is asked for once all of them can do without the present one.
    fn act(&mut self) {
        for courier in &mut self.couriers {
            if let Some(keeper) = self.keepers.get(courier.keeper()) {
                courier.act(&mut self.clock, keeper);
            }
        }
        if self.couriers.iter().all(Courier::has_released) {
            self.couriers.iter_mut().for_each(Courier::begin_anew);
            self.poller.ask();
            let now = self.clock.now();
            if let Some(held) = self.couriers.first().and_then(|courier| courier.since_done(now)) {
                self.ask_first(Job::Vital(Vital::Held(held)));
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let now = self.clock.now();
        for courier in &mut self.couriers {
            courier.tell(now, event);
        }
    }

    /// Gives a job to the keeper of the primary.
    fn ask_first(&self, job: Job) {
        if let Some(keeper) = self.keepers.first() {
            keeper.ask(job);
        }
    }

    /// Gives a job to every keeper.
    fn ask_all(&self, mut job: impl FnMut() -> Job) {
        for keeper in &self.keepers {
            keeper.ask(job());
        }
    }

    async fn received(&mut self, received: &Received) {
        let now = self.clock.now();
        let deadline = received.budget().map(|budget| now.saturating_add(budget));
        self.couriers.iter_mut().for_each(Courier::begin_anew);
        match &received.event {
            LambdaEvent::Invoke { request_id, invoked_function_arn, .. } => {
                self.tell(Event::Invoke { request: token(request_id), deadline });
                if self.arn != *invoked_function_arn && !invoked_function_arn.is_empty() {
                    self.arn.clone_from(invoked_function_arn);
                    self.ask_all(|| Job::Invoked(invoked_function_arn.clone()));
                }
            }
            LambdaEvent::Shutdown { reason, .. } => {
                let deadline = now.saturating_add(shutdown_budget(received.budget(), self.continuous));
                self.ask_all(|| Job::End(ending(reason)));
                // After a reset the second half of a cut record may still come; after spindown nothing does.
                let for_good = !matches!(reason, ShutdownReason::Timeout | ShutdownReason::Failure);
                self.leaving = Some(Leaving { deadline, for_good });
                if for_good {
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

    /// Has the keepers bring out what they held back, before the policies judge whether there is anything to wait for:
    /// after spindown nobody else will send it.
    async fn finish(&mut self) {
        self.settle_keepers(Job::Finish, FINISH_WAIT).await;
    }

    /// Gives every keeper a job, and hears what they say by the time they reply, if they do within `wait`.
    async fn settle_keepers(&mut self, job: impl Fn(oneshot::Sender<()>) -> Job, wait: Duration) {
        let replies: Vec<_> = self.keepers.iter().map(|keeper| keeper.asked(&job)).collect();
        let finished = async {
            for reply in replies {
                // A keeper that is gone has nothing to bring out.
                let _gone = reply.await.err();
            }
        };
        tokio::select! {
            biased;
            () = finished => {}
            () = clock::sleep(wait) => {}
        }
        self.hear_notices();
    }

    /// Couriers of other keepers hear nothing of it: what theirs has of the same delivery it says itself.
    fn notice(&mut self, keeper: usize, notice: Notice) {
        let now = self.clock.now();
        for courier in self.couriers.iter_mut().filter(|courier| courier.keeper() == keeper) {
            match notice {
                Notice::Level(reader, signal, level) if courier.serves(keeper, reader) => {
                    courier.heard(now, signal, level);
                }
                Notice::Level(..) => {}
                Notice::Noted(Noted::Started(request)) => {
                    courier.tell(now, Event::FunctionStarted { request });
                }
                Notice::Noted(Noted::Done(request, ran)) => {
                    courier.tell(now, Event::FunctionDone { request, ran });
                }
                Notice::Noted(Noted::Reported(request)) => courier.tell(now, Event::Reported { request }),
            }
        }
    }

    fn landed(&mut self, landed: Landed) {
        let now = self.clock.now();
        let Some(courier) = self.couriers.get_mut(landed.courier) else { return };
        if let Some(keeper) = self.keepers.get(courier.keeper()) {
            courier.landed(now, landed, keeper);
        }
    }

    /// The last line.
    async fn end(&mut self) {
        self.couriers.iter_mut().for_each(Courier::end);
        let has_fallback = self.couriers.iter().any(Courier::has_fallback);
        let egress_bytes = self.couriers.iter().map(Courier::egress_bytes).sum();
        let now = self.clock.now();
        let wait = self.leaving.map_or(FINISH_WAIT, |leaving| leaving.counts_wait(now));
        let replies: Vec<_> = self.keepers.iter().map(|keeper| keeper.asked(Job::Summary)).collect();
        let summaries = async {
            let mut summaries = Vec::with_capacity(replies.len());
            for reply in replies {
                summaries.push(reply.await.ok());
            }
            summaries
        };
        let line = tokio::select! {
            biased;
            summaries = summaries => {
                let mut summaries = summaries.into_iter();
                summaries.next().flatten().map(|mut main| {
                    main.further.extend(summaries.flatten().flat_map(|summary| summary.further));
                    last_line(&main, has_fallback, egress_bytes)
                })
            }
            () = clock::sleep(wait) => Some("shutdown: the counts took too long".to_owned()),
        };
        // What the keepers took in before they counted is answered: that goes out when its connection has its turn.
        tokio::task::yield_now().await;
        if let Some(line) = line {
            let now = self.clock.now();
            logging::say(&line, self.leaving.map_or(FINISH_WAIT, |leaving| leaving.line_wait(now)));
        }
        tokio::task::yield_now().await;
    }
}

/// The next notice of any keeper, and which it is. A keeper that is gone says nothing.
async fn next_notice(keepers: &mut [Keeper]) -> (usize, Notice) {
    poll_fn(|context| {
        for (place, keeper) in keepers.iter_mut().enumerate() {
            if let Poll::Ready(Some(notice)) = keeper.notices.poll_recv(context) {
                return Poll::Ready((place, notice));
            }
        }
        Poll::Pending
    })
    .await
}

fn ending(reason: &ShutdownReason) -> Ending {
    match reason {
        ShutdownReason::Timeout => Ending::Timeout,
        ShutdownReason::Failure => Ending::Failure,
        ShutdownReason::Spindown | ShutdownReason::Other(_) => Ending::Other,
    }
}

/// Waits until `wake`; for ever if there is none.
async fn until(now: Time, wake: Option<Time>) {
    match wake {
        Some(wake) => clock::sleep(wake.saturating_sub(now)).await,
        None => std::future::pending().await,
    }
}
