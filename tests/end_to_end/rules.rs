//! The user's rules: what is left out is no loss, and what is redacted is nowhere.

use crate::support::{World, invoke, leave, lines_with, output, times, within};
use flate2::read::DeflateDecoder;
use outlast_backend::Behaviour;
use outlast_simulator::Invocation;
use serde_json::json;
use std::io::Read;
use std::path::Path;

const RULES: &str = r#"
[[rule]]
name = "chatter"
when.text = "^chatter"
drop = true

[[rule]]
name = "secrets"
redact.detect = ["card", "email"]
redact.keys = ["password"]
redact.regex = ["s3cr3t-[0-9]+"]
"#;
const SECRETS: [&str; 4] = ["4111111111111111", "bob@example.com", "hunter2", "s3cr3t-31415"];
const HEAD: &str = r#"[{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"#;

/// Everything below `directory`, as it is and as far as it inflates behind each head of a frame.
fn on_disk(directory: &Path) -> Vec<u8> {
    const FRAME: &[u8] = b"oLf1";
    const FRAME_HEADER_BYTES: usize = 96;
    const STORED_BYTES_AT: usize = 48;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(on_disk(&path));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(FRAME)) {
            let Some(head) = bytes.get(at..at + FRAME_HEADER_BYTES) else { continue };
            let stored = &head[STORED_BYTES_AT..STORED_BYTES_AT + size_of::<u32>()];
            let end = at + FRAME_HEADER_BYTES + u32::from_le_bytes(stored.try_into().unwrap()) as usize;
            let payload = bytes.get(at + FRAME_HEADER_BYTES..end).unwrap_or_default();
            // A block has no end of its own, which the decoder tells after all that it holds.
            drop(DeflateDecoder::new(payload).read_to_end(&mut found));
        }
        found.extend(bytes);
    }
    found
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|at| at == text.as_bytes())
}

#[track_caller]
fn holds_no_secret(bytes: &[u8]) {
    for secret in SECRETS {
        assert!(!has(bytes, secret), "{secret}");
    }
}

fn secretive() -> Invocation {
    Invocation::new()
        .line("card 4111111111111111 of bob@example.com, s3cr3t-31415")
        .line(json!({"message": "login", "password": "hunter2", "s3cr3t-31415": [{"n": 4_111_111_111_111_111_i64}]}).to_string())
        .line("said as ever")
}

#[tokio::test]
async fn a_secret_is_neither_on_disk_after_a_sigkill_nor_at_the_backend() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().env("OUTLAST_RULES", RULES).start().await.unwrap();
    for _ in 0..3 {
        invoke(&lambda, secretive()).await;
        lambda.emit(
            "function",
            &json!({"message": "object", "user": {"password": "hunter2", "mail": "bob@example.com"}}),
        );
        within("deliveries", lambda.settled()).await;
        lambda.kill().await;
        let disk = on_disk(&world.queue());
        holds_no_secret(&disk);
        assert!(has(&disk, "said as ever") && has(&disk, "[REDACTED]"), "it was looked at");
    }
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().line("the end")).await;
    world.until_delivered(&lambda).await;
    world.wait_for(|received| received.texts().contains(&"the end")).await;
    leave(&lambda).await;
    holds_no_secret(format!("{:?}", world.backend.records()).as_bytes());
    let times = times(&world.backend);
    assert_eq!(times["card [REDACTED] of [REDACTED], [REDACTED]"], 3);
    assert_eq!((times["object"], times["said as ever"]), (3, 3));
    assert_eq!(lines_with(&lambda, "by rules: \"secrets\" redacted"), 0, "nothing was in the last process");
}

