//! The real binary between a simulated Lambda and a scripted backend.
//!
//! Every test counts: what the extension acknowledged must be what the backend has, one by one and in order, plus
//! what drop reports account for. Tests wait for events; the only time-outs are [`support::PATIENCE`], which no
//! passing test meets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking
#![allow(clippy::disallowed_methods)] // the world around the extension keeps real time

mod deliveries;
mod disk;
mod freeze;
mod healthy;
mod modes;
mod outage;
mod overflow;
mod parts;
mod protocols;
mod quiet;
mod refusal;
mod reset;
mod shutdown;
mod support;
