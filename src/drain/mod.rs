//! Taking blocks from the queue to the backend: [`policy`] decides, [`executor`] acts.
//!
//! The policy and everything it is made of is pure: what is known of each signal (`lane`), of the backend
//! (`destination`), of the fallback (`standby`) and of the function (`hold`), delays (`retry`), and the search for a record that a backend
//! does not take (`isolate`). `event` is the language between it and whoever runs it.

mod average;
mod destination;
mod event;
pub mod executor;
mod hold;
mod isolate;
mod lane;
pub mod policy;
mod retry;
mod standby;
#[cfg(test)]
mod testing;
mod throttle;
