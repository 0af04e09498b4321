//! Taking blocks from the queue to the backend: [`policy`] decides, an executor acts.

mod average;
mod destination;
mod event;
pub mod executor;
mod hold;
mod isolate;
mod lane;
pub mod policy;
mod retry;
