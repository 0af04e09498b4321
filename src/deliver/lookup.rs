//! Looking up the backend's name, in threads of its own.
//!
//! The system's look-up (`getaddrinfo`) cannot be cancelled, and with a name server that does not answer it hangs for its
//! own time-out, 10 s per server by default, far longer than a request may take. So each attempt starts a fresh one: once
//! name servers answer again, the next attempt connects at once instead of waiting for those that still hang. Their
//! number is bounded; beyond it, an attempt waits for one of them to end. Any address that is found, by whichever
//! thread, serves everybody who waits for the name. When the process exits, threads that hang go with it.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::oneshot;

/// Look-ups under way at a time. With the default time-out of a request (5 s, of which connecting takes 3 at most) and of
/// the system's look-up, three hang together; the fourth is for whoever comes when they are back.
const LOOKUPS_MAX: usize = 4;

/// How names become addresses; the seam for tests.
type System = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Looks names up. Clones share what is under way.
#[derive(Clone)]
pub(super) struct Lookups {
    system: Arc<System>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Threads that are at it.
    running: usize,
    /// Numbers the waiters.
    last: u64,
    waiting: HashMap<u64, Waiter>,
}

/// Somebody who wants to connect.
struct Waiter {
    host: String,
    /// Whether a thread looks it up on his behalf.
    started: bool,
    reply: oneshot::Sender<io::Result<Vec<SocketAddr>>>,
}

impl Lookups {
    /// By the system's resolver.
    pub(super) fn new() -> Self {
        // The port is the connector's business.
        Self::by(|host| (host, 0).to_socket_addrs().map(Iterator::collect))
    }

    fn by(system: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self { system: Arc::new(system), state: Arc::default() }
    }

    async fn look_up(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let (reply, found) = oneshot::channel();
        {
            let mut state = self.state();
            // Those who have given up meanwhile.
            state.waiting.retain(|_, waiter| !waiter.reply.is_closed());
            state.last = state.last.wrapping_add(1);
            let number = state.last;
            state.waiting.insert(number, Waiter { host: host.to_owned(), started: false, reply });
        }
        self.start_waiting();
        found.await.unwrap_or_else(|_| Err(io::Error::other("the look-up came to grief")))
    }

    /// Starts a thread for each who has none, the oldest first, while there may be more.
    fn start_waiting(&self) {
        let mut state = self.state();
        while state.running < LOOKUPS_MAX {
            let next = state.waiting.iter_mut().filter(|(_, waiter)| !waiter.started);
            let Some((&number, waiter)) = next.min_by_key(|(number, _)| **number) else { return };
            waiter.started = true;
            let host = waiter.host.clone();
            let lookups = self.clone();
            let started = thread::Builder::new().name("lookup".into()).spawn(move || {
                let ended = Ended { lookups, number, host, found: None };
                ended.run();
            });
            match started {
                Ok(_) => state.running += 1,
                Err(error) => {
                    if let Some(waiter) = state.waiting.remove(&number) {
                        drop(waiter.reply.send(Err(error)));
                    }
                }
            }
        }
    }

