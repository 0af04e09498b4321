//! What the user set, read once at the start.
//!
//! One table (`settings.rs`) names every setting with its meaning, default, accepted values and example. The
//! parser walks it, and so does the page `docs/configuration.md` ([`reference()`]), so neither can say what the
//! other does not do. Defaults are written in the table as a user would write them and go through the same
//! parser.
//!
//! A wrong value never stops the function: it becomes a [`Problem`], and the default stands. All problems are
//! found in one pass. An `OUTLAST_` variable that is set always shadows the standard `OTEL_` one, also when
//! its value is wrong: telemetry (and the credentials in its headers) must not go somewhere the user did not
//! mean. Without a usable endpoint there is nowhere to send, and the extension only idles.
//!
//! Nothing secret is ever shown: header values are marked sensitive, an [`Endpoint`] prints without user
//! information and query, and a problem with such a value names the variable and what is accepted only.

mod apply;
mod destinations;
mod endpoint;
mod fallback;
mod headers;
mod kind;
mod names;
mod problem;
mod queues;
mod receiver;
mod reference;
mod resource;
mod settings;
mod signals;
mod units;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use reqwest::Url;

use crate::deliver::{ACKNOWLEDGED_TIMEOUT_S, Headers, is_acknowledged};
use crate::encode::Protocol;
use crate::lambda::TelemetryType;
use crate::observe::{Emf, Price, Sampler};
use crate::queue::Overflow;
use crate::record::JsonLines;
use crate::{PerSignal, Signal};

pub use destinations::Destination;
pub use endpoint::Endpoint;
pub use fallback::Fallback;
pub use problem::Problem;
pub use queues::QueuePlan;
pub use reference::reference;

use kind::{Flaw, Setting};
use settings::SETTINGS;

/// Every setting, checked and in range. `docs/configuration.md` tells what each is for.
///
/// `Debug` shows no secret.
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Clone, Debug)]
pub struct Config {
    /// How the backend is spoken to.
    pub protocol: Protocol,
    /// Base URL; the path of the signal is appended. See [`Config::signal_url`].
    pub endpoint: Option<Endpoint>,
    /// URLs for one signal alone, used as they are.
    pub own_endpoints: PerSignal<Option<Endpoint>>,
    /// Headers of every request, values marked sensitive. See [`Config::signal_headers`].
    pub headers: Headers,
    /// Headers for one signal alone, instead of [`Config::headers`].
    pub own_headers: PerSignal<Option<Headers>>,
    /// Names of further destinations, as far as they can be names.
    named: Vec<String>,
    /// Further destinations, in the order of their names in the setting.
    pub destinations: Vec<Destination>,
    /// Where telemetry goes that the backend does not take.
    pub fallback: Option<Fallback>,
    /// Headers of every request to a fallback that is a second backend, values marked sensitive.
    pub fallback_headers: Headers,
    /// How long one request may take, from connecting to the answer.
    pub timeout: Duration,
    /// A PEM file of certificate authorities that are trusted besides the built-in ones; absolute.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that is shown to the backend; absolute.
    pub client_cert_file: Option<PathBuf>,
    /// A PEM file with its key, if that is elsewhere; absolute.
    pub client_key_file: Option<PathBuf>,
    /// Bytes of requests to the backend per second, in the mean; none for no limit.
    pub rate_limit: Option<u64>,
    /// Whether request bodies are sent as gzip.
    pub gzip: bool,
    /// The signals that are wanted; see [`Config::is_made`].
    pub signals: PerSignal<bool>,
    /// Which invocations become spans.
    pub sampler: Sampler,
    /// The sampler takes a share, which is set by a variable of its own.
    sampler_takes_ratio: bool,
    /// What invocations cost, if the user said.
    pub price: Option<Price>,
    /// Types of platform events that become no log record unless they tell of a problem.
    pub silenced: Vec<String>,
    /// What becomes of metrics that are embedded in log lines.
    pub emf: Emf,
    /// What becomes of a line that is the text of an object.
    pub json_lines: JsonLines,
    /// Whether a stack trace that comes line by line becomes one record.
    pub joins_lines: bool,
    /// How often metrics about the extension itself are made, at most; none if never.
    pub self_metrics: Option<Duration>,
    /// How long an outage lasts before CloudWatch is told; none if it never is.
    pub outage_alert_after: Option<Duration>,
    /// What the user's rules are, or where.
    pub rules: Option<Rules>,
    /// What to subscribe to; never empty, no repeats.
    pub telemetry: Vec<TelemetryType>,
    /// Where OTLP is taken from the function; none if it is not.
    pub otlp_receiver: Option<SocketAddr>,
    /// What the function's SDK sends gets the attributes of the function, where it has none of that name.
    pub completes_resources: bool,
    /// Where the queue lives; absolute.
    pub queue_dir: PathBuf,
    /// The most bytes the queue may occupy on disk, everything counted.
    pub queue_max_bytes: u64,
    /// What gives way when the queue is full.
    pub overflow: Overflow,
    /// The most plain (not deflated) bytes per request, unless one block alone is larger.
    pub batch_max_bytes: usize,
    /// How late telemetry may be before an invocation is held for it.
    pub max_delay: Duration,
    /// The longest an invocation is held after the function is done.
    pub hold_max: Duration,
    /// The first pause after a failure, before jitter.
    pub retry_initial: Duration,
    /// The longest pause between attempts, before jitter. Never below [`Config::retry_initial`].
    pub retry_max: Duration,
    /// The part of the SHUTDOWN budget that is left unused.
    pub shutdown_reserve: Duration,
    /// The extension's own log.
    pub log: LevelFilter,
    /// `service.name`, if the user gave one (in either of the two standard ways).
    pub service_name: Option<String>,
    /// Further resource attributes, in the order given, without `service.name`.
    pub resource_attributes: Vec<(String, String)>,
}

