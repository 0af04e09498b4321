//! What a run of random faults is made of. The soak command and the end-to-end tests share it.
//!
//! [`plan`] is a pure function of the seed; [`play`] carries it out on a [`stage`] (backend, disk, clock, sandbox) and
//! [`account`] balances what was acknowledged with what arrived; [`requests`] tells what the extension could know of a request. [`kills`] and [`churn`] are runs of one kind of fault;
//! [`room`] makes a small disk, [`clock`] a wall clock that jumps.

#![allow(dead_code, reason = "each of its users leaves something out")]

pub(crate) mod account;
pub(crate) mod churn;
pub(crate) mod clock;
pub(crate) mod kills;
pub(crate) mod plan;
pub(crate) mod play;
pub(crate) mod requests;
pub(crate) mod room;
pub(crate) mod stage;
