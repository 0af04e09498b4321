//! One connection: its bytes are counted, its phases noted, and it is cut when [`Watch`] says so.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::limits::Limits;
use super::watch::{Phase, Snapshot, Verdict, Watch};

/// What is known about a connection, shared by its bytes, its requests and the accept loop.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<State>,
    /// Counts the steps of all connections; orders them by their last one without a clock.
    order: Arc<AtomicU64>,
    /// Rung when this connection begins to wait for its peer.
    bell: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    snapshot: Snapshot,
    /// When it last moved, in the order of all steps.
    moved: u64,
    /// It has sent a whole request.
    proven: bool,
    /// When it last was as far as a body that is being sent would have to be: [`FLOW_MIN_BYTES`] further, or at the begin.
    moved_at: Instant,
    /// Bytes that have come since.
    flowed: usize,
    /// Of a body that is being read, what is held of it. `None` while we cannot go on reading ourselves.
    unfinished_bytes: Option<usize>,
}

/// A peer that has sent less than [`FLOW_MIN_BYTES`] of its body for so long does not want to, in milliseconds. Lambda sends
/// from memory over loopback: only a lack of CPU delays it, and that delays us as well.
const STALLED_MIN_MS: u64 = 100;
/// Less than half of what the longest body needs to come within its time (0.8 MB/s). A byte now and then must not be enough
/// to keep what others need.
const FLOW_MIN_BYTES: usize = 32 << 10;

