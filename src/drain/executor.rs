//! Acts on the policy's decisions: puts requests together, sends them, has their fate noted.
//!
//! Each request in flight is a task. What a verdict means for the queue is noted there before the policy hears
//! of it, and without a pause between the two, so that a request which is given up has either been noted or
//! counts as unknown.

use super::policy::{Outcome, Portion, Sent, Target};
use crate::config::Config;
use crate::deliver::fallback::{Fallback, Parcel};
use crate::deliver::{Client, Headers, Outgoing, Vault, Verdict};
use crate::encode::{Protocol, WireFormat};
use crate::keeper::{Fate, Job, Level, land};
use crate::queue::{Encoding, ReaderId, Request};
use crate::{PerSignal, Signal};
use bytes::Bytes;
use reqwest::Url;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::xxh3_128;

/// The status of an answer that takes a request and rejects what is in it.
const TAKEN: u16 = 200;

/// A request that has ended.
#[derive(Debug)]
pub struct Landed {
    /// The courier whose it was.
    pub courier: usize,
    /// The lane.
    pub signal: Signal,
    /// The number the policy gave it.
    pub attempt: u64,
    /// Where it went.
    pub target: Target,
    /// What it carried.
    pub sent: Sent,
    /// How it ended.
    pub outcome: Outcome,
    /// The same in the backend's words; `None` if no request was made.
    pub verdict: Option<Verdict>,
    /// What the lane has waiting now.
    pub left: Level,
}

/// Where requests of one signal go.
struct Address {
    url: Url,
    headers: Headers,
}

/// A request under way.
struct Underway {
    task: JoinHandle<()>,
    /// Bytes the client had sent before it began.
    sent_before: u64,
}

/// Sends requests.
pub struct Executor {
    courier: usize,
    reader: ReaderId,
    client: Arc<Client>,
    vault: Arc<Vault>,
    addresses: PerSignal<Option<Arc<Address>>>,
    fallback: Option<Arc<Fallback>>,
    protocol: Protocol,
    content_type: &'static str,
    jobs: mpsc::UnboundedSender<Job>,
    landed: mpsc::UnboundedSender<Landed>,
    flights: PerSignal<Option<Underway>>,
}

impl Executor {
    /// The executor of a courier, for the endpoint of `config` and for the fallback. Ended requests come out at `landed`.
    pub fn new(
        (courier, reader): (usize, ReaderId),
        config: &Config,
        (client, vault, fallback): (Arc<Client>, Arc<Vault>, Option<Arc<Fallback>>),
        wire: &dyn WireFormat,
        jobs: mpsc::UnboundedSender<Job>,
        landed: mpsc::UnboundedSender<Landed>,
    ) -> Self {
        let addresses = PerSignal::from_fn(|signal| {
            let headers = config.signal_headers(signal).clone();
            config.signal_url(signal).map(|url| Arc::new(Address { url, headers }))
        });
        let content_type = wire.content_type();
        let flights = PerSignal::from_fn(|_| None);
        let protocol = config.protocol;
        Self {
            courier,
            reader,
            client,
            vault,
            addresses,
            fallback,
            protocol,
            content_type,
            jobs,
            landed,
            flights,
        }
    }

    /// Whether `signal` has an address.
    pub fn can_send(&self, signal: Signal) -> bool {
        self.addresses.get(signal).is_some()
    }

    /// Starts a request; how it ends comes out of the channel, unless it is given up before. Without an address it ends
    /// as one that could not be made.
    pub fn send(&mut self, signal: Signal, attempt: u64, portion: Portion, gzip: bool, target: Target) {
        let way = self.way(signal, target);
        let flight = Flight {
            protocol: self.protocol,
            content_type: self.content_type,
            jobs: self.jobs.clone(),
            reader: self.reader,
            signal,
            portion,
            encoding: if gzip { Encoding::Gzip } else { Encoding::Identity },
            appeals: self.fallback.is_some(),
        };
        let landed = self.landed.clone();
        let courier = self.courier;
        let task = tokio::spawn(async move {
            if let Some((sent, outcome, verdict, left)) = flight.fly(way.as_ref()).await {
                drop(landed.send(Landed { courier, signal, attempt, target, sent, outcome, verdict, left }));
            }
        });
        *self.flights.get_mut(signal) = Some(Underway { task, sent_before: self.client.egress_bytes() });
    }

    fn way(&self, signal: Signal, target: Target) -> Option<Way> {
        match target {
            Target::Primary => {
                let address = self.addresses.get(signal).clone()?;
                Some(Way::Primary(Arc::clone(&self.client), Arc::clone(&self.vault), address))
            }
            Target::Fallback => self.fallback.clone().map(Way::Fallback),
        }
    }

    /// Gives up the request of `signal`. Whether the other end took it stays unknown. Returns the bytes that went to the
    /// backend meanwhile: its own, where requests go one after another because bytes are counted.
    pub fn abort(&mut self, signal: Signal) -> u64 {
        let Some(Underway { task, sent_before }) = self.flights.get_mut(signal).take() else { return 0 };
        task.abort();
        let (reply, _) = oneshot::channel();
        drop(self.jobs.send(Job::Land { reader: self.reader, signal, fate: Fate::Kept, reply }));
        self.client.egress_bytes().saturating_sub(sent_before)
    }

