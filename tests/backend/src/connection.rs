//! One connection: reads a request, asks the script, does what it says, and goes on to the next.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message;
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::sleep,
};

use crate::{
    backend::Decode,
    body::{Arrived, Body, note},
    dialect::{Dialect, created},
    http::{Head, HttpError, Io, Read},
    received::{Request, Verdict},
    record::{Record, Signal},
    script::{Answer, Behaviour, Facts, Fate, Reset, Rest, Truth},
    shared::{Open, Shared, lock},
};

/// Bodies up to this many bytes on the wire are decoded in place: that takes well under a millisecond
/// and saves the way to another thread. Longer ones would hold up the other connections.
const DECODE_IN_PLACE_MAX_BYTES: usize = 16 * 1024;
const PROTOBUF: &str = "application/x-protobuf";

/// What is to become of the connection.
enum Next {
    Keep,
    Close,
    Reset,
}

/// Serves a connection until either side ends it.
pub(crate) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Answers are small and are waited for.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let cut = Arc::new(Notify::new());
    let connection = shared.update(|received| {
        received.connections += 1;
        received.connections - 1
    });
    lock(&shared.open).insert(connection, Open { idle: true, cut: Arc::clone(&cut) });
    let listed = Listed { shared: &shared, connection };
    let accepted = tokio::select! {
        biased;
        () = cut.notified() => return,
        accepted = Io::accept(stream, shared.identity.as_ref()) => accepted,
    };
    let Some(mut io) = accepted else {
        shared.update(|received| received.failed_handshakes += 1);
        return;
    };
    let mut reused = false;
    loop {
        shared.set_idle(connection, true);
        tokio::select! {
            biased;
            () = cut.notified() => return io.reset(),
            more = io.more() => if !more { return },
        }
        shared.set_idle(connection, false);
        let mut number = None;
        let exchange =
            Exchange { io: &mut io, shared: &shared, number: &mut number, pause: None, part: None };
        let next = tokio::select! {
            biased;
            () = cut.notified() => Next::Reset,
            next = exchange.run(connection, reused) => next,
        };
        match next {
            Next::Keep => reused = true,
            Next::Close => {
                drop(listed); // what is left is the sender's part
                return io.close().await;
            }
            Next::Reset => {
                if let Some(number) = number {
                    shared.amend(number, |request| {
                        if request.verdict == Verdict::Pending {
                            request.verdict = Verdict::Reset;
                        }
                    });
                }
                return io.reset();
            }
        }
    }
}

/// Takes the connection off the list of open ones when it ends, however it ends.
struct Listed<'a> {
    shared: &'a Shared,
    connection: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.shared.open).remove(&self.connection);
        self.shared.tick();
    }
}

/// One request and its answer.
struct Exchange<'a> {
    io: &'a mut Io,
    shared: &'a Shared,
    /// Set as soon as the request is listed, also for the caller, who may end the exchange.
    number: &'a mut Option<u64>,
    /// Between the bytes of the answer.
    pause: Option<Duration>,
    /// Of the answer, only so many bytes.
    part: Option<(usize, Rest)>,
}

