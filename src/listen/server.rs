//! The port, and the connections on it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinError, JoinSet};

use super::answer::{Desk, close_after};
use super::body::Memory;
use super::connection::{Metered, Progress, attend};
use super::limits::{HEAD_LEAST_BYTES, Limits};
use super::roster::Roster;
use super::watch::Phase;
use super::{Inbox, ListenError};

/// The pause after a failed accept. It fails when the environment is out of file descriptors or memory, and
/// would go on failing as fast as it is called.
const ACCEPT_PAUSE_MS: u64 = 50;

/// An answer that is being made.
pub(super) type Answering<'a> = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send + 'a>>;

/// Who answers the requests of a port. Behind a pointer, so that hyper's server is in the binary once and not for each.
pub(super) trait Answers: Send + Sync + 'static {
    /// What is listened for, for log lines.
    fn what(&self) -> &'static str;

    fn limits(&self) -> Limits;

    /// Answers `request`, noting in `progress` when the body is complete.
    fn answer<'a>(&'a self, request: Request<Incoming>, progress: &'a Progress) -> Answering<'a>;
}

/// A bound port that nobody answers yet.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    limits: Limits,
}

/// Where connections come from; the seam for accept errors.
pub(super) trait Accept {
    fn accept(&mut self) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

/// The connections that are open, each a task. Dropping this closes them.
struct Connections {
    tasks: JoinSet<()>,
    roster: Arc<Roster>,
    order: Arc<AtomicU64>,
}

// === impl Listener ===

impl Listener {
    /// Binds a free port on every IPv4 interface, and says which.
    ///
    /// Not on loopback only: Lambda delivers to `sandbox.localdomain`, which need not be 127.0.0.1. The kernel
    /// takes connections from here on, so the subscription may be made before [`Listener::serve`] is called.
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    pub async fn bind() -> Result<(Self, u16), ListenError> {
        Self::bind_with(Limits::default()).await
    }

    /// [`Listener::bind`] with other limits.
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    pub async fn bind_with(limits: Limits) -> Result<(Self, u16), ListenError> {
        let socket = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.map_err(ListenError::Bind)?;
        let port = socket.local_addr().map_err(ListenError::Bind)?.port();
        Ok((Self { socket, limits }, port))
    }

    /// Takes deliveries until the future is dropped, which closes the port and every connection.
    pub async fn serve(self, inbox: impl Inbox) -> Infallible {
        let roster = Arc::new(Roster::new(self.limits.max_connections));
        let memory = Memory::new(&self.limits, Arc::clone(&roster));
        serve(self.socket, Arc::new(Desk { inbox, limits: self.limits, memory }), roster).await
    }
}

/// Serves connections until the future is dropped.
pub(super) async fn serve(
    mut socket: impl Accept,
    desk: Arc<dyn Answers>,
    roster: Arc<Roster>,
) -> Infallible {
    let bell = roster.bell();
    let mut connections = Connections { tasks: JoinSet::new(), roster, order: Arc::default() };
    let mut failing = false;
    let mut newcomer = None;
    loop {
        if newcomer.is_some()
            && connections.roster.make_place()
            && let Some(stream) = newcomer.take()
        {
            connections.open(stream, &desk);
            // What has come with the connection is read before the next one could take its place.
            tokio::task::yield_now().await;
        }
        tokio::select! {
            biased;
            Some(end) = connections.tasks.join_next_with_id() => connections.closed(end),
            // With every place taken by a request that is being answered, further peers wait in the kernel.
            () = bell.notified(), if newcomer.is_some() => {}
            accepted = socket.accept(), if newcomer.is_none() => match accepted {
                Ok(stream) => {
                    failing = false;
                    newcomer = Some(stream);
                }
                Err(error) => {
                    if !failing {
                        log::warn!("cannot take {} connections and goes on trying: {error}", desk.what());
                    }
                    failing = true;
                    wait(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            },
        }
    }
}

// No policy has a say in when the kernel may be asked again.
#[allow(clippy::disallowed_methods)]
async fn wait(pause: Duration) {
    tokio::time::sleep(pause).await;
}

impl Accept for TcpListener {
    async fn accept(&mut self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }
}

// === impl Connections ===

impl Connections {
    /// Serves a new connection, for which there is a place.
    fn open(&mut self, stream: TcpStream, desk: &Arc<dyn Answers>) {
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("{} connection: {error}", desk.what());
        }
        let progress = Arc::new(Progress::new(self.order.clone(), self.roster.bell()));
        let abort = self.tasks.spawn(run(stream, desk.clone(), progress.clone(), self.roster.clone()));
        self.roster.enter(progress, abort);
    }

    fn closed(&mut self, end: Result<(Id, ()), JoinError>) {
        let id = match end {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    log::error!("connection: {error}");
                }
                error.id()
            }
        };
        self.roster.leave(id);
    }
}

