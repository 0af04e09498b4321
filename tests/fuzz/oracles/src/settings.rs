//! Settings out of an arbitrary environment: no panic, no secret in what is told, and a wrong value is told by the name of
//! its variable and changes nothing.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use outlast::config::{Config, Loaded, load};
use outlast::record::{LogRecord, Value};
use outlast::rules::{RuleSet, Tally};

/// What must not be shown. Nothing else that is tried holds it.
const SECRET: &str = "hunter2-s3cr3t-0123456789abcdef";

/// Names and values are shown up to this length.
const SHOWN_MAX_CHARS: usize = 80;

/// Variables that are read, and some that are not.
const NAMES: [&str; 38] = [
    "OUTLAST_ENDPOINT",
    "OUTLAST_PROTOCOL",
    "OUTLAST_HEADERS",
    "OUTLAST_TIMEOUT",
    "OUTLAST_COMPRESSION",
    "OUTLAST_TELEMETRY",
    "OUTLAST_QUEUE_DIR",
    "OUTLAST_QUEUE_MAX_BYTES",
    "OUTLAST_OVERFLOW",
    "OUTLAST_BATCH_MAX_BYTES",
    "OUTLAST_MAX_DELAY",
    "OUTLAST_HOLD_MAX",
    "OUTLAST_RETRY_INITIAL",
    "OUTLAST_RETRY_MAX",
    "OUTLAST_SHUTDOWN_RESERVE",
    "OUTLAST_LOG",
    "OUTLAST_FALLBACK",
    "OUTLAST_RULES",
    "OUTLAST_SIGNALS",
    "OUTLAST_OTLP_RECEIVER",
    "OUTLAST_TIMEOT",
    "OUTLAST_",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_SDK_DISABLED",
    "PATH",
    "AWS_LAMBDA_RUNTIME_API",
];
/// Values that mean something to one of them.
const VALUES: [&str; 26] = [
    "otlp",
    "http/protobuf",
    "grpc",
    "gzip",
    "NONE",
    "platform,function,extension",
    "platform,platform",
    "drop-newest",
    "shed",
    "/tmp/x",
    "/",
    "relative",
    "64MiB",
    "1.5 GB",
    "0",
    "250ms",
    "0.1s",
    "1h",
    "99999999999999999999h",
    "debug",
    "a=b,c=%20d",
    "a=%zz",
    "service.name=x",
    "content-type=x",
    "authorization=ssm:/name",
    "   ",
];

/// Checks one environment.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut environment: Vec<(OsString, OsString)> = Vec::new();
    for _ in 0..input.int_in_range(1..=6).unwrap_or(1) {
        match variable(&mut input) {
            Ok(variable) => environment.push(variable),
            Err(_) => break,
        }
    }
    let Loaded { config, problems } = load(environment.clone());
    in_range(&config);
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let said = format!("{config:?} {problems:?} {told:?}");
    assert!(!said.contains(SECRET), "{said}");
    for (problem, line) in problems.iter().zip(&told) {
        let in_line = |c: char| if c.is_control() { ' ' } else { c };
        let variable: String = problem.variable.chars().map(in_line).take(SHOWN_MAX_CHARS).collect();
        assert!(line.starts_with(&variable), "{line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
        let is_set = environment.iter().any(|(name, _)| name.to_str() == Some(&*problem.variable));
        // Nowhere to send, and the pair of retry settings, are told of variables that are not set.
        assert!(is_set || problem.value.is_none(), "{problem:?}");
    }
    for (name, value) in environment {
        by_itself(name, value);
    }
    rules(&String::from_utf8_lossy(data));
}

/// Rules out of arbitrary text: what is wrong is told by a line that is there, and what is right does not fail.
fn rules(text: &str) {
    let (mut rules, problems) = RuleSet::parse(text);
    let lines = text.matches('\n').count() + 1;
    assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)), "{problems:?}");
    let mut record = LogRecord { body: Value::Str(text.into()), ..LogRecord::default() };
    rules.apply(&mut record, false, &mut Tally::default());
}

