//! An environment's life: init, invocations, freezing, SHUTDOWN, crashes and resets.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::time::Duration;

use common::{answers, ms, probe, steps};
use outlast_simulator::{Freeze, Invocation, Phase, Sandbox, ShutdownOptions, ShutdownReason};

/// Time limit of a function whose environment must come back within one, on a busy machine too.
const AGAIN: Duration = Duration::from_millis(600);

/// For extensions that hang on purpose.
const BRIEF: ShutdownOptions =
    ShutdownOptions { budget: Duration::from_millis(20), runtime_stops_in: Duration::ZERO };

const LOOP: &str = "register=INVOKE,SHUTDOWN\nlisten\nsubscribe\nloop";

#[tokio::test]
async fn an_extension_lives_from_init_to_shutdown() {
    let lambda = probe(LOOP).start().await.unwrap();
    assert_eq!(lambda.init_times().unwrap().phase, Phase::Init);
    let invoked = lambda.invoke(Invocation::new().runs_for(ms(5)).logs(3)).await.unwrap();
    assert!(invoked.succeeded() && invoked.cold);
    assert!(invoked.function >= ms(5));
    let end = lambda.shutdown(ShutdownReason::Spindown).await;
    assert!(end.exited_by_itself());
    assert_eq!(end.exit_code(), Some(0));
    assert!(end.left().is_some());
    let events = answers(&lambda, "next", 2).await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["body"]["eventType"], "INVOKE");
    assert_eq!(events[0]["body"]["requestId"], invoked.request_id.as_str());
    assert_eq!(events[1]["body"]["eventType"], "SHUTDOWN");
    assert_eq!(events[1]["body"]["shutdownReason"], "spindown");
    assert!(lambda.crashes().is_empty());
}

#[tokio::test]
async fn what_an_extension_adds_is_measured() {
    let script = "register=INVOKE,SHUTDOWN\nwork=30\nloop";
    let lambda = probe(script).start().await.unwrap();
    let held = lambda.invoke(Invocation::new()).await.unwrap();
    assert!(held.extensions.unwrap() >= ms(30));
    assert!(held.added_micros() > 0 && held.client_waited < held.extensions.unwrap());
    let busy = lambda.invoke(Invocation::new().runs_for(ms(200))).await.unwrap();
    for invoked in [held, busy] {
        assert_eq!(invoked.added, invoked.extensions.unwrap().saturating_sub(invoked.function));
    }
}

#[tokio::test]
async fn a_function_that_outlasts_its_extensions_ends_after_them() {
    let lambda = probe("register=INVOKE,SHUTDOWN\nwork=30\nloop").start().await.unwrap();
    let invoked = lambda.invoke(Invocation::new().outlasts_extensions()).await.unwrap();
    assert!(invoked.succeeded());
    assert!(invoked.function >= invoked.extensions.unwrap());
    assert_eq!(invoked.added, ms(0));
}

#[tokio::test]
async fn the_extension_is_stopped_between_invocations() {
    let lambda = probe(LOOP).freeze(Freeze::After(ms(1))).start().await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.frozen().await;
    let pid = lambda.process_ids()[0];
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The signal has been sent; the kernel stops the process when it next gets hold of it.
    while !state().contains(") T ") {
        tokio::task::yield_now().await;
    }
    assert!(lambda.invoke(Invocation::new()).await.unwrap().succeeded());
    assert!(lambda.shutdown(ShutdownReason::Spindown).await.exited_by_itself());
}

#[tokio::test]
async fn shutdown_reaches_an_environment_that_was_never_invoked() {
    let lambda = probe(LOOP).start().await.unwrap();
    lambda.frozen().await;
    let end = lambda.shutdown(ShutdownReason::Spindown).await;
    assert!(end.exited_by_itself());
    assert_eq!(answers(&lambda, "next", 1).await[0]["body"]["eventType"], "SHUTDOWN");
}