/// Serves one connection to its end.
async fn run(stream: TcpStream, desk: Arc<dyn Answers>, progress: Arc<Progress>, roster: Arc<Roster>) {
    let limits = desk.limits();
    let io = TokioIo::new(Metered::new(stream, progress.clone()));
    let service = service_fn(|request| {
        let (desk, progress, roster) = (desk.clone(), progress.clone(), roster.clone());
        async move {
            progress.enter(Phase::Body);
            let mut response = desk.answer(request, &progress).await;
            // A peer that has its next request ready would keep its place for ever.
            if roster.is_wanted() {
                close_after(&mut response);
            }
            progress.enter(Phase::Replying);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        // Our own watch measures time; hyper's would fire on thaw.
        .header_read_timeout(None)
        .max_buf_size(limits.head_max_bytes.max(HEAD_LEAST_BYTES))
        .serve_connection(io, service);
    attend(connection, progress.clone(), limits).await;
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::super::{Delivery, InboxClosed, Receipt};
    use super::*;

    const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n[]";

    /// Fails as often as told, then waits for connections.
    struct Failing {
        failures: u32,
        socket: TcpListener,
    }

    impl Accept for Failing {
        async fn accept(&mut self) -> io::Result<TcpStream> {
            if let Some(rest) = self.failures.checked_sub(1) {
                self.failures = rest;
                return Err(ErrorKind::QuotaExceeded.into());
            }
            Accept::accept(&mut self.socket).await
        }
    }

    fn desk<I>(inbox: I) -> (Desk<I>, Arc<Roster>) {
        let limits = Limits::default();
        let roster = Arc::new(Roster::new(limits.max_connections));
        let memory = Memory::new(&limits, Arc::clone(&roster));
        (Desk { inbox, limits, memory }, roster)
    }

    async fn answer_to_post(port: u16) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(POST).await.unwrap();
        let mut answer = String::new();
        // A panic closes the connection without an answer, perhaps by a reset.
        while let Ok(byte) = stream.read_u8().await {
            answer.push(char::from(byte));
            if answer.ends_with("\r\n\r\n") {
                break;
            }
        }
        answer
    }

    #[tokio::test]
    async fn failed_accepts_end_nothing() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let (inbox, mut deliveries) = mpsc::channel::<Delivery>(1);
        let (desk, roster) = desk(inbox);
        let server = tokio::spawn(serve(Failing { failures: 3, socket }, Arc::new(desk), roster));
        let (answer, ()) = tokio::join!(answer_to_post(port), async {
            deliveries.recv().await.unwrap().reply.send(Receipt::Kept).unwrap();
        });
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        server.abort();
    }

    /// Panics at the first delivery.
    #[derive(Clone)]
    struct Bomb {
        next: mpsc::Sender<Delivery>,
        fuse: Arc<AtomicU64>,
    }

    impl Inbox for Bomb {
        async fn deliver(&self, delivery: Delivery) -> Result<(), InboxClosed> {
            assert_ne!(self.fuse.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "as arranged");
            self.next.deliver(delivery).await
        }
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_connection_only() {
        let (listener, port) = Listener::bind().await.unwrap();
        let (next, mut deliveries) = mpsc::channel(1);
        let server = tokio::spawn(listener.serve(Bomb { next, fuse: Arc::default() }));
        assert_eq!(answer_to_post(port).await, "");
        let (answer, ()) = tokio::join!(answer_to_post(port), async {
            deliveries.recv().await.unwrap().reply.send(Receipt::Kept).unwrap();
        });
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        server.abort();
    }
}
