//! The Telemetry API's sending side: events are made, buffered per subscriber, delivered, and entered in a ledger of
//! what was acknowledged.

mod buffer;
pub(crate) mod client;
pub(crate) mod event;
pub(crate) mod platform;
mod subscriber;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::watch;

use self::client::{Client, Reply};
use self::event::Event;
use self::subscriber::Subscriber;
use crate::clock::{self, lock};
use crate::options::{LogFormat, Manner, TelemetryOptions};
use crate::subscription::{Destination, Subscription};

/// One request that was sent to a subscriber.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The extension's name.
    pub subscriber: String,
    /// When the answer, or its failure, was known.
    pub at: Instant,
    /// From the start of the request to its answer.
    pub took: std::time::Duration,
    /// Status, or `None` where there was none: connection refused or lost, or the answer left unread on purpose.
    pub status: Option<u16>,
    /// Events that the body completes.
    pub events: usize,
    /// Length of the body in bytes.
    pub bytes: usize,
    /// 1 for the first attempt of this body.
    pub attempt: u32,
}

/// Everything about telemetry that outlives an environment, and the subscribers of the present one.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) options: Mutex<TelemetryOptions>,
    log_format: LogFormat,
    next_id: AtomicU64,
    state: Mutex<State>,
    /// Counts every change worth waiting for.
    pub(crate) changed: watch::Sender<u64>,
    /// False while the environment is frozen: nothing is delivered then.
    pub(crate) running: watch::Sender<bool>,
    /// Attempts under way, whose answers are still to be read.
    attempts: AtomicUsize,
}

/// An attempt under way, until it is dropped.
struct Attempt<'a>(&'a Hub);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.attempts.fetch_sub(1, Ordering::Relaxed);
        self.0.notify();
    }
}

#[derive(Debug, Default)]
struct State {
    /// Events so far, for those that subscribe later; `None` once subscriptions are closed.
    early: Option<Vec<Arc<Event>>>,
    subscribers: Vec<Arc<Subscriber>>,
    acknowledged: Vec<Arc<Event>>,
    deliveries: Vec<Delivery>,
    dropped: u64,
}

impl Hub {
    pub(crate) fn new(options: TelemetryOptions, log_format: LogFormat) -> Self {
        Self {
            options: Mutex::new(options),
            log_format,
            next_id: AtomicU64::new(1),
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            running: watch::Sender::new(true),
            attempts: AtomicUsize::new(0),
        }
    }

    /// A new environment: no subscribers, and events are kept for those to come.
    pub(crate) fn open(&self) {
        let mut state = lock(&self.state);
        state.subscribers.clear();
        state.early = Some(Vec::new());
    }

    /// Initialisation is over: nobody can subscribe any more.
    pub(crate) fn close_subscriptions(&self) {
        lock(&self.state).early = None;
    }

