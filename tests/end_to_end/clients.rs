//! A destination's own client against the scripted backend: what it sends is read as ours is, and what it is answered it
//! understands. So the backend judges the extension by the format that others speak, too.
//!
//! `tests/parts/get.sh elasticsearch` installs Elastic's; without it the test skips and says so, and fails with
//! `OUTLAST_REQUIRE_PARTS=1`.

use crate::refusal::poisoned;
use crate::sdks::part;
use crate::support::{World, invoke, leave, within};
use flate2::read::GzDecoder;
use outlast_backend::{Backend, Behaviour, Decode, Dialect, Request};
use outlast_simulator::Invocation;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Where the extension's documents go unless the endpoint has a path.
const INDEX: &str = "logs-outlast-default";

fn speaking_with_bodies() -> Backend {
    let builder = Backend::builder().dialect(Dialect::Elasticsearch).bodies();
    builder.decode(Decode::BeforeAnswer).start().unwrap()
}

fn plain(request: &Request) -> String {
    let mut text = String::new();
    GzDecoder::new(&request.body[..]).read_to_string(&mut text).unwrap();
    text
}

fn lines(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_bulk_request_is_what_elastics_own_client_makes_of_the_same_documents() {
    let test = "a_bulk_request_is_what_elastics_own_client_makes_of_the_same_documents";
    let Some(directory) = part("elasticsearch", "venv-elasticsearch", test) else { return };
    let world = World::around(speaking_with_bodies());
    let lambda = world
        .lambda()
        .env("OUTLAST_PROTOCOL", Dialect::Elasticsearch.name())
        .env("OUTLAST_HEADERS", Dialect::Elasticsearch.headers().unwrap())
        .env("OUTLAST_SIGNALS", "logs")
        .start()
        .await
        .unwrap();
    let line =
        Invocation::new().logs(5).line("poison").line(json!({"level": "WARN", "n": [1, "ü\n"]}).to_string());
    invoke(&lambda, line).await;
    world.until_delivered(&lambda).await;
    leave(&lambda).await;
    let requests = world.backend.requests();
    let ours = requests.iter().max_by_key(|request| request.records).unwrap();
    let documents = lines(&plain(ours));

    let theirs = speaking_with_bodies();
    theirs.behave(Behaviour::items(400, poisoned));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/clients/bulk.py");
    let mut client = Command::new(directory.join("bin/python"));
    client.arg(script).args([&theirs.url(), INDEX]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = client.kill_on_drop(true).spawn().unwrap();
    client.stdin.take().unwrap().write_all(plain(ours).as_bytes()).await.unwrap();
    let output = within("the client", client.wait_with_output()).await.unwrap();
    assert!(output.status.success());
    theirs.received(|received| assert_eq!(received.defects(), Vec::<&str>::new()));

    // The same address, and line by line the same actions and documents, ended as ours are.
    let [first, second] = &theirs.requests()[..] else { panic!("{:?}", theirs.requests()) };
    let path = |request: &Request| request.path.split('?').next().unwrap().to_owned();
    assert_eq!(path(first), path(ours));
    assert_eq!((path(second), first.encoding(), ours.encoding()), (path(ours), "gzip", "gzip"));
    let bare = |request: &Request| request.header("content-type").unwrap().replace("vnd.elasticsearch+", "");
    assert_eq!(bare(first).split(';').next(), ours.header("content-type"));
    assert!(plain(first).ends_with("}\n") && plain(ours).ends_with("}\n"));
    assert_eq!(lines(&plain(first)), documents);
    assert_eq!(first.records, ours.records);
    // Its helper says the same.
    assert_eq!(lines(&plain(second)), documents);

    // It understands each answer: taken or refused, then a conflict with what is there.
    let texts: Vec<bool> = documents
        .chunks(2)
        .map(|pair| pair[1]["message"].as_str().is_some_and(|text| text.contains("poison")))
        .collect();
    assert!(texts.contains(&true) && texts.contains(&false));
    let fates = |of_others: Value| -> Value {
        texts
            .iter()
            .map(
                |poison| if *poison { json!([400, "document_parsing_exception"]) } else { of_others.clone() },
            )
            .collect()
    };
    let told = lines(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(told, [fates(json!([201, null])), fates(json!([409, "version_conflict_engine_exception"]))]);
}
