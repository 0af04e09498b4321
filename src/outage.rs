//! The alert about a long outage: a line on stdout that CloudWatch makes metrics of, for whoever looks where the backend
//! cannot be seen to be away because it is away.
//!
//! The form is CloudWatch's embedded metric format (CloudWatch user guide, "Specification: Embedded metric format"). A
//! line is written after an attempt that failed, at most one a minute, and one with zeros when the outage is over, so
//! that alarms clear. A function that is not invoked makes no attempts, and no lines.
//!
//! With the type `extension` subscribed to, Lambda brings the lines back as telemetry, where they are records like any
//! other. They are written by time and not by what comes, so that makes no loop.

use crate::clock::Time;
use crate::keeper::Standing;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// CloudWatch's metrics have no finer resolution unless asked for, and each line costs money.
const ALERT_INTERVAL: Duration = Duration::from_secs(60);

/// Decides when there is something to say.
#[derive(Debug)]
pub struct Alert {
    after: Option<Duration>,
    /// When the next line may be written.
    next: Time,
    /// A line was written, and none that says it is over.
    is_raised: bool,
}

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The backend has been away for so long.
    Away(Duration),
    /// It is back.
    Back,
}

impl Alert {
    /// An alert about outages that last longer than `after`; `None`: about none.
    pub fn after(after: Option<Duration>) -> Self {
        Self { after, next: Time::ZERO, is_raised: false }
    }

    /// What is to be said after a request ended at `now`, given how long the outage has lasted by then, if there is one.
    pub fn ended(&mut self, now: Time, outage: Option<Duration>) -> Option<Said> {
        let after = self.after?;
        match outage {
            Some(lasted) if lasted >= after && now >= self.next => {
                self.next = now.saturating_add(ALERT_INTERVAL);
                self.is_raised = true;
                Some(Said::Away(lasted))
            }
            None if self.is_raised => {
                self.is_raised = false;
                Some(Said::Back)
            }
            _ => None,
        }
    }
}

