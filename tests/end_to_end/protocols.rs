//! Every destination in the same situations: an outage, too much at once, a record that is not wanted, throttling, the end
//! of the environment. Queue and drain do not know which one it is, and neither do these tests.

use crate::refusal::{backlog, only_missing, poisoned};
use crate::support::{
    OUTLAST, PATIENCE, World, acknowledged, balance, count_of, delivered, invoke, is_report, leave,
    left_on_disk, lines_with, ms, output, summary, within,
};
use outlast_backend::real::Rotel;
use outlast_backend::{Behaviour, Dialect, Door, Fate, Indexing, Record, Reset, Signal, Verdict};
use outlast_simulator::{Freeze, Invocation, Sandbox};
use std::collections::BTreeMap;
use std::path::Path;

/// Attempts made while an outage lasts: enough for the breaker to open and to be probed.
const ATTEMPTS: usize = 6;
/// Some records of any format, and no more.
const LIMIT: usize = 12_000;

/// A healthy invocation, an outage with invocations, recovery, one more: everything arrives once and in order.
async fn survives(dialect: Dialect, behaviour: Behaviour) {
    let world = World::speaking(dialect).await;
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    let before = world.backend.requests().len();
    world.backend.behave(behaviour);
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().runs_for(ms(2)).logs(10)).await;
    }
    world.until_requests(before + ATTEMPTS).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 50);
    assert_eq!(lines_with(&lambda, "backend: away"), 1, "{:?}", output(&lambda));
    world.end(lambda).await;
    assert_eq!(world.reported(), 0);
}

async fn halves_what_is_too_large(dialect: Dialect) {
    let world = World::speaking(dialect).await;
    let lambda = world.lambda().start().await.unwrap();
    backlog(&world, &lambda, 6, 30).await;
    world.backend.behave(Behaviour::too_large_above_plain(LIMIT));
    world.until_delivered(&lambda).await;
    assert_eq!(lambda.acknowledged_lines().len(), 180);
    world.end(lambda).await;
    let requests = world.backend.requests();
    let accepted = requests.iter().filter(|request| request.verdict == Verdict::Accepted);
    assert!(accepted.clone().all(|request| request.plain_bytes <= LIMIT));
    assert!(requests.iter().any(|request| request.verdict == Verdict::Status(413)));
    assert_eq!(world.reported(), 0, "nothing had to go");
}

/// One record among many is not wanted; it alone goes, for `reason`.
async fn loses_poison_alone(dialect: Dialect, behaviour: Behaviour, reason: &str) {
    let world = World::speaking(dialect).await;
    let lambda = world.lambda().start().await.unwrap();
    backlog(&world, &lambda, 3, 10).await;
    invoke(&lambda, Invocation::new().logs(10).line("poison").logs(20)).await;
    within("the delivery", lambda.settled()).await;
    world.backend.behave(behaviour);
    world.wait_for(|received| received.records().iter().any(is_report)).await;
    leave(&lambda).await;
    only_missing(&world, &lambda, &["poison"]);
    assert_eq!((world.reported_for(reason), world.reported()), (1, 1), "{}", summary(&world.backend));
}

/// The report of the last invocation comes after SHUTDOWN: how long that is waited for is tried elsewhere.
fn without_reports(lambda: &Sandbox) {
    lambda.telemetry(|telemetry| telemetry.report = false);
}

async fn leaves_at_shutdown_with_nothing_behind(dialect: Dialect) {
    let world = World::speaking(dialect).await;
    world.backend.set_door(Door::Refused).await.unwrap();
    let builder = world.lambda().freeze(Freeze::After(ms(1)));
    // After the first failure nothing is tried again until the end.
    let builder = builder.env("OUTLAST_RETRY_INITIAL", "10m").env("OUTLAST_RETRY_MAX", "10m");
    let lambda = builder.start().await.unwrap();
    without_reports(&lambda);
    for _ in 0..5 {
        invoke(&lambda, Invocation::new().runs_for(ms(30)).logs(100)).await;
    }
    world.backend.recover().await.unwrap();
    let end = leave(&lambda).await;
    assert!(end.left().is_some(), "before the deadline");
    assert_eq!(left_on_disk(&lambda), 0, "{:?}", output(&lambda));
    assert_eq!(lambda.acknowledged_lines().len(), 500);
    assert_eq!(balance(&[&lambda], &world.backend).repeated, 0);
}