    /// A panic while this is held leaves nothing half done, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look-up on its thread; tells of its end however it ends.
struct Ended {
    lookups: Lookups,
    number: u64,
    host: String,
    found: Option<io::Result<Vec<SocketAddr>>>,
}

impl Ended {
    fn run(mut self) {
        self.found = Some((self.lookups.system)(&self.host));
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let found = self.found.take().unwrap_or_else(|| Err(io::Error::other("the look-up came to grief")));
        let mut state = self.lookups.state();
        state.running = state.running.saturating_sub(1);
        let own = state.waiting.remove(&self.number);
        match found {
            Ok(addresses) => {
                let same: Vec<u64> = state
                    .waiting
                    .iter()
                    .filter_map(|(number, waiter)| (waiter.host == self.host).then_some(*number))
                    .collect();
                let others: Vec<Waiter> =
                    same.iter().filter_map(|number| state.waiting.remove(number)).collect();
                for waiter in own.into_iter().chain(others) {
                    drop(waiter.reply.send(Ok(addresses.clone())));
                }
            }
            // Another thread may find what this one did not: it may have begun when name servers were away.
            Err(error) => {
                if let Some(waiter) = own {
                    drop(waiter.reply.send(Err(error)));
                }
            }
        }
        drop(state);
        self.lookups.start_waiting();
    }
}

impl Resolve for Lookups {
    fn resolve(&self, name: Name) -> Resolving {
        let lookups = self.clone();
        Box::pin(async move {
            let addresses = lookups.look_up(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    type Answer = io::Result<Vec<SocketAddr>>;

    /// Look-ups that hang until they are told what they find, and how many have begun.
    struct Scripted {
        lookups: Lookups,
        begun: mpsc::Receiver<(String, mpsc::Sender<Answer>)>,
    }

    fn scripted() -> Scripted {
        let (start, begun) = mpsc::channel();
        let lookups = Lookups::by(move |host| {
            let (tell, told) = mpsc::channel();
            start.send((host.to_owned(), tell)).unwrap();
            told.recv().unwrap()
        });
        Scripted { lookups, begun }
    }

    fn address(last: u8) -> SocketAddr {
        ([127, 0, 0, last], 0).into()
    }

    fn ask(scripted: &Scripted, host: &'static str) -> tokio::task::JoinHandle<Answer> {
        let lookups = scripted.lookups.clone();
        tokio::spawn(async move { lookups.look_up(host).await })
    }

    impl Scripted {
        /// The next look-up that begins.
        async fn next(&self) -> mpsc::Sender<Answer> {
            self.next_of().await.1
        }

        /// The next look-up that begins, and of what.
        async fn next_of(&self) -> (String, mpsc::Sender<Answer>) {
            loop {
                if let Ok(begun) = self.begun.try_recv() {
                    return begun;
                }
                tokio::task::yield_now().await;
            }
        }

        fn running(&self) -> usize {
            self.lookups.state().running
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up() {
        let found = Lookups::new().look_up("localhost").await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()) && !found.is_empty(), "{found:?}");
    }

    #[tokio::test]
    async fn a_fresh_look_up_does_not_wait_for_one_that_hangs_and_serves_everybody() {
        let scripted = scripted();
        let first = ask(&scripted, "a");
        let hung = scripted.next().await;
        let second = ask(&scripted, "a");
        let other = ask(&scripted, "b");
        // Threads begin in any order.
        let begun = HashMap::from([scripted.next_of().await, scripted.next_of().await]);
        let (fresh, for_other) = (&begun["a"], &begun["b"]);
        fresh.send(Ok(vec![address(1)])).unwrap();
        assert_eq!(second.await.unwrap().unwrap(), [address(1)]);
        assert_eq!(first.await.unwrap().unwrap(), [address(1)]);
        for_other.send(Ok(vec![address(2)])).unwrap();
        assert_eq!(other.await.unwrap().unwrap(), [address(2)], "it is for another name");
        hung.send(Err(io::ErrorKind::TimedOut.into())).unwrap();
    }

    #[tokio::test]
    async fn a_failure_is_that_of_its_own_attempt() {
        let scripted = scripted();
        let first = ask(&scripted, "a");
        let failing = scripted.next().await;
        let second = ask(&scripted, "a");
        let working = scripted.next().await;
        failing.send(Err(io::ErrorKind::TimedOut.into())).unwrap();
        assert_eq!(first.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        working.send(Ok(vec![address(1)])).unwrap();
        assert_eq!(second.await.unwrap().unwrap(), [address(1)]);
    }

    #[tokio::test]
    async fn threads_are_bounded_and_the_next_starts_when_one_ends() {
        let scripted = scripted();
        let mut hung = Vec::new();
        for _ in 0..LOOKUPS_MAX {
            let given_up = ask(&scripted, "a");
            hung.push(scripted.next().await);
            given_up.abort();
            drop(given_up.await);
        }
        let waiting = ask(&scripted, "a");
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(scripted.running(), LOOKUPS_MAX);
        assert!(scripted.begun.try_recv().is_err(), "no more than the bound");
        hung[0].send(Err(io::ErrorKind::TimedOut.into())).unwrap();
        let fresh = scripted.next().await;
        fresh.send(Ok(vec![address(1)])).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), [address(1)]);
        assert_eq!(scripted.lookups.state().waiting.len(), 0);
    }

    #[tokio::test]
    async fn with_every_thread_hanging_what_one_of_them_finds_is_used() {
        let scripted = scripted();
        let mut hung = Vec::new();
        for _ in 0..LOOKUPS_MAX {
            let given_up = ask(&scripted, "a");
            hung.push(scripted.next().await);
            given_up.abort();
        }
        let waiting = ask(&scripted, "a");
        tokio::task::yield_now().await;
        hung[2].send(Ok(vec![address(1)])).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), [address(1)]);
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_look_up() {
        let lookups = Lookups::by(|_| panic!("as arranged"));
        for _ in 0..=LOOKUPS_MAX {
            let answer = tokio::time::timeout(Duration::from_secs(20), lookups.look_up("a")).await;
            assert!(answer.unwrap().is_err());
        }
    }
}
