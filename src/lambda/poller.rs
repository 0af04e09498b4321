//! Asking for the next event.
//!
//! A task of its own owns the connection and does nothing but ask, because nothing else may ever interrupt it:
//! the select loop of the lifecycle drops futures all the time, and a `next` that is dropped loses its event.
//! The task is told one thing only, "ask now", and answers with one thing only, the event.
//!
//! ```text
//! lifecycle ── ask() ──> permit ──> task: GET /event/next, again after a pause until it is answered
//!           <─ event() ─────────── event, with the moment it arrived
//! ```
//!
//! A poll that fails leaves open whether Lambda took it. If it did, the event is lost and the next poll is
//! refused or answered as usual; if it did not, the next poll is the first. Either way asking again is right,
//! and asking again at once in a loop is not, so each failure is followed by a pause that grows.

use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::endpoint::{Endpoint, RuntimeApi};
use super::error::LambdaError;
use super::event::LambdaEvent;
use super::http::{Call, Client};
use super::register::IDENTIFIER;
use crate::clock;

/// The pause after the first failed poll: long enough that a refusing Lambda is not flooded, short enough that
/// an invocation that waits for us barely shows it.
const PAUSE_MIN_MS: u64 = 50;
/// The longest pause. The function's invocation cannot end while we pause, and can be as short as a second
/// before its time-out.
const PAUSE_MAX_MS: u64 = 1_000;
const CALL: &str = "next";

/// An event and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What Lambda said.
    pub event: LambdaEvent,
    /// The wall clock when the answer had been read, in milliseconds since the Unix epoch.
    pub received_unix_ms: u64,
}

/// The lifecycle's end of the polling task.
#[derive(Debug)]
pub struct Poller {
    endpoint: Endpoint,
    call: Call,
    line: Line,
    /// A permit was given and no event has come back. A permit kept for later would make the task ask while
    /// the lifecycle still works on the event.
    asked: bool,
}

/// The task and its two channels.
#[derive(Debug)]
struct Line {
    permits: mpsc::Sender<()>,
    events: mpsc::Receiver<Received>,
    task: JoinHandle<()>,
}

// === impl Received ===

impl Received {
    /// How long what the event announces lasts, counted from the moment it came: zero if that is over already,
    /// `None` if Lambda did not say.
    pub fn budget(&self) -> Option<Duration> {
        let deadline = self.event.deadline_unix_ms()?;
        Some(Duration::from_millis(deadline.saturating_sub(self.received_unix_ms)))
    }
}

// === impl Poller ===

impl Poller {
    /// Starts the task. It asks for nothing until [`Poller::ask`]; then it goes on with the connection of `api`.
    ///
    /// # Errors
    /// [`LambdaError::Header`] if `identifier`, which Lambda gave out, fits no HTTP header.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(api: RuntimeApi, identifier: &str) -> Result<Self, LambdaError> {
        let call = Call {
            name: CALL,
            method: Method::GET,
            path: "/2020-01-01/extension/event/next",
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        }
        .header(IDENTIFIER, identifier, "the extension's identifier")?;
        let endpoint = api.client.endpoint().clone();
        let line = Line::open(api.client, call.clone(), 0);
        Ok(Self { endpoint, call, line, asked: false })
    }

    /// Says that the last event is dealt with and the next one is wanted. From here on Lambda may freeze the
    /// environment. Does nothing if the answer to the last call of this is still out.
    pub fn ask(&mut self) {
        if !self.asked {
            self.asked = true;
            self.line.permit();
        }
    }

    /// Waits for the event that was asked for. May be dropped and called again at any time; nothing is lost.
    ///
    /// Without [`Poller::ask`] before it, this waits for ever. After an event, [`LambdaEvent::Unknown`] included,
    /// nothing more comes until it is asked for.
    pub async fn event(&mut self) -> Received {
        loop {
            if let Some(received) = self.line.events.recv().await {
                self.asked = false;
                return received;
            }
            // The task ends by itself only with its poller, so it panicked. An extension that stops asking
            // makes every invocation time out, so it starts anew, as if its poll had failed.
            let end = (&mut self.line.task).await;
            log::error!("polling for events broke off ({end:?}) and is started again");
            self.line = Line::open(Client::new(self.endpoint.clone()), self.call.clone(), 1);
            if self.asked {
                self.line.permit();
            }
        }
    }
}

// === impl Line ===

