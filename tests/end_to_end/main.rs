//! The real binary between a simulated Lambda and a scripted backend.
//!
//! Every test counts: what the extension acknowledged must be what the backend has, one by one and in order, plus
//! what drop reports account for. Tests wait for events; the only time-outs are [`support::PATIENCE`], which no
//! passing test meets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking
#![allow(clippy::disallowed_methods)] // the world around the extension keeps real time

mod account;
mod answers;
mod clients;
mod clock;
mod cost;
mod deliveries;
mod destinations;
mod disk;
#[path = "../soak/engine/mod.rs"]
mod engine;
mod extremes;
mod fallback;
mod freeze;
mod healthy;
mod hostile;
mod lines;
mod models;
mod modes;
mod names;
mod outage;
mod overflow;
mod own;
mod parts;
mod protocols;
mod quiet;
mod random;
mod rate;
mod receiver;
mod refusal;
mod reset;
mod room;
mod rules;
mod sdk;
mod sdks;
mod secrets;
mod shutdown;
mod signals;
mod stores;
mod support;
mod tls;
mod versions;
