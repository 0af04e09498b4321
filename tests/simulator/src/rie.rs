//! AWS's own Lambda Runtime Interface Emulator, driven for tests: the same extension binary runs there as in the
//! simulated [`Sandbox`](crate::Sandbox).
//!
//! It wants the emulator (`tests/parts/get.sh rie`), `unshare`, root (for namespaces), `python3` for the
//! scripted runtime and `curl`. Where something is missing a test skips itself, unless `OUTLAST_REQUIRE_PARTS=1`
//! makes that a failure:
//!
//! ```no_run
//! # use outlast_simulator::rie::{self, Emulator};
//! # use serde_json::json;
//! # async fn example() -> Result<(), rie::EmulatorError> {
//! if !rie::usable()? {
//!     return Ok(()); // the reason has been printed
//! }
//! let ran = Emulator::new("target/debug/outlast").managed().invoke(&json!({"do": "loud", "n": 100})).run().await?;
//! println!("{:?} {}", ran.responses, ran.log);
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

const PARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../parts");
const EMULATOR: &str = "rie/aws-lambda-rie-x86_64";
const INVOKE_URL: &str = "http://127.0.0.1:8080/2015-03-31/functions/function/invocations";

/// A run takes a few seconds; the emulator's own time-outs are below this.
const RUN_LIMIT: Duration = Duration::from_secs(45);

/// Why the emulator could not be used or did not finish.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// Something is missing and `OUTLAST_REQUIRE_PARTS=1` forbids to skip.
    #[error("the emulator is required but cannot be used: {0}")]
    Required(String),
    /// The run could not be started.
    #[error("cannot run the emulator: {0}")]
    Start(#[from] std::io::Error),
    /// The run did not finish.
    #[error("the emulator did not finish within {} s", RUN_LIMIT.as_secs())]
    TimedOut,
    /// The sandbox script failed.
    #[error("the emulator's sandbox ended with {0}: {1}")]
    Failed(std::process::ExitStatus, String),
}

/// Whether the emulator can be used here. If not, prints why, or fails if `OUTLAST_REQUIRE_PARTS=1`.
pub fn usable() -> Result<bool, EmulatorError> {
    let Some(missing) = missing() else { return Ok(true) };
    if std::env::var("OUTLAST_REQUIRE_PARTS").is_ok_and(|value| value == "1") {
        return Err(EmulatorError::Required(missing));
    }
    eprintln!("SKIPPED: {missing}");
    Ok(false)
}