async fn leaves_at_shutdown_what_a_hung_backend_did_not_take(dialect: Dialect) {
    let world = World::speaking(dialect).await;
    world.backend.behave(Behaviour::hang());
    let lambda = world.lambda().start().await.unwrap();
    without_reports(&lambda);
    invoke(&lambda, Invocation::new().logs(50)).await;
    within("the delivery", lambda.settled()).await;
    leave(&lambda).await;
    assert_eq!(balance(&[&lambda], &world.backend).left, lambda.acknowledged_count());
    world.backend.recover().await.unwrap();
    let next = world.aftermath().await;
    assert_eq!(balance(&[&lambda, &next], &world.backend).repeated, 0, "the backend had taken nothing");
}

macro_rules! suite {
    ($($name:ident: $dialect:ident),* $(,)?) => {
        $(mod $name {
            use super::*;

            #[tokio::test]
            async fn outage() {
                survives(Dialect::$dialect, Behaviour::status(503)).await;
            }

            #[tokio::test]
            async fn throttling() {
                survives(Dialect::$dialect, Behaviour::status(429)).await;
            }

            #[tokio::test]
            async fn too_large() {
                halves_what_is_too_large(Dialect::$dialect).await;
            }

            #[tokio::test]
            async fn poison() {
                loses_poison_alone(Dialect::$dialect, Behaviour::poisoned_by(poisoned), "refused").await;
            }

            #[tokio::test]
            async fn shutdown() {
                leaves_at_shutdown_with_nothing_behind(Dialect::$dialect).await;
            }

            #[tokio::test]
            async fn shutdown_while_it_hangs() {
                leaves_at_shutdown_what_a_hung_backend_did_not_take(Dialect::$dialect).await;
            }
        })*
    };
}

macro_rules! destinations {
    ($($name:ident: $dialect:ident),* $(,)?) => {
        suite! { $($name: $dialect,)* }

        /// Every destination is among the above.
        #[test]
        fn no_destination_is_left_out() {
            assert_eq!([$(Dialect::$dialect),*], Dialect::ALL);
            let names: Vec<_> = outlast::encode::Protocol::ALL.iter().map(|protocol| protocol.name()).collect();
            assert_eq!(names, Dialect::ALL.map(Dialect::name));
        }
    };
}

destinations! {
    otlp: Otlp,
    otlp_json: OtlpJson,
    ndjson: Ndjson,
    json: Json,
    elasticsearch: Elasticsearch,
    loki: Loki,
    splunk_hec: SplunkHec,
    datadog: Datadog,
    newrelic: NewRelic,
}

// What a destination can be asked for besides.
suite! { splunk_hec_acknowledged: SplunkHecAck }

/// Metrics beside logs, where that is not OTLP.
mod metrics {
    use super::*;
    use outlast_simulator::Builder;
    use serde_json::json;

    fn lambda(world: &World) -> Builder {
        world.lambda().env("OUTLAST_SIGNALS", "logs,metrics").env("OUTLAST_SELF_METRICS", "off")
    }

    /// What a counter comes to. Of points of a series and second Datadog keeps the last.
    fn total(records: &[Record], dialect: Dialect, name: &str) -> f64 {
        let mut points = BTreeMap::new();
        let of_name = records.iter().filter(|record| record.signal == Signal::Metrics && record.text == name);
        for (place, record) in of_name.enumerate() {
            let series = serde_json::to_string(&record.attributes).unwrap();
            let place = if dialect == Dialect::Datadog { 0 } else { place };
            points.insert((series, record.time_unix_nano, place), record.body["value"].as_f64().unwrap());
        }
        points.values().sum()
    }

    async fn until_counted(world: &World, dialect: Dialect, invocations: u32) {
        let counted = |received: &outlast_backend::Received| {
            total(received.records(), dialect, "faas.invocations") >= f64::from(invocations)
        };
        world.wait_for(counted).await;
    }

