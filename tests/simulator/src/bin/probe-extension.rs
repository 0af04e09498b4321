//! A scripted extension that shows what a sandbox answers. It knows nothing of this crate, so that the same script
//! runs in the simulated sandbox and in AWS's own emulator.
//!
//! `PROBE` holds one step per line; every answer becomes one JSON line on stdout, and in the file `PROBE_OUT` if set:
//!
//! ```text
//! register=INVOKE,SHUTDOWN    register under the own file name
//! register-as=NAME=INVOKE     register under another name
//! register-raw=BODY           register with this body
//! feature=accountId           sent as Lambda-Extension-Accept-Feature from now on
//! identifier=TEXT             sent instead of the real identifier from now on; `-` sends none, `own` restores it
//! listen                      receive telemetry; `answers=500,200` gives its statuses, the last one repeats
//! answer-after=MS             pause before each answer to telemetry
//! subscribe                   PUT the usual subscription for the listener
//! subscribe=JSON              the usual subscription with these members replaced
//! subscribe-raw=BODY          PUT this body
//! next | next-drop            ask for an event; or close the connection while the poll is pending
//! next-retry                  ask until the answer is no refusal, and log only that answer
//! init-error=TYPE | exit-error=TYPE     an empty TYPE sends no error type
//! work=MS                     pause after every INVOKE of `loop`
//! loop                        ask for events until SHUTDOWN
//! get=PATH | env | print=TEXT | error=TEXT | sleep=MS | exit=CODE | hang
//! ```

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// How long a dropped poll is left pending, so that the sandbox has seen it.
const POLL_BEFORE_DROP: Duration = Duration::from_millis(50);

/// Pause of `next-retry` after a refusal.
const BETWEEN_RETRIES: Duration = Duration::from_millis(20);

const NEXT: &str = "/2020-01-01/extension/event/next";

struct Probe {
    api: String,
    name: String,
    identifier: Option<String>,
    /// Sent instead of the real one.
    assumed: Option<String>,
    feature: Option<String>,
    port: u16,
    answers: Arc<Mutex<Answers>>,
    work: Duration,
}

#[derive(Default)]
struct Answers {
    statuses: Vec<u16>,
    after: Duration,
}

struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            log(&json!({"step": "failed", "error": error.to_string()}));
            ExitCode::from(70)
        }
    }
}

