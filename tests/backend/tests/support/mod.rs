//! A plain client and requests to send with it. It shares nothing with the backend but the wire.

#![allow(dead_code, reason = "each test crate uses its part")]

use std::{io::Write, net::SocketAddr, time::Duration};

use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Long enough for any machine; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn string(text: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }
}

pub(crate) fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// An export request with one log record per text, the n-th with the uid `uid-n`.
pub(crate) fn logs(texts: &[&str]) -> Vec<u8> {
    let log_records = texts
        .iter()
        .enumerate()
        .map(|(n, text)| LogRecord {
            time_unix_nano: 1_700_000_000_000_000_000 + n as u64,
            observed_time_unix_nano: 1_700_000_001_000_000_000,
            severity_number: 9,
            severity_text: "INFO".to_owned(),
            body: Some(string(text)),
            attributes: vec![attribute("log.record.uid", string(&format!("uid-{n}")))],
            trace_id: vec![0xab; 16],
            span_id: vec![0xcd; 8],
            ..LogRecord::default()
        })
        .collect();
    let scope = InstrumentationScope { name: "test".to_owned(), ..InstrumentationScope::default() };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![attribute("service.name", string("shop"))],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    }
    .encode_to_vec()
}

pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    /// Sends a whole request to `/v1/logs`.
    pub(crate) async fn send(&mut self, body: &[u8], encoding: Option<&str>) {
        self.send_to("/v1/logs", body, encoding).await;
    }

    pub(crate) async fn send_to(&mut self, path: &str, body: &[u8], encoding: Option<&str>) {
        let head = head(path, body.len(), encoding);
        self.stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    }

    /// Reads one answer, however it is cut into packets.
    pub(crate) async fn reply(&mut self) -> std::io::Result<Reply> {
        tokio::time::timeout(PATIENCE, self.read_reply()).await.expect("an answer in time")
    }

    async fn read_reply(&mut self) -> std::io::Result<Reply> {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                let reply = Reply {
                    status: head.split(' ').nth(1).unwrap().parse().unwrap(),
                    body: bytes[end + 4..].to_vec(),
                    head,
                };
                let length: usize = reply.header("content-length").unwrap().parse().unwrap();
                if reply.body.len() == length {
                    return Ok(reply);
                }
            }
            if self.stream.read_buf(&mut bytes).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(crate) async fn exchange(&mut self, body: &[u8], encoding: Option<&str>) -> Reply {
        self.send(body, encoding).await;
        self.reply().await.unwrap()
    }

    /// What reading ends with: `Ok(0)` for FIN, an error for RST.
    pub(crate) async fn ends(&mut self) -> std::io::Result<usize> {
        let mut rest = [0; 1];
        tokio::time::timeout(PATIENCE, self.stream.read(&mut rest)).await.expect("an end in time")
    }
}

pub(crate) fn head(path: &str, length: usize, encoding: Option<&str>) -> String {
    let encoding = encoding.map(|name| format!("Content-Encoding: {name}\r\n")).unwrap_or_default();
    format!(
        "POST {path} HTTP/1.1\r\nHost: backend\r\nContent-Type: application/x-protobuf\r\n\
         {encoding}Content-Length: {length}\r\n\r\n"
    )
}
