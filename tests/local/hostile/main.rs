//! Tools that were made to break servers, run against `portolan dev` with real servers behind it: while they run a client
//! of good will is always answered, memory stays within what the bounds allow, and nothing panics.

#![allow(clippy::expect_used, reason = "in a suite a panic is the report")]

mod differentials;
mod fuzzer;
mod h2spec;
mod slow;
mod stand;