/// A variable alone: either it is told and nothing changes, or it is taken.
fn by_itself(name: OsString, value: OsString) {
    let (Some(name_text), value_text) = (name.to_str().map(str::to_owned), value.to_str().map(str::to_owned))
    else {
        return;
    };
    let Loaded { config, problems } = load([(name, value)]);
    let told =
        problems.iter().filter(|problem| problem.variable == name_text && problem.consequence != IDLES);
    let told: Vec<String> = told.map(|problem| problem.consequence.clone()).collect();
    let changed = format!("{config:?}") != format!("{:?}", Config::default());
    let dropped = told.iter().any(|what| what.contains("is used") || what == "not used" || what == "ignored");
    assert!(!(changed && dropped), "{name_text}={value_text:?}: {told:?}, {config:?}");
    let Some(value) = value_text.as_deref().map(str::trim).filter(|value| !value.is_empty()) else {
        assert!(!changed);
        return;
    };
    let taken = told.is_empty();
    let nanos = |duration: Duration| duration.as_nanos();
    match name_text.as_str() {
        "OUTLAST_TIMEOUT" => {
            number(value, &DURATIONS, 50_000_000..=900 * SECOND, taken, nanos(config.timeout));
        }
        "OUTLAST_MAX_DELAY" => number(value, &DURATIONS, 0..=86_400 * SECOND, taken, nanos(config.max_delay)),
        "OUTLAST_HOLD_MAX" => number(value, &DURATIONS, 0..=30 * SECOND, taken, nanos(config.hold_max)),
        "OUTLAST_RETRY_INITIAL" => {
            number(value, &DURATIONS, 10_000_000..=3600 * SECOND, taken, nanos(config.retry_initial));
        }
        "OUTLAST_SHUTDOWN_RESERVE" => {
            number(value, &DURATIONS, 20_000_000..=SECOND, taken, nanos(config.shutdown_reserve));
        }
        "OUTLAST_QUEUE_MAX_BYTES" => {
            number(value, &SIZES, 1 << 20..=10 << 30, taken, u128::from(config.queue_max_bytes));
        }
        "OUTLAST_BATCH_MAX_BYTES" => {
            number(value, &SIZES, 1 << 10..=16 << 20, taken, config.batch_max_bytes as u128);
        }
        "OUTLAST_QUEUE_DIR" => {
            assert_eq!(taken, config.queue_dir.as_os_str() == value && value.starts_with('/'));
        }
        "OUTLAST_OVERFLOW" => {
            assert_eq!(taken, ["drop-oldest", "drop-newest", "shed"].contains(&&*value.to_ascii_lowercase()));
        }
        "OUTLAST_COMPRESSION" => assert_eq!(taken, ["gzip", "none"].contains(&&*value.to_ascii_lowercase())),
        "OTEL_SERVICE_NAME" => assert_eq!(config.service_name.as_deref(), Some(value)),
        _ => {}
    }
}

/// What is said when there is nowhere to send, beside everything else.
const IDLES: &str = "the extension idles and collects nothing";
const SECOND: u128 = 1_000_000_000;
const DURATIONS: [(&str, u128); 4] =
    [("ms", 1_000_000), ("s", SECOND), ("m", 60 * SECOND), ("h", 3600 * SECOND)];
const SIZES: [(&str, u128); 8] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("b", 1),
    ("", 1),
];

/// A number with a unit is taken if it is within its range, and then it is what is used.
fn number(
    value: &str,
    units: &[(&str, u128)],
    range: std::ops::RangeInclusive<u128>,
    taken: bool,
    found: u128,
) {
    let lower = if units.len() == SIZES.len() { value.to_ascii_lowercase() } else { value.to_owned() };
    let digits = lower.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (digits, unit) = (&lower[..digits], lower[digits..].trim_start());
    let scale = units.iter().find(|(known, _)| *known == unit).map(|(_, scale)| *scale);
    let scale = if lower == "0" { Some(1) } else { scale };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = !whole.is_empty()
        && !fraction.is_empty()
        && !fraction.contains('.')
        && whole.len() + fraction.len() < 18;
    let meant = scale.filter(|_| is_number).map(|scale| {
        let part = fraction.parse::<u128>().expect("digits") * scale / 10_u128.pow(fraction.len() as u32);
        whole.parse::<u128>().expect("digits") * scale + part
    });
    if let Some(meant) = meant {
        assert_eq!(taken, range.contains(&meant), "{value:?}");
        assert!(!taken || found == meant, "{value:?} became {found}");
    } else if whole.len() + fraction.len() < 18 {
        assert!(!taken, "{value:?} was taken for {found}");
    }
}