fn missing() -> Option<String> {
    let emulator = emulator_path();
    if !emulator.is_file() {
        return Some(format!("no Lambda emulator at {}: run tests/parts/get.sh rie", emulator.display()));
    }
    if !rustix::process::geteuid().is_root() {
        return Some("the Lambda emulator's namespaces need root".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        |program: &str| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    ["unshare", "python3", "curl", "ip", "bash"]
        .into_iter()
        .find(|program| !found(program))
        .map(|program| format!("the Lambda emulator's sandbox needs {program}"))
}

fn emulator_path() -> PathBuf {
    let home = || std::env::var("HOME").unwrap_or_default();
    let parts = std::env::var("PARTS_DIR").unwrap_or_else(|_| format!("{}/.cache/outlast-parts", home()));
    Path::new(&parts).join(EMULATOR)
}

/// A run of one extension and one function under the emulator.
#[derive(Clone, Debug)]
#[must_use]
pub struct Emulator {
    extension: PathBuf,
    bootstrap: PathBuf,
    variables: Vec<(String, String)>,
    driver: Vec<String>,
}

impl Emulator {
    /// Ordinary mode: Extensions API without telemetry. The function is `tests/parts/bootstrap.py`, whose event says what to
    /// do: `{"do": "sleep", "s": 1}`, `{"do": "exit", "code": 3}`, `{"do": "loud", "n": 100, "len": 200}`,
    /// `{"do": "error"}`; anything else answers at once.
    pub fn new(extension: impl Into<PathBuf>) -> Self {
        Self {
            extension: extension.into(),
            bootstrap: Path::new(PARTS).join("bootstrap.py"),
            variables: Vec::new(),
            driver: Vec::new(),
        }
    }

    /// Managed Instances mode, whose Telemetry API is AWS's.
    pub fn managed(self) -> Self {
        self.env("AWS_LAMBDA_MAX_CONCURRENCY", "1")
    }

    /// Another runtime than `tests/parts/bootstrap.py`.
    pub fn bootstrap(mut self, bootstrap: impl Into<PathBuf>) -> Self {
        self.bootstrap = bootstrap.into();
        self
    }

    /// A variable for the emulator, the function and the extension. `$OUT` in the value is the directory of the run,
    /// which the extension may write to.
    #[allow(clippy::needless_pass_by_value, reason = "addresses, numbers and texts are passed as they are")]
    pub fn env(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.variables.push((name.into(), value.to_string()));
        self
    }

    /// Invokes the function with this event; its response becomes a line of [`Ran::responses`].
    pub fn invoke(self, event: &Value) -> Self {
        let event = event.to_string().replace('\'', r"'\''");
        self.shell(format!("curl -s -m 30 -XPOST {INVOKE_URL} -d '{event}'; echo"))
    }

    /// Waits, so that buffered telemetry arrives.
    pub fn wait(self, time: Duration) -> Self {
        self.shell(format!("sleep {:.3}", time.as_secs_f64()))
    }

    /// A command for the shell inside the emulator's namespaces. What it prints becomes lines of [`Ran::responses`].
    pub fn shell(mut self, command: impl Into<String>) -> Self {
        self.driver.push(command.into());
        self
    }

    /// Runs it all: starts the emulator, follows the driver's commands, ends the emulator with SIGTERM, which is
    /// SHUTDOWN for the extension.
    pub async fn run(self) -> Result<Ran, EmulatorError> {
        let directory = std::env::temp_dir().join(format!("outlast-rie-{:016x}", fastrand::u64(..)));
        std::fs::create_dir_all(&directory)?;
        let mut ran = Ran { directory, responses: Vec::new(), log: String::new() };
        let out = ran.directory.to_string_lossy().into_owned();
        let variables =
            self.variables.iter().map(|(name, value)| format!("{name}={}", value.replace("$OUT", &out)));
        let child = Command::new(Path::new(PARTS).join("rie-sandbox.sh"))
            .args([&self.extension, &self.bootstrap, &ran.directory])
            .args(variables)
            .arg("--")
            .arg(self.driver.join("\n"))
            .env("RIE", emulator_path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // `unshare --kill-child` ends everything inside with this one process.
            .kill_on_drop(true)
            .spawn()?;
        let output = tokio::time::timeout(RUN_LIMIT, child.wait_with_output())
            .await
            .map_err(|_| EmulatorError::TimedOut)??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !output.status.success() {
            return Err(EmulatorError::Failed(output.status, text(&output.stderr)));
        }
        ran.responses =
            text(&output.stdout).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        ran.log = ran.file("rie.log");
        Ok(ran)
    }
}

/// What a run left. Its directory goes with it.
#[derive(Debug)]
pub struct Ran {
    directory: PathBuf,
    /// Lines that the driver printed: the responses to its invocations.
    pub responses: Vec<String>,
    /// The emulator's log, which includes what function and extension print.
    pub log: String,
}

impl Ran {
    /// A text file that the extension wrote to `$OUT`; empty where there is none.
    pub fn file(&self, name: &str) -> String {
        std::fs::read(self.directory.join(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The directory of the run, `$OUT`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Ran {
    fn drop(&mut self) {
        // Left behind in the temporary directory at worst.
        let _removed = std::fs::remove_dir_all(&self.directory).is_ok();
    }
}