impl Line {
    fn open(client: Client, call: Call, failures: u32) -> Self {
        // One of each: a permit stands for one event.
        let (permits, permitted) = mpsc::channel(1);
        let (sender, events) = mpsc::channel(1);
        let task = tokio::spawn(poll(client, call, failures, permitted, sender));
        Self { permits, events, task }
    }

    fn permit(&self) {
        if self.permits.try_send(()).is_err() {
            log::debug!("the polling task is gone");
        }
    }
}

/// The task. `failures` is how many went before its first poll.
async fn poll(
    mut client: Client,
    call: Call,
    mut failures: u32,
    mut permitted: mpsc::Receiver<()>,
    events: mpsc::Sender<Received>,
) {
    while permitted.recv().await.is_some() {
        let event = loop {
            wait(pause(failures)).await;
            match next(&mut client, &call).await {
                Ok(event) => break event,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        log::warn!("asking for the next event fails and goes on: {error}");
                    } else {
                        log::debug!("asking for the next event, attempt {failures}: {error}");
                    }
                    if events.is_closed() {
                        return;
                    }
                }
            }
        };
        let received_unix_ms = u64::try_from(clock::unix_now().as_millis()).unwrap_or(u64::MAX);
        if let LambdaEvent::Unknown(kind) = &event {
            // One may be something new. A stream of them is an answer that does not block, and asking on
            // would spin.
            log::debug!("an event of unknown type {kind:?}");
            failures = failures.saturating_add(1);
        } else {
            if failures > 0 {
                log::info!("asking for the next event works again after {failures} failures");
            }
            failures = 0;
        }
        if events.send(Received { event, received_unix_ms }).await.is_err() {
            return;
        }
    }
}

async fn next(client: &mut Client, call: &Call) -> Result<LambdaEvent, LambdaError> {
    let answer = client.call(call).await?;
    if answer.status != StatusCode::OK {
        return Err(answer.refusal(CALL));
    }
    LambdaEvent::parse(&answer.body).ok_or(LambdaError::NotAnEvent)
}

/// How long to wait before the next poll after so many failures in a row.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => {
            let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
            Duration::from_millis(PAUSE_MIN_MS.saturating_mul(factor).min(PAUSE_MAX_MS))
        }
    }
}