    /// The environment is gone, and whatever waits for its subscribers with it.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        let gone = std::mem::take(&mut state.subscribers);
        state.early = None;
        state.dropped += gone.iter().map(|subscriber| subscriber.abandon() as u64).sum::<u64>();
        drop(state);
        self.notify();
    }

    pub(crate) fn notify(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Adds a subscriber; `None` where subscriptions are closed. A second subscription of one extension replaces the
    /// first and widens its types, as captured in the field.
    pub(crate) fn subscribe(self: &Arc<Self>, name: &str, mut subscription: Subscription) -> Option<()> {
        let mut state = lock(&self.state);
        let early = state.early.clone()?;
        if let Some(at) = state.subscribers.iter().position(|subscriber| subscriber.name == name) {
            let previous = state.subscribers.remove(at);
            subscription.types = subscription.types.union(previous.types);
            previous.abandon();
        }
        let type_names = std::mem::take(&mut subscription.type_names);
        let subscriber = Subscriber::start(name, subscription, self);
        for event in &early {
            subscriber.push(event);
        }
        state.subscribers.push(subscriber);
        drop(state);
        let record = json!({"name": name, "state": "Subscribed", "types": type_names});
        self.emit("platform.telemetrySubscription", &record);
        Some(())
    }

    pub(crate) fn has_subscriber(&self, name: &str) -> bool {
        lock(&self.state).subscribers.iter().any(|subscriber| subscriber.name == name)
    }

    /// Makes an event with a JSON record.
    pub(crate) fn emit(&self, kind: impl Into<Cow<'static, str>>, record: &Value) {
        self.emit_at(clock::iso_now(), kind.into(), record.to_string().into(), None);
    }

    /// Makes an event of a line that the function or an extension wrote, in the form that the log format gives it.
    pub(crate) fn emit_line(&self, kind: &'static str, line: &str, request_id: Option<&str>) {
        let time = clock::iso_now();
        let text: Box<str> = Value::from(line).to_string().into();
        if self.log_format == LogFormat::Text {
            return self.emit_at(time, kind.into(), text, None);
        }
        let trimmed = line.trim_end();
        let record = if let Ok(Value::Object(_)) = serde_json::from_str(trimmed) {
            trimmed.into()
        } else {
            let mut wrapped = json!({"timestamp": time, "level": "INFO", "message": trimmed});
            if let (Some(fields), Some(request_id)) = (wrapped.as_object_mut(), request_id) {
                fields.insert("requestId".into(), request_id.into());
            }
            wrapped.to_string().into()
        };
        self.emit_at(time, kind.into(), record, Some(text));
    }

    fn emit_at(&self, time: String, kind: Cow<'static, str>, record: Box<str>, legacy: Option<Box<str>>) {
        let mut state = lock(&self.state);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let event = Arc::new(Event { id, time, kind, record, legacy });
        if let Some(early) = &mut state.early {
            early.push(Arc::clone(&event));
        }
        for subscriber in &state.subscribers {
            subscriber.push(&event);
        }
    }

    /// `platform.logsDropped`, which goes to every subscriber of platform events.
    fn logs_dropped(&self, events: usize, bytes: usize, reason: &str) {
        lock(&self.state).dropped += events as u64;
        let record = json!({"droppedBytes": bytes, "droppedRecords": events, "reason": reason});
        self.emit("platform.logsDropped", &record);
        self.notify();
    }

    fn record(&self, delivery: Delivery, acknowledged: &[Arc<Event>]) {
        let mut state = lock(&self.state);
        state.deliveries.push(delivery);
        state.acknowledged.extend_from_slice(acknowledged);
        drop(state);
        self.notify();
    }

    fn attempt(&self) -> Attempt<'_> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        Attempt(self)
    }

    /// Whether no answer is still to be read.
    pub(crate) fn is_answered(&self) -> bool {
        self.attempts.load(Ordering::Relaxed) == 0
    }

    /// Makes everything that waits due now.
    pub(crate) fn flush(&self) {
        for subscriber in &lock(&self.state).subscribers {
            subscriber.flush();
        }
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_settled(&self) -> bool {
        lock(&self.state).subscribers.iter().all(|subscriber| subscriber.is_idle())
    }

    pub(crate) fn acknowledged(&self) -> Vec<Arc<Event>> {
        lock(&self.state).acknowledged.clone()
    }

    pub(crate) fn acknowledged_from(&self, first: usize) -> Vec<Arc<Event>> {
        lock(&self.state).acknowledged.get(first..).unwrap_or_default().to_vec()
    }

    pub(crate) fn acknowledged_count(&self) -> usize {
        lock(&self.state).acknowledged.len()
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.state).deliveries.clone()
    }

    pub(crate) fn dropped(&self) -> u64 {
        lock(&self.state).dropped
    }

    /// The port of the first subscriber.
    pub(crate) fn subscriber_port(&self) -> Option<u16> {
        let state = lock(&self.state);
        let (Destination::Http { port, .. } | Destination::Tcp { port }) =
            state.subscribers.first()?.destination;
        Some(port)
    }

    /// Posts an arbitrary body to the first subscriber, beside the regular deliveries.
    pub(crate) async fn inject(&self, body: &[u8], manner: Manner) -> std::io::Result<u16> {
        let destination =
            lock(&self.state).subscribers.first().map(|subscriber| subscriber.destination.clone());
        let Some(destination) = destination else {
            return Err(std::io::Error::new(std::io::ErrorKind::NotConnected, "nobody has subscribed"));
        };
        match Client::new(destination).post(body, manner, false).await? {
            Reply::Status(status) => Ok(status),
            Reply::Unread => Err(std::io::ErrorKind::Other.into()),
        }
    }
}
