//! One subscriber: its buffer and the task that delivers batches, one in flight, in the manner the options ask for.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::buffer::Buffer;
use super::client::{Client, Reply};
use super::event::{Event, Post, posts};
use super::{Delivery, Hub};
use crate::clock::lock;
use crate::options::{Cut, OnFailure, Repeats, Schema};
use crate::subscription::{Destination, Subscription, Types};

/// The reason that AWS gives when a subscriber does not keep up.
const TOO_SLOW: &str =
    "Some logs were dropped because the downstream consumer is slower than the logs production rate";

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) name: String,
    pub(crate) types: Types,
    pub(crate) destination: Destination,
    schema: Schema,
    max_bytes: usize,
    waiting: Mutex<Waiting>,
    wake: Notify,
    hub: Weak<Hub>,
    task: Mutex<Option<AbortHandle>>,
}

/// Why a body is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Deliver,
    /// To be acknowledged without the sandbox knowing.
    LeaveUnread,
    /// Already acknowledged.
    Repeat,
}

#[derive(Debug)]
struct Waiting {
    buffer: Buffer,
    in_flight: usize,
}

impl Subscriber {
    pub(crate) fn start(name: &str, subscription: Subscription, hub: &Arc<Hub>) -> Arc<Self> {
        let subscriber = Arc::new(Self {
            name: name.to_owned(),
            types: subscription.types,
            destination: subscription.destination,
            schema: subscription.schema,
            max_bytes: subscription.buffering.max_bytes,
            waiting: Mutex::new(Waiting {
                buffer: Buffer::new(subscription.buffering, subscription.schema),
                in_flight: 0,
            }),
            wake: Notify::new(),
            hub: Arc::downgrade(hub),
            task: Mutex::new(None),
        });
        let task = tokio::spawn(Arc::clone(&subscriber).deliver_all(Arc::clone(hub)));
        *lock(&subscriber.task) = Some(task.abort_handle());
        subscriber
    }

    /// Takes an event if it is of a wanted type. Over its limits a subscriber loses what waits, and is told so.
    pub(crate) fn push(&self, event: &Arc<Event>) {
        if !self.types.want(&event.kind) {
            return;
        }
        let mut waiting = lock(&self.waiting);
        waiting.buffer.push(Arc::clone(event), Instant::now());
        let Some(hub) = self.hub.upgrade() else { return };
        let options = *lock(&hub.options);
        let dropping =
            options.on_failure == OnFailure::Drop && waiting.in_flight > 0 && waiting.buffer.is_full();
        if dropping || waiting.buffer.bytes() > options.waiting_max_bytes {
            let bytes = waiting.buffer.bytes();
            let mut events = 0;
            while waiting.buffer.len() > 0 {
                events += waiting.buffer.take().len();
            }
            drop(waiting);
            // The hub's lock may be held by our caller: report from a task of its own.
            tokio::spawn(async move { hub.logs_dropped(events, bytes, TOO_SLOW) });
            return;
        }
        drop(waiting);
        self.wake.notify_one();
    }

    pub(crate) fn flush(&self) {
        lock(&self.waiting).buffer.flush();
        self.wake.notify_one();
    }

    pub(crate) fn is_idle(&self) -> bool {
        let waiting = lock(&self.waiting);
        waiting.in_flight == 0 && waiting.buffer.len() == 0
    }

    /// Ends deliveries; returns how many events were still to come.
    pub(crate) fn abandon(&self) -> usize {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
        let waiting = lock(&self.waiting);
        waiting.in_flight + waiting.buffer.len()
    }

