//! What a run of random faults is made of. The soak command and the end-to-end tests share it.
//!
//! [`plan`] is a pure function of the seed; [`play`] carries it out on a [`stage`] (disk, clock, sandbox, [`backends`]). The
//! [`books`] have an [`account`] for each destination, which balances what was acknowledged with what arrived, and what one
//! [`watch`]es besides; [`requests`] tells what the extension could know of a request, [`last_line`] what it said at the end.
//! [`kills`] and [`churn`] are runs of one kind of fault; [`room`] makes a small disk, [`clock`] a wall clock that jumps.

#![allow(dead_code, reason = "each of its users leaves something out")]

pub(crate) mod account;
pub(crate) mod backends;
pub(crate) mod books;
pub(crate) mod churn;
pub(crate) mod clock;
pub(crate) mod kills;
pub(crate) mod last_line;
pub(crate) mod plan;
pub(crate) mod play;
pub(crate) mod requests;
pub(crate) mod room;
pub(crate) mod stage;
pub(crate) mod watch;