/// The user's rules for log records. What they say is not looked at here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rules {
    /// The rules.
    Inline(String),
    /// The file that has them; absolute.
    File(PathBuf),
}

impl Config {
    /// Where telemetry of `signal` is posted; none if there is nowhere to send it.
    pub fn signal_url(&self, signal: Signal) -> Option<Url> {
        match self.own_endpoints.get(signal) {
            Some(own) => Some(own.url().clone()),
            None => self.endpoint.as_ref().map(|base| base.signal_url(self.protocol, signal)),
        }
    }

    /// The user's headers for requests that carry `signal`.
    pub fn signal_headers(&self, signal: Signal) -> &Headers {
        self.own_headers.get(signal).as_ref().unwrap_or(&self.headers)
    }

    /// Whether records of `signal` are made: they are wanted, the backend takes them, and there is somewhere to send them.
    pub fn is_made(&self, signal: Signal) -> bool {
        *self.signals.get(signal) && self.protocol.wire().takes(signal) && self.signal_url(signal).is_some()
    }

    /// The state before any default is applied; every field of it is then set from the table.
    fn blank() -> Self {
        Self {
            protocol: Protocol::default(),
            endpoint: None,
            own_endpoints: PerSignal::default(),
            headers: Headers::default(),
            own_headers: PerSignal::default(),
            named: Vec::new(),
            destinations: Vec::new(),
            fallback: None,
            fallback_headers: Headers::default(),
            timeout: Duration::ZERO,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            rate_limit: None,
            gzip: false,
            signals: PerSignal::default(),
            sampler: Sampler { parent_based: false, ratio: 0.0 },
            sampler_takes_ratio: false,
            price: None,
            silenced: Vec::new(),
            emf: Emf::Off,
            json_lines: JsonLines::Off,
            joins_lines: false,
            self_metrics: None,
            outage_alert_after: None,
            rules: None,
            telemetry: Vec::new(),
            otlp_receiver: None,
            completes_resources: false,
            queue_dir: PathBuf::new(),
            queue_max_bytes: 0,
            overflow: Overflow::default(),
            batch_max_bytes: 0,
            max_delay: Duration::ZERO,
            hold_max: Duration::ZERO,
            retry_initial: Duration::ZERO,
            retry_max: Duration::ZERO,
            shutdown_reserve: Duration::ZERO,
            log: LevelFilter::Off,
            service_name: None,
            resource_attributes: Vec::new(),
        }
    }
}

