//! A scripted store of secrets: answers whatever is asked as a test says, and remembers what it was asked. Whether requests
//! are signed as AWS wants them is judged by moto ([`crate::moto::Moto`]).

use std::{
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::{
    http::{HttpError, Io, Read},
    script::Answer,
    server::Server,
    shared::lock,
};

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// What a store does with requests.
#[derive(Clone, Debug, Default)]
pub enum Mood {
    /// Never answers.
    #[default]
    Hangs,
    /// Answers with this status and body.
    Answers(u16, String),
}

impl Mood {
    /// Gives `value` as a parameter of the Parameter Store.
    pub fn parameter(value: &str) -> Self {
        let value = serde_json::Value::from(value);
        Self::Answers(200, format!(r#"{{"Parameter":{{"Type":"SecureString","Value":{value}}}}}"#))
    }

    /// Gives `value` as a secret of Secrets Manager.
    pub fn secret(value: &str) -> Self {
        let value = serde_json::Value::from(value);
        Self::Answers(200, format!(r#"{{"Name":"n","SecretString":{value}}}"#))
    }

    /// Refuses as AWS does, in two lines.
    pub fn denied() -> Self {
        let body = r#"{"__type":"com.amazon#AccessDeniedException","Message":"User x is not\nauthorized"}"#;
        Self::Answers(400, body.to_owned())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A running store; it stops when this is dropped.
pub struct Keystore {
    server: Server<Shared>,
}

#[derive(Default)]
struct Shared {
    mood: Mutex<Mood>,
    asked: Mutex<Vec<Asked>>,
}

impl Keystore {
    /// Starts one on 127.0.0.1, on a port the system chooses.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start() -> io::Result<Self> {
        let server = Server::start(Shared::default(), serve).await?;
        Ok(Self { server })
    }

    /// What `AWS_ENDPOINT_URL_SSM` or `AWS_ENDPOINT_URL_SECRETS_MANAGER` is to be.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What happens to requests from now on.
    pub fn behave(&self, mood: Mood) {
        *lock(&self.server.shared.mood) = mood;
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.server.shared.asked).clone()
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Result<(), HttpError> {
    let Some(mut io) = Io::accept(stream, None).await else { return Ok(()) };
    while io.more().await {
        let head = io.head().await?;
        let Read::Whole(body) = io.body(&head, None).await? else { return Ok(()) };
        let mood = lock(&shared.mood).clone();
        lock(&shared.asked).push(Asked { headers: head.headers.clone(), body });
        let Mood::Answers(status, body) = mood else {
            io.gone().await;
            return Ok(());
        };
        io.answer(&Answer::new(status).body(CONTENT_TYPE, body), head.keep_alive, None).await?;
    }
    Ok(())
}