impl Exchange<'_> {
    async fn run(mut self, connection: u64, reused_connection: bool) -> Next {
        let head = match self.io.head().await {
            Ok(head) => head,
            Err(HttpError::Malformed(reason)) => {
                let answer = Answer::explained(400, reason);
                return if self.io.answer(&answer, false, None).await.is_ok() {
                    Next::Close
                } else {
                    Next::Reset
                };
            }
            Err(_) => return Next::Close,
        };
        if self.shared.dialect.is_about_acks(&head.path) {
            return self.acknowledge(&head).await.unwrap_or(Next::Reset);
        }
        // Before the request is listed: whoever sees it listed and then releases it must not be missed.
        let released = self.shared.released.subscribe();
        let signal = self.shared.dialect.signal_of(&head.path);
        let request = Request {
            number: 0,
            connection,
            reused_connection,
            at: Instant::now(),
            at_wall: SystemTime::now(),
            method: head.method.clone(),
            path: head.path.clone(),
            signal,
            headers: head.headers.clone(),
            body: Bytes::new(),
            wire_bytes: 0,
            plain_bytes: 0,
            records: 0,
            kept: false,
            verdict: Verdict::Pending,
            answered_at: None,
            defect: None,
        };
        *self.number = Some(self.shared.update(|received| received.begin(request)));
        let result = match route(&head, self.shared.dialect, signal) {
            Ok(signal) => self.play(&head, signal, reused_connection, released).await,
            Err(answer) => self.turn_away(&head, &answer).await,
        };
        result.unwrap_or_else(|error| {
            self.amend(|request| {
                request.verdict = Verdict::Abandoned;
                if let HttpError::Malformed(reason) = error {
                    request.defect = Some(reason);
                }
            });
            Next::Reset
        })
    }

    fn amend(&self, change: impl FnOnce(&mut Request)) {
        if let Some(number) = *self.number {
            self.shared.amend(number, change);
        }
    }

    /// Follows the script from its root to a leaf.
    async fn play(
        &mut self,
        head: &Head,
        signal: Signal,
        reused_connection: bool,
        mut released: watch::Receiver<u64>,
    ) -> Result<Next, HttpError> {
        let gzip = head.header("content-encoding") == Some("gzip");
        let mut behaviour = lock(&self.shared.script).take(signal);
        let mut arrived: Option<Arrived> = None;
        loop {
            behaviour = match behaviour {
                Behaviour::Trickle(pause, then) => {
                    self.pause = Some(pause);
                    *then
                }
                Behaviour::Part(bytes, rest, then) => {
                    self.part = Some((bytes, rest));
                    *then
                }
                Behaviour::Deaf => {
                    self.amend(|request| request.verdict = Verdict::Hung);
                    std::future::pending().await
                }
                Behaviour::When(condition, then, otherwise) => {
                    let known = arrived.as_ref().map(Arrived::facts);
                    match condition.test(&Facts { signal, gzip, reused_connection, body: known }) {
                        Truth::Known(true) => *then,
                        Truth::Known(false) => *otherwise,
                        truth => {
                            let mut body = self.body(head, gzip, arrived).await?;
                            if matches!(truth, Truth::NeedsDecoding) {
                                self.decode(&mut body, signal).await;
                            }
                            arrived = Some(body);
                            Behaviour::When(condition, then, otherwise)
                        }
                    }
                }
                Behaviour::Delay(delay, then) => {
                    arrived = Some(self.body(head, gzip, arrived).await?);
                    tokio::select! {
                        () = sleep(delay) => *then,
                        () = self.io.gone() => return Err(HttpError::Cut),
                    }
                }
                Behaviour::Hold(then) => {
                    arrived = Some(self.body(head, gzip, arrived).await?);
                    tokio::select! {
                        // An error means the backend is being dropped, which lets go as well.
                        _ = released.changed() => *then,
                        () = self.io.gone() => return Err(HttpError::Cut),
                    }
                }
                Behaviour::AnswerEarly(answer) => {
                    self.amend(|request| request.verdict = Verdict::Status(answer.status));
                    return self.answer(&answer, false).await;
                }
                Behaviour::Reset(Reset::BeforeBody) => return Ok(Next::Reset),
                Behaviour::Reset(Reset::AfterBytes(bytes)) => {
                    if arrived.is_none() {
                        self.io.body(head, Some(bytes)).await?;
                    }
                    return Ok(Next::Reset);
                }
                leaf => {
                    let body = self.body(head, gzip, arrived).await?;
                    return self.settle(leaf, body, signal, head.keep_alive).await;
                }
            }
        }
    }

    /// The leaves for which the whole request is read.
    async fn settle(
        &mut self,
        leaf: Behaviour,
        mut arrived: Arrived,
        signal: Signal,
        keep_alive: bool,
    ) -> Result<Next, HttpError> {
        let (answer, verdict, rejected) = match leaf {
            Behaviour::Answer(answer) => {
                self.amend(|request| request.verdict = Verdict::Status(answer.status));
                return self.answer(&answer, keep_alive).await;
            }
            Behaviour::Hang(fate) => {
                if fate == Fate::Kept {
                    self.keep(&mut arrived, signal, 0, Verdict::Hung).await;
                }
                self.amend(|request| request.verdict = Verdict::Hung);
                self.io.gone().await;
                return Ok(Next::Close);
            }
            Behaviour::Reset(_) => {
                if matches!(leaf, Behaviour::Reset(Reset::AfterBody(Fate::Kept))) {
                    self.keep(&mut arrived, signal, 0, Verdict::Reset).await;
                }
                self.amend(|request| request.verdict = Verdict::Reset);
                return Ok(Next::Reset);
            }
            Behaviour::Partial { rejected, message } => {
                let body = partial_success(rejected, message);
                (Answer::new(200).body(PROTOBUF, body), Verdict::Partial { rejected }, rejected)
            }
            Behaviour::Items { .. } | Behaviour::Accept { .. }
                if matches!(self.shared.dialect, Dialect::Elasticsearch | Dialect::Loki) =>
            {
                return self.create(leaf, arrived, signal, keep_alive).await;
            }
            Behaviour::Items { .. } => (self.success(), Verdict::Accepted, 0),
            Behaviour::Accept { body } if body.is_empty() => (self.success(), Verdict::Accepted, 0),
            Behaviour::Accept { body } => (Answer::new(200).body(PROTOBUF, body), Verdict::Accepted, 0),
            Behaviour::AnswerEarly(_)
            | Behaviour::Delay(..)
            | Behaviour::Hold(_)
            | Behaviour::Part(..)
            | Behaviour::Deaf
            | Behaviour::Trickle(..)
            | Behaviour::When(..) => return Ok(Next::Reset), // `play` never ends on these
        };
        if let Some(defect) = self.keep(&mut arrived, signal, rejected, verdict).await {
            self.amend(|request| request.verdict = Verdict::Status(400));
            return self.answer(&Answer::explained(400, defect), keep_alive).await;
        }
        self.answer(&answer, keep_alive).await
    }

    fn success(&self) -> Answer {
        match self.shared.dialect {
            Dialect::SplunkHecAck => Dialect::acknowledged(self.number.unwrap_or_default()),
            dialect => dialect.success(&[], &[]),
        }
    }

    /// Keeps the records that are new and that the script takes, and says what became of each.
    async fn create(
        &mut self,
        leaf: Behaviour,
        mut arrived: Arrived,
        signal: Signal,
        keep_alive: bool,
    ) -> Result<Next, HttpError> {
        self.decode(&mut arrived, signal).await;
        let records = match arrived.decoded.take() {
            Some(Ok((_, records))) => records,
            Some(Err(defect)) => {
                self.amend(|request| request.verdict = Verdict::Status(400));
                return self.answer(&Answer::explained(400, defect), keep_alive).await;
            }
            None => Vec::new(),
        };
        let refusal = |record: &Record| match &leaf {
            Behaviour::Items { status, of } if of.holds_of(record) => Some(*status),
            _ => None,
        };
        let fates = {
            let mut ids = lock(&self.shared.ids);
            let dialect = self.shared.dialect;
            let fates = created(dialect, &ids, &records, refusal);
            let new = records.iter().zip(&fates).filter(|(_, fate)| **fate == 201);
            ids.extend(new.map(|(record, _)| dialect.identity(record)));
            fates
        };
        let answer = self.shared.dialect.success(&records, &fates);
        let rejected = fates.iter().filter(|fate| !matches!(fate, 201 | 409)).count() as u64;
        let kept = records.into_iter().zip(fates).filter(|(_, fate)| *fate == 201);
        let kept: Vec<Record> = kept.map(|(record, _)| record).collect();
        let number = self.number.unwrap_or_default();
        self.shared.update(|received| {
            received.add(kept);
            if let Some(request) = received.request(number) {
                request.kept = true;
                request.verdict =
                    if rejected > 0 { Verdict::Partial { rejected } } else { Verdict::Accepted };
            }
        });
        self.answer(&answer, keep_alive).await
    }

    /// Says which requests are indexed. Such a question is not listed among the requests.
    async fn acknowledge(&mut self, head: &Head) -> Result<Next, HttpError> {
        let Read::Whole(question) = self.io.body(head, None).await? else { return Err(HttpError::Cut) };
        let answer = match route(head, self.shared.dialect, Some(Signal::Logs)) {
            Ok(_) => lock(&self.shared.acks).ask(&question),
            Err(answer) => Some(answer),
        };
        self.shared.tick();
        match answer {
            Some(answer) => self.answer(&answer, head.keep_alive).await,
            None => Ok(Next::Reset),
        }
    }

    /// Reads and refuses what is not a request of the dialect.
    async fn turn_away(&mut self, head: &Head, answer: &Answer) -> Result<Next, HttpError> {
        let arrived = self.body(head, false, None).await?;
        self.amend(|request| {
            request.wire_bytes = arrived.body.wire.len();
            request.verdict = Verdict::Status(answer.status);
            request.defect = Some(String::from_utf8_lossy(&answer.body).into_owned());
        });
        self.answer(answer, head.keep_alive).await
    }

    async fn body(&mut self, head: &Head, gzip: bool, known: Option<Arrived>) -> Result<Arrived, HttpError> {
        if let Some(known) = known {
            return Ok(known);
        }
        let Read::Whole(wire) = self.io.body(head, None).await? else { return Err(HttpError::Cut) };
        let kept = if self.shared.bodies { wire.clone() } else { Bytes::new() };
        self.amend(|request| {
            request.body = kept;
            request.wire_bytes = wire.len();
            request.plain_bytes = if gzip { 0 } else { wire.len() };
        });
        Ok(Arrived { body: Body { wire, gzip }, decoded: None })
    }

    /// Decodes the body once; what it finds is noted in the request.
    async fn decode(&mut self, arrived: &mut Arrived, signal: Signal) {
        if arrived.decoded.is_some() {
            return;
        }
        let number = self.number.unwrap_or_default();
        let Body { wire, gzip } = &arrived.body;
        let body = Body { wire: wire.clone(), gzip: *gzip };
        let decoded = if wire.len() <= DECODE_IN_PLACE_MAX_BYTES {
            body.decode(self.shared.dialect, signal, number)
        } else {
            let dialect = self.shared.dialect;
            let job = tokio::task::spawn_blocking(move || body.decode(dialect, signal, number));
            job.await.unwrap_or_else(|error| Err(format!("the decoder failed: {error}")))
        };
        self.amend(|request| note(request, &decoded));
        arrived.decoded = Some(decoded);
    }

    /// Keeps the records, or says what is wrong with the body.
    async fn keep(
        &mut self,
        arrived: &mut Arrived,
        signal: Signal,
        rejected: u64,
        verdict: Verdict,
    ) -> Option<String> {
        let number = self.number.unwrap_or_default();
        // A partial success must know the records: it keeps some of them.
        if arrived.decoded.is_none() && self.shared.decode == Decode::AfterAnswer && rejected == 0 {
            let Body { wire, gzip } = &arrived.body;
            let body = Body { wire: wire.clone(), gzip: *gzip };
            self.shared.update(|received| {
                received.undecoded += 1;
                if let Some(request) = received.request(number) {
                    (request.kept, request.verdict) = (true, verdict);
                }
            });
            // The other end lives as long as the backend does.
            return self.shared.later.send((number, signal, body)).err().map(|error| error.to_string());
        }
        self.decode(arrived, signal).await;
        match arrived.decoded.take()? {
            Ok((_, mut records)) => {
                let rejected = usize::try_from(rejected).unwrap_or(usize::MAX);
                records.truncate(records.len().saturating_sub(rejected));
                let identities = records.iter().map(|record| self.shared.dialect.identity(record));
                lock(&self.shared.ids).extend(identities);
                self.shared.update(|received| {
                    received.add(records);
                    if let Some(request) = received.request(number) {
                        (request.kept, request.verdict) = (true, verdict);
                    }
                });
                None
            }
            Err(defect) => Some(defect),
        }
    }

    async fn answer(&mut self, answer: &Answer, keep_alive: bool) -> Result<Next, HttpError> {
        if let Some((bytes, rest)) = self.part {
            self.io.part(answer, bytes).await?;
            if rest == Rest::Hang {
                self.io.gone().await;
            }
            return Ok(Next::Reset);
        }
        // A sender that went away before the answer changes nothing about the verdict.
        if self.io.answer(answer, keep_alive, self.pause).await.is_err() {
            return Ok(Next::Reset);
        }
        self.amend(|request| request.answered_at = Some(Instant::now()));
        Ok(if keep_alive { Next::Keep } else { Next::Close })
    }
}

