//! The policy in virtual time, against a model of queue, backend and function.

// A time that goes back is a finding: the subtraction should panic.
#![allow(clippy::unchecked_time_subtraction)]

mod corners;
mod edges;
mod fallback;
mod narrative;
mod outages;
mod properties;
mod table;
mod world;