/// How soon a connection that waits for its peer is closed for another: the least first. A peer that has not shown
/// itself to send requests goes first, then the one that has kept us waiting for longest.
pub(super) type Patience = (bool, u64);

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
    /// A new connection, idle. `order` and `bell` are the same for all connections of a listener.
    pub(super) fn new(order: Arc<AtomicU64>, bell: Arc<Notify>) -> Self {
        let moved = order.fetch_add(1, Ordering::Relaxed);
        let snapshot = Snapshot { phase: Phase::Idle, phases: 0, bytes: 0 };
        let state = State {
            snapshot,
            moved,
            proven: false,
            moved_at: Instant::now(),
            flowed: 0,
            unfinished_bytes: None,
        };
        Self { state: Mutex::new(state), order, bell }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.state().snapshot
    }

    /// Notes that the connection goes on to `phase`.
    pub(super) fn enter(&self, phase: Phase) {
        let mut state = self.state();
        if state.snapshot.phase == Phase::Evicted {
            return;
        }
        state.proven |= phase == Phase::Answering;
        state.enter(phase);
        state.unfinished_bytes = None;
        state.moved = self.order.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that so much of the body is held; `None` while there is no memory to read on.
    pub(super) fn holds(&self, bytes: Option<usize>) {
        let mut state = self.state();
        if state.unfinished_bytes.is_none() {
            // It could not go on before.
            state.flow_anew();
        }
        state.unfinished_bytes = bytes;
    }

    /// How long it may keep us waiting, relative to others; `None` if it does not wait for its peer.
    pub(super) fn patience(&self) -> Option<Patience> {
        let state = self.state();
        let sends = state.proven || state.snapshot.phase == Phase::Body;
        state.waits_for_peer().then_some((sends, state.moved))
    }

    /// What is held of a body whose peer has stalled; `None` if there is none.
    pub(super) fn stalled_bytes(&self, now: Instant) -> Option<usize> {
        let state = self.state();
        let stalled = now.saturating_duration_since(state.moved_at) >= Duration::from_millis(STALLED_MIN_MS);
        state.unfinished_bytes.filter(|_| state.snapshot.phase == Phase::Body && stalled)
    }

    /// Stops the connection from reading, if it waits for its peer. False if it is being answered.
    pub(super) fn evict(&self) -> bool {
        let mut state = self.state();
        let waits = state.waits_for_peer();
        if waits {
            state.enter(Phase::Evicted);
        }
        waits
    }

    fn read(&self, bytes: usize) {
        let mut state = self.state();
        state.snapshot.bytes += bytes as u64;
        if bytes > 0 {
            state.moved = self.order.fetch_add(1, Ordering::Relaxed);
            state.flowed = state.flowed.saturating_add(bytes);
            if state.flowed >= FLOW_MIN_BYTES {
                state.flow_anew();
            }
            if state.snapshot.phase == Phase::Idle {
                state.enter(Phase::Head);
            }
        }
    }

    fn wrote(&self, bytes: usize) {
        let mut state = self.state();
        state.snapshot.bytes += bytes as u64;
        // Only now may it be closed for another: the kernel has the answer.
        if bytes > 0 && state.snapshot.phase == Phase::Replying {
            state.enter(Phase::Idle);
            state.moved = self.order.fetch_add(1, Ordering::Relaxed);
            self.bell.notify_one();
        }
    }

    /// A panic while this is held leaves nothing half done, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn waits_for_peer(&self) -> bool {
        matches!(self.snapshot.phase, Phase::Idle | Phase::Head | Phase::Body)
    }

    fn flow_anew(&mut self) {
        self.moved_at = Instant::now();
        self.flowed = 0;
    }

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

    fn progress(order: &Arc<AtomicU64>) -> Progress {
        Progress::new(Arc::clone(order), Arc::default())
    }

    /// Attends to a connection on which nothing ever happens, in virtual time.
    fn attend_to_nothing() -> tokio::task::JoinHandle<()> {
        let progress = Arc::new(progress(&Arc::default()));
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
    fn only_a_connection_that_waits_for_its_peer_is_evicted_and_it_stays_so() {
        let progress = progress(&Arc::default());
        progress.enter(Phase::Answering);
        assert!(!progress.evict());
        progress.enter(Phase::Body);
        assert!(progress.evict());
        assert!(!progress.evict());
        assert_eq!(progress.patience(), None);
        progress.read(1);
        progress.enter(Phase::Answering);
        assert_eq!(progress.snapshot().phase, Phase::Evicted);
    }

    #[test]
    fn connections_are_ordered_by_their_last_byte_and_strangers_go_first() {
        let order = Arc::default();
        let [first, second, third] = [(); 3].map(|()| progress(&order));
        assert!(first.patience() < second.patience());
        first.read(1);
        assert!(first.patience() > second.patience());
        second.enter(Phase::Answering);
        assert_eq!(second.patience(), None);
        second.enter(Phase::Replying);
        assert_eq!(second.patience(), None, "an answer on its way is not cut off");
        second.wrote(1);
        assert_eq!(second.snapshot().phase, Phase::Idle);
        third.read(1);
        first.read(1);
        assert!(third.patience() < first.patience() && first.patience() < second.patience());
        // With its headers complete, a stranger is as good as anyone.
        first.enter(Phase::Body);
        assert!(second.patience() < first.patience());
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_a_stall_and_a_steady_flow_is_none() {
        let [trickle, flow] = [(); 2].map(|()| progress(&Arc::default()));
        for progress in [&trickle, &flow] {
            progress.enter(Phase::Body);
            progress.holds(Some(1 << 20));
        }
        for _ in 0..40 {
            tokio::time::advance(Duration::from_millis(STALLED_MIN_MS / 4)).await;
            trickle.read(10);
            trickle.holds(Some(1 << 20));
            flow.read(FLOW_MIN_BYTES / 3);
            assert_eq!(flow.stalled_bytes(Instant::now()), None);
        }
        assert_eq!(trickle.stalled_bytes(Instant::now()), Some(1 << 20));
    }

    #[test]
    fn a_body_stalls_if_its_peer_is_silent_for_long_but_not_if_we_are() {
        let progress = progress(&Arc::default());
        let later = Instant::now() + Duration::from_secs(1);
        progress.enter(Phase::Body);
        assert_eq!(progress.stalled_bytes(later), None, "it holds nothing");
        progress.holds(Some(7));
        assert_eq!(progress.stalled_bytes(Instant::now()), None, "it has just come");
        assert_eq!(progress.stalled_bytes(later), Some(7));
        progress.holds(None);
        assert_eq!(progress.stalled_bytes(later), None);
        progress.holds(Some(7));
        progress.enter(Phase::Answering);
        assert_eq!(progress.stalled_bytes(later), None);
    }
}