/// The line about the main destination, or the one called so, with its newline. `now` is the wall clock's time since the
/// Unix epoch.
pub fn line(said: Said, destination: Option<&str>, standing: &Standing, now: Duration) -> String {
    let backend = destination.map_or_else(|| "backend".to_owned(), |name| format!("backend {name}"));
    let Standing { function, records, bytes, oldest_age, dropped } = standing;
    let (away, message) = match said {
        Said::Away(lasted) => {
            let seconds = lasted.as_secs();
            (seconds, format!("outlast: the {backend} has been away for {seconds} s; {records} records wait"))
        }
        Said::Back => (0, format!("outlast: the {backend} is back; {records} records wait")),
    };
    let metrics = [
        ("OutageSeconds", "Seconds", away),
        ("WaitingRecords", "Count", *records),
        ("WaitingBytes", "Bytes", *bytes),
        ("OldestAge", "Seconds", oldest_age.as_secs()),
        ("DroppedRecords", "Count", *dropped),
    ];
    let definitions: Vec<String> =
        metrics.iter().map(|(name, unit, _)| format!(r#"{{"Name":"{name}","Unit":"{unit}"}}"#)).collect();
    let values: Vec<String> = metrics.iter().map(|(name, _, value)| format!(r#""{name}":{value}"#)).collect();
    format!(
        concat!(
            r#"{{"_aws":{{"Timestamp":{},"CloudWatchMetrics":[{{"Namespace":"outlast","Dimensions":[["FunctionName"]],"#,
            r#""Metrics":[{}]}}]}},"FunctionName":{},{},"message":"{}"}}"#,
            "\n"
        ),
        now.as_millis(),
        definitions.join(","),
        serde_json::Value::from(function.as_str()),
        values.join(","),
        message,
    )
}

/// Writes lines on stdout, each on a thread of its own, for nobody may read them. While one is not written the next are left
/// out: alarms need no line that is late.
#[derive(Clone, Debug, Default)]
pub struct Voice {
    speaking: Arc<AtomicBool>,
}

impl Voice {
    /// Writes `line`, if the last one is out.
    pub fn say(&self, line: String) {
        self.write(line, io::stdout());
    }

    fn write(&self, line: String, mut out: impl Write + Send + 'static) {
        if self.speaking.swap(true, Ordering::AcqRel) {
            return;
        }
        let speaking = Arc::clone(&self.speaking);
        let started = thread::Builder::new().name("alert".into()).spawn(move || {
            // Nobody is there to be told that stdout is gone.
            drop(out.write_all(line.as_bytes()).and_then(|()| out.flush()));
            speaking.store(false, Ordering::Release);
        });
        if started.is_err() {
            self.speaking.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_outage_is_told_from_its_bound_on_once_a_minute_and_when_it_is_over() {
        let mut alert = Alert::after(Some(s(60)));
        assert_eq!(alert.ended(s(10), Some(s(0))), None);
        assert_eq!(alert.ended(s(69), Some(s(59))), None);
        assert_eq!(alert.ended(s(70), Some(s(60))), Some(Said::Away(s(60))));
        assert_eq!(alert.ended(s(129), Some(s(119))), None);
        assert_eq!(alert.ended(s(4000), Some(s(3990))), Some(Said::Away(s(3990))));
        assert_eq!(alert.ended(s(4001), None), Some(Said::Back));
        assert_eq!(alert.ended(s(4002), None), None);
        // At most one a minute, whatever happens.
        assert_eq!(alert.ended(s(4059), Some(s(60))), None);
        assert_eq!(alert.ended(s(4060), Some(s(61))), Some(Said::Away(s(61))));
    }

    #[test]
    fn a_line_that_nobody_reads_keeps_the_next_from_being_written_and_nobody_waiting() {
        struct Full(std::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<Vec<u8>>);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.recv().unwrap();
                self.1.send(bytes.to_vec()).unwrap();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let voice = Voice::default();
        let (written, lines) = std::sync::mpsc::channel();
        let (read, room) = std::sync::mpsc::channel();
        let (_never, full) = std::sync::mpsc::channel();
        voice.write("first".to_owned(), Full(room, written.clone()));
        voice.write("second".to_owned(), Full(full, written.clone()));
        read.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), b"first");
        while voice.speaking.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let (read, room) = std::sync::mpsc::channel();
        read.send(()).unwrap();
        voice.write("third".to_owned(), Full(room, written));
        assert_eq!(lines.recv().unwrap(), b"third", "the second was left out");
    }

    #[test]
    fn a_short_outage_and_one_that_nobody_wants_to_hear_of_are_not_told() {
        let mut alert = Alert::after(Some(s(60)));
        assert_eq!(alert.ended(s(30), Some(s(30))), None);
        assert_eq!(alert.ended(s(31), None), None);
        let mut off = Alert::after(None);
        assert_eq!(off.ended(s(9999), Some(s(9999))), None);
        assert_eq!(off.ended(s(9999), None), None);
    }

    #[test]
    fn a_line_is_in_the_embedded_metric_format() {
        let standing = Standing {
            function: "a \"function\"".to_owned(),
            records: 4,
            bytes: 5000,
            oldest_age: Duration::from_millis(61_900),
            dropped: 2,
        };
        let line = line(Said::Away(s(62)), None, &standing, Duration::from_millis(1_900_000_000_123));
        assert!(line.ends_with("}\n") && line.lines().count() == 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let metric = |name: &str, unit: &str| json!({"Name": name, "Unit": unit});
        assert_eq!(
            value,
            json!({
                "_aws": {"Timestamp": 1_900_000_000_123_u64, "CloudWatchMetrics": [{
                    "Namespace": "outlast",
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [
                        metric("OutageSeconds", "Seconds"),
                        metric("WaitingRecords", "Count"),
                        metric("WaitingBytes", "Bytes"),
                        metric("OldestAge", "Seconds"),
                        metric("DroppedRecords", "Count"),
                    ],
                }]},
                "FunctionName": "a \"function\"",
                "OutageSeconds": 62, "WaitingRecords": 4, "WaitingBytes": 5000, "OldestAge": 61, "DroppedRecords": 2,
                "message": "outlast: the backend has been away for 62 s; 4 records wait",
            })
        );
        let back = super::line(Said::Back, None, &standing, s(1));
        assert!(back.contains(r#""OutageSeconds":0"#) && back.contains("is back"), "{back}");
    }
}
