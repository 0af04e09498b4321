//! The handle a test holds, and the task behind it that accepts connections.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    acks::Indexing,
    body::{Body, note},
    connection,
    dialect::Dialect,
    door::{Door, Doorway},
    received::{Received, Repeat, Request, Timeout},
    record::{Keep, Record, Signal},
    script::{Behaviour, Script},
    shared::{Shared, lock},
    tls::Identity,
};

/// When the records of a request are decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Decode {
    /// Before it is answered, so that a bad body is answered 400.
    #[default]
    BeforeAnswer,
    /// After it was answered 200, one request after the other, so that a large backlog is taken as fast
    /// as the network brings it. A bad body shows as the request's defect. Conditions that need records,
    /// and partial successes, decode at once all the same.
    AfterAnswer,
}

/// Why the backend could not start or change its door.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The accepting task has ended, which only the end of its runtime brings about.
    #[error("the backend has stopped")]
    Stopped,
}

/// How a backend is started; see [`Backend::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    address: SocketAddr,
    keep: Keep,
    decode: Decode,
    bodies: bool,
    identity: Option<Identity>,
    dialect: Dialect,
}

impl Builder {
    /// Another address than 127.0.0.1 with a port the system chooses.
    #[must_use]
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// How much of each record is remembered.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Speaks TLS.
    #[must_use]
    pub fn tls(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// When records are decoded.
    #[must_use]
    pub fn decode(mut self, decode: Decode) -> Self {
        self.decode = decode;
        self
    }

    /// Remembers the body of each request as it came.
    #[must_use]
    pub fn bodies(mut self) -> Self {
        self.bodies = true;
        self
    }

    /// What it speaks, if not OTLP in protobuf.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Listens and begins to accept, healthy.
    ///
    /// # Errors
    /// [`BackendError::Listen`].
    pub fn start(self) -> Result<Backend, BackendError> {
        let doorway = Doorway::open(self.address)
            .map_err(|source| BackendError::Listen { address: self.address, source })?;
        let address = doorway.address();
        let (later, bodies) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            decode: self.decode,
            bodies: self.bodies,
            dialect: self.dialect,
            ids: Mutex::default(),
            acks: Mutex::default(),
            script: Mutex::new(Script::default()),
            received: Mutex::new(Received::new(self.keep)),
            changed: watch::Sender::new(0),
            released: watch::Sender::new(0),
            open: Mutex::new(HashMap::new()),
            later,
            identity: self.identity,
        });
        let (doors, requests) = mpsc::channel(1);
        let tasks = [
            tokio::spawn(accept(doorway, requests, Arc::clone(&shared))),
            tokio::spawn(decode_later(bodies, Arc::clone(&shared))),
        ];
        Ok(Backend { inner: Arc::new(Inner { address, shared, doors, tasks }) })
    }
}

/// A running backend. Clones are handles to the same one; it stops, its connections reset by the
/// system, when the last of them is dropped.
#[derive(Clone)]
pub struct Backend {
    inner: Arc<Inner>,
}

type DoorChange = (Door, oneshot::Sender<io::Result<()>>);