    /// Bytes of the bodies of all requests so far.
    pub fn egress_bytes(&self) -> u64 {
        let aside = self.fallback.as_ref().map_or(0, |fallback| fallback.egress_bytes());
        self.client.egress_bytes().saturating_add(aside)
    }

    /// Closes idle connections to `target`.
    pub fn renew_connections(&self, target: Target) {
        match (target, &self.fallback) {
            (Target::Fallback, Some(fallback)) => fallback.renew(),
            _ => self.client.renew(),
        }
    }
}

/// How a request gets where it goes.
enum Way {
    Primary(Arc<Client>, Arc<Vault>, Arc<Address>),
    Fallback(Arc<Fallback>),
}

impl Way {
    fn egress_bytes(&self) -> u64 {
        match self {
            Self::Primary(client, ..) => client.egress_bytes(),
            Self::Fallback(fallback) => fallback.egress_bytes(),
        }
    }
}

/// One request on its way.
struct Flight {
    protocol: Protocol,
    content_type: &'static str,
    jobs: mpsc::UnboundedSender<Job>,
    reader: ReaderId,
    signal: Signal,
    portion: Portion,
    encoding: Encoding,
    /// There is a fallback for what the backend refuses.
    appeals: bool,
}

impl Flight {
    /// `None` if the keeper is gone, and the process with it.
    async fn fly(self, way: Option<&Way>) -> Option<(Sent, Outcome, Option<Verdict>, Level)> {
        let assembled = match way {
            Some(way) => self.assemble().await?.map(|request| (way, request)),
            None => None,
        };
        let Some((way, request)) = assembled else {
            return Some((Sent::default(), Outcome::NotSent, None, self.land(Fate::Kept).await?));
        };
        let mut sent = Sent {
            head: request.head.0,
            blocks: u64::from(request.blocks),
            records: u64::from(request.records),
            plain_bytes: request.plain_bytes,
            wire_bytes: match way {
                Way::Primary(..) => request.body.len() as u64,
                Way::Fallback(fallback) => fallback.wire_bytes(request.body.len()),
            },
        };
        let to = request.to;
        let (records, reports) = (u64::from(request.records), u64::from(request.reports));
        let before = way.egress_bytes();
        let verdict = self.post(way, request).await;
        if matches!(way, Way::Primary(..)) {
            // As often as it went: twice, with newer credentials. Requests beside this one are counted with it, but there
            // are none where bytes are.
            sent.wire_bytes = sent.wire_bytes.max(way.egress_bytes().saturating_sub(before));
        }
        let verdict = match self.sifted(way, &mut sent, reports, verdict) {
            Ok((fate, outcome, verdict)) => {
                return Some((sent, outcome, Some(verdict), self.land(fate).await?));
            }
            Err(verdict) => verdict,
        };
        let outcome = outcome(&verdict);
        let fate = match &verdict {
            // Marked by the settlement that follows.
            _ if self.portion == Portion::Alibi => Fate::Kept,
            Verdict::Delivered { rejected, .. } | Verdict::Sifted { rejected, .. } => {
                let rejected = *rejected;
                match way {
                    Way::Primary(..) => Fate::Delivered { to, records, reports, rejected },
                    Way::Fallback(_) => Fate::HandedOver { to, records, reports, rejected },
                }
            }
            _ => Fate::Kept,
        };
        let left = self.land(fate).await?;
        Some((sent, outcome, Some(verdict), left))
    }

    /// What an answer means that names the records it refuses, where these are to go to the fallback. Those before them are
    /// done; then they are the first of the next request, which is all that is said of it. What was taken behind them
    /// goes again: who names records knows them again too.
    fn sifted(
        &self,
        way: &Way,
        sent: &mut Sent,
        reports: u64,
        verdict: Verdict,
    ) -> Result<(Fate, Outcome, Verdict), Verdict> {
        if !self.appeals || !matches!(way, Way::Primary(..)) {
            return Err(verdict);
        }
        let first = first_named(self.signal, sent.records, reports, &verdict);
        match (first, verdict) {
            (Some(First::Taken(records)), _) => {
                sent.records = records;
                let fate = Fate::Taken { head: sent.head, records };
                Ok((fate, Outcome::Delivered, Verdict::Delivered { rejected: 0, message: None }))
            }
            (
                Some(First::Refused { records, status }),
                Verdict::Delivered { message, .. } | Verdict::Sifted { message, .. },
            ) => {
                let outcome = Outcome::FirstRefused { records };
                let verdict = Verdict::Refused { status, message: message.unwrap_or_default() };
                Ok((Fate::Kept, outcome, verdict))
            }
            (_, verdict) => Err(verdict),
        }
    }

