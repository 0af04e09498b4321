//! The simulated sandbox against AWS's own emulator: one probe, one script, the same answers.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{PROBE, ms, probe, refusal, steps};
use outlast_simulator::rie::{self, Emulator};
use outlast_simulator::{InitializationType, Invocation, ShutdownReason};
use serde_json::{Value, json};

/// Step, status and error type of every answer of the API, and the kind of every event.
fn answers(lines: &[Value]) -> Vec<String> {
    let api = lines.iter().filter(|line| line["step"] != "telemetry");
    api.map(|line| {
        let (status, mut error_type) = refusal(line);
        // Some of the emulator's validation errors quote without escaping, and so are no JSON.
        if line["body"].as_str().is_some_and(|body| body.starts_with(r#"{"errorType": "ValidationError","#)) {
            error_type = "ValidationError";
        }
        let event = line["body"]["eventType"].as_str().unwrap_or("");
        format!("{} {status} {error_type}{event}", line["step"].as_str().unwrap())
    })
    .collect()
}

/// Field names of every body, which are what a client can rely on.
fn shapes(lines: &[Value]) -> Vec<(String, BTreeSet<String>)> {
    let api = lines.iter().filter(|line| line["step"] != "telemetry");
    api.map(|line| {
        let fields = line["body"].as_object().map(|body| body.keys().cloned().collect()).unwrap_or_default();
        (line["step"].as_str().unwrap().to_owned(), fields)
    })
    .collect()
}

fn lines(ran: &rie::Ran) -> Vec<Value> {
    ran.file("probe.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn emulator(script: &str) -> Emulator {
    Emulator::new(PROBE).env("PROBE", script).env("PROBE_OUT", "$OUT/probe.jsonl")
}

fn unsupported() -> outlast_simulator::TelemetryOptions {
    outlast_simulator::TelemetryOptions { supported: false, ..Default::default() }
}

#[tokio::test]
async fn both_answer_every_call_of_the_extensions_api_alike() {
    if !rie::usable().unwrap() {
        return;
    }
    let stranger = "00000000-0000-4000-8000-000000000000";
    let script = format!(
        "register-raw={{\nregister-raw={{\"events\":[],\"configurationKeys\":[\"a\"]}}\nregister-as==INVOKE\n\
         register=NONE\nregister=INVOKE,SHUTDOWN\nregister=INVOKE\nregister-as=inner=SHUTDOWN\n\
         identifier=-\nnext\ninit-error=X\nexit-error=X\nsubscribe\nidentifier=malformed\nnext\ninit-error=X\n\
         exit-error=X\nsubscribe\nidentifier={stranger}\nnext\ninit-error=X\ninit-error=\nexit-error=X\nsubscribe\n\
         identifier=own\ninit-error=\nexit-error=\nlisten\nsubscribe\nnext\ninit-error=X\nregister=INVOKE\n\
         next-drop\nnext\nnext-retry\nregister-as=late=\nsubscribe\nloop"
    );
    let ran = emulator(&script)
        .invoke(&json!({}))
        .wait(ms(150))
        .invoke(&json!({}))
        .wait(ms(150))
        .invoke(&json!({}));
    let ran = ran.run().await.unwrap();
    assert_eq!(ran.responses.len(), 3, "{:?}", ran.responses);
    let theirs = lines(&ran);

    let lambda =
        probe(&script).telemetry(unsupported()).freeze(outlast_simulator::Freeze::Off).start().await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.until_output(|line| line.contains("from Ready to Ready")).await;
    lambda.invoke(Invocation::new()).await.unwrap();
    assert_eq!(lambda.lost_events(), 1);
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.shutdown(ShutdownReason::Spindown).await;
    let ours = steps(&lambda);
    assert_eq!(answers(&ours), answers(&theirs));
    assert_eq!(shapes(&ours), shapes(&theirs));
}

#[tokio::test]
async fn both_treat_reported_errors_alike() {
    if !rie::usable().unwrap() {
        return;
    }
    for script in [
        "register=INVOKE,SHUTDOWN\ninit-error=Extension.A\ninit-error=Extension.B\nexit-error=Extension.C\nnext\nexit=1",
        "register=INVOKE,SHUTDOWN\nexit-error=Extension.A\nexit-error=Extension.B\ninit-error=Extension.C\nnext\nexit=1",
    ] {
        let theirs = lines(&emulator(script).invoke(&json!({})).run().await.unwrap());
        let failing = probe(script).suppress_failed_init().start().await.unwrap();
        let ours = steps(&failing);
        assert!(!ours.is_empty());
        // The emulator initialises once more for the invocation.
        assert_eq!(answers(&ours), answers(&theirs)[..ours.len()]);
    }
}

#[tokio::test]
async fn both_report_the_crash_of_an_extension_alike() {
    if !rie::usable().unwrap() {
        return;
    }
    for code in [0, 3] {
        let script = format!("register=INVOKE,SHUTDOWN\nnext\nexit={code}");
        let ran = emulator(&script).invoke(&json!({"do": "sleep", "s": 5})).run().await.unwrap();
        let theirs: Value = serde_json::from_str(&ran.responses[0]).unwrap();
        let lambda = probe(&script).timeout(ms(10_000)).start().await.unwrap();
        let invoked = lambda.invoke(Invocation::new().runs_for(ms(5_000))).await.unwrap();
        let ours = invoked.response.unwrap_err();
        assert_eq!(theirs["errorType"], ours.error_type.as_str());
        let cause = |message: &str| message.split_once("Error: ").unwrap().1.to_owned();
        assert_eq!(cause(theirs["errorMessage"].as_str().unwrap()), cause(&ours.message));
    }
}

const MANAGED: &str = r#"register=INVOKE,SHUTDOWN
register=SHUTDOWN
register=SHUTDOWN
register-as=inner=INVOKE
identifier=-
subscribe
identifier=own
listen
subscribe={"schemaVersion":"2022-12-13"}
subscribe={"schemaVersion":"2022-07-01"}
subscribe={"types":[]}
subscribe={"types":["all"]}
subscribe={"buffering":{"maxItems":999}}
subscribe={"buffering":{"maxItems":10001}}
subscribe={"buffering":{"maxBytes":262143}}
subscribe={"buffering":{"maxBytes":1048577}}
subscribe={"buffering":{"timeoutMs":24}}
subscribe={"buffering":{"timeoutMs":30001}}
subscribe={"destination":{"protocol":"UDP","port":1}}
subscribe={"destination":{"protocol":"TCP","port":0}}
subscribe={"destination":{"protocol":"HTTP","URI":"http://example.com:80/"}}
subscribe={"destination":{"protocol":"HTTP","URI":"http://127.0.0.1:80/"}}
subscribe={"destination":{"protocol":"HTTP"}}
subscribe-raw=[
subscribe-raw=[]
subscribe-raw={}
subscribe
subscribe
loop"#;

#[tokio::test]
async fn both_managed_instances_modes_answer_alike() {
    if !rie::usable().unwrap() {
        return;
    }
    let ran = emulator(MANAGED).managed().invoke(&json!({"do": "loud", "n": 3, "len": 5})).wait(ms(300));
    let ran = ran.run().await.unwrap();
    let theirs = lines(&ran);
    let lambda = probe(MANAGED).initialization(InitializationType::ManagedInstances).start().await.unwrap();
    lambda.invoke(Invocation::new().logs(3)).await.unwrap();
    lambda.settled().await;
    lambda.shutdown(ShutdownReason::Spindown).await;
    let ours = steps(&lambda);
    assert_eq!(answers(&ours), answers(&theirs));
    compare_telemetry(&ours, &theirs);
}

/// All telemetry events that a probe received, in order.
fn events(lines: &[Value]) -> Vec<Value> {
    let bodies = lines.iter().filter(|line| line["step"] == "telemetry");
    bodies
        .flat_map(|line| serde_json::from_str::<Vec<Value>>(line["body"].as_str().unwrap()).unwrap())
        .collect()
}

fn compare_telemetry(ours: &[Value], theirs: &[Value]) {
    let (ours, theirs) = (events(ours), events(theirs));
    let platform = |events: &[Value]| -> Vec<String> {
        let kinds = events.iter().map(|event| event["type"].as_str().unwrap().to_owned());
        kinds.filter(|kind| kind.starts_with("platform.")).collect()
    };
    let (mut ours_kinds, mut theirs_kinds) = (platform(&ours), platform(&theirs));
    for kinds in [&mut ours_kinds, &mut theirs_kinds] {
        // Its place depends on how fast the runtime is.
        let at = kinds.iter().position(|kind| kind == "platform.telemetrySubscription");
        kinds.remove(at.expect("both report the subscription"));
    }
    assert_eq!(ours_kinds, theirs_kinds, "the platform's events and their order");
    let fields = |events: &[Value]| -> BTreeMap<String, BTreeSet<String>> {
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for event in events {
            let names =
                event["record"].as_object().map(|record| record.keys().cloned().collect::<BTreeSet<_>>());
            all.entry(event["type"].as_str().unwrap().to_owned())
                .or_default()
                .extend(names.unwrap_or_default());
        }
        all
    };
    let (ours_fields, theirs_fields) = (fields(&ours), fields(&theirs));
    for (kind, theirs) in &theirs_fields {
        let missing: Vec<_> = theirs.difference(&ours_fields[kind]).collect();
        assert!(missing.is_empty(), "{kind} lacks {missing:?}");
    }
    for event in ours.iter().chain(&theirs).filter(|event| event["type"] == "function") {
        assert!(event["record"].is_string(), "{event}");
    }
    assert!(theirs.iter().any(|event| event["type"] == "function"));
}
