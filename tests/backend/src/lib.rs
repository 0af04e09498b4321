//! A scripted OTLP/HTTP backend: a receiver on 127.0.0.1 that takes logs, metrics and traces, remembers
//! every request and every record in the order of arrival, and misbehaves on command.
//!
//! It stands in for whatever a user sends telemetry to, so it shares no code with the sender under test:
//! protobuf is decoded with `opentelemetry-proto`, gzip by a decoder that accepts exactly one member and
//! nothing after it ([`gzip`]), HTTP by a small parser of its own.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use outlast_backend::{Answer, Backend, Behaviour, Door};
//!
//! let backend = Backend::start().await?;
//! println!("send to {}", backend.url());
//! backend.next(Behaviour::answer(Answer::new(503).retry_after_seconds(2))); // the next request only
//! backend.behave(Behaviour::too_large_above_plain(100_000)); // every other one
//! backend.set_door(Door::Refused).await?; // nobody listens
//! backend.recover().await?; // healthy again, on the same port
//! backend.wait_for(|received| received.records().len() >= 10, Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | module | idea |
//! |---|---|
//! | `backend` | the handle a test holds, and the loop that accepts connections |
//! | [`door`] | the listening socket: open, refused, never accepted, unreachable |
//! | [`tls`] | certificates for a TLS door, good and wrong |
//! | [`script`] | what the answer to a request is, and what decides it |
//! | [`received`] | what arrived, and how it compares with what was expected |
//! | [`record`], `decode` | one log record, data point or span, as the wire said it |
//! | [`dialect`] | the protocols of other destinations |
//! | `connection`, `http`, `body` | one connection, byte by byte |
//! | `shared` | what connections and the handle share |
//! | `server` | a port and its connections, for the small ones below |
//! | [`gzip`] | RFC 1952, strictly |
//! | [`command`] | the script as text, for the binary |
//! | [`proxy`] | an HTTP proxy |
//! | [`bucket`], [`keystore`] | a bucket of S3, a store of secrets |
//! | [`real`], [`moto`] | an OpenTelemetry collector and an S3 nobody here wrote |

#![allow(
    clippy::disallowed_methods,
    reason = "a peer on the network keeps its own time; only the crate under test has its time passed in"
)]

pub mod acks;
mod backend;
mod body;
pub mod bucket;
pub mod command;
mod connection;
mod decode;
pub mod dialect;
pub mod door;
pub mod gzip;
mod http;
pub mod keystore;
pub mod moto;
pub mod proxy;
pub mod real;
pub mod received;
pub mod record;
pub mod script;
mod server;
mod shared;
pub mod tls;

pub use acks::Indexing;
pub use backend::{Backend, BackendError, Builder, Decode};
pub use dialect::Dialect;
pub use door::Door;
pub use received::{Received, Request, Verdict};
pub use record::{Attributes, Keep, Record, Signal};
pub use script::{Answer, Behaviour, Condition, Fate, Reset, Rest};