/// What holds for settings however they came about.
fn in_range(config: &Config) {
    let seconds = Duration::from_secs;
    assert!((Duration::from_millis(50)..=seconds(900)).contains(&config.timeout));
    assert!((1 << 20..=10 << 30).contains(&config.queue_max_bytes));
    assert!((1 << 10..=16 << 20).contains(&config.batch_max_bytes));
    assert!(config.batch_max_bytes as u64 <= config.queue_max_bytes);
    assert!(config.retry_initial <= config.retry_max && config.retry_max <= seconds(3600));
    assert!(config.retry_initial >= Duration::from_millis(10));
    assert!(config.max_delay <= seconds(86_400) && config.hold_max <= seconds(30));
    assert!((Duration::from_millis(20)..=seconds(1)).contains(&config.shutdown_reserve));
    assert!(config.queue_dir.is_absolute() && config.queue_dir.parent().is_some());
    assert!(!config.telemetry.is_empty() && config.telemetry.len() <= 3);
    let own = config.own_headers.iter().filter_map(|(_, headers)| headers.as_ref());
    for header in config.headers.fixed.values().chain(own.flat_map(|headers| headers.fixed.values())) {
        assert!(header.is_sensitive());
    }
}

fn variable(input: &mut Unstructured<'_>) -> Result<(OsString, OsString)> {
    let name = match input.arbitrary::<u8>()? {
        0..=230 => OsString::from(*input.choose(&NAMES)?),
        231..=240 => OsString::from(format!("OUTLAST_{}", input.arbitrary::<&str>()?)),
        _ => OsString::from_vec(input.arbitrary::<&[u8]>()?.to_vec()),
    };
    let is = |what: &str| name.to_str().is_some_and(|name| name.ends_with(what));
    let value = match input.arbitrary::<u8>()? % 4 {
        0 if is("HEADERS") => headers(input)?.into(),
        0 | 1 if is("ENDPOINT") => url(input)?.into(),
        0 | 1 => OsString::from(*input.choose(&VALUES)?),
        2 => {
            let (number, unit): (u32, &str) =
                (input.arbitrary()?, *input.choose(&["ms", "s", "m", "h", "MiB", "kb", " GB", "", ".5s"])?);
            format!("{number}{unit}").into()
        }
        _ => OsString::from_vec(input.arbitrary::<&[u8]>()?.to_vec()),
    };
    Ok((name, value))
}

/// Headers with a secret for a value, and anything around that pair.
fn headers(input: &mut Unstructured<'_>) -> Result<String> {
    let (before, name, after): (&str, &str, &str) = input.arbitrary()?;
    let name = if input.arbitrary()? { "authorization" } else { name };
    Ok(format!("{before},{name}=Bearer {SECRET}{after}"))
}

/// A URL with a secret in a place for secrets, and perhaps a typing error that leaves these places what they are.
fn url(input: &mut Unstructured<'_>) -> Result<String> {
    let scheme =
        *input.choose(&["https://", "http://", "HTTPS://", "ftp://", "https:/", "https:", "", "//"])?;
    let host = *input.choose(&[
        "example.com",
        "example.com:4318",
        "[::1]:4318",
        "exa mple",
        "host:99999",
        "é.com",
    ])?;
    let path: String =
        input.arbitrary::<&str>()?.chars().filter(|c| !matches!(c, '?' | '#' | '@')).take(20).collect();
    let mut url = match input.arbitrary::<u8>()? % 3 {
        0 => format!("{scheme}user:{SECRET}@{host}/{path}"),
        1 => format!("{scheme}{host}/{path}?key={SECRET}"),
        _ => format!("{scheme}{host}/{SECRET}/{path}"),
    };
    if input.arbitrary()? {
        // One character too many somewhere.
        let strange: char = input.arbitrary()?;
        let places: Vec<usize> = url.char_indices().map(|(at, _)| at).collect();
        url.insert(*input.choose(&places)?, strange);
    }
    Ok(url)
}