#[tokio::test]
async fn an_extension_that_overstays_is_killed_at_the_deadline() {
    let script = "register=INVOKE,SHUTDOWN\nnext\nhang";
    let shutdown = ShutdownOptions { budget: ms(40), runtime_stops_in: ms(5) };
    let lambda = probe(script).shutdown(shutdown).start().await.unwrap();
    let end = lambda.shutdown(ShutdownReason::Spindown).await;
    assert!(!end.exited_by_itself());
    assert_eq!(end.extensions[0].exit.unwrap().signal, Some(9));
    assert_eq!(end.left(), None);
    assert!(end.took() >= ms(40));
}

#[tokio::test]
async fn an_extension_without_a_shutdown_subscription_is_killed_at_once() {
    let lambda = probe("register=INVOKE\nloop").start().await.unwrap();
    let end = lambda.shutdown(ShutdownReason::Spindown).await;
    assert!(end.extensions[0].killed);
    assert_eq!(end.extensions[0].exit.unwrap().signal, Some(9));
}

#[tokio::test]
async fn a_time_out_resets_the_environment_and_the_next_invocation_initialises_again() {
    let lambda = probe(LOOP).timeout(AGAIN).freeze(Freeze::Off).start().await.unwrap();
    let invoked = lambda.invoke(Invocation::new().line("before").times_out()).await.unwrap();
    assert_eq!(invoked.error_type(), Some("Sandbox.Timedout"));
    let reset = invoked.reset.unwrap();
    assert_eq!(reset.reason, ShutdownReason::Timeout);
    assert!(reset.exited_by_itself());
    let again = lambda.invoke(Invocation::new()).await.unwrap();
    assert!(again.cold && again.succeeded());
    assert_eq!(lambda.init_times().unwrap().phase, Phase::Invoke);
    let registered = answers(&lambda, "register", 2).await;
    assert_eq!(registered.len(), 2);
    let id = |at: usize| registered[at]["headers"]["lambda-extension-identifier"].clone();
    assert_ne!(id(0), id(1), "a new identifier");
    let reason = answers(&lambda, "next", 2).await[1]["body"]["shutdownReason"].clone();
    assert_eq!(reason, "timeout");
    lambda
        .until_acknowledges(|event| event.kind == "platform.initStart" && event.value()["phase"] == "invoke")
        .await;
}

#[tokio::test]
async fn an_extension_that_never_lets_go_times_the_invocation_out() {
    let lambda =
        probe("register=INVOKE,SHUTDOWN\nnext\nsleep=100\nnext").timeout(ms(50)).start().await.unwrap();
    let invoked = lambda.invoke(Invocation::new()).await.unwrap();
    assert!(invoked.succeeded(), "the client already had its response");
    assert_eq!(invoked.extensions, None);
    let reset = invoked.reset.unwrap();
    assert_eq!(reset.reason, ShutdownReason::Timeout);
    assert!(reset.exited_by_itself(), "SHUTDOWN waits for an extension that is busy");
}

#[tokio::test]
async fn the_exit_of_the_runtime_resets_the_environment() {
    let lambda = probe(LOOP).start().await.unwrap();
    let invoked = lambda.invoke(Invocation::new().exits(3)).await.unwrap();
    assert_eq!(invoked.error_type(), Some("Runtime.ExitError"));
    assert_eq!(invoked.reset.unwrap().reason, ShutdownReason::Failure);
    assert!(lambda.invoke(Invocation::new()).await.unwrap().cold);
}

#[tokio::test]
async fn a_handled_error_leaves_the_environment_alive() {
    let lambda = probe(LOOP).start().await.unwrap();
    let invoked = lambda.invoke(Invocation::new().fails("ValueError")).await.unwrap();
    assert_eq!(invoked.error_type(), Some("ValueError"));
    assert_eq!(invoked.reset, None);
    assert!(!lambda.invoke(Invocation::new()).await.unwrap().cold);
}

