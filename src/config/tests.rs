//! Whole sets of variables, as a user would set them.

use super::*;
use proptest::prelude::*;

fn loaded<'a>(variables: &[(&'a str, &'a str)]) -> Loaded {
    load(variables.iter().copied())
}

/// The settings out of variables that are all right, given an endpoint.
fn good(variables: &[(&str, &str)]) -> Config {
    let loaded = loaded(&[&[("OUTLAST_ENDPOINT", "http://c:4318")], variables].concat());
    assert_eq!(loaded.problems, [], "{variables:?}");
    loaded.config
}

/// The one problem that `variables` have, given an endpoint, as the log shows it, and the resulting settings.
fn one_problem(variables: &[(&str, &str)]) -> (String, Config) {
    let loaded = loaded(&[&[("OUTLAST_ENDPOINT", "http://c:4318")], variables].concat());
    assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
    (loaded.problems[0].to_string(), loaded.config)
}

fn logs_url(config: &Config) -> Option<String> {
    config.signal_url(Signal::Logs).map(String::from)
}

#[test]
fn defaults_are_those_of_the_design() {
    let config = good(&[]);
    assert_eq!(config.timeout, Duration::from_secs(5));
    assert!(config.gzip);
    assert_eq!(config.telemetry, [TelemetryType::Platform, TelemetryType::Function]);
    assert_eq!(config.queue_dir, PathBuf::from("/tmp/outlast"));
    assert_eq!(config.queue_max_bytes, 64 << 20);
    assert_eq!(config.overflow, Overflow::DropOldest);
    assert_eq!(config.batch_max_bytes, 1 << 20);
    assert_eq!(config.max_delay, Duration::from_secs(10));
    assert_eq!(config.hold_max, Duration::from_millis(150));
    assert_eq!(config.retry_initial, Duration::from_millis(200));
    assert_eq!(config.retry_max, Duration::from_secs(30));
    assert_eq!(config.shutdown_reserve, Duration::from_millis(150));
    assert_eq!(config.log, LevelFilter::Warn);
    assert!(config.headers.fixed.is_empty());
}

#[test]
fn every_default_and_every_example_is_accepted_by_its_own_parser() {
    for setting in SETTINGS {
        let mut config = Config::blank();
        for value in [setting.default, setting.example].into_iter().filter(|value| !value.is_empty()) {
            let flaws = setting.kind.apply(&mut config, value);
            assert!(flaws.is_empty(), "{}={value}: {flaws:?}", setting.name);
        }
        assert!(!setting.meaning.is_empty() && !setting.example.is_empty(), "{}", setting.name);
    }
}

#[test]
fn every_field_that_has_a_default_gets_it_from_the_table() {
    // `blank` holds values that no setting accepts or that differ from the default.
    let (blank, config) = (Config::blank(), Config::default());
    assert_ne!(blank.timeout, config.timeout);
    assert_ne!(blank.gzip, config.gzip);
    assert_ne!(blank.telemetry, config.telemetry);
    assert_ne!(blank.queue_dir, config.queue_dir);
    assert_ne!(blank.log, config.log);
    let mut newest = Config { overflow: Overflow::DropNewest, ..Config::blank() };
    for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
        setting.kind.apply(&mut newest, setting.default);
    }
    assert_eq!(newest.overflow, Overflow::DropOldest);
}