fn run() -> io::Result<ExitCode> {
    let name = std::env::args().next().unwrap_or_default();
    let mut probe = Probe {
        api: std::env::var("AWS_LAMBDA_RUNTIME_API").unwrap_or_default(),
        name: name.rsplit('/').next().unwrap_or_default().to_owned(),
        identifier: None,
        assumed: None,
        feature: None,
        port: 0,
        answers: Arc::default(),
        work: Duration::ZERO,
    };
    let script = std::env::var("PROBE").unwrap_or_else(|_| "register=INVOKE,SHUTDOWN\nloop".into());
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (step, argument) = line.split_once('=').unwrap_or((line, ""));
        if let Some(code) = probe.step(step, argument)? {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Probe {
    fn step(&mut self, step: &str, argument: &str) -> io::Result<Option<ExitCode>> {
        match step {
            "register" | "register-as" | "register-raw" => self.register(step, argument)?,
            "feature" => self.feature = Some(argument.to_owned()),
            "identifier" => self.assumed = (argument != "own").then(|| argument.to_owned()),
            "answers" => {
                self.answers().statuses =
                    argument.split(',').filter_map(|status| status.parse().ok()).collect();
            }
            "answer-after" => self.answers().after = millis(argument),
            "listen" => self.listen()?,
            "subscribe" | "subscribe-raw" => self.subscribe(step, argument)?,
            "next" => self.next().map(|_| ())?,
            "next-drop" => self.next_drop()?,
            "next-retry" => self.next_retry()?,
            "init-error" | "exit-error" => self.error(step, argument)?,
            "work" => self.work = millis(argument),
            "loop" => {
                while self.next()? != "SHUTDOWN" {
                    thread::sleep(self.work);
                }
            }
            "get" => {
                let reply = self.call("GET", argument, &[], "")?;
                log_reply(step, &reply);
            }
            "env" => {
                let all: BTreeMap<String, String> = std::env::vars().collect();
                log(
                    &json!({"step": step, "env": all, "cwd": std::env::current_dir().ok(), "pid": std::process::id()}),
                );
            }
            "print" => log_text(io::stdout(), argument),
            "error" => log_text(io::stderr(), argument),
            "sleep" => thread::sleep(millis(argument)),
            "exit" => return Ok(Some(ExitCode::from(argument.parse::<u8>().unwrap_or(1)))),
            "hang" => loop {
                thread::park();
            },
            _ => log(&json!({"step": step, "error": "no such step"})),
        }
        Ok(None)
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&mut self, step: &str, argument: &str) -> io::Result<()> {
        let (name, events) = match step {
            "register-as" => argument.split_once('=').unwrap_or((argument, "")),
            _ => (self.name.as_str(), argument),
        };
        let events: Vec<&str> = events.split(',').filter(|event| !event.is_empty()).collect();
        let body = match step {
            "register-raw" => argument.to_owned(),
            _ => json!({"events": events}).to_string(),
        };
        let mut headers = vec![("Lambda-Extension-Name", name.to_owned())];
        if let Some(feature) = &self.feature {
            headers.push(("Lambda-Extension-Accept-Feature", feature.clone()));
        }
        let reply = self.call("POST", "/2020-01-01/extension/register", &headers, &body)?;
        if let Some(identifier) = reply.headers.get("lambda-extension-identifier") {
            self.identifier.get_or_insert_with(|| identifier.clone());
        }
        log_reply(step, &reply);
        Ok(())
    }

    fn identity(&self) -> Vec<(&'static str, String)> {
        let identifier = match self.assumed.as_deref() {
            Some("-") => None,
            Some(assumed) => Some(assumed.to_owned()),
            None => self.identifier.clone(),
        };
        identifier.map(|identifier| ("Lambda-Extension-Identifier", identifier)).into_iter().collect()
    }

    fn subscribe(&self, step: &str, argument: &str) -> io::Result<()> {
        let mut body = json!({
            "schemaVersion": "2025-01-29",
            "types": ["platform", "function"],
            "buffering": {"maxItems": 1_000, "maxBytes": 262_144, "timeoutMs": 25},
            "destination": {
                "protocol": "HTTP",
                "URI": format!("http://sandbox.localdomain:{}/telemetry", self.port.max(1)),
            },
        });
        if let (Some(body), Ok(Value::Object(replaced))) =
            (body.as_object_mut(), serde_json::from_str(argument))
        {
            body.extend(replaced);
        }
        let body = if step == "subscribe-raw" { argument.to_owned() } else { body.to_string() };
        let mut headers = self.identity();
        headers.push(("Content-Type", "application/json".to_owned()));
        let reply = self.call("PUT", "/2022-07-01/telemetry", &headers, &body)?;
        log_reply(step, &reply);
        Ok(())
    }

    /// Returns the type of the event, or an empty text where there was none.
    fn next(&self) -> io::Result<String> {
        let reply = self.call("GET", NEXT, &self.identity(), "")?;
        log_reply("next", &reply);
        let event: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        Ok(event.get("eventType").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    fn next_drop(&self) -> io::Result<()> {
        let request = self.request("GET", NEXT, &self.identity(), "");
        let mut stream = TcpStream::connect(&self.api)?;
        stream.write_all(request.as_bytes())?;
        thread::sleep(POLL_BEFORE_DROP);
        log(&json!({"step": "next-drop"}));
        Ok(())
    }

    fn next_retry(&self) -> io::Result<()> {
        loop {
            let reply = self.call("GET", NEXT, &self.identity(), "")?;
            if reply.status == 200 {
                log_reply("next-retry", &reply);
                return Ok(());
            }
            thread::sleep(BETWEEN_RETRIES);
        }
    }

    fn error(&self, step: &str, error_type: &str) -> io::Result<()> {
        let path = match step {
            "init-error" => "/2020-01-01/extension/init/error",
            _ => "/2020-01-01/extension/exit/error",
        };
        let mut headers = self.identity();
        if !error_type.is_empty() {
            headers.push(("Lambda-Extension-Function-Error-Type", error_type.to_owned()));
        }
        let body = json!({"errorMessage": "probe", "errorType": error_type, "stackTrace": []}).to_string();
        let reply = self.call("POST", path, &headers, &body)?;
        log_reply(step, &reply);
        Ok(())
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, String)], body: &str) -> String {
        let headers: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let headers = headers.concat();
        let (host, length) = (&self.api, body.len());
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
        )
    }

    fn call(&self, method: &str, path: &str, headers: &[(&str, String)], body: &str) -> io::Result<Reply> {
        let mut stream = TcpStream::connect(&self.api)?;
        stream.set_nodelay(true)?;
        stream.write_all(self.request(method, path, headers, body).as_bytes())?;
        let mut reader = BufReader::new(stream);
        let (first, headers) = read_head(&mut reader)?;
        let mut body = String::new();
        match headers.get("content-length").and_then(|length| length.parse().ok()) {
            Some(length) => reader.take(length).read_to_string(&mut body)?,
            None => reader.read_to_string(&mut body)?,
        };
        let status = first.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok());
        Ok(Reply { status: status.unwrap_or_default(), headers, body })
    }

    fn listen(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind("0.0.0.0:0")?;
        self.port = listener.local_addr()?.port();
        let answers = Arc::clone(&self.answers);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = Arc::clone(&answers);
                thread::spawn(move || {
                    // Ends with its connection.
                    let _closed = receive(stream, &answers).is_ok();
                });
            }
        });
        Ok(())
    }
}

/// Answers telemetry until the connection closes.
fn receive(mut stream: TcpStream, answers: &Mutex<Answers>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (first, headers) = read_head(&mut reader)?;
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (status, after) = {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            let status = match answers.statuses.len() {
                0 => 200,
                1 => answers.statuses.first().copied().unwrap_or(200),
                _ => answers.statuses.remove(0),
            };
            (status, answers.after)
        };
        thread::sleep(after);
        log(&json!({
            "step": "telemetry",
            "request": first,
            "headers": headers,
            "status": status,
            "body": String::from_utf8_lossy(&body),
        }));
        stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(String, BTreeMap<String, String>)> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok((first.trim().to_owned(), headers))
}

fn log_reply(step: &str, reply: &Reply) {
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| Value::from(reply.body.as_str()));
    log(&json!({"step": step, "status": reply.status, "headers": reply.headers, "body": body}));
}

fn log(line: &Value) {
    log_text(io::stdout(), &line.to_string());
    let Ok(path) = std::env::var("PROBE_OUT") else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    // A probe that cannot write has nobody to tell.
    let _written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).is_ok();
}

/// One write per line, so that the lines of several threads do not mix.
fn log_text(mut stream: impl Write, text: &str) {
    let _written = stream.write_all(format!("{text}\n").as_bytes()).and_then(|()| stream.flush()).is_ok();
}

fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap_or(0))
}
