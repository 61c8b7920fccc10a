//! The rules one by one: each test is a table of what happens and what comes of it.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

mod site;

mod authorize;
mod billing;
mod classify;
mod clocks;
mod gate;
mod health;
mod instruments;
mod invariants;
mod keys;
mod lease;
mod link;
mod modes;
mod order;
mod orders;
mod pace;
mod report;
mod rings;
mod session;
mod snapshot;
mod time;
mod trust;
mod why;
