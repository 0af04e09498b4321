//! A receiver nobody here wrote: rotel, an OpenTelemetry collector that installs with pip.
//!
//! `tests/parts/get.sh rotel` fetches it; nothing here does. It is started with an exporter that throws
//! everything away and a debug log that prints every record, and what it prints is what a test looks at.

use std::{
    env, fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{received::Request, shared::lock};

/// Where parts are installed, unless it is `$HOME/.cache/outlast-parts`.
const PARTS_DIR: &str = "PARTS_DIR";
/// Set to 1, it makes a missing part a failure instead of a reason to skip.
const REQUIRE_PARTS: &str = "OUTLAST_REQUIRE_PARTS";

/// Whether a missing part is a failure.
pub fn parts_are_required() -> bool {
    env::var_os(REQUIRE_PARTS).is_some_and(|value| value == "1")
}

/// Headers that say how a body is to be read.
const OF_BODY: [&str; 2] = ["content-type", "content-encoding"];
/// It starts within some 50 ms; a loaded machine is given a hundred times that.
const START_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries to connect while it starts. There is no event to wait for: it says that it starts,
/// not that it listens.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// Why the receiver is not there.
#[derive(Debug, thiserror::Error)]
pub enum RealError {
    /// It is not installed, and must be.
    #[error("rotel is not installed under {0}, and OUTLAST_REQUIRE_PARTS=1; run tests/parts/get.sh rotel")]
    Missing(PathBuf),
    /// It could not be started.
    #[error("cannot start rotel: {0}")]
    Start(#[from] io::Error),
    /// It did not listen in time.
    #[error("rotel did not listen within {START_WITHIN:?}; it said:\n{0}")]
    Silent(String),
    /// It did not take what the backend had taken.
    #[error("rotel answered {0:?}")]
    Refused(String),
    /// It did not print what was waited for.
    #[error("rotel did not print {missing:?} within {waited:?}; it said:\n{said}")]
    NotPrinted {
        /// The texts that are missing.
        missing: Vec<String>,
        /// How long was waited.
        waited: Duration,
        /// Everything it printed.
        said: String,
    },
}

/// A running collector; it is killed when this is dropped.
pub struct Rotel {
    address: SocketAddr,
    said: Arc<Mutex<String>>,
    changed: watch::Sender<()>,
    _child: Child,
    /// Bound to its ports without listening, so that nothing else gets them before it does. It sets
    /// `SO_REUSEADDR`, as these do, which Linux lets share a port as long as one of them listens.
    _reservations: [TcpSocket; 2],
}

impl Rotel {
    /// Starts it, or says on standard error that the test is skipped and gives nothing.
    ///
    /// # Errors
    /// [`RealError::Missing`] where `OUTLAST_REQUIRE_PARTS=1`; the others if it is there and fails.
    pub async fn start_or_skip(test: &str) -> Result<Option<Self>, RealError> {
        let directory = directory();
        match program(&directory) {
            Some(program) => Self::start(&program).await.map(Some),
            None if parts_are_required() => Err(RealError::Missing(directory)),
            None => {
                eprintln!(
                    "{test}: SKIPPED, rotel is not installed under {} (tests/parts/get.sh rotel)",
                    directory.display()
                );
                Ok(None)
            }
        }
    }

    async fn start(program: &Path) -> Result<Self, RealError> {
        let (http, http_reservation) = reserve()?;
        let (grpc, grpc_reservation) = reserve()?;
        let mut child = Command::new(program)
            .arg("start")
            .args(["--otlp-http-endpoint", &http.to_string()])
            .args(["--otlp-grpc-endpoint", &grpc.to_string()])
            .args(["--exporter", "blackhole"])
            .args(["--debug-log", "logs", "--debug-log", "metrics", "--debug-log", "traces"])
            .args(["--debug-log-verbosity", "detailed"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let said = Arc::new(Mutex::new(String::new()));
        let changed = watch::Sender::new(());
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(collect(stdout, Arc::clone(&said), changed.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(collect(stderr, Arc::clone(&said), changed.clone()));
        }
        let rotel = Self {
            address: http,
            said,
            changed,
            _child: child,
            _reservations: [http_reservation, grpc_reservation],
        };
        let give_up = Instant::now() + START_WITHIN;
        while TcpStream::connect(http).await.is_err() {
            if Instant::now() > give_up {
                return Err(RealError::Silent(rotel.said()));
            }
            sleep(CONNECT_PAUSE).await;
        }
        Ok(rotel)
    }

    /// Where it takes OTLP/HTTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL, as `OTEL_EXPORTER_OTLP_ENDPOINT` wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything it has printed.
    pub fn said(&self) -> String {
        lock(&self.said).clone()
    }

    /// Sends it a request that a backend got: path, body and what the headers say of the body, as they came.
    ///
    /// # Errors
    /// [`RealError::Start`] if it cannot be reached, [`RealError::Refused`].
    pub async fn forward(&self, request: &Request) -> Result<(), RealError> {
        use std::fmt::Write as _;
        let length = request.body.len();
        let mut head = format!("POST {} HTTP/1.1\r\nhost: {}\r\n", request.path, self.address);
        let told = request.headers.iter().filter(|(name, _)| OF_BODY.contains(&name.as_str()));
        for (name, value) in told {
            write!(head, "{name}: {value}\r\n").unwrap_or_default();
        }
        write!(head, "content-length: {length}\r\nconnection: close\r\n\r\n").unwrap_or_default();
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&request.body).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.lines().next().unwrap_or_default();
        if status.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(RealError::Refused(status.to_owned())) }
    }

    /// Waits until what it has printed is as wanted; whether it came to that in time.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&str) -> bool, within: Duration) -> bool {
        let mut changed = self.changed.subscribe();
        let printed = async {
            while !wanted(&self.said()) {
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(within, printed).await.is_ok()
    }

    /// Waits until it has printed each of these texts, log bodies for instance.
    ///
    /// # Errors
    /// [`RealError::NotPrinted`].
    pub async fn wait_for_texts<T: AsRef<str>>(
        &self,
        texts: &[T],
        within: Duration,
    ) -> Result<(), RealError> {
        if self.wait_for(|said| texts.iter().all(|text| said.contains(text.as_ref())), within).await {
            return Ok(());
        }
        let said = self.said();
        let missing = texts.iter().map(AsRef::as_ref).filter(|text| !said.contains(text));
        let missing = missing.map(str::to_owned).collect();
        Err(RealError::NotPrinted { missing, waited: within, said })
    }
}

/// The virtual environment that `tests/parts/get.sh` makes.
/// Where parts are installed.
pub(crate) fn parts() -> PathBuf {
    env::var_os(PARTS_DIR).map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/outlast-parts"),
        PathBuf::from,
    )
}

fn directory() -> PathBuf {
    parts().join("venv-rotel")
}

/// The collector itself. Some releases install it as a command, others inside the Python package.
fn program(directory: &Path) -> Option<PathBuf> {
    let command = directory.join("bin/rotel");
    let in_packages = fs::read_dir(directory.join("lib"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|python| python.path().join("site-packages/rotel/rotel-agent"));
    std::iter::once(command).chain(in_packages).find(|path| path.is_file())
}

fn reserve() -> io::Result<(SocketAddr, TcpSocket)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok((socket.local_addr()?, socket))
}

async fn collect(from: impl AsyncRead + Unpin, said: Arc<Mutex<String>>, changed: watch::Sender<()>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut said = lock(&said);
        said.push_str(&line);
        said.push('\n');
        drop(said);
        changed.send_replace(());
    }
}