    async fn deliver_all(self: Arc<Self>, hub: Arc<Hub>) {
        let mut client = Client::new(self.destination.clone());
        loop {
            let batch = self.next_batch(&hub).await;
            let options = *lock(&hub.options);
            if !options.delay.is_zero() {
                tokio::time::sleep(options.delay).await;
            }
            let cut_over = match options.cut {
                Cut::Never => None,
                Cut::OverMaxBytes => Some(self.max_bytes),
                Cut::Over(bytes) => Some(bytes),
            };
            for post in posts(&batch, self.schema, cut_over, options.cut_after_others) {
                let events = post.events.len();
                self.deliver(&hub, &mut client, post).await;
                let mut waiting = lock(&self.waiting);
                waiting.in_flight = waiting.in_flight.saturating_sub(events);
            }
            hub.notify();
        }
    }

    /// Waits until a batch is due and the environment runs.
    async fn next_batch(&self, hub: &Hub) -> Vec<Arc<Event>> {
        let mut running = hub.running.subscribe();
        loop {
            // The sender lives in the hub, which outlives this borrow of it.
            if running.wait_for(|running| *running).await.is_err() {
                std::future::pending::<()>().await;
            }
            let now = Instant::now();
            let due = lock(&self.waiting).buffer.due_at(now);
            match due {
                Some(at) if at <= now => {
                    let mut waiting = lock(&self.waiting);
                    let batch = waiting.buffer.take();
                    waiting.in_flight = batch.len();
                    return batch;
                }
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => (),
                    () = self.wake.notified() => (),
                },
                None => self.wake.notified().await,
            }
        }
    }

    /// Delivers one body, in whatever number of attempts that takes.
    async fn deliver(&self, hub: &Hub, client: &mut Client, post: Post) {
        let mut running = hub.running.subscribe();
        let mut attempt = 0;
        let mut pause = Duration::ZERO;
        loop {
            attempt += 1;
            // A retry must not reach into a frozen environment either.
            let _thawed = running.wait_for(|running| *running).await.is_ok();
            let options = *lock(&hub.options);
            let purpose = match options.repeats {
                Repeats::AnswerLost(times) if attempt <= times => Purpose::LeaveUnread,
                _ => Purpose::Deliver,
            };
            let outcome = self.attempt(hub, client, &post, attempt, purpose).await;
            let reason = match outcome {
                Ok(Reply::Status(200..=299)) => break,
                Ok(Reply::Unread) => continue,
                Ok(Reply::Status(status)) => format!("status code {status}"),
                Err(error) => error.to_string(),
            };
            match options.on_failure {
                OnFailure::Drop => {
                    let reason = format!("could not send events: {reason}");
                    hub.logs_dropped(post.events.len(), post.body.len(), &reason);
                    return;
                }
                OnFailure::Retry { first, longest } => {
                    pause = if pause.is_zero() { first } else { (pause * 2).min(longest) };
                    tokio::time::sleep(pause).await;
                }
            }
        }
        let Repeats::AfterAnswer(times) = lock(&hub.options).repeats else { return };
        for _ in 0..times {
            attempt += 1;
            // A repeat is nobody's only copy: its outcome is in the list of deliveries, and that is all.
            let _outcome = self.attempt(hub, client, &post, attempt, Purpose::Repeat).await.is_ok();
        }
    }

    async fn attempt(
        &self,
        hub: &Hub,
        client: &mut Client,
        post: &Post,
        attempt: u32,
        purpose: Purpose,
    ) -> std::io::Result<Reply> {
        let manner = lock(&hub.options).manner;
        let started = Instant::now();
        let _under_way = hub.attempt();
        let outcome = client.post(&post.body, manner, purpose == Purpose::LeaveUnread).await;
        let status = match outcome {
            Ok(Reply::Status(status)) => Some(status),
            Ok(Reply::Unread) | Err(_) => None,
        };
        let acknowledged = purpose == Purpose::Deliver && status.is_some_and(|s| (200..300).contains(&s));
        let delivery = Delivery {
            subscriber: self.name.clone(),
            at: Instant::now(),
            took: started.elapsed(),
            status,
            events: post.events.len(),
            bytes: post.body.len(),
            attempt,
        };
        hub.record(delivery, if acknowledged { &post.events } else { &[] });
        outcome
    }
}