// The lifecycle's policy has no say in this: until a poll is answered there is no event to decide about, and the
// task must not depend on being woken by anyone.
#[allow(clippy::disallowed_methods)]
async fn wait(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::testing::{Script, Server, answer};
    use super::*;

    fn event(body: &str) -> String {
        answer("200 OK", body)
    }

    fn invoke(id: &str) -> String {
        event(&format!(r#"{{"eventType":"INVOKE","requestId":"{id}","deadlineMs":1}}"#))
    }

    async fn start(scripts: Vec<Script>) -> (Poller, Server) {
        let server = Server::start(scripts).await;
        let api = RuntimeApi::from_env_value(&server.address()).unwrap();
        (Poller::start(api, "id-1").unwrap(), server)
    }

    fn id(received: &Received) -> &str {
        match &received.event {
            LambdaEvent::Invoke { request_id, .. } => request_id,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn nothing_is_asked_without_a_permit_and_one_permit_asks_once() {
        let (mut poller, mut server) = start(vec![Script::answers([invoke("a"), invoke("b")])]).await;
        poller.ask();
        poller.ask();
        let first = poller.event().await;
        assert_eq!(id(&first), "a");
        let request = server.request().await;
        assert!(request.starts_with("GET /2020-01-01/extension/event/next HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("lambda-extension-identifier: id-1\r\n"), "{request}");
        // The task has nothing to do now, however often it runs.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.waiting_requests(), 0);
        poller.ask();
        assert_eq!(id(&poller.event().await), "b");
        assert_eq!(server.finish().await.len(), 1);
    }

    #[tokio::test]
    async fn an_event_not_yet_fetched_survives_a_dropped_wait() {
        let (mut poller, mut server) = start(vec![Script::answers([invoke("a")])]).await;
        poller.ask();
        tokio::select! {
            biased;
            _ = poller.event() => panic!("nobody answered yet"),
            () = std::future::ready(()) => {}
        }
        server.request().await;
        assert_eq!(id(&poller.event().await), "a");
    }

    #[tokio::test]
    async fn an_event_in_tiny_pieces_or_chunks_is_read_and_its_budget_is_never_negative() {
        let body = r#"{"eventType":"SHUTDOWN","deadlineMs":1,"shutdownReason":"SPINDOWN"}"#;
        let chunked = format!(
            "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        let (mut poller, _server) =
            start(vec![Script::answers([event(body), chunked]).in_pieces_of(1)]).await;
        for _ in 0..2 {
            poller.ask();
            let received = poller.event().await;
            assert!(matches!(received.event, LambdaEvent::Shutdown { .. }), "{received:?}");
            assert_eq!(received.budget(), Some(Duration::ZERO));
        }
    }

    #[tokio::test]
    async fn a_connection_closed_between_events_is_replaced() {
        let close = invoke("b").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let scripts =
            vec![Script::answers([invoke("a")]), Script::answers([close]), Script::answers([invoke("c")])];
        let (mut poller, server) = start(scripts).await;
        for expected in ["a", "b", "c"] {
            poller.ask();
            assert_eq!(id(&poller.event().await), expected);
        }
        assert_eq!(server.finish().await.len(), 3);
    }

    #[tokio::test]
    async fn refusals_failures_and_garbage_are_asked_through_with_a_pause_after_each() {
        let state = r#"{"errorType":"Extension.InvalidExtensionState","errorMessage":"Ready"}"#;
        let scripts = vec![
            Script::answers([answer("500 Internal Server Error", ""), answer("403 Forbidden", state)])
                .then_vanishes(),
            Script::answers([invoke("a")]),
        ];
        let (mut poller, server) = start(scripts).await;
        let started = Instant::now();
        poller.ask();
        assert_eq!(id(&poller.event().await), "a");
        assert!(started.elapsed() >= pause(1) + pause(2) + pause(3));
        assert_eq!(server.finish().await.len(), 4);
    }

    #[tokio::test]
    async fn a_poll_that_broke_off_is_not_repeated_at_once() {
        let (mut poller, server) = start(vec![Script::vanishes(), Script::answers([invoke("a")])]).await;
        let started = Instant::now();
        poller.ask();
        assert_eq!(id(&poller.event().await), "a");
        assert!(started.elapsed() >= pause(1));
        assert_eq!(server.finish().await.len(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_an_event_is_asked_through() {
        let (mut poller, server) =
            start(vec![Script::answers([event("<html>"), event("[]"), invoke("a")])]).await;
        poller.ask();
        assert_eq!(id(&poller.event().await), "a");
        assert_eq!(server.finish().await.len(), 3);
    }

    #[tokio::test]
    async fn an_unknown_event_is_handed_on_and_a_run_of_them_is_slowed_down() {
        let unknown = event(r#"{"eventType":"RESTORE"}"#);
        let (mut poller, _server) =
            start(vec![Script::answers([unknown.clone(), unknown, invoke("a")])]).await;
        let started = Instant::now();
        for _ in 0..2 {
            poller.ask();
            assert_eq!(poller.event().await.event, LambdaEvent::Unknown("RESTORE".into()));
        }
        poller.ask();
        assert_eq!(id(&poller.event().await), "a");
        assert!(started.elapsed() >= pause(1) + pause(2));
    }

    #[tokio::test]
    async fn a_refused_connection_is_an_error_that_says_where_and_leaves_the_client_usable() {
        // The port of a listener that is gone refuses connections.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let mut client = RuntimeApi::from_env_value(&address).unwrap().client;
        let (poller, _server) = start(vec![]).await;
        for _ in 0..2 {
            let error = next(&mut client, &poller.call).await.unwrap_err();
            assert!(matches!(error, LambdaError::Connect { .. }), "{error}");
            assert!(error.to_string().contains(&address), "{error}");
        }
    }

    #[tokio::test]
    async fn a_poller_whose_task_died_asks_again_for_what_was_asked() {
        let (mut poller, mut server) = start(vec![Script::hangs(), Script::answers([invoke("a")])]).await;
        poller.ask();
        server.request().await;
        poller.line.task.abort();
        assert_eq!(id(&poller.event().await), "a");
    }

    #[tokio::test]
    async fn a_poll_outlives_its_poller_rather_than_being_cancelled() {
        let (mut poller, mut server) = start(vec![Script::answers([invoke("a")]).then_hangs()]).await;
        poller.ask();
        poller.event().await;
        poller.ask();
        server.request().await;
        server.request().await;
        let task = poller.line.task.abort_handle();
        drop(poller);
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(!task.is_finished());
        task.abort();
    }

    #[test]
    fn pauses_double_from_the_least_to_the_most_and_stay_there() {
        let millis: Vec<_> = (0..8).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(millis, [0, 50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(pause(u32::MAX).as_millis(), 1_000);
    }
}
