//! Extension processes: started in a process group of their own, their output captured, stopped and killed as groups.
//!
//! A guardian, one small shell per sandbox, kills the groups should this process end without doing so itself: it reads
//! the list of groups from a pipe, and acts on the last one when the pipe closes.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child as StdChild, Command as StdCommand, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::clock::lock;

/// A grandchild may hold the pipes open after the extension's end; its output is not worth more than this wait.
const OUTPUT_DRAIN: Duration = Duration::from_millis(200);

/// One line of an extension's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputLine {
    /// The extension's name.
    pub extension: String,
    /// When the sandbox read it.
    pub at: Instant,
    /// Whether it came from stderr.
    pub stderr: bool,
    /// The line, without its end.
    pub text: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// When it was reaped.
    pub at: Instant,
}

impl Exit {
    fn new(status: ExitStatus) -> Self {
        Self { code: status.code(), signal: status.signal(), at: Instant::now() }
    }

    /// As Lambda words it in `Extension.Crash`.
    pub(crate) fn wording(self) -> String {
        match (self.code, self.signal) {
            (Some(0), _) => "exit code 0".into(),
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal: {signal}"),
            (None, None) => "unknown".into(),
        }
    }
}

/// A running extension.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) group: Pid,
    pub(crate) exit: Option<Exit>,
}

impl Process {
    /// Signals the whole group. An error means that it is gone already, which is what every caller wants or ignores.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.exit.is_none() {
            let _gone = kill_process_group(self.group, signal).is_err();
        }
    }
}

/// Receives a line of output: the extension's name, whether it is stderr, the text.
pub(crate) type OnLine = Arc<dyn Fn(&str, bool, &str) + Send + Sync>;

/// Starts an executable with exactly these variables. `on_exit` runs when it is gone and its output has been read.
pub(crate) fn start(
    executable: &Path,
    name: &str,
    variables: &BTreeMap<String, String>,
    on_line: OnLine,
    on_exit: impl FnOnce(Exit) + Send + 'static,
) -> std::io::Result<Process> {
    let mut child = Command::new(executable)
        .env_clear()
        .envs(variables)
        .current_dir("/") // Lambda sets none; whoever relies on one finds out here.
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let group = child
        .id()
        .and_then(|id| Pid::from_raw(id.cast_signed()))
        .ok_or_else(|| std::io::Error::other("the process has no id"))?;
    let readers = [
        child.stdout.take().map(|pipe| read_lines(pipe, name.to_owned(), false, Arc::clone(&on_line))),
        child.stderr.take().map(|pipe| read_lines(pipe, name.to_owned(), true, on_line)),
    ];
    tokio::spawn(async move {
        let exit = reap(&mut child).await;
        // What the extension left behind in its group goes with it, as the sandbox does.
        let _gone = kill_process_group(group, Signal::KILL).is_err();
        let drain = async {
            for reader in readers.into_iter().flatten() {
                let _ended = reader.await.is_ok();
            }
        };
        let _drained = tokio::time::timeout(OUTPUT_DRAIN, drain).await.is_ok();
        on_exit(exit);
    });
    Ok(Process { name: name.to_owned(), group, exit: None })
}

async fn reap(child: &mut Child) -> Exit {
    match child.wait().await {
        Ok(status) => Exit::new(status),
        Err(_) => Exit { code: None, signal: None, at: Instant::now() },
    }
}

fn read_lines(
    pipe: impl AsyncRead + Send + Unpin + 'static,
    name: String,
    stderr: bool,
    on_line: OnLine,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
            on_line(&name, stderr, String::from_utf8_lossy(&line).trim_end_matches('\n'));
            line.clear();
        }
    })
}

/// Kills the groups it was last told of when this process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Guardian(Mutex<Option<StdChild>>);

impl Guardian {
    /// Without a shell there is no guardian; the sandbox then relies on its own `Drop`.
    pub(crate) fn start() -> Self {
        const SCRIPT: &str =
            r#"g=; while read -r line; do g=$line; done; for p in $g; do kill -KILL -- "-$p"; done"#;
        let child = StdCommand::new("/bin/sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // a Ctrl-C meant for the caller must not end it first
            .spawn();
        Self(Mutex::new(child.ok()))
    }

    pub(crate) fn watch(&self, groups: impl Iterator<Item = Pid>) {
        let list: Vec<String> = groups.map(|group| group.as_raw_nonzero().to_string()).collect();
        if let Some(pipe) = lock(&self.0).as_mut().and_then(|child| child.stdin.as_mut()) {
            let _told = pipe.write_all(format!("{}\n", list.join(" ")).as_bytes()).is_ok();
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.watch(std::iter::empty());
        if let Some(mut child) = lock(&self.0).take() {
            drop(child.stdin.take());
            let _reaped = child.wait().is_ok();
        }
    }
}