struct Inner {
    address: SocketAddr,
    shared: Arc<Shared>,
    doors: mpsc::Sender<DoorChange>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Backend {
    /// Starts one on 127.0.0.1, on a port the system chooses. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BackendError::Listen`].
    #[expect(clippy::unused_async, reason = "it needs a runtime, which an async signature says best")]
    pub async fn start() -> Result<Self, BackendError> {
        Self::builder().start()
    }

    /// Settings other than the usual ones.
    pub fn builder() -> Builder {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (keep, decode, dialect) = (Keep::default(), Decode::default(), Dialect::default());
        Builder { address, keep, decode, bodies: false, identity: None, dialect }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The base URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` wants it.
    pub fn url(&self) -> String {
        let scheme = if self.inner.shared.identity.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.inner.address)
    }

    // === The script ===

    /// What happens to requests from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        lock(&self.inner.shared.script).set_default(behaviour);
    }

    /// What happens to the next request; further calls queue up.
    pub fn next(&self, behaviour: Behaviour) {
        lock(&self.inner.shared.script).push(None, behaviour);
    }

    /// What happens to the next request of a signal; those of others do not use it up.
    pub fn next_of(&self, signal: Signal, behaviour: Behaviour) {
        lock(&self.inner.shared.script).push(Some(signal), behaviour);
    }

    /// How many of the queued behaviours are still to come.
    pub fn queued(&self) -> usize {
        lock(&self.inner.shared.script).queued()
    }

    /// Lets go every request that is held (see [`Behaviour::held`]), also one that is listed in
    /// [`Received::requests`] but has not been read to its end.
    pub fn release(&self) {
        self.inner.shared.released.send_modify(|count| *count += 1);
    }

    /// Healthy again: queued behaviours forgotten, the door open. Requests under way are left alone.
    ///
    /// # Errors
    /// As [`set_door`](Self::set_door).
    pub async fn recover(&self) -> Result<(), BackendError> {
        lock(&self.inner.shared.script).clear();
        self.set_door(Door::Open).await
    }

    // === Acknowledgement ===

    /// When events are indexed from now on.
    pub fn index(&self, indexing: Indexing) {
        lock(&self.inner.shared.acks).indexing = indexing;
    }

    /// Loses the next answers to questions about acknowledgement: the connection is reset.
    pub fn lose_acks(&self, count: u32) {
        lock(&self.inner.shared.acks).lose = count;
    }

    /// How often acknowledgement was asked for.
    pub fn asked_for_acks(&self) -> u64 {
        lock(&self.inner.shared.acks).asked
    }

    // === Connections ===

    /// Opens or closes the door; when this returns it is so, and connections that the new state ends are
    /// gone.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn set_door(&self, door: Door) -> Result<(), BackendError> {
        let (done, answer) = oneshot::channel();
        self.inner.doors.send((door, done)).await.map_err(|_| BackendError::Stopped)?;
        let address = self.inner.address;
        answer
            .await
            .map_err(|_| BackendError::Stopped)?
            .map_err(|source| BackendError::Listen { address, source })?;
        if matches!(door, Door::Refused | Door::Unreachable) {
            self.cut_all().await;
        }
        Ok(())
    }

    /// Resets every connection that is between two requests, as a network does to a frozen sandbox.
    /// Returns how many when they are gone.
    pub async fn cut_idle(&self) -> usize {
        self.cut(true).await
    }

    /// Resets every connection. Returns how many when they are gone.
    pub async fn cut_all(&self) -> usize {
        self.cut(false).await
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        lock(&self.inner.shared.open).len()
    }

    async fn cut(&self, idle_only: bool) -> usize {
        let shared = &self.inner.shared;
        let mut changed = shared.changed.subscribe();
        let cut: Vec<u64> = lock(&shared.open)
            .iter()
            .filter(|(_, open)| open.idle || !idle_only)
            .map(|(connection, open)| {
                open.cut.notify_one();
                *connection
            })
            .collect();
        while cut.iter().any(|connection| lock(&shared.open).contains_key(connection)) {
            if changed.changed().await.is_err() {
                break; // the backend is being dropped
            }
        }
        cut.len()
    }

    // === What arrived ===

    /// Looks at everything that has arrived, without a copy.
    pub fn received<R>(&self, look: impl FnOnce(&Received) -> R) -> R {
        look(&lock(&self.inner.shared.received))
    }

    /// Waits until a condition on what has arrived holds. It is asked now and after every change.
    ///
    /// # Errors
    /// [`Timeout`], with a summary of what had arrived.
    pub async fn wait_for(
        &self,
        mut condition: impl FnMut(&Received) -> bool,
        within: Duration,
    ) -> Result<(), Timeout> {
        let mut changed = self.inner.shared.changed.subscribe();
        let met = async {
            while !self.received(&mut condition) {
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match timeout(within, met).await {
            Ok(()) => Ok(()),
            Err(_elapsed) => Err(Timeout { waited: within, summary: self.received(Received::summary) }),
        }
    }

    /// A copy of the records kept.
    pub fn records(&self) -> Vec<Record> {
        self.received(|received| received.records().to_vec())
    }

    /// Takes the records kept so far: a long run looks at each once and need not keep them.
    pub fn take_records(&self) -> Vec<Record> {
        lock(&self.inner.shared.received).take_records()
    }

    /// A copy of the list of requests.
    pub fn requests(&self) -> Vec<Request> {
        self.received(|received| received.requests().to_vec())
    }

    /// The texts of the log records kept.
    pub fn texts(&self) -> Vec<String> {
        self.received(|received| received.texts().into_iter().map(str::to_owned).collect())
    }

    /// See [`Received::repeated`].
    pub fn repeated(&self) -> Vec<Repeat> {
        self.received(Received::repeated)
    }

    /// See [`Received::missing`].
    pub fn missing<T: AsRef<str>>(&self, expected: &[T]) -> Vec<String> {
        self.received(|received| received.missing(expected).into_iter().map(str::to_owned).collect())
    }

    /// See [`Received::misordered`].
    pub fn misordered<T: AsRef<str>>(&self, expected: &[T]) -> Vec<String> {
        self.received(|received| received.misordered(expected))
    }
}

/// Accepts connections and changes the door until the handle is dropped; connections end with it.
async fn accept(mut doorway: Doorway, mut doors: mpsc::Receiver<DoorChange>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            change = doors.recv() => {
                let Some((door, done)) = change else { return };
                let result = doorway.set(door).await;
                // Nobody waits any more if the caller gave up; the door is as it wished all the same.
                drop(done.send(result));
            }
            stream = doorway.accept() => {
                // An error here concerns the one connection, which its sender sees as well.
                if let Ok(stream) = stream {
                    connections.spawn(connection::serve(stream, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Decodes bodies that were answered already, in the order of their answers.
async fn decode_later(mut bodies: mpsc::UnboundedReceiver<(u64, Signal, Body)>, shared: Arc<Shared>) {
    while let Some((number, signal, body)) = bodies.recv().await {
        let dialect = shared.dialect;
        let job = tokio::task::spawn_blocking(move || body.decode(dialect, signal, number));
        let decoded = job.await.unwrap_or_else(|error| Err(format!("the decoder failed: {error}")));
        shared.update(|received| {
            received.undecoded -= 1;
            if let Some(request) = received.request(number) {
                note(request, &decoded);
            }
            if let Ok((_, records)) = decoded {
                received.add(records);
            }
        });
    }
}
