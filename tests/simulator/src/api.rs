//! The HTTP front: the Extensions API and the subscribing side of the Telemetry API on one port.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::answer::Answer;
use crate::clock::lock;
use crate::options::{InitializationType, Schema};
use crate::registry::{ErrorCall, Next};
use crate::sandbox::Core;
use crate::subscription;

/// Serves until it is aborted.
pub(crate) async fn serve(listener: TcpListener, core: Arc<Core>) {
    loop {
        // A failed accept concerns one connection, or passes.
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(serve_connection(stream, Arc::clone(&core)));
    }
}

async fn serve_connection(stream: TcpStream, core: Arc<Core>) {
    // Milliseconds are measured through this socket.
    let _best_effort = stream.set_nodelay(true).is_ok();
    let service = service_fn(move |request| {
        let core = Arc::clone(&core);
        async move { Ok::<_, Infallible>(respond(&core, request).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A broken connection is the extension's affair: a killed process leaves one each time.
    let _ended = connection.await.is_ok();
}

async fn respond(core: &Core, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_end_matches('/').to_owned();
    if (&head.method, path.as_str()) == (&Method::GET, "/2020-01-01/extension/event/next") {
        return render(next(core, &head.headers, arrived).await);
    }
    let Ok(body) = body.collect().await else {
        return render(Answer::internal_error());
    };
    let body = body.to_bytes();
    let answer = match (&head.method, path.as_str()) {
        (&Method::POST, "/2020-01-01/extension/register") => register(core, &head.headers, &body),
        (&Method::POST, "/2020-01-01/extension/init/error") => error(core, ErrorCall::Init, &head.headers),
        (&Method::POST, "/2020-01-01/extension/exit/error") => error(core, ErrorCall::Exit, &head.headers),
        (&Method::PUT, "/2022-07-01/telemetry") => subscribe(core, &head.headers, &body),
        (&Method::PUT, "/2020-08-15/logs") => {
            Answer::error(202, "Logs.NotSupported", "Logs API is not supported")
        }
        _ => Answer::json(404, "404 page not found".to_owned()),
    };
    core.hub.notify();
    render(answer)
}

async fn next(core: &Core, headers: &HeaderMap, arrived: Instant) -> Answer {
    let next = lock(&core.registry).next(header(headers, "lambda-extension-identifier"), arrived);
    core.hub.notify();
    match next {
        Next::Answer(answer) => answer,
        // The sender goes only with its environment, and then nobody is left to answer.
        Next::Wait(event) => match event.await {
            Ok(answer) => {
                tokio::time::sleep(core.options.events_late_by).await;
                answer
            }
            Err(_) => std::future::pending().await,
        },
    }
}

fn register(core: &Core, headers: &HeaderMap, body: &[u8]) -> Answer {
    let name = header(headers, "lambda-extension-name");
    let features = header(headers, "lambda-extension-accept-feature").unwrap_or_default();
    lock(&core.registry).register(name, features, body, &core.options.function)
}

fn error(core: &Core, call: ErrorCall, headers: &HeaderMap) -> Answer {
    let id = header(headers, "lambda-extension-identifier");
    let error_type = header(headers, "lambda-extension-function-error-type");
    lock(&core.registry).error(call, id, error_type)
}

fn subscribe(core: &Core, headers: &HeaderMap, body: &[u8]) -> Answer {
    let options = *lock(&core.hub.options);
    if !options.supported {
        // Such a sandbox does not look at the request at all.
        return Answer::error(202, "Telemetry.NotSupported", "Telemetry API is not supported");
    }
    let id = header(headers, "lambda-extension-identifier");
    let (name, open) = {
        let mut registry = lock(&core.registry);
        let open = registry.open;
        match registry.identify(id) {
            Ok(extension) => (extension.name.clone(), open),
            Err(refusal) => return refusal,
        }
    };
    let managed = core.options.initialization == InitializationType::ManagedInstances;
    let oldest = if managed { Schema::V20250129 } else { Schema::V20220701 };
    let subscription = match subscription::parse(body, oldest, options.newest_schema) {
        Ok(subscription) => subscription,
        Err(reason) => return Answer::error(400, "ValidationError", &reason),
    };
    if managed && core.hub.has_subscriber(&name) {
        return Answer::internal_error();
    }
    let subscribed = open.then(|| core.hub.subscribe(&name, subscription)).flatten();
    match subscribed {
        Some(()) => Answer::json(200, "\"OK\"".to_owned()),
        None => {
            Answer::refusal("Telemetry.SubscriptionClosed", "Telemetry API subscription is closed".to_owned())
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn render(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(answer.status);
    if !answer.headers.iter().any(|(name, _)| *name == "Content-Type") {
        response = response.header("content-type", "application/json");
    }
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Full::from(answer.body)).unwrap_or_default()
}