    /// An outage of either kind in between: every invocation is counted once.
    async fn outlast_an_outage(dialect: Dialect, behaviour: Behaviour) {
        let world = World::speaking(dialect).await;
        let lambda = lambda(&world).start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(3)).await;
        until_counted(&world, dialect, 1).await;
        world.backend.behave(behaviour);
        for _ in 0..8 {
            invoke(&lambda, Invocation::new().runs_for(ms(2)).logs(3)).await;
            within("the delivery", lambda.settled()).await;
        }
        world.until_requests(world.backend.requests().len() + ATTEMPTS).await;
        world.backend.recover().await.unwrap();
        until_counted(&world, dialect, 9).await;
        leave(&lambda).await;
        assert_eq!(lines_with(&lambda, "0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
        let records = world.backend.records();
        assert!((total(&records, dialect, "faas.invocations") - 9.0).abs() < 1e-9, "each once");
        let spread = if dialect == Dialect::Datadog { ".count" } else { "" };
        assert!(records.iter().any(|record| record.text == format!("faas.invoke_duration{spread}")));
        world.backend.received(|received| assert_eq!(received.defects(), Vec::<&str>::new()));
    }

    #[tokio::test]
    async fn of_datadog_outlast_an_outage() {
        outlast_an_outage(Dialect::Datadog, Behaviour::status(503)).await;
    }

    #[tokio::test]
    async fn of_new_relic_outlast_an_outage() {
        outlast_an_outage(Dialect::NewRelic, Behaviour::status(503)).await;
    }

    #[tokio::test]
    async fn outlast_throttling() {
        for dialect in [Dialect::Datadog, Dialect::NewRelic] {
            outlast_an_outage(dialect, Behaviour::status(429)).await;
        }
    }

    #[tokio::test]
    async fn become_smaller_requests() {
        const LIMIT: usize = 40_000;
        for dialect in [Dialect::Datadog, Dialect::NewRelic] {
            let world = World::speaking(dialect).await;
            world.backend.behave(Behaviour::status(503));
            let lambda = lambda(&world).start().await.unwrap();
            for _ in 0..12 {
                invoke(&lambda, Invocation::new().line("a")).await;
                within("the delivery", lambda.settled()).await;
            }
            world.backend.behave(Behaviour::too_large_above_plain(LIMIT));
            until_counted(&world, dialect, 12).await;
            leave(&lambda).await;
            let requests = world.backend.requests();
            let taken = requests.iter().filter(|request| request.verdict == Verdict::Accepted);
            assert!(taken.clone().all(|request| request.plain_bytes <= LIMIT));
            assert_eq!(lines_with(&lambda, "0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
        }
    }

    /// A point that is not wanted goes alone, whatever it is made of.
    #[tokio::test]
    async fn lose_poison_alone() {
        for dialect in [Dialect::Datadog, Dialect::NewRelic] {
            let world = World::speaking(dialect).await;
            let poison = |record: &Record| record.text.starts_with("faas.mem_usage");
            world.backend.behave(Behaviour::poisoned_by(poison));
            let lambda = lambda(&world).start().await.unwrap();
            for _ in 0..3 {
                invoke(&lambda, Invocation::new().line("a")).await;
                within("the delivery", lambda.settled()).await;
            }
            let is_told = |record: &Record| {
                is_report(record) && record.attributes["outlast.dropped.signal"] == "metrics"
            };
            world.wait_for(|received| received.records().iter().any(is_told)).await;
            until_counted(&world, dialect, 3).await;
            leave(&lambda).await;
            let records = world.backend.records();
            assert!(!records.iter().any(poison));
            // The report of the last invocation may come after SHUTDOWN only.
            let dropped: u64 = records.iter().filter(|record| is_told(record)).map(count_of).sum();
            assert!((1..=3).contains(&dropped), "{dropped} of {dialect:?}");
            assert!((total(&records, dialect, "faas.invocations") - 3.0).abs() < 1e-9);
        }
    }

    #[tokio::test]
    async fn leave_at_shutdown_with_nothing_behind() {
        for dialect in [Dialect::Datadog, Dialect::NewRelic] {
            let world = World::speaking(dialect).await;
            world.backend.set_door(Door::Refused).await.unwrap();
            let builder = lambda(&world).env("OUTLAST_RETRY_INITIAL", "10m").env("OUTLAST_RETRY_MAX", "10m");
            let lambda = builder.start().await.unwrap();
            without_reports(&lambda);
            for _ in 0..5 {
                invoke(&lambda, Invocation::new().line("a")).await;
            }
            world.backend.recover().await.unwrap();
            assert!(leave(&lambda).await.left().is_some(), "before the deadline");
            assert_eq!(lines_with(&lambda, "0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
            let total = total(&world.backend.records(), dialect, "faas.invocations");
            assert!((total - 5.0).abs() < 1e-9, "{total} of {dialect:?}");
        }
    }

    /// Their own limit, which no 413 would teach, and which is another than that of the logs.
    #[tokio::test]
    async fn of_datadog_stay_within_half_a_megabyte() {
        let world = World::speaking(Dialect::Datadog).await;
        world.backend.behave(Behaviour::status(503));
        let lambda = lambda(&world).start().await.unwrap();
        let names: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
        let metrics: Vec<_> = names.iter().map(|name| json!({"Name": name, "Unit": "Count"})).collect();
        for _ in 0..8 {
            let mut invocation = Invocation::new();
            for n in 0..8 {
                let mut line = json!({"n": n});
                for name in &names {
                    line[name] = json!(1);
                }
                line["_aws"] = json!({"Timestamp": 1_760_000_000_000_u64 + n, "CloudWatchMetrics": [
                    {"Namespace": "shop", "Dimensions": [[]], "Metrics": metrics},
                ]});
                invocation = invocation.line(line.to_string());
            }
            invoke(&lambda, invocation).await;
            within("the delivery", lambda.settled()).await;
        }
        world.backend.recover().await.unwrap();
        until_counted(&world, Dialect::Datadog, 8).await;
        leave(&lambda).await;
        assert_eq!(lines_with(&lambda, "0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
        let requests = world.backend.requests();
        let of_metrics = requests.iter().filter(|request| request.signal == Some(Signal::Metrics));
        let largest = of_metrics.map(|request| request.plain_bytes).max().unwrap();
        assert!((200_000..=500_000).contains(&largest), "{largest}");
        let records = world.backend.records();
        assert!(
            (total(&records, Dialect::Datadog, "m7.count") - 64.0).abs() < 1e-9,
            "lines of one second add up"
        );
    }

    #[tokio::test]
    async fn go_where_the_user_says() {
        let (logs, own) = (World::speaking(Dialect::Datadog).await, World::speaking(Dialect::Datadog).await);
        let url = format!("{}/api/v2/series", own.backend.url());
        let lambda = lambda(&logs).env("OUTLAST_METRICS_ENDPOINT", url).start().await.unwrap();
        invoke(&lambda, Invocation::new().line("a")).await;
        logs.until_delivered(&lambda).await;
        until_counted(&own, Dialect::Datadog, 1).await;
        leave(&lambda).await;
        assert_eq!(logs.backend.received(|received| received.count(Signal::Metrics)), 0);
        assert_eq!(own.backend.received(|received| received.count(Signal::Logs)), 0);
    }

    /// Spans are not taken, which is told once, and nothing of them is made.
    #[tokio::test]
    async fn come_without_traces() {
        for dialect in [Dialect::Datadog, Dialect::NewRelic] {
            let world = World::speaking(dialect).await;
            let builder = world.lambda().env("OUTLAST_SIGNALS", "logs,metrics,traces");
            let lambda = builder.start().await.unwrap();
            invoke(&lambda, Invocation::new().line("a")).await;
            world.until_delivered(&lambda).await;
            leave(&lambda).await;
            let line = format!("{} takes no traces; none are made", dialect.name());
            assert_eq!(lines_with(&lambda, &line), 1, "{:?}", output(&lambda));
        }
    }
}

/// Splunk's indexer acknowledgement: what was taken counts once it is indexed.
mod acknowledgement {
    use super::*;

    async fn until_asked(world: &World, times: u64) {
        let backend = world.backend.clone();
        world.wait_for(|_| backend.asked_for_acks() >= times).await;
    }

    #[tokio::test]
    async fn is_waited_for() {
        let world = World::speaking(Dialect::SplunkHecAck).await;
        world.backend.index(Indexing::After(3));
        let lambda = world.lambda().start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        until_asked(&world, 4).await;
        world.end(lambda).await;
    }

    /// Nothing counts as delivered, SHUTDOWN is not held up, and the next start sends it all.
    #[tokio::test]
    async fn that_never_comes_leaves_everything_on_disk() {
        let world = World::speaking(Dialect::SplunkHecAck).await;
        world.backend.index(Indexing::Never);
        let lambda = world.lambda().env("OUTLAST_TIMEOUT", "300ms").start().await.unwrap();
        without_reports(&lambda);
        invoke(&lambda, Invocation::new().logs(10)).await;
        within("the delivery", lambda.settled()).await;
        until_asked(&world, 8).await;
        assert!(leave(&lambda).await.left().is_some(), "before the deadline");
        assert_eq!(left_on_disk(&lambda), lambda.acknowledged_count(), "{:?}", output(&lambda));
        world.backend.index(Indexing::AtOnce);
        let next = world.aftermath().await;
        assert_eq!(left_on_disk(&next), 0);
        let (got, repeated) = delivered(&world.backend);
        assert_eq!(got, acknowledged(&[&lambda, &next]), "nothing is lost");
        assert!(repeated > 0, "what may have been indexed comes again, under the same uid");
    }

    #[tokio::test]
    async fn is_asked_for_again_if_an_answer_is_lost() {
        let world = World::speaking(Dialect::SplunkHecAck).await;
        world.backend.index(Indexing::After(2));
        world.backend.lose_acks(2);
        let lambda = world.lambda().start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        until_asked(&world, 3).await;
        world.end(lambda).await;
    }

    /// Splunk says true once. If that is lost the fate is not known, and what was indexed goes again.
    #[tokio::test]
    async fn that_is_lost_makes_a_repeat_and_no_loss() {
        let world = World::speaking(Dialect::SplunkHecAck).await;
        world.backend.lose_acks(1);
        let lambda = world.lambda().env("OUTLAST_TIMEOUT", "1s").start().await.unwrap();
        invoke(&lambda, Invocation::new().logs(10)).await;
        within("the delivery", lambda.settled()).await;
        world.until_requests(2).await;
        world.until_delivered(&lambda).await;
        leave(&lambda).await;
        assert_eq!(left_on_disk(&lambda), 0);
        let (got, repeated) = delivered(&world.backend);
        assert_eq!(got, acknowledged(&[&lambda]));
        assert!(repeated > 0);
    }
}

#[tokio::test]
async fn elasticsearch_says_which_records_it_refuses() {
    loses_poison_alone(Dialect::Elasticsearch, Behaviour::items(400, poisoned), "rejected").await;
}

#[tokio::test]
async fn loki_takes_the_lines_beside_those_it_refuses() {
    loses_poison_alone(Dialect::Loki, Behaviour::items(400, poisoned), "rejected").await;
}

#[tokio::test]
async fn loki_keeps_equal_lines_of_one_moment() {
    let world = World::speaking(Dialect::Loki).await;
    let lambda = world.lambda().start().await.unwrap();
    let lines = (0..20).fold(Invocation::new(), |invocation, _| invocation.line("again"));
    invoke(&lambda, lines).await;
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    assert_eq!(world.backend.texts().iter().filter(|text| *text == "again").count(), 20);
}

/// Some items of a request are throttled: the whole goes again, and what is there already is not there twice.
#[tokio::test]
async fn elasticsearch_throttles_single_records() {
    let world = World::speaking(Dialect::Elasticsearch).await;
    let lambda = world.lambda().start().await.unwrap();
    world.backend.behave(Behaviour::items(429, poisoned));
    invoke(&lambda, Invocation::new().line("a").line("poison").line("b")).await;
    world.wait_for(|received| received.texts().contains(&"b")).await;
    let before = world.backend.requests().len();
    world.until_requests(before + 2).await;
    assert!(!world.backend.texts().contains(&"poison".to_owned()));
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    let (got, repeated) = delivered(&world.backend);
    assert_eq!((got.len(), repeated), (acknowledged(&[&lambda]).len(), 0));
    assert_eq!(world.reported(), 0);
}

/// A request whose answer was lost goes again, and meets itself.
#[tokio::test]
async fn elasticsearch_keeps_nothing_twice() {
    let world = World::speaking(Dialect::Elasticsearch).await;
    world.backend.next(Behaviour::Reset(Reset::AfterBody(Fate::Kept)));
    let lambda = world.lambda().start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    world.until_delivered(&lambda).await;
    // The lines are there since the request that was reset: the one that follows it is waited for.
    world.until_requests(2).await;
    world.end(lambda).await;
    let requests = world.backend.requests();
    assert_eq!(requests[0].verdict, Verdict::Reset);
    let path = &requests[0].path;
    assert!(path.starts_with("/logs-outlast-default/_bulk?filter_path=errors,"), "{path}");
}

/// Its own limit, which no 413 would teach.
#[tokio::test]
async fn datadog_gets_a_thousand_logs_at_once_at_most() {
    let world = World::speaking(Dialect::Datadog).await;
    let lambda = world.lambda().start().await.unwrap();
    backlog(&world, &lambda, 7, 700).await;
    world.backend.recover().await.unwrap();
    world.until_delivered(&lambda).await;
    world.end(lambda).await;
    let largest = world.backend.requests().iter().map(|request| request.records).max();
    assert!(largest.is_some_and(|records| (600..=1000).contains(&records)), "{largest:?}");
}

#[tokio::test]
async fn what_was_stored_for_another_protocol_is_counted_and_holds_nothing_up() {
    let world = World::speaking(Dialect::Ndjson).await;
    world.backend.set_door(Door::Refused).await.unwrap();
    let lambda = world.lambda().env("OUTLAST_PROTOCOL", "loki").start().await.unwrap();
    invoke(&lambda, Invocation::new().logs(10)).await;
    within("the delivery", lambda.settled()).await;
    leave(&lambda).await;
    let left = left_on_disk(&lambda);
    assert!(left >= 10);
    world.backend.recover().await.unwrap();
    let next = world.lambda().start().await.unwrap();
    invoke(&next, Invocation::new().line("after")).await;
    world.wait_for(|received| received.texts().contains(&"after")).await;
    leave(&next).await;
    assert_eq!(lines_with(&next, "records given up: they were stored for loki"), 1, "{:?}", output(&next));
    assert_eq!(world.reported_for("damaged"), left as u64);
    let (got, repeated) = delivered(&world.backend);
    assert_eq!((got, repeated), (acknowledged(&[&next]), 0));
}

/// Logs, metrics and spans, as an OpenTelemetry collector reads them.
#[tokio::test]
async fn a_collector_nobody_here_wrote_reads_otlp_in_json() {
    let name = "a_collector_nobody_here_wrote_reads_otlp_in_json";
    let Some(rotel) = Rotel::start_or_skip(name).await.unwrap() else { return };
    let world = World::speaking(Dialect::OtlpJson).await;
    let builder = world.lambda().env("OUTLAST_ENDPOINT", rotel.url()).env("OUTLAST_SAMPLER", "always_on");
    let lambda = builder.env("OUTLAST_SIGNALS", "logs,metrics,traces").start().await.unwrap();
    for _ in 0..3 {
        invoke(&lambda, Invocation::new().logs(20)).await;
    }
    rotel.wait_for_texts(&lambda.acknowledged_lines(), PATIENCE).await.unwrap();
    rotel.wait_for_texts(&["faas.invoke_duration", "log.record.uid"], PATIENCE).await.unwrap();
    leave(&lambda).await;
    // Spans that it could not read would be refused, and dropped.
    assert_eq!(lines_with(&lambda, "0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
}

/// The settings that `docs/destinations.md` gives for a destination.
fn documented(dialect: Dialect) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/destinations.md");
    let page = std::fs::read_to_string(path).unwrap();
    let title = match dialect {
        Dialect::SplunkHecAck => "\n### Indexer acknowledgement".to_owned(),
        _ => format!("\n## `{}`", dialect.name()),
    };
    let section = page.split(&title).nth(1).unwrap_or_else(|| panic!("no section {title}"));
    let section = section.split("\n## ").next().unwrap();
    let settings = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    settings
        .lines()
        .map(|line| line.split_once('=').unwrap())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// A user copies the settings from the document, with another host.
#[tokio::test]
async fn the_documented_settings_deliver() {
    for dialect in Dialect::ALL.into_iter().chain([Dialect::SplunkHecAck]) {
        let world = World::speaking(dialect).await;
        let mut settings = documented(dialect);
        let endpoint = settings.get_mut("OUTLAST_ENDPOINT").unwrap();
        let rest = endpoint.split_once("://").unwrap().1;
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        *endpoint = format!("{}{path}", world.backend.url());
        let mut builder = Sandbox::builder(OUTLAST).env("OUTLAST_QUEUE_DIR", world.queue().display());
        for (name, value) in &settings {
            builder = builder.env(name, value);
        }
        let lambda = builder.env("OUTLAST_MAX_DELAY", "400ms").start().await.unwrap();
        assert_eq!(output(&lambda), Vec::<String>::new(), "{dialect:?}: nothing is wrong with them");
        invoke(&lambda, Invocation::new().logs(10)).await;
        world.until_delivered(&lambda).await;
        leave(&lambda).await;
        let asks_for_metrics =
            settings.get("OUTLAST_SIGNALS").is_some_and(|signals| signals.contains("metrics"));
        let metrics = world.backend.received(|received| received.count(Signal::Metrics));
        assert!(metrics > 0 || !asks_for_metrics, "{dialect:?}: no metrics");
        assert_eq!(world.backend.missing(&lambda.acknowledged_lines()), Vec::<String>::new());
        world.backend.received(|received| assert_eq!(received.defects(), Vec::<&str>::new(), "{dialect:?}"));
    }
}