    async fn assemble(&self) -> Option<Option<Request>> {
        let (reply, answer) = oneshot::channel();
        let (reader, signal, portion, encoding) = (self.reader, self.signal, self.portion, self.encoding);
        self.jobs.send(Job::Assemble { reader, signal, portion, encoding, reply }).ok()?;
        answer.await.ok()
    }

    async fn post(&self, way: &Way, request: Request) -> Verdict {
        // The same blocks make the same body, so a repeat has the same key.
        let key = format!("{:032x}", xxh3_128(&request.body));
        let gzip = request.encoding == Encoding::Gzip;
        match way {
            Way::Primary(client, vault, address) => {
                let outgoing = Outgoing {
                    url: &address.url,
                    headers: &address.headers.fixed,
                    protocol: self.protocol,
                    content_type: self.content_type,
                    gzip,
                    body: Bytes::from(request.body),
                    idempotency_key: &key,
                };
                client.prepared().await;
                vault.send(client, &address.headers, outgoing).await
            }
            Way::Fallback(fallback) => {
                fallback
                    .send(Parcel {
                        signal: self.signal,
                        protocol: self.protocol,
                        content_type: self.content_type,
                        gzip,
                        body: Bytes::from(request.body),
                        hash: &key,
                        records: u64::from(request.records),
                        first: request.head.0,
                        from_record: request.part.map_or(0, |part| part.start),
                        received: Duration::from_nanos(request.received),
                        queue_id: request.queue_id,
                    })
                    .await
            }
        }
    }

    async fn land(&self, fate: Fate) -> Option<Level> {
        land(&self.jobs, self.reader, self.signal, fate).await
    }
}

/// What an answer says of the first records of a request.
#[derive(Debug, PartialEq, Eq)]
enum First {
    /// So many were taken.
    Taken(u64),
    /// So many were refused.
    Refused { records: u64, status: u16 },
}

/// What `verdict` says of the first of the `sent` records of `signal`, of which `reports` are reports of ours; `None` if it
/// does not say which it refuses. One that rejects as many as were sent names them all, except of metrics: there
/// it counts data points, of which a metric has any number. A request of reports of ours alone is no loss: handed over, they would
/// have to be reported where that fails.
fn first_named(signal: Signal, sent: u64, reports: u64, verdict: &Verdict) -> Option<First> {
    match *verdict {
        _ if reports >= sent => None,
        Verdict::Delivered { rejected, .. } if rejected >= sent && signal != Signal::Metrics => {
            Some(First::Refused { records: sent, status: TAKEN })
        }
        Verdict::Sifted { taken, refused, items, status, .. } if items == sent => match taken {
            0 => Some(First::Refused { records: refused, status }),
            _ => Some(First::Taken(taken)),
        },
        _ => None,
    }
}

fn outcome(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Delivered { .. } | Verdict::Sifted { .. } => Outcome::Delivered,
        Verdict::Retry { cause, after } => {
            Outcome::Retry { after: *after, fate_unknown: cause.fate_unknown() }
        }
        Verdict::TooLarge => Outcome::TooLarge,
        Verdict::ServerError { after } => Outcome::ServerError { after: *after },
        Verdict::Denied { .. } => Outcome::Denied,
        Verdict::GzipRefused => Outcome::GzipRefused,
        Verdict::Refused { .. } => Outcome::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(rejected: u64) -> Verdict {
        Verdict::Delivered { rejected, message: None }
    }

    fn bulk(taken: u64, refused: u64, items: u64) -> Verdict {
        Verdict::Sifted { taken, refused, rejected: refused, items, status: 400, message: None }
    }

    #[test]
    fn a_partial_success_names_records_if_it_rejects_all_and_counts_records() {
        let all = Some(First::Refused { records: 5, status: TAKEN });
        assert_eq!(first_named(Signal::Logs, 5, 0, &partial(4)), None);
        assert_eq!(first_named(Signal::Logs, 5, 4, &partial(5)), all);
        assert_eq!(first_named(Signal::Traces, 5, 0, &partial(9)), all);
        // Five metrics may have nine data points, and more.
        for rejected in [4, 5, 9] {
            assert_eq!(first_named(Signal::Metrics, 5, 0, &partial(rejected)), None);
        }
    }

    #[test]
    fn a_bulk_answer_names_records_if_it_tells_of_each() {
        assert_eq!(first_named(Signal::Logs, 5, 0, &bulk(2, 1, 5)), Some(First::Taken(2)));
        let refused = Some(First::Refused { records: 3, status: 400 });
        assert_eq!(first_named(Signal::Logs, 5, 4, &bulk(0, 3, 5)), refused);
        assert_eq!(first_named(Signal::Logs, 5, 0, &bulk(0, 3, 4)), None, "of four of five");
    }

    #[test]
    fn reports_of_ours_alone_are_not_handed_over() {
        assert_eq!(first_named(Signal::Logs, 2, 2, &partial(2)), None);
        assert_eq!(first_named(Signal::Logs, 2, 2, &bulk(0, 2, 2)), None);
        assert_eq!(first_named(Signal::Logs, 2, 2, &bulk(1, 1, 2)), None);
    }
}