#[tokio::test]
async fn every_exit_is_a_crash_even_with_code_0() {
    for (code, wording) in [(0, "exit code 0"), (7, "exit status 7")] {
        let script = format!("register=INVOKE,SHUTDOWN\nnext\nexit={code}");
        let lambda = probe(&script).start().await.unwrap();
        let invoked = lambda.invoke(Invocation::new().runs_for(ms(2_000))).await.unwrap();
        assert_eq!(invoked.error_type(), Some("Extension.Crash"));
        let message = invoked.response.as_ref().unwrap_err().message.clone();
        assert_eq!(message, format!("RequestId: {} Error: {wording}", invoked.request_id));
        assert_eq!(lambda.crashes()[0].exit.code, Some(code));
    }
}

#[tokio::test]
async fn a_crash_between_invocations_is_recorded_and_the_next_one_starts_afresh() {
    let lambda =
        probe("register=INVOKE,SHUTDOWN\nnext\nnext-drop\nexit=4").freeze(Freeze::Off).start().await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.until_extension("probe-extension", outlast_simulator::ExtensionState::Exited).await;
    assert_eq!(lambda.crashes().len(), 1);
    assert!(lambda.invoke(Invocation::new()).await.unwrap().cold);
}

#[tokio::test]
async fn a_crash_in_init_fails_it() {
    for (script, error) in [
        ("exit=1", "Extension.Crash"),
        ("register=INVOKE,SHUTDOWN\ninit-error=Extension.NoConfig\nhang", "Extension.InitError"),
        ("register=INVOKE,SHUTDOWN\nexit-error=Extension.Gone\nhang", "Extension.ExitError"),
    ] {
        let failed = probe(script).shutdown(BRIEF).start().await.unwrap_err();
        assert!(failed.to_string().contains(error), "{failed}");
    }
}

#[tokio::test]
async fn a_stray_file_among_the_extensions_is_a_launch_error() {
    let failed =
        Sandbox::builder(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).start().await.unwrap_err();
    assert!(failed.to_string().contains("Extension.LaunchError"), "{failed}");
    assert!(failed.to_string().contains("PermissionDenied"), "{failed}");
    assert!(Sandbox::builder("/nowhere/at-all").start().await.is_err());
}

#[tokio::test]
async fn an_init_that_takes_too_long_is_repeated_inside_the_first_invocation() {
    let lambda = probe("register=INVOKE,SHUTDOWN\nhang")
        .init_limit(ms(50))
        .shutdown(BRIEF)
        .suppress_failed_init()
        .start()
        .await
        .unwrap();
    let failed = lambda.invoke(Invocation::new()).await.unwrap_err();
    assert!(failed.to_string().contains("Sandbox.Timedout"), "{failed}");
}

#[tokio::test]
async fn a_killed_environment_comes_back_with_the_next_invocation() {
    let lambda = probe(LOOP).start().await.unwrap();
    lambda.invoke(Invocation::new()).await.unwrap();
    lambda.frozen().await;
    lambda.kill().await;
    assert!(lambda.process_ids().is_empty());
    assert!(lambda.crashes().is_empty(), "it was asked for");
    assert!(lambda.invoke(Invocation::new()).await.unwrap().succeeded());
}

#[tokio::test]
async fn a_kill_in_the_middle_fails_the_invocation() {
    let lambda = probe(LOOP).start().await.unwrap();
    let (invoked, ()) = tokio::join!(lambda.invoke(Invocation::new().runs_for(ms(2_000))), async {
        tokio::time::sleep(ms(10)).await;
        lambda.kill().await;
    });
    assert_eq!(invoked.unwrap().error_type(), Some("Extension.Crash"));
    assert!(lambda.invoke(Invocation::new()).await.unwrap().succeeded());
}

