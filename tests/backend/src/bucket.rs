//! A scripted bucket: takes objects by PUT, in the path style of S3, gives and lists them, and misbehaves on command. Whether requests are signed
//! as AWS wants them is not judged here but by moto ([`crate::moto::Moto`]).

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{net::TcpStream, sync::watch, time::timeout};

use crate::{
    body::Body,
    dialect::Dialect,
    http::{Head, HttpError, Io, Read},
    record::{Record, Signal},
    script::Answer,
    server::Server,
    shared::lock,
};

/// What a bucket does with requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Keeps the object.
    #[default]
    Takes,
    /// Answers with this status and keeps nothing.
    Answers(u16),
    /// Keeps the object and never answers.
    Hangs,
}

/// An object as it was put.
#[derive(Clone, Debug)]
pub struct Object {
    /// What it holds.
    pub body: Bytes,
    /// Of the request; names in lower case.
    pub headers: Vec<(String, String)>,
    /// How often it was put.
    pub puts: usize,
}

impl Object {
    /// The value of a header of the request.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The records in it.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub fn records(&self, signal: Signal) -> Result<Vec<Record>, String> {
        records(signal, &self.body)
    }
}

/// The records of a request body that is one gzip member.
///
/// # Errors
/// What is wrong with the body.
pub fn records(signal: Signal, body: &[u8]) -> Result<Vec<Record>, String> {
    let body = Body { wire: Bytes::copy_from_slice(body), gzip: true };
    body.decode(Dialect::default(), signal, 0).map(|(_, records)| records)
}

/// A running bucket; it stops when this is dropped.
pub struct Bucket {
    server: Server<Shared>,
}

#[derive(Default)]
struct Shared {
    mood: Mutex<Mood>,
    objects: Mutex<BTreeMap<String, Object>>,
    /// Requests that were read to their end.
    requests: watch::Sender<usize>,
}

impl Bucket {
    /// Starts one on 127.0.0.1, on a port the system chooses.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start() -> io::Result<Self> {
        let server = Server::start(Shared::default(), serve).await?;
        Ok(Self { server })
    }

    /// What `AWS_ENDPOINT_URL_S3` is to be.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What happens to requests from now on.
    pub fn behave(&self, mood: Mood) {
        *lock(&self.server.shared.mood) = mood;
    }

    /// Every object by its path, the name of the bucket first.
    pub fn objects(&self) -> BTreeMap<String, Object> {
        lock(&self.server.shared.objects).clone()
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        *self.server.shared.requests.borrow()
    }

    /// Waits for so many requests in all. False if they do not come in time.
    pub async fn until_requests(&self, count: usize, within: Duration) -> bool {
        let mut requests = self.server.shared.requests.subscribe();
        timeout(within, requests.wait_for(|requests| *requests >= count))
            .await
            .is_ok_and(|found| found.is_ok())
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Result<(), HttpError> {
    let Some(mut io) = Io::accept(stream, None).await else { return Ok(()) };
    while io.more().await {
        let head = io.head().await?;
        let Read::Whole(body) = io.body(&head, None).await? else { return Ok(()) };
        let mood = *lock(&shared.mood);
        let answer = match mood {
            Mood::Takes if head.method == "GET" => read(&shared, &head.path),
            _ if head.method != "PUT" => Answer::explained(405, "only PUT, and GET while it takes"),
            Mood::Takes | Mood::Hangs => {
                keep(&shared, &head, body);
                Answer::new(200).body("application/xml", Bytes::new())
            }
            Mood::Answers(status) => Answer::new(status)
                .body("application/xml", format!("<Error><Code>Scripted{status}</Code></Error>")),
        };
        shared.requests.send_modify(|requests| *requests += 1);
        if mood == Mood::Hangs {
            io.gone().await;
            return Ok(());
        }
        io.answer(&answer, head.keep_alive, None).await?;
    }
    Ok(())
}

/// An object, or a page of all of them, of the bucket that the path begins with.
fn read(shared: &Shared, path: &str) -> Answer {
    let objects = lock(&shared.objects);
    let path = path.trim_start_matches('/');
    let Some((bucket, _)) = path.split_once("/?list-type=2") else {
        return objects.get(path).map_or_else(
            || Answer::explained(404, "no such key"),
            |object| Answer::new(200).body("application/octet-stream", object.body.clone()),
        );
    };
    let of_bucket = objects.iter().filter_map(|(path, object)| {
        let key = path.strip_prefix(bucket)?.strip_prefix('/')?;
        Some(format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", object.body.len()))
    });
    let page = format!("<ListBucketResult>{}</ListBucketResult>", of_bucket.collect::<String>());
    Answer::new(200).body("application/xml", page)
}

fn keep(shared: &Shared, head: &Head, body: Bytes) {
    let path = head.path.trim_start_matches('/').to_owned();
    let mut objects = lock(&shared.objects);
    let puts = objects.get(&path).map_or(0, |object| object.puts) + 1;
    objects.insert(path, Object { body, headers: head.headers.clone(), puts });
}