impl Default for Config {
    /// Every default of the table; no endpoint.
    fn default() -> Self {
        let mut config = Self::blank();
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            // A default that its own parser refuses is a mistake in the table; a test walks them all.
            drop(setting.kind.apply(&mut config, setting.default));
        }
        config
    }
}

/// What [`load`] found.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings to run with.
    pub config: Config,
    /// Everything that was wrong, in the order of the table; each is one line for the log.
    pub problems: Vec<Problem>,
}

/// Reads the settings out of `variables`, usually [`std::env::vars_os`].
///
/// Names other than `OUTLAST_*` and the standard `OTEL_*` ones are ignored; so are values that are empty or
/// only white space (OpenTelemetry specification, "Environment Variable Specification", "Parsing empty value").
pub fn load<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Loaded
where
    N: Into<OsString>,
    V: Into<OsString>,
{
    let mut problems = Vec::new();
    let mut variables = ours(variables, &mut problems);
    let mut config = Config::default();
    // First of all: what an endpoint may be depends on it.
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == settings::PROTOCOL) {
        read(setting, &variables, &mut config, &mut Vec::new());
    }
    if !config.protocol.is_otlp() {
        // They speak of a backend for OTLP, and so do the credentials in them.
        variables.retain(|name, _| !name.starts_with(names::OTLP_PREFIX));
    }
    for setting in SETTINGS {
        read(setting, &variables, &mut config, &mut problems);
    }
    reconcile(&variables, &mut config, &mut problems);
    config.destinations = destinations::read(&variables, &config, &mut problems);
    let unread = variables.keys().filter(|name| !destinations::is_known(&config, name));
    problems.extend(unread.filter_map(|name| names::unknown(name)));
    let wire = config.protocol.wire();
    let untaken = |signal: &Signal| *config.signals.get(*signal) && !wire.takes(*signal);
    let untaken: Vec<Signal> = Signal::ALL.into_iter().filter(untaken).collect();
    if !untaken.is_empty() {
        problems.push(Problem::not_taken(config.protocol, &untaken));
    }
    if !Signal::ALL.iter().any(|signal| config.signal_url(*signal).is_some()) {
        problems.push(Problem::nowhere_to_send());
    } else if variables.contains_key(settings::SIGNALS) {
        // By default all are wanted, and those without an address are left out without a word.
        let homeless = |signal: &Signal| *config.signals.get(*signal) && config.signal_url(*signal).is_none();
        problems.extend(Signal::ALL.into_iter().filter(homeless).map(Problem::no_endpoint_for));
    }
    Loaded { config, problems }
}

