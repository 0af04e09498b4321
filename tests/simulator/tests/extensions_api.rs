//! The Extensions API as a client meets it: every row of the table of errors, and the state machine.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{PROBE, answers, ms, probe, refusal, steps};
use outlast_simulator::{
    ExtensionState, Freeze, InitializationType, Invocation, ShutdownOptions, ShutdownReason,
};

/// For extensions that hang on purpose.
const BRIEF: ShutdownOptions =
    ShutdownOptions { budget: Duration::from_millis(20), runtime_stops_in: Duration::ZERO };

const STRANGER: &str = "00000000-0000-4000-8000-000000000000";

/// Runs a script before the usual loop and returns its refusals in order.
async fn refusals(script: &str) -> Vec<(u64, String)> {
    let lambda = probe(&format!("{script}\nidentifier=own\nloop")).start().await.unwrap();
    lambda.shutdown(ShutdownReason::Spindown).await;
    let all = steps(&lambda);
    all.iter()
        .filter(|answer| answer["status"].as_u64().is_some_and(|status| status >= 400))
        .map(|answer| {
            let (status, error_type) = refusal(answer);
            (status, error_type.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn registration_is_refused_with_the_type_of_the_mistake() {
    let script = r#"register-as==INVOKE
register-raw={
register-raw={"events":[],"configurationKeys":["a"]}
register=RESTART
register=INVOKE,SHUTDOWN
register=INVOKE"#;
    let expected = [
        "Extension.InvalidExtensionName",
        "InvalidRequestFormat",
        "InvalidRequestFormat",
        "Extension.InvalidEventType",
        "Extension.InvalidExtensionState",
    ];
    assert_eq!(refusals(script).await, expected.map(|error_type| (403, error_type.to_owned())));
}

#[tokio::test]
async fn every_call_wants_a_known_identifier() {
    let calls = "next\ninit-error=X\nexit-error=X\nsubscribe";
    for (identifier, expected) in [
        ("-", "Extension.MissingExtensionIdentifier"),
        ("not-a-uuid", "Extension.InvalidExtensionIdentifier"),
        (STRANGER, "Extension.UnknownExtensionIdentifier"),
    ] {
        let script = format!("register=INVOKE,SHUTDOWN\nidentifier={identifier}\n{calls}");
        assert_eq!(refusals(&script).await, vec![(403, expected.to_owned()); 4]);
    }
}

#[tokio::test]
async fn an_error_call_wants_an_error_type() {
    let refused = refusals("register=INVOKE,SHUTDOWN\ninit-error=\nexit-error=").await;
    assert_eq!(refused, vec![(403, "Extension.MissingHeader".to_owned()); 2]);
}

#[tokio::test]
async fn the_register_reply_names_the_function_and_the_account_only_if_asked() {
    let lambda = probe("register=INVOKE,SHUTDOWN\nloop").start().await.unwrap();
    let reply = answers(&lambda, "register", 1).await.remove(0);
    assert_eq!(reply["body"]["functionName"], "simulated-function");
    assert_eq!(reply["body"]["functionVersion"], "$LATEST");
    assert_eq!(reply["body"]["handler"], "app.handler");
    assert!(reply["body"].get("accountId").is_none());
    let lambda = probe("feature=other, accountId\nregister=INVOKE,SHUTDOWN\nloop").start().await.unwrap();
    assert_eq!(answers(&lambda, "register", 1).await[0]["body"]["accountId"], "123456789012");
}

#[tokio::test]
async fn the_invoke_event_has_its_fields_and_an_identifier_of_its_own() {
    let lambda = probe("register=INVOKE,SHUTDOWN\nloop").tracing().start().await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.shutdown(ShutdownReason::Failure).await;
    let events = answers(&lambda, "next", 2).await;
    let invoke = &events[0];
    assert!(invoke["headers"]["lambda-extension-event-identifier"].is_string());
    assert_eq!(
        invoke["body"]["invokedFunctionArn"],
        "arn:aws:lambda:eu-central-1:123456789012:function:simulated-function"
    );
    assert!(invoke["body"]["deadlineMs"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(invoke["body"]["tracing"]["type"], "X-Amzn-Trace-Id");
    let shutdown = &events[1];
    assert!(shutdown["headers"].get("lambda-extension-event-identifier").is_none());
    assert_eq!(shutdown["body"]["shutdownReason"], "failure");
    assert!(shutdown["body"].get("requestId").is_none());
}

#[tokio::test]
async fn a_second_next_is_refused_and_a_dropped_poll_loses_its_event() {
    let script = "register=INVOKE,SHUTDOWN\nnext-drop\nnext\nnext-retry\nloop";
    let lambda = probe(script).freeze(Freeze::Off).start().await.unwrap();
    lambda.until_output(|line| line.contains("from Ready to Ready")).await;
    let lost = lambda.invoke(Invocation::new()).await.unwrap();
    let seen = lambda.invoke(Invocation::new()).await.unwrap();
    assert_eq!(lambda.lost_events(), 1);
    assert_eq!(refusal(&answers(&lambda, "next", 1).await[0]), (403, "Extension.InvalidExtensionState"));
    let event = answers(&lambda, "next-retry", 1).await.remove(0);
    assert_eq!(event["body"]["requestId"], seen.request_id.as_str());
    assert_ne!(event["body"]["requestId"], lost.request_id.as_str());
}

#[tokio::test]
async fn a_name_that_matches_no_file_is_an_internal_extension() {
    let refused = refusals("register-as=inner=SHUTDOWN\nregister=INVOKE,SHUTDOWN").await;
    assert_eq!(refused, [(403, "Extension.InvalidEventType".to_owned())]);
    // Registered under the wrong name the process itself never registers, and the runtime never starts.
    let trapped =
        probe("register-as=inner=INVOKE\nloop").init_limit(ms(60)).shutdown(BRIEF).start().await.unwrap_err();
    assert!(trapped.to_string().contains("Sandbox.Timedout"), "{trapped}");
}

#[tokio::test]
async fn registration_closes_with_init_and_stays_below_ten() {
    let many: Vec<String> = (0..10).map(|n| format!("register-as=inner{n}=INVOKE")).collect();
    let many = many.join("\n");
    let script = format!("register=INVOKE,SHUTDOWN\n{many}\nexit=1");
    let lambda = probe(&script).suppress_failed_init().start().await.unwrap();
    let all = answers(&lambda, "register-as", 10).await;
    assert_eq!(all.iter().filter(|answer| answer["status"] == 200).count(), 9);
    assert_eq!(refusal(&all[9]), (403, "Extension.TooManyExtensions"));

    let lambda =
        probe("register=INVOKE,SHUTDOWN\nnext\nregister-as=late=INVOKE\nloop").start().await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    assert_eq!(refusal(&answers(&lambda, "register-as", 1).await[0]), (403, "Extension.RegistrationClosed"));
}

#[tokio::test]
async fn reported_errors_are_final_and_the_first_one_counts() {
    let script =
        "register=INVOKE,SHUTDOWN\nnext\nexit-error=Extension.A\nexit-error=Extension.B\nnext\nexit=0";
    let lambda = probe(script).start().await.unwrap();
    let invoked = lambda.invoke(Invocation::new().runs_for(ms(2_000))).await.unwrap();
    assert_eq!(invoked.error_type(), Some("Extension.ExitError"));
    assert!(invoked.response.unwrap_err().message.ends_with("Error: Extension.A"));
    let all = answers(&lambda, "exit-error", 2).await;
    assert_eq!(refusal(&all[0]).0, 202);
    assert_eq!(all[0]["body"]["status"], "OK");
}

#[tokio::test]
async fn an_extension_that_wants_shutdown_only_does_not_hold_the_invocation() {
    let lambda = probe("register=SHUTDOWN\nloop").start().await.unwrap();
    let invoked = lambda.invoke(Invocation::new().runs_for(ms(2))).await.unwrap();
    assert_eq!((invoked.extensions, invoked.added_micros()), (None, 0));
    assert!(lambda.shutdown(ShutdownReason::Spindown).await.exited_by_itself());
    assert_eq!(answers(&lambda, "next", 1).await.len(), 1, "it was told of no invocation");
}

#[tokio::test]
async fn several_extensions_are_all_waited_for() {
    let twin = std::env::temp_dir().join(format!("outlast-twin-{:x}", std::process::id()));
    std::fs::copy(PROBE, &twin).unwrap();
    let lambda = probe("register=INVOKE,SHUTDOWN\nloop").extension(&twin).start().await.unwrap();
    let states: Vec<_> = lambda.extensions().into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [ExtensionState::Ready; 2]);
    assert!(lambda.invoke(Invocation::new()).await.unwrap().succeeded());
    let end = lambda.shutdown(ShutdownReason::Spindown).await;
    assert_eq!(end.extensions.len(), 2);
    assert!(end.exited_by_itself());
    std::fs::remove_file(twin).unwrap();
}

#[tokio::test]
async fn managed_instances_refuse_invoke_and_run_invocations_side_by_side() {
    let script = "register=INVOKE,SHUTDOWN\nregister=SHUTDOWN\nloop";
    let lambda = probe(script).initialization(InitializationType::ManagedInstances).start().await.unwrap();
    assert_eq!(refusal(&answers(&lambda, "register", 1).await[0]), (403, "Extension.InvalidEventType"));
    let one = || lambda.invoke(Invocation::new().runs_for(ms(150)));
    let (first, second) = tokio::join!(one(), one());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(second.released < first.released + first.function, "the second began before the first was done");
    let late = lambda.invoke(Invocation::new()).await.unwrap();
    assert!(late.reset.is_none());
    assert!(lambda.shutdown(ShutdownReason::Spindown).await.exited_by_itself());
}