#[test]
fn names_in_the_table_are_unique() {
    let mut names: Vec<&str> = SETTINGS
        .iter()
        .flat_map(|setting| std::iter::once(setting.name).chain(setting.standard.iter().map(|s| s.name)))
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_page_of_configuration_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    if std::env::var_os("OUTLAST_BLESS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page == reference(), "docs/configuration.md is stale; run this test with OUTLAST_BLESS=1");
}

#[test]
fn settings_that_are_given_are_used() {
    let config = good(&[
        ("OUTLAST_TIMEOUT", "1.5s"),
        ("OUTLAST_COMPRESSION", "none"),
        ("OUTLAST_TELEMETRY", "extension, function,function"),
        ("OUTLAST_QUEUE_DIR", "/mnt/q"),
        ("OUTLAST_QUEUE_MAX_BYTES", "128MiB"),
        ("OUTLAST_OVERFLOW", "drop-newest"),
        ("OUTLAST_BATCH_MAX_BYTES", "4194304"),
        ("OUTLAST_MAX_DELAY", "0"),
        ("OUTLAST_HOLD_MAX", "0ms"),
        ("OUTLAST_LOG", "DEBUG"),
        ("OUTLAST_PROTOCOL", "otlp"),
    ]);
    assert_eq!(config.timeout, Duration::from_millis(1_500));
    assert!(!config.gzip);
    assert_eq!(config.telemetry, [TelemetryType::Extension, TelemetryType::Function]);
    assert_eq!(config.queue_dir, PathBuf::from("/mnt/q"));
    assert_eq!(config.queue_max_bytes, 128 << 20);
    assert_eq!(config.overflow, Overflow::DropNewest);
    assert_eq!(config.batch_max_bytes, 4 << 20);
    assert_eq!((config.max_delay, config.hold_max), (Duration::ZERO, Duration::ZERO));
    assert_eq!(config.log, LevelFilter::Debug);
}

#[test]
fn without_an_endpoint_there_is_nowhere_to_send() {
    for variables in [&[][..], &[("OUTLAST_ENDPOINT", "  ")]] {
        let loaded = loaded(variables);
        assert_eq!(logs_url(&loaded.config), None);
        assert_eq!(loaded.problems.len(), 1);
        assert!(loaded.problems[0].to_string().contains("nowhere to send"), "{}", loaded.problems[0]);
    }
}

#[test]
fn standard_variables_are_honoured() {
    let loaded = loaded(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4318/base/"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_SERVICE_NAME", "checkout"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,team=blue"),
    ]);
    assert_eq!(loaded.problems, []);
    let config = loaded.config;
    assert_eq!(logs_url(&config).as_deref(), Some("http://standard:4318/base/v1/logs"));
    assert_eq!(config.signal_headers(Signal::Logs).fixed["api-key"], "a b");
    assert_eq!(config.timeout, Duration::from_millis(2_500));
    assert!(!config.gzip);
    assert_eq!(config.service_name.as_deref(), Some("checkout"));
    assert_eq!(config.resource_attributes, [("team".to_owned(), "blue".to_owned())]);
}

#[test]
fn the_service_name_may_come_with_the_attributes() {
    let config = good(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,team=blue")]);
    assert_eq!(config.service_name.as_deref(), Some("other"));
    assert_eq!(config.resource_attributes.len(), 1);
}

#[test]
fn the_standard_variables_for_logs_win_over_the_general_ones_for_logs_alone() {
    let loaded = loaded(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs/take/it"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "k=all"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "k=logs"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "2000"),
    ]);
    assert_eq!(loaded.problems, []);
    let config = loaded.config;
    assert_eq!(logs_url(&config).as_deref(), Some("http://logs/take/it"));
    assert_eq!(config.signal_url(Signal::Traces).unwrap().as_str(), "http://all/v1/traces");
    assert_eq!(config.signal_headers(Signal::Logs).fixed["k"], "logs");
    assert_eq!(config.signal_headers(Signal::Metrics).fixed["k"], "all");
    assert_eq!(config.timeout, Duration::from_secs(2));
}

#[test]
fn our_variables_win_over_the_standard_ones() {
    let config = good(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://standard/logs"),
        ("OUTLAST_HEADERS", "k=ours"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "k=standard"),
        ("OUTLAST_TIMEOUT", "1s"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "not even read"),
    ]);
    assert_eq!(logs_url(&config).as_deref(), Some("http://c:4318/v1/logs"));
    assert_eq!(config.signal_headers(Signal::Logs).fixed["k"], "ours");
    assert_eq!(config.timeout, Duration::from_secs(1));
}

