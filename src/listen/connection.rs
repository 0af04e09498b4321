//! One connection: its bytes are counted, its phases noted, and it is cut when [`Watch`] says so.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::limits::Limits;
use super::watch::{Phase, Snapshot, Verdict, Watch};

/// What is known about a connection, shared by its bytes, its requests and the accept loop.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<State>,
    /// Counts how often any connection became idle; orders them by it without a clock.
    order: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    snapshot: Snapshot,
    /// The place in the order of becoming idle.
    idle_order: u64,
}

/// A stream whose bytes count as progress.
pub(super) struct Metered {
    stream: TcpStream,
    progress: Arc<Progress>,
}

/// Serves `connection` until it ends or is cut.
pub(super) async fn attend(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    progress: Arc<Progress>,
    limits: Limits,
) {
    let now = Instant::now();
    let mut connection = pin!(connection);
    let mut watch = Watch::new(limits, now);
    let mut timer = pin!(sleep_until(now));
    std::future::poll_fn(|context| {
        // Served first and judged after, so that bytes that are there already always count.
        if let Poll::Ready(end) = connection.as_mut().poll(context) {
            if let Err(error) = end {
                log::debug!("connection: {error}");
            }
            return Poll::Ready(());
        }
        loop {
            match watch.look(Instant::now(), progress.snapshot()) {
                Verdict::Wait => return Poll::Pending,
                Verdict::Cut => {
                    log::debug!("connection: took too long");
                    return Poll::Ready(());
                }
                Verdict::Until(deadline) => {
                    if timer.deadline() != deadline {
                        timer.as_mut().reset(deadline);
                    }
                    ready!(timer.as_mut().poll(context));
                }
            }
        }
    })
    .await;
}

// === impl Progress ===

impl Progress {
    /// A new connection, idle. `order` is the same for all connections of a listener.
    pub(super) fn new(order: Arc<AtomicU64>) -> Self {
        let idle_order = order.fetch_add(1, Ordering::Relaxed);
        let snapshot = Snapshot { phase: Phase::Idle, phases: 0, bytes: 0 };
        Self { state: Mutex::new(State { snapshot, idle_order }), order }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.state().snapshot
    }

    /// Notes that the connection goes on to `phase`.
    pub(super) fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.enter(phase);
        if phase == Phase::Idle {
            state.idle_order = self.order.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// When the connection became idle, relative to others; `None` if it is not.
    pub(super) fn idle_order(&self) -> Option<u64> {
        let state = self.state();
        (state.snapshot.phase == Phase::Idle).then_some(state.idle_order)
    }

    /// Stops the connection from reading, if it is idle still. False if a request has begun.
    pub(super) fn evict(&self) -> bool {
        let mut state = self.state();
        let idle = state.snapshot.phase == Phase::Idle;
        if idle {
            state.enter(Phase::Evicted);
        }
        idle
    }

    fn read(&self, bytes: usize) {
        let mut state = self.state();
        state.snapshot.bytes += bytes as u64;
        if bytes > 0 && state.snapshot.phase == Phase::Idle {
            state.enter(Phase::Head);
        }
    }

    fn wrote(&self, bytes: usize) {
        self.state().snapshot.bytes += bytes as u64;
    }

    /// A panic while this is held leaves nothing half done, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.snapshot.phase = phase;
        self.snapshot.phases += 1;
    }
}

// === impl Metered ===

impl Metered {
    pub(super) fn new(stream: TcpStream, progress: Arc<Progress>) -> Self {
        Self { stream, progress }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.progress.snapshot().phase == Phase::Evicted {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.progress.read(buffer.filled().len().saturating_sub(before));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.progress.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.progress.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attends to a connection on which nothing ever happens, in virtual time.
    fn attend_to_nothing() -> tokio::task::JoinHandle<()> {
        let progress = Arc::new(Progress::new(Arc::default()));
        tokio::spawn(attend(std::future::pending(), progress, Limits::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_cut_when_its_time_is_up() {
        let started = Instant::now();
        attend_to_nothing().await.unwrap();
        let idle = Limits::default().idle_timeout;
        assert!(started.elapsed() >= idle && started.elapsed() < idle * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_freeze_gives_a_silent_connection_its_whole_time_again() {
        let started = Instant::now();
        let connection = attend_to_nothing();
        tokio::task::yield_now().await;
        let freeze = Limits::default().idle_timeout * 10;
        tokio::time::advance(freeze).await;
        connection.await.unwrap();
        assert!(started.elapsed() >= freeze + Limits::default().idle_timeout);
    }

    #[test]
    fn only_an_idle_connection_is_evicted_and_it_stays_so() {
        let progress = Progress::new(Arc::default());
        progress.read(1);
        assert_eq!(progress.snapshot().phase, Phase::Head);
        assert!(!progress.evict());
        progress.enter(Phase::Idle);
        assert!(progress.evict());
        assert!(!progress.evict());
        assert_eq!(progress.idle_order(), None);
        progress.read(1);
        assert_eq!(progress.snapshot().phase, Phase::Evicted);
    }

    #[test]
    fn connections_are_ordered_by_when_they_became_idle_last() {
        let order = Arc::new(AtomicU64::new(0));
        let first = Progress::new(order.clone());
        let second = Progress::new(order);
        assert!(first.idle_order() < second.idle_order());
        first.enter(Phase::Body);
        assert_eq!(first.idle_order(), None);
        first.enter(Phase::Idle);
        assert!(first.idle_order() > second.idle_order());
    }
}