#[tokio::test]
async fn no_process_outlives_its_sandbox() {
    let lambda = probe(LOOP).start().await.unwrap();
    let pid = lambda.process_ids()[0];
    drop(lambda);
    let alive =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_environment_is_lambdas_and_nothing_else() {
    let lambda = probe("register=INVOKE,SHUTDOWN\nenv\nloop")
        .env("MINE", "1")
        .env("_HIDDEN", "1")
        .start()
        .await
        .unwrap();
    let answer = answers(&lambda, "env", 1).await.remove(0);
    assert_eq!(answer["cwd"], "/");
    let env = answer["env"].as_object().unwrap();
    assert_eq!(env["MINE"], "1");
    assert_eq!(env["AWS_LAMBDA_RUNTIME_API"], lambda.api_address().to_string());
    assert_eq!(env["AWS_LAMBDA_INITIALIZATION_TYPE"], "on-demand");
    for absent in ["_HIDDEN", "_HANDLER", "HOME", "CARGO", "AWS_EXECUTION_ENV", "LAMBDA_TASK_ROOT"] {
        assert!(!env.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn the_output_of_an_extension_is_captured_line_by_line() {
    let lambda =
        probe("register=INVOKE,SHUTDOWN\nprint=to stdout\nerror=to stderr\nloop").start().await.unwrap();
    assert!(!lambda.until_output(|line| line == "to stdout").await.stderr);
    assert!(lambda.until_output(|line| line == "to stderr").await.stderr);
    assert!(!steps(&lambda).is_empty());
}

#[tokio::test]
async fn extensions_die_with_a_simulator_that_is_killed() {
    let out = std::env::temp_dir().join(format!("outlast-guarded-{:x}", std::process::id()));
    let mut simulator = tokio::process::Command::new(env!("CARGO_BIN_EXE_outlast-simulator"))
        .args([
            "--extension",
            common::PROBE,
            "--run-ms",
            "2500",
            "--env",
            "PROBE=register=INVOKE,SHUTDOWN\nenv\nloop",
        ])
        .arg("--env")
        .arg(format!("PROBE_OUT={}", out.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = loop {
        let log = std::fs::read_to_string(&out).unwrap_or_default();
        let mut env = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        if let Some(pid) = env.find_map(|step| step["pid"].as_u64()) {
            break pid;
        }
        tokio::task::yield_now().await;
    };
    simulator.kill().await.unwrap();
    let alive =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() {
        tokio::task::yield_now().await;
    }
    std::fs::remove_file(out).unwrap();
}

#[tokio::test]
async fn the_program_tries_an_extension_and_sums_up() {
    const SCRIPT: &str = "PROBE=register=INVOKE,SHUTDOWN\nlisten\nsubscribe\nloop";
    const CRASH: &str = "PROBE=register=INVOKE\nnext\nexit=1";
    let run = async |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_outlast-simulator");
        tokio::process::Command::new(program).args(arguments).output().await.unwrap()
    };
    let good =
        run(&["--extension", common::PROBE, "--invocations", "2", "--run-ms", "1", "--env", SCRIPT]).await;
    let text = String::from_utf8(good.stdout).unwrap();
    assert!(good.status.success(), "{text}");
    assert!(text.contains("added per invocation: median") && text.contains("left by itself"), "{text}");
    let bad = run(&["--extension", common::PROBE, "--invocations", "1", "--env", CRASH]).await;
    assert_eq!(bad.status.code(), Some(1), "a crash is a failure");
    assert_eq!(run(&["--nonsense"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn a_snapshot_of_the_disk_starts_two_environments() {
    let root = std::env::temp_dir().join(format!("outlast-snapshot-{:x}", std::process::id()));
    std::fs::create_dir_all(root.join("published/deep")).unwrap();
    std::fs::write(root.join("published/deep/file"), "kept").unwrap();
    for copy in ["first", "second"] {
        outlast_simulator::copy_directory(root.join("published"), root.join(copy)).unwrap();
        assert_eq!(std::fs::read_to_string(root.join(copy).join("deep/file")).unwrap(), "kept");
    }
    std::fs::remove_dir_all(root).unwrap();
}
