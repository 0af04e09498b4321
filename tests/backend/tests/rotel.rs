//! A collector nobody here wrote takes the same requests as the scripted backend does, which shows that
//! the scripted one asks for what real ones ask for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use outlast_backend::{
    Backend,
    real::{RealError, Rotel},
};
use support::{Client, PATIENCE, gzip, logs};

#[tokio::test]
async fn a_real_collector_and_the_backend_take_the_same_request() {
    let name = "a_real_collector_and_the_backend_take_the_same_request";
    let Some(rotel) = Rotel::start_or_skip(name).await.unwrap() else { return };
    let backend = Backend::start().await.unwrap();
    let texts = ["run=1 inv=1 line=1 plain", "run=1 inv=1 line=2 \"quoted\"", "run=1 inv=1 line=3"];
    let body = gzip(&logs(&texts));
    for address in [rotel.address(), backend.address()] {
        let reply = Client::connect(address).await.exchange(&body, Some("gzip")).await;
        assert_eq!(reply.status, 200, "{address}: {}", reply.head);
    }
    assert_eq!(backend.texts(), texts);
    rotel
        .wait_for_texts(&["line=1 plain", "line=2", "line=3", "uid-2", "service.name"], PATIENCE)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_the_backend_got_is_forwarded_as_it_came() {
    let name = "what_the_backend_got_is_forwarded_as_it_came";
    let Some(rotel) = Rotel::start_or_skip(name).await.unwrap() else { return };
    let backend = Backend::builder().bodies().start().unwrap();
    let body = gzip(&logs(&["forwarded"]));
    Client::connect(backend.address()).await.exchange(&body, Some("gzip")).await;
    let request = backend.requests().remove(0);
    assert_eq!(request.body, body);
    rotel.forward(&request).await.unwrap();
    rotel.wait_for_texts(&["forwarded"], PATIENCE).await.unwrap();
    let refused = rotel.forward(&outlast_backend::Request { path: "/nowhere".to_owned(), ..request }).await;
    assert!(matches!(refused, Err(RealError::Refused(status)) if status.contains("404")));
}

#[tokio::test]
async fn a_text_that_was_not_sent_is_not_found() {
    let Some(rotel) = Rotel::start_or_skip("a_text_that_was_not_sent_is_not_found").await.unwrap() else {
        return;
    };
    Client::connect(rotel.address()).await.exchange(&logs(&["sent"]), None).await;
    rotel.wait_for_texts(&["sent"], PATIENCE).await.unwrap();
    let error = rotel.wait_for_texts(&["not sent at all"], std::time::Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("not sent at all"), "{error}");
}

#[tokio::test]
async fn both_refuse_what_is_not_protobuf() {
    let Some(rotel) = Rotel::start_or_skip("both_refuse_what_is_not_protobuf").await.unwrap() else { return };
    let backend = Backend::start().await.unwrap();
    for address in [rotel.address(), backend.address()] {
        let reply = Client::connect(address).await.exchange(b"not protobuf", None).await;
        assert!((400..500).contains(&reply.status), "{address}: {}", reply.head);
    }
}