#[tokio::test]
async fn the_first_part_of_a_cut_record_waits_on_disk_without_its_secrets() {
    let world = World::new().await;
    world.backend.behave(Behaviour::status(503));
    let lambda = world.lambda().env("OUTLAST_RULES", RULES).start().await.unwrap();
    invoke(&lambda, Invocation::new().line("begin")).await;
    within("deliveries", lambda.settled()).await;
    let long = "long and harmless ".repeat(2_000);
    let whole = json!({"message": format!("{long} bob@example.com {long} 4111111111111111 {long}"), "password": "hunter2"}).to_string();
    // Within the card's number.
    let at = whole.find("4111111111111111").unwrap() + 9;
    let frame = |part: &str| format!("{HEAD}{part}}}]").into_bytes();
    let (first, second) = (frame(&whole[..at]), frame(&whole[at..]));
    assert_eq!(lambda.inject(&first).await.unwrap(), 200);
    let disk = on_disk(&world.queue());
    holds_no_secret(&disk);
    assert!(!has(&disk, "411111"), "half of one");
    assert!(has(&disk, "long and harmless  [REDACTED] long"), "the rest is there");
    // Together in one process.
    assert_eq!(lambda.inject(&second).await.unwrap(), 200);
    holds_no_secret(&on_disk(&world.queue()));
    // With a SIGKILL between them: what was only in memory is gone, and told to be.
    let (other, rest) =
        (frame(&whole[..at].replace("long", "wide")), frame(&whole[at..].replace("long", "wide")));
    assert_eq!(lambda.inject(&other).await.unwrap(), 200);
    lambda.kill().await;
    holds_no_secret(&on_disk(&world.queue()));
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new().line("between")).await;
    within("deliveries", lambda.settled()).await;
    assert_eq!(lambda.inject(&rest).await.unwrap(), 200);
    invoke(&lambda, Invocation::new().line("the end")).await;
    let texts = [
        format!("{long} [REDACTED] {long} [REDACTED] {long}"),
        "[outlast: up to 4096 bytes withheld]".to_owned(),
    ];
    for text in &texts {
        world.wait_for(|received| received.texts().iter().any(|got| got.contains(text.as_str()))).await;
    }
    world.wait_for(|received| received.texts().contains(&"the end")).await;
    leave(&lambda).await;
    holds_no_secret(format!("{:?}", world.backend.records()).as_bytes());
    assert_eq!(world.reported(), 0);
}

#[tokio::test]
async fn what_rules_leave_out_is_acknowledged_and_counted_and_no_loss() {
    let world = World::new().await;
    let lambda = world.lambda().env("OUTLAST_RULES", RULES).start().await.unwrap();
    for _ in 0..3 {
        let chatter = Invocation::new().line("chatter 1").line("to be sent").line("chatter 2");
        invoke(&lambda, chatter.line("s3cr3t-31415")).await;
    }
    // Nothing is left of it, and it is known all the same.
    let empty = format!(r#"{HEAD}"chatter 3"}}]"#);
    for _ in 0..2 {
        assert_eq!(lambda.inject(empty.as_bytes()).await.unwrap(), 200);
    }
    within("deliveries", lambda.settled()).await;
    world
        .wait_for(|received| received.texts().iter().filter(|text| **text == "to be sent").count() == 3)
        .await;
    world
        .wait_for(|received| received.texts().iter().filter(|text| **text == "[REDACTED]").count() == 3)
        .await;
    leave(&lambda).await;
    assert!(world.backend.texts().iter().all(|text| !text.contains("chatter")));
    assert_eq!(world.reported(), 0);
    let last = "0 dropped; by rules: \"chatter\" dropped 7, \"secrets\" redacted 3";
    assert_eq!(lines_with(&lambda, last), 1, "{:?}", output(&lambda));
}

#[tokio::test]
async fn wrong_rules_are_told_and_the_others_work_from_a_file_too() {
    let world = World::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.toml");
    std::fs::write(&file, format!("[[rule]]\nname = \"typo\"\ndorp = true\n{RULES}")).unwrap();
    let builder =
        world.lambda().env("OUTLAST_RULES", file.display()).env("OUTLAST_OTLP_RECEIVER", "127.0.0.1:0");
    let lambda = builder.start().await.unwrap();
    invoke(&lambda, secretive().line("chatter")).await;
    world.wait_for(|received| received.texts().contains(&"said as ever")).await;
    leave(&lambda).await;
    holds_no_secret(format!("{:?}", world.backend.records()).as_bytes());
    assert!(!world.backend.texts().iter().any(|text| text == "chatter"));
    assert_eq!(lines_with(&lambda, "OUTLAST_RULES: line 3, rule \"typo\": `dorp` is not known"), 1);
    assert_eq!(lines_with(&lambda, "the OTLP receiver takes is sent as it came"), 1);
    // A file that is not there is no reason to do nothing.
    let lambda = world.lambda().env("OUTLAST_RULES", "/nowhere/rules.toml").start().await.unwrap();
    invoke(&lambda, Invocation::new().line("without rules")).await;
    world.wait_for(|received| received.texts().contains(&"without rules")).await;
    leave(&lambda).await;
    assert_eq!(lines_with(&lambda, "OUTLAST_RULES: /nowhere/rules.toml cannot be read"), 1);
}