/// The variables that may concern us, as text, without the empty ones.
fn ours<N, V>(
    variables: impl IntoIterator<Item = (N, V)>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String>
where
    N: Into<OsString>,
    V: Into<OsString>,
{
    let mut found = BTreeMap::new();
    for (name, value) in variables {
        let Ok(name) = name.into().into_string() else { continue };
        if !name.starts_with(names::PREFIX) && !names::is_standard(&name) {
            continue;
        }
        match value.into().into_string() {
            Ok(value) if value.trim().is_empty() => {}
            Ok(value) => {
                found.insert(name, value.trim().to_owned());
            }
            Err(_) => problems.push(Problem::not_text(&name)),
        }
    }
    found
}

/// Applies one setting: ours if it is set, else the standard variables, the general one before the specific.
fn read(
    setting: &Setting,
    variables: &BTreeMap<String, String>,
    config: &mut Config,
    problems: &mut Vec<Problem>,
) {
    if let Some(value) = variables.get(setting.name) {
        let flaws = setting.kind.apply(config, value);
        problems.extend(flaws.into_iter().map(|flaw| Problem::of(setting.name, flaw, &setting.fallback())));
        return;
    }
    let mut fallback = setting.fallback();
    for standard in setting.standard {
        let Some(value) = variables.get(standard.name) else { continue };
        let flaws: Vec<Flaw> = standard.kind.apply(config, value);
        if flaws.is_empty() {
            fallback = format!("the value of {} is used", standard.name);
        }
        problems.extend(flaws.into_iter().map(|flaw| Problem::of(standard.name, flaw, &fallback)));
    }
}

/// The rules between settings. What the user set wins over a default; between two set values, the one that
/// bounds stays.
fn reconcile(variables: &BTreeMap<String, String>, config: &mut Config, problems: &mut Vec<Problem>) {
    if config.retry_initial > config.retry_max {
        let pair = [settings::RETRY_INITIAL, settings::RETRY_MAX].map(|name| variables.contains_key(name));
        match pair {
            [true, false] => config.retry_max = config.retry_initial,
            [false, true] => config.retry_initial = config.retry_max,
            _ => {
                problems.push(Problem {
                    variable: settings::RETRY_INITIAL.to_owned(),
                    value: Some(units::show_duration(config.retry_initial)),
                    accepted: format!(
                        "accepts at most {}, which is {}",
                        settings::RETRY_MAX,
                        units::show_duration(config.retry_max)
                    ),
                    consequence: format!("{} is used", units::show_duration(config.retry_max)),
                });
                config.retry_initial = config.retry_max;
            }
        }
    }
    problems.extend(receiver::break_loop(variables, config));
    bound(str::to_owned, |setting| variables.contains_key(setting), config, problems);
}

/// What holds between the settings of any destination. `variable` says how a setting is called there, `is_set` whether it
/// is set.
fn bound(
    variable: impl Fn(&str) -> String,
    is_set: impl Fn(&str) -> bool,
    config: &mut Config,
    problems: &mut Vec<Problem>,
) {
    if config.client_cert_file.is_none() && config.client_key_file.take().is_some() {
        problems.push(Problem {
            variable: variable(settings::CLIENT_KEY_FILE),
            value: None,
            accepted: format!("needs {}", variable(settings::CLIENT_CERT_FILE)),
            consequence: "no certificate is shown".to_owned(),
        });
    }
    if is_acknowledged(config.protocol, &config.headers) && !is_set(settings::TIMEOUT) {
        config.timeout = Duration::from_secs(ACKNOWLEDGED_TIMEOUT_S);
    }
    let batch = variable(settings::BATCH_MAX_BYTES);
    let is_set = is_set(settings::BATCH_MAX_BYTES);
    // What other signals have below this is kept to where requests are put together.
    let body_max_bytes = config.protocol.wire().limits(Signal::Logs).body_bytes;
    if config.batch_max_bytes > body_max_bytes {
        if is_set {
            let problem = Problem::batch_beyond(config.protocol, config.batch_max_bytes, body_max_bytes);
            problems.push(Problem { variable: batch.clone(), ..problem });
        }
        config.batch_max_bytes = body_max_bytes;
    }
    let batch_max_bytes = u64::try_from(config.batch_max_bytes).unwrap_or(u64::MAX);
    if batch_max_bytes > config.queue_max_bytes {
        if is_set {
            problems.push(Problem {
                variable: batch,
                value: Some(units::show_bytes(batch_max_bytes)),
                accepted: format!(
                    "accepts at most {}, which is {}: a request is never larger than the queue",
                    settings::QUEUE_MAX_BYTES,
                    units::show_bytes(config.queue_max_bytes)
                ),
                consequence: format!("{} is used", units::show_bytes(config.queue_max_bytes)),
            });
        }
        config.batch_max_bytes = usize::try_from(config.queue_max_bytes).unwrap_or(usize::MAX);
    }
}

#[cfg(test)]
mod tests;