#[test]
fn a_wrong_endpoint_of_ours_does_not_send_telemetry_to_the_standard_one() {
    let loaded =
        loaded(&[("OUTLAST_ENDPOINT", "htp://typo"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://elsewhere")]);
    assert_eq!(logs_url(&loaded.config), None);
    assert_eq!(loaded.problems.len(), 2);
}

#[test]
fn every_problem_is_reported_in_one_go_and_the_defaults_stand() {
    let loaded = loaded(&[
        ("OUTLAST_ENDPOINT", "collector:4318"),
        ("OUTLAST_TIMEOUT", "5"),
        ("OUTLAST_COMPRESSION", "zip"),
        ("OUTLAST_TELEMETRY", "function,logs"),
        ("OUTLAST_QUEUE_DIR", "tmp"),
        ("OUTLAST_QUEUE_MAX_BYTES", "1KiB"),
        ("OUTLAST_HEADERS", "nonsense"),
        ("OUTLAST_HOLD_MAX", "1h"),
        ("OUTLAST_LOG", "loud"),
        ("OUTLAST_TIMEOUTS", "1s"),
        ("OTEL_RESOURCE_ATTRIBUTES", "nonsense"),
    ]);
    let names: Vec<&str> = loaded.problems.iter().map(|problem| problem.variable.as_str()).collect();
    assert_eq!(
        names,
        [
            "OUTLAST_ENDPOINT",
            "OUTLAST_HEADERS",
            "OUTLAST_TIMEOUT",
            "OUTLAST_COMPRESSION",
            "OUTLAST_TELEMETRY",
            "OUTLAST_QUEUE_DIR",
            "OUTLAST_QUEUE_MAX_BYTES",
            "OUTLAST_HOLD_MAX",
            "OUTLAST_LOG",
            "OTEL_RESOURCE_ATTRIBUTES",
            "OUTLAST_TIMEOUTS",
            "OUTLAST_ENDPOINT",
        ]
    );
    assert_eq!(loaded.config.timeout, Duration::from_secs(5));
    assert_eq!(loaded.config.queue_dir, PathBuf::from("/tmp/outlast"));
    assert_eq!(
        loaded.problems[2].to_string(),
        "OUTLAST_TIMEOUT=\"5\": accepts a duration with a unit (ms, s, m, h) from 50ms to 15m; the default, 5s, is used"
    );
}

#[test]
fn a_wrong_value_for_logs_leaves_the_general_one() {
    let (line, config) =
        one_problem(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"), ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "2s")]);
    assert!(line.ends_with("; the value of OTEL_EXPORTER_OTLP_TIMEOUT is used"), "{line}");
    assert_eq!(config.timeout, Duration::from_secs(1));
}

#[test]
fn what_other_versions_can_do_is_said_to_be_unsupported() {
    let (line, _) = one_problem(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    assert!(
        line.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL") && line.contains("not supported by this version"),
        "{line}"
    );
}

#[test]
fn rules_are_given_as_they_are_or_as_a_file() {
    assert_eq!(good(&[]).rules, None);
    let inline = "rule = [{ drop = true }]";
    assert_eq!(good(&[("OUTLAST_RULES", inline)]).rules, Some(Rules::Inline(inline.to_owned())));
    let file = "/var/task/rules.toml";
    assert_eq!(good(&[("OUTLAST_RULES", file)]).rules, Some(Rules::File(file.into())));
    let (line, config) = one_problem(&[("OUTLAST_RULES", "rules.toml")]);
    assert!(line.contains("accepts rules in TOML, or the absolute path of a file"), "{line}");
    assert_eq!(config.rules, None);
}

#[test]
fn a_client_certificate_may_have_its_key_in_the_same_file_but_a_key_has_a_certificate() {
    let config = good(&[("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/var/task/client.pem")]);
    assert_eq!(config.client_cert_file.as_deref(), Some(std::path::Path::new("/var/task/client.pem")));
    assert_eq!(config.client_key_file, None);
    let (line, config) = one_problem(&[("OUTLAST_CLIENT_KEY_FILE", "/var/task/client.key")]);
    assert!(line.contains("needs OUTLAST_CLIENT_CERT_FILE"), "{line}");
    assert_eq!(config.client_key_file, None);
    let (line, _) = one_problem(&[("OUTLAST_CLIENT_CERT_FILE", "client.pem")]);
    assert!(line.contains("the absolute path of a PEM file"), "{line}");
}

#[test]
fn the_receiver_listens_only_where_it_is_told_to() {
    assert_eq!(good(&[]).otlp_receiver, None);
    let at =
        |value| good(&[("OUTLAST_OTLP_RECEIVER", value)]).otlp_receiver.map(|address| address.to_string());
    assert_eq!(at("off"), None);
    assert_eq!(at("On").as_deref(), Some("127.0.0.1:4318"));
    assert_eq!(at("0.0.0.0:4319").as_deref(), Some("0.0.0.0:4319"));
    assert_eq!(at("[::1]:0").as_deref(), Some("[::1]:0"));
    for value in ["4318", "localhost:4318", "127.0.0.1", "yes", "http://127.0.0.1:4318"] {
        let (line, config) = one_problem(&[("OUTLAST_OTLP_RECEIVER", value)]);
        assert!(
            line.contains("accepts `on`, `off`, or an address") && line.contains("off, is used"),
            "{line}"
        );
        assert_eq!(config.otlp_receiver, None);
    }
    assert!(!good(&[]).completes_resources);
    assert!(good(&[("OUTLAST_OTLP_RECEIVER_RESOURCE", "complete")]).completes_resources);
}

#[test]
fn a_misspelt_name_is_reported_without_its_value() {
    let (line, _) = one_problem(&[("OUTLAST_HEADER", "authorization=hunter2")]);
    assert_eq!(line, "OUTLAST_HEADER: not a setting; the nearest is OUTLAST_HEADERS; ignored");
}

#[test]
fn variables_of_others_are_none_of_our_business() {
    good(&[
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://x"),
        ("PATH", "/bin"),
        ("AWS_REGION", "eu-west-1"),
        ("TIMEOUT", "x"),
    ]);
}

#[test]
fn an_endpoint_that_names_the_signal_already_is_taken_as_its_base() {
    let loaded = loaded(&[("OUTLAST_ENDPOINT", "http://c:4318/v1/logs")]);
    assert_eq!(logs_url(&loaded.config).as_deref(), Some("http://c:4318/v1/logs"));
    assert_eq!(loaded.problems.len(), 1);
}

#[test]
fn a_retry_that_starts_above_its_maximum_is_brought_down_to_it() {
    let (line, config) = one_problem(&[("OUTLAST_RETRY_INITIAL", "10s"), ("OUTLAST_RETRY_MAX", "2s")]);
    assert!(line.starts_with("OUTLAST_RETRY_INITIAL=\"10s\""), "{line}");
    assert_eq!((config.retry_initial, config.retry_max), (Duration::from_secs(2), Duration::from_secs(2)));
}

#[test]
fn the_retry_setting_that_is_given_moves_the_one_that_is_not() {
    let config = good(&[("OUTLAST_RETRY_MAX", "100ms")]);
    assert_eq!(config.retry_initial, Duration::from_millis(100));
    let config = good(&[("OUTLAST_RETRY_INITIAL", "1m")]);
    assert_eq!(config.retry_max, Duration::from_secs(60));
}

#[test]
fn every_protocol_can_be_chosen_by_its_name() {
    for protocol in Protocol::ALL {
        let config =
            loaded(&[("OUTLAST_ENDPOINT", "http://c:4318"), ("OUTLAST_PROTOCOL", protocol.name())]).config;
        assert_eq!(config.protocol, protocol);
        let made = Signal::ALL.map(|signal| config.is_made(signal));
        let takes_metrics = protocol.is_otlp() || matches!(protocol, Protocol::Datadog | Protocol::NewRelic);
        assert_eq!(made, [true, takes_metrics, protocol.is_otlp()], "{protocol:?}");
    }
    assert_eq!(good(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).protocol, Protocol::OtlpJson);
}

#[test]
fn signals_that_the_backend_does_not_take_are_told_in_one_line() {
    let (line, config) = one_problem(&[("OUTLAST_PROTOCOL", "loki")]);
    assert!(line.contains("loki takes no metrics and traces"), "{line}");
    assert!(config.is_made(Signal::Logs) && !config.is_made(Signal::Traces));
    let (line, _) = one_problem(&[("OUTLAST_PROTOCOL", "datadog")]);
    assert!(line.contains("datadog takes no traces; none are made"), "{line}");
    assert!(!good(&[("OUTLAST_PROTOCOL", "loki"), ("OUTLAST_SIGNALS", "logs")]).is_made(Signal::Metrics));
}

#[test]
fn what_the_standard_says_of_otlp_is_not_sent_to_another_backend() {
    let loaded = loaded(&[
        ("OUTLAST_PROTOCOL", "datadog"),
        ("OUTLAST_SIGNALS", "logs"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otlp"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret"),
    ]);
    assert!(loaded.config.headers.fixed.is_empty());
    assert_eq!(logs_url(&loaded.config), None);
    let [problem] = &loaded.problems[..] else { panic!("{:?}", loaded.problems) };
    assert!(problem.to_string().contains("nowhere to send"), "{problem}");
}

#[test]
fn an_address_is_what_the_protocol_makes_of_the_endpoint() {
    let url = |protocol, endpoint| {
        let set =
            [("OUTLAST_PROTOCOL", protocol), ("OUTLAST_ENDPOINT", endpoint), ("OUTLAST_SIGNALS", "logs")];
        logs_url(&loaded(&set).config).unwrap()
    };
    assert_eq!(url("loki", "http://l:3100"), "http://l:3100/loki/api/v1/push");
    assert_eq!(url("loki", "http://l:3100/"), "http://l:3100/loki/api/v1/push");
    assert_eq!(url("json", "http://v/v1/logs?a=b"), "http://v/v1/logs?a=b");
    let filter = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason";
    assert_eq!(url("elasticsearch", "https://e/i"), format!("https://e/i/_bulk?{filter}"));
    assert_eq!(
        url("elasticsearch", "https://e/i?pipeline=p"),
        format!("https://e/i/_bulk?pipeline=p&{filter}")
    );
    assert_eq!(
        url("elasticsearch", "https://e/i?filter_path=errors"),
        "https://e/i/_bulk?filter_path=errors"
    );
}

#[test]
fn metrics_go_where_the_vendor_takes_them_or_where_the_user_says() {
    let url = |protocol, endpoint, own: &str| {
        let set = [
            ("OUTLAST_PROTOCOL", protocol),
            ("OUTLAST_ENDPOINT", endpoint),
            ("OUTLAST_SIGNALS", "logs,metrics"),
            ("OUTLAST_METRICS_ENDPOINT", own),
        ];
        good(&set).signal_url(Signal::Metrics).unwrap().to_string()
    };
    for (protocol, endpoint, metrics) in [
        ("datadog", "https://http-intake.logs.datadoghq.com", "https://api.datadoghq.com/api/v2/series"),
        (
            "datadog",
            "https://http-intake.logs.us5.datadoghq.com/api/v2/logs",
            "https://api.us5.datadoghq.com/api/v2/series",
        ),
        ("datadog", "http://vector:8282", "http://vector:8282/api/v2/series"),
        ("datadog", "http://proxy/dd", "http://proxy/dd/api/v2/series"),
        ("newrelic", "https://log-api.newrelic.com", "https://metric-api.newrelic.com/metric/v1"),
        (
            "newrelic",
            "https://log-api.eu.newrelic.com/log/v1",
            "https://metric-api.eu.newrelic.com/metric/v1",
        ),
        ("newrelic", "https://gov-log-api.newrelic.com", "https://gov-metric-api.newrelic.com/metric/v1"),
        ("newrelic", "http://proxy/nr", "http://proxy/nr/metric/v1"),
        ("otlp", "http://c:4318", "http://c:4318/v1/metrics"),
    ] {
        assert_eq!(url(protocol, endpoint, ""), metrics);
        assert_eq!(url(protocol, endpoint, "https://m/x?y=z"), "https://m/x?y=z");
        let set = [("OUTLAST_PROTOCOL", protocol), ("OUTLAST_ENDPOINT", endpoint)];
        let host = logs_url(&loaded(&set).config).unwrap();
        assert!(host.starts_with(endpoint), "logs stay where they are: {host}");
    }
    let both = [
        ("OUTLAST_METRICS_ENDPOINT", "http://ours"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://theirs"),
    ];
    assert_eq!(loaded(&both).config.signal_url(Signal::Metrics).unwrap().as_str(), "http://ours/");
}

#[test]
fn acknowledgement_takes_longer_unless_the_user_says_otherwise() {
    let headers = ("OUTLAST_HEADERS", "authorization=Splunk%20k,X-Splunk-Request-Channel=c");
    let timeout = |protocol, own: &str| {
        let set =
            [("OUTLAST_PROTOCOL", protocol), headers, ("OUTLAST_SIGNALS", "logs"), ("OUTLAST_TIMEOUT", own)];
        good(&set).timeout.as_secs()
    };
    assert_eq!(timeout("splunk-hec", ""), 30);
    assert_eq!(timeout("splunk-hec", "7s"), 7);
    assert_eq!(timeout("ndjson", ""), 5);
}

#[test]
fn a_batch_is_never_larger_than_the_backend_takes_it() {
    let logs = ("OUTLAST_SIGNALS", "logs");
    let config = good(&[("OUTLAST_PROTOCOL", "newrelic"), logs]);
    assert_eq!(config.batch_max_bytes, 980_000, "a default is lowered without a word");
    let (line, config) =
        one_problem(&[("OUTLAST_PROTOCOL", "datadog"), logs, ("OUTLAST_BATCH_MAX_BYTES", "8MiB")]);
    assert!(line.starts_with("OUTLAST_BATCH_MAX_BYTES=\"8MiB\"") && line.contains("datadog"), "{line}");
    assert_eq!(config.batch_max_bytes, 4_900_000);
}

#[test]
fn a_batch_is_never_larger_than_the_queue() {
    let (line, config) =
        one_problem(&[("OUTLAST_QUEUE_MAX_BYTES", "2MiB"), ("OUTLAST_BATCH_MAX_BYTES", "4MiB")]);
    assert!(line.starts_with("OUTLAST_BATCH_MAX_BYTES=\"4MiB\""), "{line}");
    assert_eq!(config.batch_max_bytes, 2 << 20);
}

#[test]
fn no_secret_is_ever_shown() {
    let loaded = loaded(&[
        ("OUTLAST_ENDPOINT", "https://user:hunter2@host/x?key=hunter2"),
        ("OUTLAST_HEADERS", "authorization=hunter2,hunter2,content-type=hunter2"),
        ("OUTLAST_APIKEY", "hunter2"),
    ]);
    let shown =
        format!("{loaded:?} {:?}", loaded.problems.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(loaded.config.headers.fixed["authorization"], "hunter2");
}

#[test]
fn a_value_that_is_not_text_is_reported_and_not_used() {
    use std::os::unix::ffi::OsStringExt;
    let loaded = load([
        (OsString::from("OUTLAST_ENDPOINT"), OsString::from("http://c")),
        (OsString::from("OUTLAST_TIMEOUT"), OsString::from_vec(vec![0xff])),
    ]);
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!(loaded.config.timeout, Duration::from_secs(5));
}

#[test]
fn a_name_with_a_line_break_is_told_on_one_line() {
    let told = loaded(&[("OUTLAST_\nTIMEOUT", "1s")]).problems[0].to_string();
    assert_eq!(told, "OUTLAST_ TIMEOUT: not a setting; the nearest is OUTLAST_TIMEOUT; ignored");
}

#[test]
fn a_long_or_multi_line_value_is_shown_short_and_on_one_line() {
    let (line, _) = one_problem(&[("OUTLAST_TIMEOUT", &format!("1\n{}", "é".repeat(500)))]);
    assert!(line.chars().count() < 250 && !line.contains('\n'), "{line}");
}

proptest! {
    #[test]
    fn any_values_give_settings_within_their_ranges(values in prop::collection::vec("\\PC{0,12}|[0-9]{1,4}(ms|s|m|MiB|KiB)", SETTINGS.len())) {
        let variables: Vec<(&str, &str)> =
            SETTINGS.iter().map(|setting| setting.name).zip(values.iter().map(String::as_str)).collect();
        let config = loaded(&variables).config;
        prop_assert!(config.retry_initial <= config.retry_max);
        prop_assert!(config.batch_max_bytes as u64 <= config.queue_max_bytes);
        prop_assert!(config.queue_dir.is_absolute());
        prop_assert!(!config.telemetry.is_empty());
        prop_assert!(config.timeout >= Duration::from_millis(50));
    }
}

#[test]
fn signals_are_made_if_they_are_wanted_and_have_somewhere_to_go() {
    let made = |config: &Config| Signal::ALL.map(|signal| config.is_made(signal));
    assert_eq!(made(&good(&[])), [true; 3]);
    assert_eq!(made(&good(&[("OUTLAST_SIGNALS", "traces, LOGS")])), [true, false, true]);
    let (line, config) = one_problem(&[("OUTLAST_SIGNALS", "logs,profiles")]);
    assert!(line.contains("accepts a comma-separated list of `logs`, `metrics`, `traces`"), "{line}");
    assert_eq!(made(&config), [true; 3], "the default stands");

    let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4318/x");
    let loaded_traces = loaded(&[traces]);
    assert_eq!(loaded_traces.problems, [], "what is wanted by default may be left out");
    assert_eq!(made(&loaded_traces.config), [false, false, true]);
    assert_eq!(loaded_traces.config.signal_url(Signal::Traces).unwrap().as_str(), "http://t:4318/x");
    let asked = loaded(&[traces, ("OUTLAST_SIGNALS", "metrics,traces")]);
    let lines: Vec<_> = asked.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["OUTLAST_SIGNALS=\"metrics\": nowhere to send metrics: set OUTLAST_ENDPOINT; no metrics are made"]
    );
    let none = loaded(&[traces, ("OUTLAST_SIGNALS", "logs")]);
    assert!(none.problems.iter().any(|problem| problem.to_string().contains("nowhere to send")));
}

#[test]
fn each_signal_may_have_an_address_and_headers_of_its_own() {
    let loaded = loaded(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:1/in"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "k=all"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "k=traces"),
    ]);
    assert_eq!(loaded.problems, []);
    let of = |signal: Signal| {
        let header = loaded.config.signal_headers(signal).fixed["k"].to_str().unwrap();
        format!("{} {header}", loaded.config.signal_url(signal).unwrap())
    };
    assert_eq!(of(Signal::Logs), "http://all:4318/v1/logs all");
    assert_eq!(of(Signal::Metrics), "http://m:1/in all");
    assert_eq!(of(Signal::Traces), "http://all:4318/v1/traces traces");
}

#[test]
fn samplers_are_those_of_the_specification() {
    let sampler = |variables: &[(&str, &str)]| {
        let Sampler { parent_based, ratio } = good(variables).sampler;
        (parent_based, ratio)
    };
    assert_eq!(sampler(&[]), (true, 1.0));
    assert_eq!(sampler(&[("OTEL_TRACES_SAMPLER", "always_off")]), (false, 0.0));
    assert_eq!(
        sampler(&[("OUTLAST_SAMPLER", "Always_On"), ("OTEL_TRACES_SAMPLER", "jaeger_remote")]),
        (false, 1.0)
    );
    let share = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
    assert_eq!(sampler(&[share, ("OTEL_TRACES_SAMPLER_ARG", "0.25")]), (true, 0.25));
    assert_eq!(sampler(&[share]), (true, 1.0));
    for (name, value) in [("OUTLAST_SAMPLER", "sometimes"), ("OTEL_TRACES_SAMPLER", "xray")] {
        let (line, config) = one_problem(&[(name, value)]);
        assert!(line.starts_with(name) && line.contains("parentbased_always_on"), "{line}");
        assert_eq!(config.sampler, Sampler::default());
    }
    let (_, config) = one_problem(&[share, ("OUTLAST_SAMPLER_RATIO", "1.5")]);
    assert_eq!(config.sampler, Sampler { parent_based: true, ratio: 1.0 });
}

#[test]
fn a_price_is_known_if_either_of_its_parts_is() {
    assert_eq!(good(&[]).price, None);
    let config = good(&[("OUTLAST_PRICE_PER_GB_SECOND", "0.0000166667")]);
    assert_eq!(config.price, Some(Price { gb_second: 0.000_016_666_7, request: 0.0 }));
    let config = good(&[("OUTLAST_PRICE_PER_GB_SECOND", "1e-5"), ("OUTLAST_PRICE_PER_REQUEST", "2e-7")]);
    assert_eq!(config.price, Some(Price { gb_second: 1e-5, request: 2e-7 }));
    for value in ["-1", "$1", "NaN", "inf"] {
        assert_eq!(one_problem(&[("OUTLAST_PRICE_PER_REQUEST", value)]).1.price, None, "{value}");
    }
}

#[test]
fn only_known_platform_events_are_silenced() {
    let config = good(&[("OUTLAST_SILENCE", "platform.start, runtimeDone,platform.start")]);
    assert_eq!(config.silenced, ["platform.start", "platform.runtimeDone"]);
    let (line, config) = one_problem(&[("OUTLAST_SILENCE", "platform.start,platform.novelty")]);
    assert!(line.starts_with("OUTLAST_SILENCE=\"platform.novelty\""), "{line}");
    assert!(line.ends_with("; not silenced"), "{line}");
    assert_eq!(config.silenced, ["platform.start"]);
}

#[test]
fn what_is_told_of_the_extension_itself_may_be_off() {
    let told = |variables: &[(&str, &str)]| {
        let loaded = load(variables.iter().copied().chain([("OUTLAST_ENDPOINT", "http://c")]));
        (loaded.config.self_metrics, loaded.config.outage_alert_after, loaded.problems.len())
    };
    let (minute, hour) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(3600)));
    assert_eq!(told(&[]), (minute, minute, 0));
    for off in ["off", "OFF", "0"] {
        let both = [("OUTLAST_SELF_METRICS", off), ("OUTLAST_OUTAGE_ALERT_AFTER", off)];
        assert_eq!(told(&both), (None, None, 0));
    }
    assert_eq!(told(&[("OUTLAST_SELF_METRICS", "1h")]), (hour, minute, 0));
    for wrong in ["on", "999ms", "25h", "60"] {
        assert_eq!(told(&[("OUTLAST_OUTAGE_ALERT_AFTER", wrong)]), (minute, minute, 1), "{wrong}");
    }
}