/// Whether this is a request of the dialect at all (for OTLP: specification, "OTLP/HTTP Request").
fn route(head: &Head, dialect: Dialect, signal: Option<Signal>) -> Result<Signal, Answer> {
    let Some(signal) = signal else {
        return Err(Answer::explained(404, format!("no such path: {}", head.path)));
    };
    if !dialect.takes_method(&head.method) {
        return Err(Answer::explained(405, format!("method {} is not POST", head.method)));
    }
    let content_type = head.header("content-type").unwrap_or("none");
    let expected = dialect.content_type();
    let bare = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if bare != expected && Some(&*bare) != dialect.vendor_type() {
        return Err(Answer::explained(415, format!("content type {content_type} is not {expected}")));
    }
    if let Some((name, scheme)) = dialect.credentials()
        && !head.header(name).is_some_and(|value| value.starts_with(scheme))
    {
        return Err(Answer::explained(401, format!("no {name} that begins with {scheme:?}")));
    }
    match head.header("content-encoding") {
        None | Some("gzip" | "identity") => Ok(signal),
        Some(other) => Err(Answer::explained(415, format!("content encoding {other} is not known"))),
    }
}

/// The answer's body. The three signals' messages have the same fields under the same numbers.
fn partial_success(rejected: u64, message: String) -> Vec<u8> {
    let rejected_log_records = i64::try_from(rejected).unwrap_or(i64::MAX);
    ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess { rejected_log_records, error_message: message }),
    }
    .encode_to_vec()
}
