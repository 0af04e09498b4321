use super::courier::HandingOver;
use super::last_line::last_line;
use super::*;
use crate::Signal;
use crate::config;
use crate::encode::Otlp;
use crate::keeper::{About, Fared, Setup, Summary};
use crate::lambda::RuntimeApi;
use crate::listen::Delivery;
use crate::queue::{Disk, DiskFile, Limits, Readers, RealDisk};
use bytes::Bytes;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use tokio::sync::oneshot;

#[test]
fn compression_is_what_the_user_set() {
    for (value, gzip) in [("gzip", true), ("none", false)] {
        let loaded = config::load([("OUTLAST_COMPRESSION", value)]);
        assert_eq!(settings(&loaded.config, false, true).gzip, gzip);
    }
}

#[test]
fn the_last_line_tells_what_is_left_and_what_was_dropped_by_signal() {
    let main = Fared { delivered: 2, ..Fared::default() };
    let mut summary = Summary { received: 9, main, ..Summary::default() };
    let line = last_line(&summary, false, 7);
    assert_eq!(line, "shutdown: 9 records received, 2 delivered, 0 left on disk, 0 dropped; 7 bytes sent");
    summary.main.waiting.get_mut(Signal::Traces).records = 3;
    *summary.main.dropped.get_mut(Signal::Logs) = 4;
    *summary.main.dropped.get_mut(Signal::Metrics) = 1;
    let line = last_line(&summary, true, 0);
    let told = "0 handed to the fallback, 3 left on disk (3 traces), 5 dropped (4 logs, 1 metrics)";
    assert_eq!(line, format!("shutdown: 9 records received, 2 delivered, {told}; 0 bytes sent"));
    summary.further.push(("audit".to_owned(), Fared { delivered: 5, ..Fared::default() }));
    let line = last_line(&summary, true, 0);
    let audit = "audit: 5 delivered, 0 left on disk, 0 dropped";
    assert_eq!(line, format!("shutdown: 9 records received, 2 delivered, {told}; {audit}; 0 bytes sent"));
}

/// A file system that never comes back, as one over a network may.
struct HangingDisk;

impl HangingDisk {
    fn hang() -> ! {
        loop {
            thread::park();
        }
    }
}

impl Disk for HangingDisk {
    fn prepare(&self, _: &Path) -> io::Result<()> {
        Self::hang()
    }
    fn list(&self, _: &Path) -> io::Result<Vec<(String, u64)>> {
        Self::hang()
    }
    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Self::hang()
    }
    fn open(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Self::hang()
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Self::hang()
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Self::hang()
    }
    fn remove_all(&self, _: &Path) -> io::Result<()> {
        Self::hang()
    }
}

/// A Lambda that has one event: SHUTDOWN, so long before its deadline.
fn lambda_that_ends(budget: Duration) -> RuntimeApi {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _head = stream.read(&mut request).unwrap();
        let deadline = (clock::unix_now() + budget).as_millis();
        let body =
            format!(r#"{{"eventType":"SHUTDOWN","deadlineMs":{deadline},"shutdownReason":"spindown"}}"#);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    RuntimeApi::from_env_value(&address.to_string()).unwrap()
}

/// A keeper over `dir`, and the settings it was made for.
fn keeper(dir: &Path, disk: fn() -> Box<dyn Disk>) -> (Keeper, Config) {
    let loaded = config::load([("OUTLAST_ENDPOINT", "http://127.0.0.1:9")]);
    let setup = Setup {
        dir: dir.to_path_buf(),
        disk,
        limits: Limits::new(1 << 20, loaded.config.overflow),
        wire: Box::new(Otlp),
        about: About::default(),
        epoch_unix_nanos: 0,
        readers: Readers::default(),
        making: crate::keeper::Making::default(),
        completes_resources: false,
    };
    (Keeper::start(setup).unwrap(), loaded.config)
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_keep_the_process_at_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, config) = keeper(dir.path(), || Box::new(HangingDisk));
    let (reply, _receipt) = oneshot::channel();
    let delivery = Delivery { body: Bytes::from_static(b"[]"), received_unix_nanos: 0, reply };
    keeper.inbox.send(delivery).await.unwrap();
    let mut poller = Poller::start(lambda_that_ends(Duration::from_millis(400)), "id").unwrap();
    let parts = Parts {
        config,
        poller: &mut poller,
        keepers: vec![keeper],
        clock: Clock::start(),
        continuous: false,
        subscribed: true,
    };
    // Far longer than it takes, and the only way to tell waiting from hanging.
    let ended = tokio::time::timeout(Duration::from_secs(20), run(parts)).await;
    assert!(ended.is_ok(), "it waited for the disk");
}

#[tokio::test]
async fn what_comes_to_light_at_the_end_asks_for_no_further_event() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, config) = keeper(dir.path(), || Box::new(RealDisk));
    let (landed, _landings) = mpsc::unbounded_channel();
    let (settled, _settlements) = mpsc::unbounded_channel();
    let outlets = Outlets { landed, settled };
    let keepers = [keeper];
    let mut courier = couriers(&config, &keepers, &outlets, (false, true)).remove(0);
    let mut clock = Clock::start();
    let now = clock.now();
    courier.tell(now, Event::Started);
    courier.tell(now, Event::Shutdown { deadline: now });
    courier.act(&mut clock, &keepers[0]);
    assert!(courier.is_done(), "nothing is waiting");
    courier.intake_closed(now);
    assert!(!courier.is_done(), "it looks once more");
    assert!(!courier.has_released(), "and lets nothing come");
    courier.act(&mut clock, &keepers[0]);
    assert!(courier.is_done());
}

#[test]
fn that_the_fallback_gets_something_is_told_once_an_outage_and_not_too_often() {
    let mut handing_over = HandingOver::default();
    let tells =
        |handing_over: &mut HandingOver, second| handing_over.is_to_be_told(Duration::from_secs(second));
    assert!(tells(&mut handing_over, 1));
    assert!(!tells(&mut handing_over, 100), "the same outage");
    handing_over.is_told = false;
    assert!(tells(&mut handing_over, 101));
    handing_over.is_told = false;
    assert!(!tells(&mut handing_over, 105), "just told");
    assert!(tells(&mut handing_over, 111), "and not forgotten for that");
}
